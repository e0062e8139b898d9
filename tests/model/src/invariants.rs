//! What must hold of every plan and every write, by what is true at that moment, which the operator can't see.
//!
//! Where somebody else changed the routing, a Deployment or the object between the look and the write, and no precondition can
//! span the two systems, the write is not judged by that change: it has to heal instead (`settle.rs`).

use crate::act::Act;
use crate::look::View;
use crate::world::{
    Age, By, Changes, Id, Manager, OBJECT, OLD, Order, Pod, ROUTING, STEPS, Share, Status, Work, World, child_bit, ids,
};

/// An invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum S {
    /// No pinned Workflow and no running task loses its pods.
    S1 = 1,
    /// What has traffic, or drains, has a pod.
    S2 = 2,
    /// Absence is not zero.
    S4 = 4,
    /// One writer to the cluster.
    S5 = 5,
    /// One writer to the routing.
    S6 = 6,
    /// A ramp never skips.
    S7 = 7,
    /// Current is earned.
    S8 = 8,
    /// Rollback from anywhere.
    S9 = 9,
    /// One claimant.
    S12 = 12,
    /// The status never claims the unseen.
    S14 = 14,
    /// A world at rest sees no write, and is as the object wants it.
    S15 = 15,
    /// Replicas are within their bounds.
    S17 = 17,
    /// Deletes carry UID and resource version.
    S18 = 18,
    /// Every prefix of a plan is safe.
    S19 = 19,
    /// Nothing is left behind.
    S20 = 20,
    /// No write lands on what was changed since.
    S23 = 23,
    /// Nothing is destroyed from a part of the cluster.
    S24 = 24,
    /// A clock that is set shortens no delay.
    S25 = 25,
}

impl S {
    /// Every one.
    pub const ALL: [Self; 18] = [
        Self::S1,
        Self::S2,
        Self::S4,
        Self::S5,
        Self::S6,
        Self::S7,
        Self::S8,
        Self::S9,
        Self::S12,
        Self::S14,
        Self::S15,
        Self::S17,
        Self::S18,
        Self::S19,
        Self::S20,
        Self::S23,
        Self::S24,
        Self::S25,
    ];

    /// Its bit in a set.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// The set of it alone, or nothing while it holds.
    #[must_use]
    pub const fn unless(self, holds: bool) -> u32 {
        if holds { 0 } else { self.bit() }
    }
}

/// What a plan breaks by what is in it.
pub(crate) fn of_plan(acts: &[Act], view: &View) -> u32 {
    let is_managed = view.server.manager == Manager::Somebody;
    let routes = acts.iter().any(|act| act.routes());
    let takes = |act: &Act| match act {
        Act::Scale(version, 0) => {
            view.cluster.children[usize::from(*version)].as_ref().is_some_and(|one| one.replicas > 0)
        }
        act => matches!(act, Act::DeleteChild(_) | Act::DeleteRecord(_) | Act::ForceDeleteRecord(_) | Act::Release(_)),
    };
    let blind = !view.fresh && view.cluster.spec.deleting.is_none() && (routes || acts.iter().any(takes));
    S::S6.unless(!is_managed || !routes)
        | S::S4.unless(!blind)
        | S::S9.unless(!must_go_back(view) || goes_back(acts, view))
}

/// Whether the target was current within the window, and nothing stands in the way.
fn must_go_back(view: &View) -> bool {
    let spec = &view.cluster.spec;
    let (target, at) = (spec.target, usize::from(spec.target));
    let was_current = |age: Age| age <= 1;
    let known = view.fresh && ![view.absent, view.unlisted, view.hidden].contains(&Some(target));
    let free = spec.deleting.is_none() && matches!(spec.order, Order::None | Order::Promote);
    let stays = view.cluster.children[at].as_ref().is_some_and(|child| child.replicas > 0);
    let can = view.server.manager != Manager::Somebody && view.cluster.pods[at] != Pod::None && stays;
    let record = view.server.records[at].as_ref();
    let recently = record.and_then(|record| record.last_current).is_some_and(was_current);
    known && free && can && !view.ahead && recently && view.server.current != Some(target)
}

fn goes_back(acts: &[Act], view: &View) -> bool {
    acts.contains(&Act::SetCurrent(view.cluster.spec.target))
}

/// Whether a fleet may be called ready.
pub(crate) fn is_ready(view: &View) -> bool {
    view.fresh && view.server.exists && view.server.current == Some(view.cluster.spec.target)
}

/// A write that is about to take effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    /// The world before it.
    pub world: &'a World,
    /// The write.
    pub act: Act,
    /// What follows in its plan, the next one last.
    pub rest: &'a [Act],
    /// Who writes.
    pub by: By,
    /// Whether the rollout goes by steps.
    pub by_steps: bool,
}

impl Write<'_> {
    /// What the write breaks if it is accepted.
    pub(crate) fn breaks(&self) -> u32 {
        let own = match self.act {
            Act::Scale(version, replicas) => {
                S::S17.unless(replicas <= 1) | if replicas == 0 { self.scale_to_zero(version) } else { 0 }
            }
            Act::DeleteChild(version) => self.delete_child(version),
            Act::DeleteRecord(version) => self.delete_record(version),
            Act::Ramp(version, percent) => self.earned(version) | S::S7.unless(self.is_next(version, percent)),
            Act::SetCurrent(version) => self.earned(version) | S::S8.unless(self.has_passed_all(version)),
            Act::Apply(version) => S::S20.unless(self.is_protected() || self.world.child(version).is_some()),
            Act::Release(is_said) => S::S20.unless(is_said || self.is_clean()),
            _ => 0,
        };
        own | self.order()
    }

    /// Whether nobody else has changed this since the writer looked.
    fn knows(&self, what: Changes) -> bool {
        self.world.changes(self.by).1 & what == 0
    }

    fn order(&self) -> u32 {
        let what = match self.act {
            Act::Scale(version, _) | Act::DeleteChild(version) | Act::Note(version, _) => child_bit(version),
            Act::Protect | Act::Release(_) => OBJECT,
            act if act.routes() => ROUTING,
            _ => 0,
        };
        if self.world.changes(self.by).0 & what == 0 {
            return 0;
        }
        match (self.by, what) {
            (By::Frozen, _) => S::S5.bit(),
            (_, ROUTING) => S::S6.bit(),
            _ => S::S23.bit(),
        }
    }

    fn is_protected(&self) -> bool {
        self.world.cluster.spec.protected || self.world.cluster.spec.gone
    }

    fn is_going(&self) -> bool {
        self.world.cluster.spec.deleting.is_some()
    }

    /// The version about which the writer was told something wrong, and whether its reading of the server was an old one.
    fn errs(&self) -> (Option<Id>, bool) {
        let (leader, frozen) = (&self.world.leader, self.world.frozen.as_ref());
        match (self.by, frozen) {
            (By::Leader, _) => (leader.misled, leader.old_reading),
            (By::Frozen, Some(frozen)) => (frozen.misled, frozen.old_reading),
            _ => (None, false),
        }
    }

    fn was_misled(&self, version: Id) -> bool {
        self.errs().0 == Some(version)
    }

    fn never_had_traffic(&self, version: Id) -> bool {
        self.world.record(version).is_none_or(|record| record.status == Status::Inactive)
    }

    /// Whether the server would not delete the record of a version when it was asked to.
    fn was_refused(&self, version: Id) -> bool {
        self.by == By::Leader && self.world.leader.resting & (1 << version) != 0
    }

    /// Hours since the version lost its last reason to be there.
    fn over_for(&self, version: Id) -> Age {
        match self.world.record(version).map(|record| (record.status, record.since)) {
            Some((Status::Drained, since)) => since,
            None if self.world.buried & (1 << version) != 0 => OLD,
            Some((Status::Inactive, _)) | None => {
                self.world.child(version).and_then(|child| child.superseded).unwrap_or(0)
            }
            // What still has work is not to go at all, however long.
            Some(_) => OLD,
        }
    }

    fn takes_away(&self, version: Id, delay: Age) -> u32 {
        if self.is_going() || !self.knows(ROUTING | OBJECT | child_bit(version)) {
            return 0;
        }
        let is_target = self.world.cluster.spec.target == version;
        // Nothing is lost with one that is newer than what was read of it: it never had traffic.
        let is_newer = self.errs().1 && self.never_had_traffic(version);
        S::S1.unless(self.world.work[usize::from(version)] == Work::None)
            | S::S2.unless(!is_target && !self.world.has_traffic(version))
            | S::S4
                .unless(!self.was_misled(version) || self.never_had_traffic(version) && self.over_for(version) >= delay)
            | S::S25.unless(self.over_for(version) >= delay || is_newer)
    }

    fn scale_to_zero(&self, version: Id) -> u32 {
        let runs = self.world.child(version).is_some_and(|child| child.replicas > 0);
        if runs { self.takes_away(version, 1) } else { 0 }
    }

    fn delete_child(&self, version: Id) -> u32 {
        let has_pod = self.world.cluster.pods[usize::from(version)] != Pod::None;
        let knows = self.knows(ROUTING | child_bit(version)) || self.was_refused(version);
        let has_record = self.world.record(version).is_some() && knows;
        self.takes_away(version, 2) | S::S1.unless(!has_pod || self.is_going()) | S::S19.unless(!has_record)
    }

    fn delete_record(&self, version: Id) -> u32 {
        // Without a record the server does nothing.
        if self.is_going() || self.world.record(version).is_none() {
            return 0;
        }
        let child = self.world.child(version);
        let is_others = self.by == By::Leader && self.world.server.manager == Manager::Somebody && child.is_none();
        let follows = |act: &Act| matches!(act, Act::DeleteChild(id) | Act::DeleteConfigMap(id) if *id == version);
        let unseen = self.by == By::Leader
            && child.is_some()
            && self.knows(child_bit(version))
            && !self.rest.last().is_some_and(follows);
        let drained =
            self.world.record(version).is_none_or(|record| record.status != Status::Drained || record.since >= 2);
        S::S12.unless(!is_others || !self.knows(ROUTING))
            | S::S24.unless(!unseen)
            | S::S25.unless(drained || !self.knows(ROUTING))
            | S::S4.unless(!self.was_misled(version) || self.over_for(version) >= OLD)
    }

    /// Whether a version that gets more traffic has a pod that can do the work, and polled.
    fn earned(&self, version: Id) -> u32 {
        let runs = self.world.cluster.pods[usize::from(version)] != Pod::None || !self.knows(child_bit(version));
        let is_known = self.world.record(version).is_some() || !self.knows(ROUTING);
        S::S8.unless(runs && is_known)
    }

    fn share(&self, version: Id) -> Option<&Share> {
        self.world.server.share.as_ref().filter(|share| share.version == version)
    }

    /// Whether a share is the one that follows.
    fn is_next(&self, version: Id, percent: u8) -> bool {
        if !self.knows(ROUTING) {
            return true;
        }
        let held = self.knows(OBJECT) && matches!(self.world.cluster.spec.order, Order::Pause | Order::Abort);
        let next = match self.share(version) {
            None => percent == STEPS[0],
            Some(share) if percent <= share.percent => STEPS.contains(&percent),
            Some(share) => {
                let at = STEPS.iter().rposition(|step| *step <= share.percent);
                let next = at.map_or(0, |at| at + 1);
                let may_begin = at.is_none() && self.world.server.by_operator;
                STEPS.get(next) == Some(&percent) && (share.since >= 1 || may_begin)
            }
        };
        next && !held
    }

    /// Whether a version may have all of the traffic.
    fn has_passed_all(&self, version: Id) -> bool {
        if !self.knows(ROUTING | OBJECT) {
            return true;
        }
        let order = self.world.cluster.spec.order;
        let last_current = self.world.record(version).and_then(|record| record.last_current);
        // A write that was stopped was decided before the hour passed.
        let goes_back = last_current.is_some_and(|age| age <= 1 || self.by == By::Frozen);
        let last = STEPS[STEPS.len() - 1];
        let passed = self.share(version).is_some_and(|share| share.percent == last && share.since >= 1);
        let is_first = self.world.server.current.is_none() && self.share(version).is_none();
        let may = !self.by_steps || goes_back || is_first || passed;
        order == Order::Promote || may && order == Order::None
    }

    /// Whether nothing of the fleet is left on the server, but a record that is newer than what was read of it.
    fn is_clean(&self) -> bool {
        let server = &self.world.server;
        let has_records = ids().any(|id| self.world.record(id).is_some()) && !self.errs().1;
        let is_empty = server.current.is_none() && server.share.is_none() && !has_records;
        is_empty || !self.knows(ROUTING | OBJECT | child_bit(0) | child_bit(1) | child_bit(2))
    }
}
