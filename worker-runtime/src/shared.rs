//! The shared runtime: hosts activities in any language, by the handlers of its configuration.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::task::JoinSet;

use crate::activity::Tasks;
use crate::devices::Devices;
use crate::handler::{HandlerTable, Programs};
use crate::lifecycle::Stage;
use crate::link;
use crate::options::Options;
use crate::process::Process;
use crate::queue::{self, Shared};
use crate::report::Reporter;
use crate::{process, slots, token};

/// Checks files as [`run`] does at its start, without connecting, and says in words what would run.
///
/// # Errors
/// Everything that is wrong: the file, the line or the field, the value, and what to do.
pub fn check(config: &Path, limits: Option<&Path>) -> anyhow::Result<String> {
    let (config, limits) = process::files(Some(config), limits)?;
    let config = config.context("no configuration; name its file with --config")?;
    let handlers = HandlerTable::new(&config, &limits, &Arc::default(), None)?;
    let queues: Vec<_> =
        config.task_queues.iter().map(|name| format!("{name} ({} slots)", limits.slots(name))).collect();
    Ok(format!("Task Queues: {}\nactivities: {}", queues.join(", "), handlers.activity_types().join(", ")))
}

/// Runs until SIGTERM or SIGINT and its drain.
///
/// # Errors
/// The configuration can't run, or a port can't be bound.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let process = Process::start(options).await?;
    let config = process.config.as_ref().context("no configuration; name its file with --config")?;
    let token = options.token_file.as_deref().map(token::create).transpose()?;
    let handlers = HandlerTable::new(config, &process.limits, &Programs::open(), token)?;
    let task_queues = config.task_queues.clone();
    // Handlers run as the same user, and could otherwise read the API key from this process's environment.
    nix::sys::prctl::set_dumpable(false).context("cannot hide the environment from handlers")?;
    process.run(async |process| serve(process, task_queues, handlers).await).await
}

async fn serve(process: &Process, task_queues: Vec<String>, handlers: HandlerTable) -> anyhow::Result<()> {
    let Process { settings, limits, metrics, lifecycle, encryption, cordon, .. } = process;
    let (link, keeper) = tokio::select! {
        opened = link::open(settings, process.polls(), metrics) => opened?,
        () = lifecycle.reached(Stage::Draining) => return Ok(()),
    };
    let reporter = Reporter::new(link.clone(), settings, encryption.clone());
    let handlers = Arc::new(handlers);
    let shared = Arc::new(Shared {
        runtime: process.runtime.clone(),
        link,
        settings: settings.clone(),
        lifecycle: lifecycle.clone(),
        cordon: cordon.clone(),
        settle_limit: slots::settle_limit(limits.drain_timeout()),
    });
    let devices = Devices::default();
    let mut queues = JoinSet::new();
    let (polled, mut all_polled) = tokio::sync::mpsc::channel::<()>(1);
    for task_queue in task_queues {
        let slots = limits.slots(&task_queue);
        let device_count = limits.task_queues.get(&task_queue).and_then(|limits| limits.devices);
        let tasks = Arc::new(Tasks {
            task_queue,
            devices: devices.clone(),
            device_count,
            handlers: handlers.clone(),
            reporter: reporter.clone(),
            metrics: metrics.clone(),
            encryption: encryption.clone(),
            abandon: lifecycle.abandon_tasks(),
        });
        let polled = polled.clone();
        queues.spawn(queue::serve(shared.clone(), tasks, slots, || drop(polled)));
    }
    drop(polled);
    // The channel closes with its last sender: once every Task Queue is polled.
    let ready = async {
        all_polled.recv().await;
        lifecycle.reach(Stage::Serving);
    };
    let ended = async {
        while let Some(ended) = queues.join_next().await {
            ended.context("a Task Queue's task ended in a panic")?;
        }
        Ok(())
    };
    tokio::select! {
        ended = async { tokio::join!(ready, ended).1 } => ended,
        () = keeper.keep() => Ok(()),
    }
}
