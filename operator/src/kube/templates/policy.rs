//! Whether the API server checks what authors of templates may do.

use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::kube::client::{CallError, bounded};

/// Time that an answer counts.
const FRESH: Duration = Duration::from_secs(30);
/// Time that the last good answer counts while the API server gives none.
const LAST: Duration = Duration::from_secs(300);

/// The policy that checks templates before they are stored. It is read by its name.
pub struct Policy {
    client: Client,
    name: Option<String>,
    seen: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Policy {
    /// The policy of that name; without one there is none.
    #[must_use]
    pub fn new(client: Client, name: Option<String>) -> Self {
        Self { client, name, seen: Mutex::default() }
    }

    /// Whether it is in force.
    ///
    /// # Errors
    /// Why it is not, as the middle of a sentence.
    pub async fn check(&self) -> Result<(), String> {
        let Some(name) = &self.name else { return Err("--resource-template-policy names no policy".to_owned()) };
        let last = self.seen.lock().clone();
        if let Some((at, answer)) = &last
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = match self.read(name).await {
            Ok(answer) => answer,
            Err(error) => {
                if let Some((at, Ok(()))) = last
                    && at.elapsed() < LAST
                {
                    return Ok(());
                }
                return Err(format!("ValidatingAdmissionPolicy {name:?} can't be read: {error}"));
            }
        };
        *self.seen.lock() = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn read(&self, name: &str) -> Result<Result<(), String>, CallError> {
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.client.clone());
        let Some(policy) = bounded(policies.get_opt(name)).await? else {
            return Ok(Err(format!("ValidatingAdmissionPolicy {name:?} is not there")));
        };
        let Some(binding) = bounded(bindings.get_opt(name)).await? else {
            return Ok(Err(format!("ValidatingAdmissionPolicyBinding {name:?} is not there")));
        };
        Ok(in_force(name, &policy, &binding))
    }
}

/// Whether both refuse what they find wrong.
fn in_force(
    name: &str,
    policy: &ValidatingAdmissionPolicy,
    binding: &ValidatingAdmissionPolicyBinding,
) -> Result<(), String> {
    let policy = policy.spec.as_ref();
    if policy.is_some_and(|spec| spec.failure_policy.as_deref() == Some("Ignore")) {
        return Err(format!("ValidatingAdmissionPolicy {name:?} has failurePolicy Ignore"));
    }
    if policy.is_none_or(|spec| spec.validations.as_ref().is_none_or(Vec::is_empty)) {
        return Err(format!("ValidatingAdmissionPolicy {name:?} has no validations"));
    }
    let denies = |actions: &[String]| actions.iter().any(|action| action == "Deny");
    let binding = &binding.spec;
    let is_bound = binding.policy_name == name && denies(&binding.validation_actions);
    if is_bound {
        Ok(())
    } else {
        Err(format!("ValidatingAdmissionPolicyBinding {name:?} does not bind that policy with Deny"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(policy: Value, binding: Value) -> Result<(), String> {
        let policy = serde_json::from_value(json!({"metadata": {}, "spec": policy})).unwrap();
        in_force("p", &policy, &serde_json::from_value(json!({"metadata": {}, "spec": binding})).unwrap())
    }

    #[test]
    fn a_policy_counts_only_if_it_refuses() {
        let policy = json!({"failurePolicy": "Fail", "validations": [{"expression": "false"}]});
        let binding = json!({"policyName": "p", "validationActions": ["Deny"]});
        assert_eq!(judged(policy.clone(), binding.clone()), Ok(()));
        let mut lax = policy.clone();
        lax["failurePolicy"] = json!("Ignore");
        assert!(judged(lax, binding.clone()).unwrap_err().contains("Ignore"));
        assert!(judged(json!({"validations": []}), binding.clone()).unwrap_err().contains("no validations"));
        for (field, value) in [("policyName", json!("q")), ("validationActions", json!(["Warn", "Audit"]))] {
            let mut other = binding.clone();
            other[field] = value;
            assert!(judged(policy.clone(), other).unwrap_err().contains("Deny"));
        }
    }
}
