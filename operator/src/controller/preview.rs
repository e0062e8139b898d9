//! What a reconcile would do, without doing it: the first half of one, again and again until everything was read.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use operator_core::api::WorkerDeployment;
use operator_core::names::{self, FIELD_MANAGER, ORDER_KEY_SECRET};
use operator_core::observed::{KubeState, Observation, PodState, TemporalState};
use operator_core::plan::{self, Action};
use operator_core::preview::{Preview, Subject, Write, of_action, of_step};
use operator_core::rollout::{Stage, Strategy};
use operator_core::standing::{Difference, differences};
use operator_core::status::{self, Blocked};
use operator_core::versions;
use tokio::time::{Instant, timeout, timeout_at};

use super::carry_out::Outcome;
use super::fleet::Error;
use super::look::{Reconcile, Seen};
use super::memory::Memory;
use super::{Context, deletion};
use crate::changes::{Changes, FleetId};
use crate::kube::observe::FleetKey;
use crate::kube::standing;

/// Time that the server and the pods get to answer.
const ANSWERS: Duration = Duration::from_secs(20);
/// Time until it is looked again, if nothing is said to have changed.
const LOOK: Duration = Duration::from_millis(500);

/// Plans for a fleet as it is given, stored or not.
///
/// # Errors
/// The API server could not be asked.
pub(crate) async fn preview(ctx: &Context, wd: &WorkerDeployment, changes: &Changes) -> Result<Preview, Error> {
    let (namespace, name, uid) = (wd.namespace().unwrap_or_default(), wd.name_any(), wd.uid().unwrap_or_default());
    let key = FleetKey { namespace: &namespace, name: &name, uid: &uid };
    let id = FleetId::from(uid.as_str());
    let looks = Looks { fleet: Reconcile { wd, ctx, key, id: &id }, changes, until: Instant::now() + ANSWERS };
    match &wd.metadata.deletion_timestamp {
        Some(since) => looks.of_deletion(since.0).await,
        None => looks.of_reconcile().await,
    }
}

struct Looks<'a> {
    fleet: Reconcile<'a>,
    changes: &'a Changes,
    until: Instant,
}

impl Looks<'_> {
    async fn of_reconcile(&self) -> Result<Preview, Error> {
        let (fleet, mut memory) = (&self.fleet, Memory::default());
        let order_key = fleet.ctx.shared.order_keys.get(&fleet.ctx.leadership).await;
        let mut notes = Vec::new();
        let seen = loop {
            let seen = match fleet.see(order_key.as_ref(), &mut memory).await? {
                Ok(seen) => seen,
                Err((blocked, kube)) => return Ok(self.blocked(&blocked, &kube, &memory)),
            };
            fleet.follow_gates(&seen.plan, &mut memory);
            if is_read(&seen) {
                break seen;
            }
            if !self.wait().await {
                notes.push(format!("not everything was read within {} s", ANSWERS.as_secs()));
                break seen;
            }
        };
        if order_key.is_none() && !seen.fleet.config_maps.is_empty() {
            notes.push(format!(
                "Secret {ORDER_KEY_SECRET} of the operator's namespace could not be read, so that limits.json seems to change; \
                 name the namespace with --operator-namespace"
            ));
        }
        let previous = fleet.previous_status(&memory);
        let outcome = Outcome::default();
        let status = status::compute(&fleet.status_input(&seen, (None, &outcome), &previous, &memory));
        let writes = self.writes(&seen).await?;
        let preview = Preview::new((fleet.key.namespace, fleet.key.name), status, Some(&seen.plan), writes);
        Ok(Preview { notes, ..preview })
    }

    /// Waits for news. Says whether there is time left.
    async fn wait(&self) -> bool {
        let _ = timeout_at(self.until, timeout(LOOK, self.changes.next())).await;
        Instant::now() < self.until
    }

    fn blocked(&self, blocked: &Blocked, kube: &KubeState, memory: &Memory) -> Preview {
        let previous = self.fleet.previous_status(memory);
        let unread = TemporalState { deployment: Observation::Unknown, ..TemporalState::default() };
        let nothing = BTreeMap::new();
        let input = self.fleet.blocked_input((blocked, kube), &previous, (&unread, &nothing));
        Preview::new((self.fleet.key.namespace, self.fleet.key.name), status::compute(&input), None, Vec::new())
    }

    async fn writes(&self, seen: &Seen) -> Result<Vec<Write>, Error> {
        let subject = self.subject(&seen.fleet.deployment_name);
        let mut writes = Vec::new();
        for action in &seen.plan.actions {
            let differences = self.differences(action).await?;
            writes.push(of_action(action, subject, differences.as_deref()));
        }
        Ok(writes)
    }

    fn subject<'a>(&'a self, deployment_name: &'a str) -> Subject<'a> {
        Subject { name: self.fleet.key.name, deployment_name, identity: &self.fleet.ctx.shared.identity }
    }

    async fn differences(&self, action: &Action) -> Result<Option<Vec<Difference>>, Error> {
        let Action::Apply { object, .. } = action else { return Ok(None) };
        let stored = standing::read(&self.fleet.ctx.client, object).await?;
        Ok(stored.map(|stored| differences(object, &stored, FIELD_MANAGER)))
    }

    async fn of_deletion(&self, since: Timestamp) -> Result<Preview, Error> {
        let (fleet, memory) = (&self.fleet, Memory::default());
        let seen = loop {
            let seen = deletion::see(fleet, since, &memory).await?;
            let unread = |temporal: &TemporalState| temporal.failure.is_none() && temporal.deployment.known().is_none();
            if !seen.temporal.as_ref().is_some_and(unread) || !self.wait().await {
                break seen;
            }
        };
        let generation = fleet.wd.metadata.generation.unwrap_or(0);
        let previous = fleet.previous_status(&memory);
        let status = status::deleting(&previous, generation, &seen.waiting, Timestamp::now());
        let deployment_name = names::temporal_deployment_name(fleet.key.namespace, fleet.key.name);
        let writes = seen.steps.iter().map(|step| of_step(step, self.subject(&deployment_name))).collect();
        Ok(Preview::new((fleet.key.namespace, fleet.key.name), status, Some(&Default::default()), writes))
    }
}

/// Whether the target is current and the only version: then it is not read by itself.
fn is_settled(Seen { fleet, kube, temporal, plan, .. }: &Seen) -> bool {
    plan.stage() == Some(&Stage::Current) && versions::build_ids(fleet, kube, temporal).len() == 1
}

/// Whether everything that a decision stands on was read, or can't be.
fn is_read(seen: &Seen) -> bool {
    let Seen { fleet, kube, temporal, .. } = seen;
    if temporal.failure.is_some() {
        return true;
    }
    let versions = match temporal.deployment.known() {
        _ if fleet.build_id.is_none() => true,
        None => false,
        Some(None) => true,
        Some(Some(_)) if is_settled(seen) => true,
        Some(Some(info)) => {
            versions::build_ids(fleet, kube, temporal).iter().all(|id| info.known_version(id).is_some())
        }
    };
    let has_current = versions::last_info(temporal).is_some_and(|info| info.current_build_id.is_some());
    let is_first = !has_current && matches!(fleet.rollout.strategy, Strategy::Progressive(_));
    let known = plan::known_lanes(fleet, kube, temporal);
    let lanes = fleet.scaling.is_none() || known.values().all(|lane| lane.known().is_some());
    let told = |lane| temporal.unversioned.get(lane).is_some_and(|told| told.known().is_some());
    let unversioned = !is_first || known.keys().all(told);
    let read = |id: &String| temporal.test_workflows.get(id).is_some_and(|test| test.known().is_some());
    let tests = seen.plan.rollout.iter().flat_map(|rollout| &rollout.gates.read).all(read);
    let is_told = |pod: &PodState| pod.load.known().is_some() || pod.unreadable.is_some();
    versions && lanes && tests && unversioned && kube.pods.iter().filter(|pod| pod.ready).all(is_told)
}
