//! Where a world ends once nothing goes wrong any more: at rest, and as the object wants it.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::invariants::S;
use crate::operator::{Fate, Operators};
use crate::world::{Manager, Order, Pod, STEPS, Status, Work, World, ids};

/// Rounds within which every world comes to rest. A round is a look with its writes, a change of each pod, and an hour; a ramp
/// takes one for each step, and a deletion one for each kind of write.
const ROUNDS: usize = 40;
/// Looks within an hour after which nothing is left to write.
const LOOKS: usize = 12;

/// Whether a world is among those that are brought to rest.
pub(crate) fn is_chosen(world: &World, one_of: u64) -> bool {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    one_of > 0 && hasher.finish().is_multiple_of(one_of)
}

/// What a world breaks by where it ends: [`S::S15`] if it comes to no rest or to a wrong one, or what it breaks on the way.
pub(crate) fn ends(operators: &Operators, world: &World) -> u32 {
    let mut world = world.clone();
    world.left = Default::default();
    let mut rounds = 0;
    while round(operators, &mut world) {
        rounds += 1;
        if rounds > ROUNDS {
            return S::S15.bit();
        }
    }
    world.broken | S::S15.unless(is_as_wanted(&world))
}

/// What the leader does next with its plan: false when nothing is left of it.
pub(crate) type Step<'a> = &'a mut dyn FnMut(&mut World) -> bool;

/// One round, in which all work ends. Nothing has happened but that time passed: false.
pub(crate) fn round(operators: &Operators, world: &mut World) -> bool {
    round_by(operators, world, &mut |world| operators.step(world, Fate::Answered).is_some())
}

/// The same with another way to carry out a plan.
pub(crate) fn round_by(operators: &Operators, world: &mut World, step: Step<'_>) -> bool {
    while world.frozen.is_some() {
        operators.thaw(world);
    }
    let mut happened = run(operators, world, step);
    for version in ids() {
        while world.sync_pod(version) {
            happened = true;
        }
        let at = usize::from(version);
        let may_end = world.work[at] != Work::Pinned || world.cluster.pods[at] == Pod::Polls;
        if may_end && world.work[at] != Work::None {
            world.set_work(version, Work::None);
            happened = true;
        }
        happened |= world.drain(version);
    }
    let before = (world.cluster.clone(), world.server.clone(), world.leader.resting);
    world.pass();
    happened || before != (world.cluster.clone(), world.server.clone(), world.leader.resting)
}

/// The leader looks until it has nothing to write, and writes; at most some times.
fn run(operators: &Operators, world: &mut World, step: Step<'_>) -> bool {
    let mut writes = false;
    for _ in 0..LOOKS {
        while step(world) {
            writes = true;
        }
        if !Operators::has_object(world) {
            break;
        }
        operators.look(world, None);
        if world.leader.plan.is_empty() {
            break;
        }
    }
    writes
}

/// Whether the fleet is as its object says, with nothing left of what was before.
fn is_as_wanted(world: &World) -> bool {
    if world.cluster.spec.gone {
        return ids().all(|id| world.child(id).is_none() && world.cluster.pods[usize::from(id)] == Pod::None);
    }
    let spec = &world.cluster.spec;
    let server = &world.server;
    let halted = server.share.as_ref().is_some_and(|share| share.percent < STEPS[0] && !server.by_operator);
    let held = matches!(spec.order, Order::Pause | Order::Abort) || server.manager == Manager::Somebody || halted;
    let is_current = server.current == Some(spec.target) && server.share.is_none();
    (held || is_current) && ids().filter(|id| *id != spec.target).all(|id| is_over(world, id))
}

/// Whether nothing is left of an old version but what has traffic, and that it has a pod then.
fn is_over(world: &World, version: crate::world::Id) -> bool {
    let polls = world.cluster.pods[usize::from(version)] == Pod::Polls;
    match world.record(version).map(|record| record.status) {
        Some(Status::Current | Status::Ramping) => polls || world.child(version).is_none(),
        Some(_) => world.server.manager == Manager::Somebody && world.child(version).is_none(),
        None => world.child(version).is_none(),
    }
}
