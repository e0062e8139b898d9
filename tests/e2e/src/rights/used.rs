//! What was used, by the API server's audit log.

use std::collections::BTreeSet;

use harness::AuditEvent;
use operator_core::api::GROUP;

use super::{Right, Scope};

/// The rights that these requests took, each with the name of its object; `watched` are the namespaces that are listed, none for
/// all.
///
/// The log has one event for a request, and the API server asks for more than one right where
/// - a patch creates an object: for that to create it,
/// - it checks who sets owners ([`harness::ControlPlane::start_strict`]): for that to the finalizers of an owner that is to wait for
///   the object, and where the owners of an object are changed for that to delete the object.
#[must_use]
pub fn used(events: &[AuditEvent], watched: &[String]) -> BTreeSet<Right> {
    let resources = events.iter().filter(|event| !event.resource.is_empty());
    resources.flat_map(|event| rights(event, watched)).collect()
}

fn rights(event: &AuditEvent, watched: &[String]) -> Vec<Right> {
    let right = Right {
        scope: Scope::of(&event.namespace, watched),
        group: event.group.clone(),
        resource: event.resource.clone(),
        name: (!event.name.is_empty()).then(|| event.name.clone()),
        verb: event.verb.clone(),
    };
    let also = |verb: &str| Right { verb: verb.to_owned(), ..right.clone() };
    let mut rights = Vec::new();
    if event.verb == "patch" && event.code == 201 {
        rights.push(also("create"));
    }
    if event.code < 300 {
        let changes_owners = event.verb == "patch" && !event.is_whole && !event.blocking_owners.is_empty();
        rights.extend(changes_owners.then(|| also("delete")));
        rights.extend(event.blocking_owners.iter().map(|kind| Right {
            group: GROUP.to_owned(),
            resource: format!("{}s/finalizers", kind.to_ascii_lowercase()),
            name: None,
            ..also("update")
        }));
    }
    rights.push(right);
    rights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(verb: &str, code: u16, owner: Option<&str>, is_whole: bool) -> AuditEvent {
        AuditEvent {
            verb: verb.into(),
            group: "apps".into(),
            resource: "deployments".into(),
            namespace: "a".into(),
            name: "orders".into(),
            code,
            blocking_owners: owner.into_iter().map(str::to_owned).collect(),
            is_whole,
            ..AuditEvent::default()
        }
    }

    fn told(event: AuditEvent) -> Vec<String> {
        let used = used(&[event], &[]);
        used.into_iter().map(|right| format!("{} {}", right.verb, right.resource)).collect()
    }

    #[test]
    fn one_event_may_take_several_rights() {
        let owner = Some("WorkerDeployment");
        let finalizers = "update workerdeployments/finalizers";
        for (event, expected) in [
            (event("get", 404, None, false), vec!["get deployments"]),
            (event("patch", 200, None, true), vec!["patch deployments"]),
            (event("patch", 201, owner, true), vec!["create deployments", "patch deployments", finalizers]),
            (event("patch", 200, owner, false), vec!["delete deployments", "patch deployments", finalizers]),
            (event("patch", 403, owner, false), vec!["patch deployments"]),
            (AuditEvent { verb: "get".into(), ..AuditEvent::default() }, vec![]),
        ] {
            assert_eq!(told(event), expected);
        }
    }
}
