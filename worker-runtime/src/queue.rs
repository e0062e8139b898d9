//! One Task Queue of the shared runtime: a core Worker that polls it, remade when it breaks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use temporalio_common::protos::coresdk::activity_task::activity_task::Variant;
use temporalio_common::protos::temporal::api::enums::v1::TaskQueueType;
use temporalio_common::worker::WorkerTaskTypes;
use temporalio_sdk_core::{CoreRuntime, PollError, Worker, WorkerConfig, WorkerValidationError, init_worker};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::activity::Tasks;
use crate::connect;
use crate::cordon::Cordon;
use crate::lifecycle::{Lifecycle, Stage};
use crate::link::{self, Link};
use crate::pollers;
use crate::settings::Settings;
use crate::slots::{self, Ended, Gate, Lane};
use crate::versioning;

/// Time that the server gets to answer when a Worker says that it ends.
pub const FINALIZE_TIME: Duration = Duration::from_secs(3);

/// What the Task Queues of a process share.
pub struct Shared {
    /// Core's runtime.
    pub runtime: Arc<CoreRuntime>,
    /// Connection to the server.
    pub link: Link,
    /// Where it leads, and as which version.
    pub settings: Settings,
    /// Stage of the process.
    pub lifecycle: Lifecycle,
    /// Whether it takes new tasks.
    pub cordon: Cordon,
    /// How long polls may stay open in a drain.
    pub settle_limit: Duration,
}

/// Why a Task Queue is not polled now.
#[derive(Debug, thiserror::Error)]
enum QueueError {
    #[error("cannot make a Worker for Task Queue {task_queue:?}: {cause}")]
    Worker { task_queue: String, cause: String },
    #[error(
        "Temporal namespace {namespace:?} at {address:?} can't be used: {cause}; create it, correct the name, or give \
         the credentials access to it"
    )]
    Namespace { namespace: String, address: String, cause: String },
    #[error("polling Task Queue {task_queue:?} failed: {cause}; check that the credentials may poll in this namespace")]
    Poll { task_queue: String, cause: String },
}

/// Polls a Task Queue until the process drains, and returns when its tasks have ended. `slots` activities run at a
/// time. `polled` is called once, when the server lists its polls.
pub async fn serve(shared: Arc<Shared>, tasks: Arc<Tasks>, slots: u32, polled: impl FnOnce()) {
    let mut polled = Some(polled);
    let mut waits = connect::backoff();
    while shared.lifecycle.stage() < Stage::Draining {
        match serve_once(&shared, &tasks, slots, &mut polled).await {
            Ok(()) => return,
            Err(error) => tracing::error!("{error}"),
        }
        tokio::select! {
            () = shared.lifecycle.reached(Stage::Draining) => return,
            () = tokio::time::sleep(waits.next().unwrap_or_default()) => {}
        }
    }
}

async fn serve_once(
    shared: &Arc<Shared>,
    tasks: &Arc<Tasks>,
    slots: u32,
    polled: &mut Option<impl FnOnce()>,
) -> Result<(), QueueError> {
    let (worker, gate) = make(shared, tasks, slots)?;
    let worker = Arc::new(worker);
    let result = poll(shared, tasks, &worker, &gate, polled).await;
    // Unregisters the Worker, so that another one may poll this Task Queue on the same connection.
    if let Some(worker) = Arc::into_inner(worker)
        && tokio::time::timeout(FINALIZE_TIME, worker.finalize_shutdown()).await.is_err()
    {
        tracing::warn!(task_queue = tasks.task_queue, "the server does not answer to the end of a Worker");
    }
    result
}

fn make(shared: &Shared, tasks: &Tasks, slots: u32) -> Result<(Worker, Gate), QueueError> {
    let error = |cause| QueueError::Worker { task_queue: tasks.task_queue.clone(), cause };
    let kinds = WorkerTaskTypes::activity_only();
    let lane = Lane { task_queue: &tasks.task_queue, kinds, activities: slots, ended: Ended::ByRunner };
    let (tuner, gate) = slots::tuner(&tasks.metrics, &shared.cordon, lane);
    let config = WorkerConfig::builder()
        .namespace(&shared.settings.namespace)
        .task_queue(&tasks.task_queue)
        .task_types(kinds)
        .tuner(Arc::new(tuner))
        .versioning_strategy(versioning::strategy(shared.settings.version.as_ref()))
        .build()
        .map_err(error)?;
    let worker =
        init_worker(&shared.runtime, config, shared.link.connection()).map_err(|cause| error(cause.to_string()))?;
    Ok((worker, gate))
}

async fn poll(
    shared: &Arc<Shared>,
    tasks: &Arc<Tasks>,
    worker: &Arc<Worker>,
    gate: &Gate,
    polled: &mut Option<impl FnOnce()>,
) -> Result<(), QueueError> {
    tokio::select! {
        () = validated(&shared.settings, worker) => {}
        () = shared.lifecycle.reached(Stage::Draining) => {}
    }
    let stop = async {
        shared.lifecycle.reached(Stage::Draining).await;
        gate.close(shared.settle_limit).await;
        worker.initiate_shutdown();
        std::future::pending().await
    };
    let registered = async {
        if polled.is_some() {
            let (connection, kind) = (shared.link.connection(), TaskQueueType::Activity);
            tokio::select! {
                () = pollers::registered(&connection, &shared.settings, &tasks.task_queue, kind) => {}
                // A task is proof of a poll. While it has the only slot there is no other, and the one that brought it
                // may have been of a partition that the list does not show.
                () = gate.first_task() => {}
            }
            if let Some(polled) = polled.take() {
                polled();
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        result = dispatch(tasks, worker) => result,
        () = stop => unreachable!("waits for the end of dispatch"),
        () = registered => unreachable!("waits for the end of dispatch"),
        () = link::follow(shared.link.clone(), worker.clone(), |connection| connection) => {
            unreachable!("follows to the end of dispatch")
        }
    }
}

/// Waits until the namespace can be used; each failure is logged.
pub async fn validated(settings: &Settings, worker: &Worker) {
    for wait in connect::backoff() {
        let Err(WorkerValidationError::NamespaceDescribeError { source, .. }) = worker.validate().await else { return };
        let error = QueueError::Namespace {
            namespace: settings.namespace.clone(),
            address: settings.address.clone(),
            cause: format!("{:?}: {}", source.code(), source.message()),
        };
        tracing::error!("{error}");
        tokio::time::sleep(wait).await;
    }
}

/// Hands tasks to their handlers until core says that no more will come, and waits for those that run.
async fn dispatch(tasks: &Arc<Tasks>, worker: &Arc<Worker>) -> Result<(), QueueError> {
    let mut running = JoinSet::new();
    let mut stops = HashMap::new();
    let mut failure = None;
    loop {
        let task = match worker.poll_activity_task().await {
            Ok(task) => task,
            Err(PollError::ShutDown) => break,
            // Core stops polling after it; the loop goes on until its tasks have ended.
            Err(PollError::TonicError(status)) => {
                let cause = format!("{:?}: {}", status.code(), status.message());
                failure = Some(QueueError::Poll { task_queue: tasks.task_queue.clone(), cause });
                continue;
            }
        };
        while let Some(ended) = running.try_join_next() {
            forget(ended, &mut stops);
        }
        match task.variant {
            Some(Variant::Start(start)) => {
                let (sender, stop) = watch::channel(None);
                stops.insert(task.task_token.clone(), sender);
                let (tasks, worker) = (tasks.clone(), worker.clone());
                running.spawn(async move {
                    tasks.run(&worker, task.task_token.clone(), start, stop).await;
                    task.task_token
                });
            }
            Some(Variant::Cancel(cancel)) => {
                if let Some(stop) = stops.get(&task.task_token) {
                    stop.send_replace(Some(cancel.reason().into()));
                }
            }
            None => {}
        }
    }
    while let Some(ended) = running.join_next().await {
        forget(ended, &mut stops);
    }
    failure.map_or(Ok(()), Err)
}

fn forget<V>(ended: Result<Vec<u8>, tokio::task::JoinError>, stops: &mut HashMap<Vec<u8>, V>) {
    match ended {
        Ok(task_token) => {
            stops.remove(&task_token);
        }
        Err(error) => tracing::error!(%error, "an activity's task ended in a panic; its activity will time out"),
    }
}
