//! The list of a namespace's Worker Deployments: one call tells of all of them who has the traffic.
//!
//! It says less than a description, and follows what happens after a moment. So it only confirms what a description, or the
//! fleet's own status, said before, and of fleets alone whose only version has all of the traffic: what it does not confirm is
//! described. A fleet that is not in it may have a Worker Deployment all the same.

use std::time::Duration;

use tokio::time::Instant;

use super::fleet::{Fleet, Read};
use super::pace::Class;
use super::state::State;
use super::timer::Timer;
use crate::changes::FleetId;
use crate::temporal::api::DeploymentReading;
use crate::temporal::lists::Settled;

/// So many fleets are rather confirmed by a list than described one by one.
const WORTH_A_LIST: usize = 4;
/// Time for which a list is used for fleets that come after it.
const USED: Duration = Duration::from_secs(10);
/// A server that gives out no list is asked again after this.
const RETRY: Duration = Duration::from_secs(600);
/// Intervals for which a fleet counts as confirmed: a list may come late.
const CONFIRMED: f64 = 1.5;

/// The list of a namespace.
#[derive(Default)]
pub(super) struct List {
    /// Timer of the call, from the first time on that it is wanted.
    pub timer: Option<Timer>,
    last: Read<Settled>,
    off_until: Option<Instant>,
    wanted: bool,
}

/// That a list said of a fleet what was read of it.
#[derive(Clone, Copy)]
pub(super) struct Confirmation {
    /// When the list was asked for.
    pub asked: Instant,
    until: Instant,
}

impl Confirmation {
    /// Whether it still counts, so that the fleet need not be described.
    pub(super) fn holds(&self, now: Instant) -> bool {
        now < self.until
    }
}

impl State {
    /// Decides whether the list is called.
    pub(super) fn plan_list(&mut self, now: Instant) {
        if self.list.last.as_ref().is_some_and(|(_, asked)| now.saturating_duration_since(*asked) > USED) {
            self.list.last = None;
        }
        let is_off = self.list.off_until.is_some_and(|until| now < until);
        let settled = self.fleets.values().filter(|fleet| fleet.is_settled()).count();
        let wanted = settled >= WORTH_A_LIST || self.fleets.values().any(|fleet| fleet.awaits_list);
        self.list.wanted = wanted && !is_off;
        if wanted {
            self.list.timer.get_or_insert_with(|| Timer::new(now));
        }
    }

    /// The timer of the list, if it is wanted.
    pub(super) fn wanted_list(&self) -> Option<&Timer> {
        self.list.timer.as_ref().filter(|_| self.list.wanted)
    }

    /// A fleet came that nothing was read of: the list of a moment ago tells of it, or the next one soon.
    pub(super) fn await_list(&mut self, id: &FleetId, now: Instant) {
        let Some(fleet) = self.fleets.get_mut(id).filter(|fleet| fleet.awaits_list) else { return };
        if self.list.off_until.is_some_and(|until| now < until) {
            fleet.awaits_list = false;
            return;
        }
        let last = self.list.last.as_ref().filter(|(_, asked)| now.saturating_duration_since(*asked) <= USED);
        match (last, &mut self.list.timer) {
            (Some((settled, asked)), _) => {
                let until = *asked + self.deployment_pace.interval(Class::Settled).mul_f64(CONFIRMED);
                fleet.take_list(settled, Confirmation { asked: *asked, until });
            }
            (None, Some(timer)) if !timer.busy => timer.hurry(now),
            (None, _) => {}
        }
    }

    /// Takes a list that was asked for at `asked`. Gives the fleets whose situation changed.
    pub(super) fn take_list(&mut self, settled: Settled, asked: Instant) -> Vec<FleetId> {
        let until = asked + self.deployment_pace.interval(Class::Settled).mul_f64(CONFIRMED);
        let take = |(id, fleet): (&FleetId, &mut Box<Fleet>)| {
            fleet.take_list(&settled, Confirmation { asked, until }).then(|| id.clone())
        };
        let changed = self.fleets.iter_mut().filter_map(take).collect();
        self.list.last = Some((settled, asked));
        self.replan();
        changed
    }

    /// There is no list: every fleet is described.
    pub(super) fn list_failed(&mut self, unsupported: bool, now: Instant) {
        if unsupported {
            self.list.off_until = Some(now + RETRY);
        }
        self.fleets.values_mut().for_each(|fleet| fleet.awaits_list = false);
        self.replan();
    }
}

impl Fleet {
    /// Takes what a list says. Gives back whether that is the first reading of the fleet.
    fn take_list(&mut self, settled: &Settled, confirmation: Confirmation) -> bool {
        let awaited = std::mem::take(&mut self.awaits_list);
        let said = self.watch.deployment_name.as_ref().and_then(|name| settled.get(name));
        let remembered = self.watch.remembered.as_ref().filter(|_| awaited && self.deployment.is_none());
        if let Some(info) = remembered.filter(|info| said.is_some() && info.current_build_id.as_ref() == said) {
            let reading = DeploymentReading {
                current_build_id: info.current_build_id.clone(),
                conflict_token: info.conflict_token.clone(),
                manager_identity: info.manager_identity.clone(),
                last_modifier_identity: info.last_modifier_identity.clone(),
                remembered: true,
                ..DeploymentReading::default()
            };
            self.deployment = Some((Some(reading), confirmation.asked));
            // It is described in the course of the next minutes.
            self.deployment_timer.start(confirmation.asked);
            self.deployment_timer.succeeded(1.0);
            self.confirmed = Some(confirmation);
            return true;
        }
        let read = self.deployment.as_ref().and_then(|(reading, _)| reading.as_ref()?.current_build_id.as_ref());
        if said.is_some() && said == read && self.is_settled() {
            self.confirmed = Some(confirmation);
        }
        false
    }
}
