//! One look at a template: what it should be, what is done, what is said.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action as Requeue;
use kube::runtime::reflector::Store;
use operator_core::api::{WorkerResourceTemplate, WorkerResourceTemplateStatus};
use operator_core::backoff::RetryClass;
use operator_core::border::Border;
use operator_core::resource_template::{
    LOOK, Outcome, Picture, Proof, Refusal, Report, Step, TemplateInput, look_again_after, plan, report, scales,
    validate,
};

use super::Context;
use super::board::Remembered;
use crate::changes::FleetId;
use crate::kube::client::CallError;
use crate::kube::templates::copies::{self, Copies};
use crate::kube::templates::kinds::KindError;
use crate::kube::watches::{self, Guarded};
use crate::settings::RECONCILE_DEADLINE;

/// Time until it is looked whether a fleet was seen by now, should nobody tell.
const UNSEEN: Duration = Duration::from_secs(10);
/// Longest text of an error that is kept, in characters.
const MAX_ERROR: usize = 1024;

/// Why a look failed. What fails of a copy is in the status instead.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It took too long.
    #[error("template not done within {} s", RECONCILE_DEADLINE.as_secs())]
    Deadline,
    /// The API server could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// The templates of a scope.
pub(super) struct Templates {
    /// What every reconcile shares.
    pub(super) ctx: Arc<Context>,
    /// The templates.
    pub(super) store: Store<Guarded<WorkerResourceTemplate>>,
}

/// A template, and what is known of it.
struct Subject<'a> {
    object: &'a WorkerResourceTemplate,
    namespace: String,
    name: String,
    uid: String,
    picture: Picture,
    /// Why no copy of it is applied.
    refusal: Option<Refusal>,
    status: WorkerResourceTemplateStatus,
}

impl Templates {
    /// Looks at a template, within the deadline.
    pub(super) async fn reconcile(&self, object: &Guarded<WorkerResourceTemplate>) -> Result<Requeue, Error> {
        if !self.ctx.leadership.may_write() {
            return Ok(Requeue::await_change());
        }
        let template = match &object.0 {
            Ok(template) if template.metadata.deletion_timestamp.is_none() => template,
            Ok(_) => return Ok(Requeue::await_change()),
            Err(invalid) => {
                let name = object.name_any();
                tracing::warn!(name, error = %invalid.error, "stored WorkerResourceTemplate can't be read");
                return Ok(Requeue::await_change());
            }
        };
        tokio::time::timeout(RECONCILE_DEADLINE, self.run(template)).await.unwrap_or(Err(Error::Deadline))
    }

    /// Time until the next look after a failed one: each template has a backoff of its own.
    pub(super) fn again_after(&self, template: &Guarded<WorkerResourceTemplate>, error: &Error) -> Requeue {
        let uid = template.uid().unwrap_or_default();
        tracing::warn!(name = template.name_any(), %error, "template can't be looked at");
        Requeue::requeue(self.back_off(&uid, self.ctx.templates.recall(&uid)))
    }

    fn back_off(&self, uid: &str, mut remembered: Remembered) -> Duration {
        let (backoff, after) = remembered.backoff.next(RetryClass::Transient, rand::random());
        remembered.backoff = backoff;
        self.ctx.templates.remember(uid, remembered);
        after
    }

    async fn run(&self, template: &WorkerResourceTemplate) -> Result<Requeue, Error> {
        let Some(mut subject) = self.look(template).await else { return Ok(Requeue::requeue(UNSEEN)) };
        let is_off = subject.is_off();
        let steps = if is_off { Vec::new() } else { plan(&subject.input()) };
        if let Some(announced) = subject.report(&[]).announce(&steps) {
            self.write(&mut subject, announced).await?;
        }
        let mut remembered = self.ctx.templates.recall(&subject.uid);
        let outcomes = self.carry_out(&subject, &steps, &mut remembered).await;
        let has_failed = outcomes.iter().any(|outcome| outcome.result.is_err());
        if let Some(status) = report(&subject.report(&outcomes)) {
            self.write(&mut subject, status).await?;
        }
        if has_failed {
            return Ok(Requeue::requeue(self.back_off(&subject.uid, remembered)));
        }
        remembered.backoff = Default::default();
        self.ctx.templates.remember(&subject.uid, remembered);
        let copies = self.store.len().saturating_mul(subject.picture.versions.len());
        let after = if is_off { LOOK } else { look_again_after(copies) };
        Ok(Requeue::requeue(after.mul_f64(0.9 + 0.2 * rand::random::<f64>())))
    }

    /// Finds out what a template is to be; none while its fleet was not seen yet.
    async fn look<'a>(&self, object: &'a WorkerResourceTemplate) -> Option<Subject<'a>> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let uid = object.uid().unwrap_or_default();
        let fleet = object.spec.fleet();
        let status = object.status.clone().unwrap_or_default();
        let picture = Picture { fleet: fleet.to_owned(), ..Picture::default() };
        let mut subject = Subject { object, namespace, name, uid, picture, refusal: None, status };
        let rules = &self.ctx.shared.templates;
        if let Err(why) = rules.policy.check().await {
            subject.refusal = Some(Refusal::without_policy(&why));
            return Some(subject);
        }
        let fleets = &self.ctx.caches.fleets;
        let Some(found) = watches::named(fleets, Border::TemplateFleet, &subject.namespace, fleet) else {
            subject.refusal = Some(Refusal::without_fleet(fleet, &subject.namespace));
            return Some(subject);
        };
        let fleet_uid = found.uid().unwrap_or_default();
        let seen = self.ctx.templates.picture(&FleetId::from(fleet_uid.as_str()))?;
        self.adopt(object, fleet, &fleet_uid).await;
        let wrong = validate(&object.spec.template, &rules.allowed);
        subject.refusal = match wrong.as_slice() {
            [] if seen.is_scaled && scales(&object.spec.template) => Some(Refusal::scaled(fleet)),
            [] => None,
            wrong => Some(Refusal::invalid(wrong)),
        };
        subject.picture = seen;
        Some(subject)
    }

    /// What fails is tried again at the next look: copies don't wait for it. While the peer is scaled to zero, its webhook refuses
    /// every change of a template.
    async fn adopt(&self, object: &WorkerResourceTemplate, fleet: &str, uid: &str) {
        let Some(_permit) = self.ctx.leadership.permit().await else { return };
        if let Err(error) = copies::adopt(&self.ctx.client, &object.metadata, fleet, uid).await {
            tracing::warn!(namespace = object.namespace(), name = object.name_any(), %error, "owner of the template not set");
        }
    }

    async fn write(&self, subject: &mut Subject<'_>, status: WorkerResourceTemplateStatus) -> Result<(), CallError> {
        let Some(_permit) = self.ctx.leadership.permit().await else { return Ok(()) };
        let (namespace, name) = (subject.namespace.as_str(), subject.name.as_str());
        for ready in &status.conditions {
            let (reason, message) = (&ready.reason, &ready.message);
            tracing::info!(namespace, name, status = ready.status, reason, message, "template");
        }
        match copies::write_status(&self.ctx.client, (namespace, name), &status).await {
            Err(error) if error.is_not_found() => return Ok(()),
            result => result?,
        }
        subject.status = status;
        Ok(())
    }

    /// One step after another. The failure of one ends none but the apply that waits for it.
    async fn carry_out(&self, subject: &Subject<'_>, steps: &[Step], remembered: &mut Remembered) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        for step in steps {
            let is_held = |before: &Outcome| before.step.build_id() == step.build_id() && before.result != Ok(true);
            if outcomes.iter().any(is_held) {
                continue;
            }
            let Some(_permit) = self.ctx.leadership.permit().await else { break };
            let result = self.one(subject, step, remembered).await;
            outcomes.push(Outcome { step: step.clone(), result });
        }
        outcomes
    }

    async fn one(&self, subject: &Subject<'_>, step: &Step, remembered: &mut Remembered) -> Result<bool, String> {
        let copies = Copies { client: &self.ctx.client, namespace: &subject.namespace, template: &subject.uid };
        let kinds = &self.ctx.shared.templates.kinds;
        match step {
            Step::Apply { build_id, copy, .. } => {
                let word = |field: &str| copy.object[field].as_str().unwrap_or_default().to_owned();
                let resource = kinds.of(&word("apiVersion"), &word("kind")).await.map_err(told)?;
                let before = remembered.applied.get(build_id);
                let applied = copies.ensure(&resource, copy, before).await.map_err(told)?;
                remembered.applied.insert(build_id.clone(), applied);
                Ok(true)
            }
            Step::Delete { build_id, name, api_version, kind, proof } => {
                if let Proof::NoDeployment(child) = proof
                    && !copies.has_no_deployment(child, &subject.picture.fleet).await.map_err(told)?
                {
                    return Ok(false);
                }
                remembered.applied.remove(build_id);
                match kinds.of(api_version, kind).await {
                    // With the kind go its objects.
                    Err(KindError::Missing(..)) => Ok(true),
                    resource => {
                        copies.delete(&resource.map_err(told)?, name).await.map_err(told)?;
                        Ok(true)
                    }
                }
            }
        }
    }
}

impl Subject<'_> {
    /// Whether nothing at all is done, as nobody checks authors.
    fn is_off(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.reason == operator_core::api::Reason::PolicyNotInstalled)
    }

    fn input(&self) -> TemplateInput<'_> {
        use operator_core::api::Reason;
        let is_refused = |refusal: &Refusal| refusal.reason != Reason::ReplicasOwnedByScaling;
        TemplateInput {
            namespace: &self.namespace,
            name: &self.name,
            uid: &self.uid,
            template: &self.object.spec.template,
            is_refused: self.refusal.as_ref().is_some_and(is_refused),
            roles: self.object.spec.roles.as_deref(),
            picture: &self.picture,
            known: &self.status.versions,
        }
    }

    fn report<'a>(&'a self, outcomes: &'a [Outcome]) -> Report<'a> {
        Report {
            previous: &self.status,
            generation: self.object.metadata.generation.unwrap_or(0),
            refusal: self.refusal.as_ref(),
            outcomes,
            now: Timestamp::now(),
        }
    }
}

/// What an error says, cut to what a status should hold.
fn told(error: impl std::fmt::Display) -> String {
    error.to_string().chars().take(MAX_ERROR).collect()
}
