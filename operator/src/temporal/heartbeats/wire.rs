//! The calls for heartbeats, and what of an answer is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use operator_core::observed::TaskType;
use temporalio_protos::temporal::api::enums::v1::WorkerStatus;
use temporalio_protos::temporal::api::worker::v1::{WorkerHeartbeat, WorkerInfo, WorkerListInfo, WorkerSlotsInfo};
use temporalio_protos::temporal::api::workflowservice::v1 as wire;

use super::beats::{Beat, Slots};
use crate::temporal::api::{Method, call, found};
use crate::temporal::connection::Connection;
use crate::temporal::errors::CallError;

/// Workers on one page.
const PAGE: i32 = 500;

/// One page of the list of Workers: those on the hosts that were asked for.
#[derive(Default)]
pub(super) struct Listed {
    pub beats: Vec<Beat>,
    /// Workers that the server lists without their heartbeats, by instance.
    pub bare: BTreeSet<String>,
    /// Where the next page begins; empty after the last one.
    pub next: Vec<u8>,
}

/// Lists Workers of a Temporal namespace.
pub(super) async fn list(
    connection: &Connection,
    namespace: &str,
    hosts: &BTreeSet<String>,
    page: Vec<u8>,
) -> Result<Listed, CallError> {
    let message = wire::ListWorkersRequest {
        namespace: namespace.to_owned(),
        page_size: PAGE,
        next_page_token: page,
        ..Default::default()
    };
    let answer = call(connection, Method::ListWorkers, namespace, message, async |mut client, request| {
        client.list_workers(request).await
    })
    .await?;
    #[expect(deprecated, reason = "what replaces it has no slots")]
    let told: Vec<WorkerInfo> = answer.workers_info;
    let beats: Vec<Beat> = told.into_iter().filter_map(|it| beat(it, hosts)).collect();
    let with_beat: BTreeSet<&str> = beats.iter().map(|beat| beat.instance.as_str()).collect();
    let is_bare =
        |it: &&WorkerListInfo| hosts.contains(&it.host_name) && !with_beat.contains(it.worker_instance_key.as_str());
    let bare = answer.workers.iter().filter(is_bare).map(|it| it.worker_instance_key.clone()).collect();
    Ok(Listed { beats, bare, next: answer.next_page_token })
}

/// The heartbeat of one Worker; none when it is gone.
pub(super) async fn describe(
    connection: &Connection,
    namespace: &str,
    hosts: &BTreeSet<String>,
    instance: &str,
) -> Result<Option<Beat>, CallError> {
    let message =
        wire::DescribeWorkerRequest { namespace: namespace.to_owned(), worker_instance_key: instance.to_owned() };
    let answer = call(connection, Method::DescribeWorker, namespace, message, async |mut client, request| {
        client.describe_worker(request).await
    });
    Ok(found(answer.await)?.and_then(|answer| beat(answer.worker_info?, hosts)))
}

fn beat(info: WorkerInfo, hosts: &BTreeSet<String>) -> Option<Beat> {
    let beat = info.worker_heartbeat?;
    let host = beat.host_info.as_ref().map(|host| host.host_name.clone())?;
    hosts.contains(&host).then(|| told(beat, host))
}

/// What of a heartbeat is kept.
pub(super) fn told(beat: WorkerHeartbeat, host: String) -> Beat {
    let kinds = [
        (TaskType::Workflow, beat.workflow_task_slots_info.as_ref()),
        (TaskType::Activity, beat.activity_task_slots_info.as_ref()),
        (TaskType::Nexus, beat.nexus_task_slots_info.as_ref()),
    ];
    let time = |seconds: i64, nanos: i32| Some(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?));
    Beat {
        running: beat.status() == WorkerStatus::Running,
        started: beat.start_time.and_then(|at| time(at.seconds, at.nanos)).unwrap_or_default(),
        sent: beat.heartbeat_time.and_then(|at| time(at.seconds, at.nanos)).unwrap_or_default(),
        interval: beat.elapsed_since_last_heartbeat.and_then(|time| Duration::try_from(time).ok()),
        slots: kinds.into_iter().filter_map(|(kind, info)| Some((kind, slots(info?)?))).collect(),
        cached: u64::try_from(beat.current_sticky_cache_size).unwrap_or(0),
        version: beat.deployment_version.map(|version| (version.deployment_name, version.build_id)),
        instance: beat.worker_instance_key,
        task_queue: beat.task_queue,
        host,
    }
}

/// Slots of one kind; none of a kind that the Worker does not take.
fn slots(info: &WorkerSlotsInfo) -> Option<Slots> {
    let count = |number: i32| u64::try_from(number).unwrap_or(0);
    let slots = Slots {
        used: count(info.current_used_slots),
        // Less than nothing stands for a supplier without a number.
        available: u64::try_from(info.current_available_slots).ok(),
        processed: count(info.total_processed_tasks),
    };
    (slots != Slots { used: 0, available: Some(0), processed: 0 }).then_some(slots)
}
