//! Which readings a decision misses, and why.

use std::time::Duration;

use super::verdict::failure_message;
use crate::fleet::Fleet;
use crate::observed::{KubeState, Observation, TemporalState};
use crate::plan::{Plan, known_lanes};
use crate::rollout::Stage;
use crate::scaling::Mode;
use crate::versions::{main_build_id, main_pods};

/// Time for which readings must have been missing or old before a condition says so: a pod that has just become ready is
/// read within seconds, and conditions should not flap with it.
pub const STALE_GRACE: Duration = Duration::from_secs(15);

/// Which readings are missing or old: for each side the first one, and the cause, half a sentence each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staleness {
    /// Of the Temporal server.
    pub server: Option<String>,
    /// Of the pods.
    pub workers: Option<String>,
}

impl Staleness {
    /// Whether a reading is missing or old.
    #[must_use]
    pub fn any(&self) -> bool {
        self.server.is_some() || self.workers.is_some()
    }
}

/// Finds what is missing or old of what the fleet's scaling stands on. Pods that are starting or ending tell nothing yet,
/// or nothing any more, and that is no fault; with `mode: ServerOnly` none is asked.
#[must_use]
pub fn staleness(fleet: &Fleet, plan: &Plan, kube: &KubeState, temporal: &TemporalState) -> Staleness {
    let Some(scaling) = &fleet.scaling else { return Staleness::default() };
    // A version without the traffic is not sized by backlogs, so that none of them is missed.
    let is_target = main_build_id(fleet, kube, temporal) == fleet.build_id.as_deref();
    let has_traffic = |stage: &Stage| matches!(stage, Stage::Current | Stage::Unknown);
    let serves = !is_target || plan.stage().is_none_or(has_traffic);
    Staleness {
        server: if serves { server(fleet, kube, temporal) } else { None },
        workers: if scaling.policy.mode == Mode::Full { workers(fleet, kube, temporal) } else { None },
    }
}

fn server(fleet: &Fleet, kube: &KubeState, temporal: &TemporalState) -> Option<String> {
    let lanes = known_lanes(fleet, kube, temporal);
    let old = lanes.iter().find_map(|(lane, reading)| Some(format!("the backlog of {lane} {}", age_of(reading)?)));
    let what = match old {
        None if lanes.is_empty() => "the Task Queues of the fleet are not known".to_owned(),
        old => old?,
    };
    Some(match &temporal.failure {
        Some(failure) => format!("{what}. {}", failure_message(failure, fleet).trim_end_matches('.')),
        None => what,
    })
}

fn workers(fleet: &Fleet, kube: &KubeState, temporal: &TemporalState) -> Option<String> {
    let asked = || main_pods(fleet, kube, temporal).filter(|pod| pod.ready && pod.may_run && !pod.terminating);
    let (first, age) = asked().find_map(|pod| Some((pod, age_of(&pod.load)?)))?;
    let missing = asked().filter(|pod| pod.load.known().is_none()).count();
    let (name, all) = (&first.name, asked().count());
    Some(match &first.unreadable {
        Some(unreadable) => format!(
            "the load of {missing} of {all} ready pods: pod {name} {}; {}",
            unreadable.problem(),
            unreadable.remedy()
        ),
        None => format!("the load of {missing} of {all} ready pods: that of pod {name} {age}"),
    })
}

/// Half a sentence for a reading that is not fresh.
fn age_of<T>(reading: &Observation<T>) -> Option<String> {
    match reading {
        Observation::Known { .. } => None,
        Observation::Stale { age, .. } => Some(format!("is {}s old", age.as_secs())),
        Observation::Unknown => Some("was never read".into()),
    }
}
