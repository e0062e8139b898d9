//! What is not proven. In doubt nothing shrinks.

use std::time::Duration;

use super::fleet::{Fleet, Unproven};
use super::{Input, Mode, Policy};
use crate::observed::{LaneKey, Observation};

/// The first thing that is not proven.
pub(super) enum Doubt<'a> {
    /// There may be Task Queues that nobody named.
    Lanes,
    /// The backlog of a lane is old, or was never read.
    Backlog { lane: &'a LaneKey, age: Option<Duration> },
    /// A pod's load.
    Pod(&'a Unproven<'a>),
}

/// The first thing that is not proven, if there is one.
pub(super) fn first<'a>(policy: &Policy, input: &'a Input, fleet: &'a Fleet<'a>) -> Option<Doubt<'a>> {
    if !input.lanes_complete || input.lanes.is_empty() {
        return Some(Doubt::Lanes);
    }
    let old = input.lanes.iter().find_map(|(lane, reading)| match reading {
        Observation::Known { .. } => None,
        Observation::Stale { age, .. } => Some(Doubt::Backlog { lane, age: Some(*age) }),
        Observation::Unknown => Some(Doubt::Backlog { lane, age: None }),
    });
    // That the pods tell nothing is the user's word then.
    let unproven = fleet.unproven.as_ref().filter(|_| policy.mode == Mode::Full);
    old.or(unproven.map(Doubt::Pod))
}
