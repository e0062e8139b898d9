//! The sentence that says why this many: numbers, what binds, and one remedy where there is one.

use std::time::Duration;

use super::decision::Scene;
use super::doubt::Doubt;
use super::fleet::Unproven;
use super::need::{LaneNeed, Term};
use super::number::{Cause, Number};
use crate::observed::RateLimitSource;

/// The sentence.
pub(super) fn sentence(scene: &Scene<'_>, number: &Number<'_>) -> String {
    let desired = number.desired;
    match number.cause {
        Cause::ToZero if scene.policy.max_replicas > 0 => {
            format!("Scaled to zero: no task started, running or waiting for {}.", seconds(scene.idle_window))
        }
        Cause::ToZero => "0 replicas: the maximum.".into(),
        Cause::AtZero => "At zero: no task waits.".into(),
        Cause::Need => need(scene, desired),
        Cause::Episode => episode(scene, number),
        Cause::Maximum if number.work == 0 => format!("{}: the maximum.", replicas(desired)),
        Cause::Maximum => maximum(scene, number),
        Cause::OverMaximum => format!(
            "Kept at {desired}, above the maximum of {}: the pods run tasks, or may; only pods whose tasks end in time are removed.",
            scene.policy.max_replicas
        ),
        Cause::Minimum => format!("{}: the minimum.", replicas(desired)),
        Cause::Floor(reason) => format!("{}: {reason}.", replicas(desired)),
        Cause::Doubt(doubt) => kept(doubt, desired),
        Cause::Blind => format!(
            "{}: every slot is full and the server can't be read; half as many again each time they fill up.",
            replicas(desired)
        ),
        Cause::Settling { need, since, left } => format!(
            "Holding {desired} (need {need} since {}): highest need of the last {}; next decrease not before {}.",
            seconds(since),
            seconds(scene.hold),
            seconds(left)
        ),
        Cause::Waiting { .. } => format!(
            "Kept at {desired}: to zero after {} without a task started, running or waiting.",
            seconds(scene.idle_window)
        ),
        Cause::Busy { need, kept } => busy(scene, desired, need, kept),
        Cause::Limited => limited(scene, desired),
        Cause::Step { need, ramp: true } => {
            format!("{} of {need} that are needed: spec.scaling.ramp allows no more a minute.", replicas(desired))
        }
        Cause::Step { need, ramp: false } => format!("{} on the way to {need}: a step at a time.", replicas(desired)),
        Cause::Stalled => stalled(scene, desired),
        Cause::OnTrial { need } => format!(
            "{} of {need} that are needed: no pod of this version was Ready yet; the first has to show that it starts.",
            replicas(desired)
        ),
        Cause::Failing { pods } => format!(
            "Holding {desired}: {pods} of {} pods restarted more than 3 times within 10m; look at their logs.",
            scene.fleet.existing
        ),
        Cause::Ineffective { need, left } => format!(
            "Not scaling up to {need}: the last increase brought no more throughput, so something else limits it; {}, next try in {}.",
            holding(desired),
            seconds(left)
        ),
        Cause::Paused { need } => {
            format!("Paused at {desired} (need {need}) by spec.scaling.pause; set it to None to follow the need.")
        }
    }
}

fn need(scene: &Scene<'_>, desired: u32) -> String {
    let Some(need) = scene.binding() else { return format!("{}: no task waits or runs.", replicas(desired)) };
    format!("{}: {}.", replicas(desired), work(scene, need))
}

/// What a lane needs, without the end of the sentence.
fn work(scene: &Scene<'_>, need: &LaneNeed<'_>) -> String {
    let Some(lane) = need.lane else { return "no task waits or runs".into() };
    let (waiting, running) = (need.waiting, need.running);
    match need.term {
        Term::Canary => {
            let total = waiting.saturating_add(running);
            format!("{lane} has {total} tasks, and no pod has told its slots yet")
        }
        Term::OneEach => {
            let total = waiting.saturating_add(running);
            format!(
                "{lane} needs {} ({waiting} waiting + {running} running, their time is not known yet) at {}",
                slots(total as f64),
                per_pod(need)
            )
        }
        Term::Server => format!(
            "{lane} has {waiting} waiting and {}/s added by the server's word; the pods tell nothing",
            decimal(need.arrivals)
        ),
        Term::Backlog => format!("{lane} has {waiting} waiting beside {}", load(scene, need)),
        Term::Stuck | Term::Limited => format!("{lane} has {waiting} waiting, and more pods would not help"),
        Term::Load | Term::Nothing => format!("{lane} needs {}", load(scene, need)),
    }
}

/// `47 slots (arrivals 3.9/s x 10.2s = 39.8 busy slots 25s ahead, +7 for p95 start <= 5s) at 8 of 10 slots a pod`.
fn load(scene: &Scene<'_>, need: &LaneNeed<'_>) -> String {
    let ahead = seconds(scene.state.start_up() + super::TICK);
    let time = need.service.map_or_else(|| "an unknown time".into(), |time| format!("{}s", decimal(time)));
    let spare = (need.seats - need.load).max(0.0);
    format!(
        "{} (arrivals {}/s x {time}, {} running: {} busy slots {ahead} ahead, +{} for p{} start <= {}) at {}",
        slots(need.seats),
        decimal(need.arrivals),
        need.running,
        decimal(need.load),
        decimal(spare),
        decimal(scene.policy.percentile * 100.0),
        seconds(scene.policy.target_latency),
        per_pod(need)
    )
}

fn per_pod(need: &LaneNeed<'_>) -> String {
    match (need.usable, need.slots) {
        (Some(usable), Some(all)) if usable + 0.5 < all as f64 => {
            format!("{} usable of {all} slots per pod (CPU 85% target)", decimal(usable))
        }
        (_, Some(all)) => format!("{all} slots per pod"),
        _ => "unknown slots per pod".into(),
    }
}

fn episode(scene: &Scene<'_>, number: &Number<'_>) -> String {
    let waiting: u64 = scene.needs.iter().fold(0, |sum, need| need.waiting.saturating_add(sum));
    let oldest = scene.needs.iter().filter_map(|need| need.backlog_age).max();
    let oldest = oldest.map_or(String::new(), |age| format!(", oldest {}", seconds(age)));
    format!(
        "{} for a backlog: {waiting} waiting{oldest}; returns to {} when it has been empty for 10s.",
        replicas(number.desired),
        scene.rate_pods().max(scene.policy.min_replicas)
    )
}

fn maximum(scene: &Scene<'_>, number: &Number<'_>) -> String {
    let work = scene.binding().map_or_else(|| "a backlog is not worked off".into(), |need| work(scene, need));
    format!("{} (the maximum): {work}, {} pods; raise spec.scaling.maxReplicas.", replicas(number.desired), number.work)
}

fn busy(scene: &Scene<'_>, desired: u32, need: u32, kept: usize) -> String {
    let typical = scene.binding().and_then(|need| need.service);
    let typical = typical.map_or(String::new(), |time| format!(" (typical {}s)", decimal(time)));
    format!(
        "Holding {desired} (need {need}): {} that may run longer than terminationGracePeriodSeconds={}{typical}; only idle pods are removed.",
        if kept == 1 { "1 pod has tasks".into() } else { format!("{kept} pods have tasks") },
        scene.input.grace.as_secs()
    )
}

fn limited(scene: &Scene<'_>, desired: u32) -> String {
    let Some(need) = scene.binding() else { return format!("{}.", holding(desired)) };
    let lane = need.lane.map_or_else(String::new, ToString::to_string);
    match (need.term, need.limit) {
        (Term::Limited, Some((limit, source))) => {
            let by = match source {
                Some(RateLimitSource::Worker) => " by workers (maxTaskQueueActivitiesPerSecond)",
                Some(RateLimitSource::Api) => " by the Task Queue's configuration",
                Some(RateLimitSource::System) => " by the server's configuration",
                None => " as measured",
            };
            let reach = if desired == 1 {
                "1 replica already reaches it".into()
            } else {
                format!("{} reach it", replicas(desired))
            };
            format!("Not scaling up: {lane} is rate limited to {}/s{by}; {reach}.", decimal(limit))
        }
        _ => format!(
            "{}: {} tasks of {lane} wait though free slots take none; more pods would not help.",
            replicas(desired),
            need.waiting
        ),
    }
}

fn stalled(scene: &Scene<'_>, desired: u32) -> String {
    let Some(stall) = &scene.warnings.stalled else { return holding(desired) };
    let why = stall.why.as_ref().map_or_else(|| "no reason told".to_owned(), Clone::clone);
    let waiting: u64 = scene.needs.iter().fold(0, |sum, need| need.waiting.saturating_add(sum));
    format!(
        "Stalled: {} not Ready for {} ({why}); {waiting} tasks wait. Adding replicas would not help; {}.",
        if stall.pods == 1 { "1 pod".into() } else { format!("{} pods", stall.pods) },
        seconds(stall.time),
        holding(desired)
    )
}

fn kept(doubt: &Doubt<'_>, desired: u32) -> String {
    let what = match doubt {
        Doubt::Lanes => "the Task Queues of the fleet are not all known".into(),
        Doubt::Backlog { lane, age: Some(age) } => format!("the backlog of {lane} is {} old", seconds(*age)),
        Doubt::Backlog { lane, age: None } => format!("the backlog of {lane} was never read"),
        Doubt::Pod(Unproven::Load { pod, age, why }) => {
            let age = age.map_or_else(|| "were never read".into(), |age| format!("are {} old", seconds(age)));
            let problem = why.map_or_else(String::new, |why| format!(" (it {})", why.problem()));
            format!("metrics of pod {pod}{problem} {age}")
        }
        Doubt::Pod(Unproven::Lane { pod, lane }) => format!("pod {pod} tells no slots of {lane}"),
    };
    let remedy = match doubt {
        Doubt::Pod(Unproven::Load { why: Some(why), .. }) => format!("; {}", why.remedy()),
        _ => String::new(),
    };
    match desired {
        0 => format!("At zero: {what}{remedy}."),
        1 => format!("Kept at 1: {what}, idleness not proven{remedy}."),
        _ => format!("Kept at {desired}: {what}, a lower need is not proven{remedy}."),
    }
}

fn holding(desired: u32) -> String {
    format!("holding {desired}")
}

fn replicas(count: u32) -> String {
    if count == 1 { "1 replica".into() } else { format!("{count} replicas") }
}

fn slots(count: f64) -> String {
    let count = decimal(count.ceil());
    if count == "1" { "1 slot".into() } else { format!("{count} slots") }
}

/// With one digit behind the point, two below one tenth, none if that is zero.
fn decimal(value: f64) -> String {
    let text = if value > 0.0 && value < 0.1 { format!("{value:.2}") } else { format!("{value:.1}") };
    text.strip_suffix(".0").map_or_else(|| text.clone(), Into::into)
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}
