//! Condition types and reasons, and how a condition changes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message that the API server accepts in a condition, in characters.
pub const MAX_MESSAGE: usize = 32_768;

/// Declares an enum whose variants are the words of the API.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $word:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $word,)+ }

        impl $name {
            /// Every word.
            pub const ALL: &'static [Self] = &[$(Self::$word,)+];

            /// The word as the API writes it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$word => stringify!($word),)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// `status.conditions[].type`.
    ConditionType {
        /// The target version is current and its Workers poll.
        Ready,
        /// A rollout is on its way.
        Progressing,
        /// The autoscaler reads its signals and may change replicas.
        ScalingActive,
        /// The number of pods is not what the work calls for.
        ScalingLimited,
        /// A reading that a decision needs is missing or old, and nothing is scaled down.
        MetricsStale,
        /// Tasks start within the target.
        SLOMet,
        /// Nothing moves until somebody changes something; present only while true.
        Stalled,
        /// The rollout is paused, by the spec or by a command; present only while true.
        Paused,
        /// Tasks run longer than a pod gets to end; present only while true.
        GracePeriodTooShort,
        /// Deprecated, kept for alerts on it: the Temporal server could be asked.
        ConnectionHealthy,
        /// Deprecated, kept for alerts on it: the target version was current once.
        RolloutComplete,
    }
}

words! {
    /// `status.conditions[].reason`; those that mean failure are event reasons too.
    Reason {
        /// The target version is current.
        RolloutComplete,
        /// The target version gets a share of new Workflows.
        Ramping,
        /// The target version polls and waits to be made current.
        WaitingForPromotion,
        /// The target version has no pollers yet.
        WaitingForPollers,
        /// The target version is current and polled.
        ActivePollers,
        /// Whether the target version is polled is not known.
        PollerStatusUnknown,
        /// The object is being deleted.
        Deleting,
        /// The spec can't be run as it is.
        InvalidSpec,
        /// The Connection does not exist.
        ConnectionNotFound,
        /// The ClusterConnection may not be used in the fleet's namespace.
        ConnectionNotAllowed,
        /// A Secret of the Connection is missing, of the wrong type, empty, malformed or expired.
        AuthSecretInvalid,
        /// The Temporal server does not answer.
        TemporalClientCreationFailed,
        /// The Temporal server answered with an error.
        TemporalStateFetchFailed,
        /// A test Workflow of a gate ended, and not as it should.
        GateFailed,
        /// A test Workflow of a gate could not be started.
        TestWorkflowStartFailed,
        /// What to do could not be worked out.
        PlanGenerationFailed,
        /// What was to be done failed.
        PlanExecutionFailed,
        /// The Temporal server could be asked.
        ConnectionHealthy,
        /// It could be, but more is to be read than the operator's budget of calls allows in time.
        PollingDegraded,
        /// The Temporal namespace does not exist.
        NamespaceNotFound,
        /// The credentials don't allow a call that the operator needs.
        PermissionDenied,
        /// A pod can't start: its image can't be pulled or its container can't be made.
        PodStartFailed,
        /// A container ends again and again.
        PodCrashLooping,
        /// No pod became ready within `spec.progressDeadlineSeconds`.
        ProgressDeadlineExceeded,
        /// So many old versions are there still that no new one is begun.
        VersionLimitReached,
        /// Tasks that run when a pod goes are lost, and tried again after their timeout.
        TasksOutlastGracePeriod,
        /// The autoscaler has fresh signals.
        SignalsFresh,
        /// The autoscaler's signals are old or missing: it does not scale down.
        SignalsStale,
        /// `spec.scaling` is not set.
        ScalingDisabled,
        /// `spec.scaling.dryRun` is set: what is decided is not carried out.
        DryRun,
        /// `spec.scaling.pause`, `spec.rollout.paused` or a command holds changes back.
        Paused,
        /// The number of pods is what the work calls for.
        NotLimited,
        /// The work calls for more than `spec.scaling.maxReplicas`.
        AtMaximum,
        /// A Task Queue gives out only so many tasks a second.
        RateLimited,
        /// More pods brought no more throughput.
        Ineffective,
        /// Too many pods restart again and again, so that the number stays as it is.
        Degraded,
        /// `spec.scaling.ramp` allows no faster change.
        RampLimited,
        /// Pods do not become ready, so that no more are added.
        PodsNotBecomingReady,
        /// Readings of the Temporal server are missing or old.
        ServerStale,
        /// Readings of the pods are missing or old.
        WorkersStale,
        /// Readings of the Temporal server and of the pods are missing or old.
        ServerAndWorkersStale,
        /// Enough of the tasks start within the target.
        WithinTarget,
        /// Too many of the tasks start later than the target.
        SLOMissed,
        /// Too few tasks started lately to tell.
        TooFewTasks,
        /// The kind is deprecated, and nothing of the new kind has the object's name.
        Deprecated,
        /// A WorkerDeployment of its name is there and gets what the object owns.
        WorkerDeploymentExists,
        /// The WorkerDeployment of its name has all that the object owned.
        MigratedToWorkerDeployment,
        /// There is a Connection of its name.
        MigratedToConnection,
        /// Its deletion waits until the object of the new kind is there and has what it owns.
        DeletingPendingMigration,
        /// Every version that is to have a copy of the template has it.
        AllVersionsApplied,
        /// A copy could not be applied or deleted.
        ApplyFailed,
        /// The WorkerDeployment that a template names does not exist.
        WorkerDeploymentNotFound,
        /// Nobody checks what authors of templates may do: the policy is not installed.
        PolicyNotInstalled,
        /// The template scales Deployments whose replicas `spec.scaling` decides.
        ReplicasOwnedByScaling,
    }
}

/// `status.conditions[].status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// It is not known.
    Unknown,
}

impl ConditionStatus {
    /// The word as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// What a condition is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate {
    /// Which condition.
    pub type_: ConditionType,
    /// Its status.
    pub status: ConditionStatus,
    /// Its reason.
    pub reason: Reason,
    /// One sentence for people; cut at [`MAX_MESSAGE`] characters.
    pub message: String,
}

/// Sets a condition, for the object's `generation`. `lastTransitionTime` moves to `now` only when the status changes.
/// Returns whether anything changed.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    update: ConditionUpdate,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let old = conditions.iter_mut().find(|c| c.type_ == update.type_.as_str());
    let mut new = Condition {
        type_: update.type_.as_str().to_owned(),
        status: update.status.as_str().to_owned(),
        reason: update.reason.as_str().to_owned(),
        message: truncate(update.message),
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    let Some(old) = old else {
        conditions.push(new);
        return true;
    };
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time.clone();
    }
    let changed = *old != new;
    *old = new;
    changed
}

/// Takes a condition away. Returns whether it was there.
pub fn remove_condition(conditions: &mut Vec<Condition>, type_: ConditionType) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.type_ != type_.as_str());
    conditions.len() != before
}

/// The condition of a type.
#[must_use]
pub fn find_condition(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_.as_str())
}

fn truncate(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(status: ConditionStatus, reason: Reason, message: &str) -> ConditionUpdate {
        ConditionUpdate { type_: ConditionType::Ready, status, reason, message: message.to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut list = Vec::new();
        let waiting = update(ConditionStatus::False, Reason::WaitingForPollers, "no pollers");
        assert!(set_condition(&mut list, waiting.clone(), Some(1), at(10)));
        assert!(!set_condition(&mut list, waiting, Some(1), at(20)), "the same again changes nothing");
        let other = update(ConditionStatus::False, Reason::InvalidSpec, "no container");
        assert!(set_condition(&mut list, other, Some(2), at(30)));
        assert_eq!((list.len(), list[0].last_transition_time.0, list[0].observed_generation), (1, at(10), Some(2)));
        assert!(set_condition(
            &mut list,
            ConditionUpdate { status: true.into(), ..update(ConditionStatus::True, Reason::RolloutComplete, "") },
            Some(2),
            at(40)
        ));
        assert_eq!(list[0].last_transition_time.0, at(40));
    }

    #[test]
    fn a_condition_that_no_longer_holds_is_taken_away() {
        let mut list = Vec::new();
        set_condition(&mut list, update(ConditionStatus::True, Reason::RolloutComplete, ""), None, at(1));
        assert!(!remove_condition(&mut list, ConditionType::Stalled));
        assert!(remove_condition(&mut list, ConditionType::Ready));
        assert_eq!(find_condition(&list, ConditionType::Ready), None);
    }

    #[test]
    fn a_message_is_cut_at_the_limit_of_the_api() {
        let mut list = Vec::new();
        let long = "é".repeat(MAX_MESSAGE + 1);
        set_condition(&mut list, update(ConditionStatus::True, Reason::RolloutComplete, &long), None, at(1));
        assert_eq!(list[0].message.chars().count(), MAX_MESSAGE);
    }
}
