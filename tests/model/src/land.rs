//! How a write takes effect, on the cluster or on the server.

use crate::act::{Act, new_child};
use crate::server::Reply;
use crate::world::{By, Changes, Id, Manager, OBJECT, ROUTING, World, child_bit};

/// What a write carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The resource version that it was decided on.
    pub resource_version: bool,
    /// The conflict token of the routing that it was decided on.
    pub token: bool,
}

impl Conditions {
    /// Both, as the operator has it.
    pub const ALL: Self = Self { resource_version: true, token: true };
}

/// Writes.
pub fn land(world: &mut World, act: Act, by: By, with: Conditions) -> Reply {
    match act {
        Act::Claim => claim(world, by, with),
        act if act.routes() => route(world, act, by, with),
        Act::DeleteRecord(version) => world.server.delete_record(version, false),
        Act::ForceDeleteRecord(version) => world.server.delete_record(version, true),
        Act::DeleteServer => world.server.delete(),
        act => on_the_cluster(world, act, by, with),
    }
}

/// What the operator keeps of a write that it knows to be done.
pub(crate) fn remember(world: &mut World, act: Act) {
    let leader = &mut world.leader;
    match act {
        Act::Apply(version) => leader.applied = Some(version),
        Act::DeleteChild(version) if leader.applied == Some(version) => leader.applied = None,
        act if act.routes() && act != Act::Claim => leader.routed = true,
        _ => {}
    }
}

fn changed(world: &World, what: Changes, by: By) -> bool {
    world.changes(by).0 & what != 0
}

fn claim(world: &mut World, by: By, with: Conditions) -> Reply {
    if with.token && changed(world, ROUTING, by) || world.server.manager == Manager::Somebody {
        return Reply::Conflict;
    }
    world.server.manager = Manager::Operator;
    // The answer has the token for the change that follows.
    let own = world.changes(by).0 & ROUTING;
    world.touch(ROUTING, by);
    match (by, &mut world.frozen) {
        (By::Frozen, Some(frozen)) => frozen.changed = frozen.changed & !ROUTING | own,
        _ => world.leader.changed = world.leader.changed & !ROUTING | own,
    }
    Reply::Done
}

fn route(world: &mut World, act: Act, by: By, with: Conditions) -> Reply {
    if with.token && changed(world, ROUTING, by) || world.server.manager == Manager::Somebody {
        return Reply::Conflict;
    }
    let reply = match act {
        Act::SetCurrent(version) => world.server.set_current(Some(version)),
        Act::ClearCurrent => world.server.set_current(None),
        Act::Ramp(version, percent) => world.server.set_share(version, percent),
        _ => world.server.clear_share(),
    };
    if reply == Reply::Done {
        world.server.by_operator = true;
        world.touch(ROUTING, by);
    }
    reply
}

fn on_the_cluster(world: &mut World, act: Act, by: By, with: Conditions) -> Reply {
    let stale = |world: &World, what| with.resource_version && changed(world, what, by);
    match act {
        Act::Protect | Act::Release(_) if stale(world, OBJECT) => return Reply::Conflict,
        Act::Scale(version, _) | Act::DeleteChild(version) | Act::Note(version, _)
            if stale(world, child_bit(version)) =>
        {
            return Reply::Conflict;
        }
        _ => {}
    }
    match act {
        Act::Protect => {
            world.cluster.spec.protected = true;
            world.touch(OBJECT, by);
        }
        Act::Release(_) => release(world),
        Act::ApplyConfigMap(version) => world.cluster.config_maps[usize::from(version)] = true,
        Act::DeleteConfigMap(version) => world.cluster.config_maps[usize::from(version)] = false,
        Act::Apply(version) if world.child(version).is_none() && !world.cluster.spec.gone => {
            world.cluster.children[usize::from(version)] = Some(new_child());
            world.touch(child_bit(version), by);
        }
        Act::DeleteChild(version) => {
            world.cluster.children[usize::from(version)] = None;
            world.touch(child_bit(version), by);
        }
        Act::Scale(version, _) | Act::Note(version, _) => return change(world, act, version, by),
        _ => {}
    }
    Reply::Done
}

fn change(world: &mut World, act: Act, version: Id, by: By) -> Reply {
    let Some(child) = &mut world.cluster.children[usize::from(version)] else { return Reply::Conflict };
    match act {
        Act::Scale(_, replicas) => child.replicas = replicas,
        Act::Note(_, is_set) => child.superseded = is_set.then_some(0),
        _ => {}
    }
    world.touch(child_bit(version), by);
    Reply::Done
}

/// Kubernetes deletes the object, and what it owns.
fn release(world: &mut World) {
    world.cluster.spec.protected = false;
    world.cluster.spec.gone = true;
    world.cluster.children = Default::default();
    world.cluster.config_maps = Default::default();
}
