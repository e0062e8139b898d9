//! Who may route a Worker Deployment: the server obeys its manager alone, and knows it by an identity.
//!
//! The operator's identity has the UID of its own namespace in it, so that no two clusters have the same. A cluster or a namespace
//! that is made anew therefore has another one, and what the old one managed must be taken over: always what it was called without
//! the UID, what the administrator names as former identities, and for one fleet what its own annotation names.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::TAKE_OVER_ANNOTATION;

/// What has to come before a change of the routing, as the server obeys its manager alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing: the operator is the manager.
    Held,
    /// The operator becomes the manager: nobody is, or the operator may take over from who is.
    Due,
    /// No change: somebody else is the manager.
    Refused,
}

/// Finds that out. `former` holds the identities that the operator may take over from ([`reclaimable`]).
#[must_use]
pub fn claim(manager: &str, identity: &str, former: &BTreeSet<String>) -> Claim {
    if manager == identity {
        Claim::Held
    } else if manager.is_empty() || former.contains(manager) {
        Claim::Due
    } else {
        Claim::Refused
    }
}

/// The identities that the operator may take over from for one fleet: its own former ones, and the one that the fleet's annotation
/// `temporal.io/take-over` names. The annotation stands for that very identity, so that it does nothing any more once another one is
/// the manager, and may stay.
#[must_use]
pub fn reclaimable(former: &BTreeSet<String>, annotations: &BTreeMap<String, String>) -> BTreeSet<String> {
    let named = annotations.get(TAKE_OVER_ANNOTATION).filter(|identity| !identity.is_empty());
    former.iter().chain(named).cloned().collect()
}

/// What hands a Worker Deployment with a foreign manager over, as two commands to choose from. `namespace` is the one in Temporal.
#[must_use]
pub fn remedy(manager: &str, namespace: &str, deployment: &str) -> String {
    let (kubernetes, name) = deployment.split_once('/').unwrap_or(("", deployment));
    format!(
        "`temporal worker deployment manager-identity unset --namespace {} --deployment-name {deployment}`, or `kubectl annotate \
         workerdeployment {name} --namespace {kubernetes} --overwrite {TAKE_OVER_ANNOTATION}={}`",
        quoted(namespace),
        quoted(manager)
    )
}

/// A word of a shell's command. Whoever may change the server chooses a manager's identity, and an administrator copies it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | '@');
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "twc/system/u-2";

    #[test]
    fn a_manager_is_taken_over_if_it_is_nobody_a_former_identity_or_the_one_that_the_fleet_names() {
        use Claim::{Due, Held, Refused};
        // The manager on the server, the fleet's annotation, and what follows.
        let table = [
            ("", None, Due),
            (OWN, None, Held),
            ("twc/system", None, Due),
            ("twc/system/u-1", None, Due),
            ("twc/system/u-9", None, Refused),
            ("twc/system/u-9", Some("twc/system/u-9"), Due),
            ("twc/system/u-9", Some("twc/system/u-8"), Refused),
            ("twc/system/u-9", Some("twc/system"), Refused),
            ("twc/system/u-9", Some(""), Refused),
            ("twc/system/u-9", Some("*"), Refused),
            // Taken over: the annotation is still there.
            (OWN, Some("twc/system/u-9"), Held),
            ("somebody", Some("twc/system/u-9"), Refused),
        ];
        let former = ["twc/system", "twc/system/u-1"].map(str::to_owned).into();
        for (manager, named, expected) in table {
            let annotations = named.map(|named: &str| (TAKE_OVER_ANNOTATION.to_owned(), named.to_owned()));
            let former = reclaimable(&former, &annotations.into_iter().collect());
            assert_eq!(claim(manager, OWN, &former), expected, "{manager:?}, annotated {named:?}");
        }
    }

    #[test]
    fn the_remedy_is_two_commands_that_can_be_run_as_they_are() {
        let remedy = remedy("twc/system/u-9", "default", "prod/orders");
        for command in [
            "manager-identity unset --namespace default --deployment-name prod/orders`",
            "annotate workerdeployment orders --namespace prod --overwrite temporal.io/take-over=twc/system/u-9`",
        ] {
            assert!(remedy.contains(command), "{command:?} is not in: {remedy}");
        }
    }

    #[test]
    fn an_identity_is_one_word_of_the_command_whatever_it_holds() {
        let remedy = remedy("x; rm '$HOME'", "default", "prod/orders");
        assert!(remedy.contains(r"take-over='x; rm '\''$HOME'\'''`"), "{remedy}");
    }
}
