//! What the server's answers mean, in the operator's own terms.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use operator_core::observed::{
    LaneKey, LaneStats, Ramp, RateLimit, RateLimitSource, TaskType, VersionStatus, VersionSummary,
};
use temporalio_protos::temporal::api::deployment::v1::worker_deployment_info::WorkerDeploymentVersionSummary;
use temporalio_protos::temporal::api::deployment::v1::{RoutingConfig, WorkerDeploymentVersionInfo};
use temporalio_protos::temporal::api::enums::v1::{
    RateLimitSource as WireSource, TaskQueueType, VersionDrainageStatus, WorkerDeploymentVersionStatus,
    WorkerVersioningMode,
};
use temporalio_protos::temporal::api::taskqueue::v1::{PollerInfo, TaskQueueStats};
use temporalio_protos::temporal::api::workflowservice::v1 as wire;

/// Build ID of the current version; none when unversioned Workers get the traffic.
pub(super) fn current_build_id(routing: &RoutingConfig) -> Option<String> {
    let version = routing.current_deployment_version.as_ref()?;
    Some(version.build_id.clone()).filter(|build_id| !build_id.is_empty())
}

/// The version that gets a share of the traffic. A share of unversioned Workers has no version, but a percentage.
pub(super) fn ramp(routing: &RoutingConfig) -> Option<Ramp> {
    let version = routing.ramping_deployment_version.as_ref();
    let build_id = version.map(|version| version.build_id.clone()).unwrap_or_default();
    let percent = routing.ramping_version_percentage;
    (!build_id.is_empty() || percent > 0.0).then(|| Ramp {
        build_id,
        percent,
        since: routing.ramping_version_changed_time.and_then(time),
        changed_at: routing.ramping_version_percentage_changed_time.and_then(time),
        unchanged_for: None,
    })
}

/// A version in the list of its Worker Deployment, by Build ID.
pub(super) fn summary(summary: &WorkerDeploymentVersionSummary) -> Option<(String, VersionSummary)> {
    let build_id = summary.deployment_version.as_ref()?.build_id.clone();
    let drainage = summary.drainage_info.as_ref();
    let told = VersionSummary {
        status: known_status(summary.status()).unwrap_or(VersionStatus::Inactive),
        created_at: summary.create_time.and_then(time),
        drainage_changed_at: drainage.and_then(|drainage| drainage.last_changed_time).and_then(time),
    };
    Some((build_id, told))
}

/// A moment of the server's; none for one that no clock shows.
pub(super) fn time(time: impl TryInto<SystemTime>) -> Option<Timestamp> {
    let time = Timestamp::try_from(time.try_into().ok()?).ok()?;
    (time > Timestamp::UNIX_EPOCH).then_some(time)
}

/// The status, deduced from the other fields where a server is too old to send it. A version that ever had traffic and
/// has none now counts as draining until the server says that it is drained.
pub(super) fn status(info: &WorkerDeploymentVersionInfo) -> VersionStatus {
    known_status(info.status()).unwrap_or_else(|| deduced_status(info))
}

fn known_status(status: WorkerDeploymentVersionStatus) -> Option<VersionStatus> {
    Some(match status {
        WorkerDeploymentVersionStatus::Inactive | WorkerDeploymentVersionStatus::Created => VersionStatus::Inactive,
        WorkerDeploymentVersionStatus::Current => VersionStatus::Current,
        WorkerDeploymentVersionStatus::Ramping => VersionStatus::Ramping,
        WorkerDeploymentVersionStatus::Draining => VersionStatus::Draining,
        WorkerDeploymentVersionStatus::Drained => VersionStatus::Drained,
        WorkerDeploymentVersionStatus::Unspecified => return None,
    })
}

fn deduced_status(info: &WorkerDeploymentVersionInfo) -> VersionStatus {
    if info.current_since_time.is_some() {
        return VersionStatus::Current;
    }
    if info.ramping_since_time.is_some() {
        return VersionStatus::Ramping;
    }
    match info.drainage_info.as_ref().map(|drainage| drainage.status()) {
        Some(VersionDrainageStatus::Drained) => VersionStatus::Drained,
        Some(VersionDrainageStatus::Draining) => VersionStatus::Draining,
        _ if info.routing_changed_time.is_some() => VersionStatus::Draining,
        _ => VersionStatus::Inactive,
    }
}

pub(super) fn lane(name: &str, kind: TaskQueueType) -> Option<LaneKey> {
    let task_type = match kind {
        TaskQueueType::Workflow => TaskType::Workflow,
        TaskQueueType::Activity => TaskType::Activity,
        TaskQueueType::Nexus => TaskType::Nexus,
        TaskQueueType::Unspecified => return None,
    };
    Some(LaneKey { task_queue: name.to_owned(), task_type })
}

pub(super) fn lane_stats(stats: &TaskQueueStats) -> LaneStats {
    let rate = |rate: f32| Some(f64::from(rate)).filter(|rate| rate.is_finite() && *rate >= 0.0);
    LaneStats {
        backlog: count(stats.approximate_backlog_count),
        backlog_age: stats.approximate_backlog_age.and_then(|age| Duration::try_from(age).ok()),
        add_rate: rate(stats.tasks_add_rate),
        dispatch_rate: rate(stats.tasks_dispatch_rate),
        rate_limiting: stats.rate_limiting_active,
        rate_limit: None,
        unversioned_pollers: false,
    }
}

/// Whether a poller uses no Worker Versioning.
pub(super) fn is_unversioned(poller: &PollerInfo) -> bool {
    let options = poller.deployment_options.as_ref();
    options.is_none_or(|options| options.worker_versioning_mode() != WorkerVersioningMode::Versioned)
}

/// The limit that somebody set on the tasks that a queue gives out. Where nobody did, the server tells its own default
/// (1000 a second and partition), which is far from what a fleet can do, and no limit to plan with.
pub(super) fn rate_limit(answer: &wire::DescribeTaskQueueResponse) -> Option<RateLimit> {
    let told = answer.effective_rate_limit.as_ref()?;
    let source = match told.rate_limit_source() {
        WireSource::Api => RateLimitSource::Api,
        WireSource::Worker => RateLimitSource::Worker,
        WireSource::System | WireSource::Unspecified => return None,
    };
    let per_second = f64::from(told.requests_per_second);
    (per_second.is_finite() && per_second >= 0.0).then_some(RateLimit { per_second, source })
}

/// A count that the server sends as a signed number: less than nothing is nothing.
pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_numbers_are_not_passed_on() {
        let stats = TaskQueueStats { approximate_backlog_count: -3, tasks_add_rate: f32::NAN, ..Default::default() };
        assert_eq!(lane_stats(&stats), LaneStats { dispatch_rate: Some(0.0), ..LaneStats::default() });
        let stats = TaskQueueStats { approximate_backlog_count: i64::MAX, tasks_add_rate: 2.5, ..Default::default() };
        let told = lane_stats(&stats);
        assert_eq!((told.backlog, told.add_rate), (i64::MAX as u64, Some(2.5)));
    }

    #[test]
    fn a_rate_limit_is_known_with_its_source_and_only_if_it_is_a_rate() {
        let told = |per_second: f32, source: WireSource| {
            let limit = wire::describe_task_queue_response::EffectiveRateLimit {
                requests_per_second: per_second,
                rate_limit_source: source.into(),
            };
            rate_limit(&wire::DescribeTaskQueueResponse { effective_rate_limit: Some(limit), ..Default::default() })
        };
        let limit = |per_second, source| Some(RateLimit { per_second, source });
        assert_eq!(told(10.0, WireSource::Api), limit(10.0, RateLimitSource::Api));
        assert_eq!(told(0.0, WireSource::Worker), limit(0.0, RateLimitSource::Worker));
        assert_eq!(told(4000.0, WireSource::System), None, "the server's own default");
        assert_eq!(told(10.0, WireSource::Unspecified), None);
        assert_eq!(told(f32::NAN, WireSource::Api), None);
        assert_eq!(rate_limit(&wire::DescribeTaskQueueResponse::default()), None);
    }

    #[test]
    fn a_share_of_unversioned_workers_is_a_share_and_none_is_none() {
        let routing = |percent| RoutingConfig { ramping_version_percentage: percent, ..Default::default() };
        assert_eq!(ramp(&routing(0.0)), None);
        assert_eq!(ramp(&routing(5.0)).map(|ramp| (ramp.build_id, ramp.percent)), Some((String::new(), 5.0)));
    }

    #[test]
    fn a_version_that_lost_its_traffic_is_draining_until_the_server_says_otherwise() {
        let mut info = WorkerDeploymentVersionInfo::default();
        assert_eq!(status(&info), VersionStatus::Inactive);
        info.routing_changed_time = Some(Default::default());
        assert_eq!(status(&info), VersionStatus::Draining);
        info.set_status(WorkerDeploymentVersionStatus::Drained);
        assert_eq!(status(&info), VersionStatus::Drained);
    }
}
