//! Everything that can happen, for the checker to try in every order.

use std::sync::atomic::{AtomicU64, Ordering};

use stateright::{Model, Property};

use crate::fleets::Kind;
use crate::invariants::S;
use crate::look::Looker;
use crate::mutants::Mutant;
use crate::operator::{self, Fate, Operators, Wrong};
use crate::world::{By, Id, Left, Manager, OBJECT, Order, Pod, ROUTING, Status, Work, World, ids};
use crate::{dangers, settle};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The leader looks and plans.
    Look(Option<Wrong>),
    /// It carries out a write.
    Step,
    /// The same, and the reply is lost.
    LoseReply,
    /// Its process ends before the next write.
    Crash,
    /// It is stopped in the next write, and the other operator takes over.
    Freeze,
    /// That write arrives.
    Thaw,
    /// The leader's wall clock is set ahead.
    SetClock,
    /// An hour passes.
    Pass,
    /// The pod of a version starts, polls, or ends.
    Sync(Id),
    /// Work begins on a version.
    Start(Id, Work),
    /// It ends.
    Finish(Id),
    /// The server finds a version drained.
    Drain(Id),
    /// The user wants another version.
    Retarget(Id),
    /// The user gives a command.
    Command(Order),
    /// The user deletes the object.
    Delete,
    /// Somebody else gives a version the traffic.
    OutsideCurrent(Id),
    /// Somebody else gives a version a share.
    OutsideShare(Id, u8),
    /// Somebody else becomes the manager, or nobody is.
    OutsideManager(Manager),
}

/// How much may happen.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The fleet.
    pub kind: Kind,
    /// The worlds that it begins in.
    pub begin: Vec<World>,
    /// Bounds.
    pub left: Left,
    /// Versions that the user may want.
    pub versions: u8,
    /// One of so many worlds is brought to rest, to see where it ends; none with 0.
    pub settle_every: u64,
}

/// The rollouts of one fleet.
pub struct Rollouts {
    pub(crate) operators: Operators,
    scope: Scope,
    events: AtomicU64,
}

impl Rollouts {
    /// All of a scope, with a fault in the operator or not.
    #[must_use]
    pub fn new(scope: Scope, mutant: Option<Mutant>) -> Self {
        let by_steps = scope.kind != Kind::AllAtOnce;
        let operators = Operators { looker: Looker::new(scope.kind, mutant), by_steps, mutant };
        Self { operators, scope, events: AtomicU64::default() }
    }

    /// How many different views the planner was asked about.
    #[must_use]
    pub fn views(&self) -> usize {
        self.operators.looker.views()
    }

    /// Dangerous events that have happened in some order: a bit each ([`dangers::EVENTS`]).
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    fn of_leader(&self, world: &World, events: &mut Vec<Event>) {
        let leader = &world.leader;
        let may_fail = world.left.faults > 0;
        if !leader.plan.is_empty() {
            events.push(Event::Step);
            if may_fail {
                events.extend([Event::LoseReply, Event::Crash]);
                events.extend(world.frozen.is_none().then_some(Event::Freeze));
            }
        } else if Operators::has_object(world) {
            events.push(Event::Look(None));
            if may_fail {
                let (old_cluster, old_server) = Operators::may_see_old(world);
                events.extend(old_cluster.then_some(Event::Look(Some(Wrong::OldCluster))));
                events.extend(old_server.then_some(Event::Look(Some(Wrong::OldServer))));
                events.extend((!leader.ahead).then_some(Event::SetClock));
                self.wrong_answers(world, events);
            }
        }
    }

    fn wrong_answers(&self, world: &World, events: &mut Vec<Event>) {
        if world.cluster.spec.deleting.is_some() {
            return;
        }
        events.push(Event::Look(Some(Wrong::Blind)));
        let may_lie = world.left.answers > 0;
        for version in ids().filter(|id| may_lie && world.record(*id).is_some() && world.child(*id).is_some()) {
            events.extend([Wrong::NoRecord(version), Wrong::Unlisted(version)].map(|wrong| Event::Look(Some(wrong))));
        }
    }

    fn of_surroundings(&self, world: &World, events: &mut Vec<Event>) {
        for version in ids() {
            let at = usize::from(version);
            let pod = world.cluster.pods[at];
            events.extend(world.next_pod(version).map(|_| Event::Sync(version)));
            let status = world.record(version).map(|record| record.status);
            match world.work[at] {
                Work::None if matches!(status, Some(Status::Current | Status::Ramping)) => {
                    events.push(Event::Start(version, Work::Pinned));
                    events.extend((pod == Pod::Polls).then_some(Event::Start(version, Work::Task)));
                }
                Work::Pinned if pod != Pod::Polls => {}
                Work::Pinned | Work::Task => events.push(Event::Finish(version)),
                Work::None => {}
            }
            let drains = status == Some(Status::Draining) && world.work[at] != Work::Pinned;
            events.extend(drains.then_some(Event::Drain(version)));
        }
        events.extend(world.frozen.as_ref().map(|_| Event::Thaw));
        if world.leader.plan.is_empty() && world.leader.misled.is_none() {
            events.push(Event::Pass);
        }
    }

    fn of_people(&self, world: &World, events: &mut Vec<Event>) {
        let spec = &world.cluster.spec;
        if world.left.edits > 0 && spec.deleting.is_none() && !spec.gone {
            let others = ids().filter(|id| *id < self.scope.versions && *id != spec.target);
            events.extend(others.map(Event::Retarget));
            let orders = [Order::None, Order::Pause, Order::Promote, Order::Abort].into_iter();
            events.extend(orders.filter(|order| *order != spec.order).map(Event::Command));
            events.push(Event::Delete);
        }
        if world.left.outside > 0 && world.server.exists {
            let free = world.server.manager != Manager::Operator;
            for version in ids().filter(|id| free && world.record(*id).is_some()) {
                events.push(Event::OutsideCurrent(version));
                events.extend([5, 30].map(|percent| Event::OutsideShare(version, percent)));
            }
            let others = [Manager::Nobody, Manager::Somebody].into_iter();
            events.extend(others.filter(|one| *one != world.server.manager).map(Event::OutsideManager));
        }
    }

    fn happens(&self, world: &mut World, event: Event) {
        let operators = &self.operators;
        match event {
            Event::Look(wrong) => operators.look(world, wrong),
            Event::Step => _ = operators.step(world, Fate::Answered),
            Event::LoseReply => _ = operators.step(world, Fate::Unheard),
            Event::Crash => operators.crash(world),
            Event::Freeze => operators.freeze(world),
            Event::Thaw => operators.thaw(world),
            Event::SetClock => world.leader.ahead = true,
            Event::Pass => world.pass(),
            Event::Sync(version) => _ = world.sync_pod(version),
            Event::Start(version, work) => world.set_work(version, work),
            Event::Finish(version) => world.set_work(version, Work::None),
            Event::Drain(version) => _ = world.drain(version),
            event => happens_by_people(world, event),
        }
    }
}

/// What people do.
pub(crate) fn happens_by_people(world: &mut World, event: Event) {
    match event {
        Event::Retarget(version) => {
            (world.cluster.spec.target, world.cluster.spec.order) = (version, Order::None);
            world.touch(OBJECT, By::Outside);
        }
        Event::Command(order) => {
            world.cluster.spec.order = order;
            world.touch(OBJECT, By::Outside);
        }
        Event::Delete => operator::delete(world),
        event => {
            match event {
                Event::OutsideCurrent(version) => _ = world.server.set_current(Some(version)),
                Event::OutsideShare(version, percent) => _ = world.server.set_share(version, percent),
                Event::OutsideManager(manager) => world.server.manager = manager,
                _ => {}
            }
            world.server.by_operator = false;
            world.touch(ROUTING, By::Outside);
        }
    }
}

/// What an event takes of what may still happen.
fn take(left: &mut Left, event: Event) {
    if matches!(event, Event::Look(Some(Wrong::NoRecord(_) | Wrong::Unlisted(_)))) {
        left.answers -= 1;
    }
    match event {
        Event::Look(Some(_)) | Event::LoseReply | Event::Crash | Event::Freeze | Event::SetClock => left.faults -= 1,
        Event::Retarget(_) | Event::Command(_) | Event::Delete => left.edits -= 1,
        Event::OutsideCurrent(_) | Event::OutsideShare(..) | Event::OutsideManager(_) => left.outside -= 1,
        _ => {}
    }
}

impl Model for Rollouts {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let begin = |world: &World| World { left: self.scope.left, ..world.clone() };
        self.scope.begin.iter().map(begin).collect()
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        if world.broken == 0 {
            self.of_leader(world, events);
            self.of_surroundings(world, events);
            self.of_people(world, events);
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut next = world.clone();
        take(&mut next.left, event);
        self.happens(&mut next, event);
        next.forget_what_has_no_effect();
        if next == *world {
            return None;
        }
        self.events.fetch_or(dangers::of_event(world, event, &next), Ordering::Relaxed);
        if next.broken == 0 && settle::is_chosen(&next, self.scope.settle_every) {
            next.broken |= settle::ends(&self.operators, &next);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let invariants = [
            Property::always("S1", holds::<{ S::S1 as u8 }>),
            Property::always("S2", holds::<{ S::S2 as u8 }>),
            Property::always("S4", holds::<{ S::S4 as u8 }>),
            Property::always("S5", holds::<{ S::S5 as u8 }>),
            Property::always("S6", holds::<{ S::S6 as u8 }>),
            Property::always("S7", holds::<{ S::S7 as u8 }>),
            Property::always("S8", holds::<{ S::S8 as u8 }>),
            Property::always("S9", holds::<{ S::S9 as u8 }>),
            Property::always("S12", holds::<{ S::S12 as u8 }>),
            Property::always("S14", holds::<{ S::S14 as u8 }>),
            Property::always("S15", holds::<{ S::S15 as u8 }>),
            Property::always("S17", holds::<{ S::S17 as u8 }>),
            Property::always("S18", holds::<{ S::S18 as u8 }>),
            Property::always("S19", holds::<{ S::S19 as u8 }>),
            Property::always("S20", holds::<{ S::S20 as u8 }>),
            Property::always("S23", holds::<{ S::S23 as u8 }>),
            Property::always("S24", holds::<{ S::S24 as u8 }>),
            Property::always("S25", holds::<{ S::S25 as u8 }>),
        ];
        let dangers = dangers::STATES.iter().map(|(name, is_so)| Property::sometimes(name, *is_so));
        invariants.into_iter().chain(dangers).collect()
    }
}

fn holds<const INVARIANT: u8>(_: &Rollouts, world: &World) -> bool {
    world.broken & (1 << INVARIANT) == 0
}

impl World {
    /// Two worlds that differ in nothing that can have an effect are one.
    fn forget_what_has_no_effect(&mut self) {
        let leader = &mut self.leader;
        if self.left.faults == 0 {
            leader.seen = None;
        }
        if leader.plan.is_empty() && leader.seen.is_none() {
            (leader.changed, leader.surprise, leader.old_reading) = (0, 0, false);
        }
        if self.cluster.spec.gone {
            *leader = Default::default();
            self.left.faults = 0;
        }
    }
}
