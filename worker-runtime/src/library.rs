//! The runtime as a library, for Workers written in Rust.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use futures::future::{join_all, try_join_all};
use operator_core::contract::RuntimeConfig;
use temporalio_client::{Client, ClientOptions, Connection, RetryOptions};
use temporalio_common::protos::temporal::api::enums::v1::TaskQueueType;
use temporalio_common::worker::{VersioningBehavior, WorkerTaskTypes};
use temporalio_sdk::{Worker, WorkerOptions};
use temporalio_sdk_core::{Worker as CoreWorker, WorkerVersioningStrategy, init_worker};

use crate::lifecycle::Stage;
use crate::link::Link;
use crate::options::Options;
use crate::process::Process;
use crate::queue::FINALIZE_TIME;
use crate::slots::{self, Ended, Gate, Lane};
use crate::{link, pollers, queue, versioning};

/// A Worker process: the Workflows and Activities of a team, on one or several Task Queues.
///
/// It reads what the operator writes: `TEMPORAL_*` of the environment for connection and version, and the files that
/// `WORKER_RUNTIME_CONFIG` and `WORKER_RUNTIME_LIMITS` name, if any. It connects, retrying until it works, serves
/// `/metrics` on port 8080 and `/healthz`, `/readyz`, `/drained` on port 8081, and on SIGTERM finishes what runs.
///
/// ```no_run
/// # use temporalio_sdk::WorkerOptions;
/// # async fn worker(options: WorkerOptions) -> anyhow::Result<()> {
/// worker_runtime::Runtime::new().worker(options).run().await
/// # }
/// ```
///
/// Deployment options, slots, identity and shutdown period of the [`WorkerOptions`] are the runtime's to set; every
/// other option is the team's.
#[derive(Default)]
pub struct Runtime {
    workers: Vec<WorkerOptions>,
    versioning_behavior: Option<VersioningBehavior>,
}

impl Runtime {
    /// A process without Workers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a Worker for one Task Queue. Workers share one connection.
    #[must_use]
    pub fn worker(mut self, options: WorkerOptions) -> Self {
        self.workers.push(options);
        self
    }

    /// What a Workflow does when another version becomes Current: stay with its version (`Pinned`), or move on
    /// (`AutoUpgrade`, the default). Only with Worker Versioning.
    #[must_use]
    pub fn versioning_behavior(mut self, behavior: VersioningBehavior) -> Self {
        self.versioning_behavior = Some(behavior);
        self
    }

    /// Runs until SIGTERM or SIGINT, and then until what runs has ended, within the drain timeout.
    ///
    /// # Errors
    /// The environment or a file can't be used, the Task Queues are not those of the configuration, a port is taken,
    /// or the server refuses the Worker; the message names what it is about, and what to do.
    pub async fn run(self) -> anyhow::Result<()> {
        let options = Options::from_environment()?;
        let process = Process::start(&options).await?;
        let names: Vec<_> = self.workers.iter().map(|worker| worker.task_queue.as_str()).collect();
        check_task_queues(&names, process.config.as_ref())?;
        process.run(async |process| self.serve(process).await).await
    }

    async fn serve(self, process: &Process) -> anyhow::Result<()> {
        let lifecycle = &process.lifecycle;
        let (link, keeper) = tokio::select! {
            opened = link::open(&process.settings, process.polls(), &process.metrics) => opened?,
            () = lifecycle.reached(Stage::Draining) => return Ok(()),
        };
        let connection = link.connection();
        let behavior = self.versioning_behavior.unwrap_or(VersioningBehavior::AutoUpgrade);
        let hosted = self
            .workers
            .into_iter()
            .map(|options| Hosted::new(options, behavior, process, &connection))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let ready = async {
            join_all(hosted.iter().map(|hosted| hosted.polled(process, &connection))).await;
            lifecycle.reach(Stage::Serving);
            std::future::pending().await
        };
        let work = try_join_all(hosted.iter().map(|hosted| hosted.work(process, &connection)));
        let follow = join_all(hosted.iter().map(|hosted| hosted.follow(&link)));
        tokio::select! {
            result = work => drop(result?),
            () = ready => {}
            () = keeper.keep() => {}
            _ = follow => {}
        }
        join_all(hosted.into_iter().map(Hosted::finish)).await;
        Ok(())
    }
}

/// Checks that the Task Queues of the program are those that the operator scales by.
fn check_task_queues(names: &[&str], config: Option<&RuntimeConfig>) -> anyhow::Result<()> {
    ensure!(!names.is_empty(), "the Worker has no Task Queue; add one with Runtime::worker");
    let registered: BTreeSet<_> = names.iter().copied().collect();
    ensure!(
        registered.len() == names.len(),
        "two Workers of the program poll the same Task Queue, of {names:?}; merge them"
    );
    let Some(config) = config else { return Ok(()) };
    let problems: Vec<_> = config.violations().iter().map(ToString::to_string).collect();
    ensure!(problems.is_empty(), "the configuration can't run:\n{}", problems.join("\n"));
    let configured: BTreeSet<_> = config.task_queues.iter().map(String::as_str).collect();
    ensure!(
        registered == configured,
        "taskQueues of the configuration are {configured:?}, and the program polls {registered:?}; make them equal: a \
         Task Queue that only one side knows is not scaled, or not polled"
    );
    Ok(())
}

/// One Worker of the process.
struct Hosted {
    core: Arc<CoreWorker>,
    gate: Gate,
    options: WorkerOptions,
}

impl Hosted {
    fn new(
        mut options: WorkerOptions,
        behavior: VersioningBehavior,
        process: &Process,
        connection: &Connection,
    ) -> anyhow::Result<Self> {
        let Process { settings, limits, metrics, cordon, runtime, .. } = process;
        let task_queue = options.task_queue.clone();
        let failed = |cause: String| anyhow!("cannot make a Worker for Task Queue {task_queue:?}: {cause}");
        options.client_identity_override = Some(settings.identity.clone());
        // Core counts from the cut of the polls.
        let drain_timeout = limits.drain_timeout();
        options.graceful_shutdown_period = Some(drain_timeout - slots::settle_limit(drain_timeout));
        let mut config =
            options.to_core_options(settings.namespace.clone(), settings.identity.clone()).map_err(failed)?;
        let (kinds, activities) = (config.task_types, limits.slots(&task_queue));
        let lane = Lane { task_queue: &task_queue, kinds, activities, ended: Ended::BySlots };
        let (tuner, gate) = slots::tuner(metrics, cordon, lane);
        config.tuner = Some(Arc::new(tuner));
        config.versioning_strategy = match &settings.version {
            Some(version) => {
                // An activity has no versioning behaviour, so that a Worker without Workflows states none.
                let behavior = config.task_types.enable_workflows.then_some(behavior);
                WorkerVersioningStrategy::WorkerDeploymentBased(versioning::options(version, behavior))
            }
            None => WorkerVersioningStrategy::None { build_id: String::new() },
        };
        let core = init_worker(runtime, config, connection.clone()).map_err(|error| failed(error.to_string()))?;
        core.replace_client(patient(connection)).map_err(|error| failed(error.to_string()))?;
        Ok(Self { core: Arc::new(core), gate, options })
    }

    /// Polls until the process drains and the tasks of this Worker have ended.
    async fn work(&self, process: &Process, connection: &Connection) -> anyhow::Result<()> {
        let Process { settings, lifecycle, .. } = process;
        tokio::select! {
            () = queue::validated(settings, &self.core) => {}
            () = lifecycle.reached(Stage::Draining) => return Ok(()),
        }
        let task_queue = &self.options.task_queue;
        let options =
            ClientOptions::new(&settings.namespace).data_converter(process.encryption.data_converter()).build();
        let client = Client::new(connection.clone(), options)?;
        let mut worker =
            Worker::new_from_core_options(self.core.clone(), client.options().clone(), self.options.clone())
                .with_context(|| format!("cannot make a Worker for Task Queue {task_queue:?}"))?;
        tokio::select! {
            result = worker.run() => result.with_context(|| {
                format!("polling Task Queue {task_queue:?} failed; check that the credentials may poll in namespace {:?}",
                    settings.namespace)
            }),
            () = self.stop(process) => unreachable!("waits for the end of the Worker"),
        }
    }

    async fn follow(&self, link: &Link) {
        link::follow(link.clone(), self.core.clone(), |connection| patient(&connection)).await;
    }

    async fn stop(&self, process: &Process) {
        process.lifecycle.reached(Stage::Draining).await;
        self.gate.close(slots::settle_limit(process.limits.drain_timeout())).await;
        self.core.initiate_shutdown();
        std::future::pending().await
    }

    /// Waits until the server lists the polls of this Worker.
    async fn polled(&self, process: &Process, connection: &Connection) {
        let WorkerTaskTypes { enable_workflows, enable_remote_activities, .. } = self.core.get_config().task_types;
        let kinds = [(enable_workflows, TaskQueueType::Workflow), (enable_remote_activities, TaskQueueType::Activity)];
        for (_, kind) in kinds.into_iter().filter(|(enabled, _)| *enabled) {
            tokio::select! {
                () = pollers::registered(connection, &process.settings, &self.options.task_queue, kind) => {}
                // As in a Worker of the shared runtime: with every slot taken there is no poll to be listed.
                () = self.gate.first_task(), if kind == TaskQueueType::Activity => {}
            }
        }
    }

    async fn finish(self) {
        if let Some(core) = Arc::into_inner(self.core) {
            // A server that does not answer can't hold the end up.
            let _ = tokio::time::timeout(FINALIZE_TIME, core.finalize_shutdown()).await;
        }
    }
}

/// The connection, with retries for as long as it takes: core otherwise drops a result after ten seconds without the
/// server, and the task runs a second time.
fn patient(connection: &Connection) -> Connection {
    let mut connection = connection.clone();
    *connection.retry_options_mut() = RetryOptions::builder().max_elapsed_time(None).max_retries(0).build();
    connection
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(queues: &[&str]) -> RuntimeConfig {
        RuntimeConfig {
            version: operator_core::contract::CONFIG_VERSION,
            task_queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
            handlers: Vec::new(),
            activities: Vec::new(),
        }
    }

    #[test]
    fn the_program_polls_what_the_operator_scales() {
        assert!(check_task_queues(&["a", "b"], Some(&config(&["b", "a"]))).is_ok());
        assert!(check_task_queues(&["a"], None).is_ok());
        let message = check_task_queues(&["a"], Some(&config(&["a", "c"]))).unwrap_err().to_string();
        assert!(message.contains("\"c\"") && message.contains("make them equal"), "{message}");
        assert!(check_task_queues(&["a", "a"], None).is_err() && check_task_queues(&[], None).is_err());
    }
}
