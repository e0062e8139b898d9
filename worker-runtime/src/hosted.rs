//! One Task Queue of a Worker in Rust: the SDK's Worker over core Workers of ours, one after another.
//!
//! The SDK remembers each activity that it ran for as long as its Worker lives (`temporalio-sdk` 1.1.1: some 420 bytes of a
//! remote one, 220 of a local one). So a Worker takes a bounded number of them, and then another takes over: the old one
//! polls no longer, ends what it runs, and is forgotten as a whole. The Workflows in its cache are built anew from their
//! histories. It is taken off the connection's list as well, which the SDK leaves to whoever made the core Worker.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use temporalio_client::{Client, ClientOptions, Connection, RetryOptions};
use temporalio_common::protos::temporal::api::enums::v1::TaskQueueType;
use temporalio_common::worker::{VersioningBehavior, WorkerTaskTypes};
use temporalio_sdk::{Worker, WorkerOptions};
use temporalio_sdk_core::{Worker as CoreWorker, WorkerConfig, WorkerVersioningStrategy, init_worker};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::Stage;
use crate::link::Link;
use crate::process::Process;
use crate::queue::{FINALIZE_TIME, Wish};
use crate::resources::Controllers;
use crate::slots::{self, Around, Ended, Gate, Lane};
use crate::{link, pollers, queue, versioning};

/// Activities of one Worker: of what the SDK keeps of them, it holds 4 MB at most.
const ACTIVITIES: u64 = 10_000;
/// Looks at whether the last activity of a Worker let go of it, and the time between two of them.
const LOOKS: u32 = 50;
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// A Task Queue of the process.
pub struct Hosted<'a> {
    process: &'a Process,
    link: Link,
    controllers: &'a Controllers,
    options: WorkerOptions,
    behavior: VersioningBehavior,
    wish: watch::Receiver<Wish>,
    lane: Lane,
    polled: CancellationToken,
}

/// What the Task Queues of the process have in common.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    /// The process.
    pub process: &'a Process,
    /// Its connection.
    pub link: &'a Link,
    /// What slots follow that follow memory and CPU.
    pub controllers: &'a Controllers,
    /// What Workflows do when another version becomes Current.
    pub behavior: VersioningBehavior,
}

impl<'a> Hosted<'a> {
    /// The Task Queue of `options`, to be polled as `wish` has it.
    ///
    /// # Errors
    /// The options can't be used; names the Task Queue.
    pub fn new(common: Common<'a>, mut options: WorkerOptions, wish: watch::Receiver<Wish>) -> anyhow::Result<Self> {
        let Common { process, link, controllers, behavior } = common;
        options.client_identity_override = Some(process.settings.identity.clone());
        let config = config(process, &options)?;
        let around = Around { metrics: &process.metrics, cordon: &process.cordon };
        let slots = wish.borrow().slots;
        let lane = Lane::new(&options.task_queue, config.task_types, slots, Ended::BySlots, &around);
        let (link, polled) = (link.clone(), CancellationToken::new());
        Ok(Self { process, link, controllers, options, behavior, wish, lane, polled })
    }

    /// Waits until the server lists the polls.
    pub async fn polled(&self) {
        self.polled.cancelled().await;
    }

    /// Polls until the process drains and all tasks have ended.
    ///
    /// # Errors
    /// The server refuses the Worker; names the Task Queue.
    pub async fn work(&self) -> anyhow::Result<()> {
        let mut wishes = self.wish.clone();
        let mut turns = FuturesUnordered::new();
        while !self.draining() {
            let wish = wishes.borrow_and_update().clone();
            let turn = self.turn(&wish)?;
            let (gate, retire) = (turn.gate.clone(), turn.retire.clone());
            turns.push(turn.run());
            let over = async {
                tokio::select! {
                    () = gate.has_taken(ACTIVITIES) => {}
                    () = changed(&mut wishes, &wish, &self.lane) => {}
                    () = self.process.lifecycle.reached(Stage::Draining) => {}
                }
            };
            tokio::pin!(over);
            loop {
                tokio::select! {
                    () = &mut over => break,
                    Some(ended) = turns.next() => ended?,
                }
            }
            retire.cancel();
        }
        while let Some(ended) = turns.next().await {
            ended?;
        }
        Ok(())
    }

    fn draining(&self) -> bool {
        self.process.lifecycle.stage() >= Stage::Draining
    }

    fn turn(&self, wish: &Wish) -> anyhow::Result<Turn<'_>> {
        let settings = &self.process.settings;
        let failed = |cause: String| failed(&self.options.task_queue, &cause);
        let mut config = config(self.process, &self.options)?;
        let resources = self.controllers.get(wish.targets, wish.limits.min_concurrent_activities.unwrap_or(1));
        let (tuner, gate) = self.lane.tuner(resources.as_ref());
        config.tuner = Some(Arc::new(tuner));
        // The Worker that this one replaces may still run tasks.
        config.skip_client_worker_set_check = true;
        let limits = &wish.limits;
        let pollers = limits.pollers.map(queue::poller_behavior);
        config.activity_task_poller_behavior = pollers.or(config.activity_task_poller_behavior);
        config.max_worker_activities_per_second =
            limits.max_activities_per_second.or(config.max_worker_activities_per_second);
        config.max_task_queue_activities_per_second =
            limits.max_task_queue_activities_per_second.or(config.max_task_queue_activities_per_second);
        config.versioning_strategy = match &settings.version {
            Some(version) => {
                // An activity has no versioning behaviour, so that a Worker without Workflows states none.
                let behavior = config.task_types.enable_workflows.then_some(self.behavior);
                WorkerVersioningStrategy::WorkerDeploymentBased(versioning::options(version, behavior))
            }
            None => WorkerVersioningStrategy::None { build_id: String::new() },
        };
        let (rate, connection) = (config.max_worker_activities_per_second, self.link.connection());
        let core = init_worker(&self.process.runtime, config, connection.clone())
            .map_err(|error| failed(error.to_string()))?;
        core.replace_client(patient(&connection)).map_err(|error| failed(error.to_string()))?;
        Ok(Turn { hosted: self, core: Arc::new(core), gate, rate, retire: CancellationToken::new() })
    }
}

fn failed(task_queue: &str, cause: &str) -> anyhow::Error {
    anyhow!("cannot make a Worker for Task Queue {task_queue:?}: {cause}")
}

/// Core's configuration of a Worker with the team's options.
fn config(process: &Process, options: &WorkerOptions) -> anyhow::Result<WorkerConfig> {
    let settings = &process.settings;
    let mut config = options
        .to_core_options(settings.namespace.clone(), settings.identity.clone())
        .map_err(|cause| failed(&options.task_queue, &cause))?;
    // Core counts from the cut of the polls.
    let drain_timeout = process.told.borrow().limits.drain_timeout();
    config.graceful_shutdown_period = Some(drain_timeout - slots::settle_limit(drain_timeout));
    Ok(config)
}

/// Waits for a wish that takes another Worker; takes over what does not.
async fn changed(wishes: &mut watch::Receiver<Wish>, served: &Wish, lane: &Lane) {
    while wishes.changed().await.is_ok() {
        let wish = wishes.borrow_and_update().clone();
        lane.resize(wish.slots);
        if !wish.same_worker(served) {
            return;
        }
    }
    std::future::pending().await
}

/// One core Worker, from its making to the end of its tasks.
struct Turn<'a> {
    hosted: &'a Hosted<'a>,
    core: Arc<CoreWorker>,
    gate: Gate,
    rate: Option<f64>,
    /// Cancelled when another Worker takes over.
    retire: CancellationToken,
}

impl Turn<'_> {
    async fn run(self) -> anyhow::Result<()> {
        let result = self.poll().await;
        finish(self.core).await;
        result
    }

    async fn poll(&self) -> anyhow::Result<()> {
        let Hosted { process, options, link, .. } = self.hosted;
        let settings = &process.settings;
        tokio::select! {
            () = queue::validated(settings, &self.core) => {}
            () = process.lifecycle.reached(Stage::Draining) => return Ok(()),
            () = self.retire.cancelled() => return Ok(()),
        }
        let task_queue = &options.task_queue;
        let client_options =
            ClientOptions::new(&settings.namespace).data_converter(process.encryption.data_converter()).build();
        let client = Client::new(link.connection(), client_options)?;
        let mut worker = Worker::new_from_core_options(self.core.clone(), client.options().clone(), options.clone())
            .with_context(|| format!("cannot make a Worker for Task Queue {task_queue:?}"))?;
        let key = self.core.worker_instance_key().to_string();
        let _entry = process.wire.roll.enter(key, task_queue, self.gate.clone(), self.rate);
        tokio::select! {
            result = worker.run() => result.with_context(|| {
                format!("polling Task Queue {task_queue:?} failed; check that the credentials may poll in namespace {:?}",
                    settings.namespace)
            }),
            () = self.stop() => unreachable!("waits for the end of the Worker"),
            () = self.registered() => unreachable!("waits for the end of the Worker"),
            () = link::follow(link.clone(), self.core.clone(), |connection| patient(&connection)) => {
                unreachable!("follows to the end of the Worker")
            }
        }
    }

    /// Ends the polls when it is time, and then the Worker. Never returns.
    async fn stop(&self) {
        let process = self.hosted.process;
        tokio::select! {
            () = process.lifecycle.reached(Stage::Draining) => {}
            () = self.retire.cancelled() => {
                self.gate.shut();
                tokio::select! {
                    () = process.lifecycle.reached(Stage::Draining) => {}
                    () = self.gate.retired(&self.hosted.options.task_queue) => {}
                }
            }
        }
        self.gate.close(process.settle_limit()).await;
        self.core.initiate_shutdown();
        std::future::pending().await
    }

    /// Says when the server lists the polls. Never returns.
    async fn registered(&self) {
        if !self.hosted.polled.is_cancelled() {
            let Hosted { process, link, options, .. } = self.hosted;
            let WorkerTaskTypes { enable_workflows, enable_remote_activities, .. } = self.core.get_config().task_types;
            let kinds =
                [(enable_workflows, TaskQueueType::Workflow), (enable_remote_activities, TaskQueueType::Activity)];
            let connection = link.connection();
            for (_, kind) in kinds.into_iter().filter(|(enabled, _)| *enabled) {
                tokio::select! {
                    () = pollers::registered(&connection, &process.settings, &options.task_queue, kind) => {}
                    // As in a Worker of the shared runtime: with every slot taken there is no poll to be listed.
                    () = self.gate.first_task(), if kind == TaskQueueType::Activity => {}
                }
            }
            self.hosted.polled.cancel();
        }
        std::future::pending().await
    }
}

/// Takes a Worker off the list of its connection, once nothing of it runs.
async fn finish(mut core: Arc<CoreWorker>) {
    for _ in 0..LOOKS {
        match Arc::try_unwrap(core) {
            Ok(core) => {
                // A server that does not answer can't hold the end up.
                let _ = tokio::time::timeout(FINALIZE_TIME, core.finalize_shutdown()).await;
                return;
            }
            // The task of its last activity is about to end.
            Err(held) => core = held,
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    tracing::warn!("an activity keeps its context after its end; its Worker can't be forgotten");
}

/// The connection, with retries for as long as it takes: core otherwise drops a result after ten seconds without the
/// server, and the task runs a second time.
fn patient(connection: &Connection) -> Connection {
    let mut connection = connection.clone();
    *connection.retry_options_mut() = RetryOptions::builder().max_elapsed_time(None).max_retries(0).build();
    connection
}
