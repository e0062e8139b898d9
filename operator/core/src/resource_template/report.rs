//! What the status of a template says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Step;
use super::template::text;
use crate::api::{
    ConditionType, ConditionUpdate, CopyStatus, Reason, WorkerResourceTemplateStatus, find_condition, set_condition,
};

/// Why no copy of a template is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Reason of the condition.
    pub reason: Reason,
    /// One sentence or more for people.
    pub message: String,
}

impl Refusal {
    /// The template is not what it must be.
    #[must_use]
    pub fn invalid(wrong: &[String]) -> Self {
        Self { reason: Reason::InvalidSpec, message: wrong.join(" ") }
    }

    /// There is no WorkerDeployment of that name.
    #[must_use]
    pub fn without_fleet(fleet: &str, namespace: &str) -> Self {
        let message = format!(
            "spec.workerDeploymentRef.name: there is no WorkerDeployment {fleet:?} in namespace {namespace}: create it."
        );
        Self { reason: Reason::WorkerDeploymentNotFound, message }
    }

    /// Nobody checks what authors of templates may do.
    #[must_use]
    pub fn without_policy(why: &str) -> Self {
        let message = format!(
            "WorkerResourceTemplates are off, and copies stay as they are: {why}. Install the operator's chart with \
             workerResourceTemplate.policy.create, so that nobody creates by a template what they may not create themselves."
        );
        Self { reason: Reason::PolicyNotInstalled, message }
    }

    /// The replicas of what it scales have an owner.
    #[must_use]
    pub fn scaled(fleet: &str) -> Self {
        let message = format!(
            "spec.template has a scaleTargetRef, but spec.scaling of WorkerDeployment {fleet:?} decides the replicas, and they \
             have one owner: delete this template, or spec.scaling."
        );
        Self { reason: Reason::ReplicasOwnedByScaling, message }
    }
}

/// A step, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The step.
    pub step: Step,
    /// Whether it is done, so that a deleted copy is gone; or why it failed.
    pub result: Result<bool, String>,
}

/// What a status is made of.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The status before.
    pub previous: &'a WorkerResourceTemplateStatus,
    /// Generation of the template.
    pub generation: i64,
    /// Why no copy is applied, if none is.
    pub refusal: Option<&'a Refusal>,
    /// What was done.
    pub outcomes: &'a [Outcome],
    /// The time of day.
    pub now: Timestamp,
}

impl Report<'_> {
    /// The status that has an entry for every copy that is about to be applied, so that none is forgotten should the process end
    /// before its next status; none if the entries are there.
    #[must_use]
    pub fn announce(&self, steps: &[Step]) -> Option<WorkerResourceTemplateStatus> {
        let mut entries = entries(self.previous);
        for step in steps {
            if let Step::Apply { build_id, .. } = step
                && !entries.contains_key(build_id)
            {
                entries.insert(build_id.clone(), self.entry(step, None));
            }
        }
        (entries.len() > self.previous.versions.len()).then(|| WorkerResourceTemplateStatus {
            versions: entries.into_values().collect(),
            conditions: ready(self.previous),
        })
    }

    fn entry(&self, step: &Step, before: Option<&CopyStatus>) -> CopyStatus {
        let Step::Apply { build_id, name, copy } = step else { return self.kept(step.build_id(), before) };
        let word = |field: &str| Some(text(&copy.object, field).to_owned());
        let kept = self.kept(build_id, before);
        CopyStatus {
            resource_name: Some(name.clone()),
            api_version: word("/apiVersion"),
            kind: word("/kind"),
            apply_error: None,
            ..kept
        }
    }

    fn kept(&self, build_id: &str, before: Option<&CopyStatus>) -> CopyStatus {
        before.cloned().unwrap_or_else(|| CopyStatus {
            build_id: build_id.to_owned(),
            resource_name: None,
            api_version: None,
            kind: None,
            last_applied_generation: None,
            apply_error: None,
            last_applied_hash: None,
            last_transition_time: Time(self.now),
        })
    }

    /// Takes note of what came of a step.
    fn take(&self, Outcome { step, result }: &Outcome, entries: &mut BTreeMap<String, CopyStatus>) {
        let before = entries.get(step.build_id()).cloned();
        let mut entry = match (step, result) {
            (Step::Delete { build_id, .. }, Ok(gone)) => {
                if *gone {
                    entries.remove(build_id);
                }
                return;
            }
            (Step::Apply { copy, .. }, Ok(_)) => CopyStatus {
                last_applied_generation: Some(self.generation),
                last_applied_hash: Some(copy.hash.clone()),
                ..self.entry(step, before.as_ref())
            },
            (Step::Apply { .. }, Err(error)) => CopyStatus {
                apply_error: Some(error.clone()),
                last_applied_hash: None,
                ..self.entry(step, before.as_ref())
            },
            (Step::Delete { build_id, .. }, Err(error)) => {
                CopyStatus { apply_error: Some(error.clone()), ..self.kept(build_id, before.as_ref()) }
            }
        };
        if before.as_ref() != Some(&entry) {
            entry.last_transition_time = Time(self.now);
        }
        entries.insert(entry.build_id.clone(), entry);
    }

    fn condition(&self, entries: &BTreeMap<String, CopyStatus>) -> ConditionUpdate {
        let failed: Vec<_> = entries.values().filter_map(failure).collect();
        let (reason, message) = match self.refusal {
            Some(refusal) => (refusal.reason, refusal.message.clone()),
            None if failed.is_empty() => {
                (Reason::AllVersionsApplied, "Every version that is to have a copy has it.".to_owned())
            }
            None => (Reason::ApplyFailed, failed.join(" ")),
        };
        let status = (reason == Reason::AllVersionsApplied).into();
        ConditionUpdate { type_: ConditionType::Ready, status, reason, message }
    }
}

fn failure(entry: &CopyStatus) -> Option<String> {
    let error = entry.apply_error.as_deref()?.trim_end_matches('.');
    let name = entry.resource_name.as_deref().unwrap_or_default();
    Some(format!("Version {:?}, {} {name:?}: {error}.", entry.build_id, entry.kind.as_deref().unwrap_or("copy")))
}

/// Makes the status; none when it says what was said before.
#[must_use]
pub fn report(report: &Report<'_>) -> Option<WorkerResourceTemplateStatus> {
    let mut entries = entries(report.previous);
    report.outcomes.iter().for_each(|outcome| report.take(outcome, &mut entries));
    let mut conditions = ready(report.previous);
    set_condition(&mut conditions, report.condition(&entries), Some(report.generation), report.now);
    let versions: Vec<_> = entries.into_values().collect();
    let is_new = versions != report.previous.versions || conditions != ready(report.previous);
    is_new.then_some(WorkerResourceTemplateStatus { versions, conditions })
}

fn entries(status: &WorkerResourceTemplateStatus) -> BTreeMap<String, CopyStatus> {
    status.versions.iter().map(|entry| (entry.build_id.clone(), entry.clone())).collect()
}

/// Our own condition; those of others are theirs to write.
fn ready(status: &WorkerResourceTemplateStatus) -> Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    find_condition(&status.conditions, ConditionType::Ready).cloned().into_iter().collect()
}
