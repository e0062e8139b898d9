//! The shared runtime: hosts activities in any language, by the handlers of its configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use futures::FutureExt as _;
use futures::future::join_all;
use operator_core::contract::{RuntimeConfig, RuntimeLimits};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::activity::Tasks;
use crate::devices::Devices;
use crate::files::{Files, Paths, Told};
use crate::handler::{HandlerTable, Programs};
use crate::lifecycle::{Ended, Stage};
use crate::options::Options;
use crate::process::Process;
use crate::queue::{self, Shared, Wish};
use crate::report::Reporter;
use crate::resources::Controllers;
use crate::trace::Traces;
use crate::{limits, link, token};

/// Checks files as [`run`] does at its start, without connecting, and says in words what would run.
///
/// # Errors
/// Everything that is wrong: the file, the line or the field, the value, and what to do.
pub fn check(config: &Path, limits: Option<&Path>) -> anyhow::Result<String> {
    let paths = Paths { config: Some(config.to_owned()), limits: limits.map(Path::to_owned) };
    let told = paths.read()?;
    limits::check(&told.limits)?;
    let config = configuration(&told)?;
    let handlers = HandlerTable::new(config, &told.limits, &Arc::default(), None)?;
    let slots = |name: &String| format!("{name} ({} slots)", told.limits.slots(name));
    let queues: Vec<_> = config.task_queues.iter().map(slots).collect();
    Ok(format!("Task Queues: {}\nactivities: {}", queues.join(", "), handlers.activity_types().join(", ")))
}

fn configuration(told: &Told) -> anyhow::Result<&RuntimeConfig> {
    told.config.as_ref().context("no configuration; name its file with --config")
}

/// Runs until SIGTERM or SIGINT and its drain. Says how that went.
///
/// # Errors
/// The configuration can't run, or a port can't be bound.
pub async fn run(options: &Options) -> anyhow::Result<Ended> {
    // Boxed, so that it is compiled with what it shares with the library's Workers.
    host(options).boxed_local().await
}

async fn host(options: &Options) -> anyhow::Result<Ended> {
    let process = Process::start(options).await?;
    let token = options.token_file.as_deref().map(token::create).transpose()?;
    let told = process.told.borrow().clone();
    limits::check(&told.limits)?;
    let handlers = HandlerTable::new(configuration(&told)?, &told.limits, &Programs::open(), token)?;
    // Handlers run as the same user, and could otherwise read the API key from this process's environment.
    nix::sys::prctl::set_dumpable(false).context("cannot hide the environment from handlers")?;
    let traces = Traces::start()?;
    let ended = process.run(async |process| serve(process, handlers, &traces).await).await;
    traces.flush().await;
    ended
}

async fn serve(process: &Process, handlers: HandlerTable, traces: &Traces) -> anyhow::Result<()> {
    let lifecycle = &process.lifecycle;
    let (link, keeper) = tokio::select! {
        opened = link::open(&process.settings, process.wire.clone(), &process.metrics) => opened?,
        () = lifecycle.reached(Stage::Draining) => return Ok(()),
    };
    let mut files = process.files()?;
    let mut queues = Queues::new(process, link, handlers, traces.clone());
    queues.apply(&process.told.borrow());
    let polled: Vec<_> = queues.polled().collect();
    let ready = async {
        join_all(polled.iter().map(CancellationToken::cancelled)).await;
        lifecycle.reach(Stage::Serving);
        std::future::pending().await
    };
    tokio::select! {
        ended = queues.run(process, &mut files) => ended,
        () = ready => Ok(()),
        () = keeper.keep() => Ok(()),
    }
}

/// The Task Queues that are polled, as the files want them.
struct Queues {
    shared: Arc<Shared>,
    handlers: watch::Sender<Arc<HandlerTable>>,
    tasks: Tasks,
    wishes: BTreeMap<String, (watch::Sender<Option<Wish>>, CancellationToken)>,
    running: JoinSet<String>,
}

impl Queues {
    fn new(process: &Process, link: link::Link, handlers: HandlerTable, traces: Traces) -> Self {
        let handlers = watch::Sender::new(Arc::new(handlers));
        let tasks = Tasks {
            task_queue: String::new(),
            devices: Devices::default(),
            device_count: None,
            handlers: handlers.subscribe(),
            reporter: Reporter::new(link.clone(), &process.settings, process.encryption.clone()),
            metrics: process.metrics.clone(),
            encryption: process.encryption.clone(),
            traces,
            abandon: process.lifecycle.abandon_tasks(),
        };
        let shared = Arc::new(Shared {
            runtime: process.runtime.clone(),
            link,
            settings: process.settings.clone(),
            wire: process.wire.clone(),
            controllers: Controllers::default(),
            told: process.told.subscribe(),
        });
        Self { shared, handlers, tasks, wishes: BTreeMap::new(), running: JoinSet::new() }
    }

    /// Runs until every Task Queue has drained; takes over what the files say meanwhile.
    async fn run(&mut self, process: &Process, files: &mut Files) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                ended = self.running.join_next() => match ended {
                    Some(ended) => {
                        let task_queue = ended.context("a Task Queue's task ended in a panic")?;
                        self.ended(&task_queue, process);
                    }
                    None => return Ok(()),
                },
                told = files.changed() => match self.prepare(&told) {
                    Ok(handlers) => {
                        self.handlers.send_replace(Arc::new(handlers));
                        self.apply(&told);
                        process.take_over(files, told);
                    }
                    Err(problem) => files.refuse(format!("{problem:#}")),
                },
            }
        }
    }

    /// The handlers of what the files say.
    fn prepare(&self, told: &Told) -> anyhow::Result<HandlerTable> {
        limits::check(&told.limits)?;
        Ok(self.handlers.borrow().renewed(configuration(told)?, &told.limits)?)
    }

    /// Polls what is new, no longer polls what is gone, and tells the others their limits.
    fn apply(&mut self, told: &Told) {
        let wanted = told.config.as_ref().map_or(&[][..], |config| &config.task_queues);
        for (task_queue, (wish, _)) in self.wishes.iter().filter(|(task_queue, _)| !wanted.contains(task_queue)) {
            if wish.send_replace(None).is_some() {
                tracing::info!(task_queue, "no longer polled");
            }
        }
        for task_queue in wanted {
            self.wish(task_queue, &told.limits);
        }
    }

    /// Forgets a Task Queue that is no longer served; it may be wished again by now.
    fn ended(&mut self, task_queue: &str, process: &Process) {
        self.wishes.remove(task_queue);
        if process.lifecycle.stage() < Stage::Draining {
            let told = process.told.borrow().clone();
            self.apply(&told);
        }
    }

    fn wish(&mut self, task_queue: &str, limits: &RuntimeLimits) {
        let wish = Wish::of(task_queue, limits);
        if let Some((before, _)) = self.wishes.get(task_queue) {
            before.send_if_modified(|before| before.replace(wish.clone()).as_ref() != Some(&wish));
            return;
        }
        let (sender, receiver) = watch::channel(Some(wish));
        let polled = CancellationToken::new();
        let tasks = Arc::new(Tasks { task_queue: task_queue.to_owned(), ..self.tasks.clone() });
        self.running.spawn(queue::serve(self.shared.clone(), tasks, receiver, polled.clone()));
        self.wishes.insert(task_queue.to_owned(), (sender, polled));
    }

    fn polled(&self) -> impl Iterator<Item = CancellationToken> {
        self.wishes.values().map(|(_, polled)| polled.clone())
    }
}
