//! One Task Queue of the shared runtime: a core Worker that polls it, remade when it breaks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use operator_core::contract::{Pollers, QueueLimits, ResourceTargets, RuntimeLimits};
use temporalio_common::protos::coresdk::activity_task::activity_task::Variant;
use temporalio_common::protos::temporal::api::enums::v1::TaskQueueType;
use temporalio_common::worker::WorkerTaskTypes;
use temporalio_sdk_core::{
    CoreRuntime, PollError, PollerBehavior, Worker, WorkerConfig, WorkerValidationError, init_worker,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::activity::Tasks;
use crate::connect;
use crate::files::Told;
use crate::lifecycle::Stage;
use crate::link::{self, Link};
use crate::metrics::TaskType;
use crate::pollers;
use crate::resources::Controllers;
use crate::settings::Settings;
use crate::slots::{self, Around, Ended, Gate, Lane};
use crate::transport::Wire;
use crate::versioning;

/// Time that the server gets to answer when a Worker says that it ends.
pub const FINALIZE_TIME: Duration = Duration::from_secs(3);

/// Open polls of a Worker, where nothing is said of them, and those that autoscaling begins with, if it may have as many.
/// Each takes some 35 kB, in every idle pod and for each of its Task Queues; core's own number is five.
const POLLS: usize = 4;

/// What the Task Queues of a process share.
pub struct Shared {
    /// Core's runtime.
    pub runtime: Arc<CoreRuntime>,
    /// Connection to the server.
    pub link: Link,
    /// Where it leads, and as which version.
    pub settings: Settings,
    /// What decides about calls.
    pub wire: Wire,
    /// What slots follow that follow memory and CPU.
    pub controllers: Controllers,
    /// What the files say now.
    pub told: watch::Receiver<Told>,
}

impl Shared {
    fn draining(&self) -> bool {
        self.wire.lifecycle.stage() >= Stage::Draining
    }

    async fn drain_begins(&self) {
        self.wire.lifecycle.reached(Stage::Draining).await;
    }

    /// How long polls may stay open in a drain.
    fn settle_limit(&self) -> Duration {
        slots::settle_limit(self.told.borrow().limits.drain_timeout())
    }
}

/// How a Task Queue is to be polled.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Most activities at a time.
    pub slots: u32,
    /// What else bounds it.
    pub limits: QueueLimits,
    /// What its slots follow, if they do.
    pub targets: Option<ResourceTargets>,
}

impl Wish {
    /// What limits say of a Task Queue.
    pub fn of(task_queue: &str, limits: &RuntimeLimits) -> Self {
        Self {
            slots: limits.slots(task_queue),
            limits: limits.task_queues.get(task_queue).cloned().unwrap_or_default(),
            targets: limits.resource_targets,
        }
    }

    /// Whether one Worker can serve both: slots alone change under it.
    pub fn same_worker(&self, other: &Self) -> bool {
        self.limits == other.limits && self.targets == other.targets
    }
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

/// Polls a Task Queue until the process drains, or nobody wishes it any more, and returns when its tasks have ended.
/// `polled` is cancelled when the server lists its polls. Gives back the Task Queue's name.
pub async fn serve(
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    mut wishes: watch::Receiver<Option<Wish>>,
    polled: CancellationToken,
) -> String {
    let Some(wish) = wishes.borrow().clone() else { return tasks.task_queue.clone() };
    let around = Around { metrics: &tasks.metrics, cordon: &shared.wire.cordon };
    let kinds = WorkerTaskTypes::activity_only();
    let lane = Lane::new(&tasks.task_queue, kinds, wish.slots, Ended::ByRunner, &around);
    let (mut waits, mut turns, mut number) = (connect::backoff(), JoinSet::new(), 0_u64);
    while !shared.draining() {
        let Some(wish) = wishes.borrow_and_update().clone() else {
            // What runs ends, unless somebody wishes the Task Queue again before.
            tokio::select! {
                () = all_ended(&mut turns) => break,
                changed = wishes.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break,
                },
            }
        };
        lane.resize(wish.slots);
        number += 1;
        let turn = Turn {
            shared: shared.clone(),
            tasks: Arc::new(Tasks { device_count: wish.limits.devices, ..(*tasks).clone() }),
            lane: lane.clone(),
            polled: polled.clone(),
            retire: CancellationToken::new(),
        };
        let _retire = turn.retire.clone().drop_guard();
        turns.spawn({
            let wish = wish.clone();
            async move { (number, turn.run(&wish).await) }
        });
        tokio::select! {
            result = ended(&mut turns, number) => match result {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!("{error}");
                    tokio::select! {
                        () = shared.drain_begins() => {}
                        () = tokio::time::sleep(waits.next().unwrap_or_default()) => {}
                    }
                }
            },
            () = changed(&mut wishes, &wish, &lane) => {}
        }
    }
    all_ended(&mut turns).await;
    tasks.metrics.forget(&tasks.task_queue, TaskType::Activity);
    tasks.task_queue.clone()
}

async fn all_ended(turns: &mut JoinSet<(u64, Result<(), QueueError>)>) {
    while turns.join_next().await.is_some() {}
}

/// Waits for the end of a turn; those of others are of no interest.
async fn ended(turns: &mut JoinSet<(u64, Result<(), QueueError>)>, number: u64) -> Result<(), QueueError> {
    while let Some(ended) = turns.join_next().await {
        match ended {
            Ok((of, result)) if of == number => return result,
            Ok((_, result)) => result.unwrap_or_else(|error| tracing::error!("{error}")),
            Err(error) => tracing::error!(%error, "the task of a Worker ended in a panic"),
        }
    }
    Ok(())
}

/// Waits for a wish that takes another Worker, or for none; takes over what does not.
async fn changed(wishes: &mut watch::Receiver<Option<Wish>>, served: &Wish, lane: &Lane) {
    while wishes.changed().await.is_ok() {
        match &*wishes.borrow_and_update() {
            Some(wish) if wish.same_worker(served) => lane.resize(wish.slots),
            _ => return,
        }
    }
    std::future::pending().await
}

/// One core Worker, from its making to the end of its tasks.
struct Turn {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    lane: Lane,
    polled: CancellationToken,
    /// Cancelled when another Worker takes over: no further poll begins, and what runs goes on.
    retire: CancellationToken,
}

impl Turn {
    async fn run(self, wish: &Wish) -> Result<(), QueueError> {
        let (worker, gate) = self.make(wish)?;
        let worker = Arc::new(worker);
        let result = self.poll(&worker, &gate, wish).await;
        // Unregisters the Worker: it is no longer listed, and frees what it holds.
        if let Some(worker) = Arc::into_inner(worker)
            && tokio::time::timeout(FINALIZE_TIME, worker.finalize_shutdown()).await.is_err()
        {
            tracing::warn!(task_queue = self.tasks.task_queue, "the server does not answer to the end of a Worker");
        }
        result
    }

    fn make(&self, wish: &Wish) -> Result<(Worker, Gate), QueueError> {
        let Self { shared, tasks, lane, .. } = self;
        let error = |cause| QueueError::Worker { task_queue: tasks.task_queue.clone(), cause };
        let QueueLimits { min_concurrent_activities, pollers, .. } = &wish.limits;
        let resources = shared.controllers.get(wish.targets, min_concurrent_activities.unwrap_or(1));
        let (tuner, gate) = lane.tuner(resources.as_ref());
        let config = WorkerConfig::builder()
            .namespace(&shared.settings.namespace)
            .task_queue(&tasks.task_queue)
            .task_types(lane.kinds)
            .tuner(Arc::new(tuner))
            .activity_task_poller_behavior(pollers.map_or(PollerBehavior::SimpleMaximum(POLLS), poller_behavior))
            .maybe_max_worker_activities_per_second(wish.limits.max_activities_per_second)
            .maybe_max_task_queue_activities_per_second(wish.limits.max_task_queue_activities_per_second)
            // The Worker that this one replaces may still run tasks.
            .skip_client_worker_set_check(true)
            .versioning_strategy(versioning::strategy(shared.settings.version.as_ref()))
            .build()
            .map_err(error)?;
        let worker =
            init_worker(&shared.runtime, config, shared.link.connection()).map_err(|cause| error(cause.to_string()))?;
        Ok((worker, gate))
    }

    async fn poll(&self, worker: &Arc<Worker>, gate: &Gate, wish: &Wish) -> Result<(), QueueError> {
        let Self { shared, tasks, .. } = self;
        tokio::select! {
            () = validated(&shared.settings, worker) => {}
            () = shared.drain_begins() => {}
            () = self.retire.cancelled() => {}
        }
        let rate = wish.limits.max_activities_per_second;
        let key = worker.worker_instance_key().to_string();
        let _entry = shared.wire.roll.enter(key, &tasks.task_queue, gate.clone(), rate);
        tokio::select! {
            result = dispatch(tasks, worker) => result,
            () = self.stop(worker, gate) => unreachable!("waits for the end of dispatch"),
            () = self.registered(gate) => unreachable!("waits for the end of dispatch"),
            () = link::follow(shared.link.clone(), worker.clone(), |connection| connection) => {
                unreachable!("follows to the end of dispatch")
            }
        }
    }

    /// Ends the polls when it is time, and then the Worker. Never returns.
    async fn stop(&self, worker: &Worker, gate: &Gate) {
        tokio::select! {
            () = self.shared.drain_begins() => {}
            () = self.retire.cancelled() => {
                gate.shut();
                tokio::select! {
                    () = self.shared.drain_begins() => {}
                    () = gate.retired(&self.tasks.task_queue) => {}
                }
            }
        }
        gate.close(self.shared.settle_limit()).await;
        worker.initiate_shutdown();
        std::future::pending().await
    }

    /// Says when the server lists the polls. Never returns.
    async fn registered(&self, gate: &Gate) {
        if !self.polled.is_cancelled() {
            let (connection, kind) = (self.shared.link.connection(), TaskQueueType::Activity);
            tokio::select! {
                () = pollers::registered(&connection, &self.shared.settings, &self.tasks.task_queue, kind) => {}
                // A task is proof of a poll. While it has the only slot there is no other, and the one that brought it
                // may have been of a partition that the list does not show.
                () = gate.first_task() => {}
            }
            self.polled.cancel();
        }
        std::future::pending().await
    }
}

/// Core's words for a number of polls that follows the server's advice.
pub fn poller_behavior(pollers: Pollers) -> PollerBehavior {
    let number = |polls: u32| usize::try_from(polls).unwrap_or(usize::MAX);
    let (minimum, maximum) = (number(pollers.minimum), number(pollers.maximum));
    PollerBehavior::Autoscaling { minimum, maximum, initial: minimum.max(maximum.min(POLLS)) }
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
