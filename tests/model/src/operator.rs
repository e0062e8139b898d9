//! The two operators: what they look at, and how a plan is carried out write by write.

use crate::act::Act;
use crate::invariants::{S, Write};
use crate::land::{self, Conditions, land};
use crate::look::{Looker, View};
use crate::mutants::Mutant;
use crate::server::Reply;
use crate::world::{By, Frozen, Id, Leader, OBJECT, ROUTING, Seen, World};

/// How a look may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// The caches show the cluster as it was at the last look.
    OldCluster,
    /// The poller has the server as it was at the last look.
    OldServer,
    /// The server can't be asked.
    Blind,
    /// The server says of a version that it has no record.
    NoRecord(Id),
    /// A version is missing from all that the server says.
    Unlisted(Id),
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The operator hears of it.
    Answered,
    /// It is done, and the operator does not hear of it.
    Unheard,
}

/// The model's operators.
pub struct Operators {
    pub(crate) looker: Looker,
    pub(crate) by_steps: bool,
    pub(crate) mutant: Option<Mutant>,
}

impl Operators {
    fn conditions(&self) -> Conditions {
        self.mutant.map_or(Conditions::ALL, Mutant::conditions)
    }

    /// The leader looks, and plans.
    pub fn look(&self, world: &mut World, wrong: Option<Wrong>) {
        let view = self.view(world, wrong);
        let concluded = self.looker.conclude(&view);
        world.broken |= concluded.broken;
        self.note(world, wrong);
        world.leader.plan = concluded.acts;
    }

    fn view(&self, world: &World, wrong: Option<Wrong>) -> View {
        let leader = &world.leader;
        let seen = leader.seen.as_deref();
        let cluster = match (wrong, seen) {
            (Some(Wrong::OldCluster), Some(seen)) => &seen.cluster,
            _ => &world.cluster,
        };
        let server = match (wrong, seen) {
            (Some(Wrong::OldServer), Some(seen)) => &seen.server,
            _ => &world.server,
        };
        let mut cluster = cluster.clone();
        // The load of pods is read from themselves.
        cluster.busy = world.cluster.busy;
        let target = cluster.spec.target;
        View {
            applied: leader.applied == Some(target) && cluster.children[usize::from(target)].is_some(),
            cluster,
            server: server.clone(),
            fresh: wrong != Some(Wrong::Blind),
            absent: if let Some(Wrong::NoRecord(version)) = wrong { Some(version) } else { None },
            unlisted: if let Some(Wrong::Unlisted(version)) = wrong { Some(version) } else { None },
            hidden: None,
            resting: leader.resting,
            ahead: leader.ahead,
            outdated: leader.routed && wrong == Some(Wrong::OldServer),
        }
    }

    /// What the leader has seen now, and may see again.
    fn note(&self, world: &mut World, wrong: Option<Wrong>) {
        let (cluster, server) = (world.cluster.clone(), world.server.clone());
        let leader = &mut world.leader;
        let (old_cluster, old_server) = (wrong == Some(Wrong::OldCluster), wrong == Some(Wrong::OldServer));
        let kept = (if old_cluster { !ROUTING } else { 0 }) | (if old_server { ROUTING } else { 0 });
        leader.changed &= kept;
        leader.surprise &= kept;
        leader.routed &= old_server;
        leader.old_reading = old_server;
        leader.misled = match wrong {
            Some(Wrong::NoRecord(version) | Wrong::Unlisted(version)) => Some(version),
            _ => None,
        };
        let old = leader.seen.take();
        if world.left.faults > 0 {
            let now = Seen { cluster, server };
            let last = old.map_or_else(|| now.clone(), |seen| *seen);
            let cluster = if old_cluster { last.cluster } else { now.cluster };
            let server = if old_server { last.server } else { now.server };
            leader.seen = Some(Box::new(Seen { cluster, server }));
        }
        if leader.applied.is_some_and(|applied| applied != world.cluster.spec.target) {
            leader.applied = None;
        }
    }

    /// The leader carries out the next write of its plan.
    pub fn step(&self, world: &mut World, fate: Fate) -> Option<(Act, Reply)> {
        let act = world.leader.plan.pop()?;
        if self.leaves_out(world, act) {
            return Some((act, Reply::Refused));
        }
        let rest = std::mem::take(&mut world.leader.plan);
        let reply = self.write(world, act, &rest, By::Leader);
        match (reply, fate) {
            (Reply::Done, Fate::Answered) => {
                land::remember(world, act);
                world.leader.plan = rest;
            }
            (Reply::Refused, Fate::Answered) => {
                if let Act::DeleteRecord(version) | Act::ForceDeleteRecord(version) = act {
                    world.leader.resting |= 1 << version;
                    world.leader.plan = rest;
                }
            }
            (_, Fate::Unheard) | (Reply::Conflict, _) => {}
        }
        Some((act, reply))
    }

    /// What is not written though it is planned: a Deployment whose record had to stay, a change of the routing that follows
    /// from what was read before the last one.
    pub(crate) fn leaves_out(&self, world: &World, act: Act) -> bool {
        let leader = &world.leader;
        match act {
            _ if self.mutant == Some(Mutant::RefusalIsIgnored) => false,
            Act::DeleteChild(version) | Act::DeleteConfigMap(version) => leader.resting & (1 << version) != 0,
            // A deletion asks the server each time.
            act => act.routes() && leader.routed && world.cluster.spec.deleting.is_none(),
        }
    }

    fn write(&self, world: &mut World, act: Act, rest: &[Act], by: By) -> Reply {
        let breaks = Write { world, act, rest, by, by_steps: self.by_steps }.breaks();
        let is_over = matches!(act, Act::DeleteRecord(version) if world.is_over(version));
        let reply = land(world, act, by, self.conditions());
        if reply == Reply::Done {
            world.broken |= breaks;
        }
        if let (Act::DeleteRecord(version), Reply::Done, true) = (act, reply, is_over) {
            world.buried |= 1 << version;
        }
        if matches!(act, Act::DeleteRecord(_)) && by == By::Frozen {
            world.leader.surprise |= ROUTING;
        }
        reply
    }

    /// The leader's process ends, and it or the other operator begins anew.
    pub fn crash(&self, world: &mut World) {
        world.leader = Leader::default();
    }

    /// The leader is stopped with a write under way, for so long that the other operator takes over.
    pub fn freeze(&self, world: &mut World) {
        // What is left out is not under way.
        while world.leader.plan.last().is_some_and(|act| self.leaves_out(world, *act)) {
            world.leader.plan.pop();
        }
        if world.leader.plan.is_empty() {
            return;
        }
        let Leader { mut plan, changed, surprise, old_reading, misled, .. } = std::mem::take(&mut world.leader);
        if self.mutant != Some(Mutant::NoLeaseCheck) {
            plan.drain(..plan.len().saturating_sub(1));
        }
        world.frozen = Some(Frozen { plan, changed, surprise, old_reading, misled });
    }

    /// The write that was under way arrives. The process then sees that it may not write any more, and ends.
    pub fn thaw(&self, world: &mut World) {
        let Some(frozen) = &mut world.frozen else { return };
        let Some(act) = frozen.plan.pop() else { return };
        let rest = frozen.plan.clone();
        let reply = self.write(world, act, &rest, By::Frozen);
        if reply != Reply::Done || rest.is_empty() {
            world.frozen = None;
        } else if self.mutant == Some(Mutant::NoLeaseCheck) {
            world.broken |= S::S5.bit();
        }
    }

    /// Whether an old reading would show anything else.
    pub(crate) fn may_see_old(world: &World) -> (bool, bool) {
        let Some(seen) = &world.leader.seen else { return (false, false) };
        let cluster = world.leader.changed & !ROUTING != 0 && seen.cluster != world.cluster;
        (cluster, seen.server != world.server)
    }

    /// Whether the object is there to be looked at.
    pub(crate) fn has_object(world: &World) -> bool {
        let spec = &world.cluster.spec;
        !spec.gone && (spec.deleting.is_none() || spec.protected)
    }
}

/// The user deletes the object: without the finalizer it is gone at once.
pub(crate) fn delete(world: &mut World) {
    let spec = &mut world.cluster.spec;
    if spec.protected {
        spec.deleting = Some(0);
    } else {
        spec.gone = true;
        world.cluster.children = Default::default();
    }
    world.touch(OBJECT, By::Outside);
}
