//! Dangerous states and events: a check that never meets them proves nothing.

use crate::act::Act;
use crate::model::{Event, Rollouts};
use crate::operator::Wrong;
use crate::world::{By, Manager, Pod, Status, Work, World, child_bit, ids};

type IsSo = fn(&Rollouts, &World) -> bool;

/// States, each with its name.
pub const STATES: [(&str, IsSo); 13] = [
    ("pinned work is open on a version that drains", |_, world| any(world, Status::Draining, Work::Pinned)),
    ("a task runs on a version that is drained", |_, world| any(world, Status::Drained, Work::Task)),
    ("another version is wanted in mid-ramp", |_, world| {
        world.server.share.as_ref().is_some_and(|share| share.version != world.cluster.spec.target)
    }),
    ("a version is wanted again that drains", |_, world| target_is(world, Status::Draining)),
    ("a version is wanted again whose pods are gone", |_, world| {
        target_is(world, Status::Drained) && world.cluster.pods[usize::from(world.cluster.spec.target)] == Pod::None
    }),
    ("a write is under way of an operator that has lost the Lease", |_, world| world.frozen.is_some()),
    ("both operators have something to write", |_, world| world.frozen.is_some() && !world.leader.plan.is_empty()),
    ("somebody else manages the routing in mid-ramp", |_, world| {
        world.server.manager == Manager::Somebody && world.server.share.is_some()
    }),
    ("the object is deleted in mid-ramp", |_, world| {
        world.cluster.spec.deleting.is_some() && world.server.share.is_some()
    }),
    ("a record has no Deployment", |_, world| {
        let is_left = |id| world.record(id).is_some() && world.child(id).is_none();
        !world.cluster.spec.gone && ids().any(is_left)
    }),
    ("the wall clock is far ahead while a version drains", |_, world| {
        world.leader.ahead && any(world, Status::Draining, Work::None)
    }),
    ("three versions run", |_, world| world.cluster.pods.iter().all(|pod| *pod == Pod::Polls)),
    ("the object is gone", |_, world| world.cluster.spec.gone),
];

/// Names of events, in the order of their bits.
pub const EVENTS: [&str; 12] = [
    "the reply to a change of the routing is lost",
    "the operator ends between the deletion of a record and that of its Deployment",
    "the server has no word of a version with pinned work",
    "a version with pinned work is missing from the list",
    "a plan is made from an old cluster",
    "a plan is made from an old reading of the server",
    "a write of the operator that lost the Lease is accepted",
    "a write of the operator that lost the Lease is refused",
    "somebody else changes the routing between look and write",
    "the user wants another version between look and write",
    "a Deployment is deleted",
    "a record is deleted",
];

/// Which of them happened.
pub(crate) fn of_event(before: &World, event: Event, after: &World) -> u64 {
    let next = before.leader.plan.last();
    let pinned = |version| before.work[usize::from(version)] == Work::Pinned;
    let planned = !after.leader.plan.is_empty();
    let done = |is: fn(&Act) -> bool| event == Event::Step && next.is_some_and(is);
    let happened = [
        event == Event::LoseReply && next.is_some_and(|act| act.routes()) && before.server != after.server,
        event == Event::Crash && matches!(next, Some(Act::DeleteChild(version)) if before.record(*version).is_none()),
        matches!(event, Event::Look(Some(Wrong::NoRecord(version))) if pinned(version)),
        matches!(event, Event::Look(Some(Wrong::Unlisted(version))) if pinned(version)),
        event == Event::Look(Some(Wrong::OldCluster)) && planned,
        event == Event::Look(Some(Wrong::OldServer)) && planned,
        event == Event::Thaw && (before.cluster != after.cluster || before.server != after.server),
        event == Event::Thaw && is_outdated(before),
        matches!(event, Event::OutsideShare(..) | Event::OutsideCurrent(_)) && next.is_some_and(|act| act.routes()),
        matches!(event, Event::Retarget(_)) && next.is_some_and(|act| act.routes()),
        done(|act| matches!(act, Act::DeleteChild(_))) && before.cluster.children != after.cluster.children,
        done(|act| matches!(act, Act::DeleteRecord(_))) && before.server != after.server,
    ];
    happened.iter().enumerate().map(|(bit, happened)| u64::from(*happened) << bit).sum()
}

fn is_outdated(world: &World) -> bool {
    let act = world.frozen.as_ref().and_then(|frozen| frozen.plan.last());
    matches!(act, Some(Act::Scale(version, _)) if world.changes(By::Frozen).0 & child_bit(*version) != 0)
        || act.is_some_and(|act| act.routes() && world.changes(By::Frozen).0 & crate::world::ROUTING != 0)
}

fn any(world: &World, status: Status, work: Work) -> bool {
    ids()
        .any(|id| world.work[usize::from(id)] == work && world.record(id).is_some_and(|record| record.status == status))
}

fn target_is(world: &World, status: Status) -> bool {
    world.record(world.cluster.spec.target).is_some_and(|record| record.status == status)
}
