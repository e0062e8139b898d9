//! The sentence that says why this many.

use std::time::Duration;

use super::Policy;
use super::decision::{Cause, Doubt};
use super::fleet::Unproven;
use super::need::Need;

/// One sentence with the numbers that decided.
pub(super) fn sentence(cause: &Cause<'_>, desired: u32, policy: &Policy, need: &Need<'_>) -> String {
    match cause {
        Cause::ToZero => {
            format!("Scaled to zero: no task started, running or waiting for {}.", seconds(policy.idle_window.fixed()))
        }
        Cause::AtZero => "At zero: no task waits.".into(),
        Cause::Need => format!("{}: {}.", replicas(desired), work(need)),
        Cause::Maximum if need.pods == 0 => format!("{}: the maximum.", replicas(desired)),
        Cause::Maximum => format!("{} (the maximum): {}, {} pods.", replicas(desired), work(need), need.pods),
        Cause::OverMaximum => format!(
            "Kept at {desired}, above the maximum of {}: the pods run tasks, or may; only idle pods are removed.",
            policy.max_replicas
        ),
        Cause::Minimum => format!("{}: the minimum.", replicas(desired)),
        Cause::Floor(reason) => format!("{}: {reason}.", replicas(desired)),
        Cause::Doubt(doubt) => kept(doubt, desired),
        Cause::Settling { need, since, window, .. } => format!(
            "Holding {desired}: need is {need} since {}; decrease not before {} of it.",
            seconds(*since),
            seconds(*window)
        ),
        Cause::Waiting { .. } => format!(
            "Kept at {desired}: to zero after {} without a task started, running or waiting.",
            seconds(policy.idle_window.fixed())
        ),
        Cause::Busy { need, kept } => format!(
            "Holding {desired}: need is {need}, but {kept} {}; only idle pods are removed.",
            if *kept == 1 { "pod runs tasks, or may" } else { "pods run tasks, or may" }
        ),
    }
}

fn work(need: &Need<'_>) -> String {
    let Some(lane) = need.lane else { return "no task waits or runs".into() };
    let total = need.waiting.saturating_add(need.running);
    if need.stuck {
        return format!("{} tasks of {lane} wait though free slots take none; more pods would not help", need.waiting);
    }
    match need.slots {
        Some(per_pod) => {
            let slots = if total == 1 { "slot" } else { "slots" };
            let (waiting, running) = (need.waiting, need.running);
            format!("{lane} needs {total} {slots} ({waiting} waiting + {running} running) at {per_pod} slots per pod")
        }
        None => format!("{lane} has {total} tasks, and no pod has told its slots yet"),
    }
}

fn kept(doubt: &Doubt<'_>, desired: u32) -> String {
    let what = match doubt {
        Doubt::Lanes => "the Task Queues of the fleet are not all known".into(),
        Doubt::Backlog { lane, age: Some(age) } => format!("the backlog of {lane} is {} old", seconds(*age)),
        Doubt::Backlog { lane, age: None } => format!("the backlog of {lane} was never read"),
        Doubt::Pod(Unproven::Load { pod, age: Some(age) }) => format!("metrics of pod {pod} are {} old", seconds(*age)),
        Doubt::Pod(Unproven::Load { pod, age: None }) => format!("metrics of pod {pod} were never read"),
        Doubt::Pod(Unproven::Lane { pod, lane }) => format!("pod {pod} tells no slots of {lane}"),
    };
    match desired {
        0 => format!("At zero: {what}."),
        1 => format!("Kept at 1: {what}, idleness not proven."),
        _ => format!("Kept at {desired}: {what}, a lower need is not proven."),
    }
}

fn replicas(count: u32) -> String {
    if count == 1 { "1 replica".into() } else { format!("{count} replicas") }
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}
