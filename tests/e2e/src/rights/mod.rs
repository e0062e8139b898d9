//! Rights of the operator's account: those that the chart grants ([`chart`]), those that were reviewed ([`golden`]), and those that a
//! run used ([`used`]).

pub mod chart;
pub mod golden;
pub mod used;

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Result, ensure};
use serde::Deserialize;

/// Name of the operator's release, of its namespace and of its account.
pub const RELEASE: &str = "temporal-worker-operator";

/// Where a right holds, or where it was used.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// In all namespaces, and for objects of none.
    Cluster,
    /// In each namespace that is watched.
    Watched,
    /// In the operator's own namespace.
    Own,
    /// In a namespace that is none of the operator's.
    #[serde(skip)]
    Elsewhere,
}

impl Scope {
    /// By a namespace; `watched` are those that are listed, none for all.
    #[must_use]
    pub fn of(namespace: &str, watched: &[String]) -> Self {
        match namespace {
            "" => Self::Cluster,
            RELEASE => Self::Own,
            name if watched.is_empty() || watched.iter().any(|one| one == name) => Self::Watched,
            _ => Self::Elsewhere,
        }
    }
}

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Where.
    pub scope: Scope,
    /// API group; empty for the core's.
    pub group: String,
    /// Resource, with its subresource: `deployments/scale`.
    pub resource: String,
    /// The only object that it is for, if it is for one.
    pub name: Option<String>,
    /// `get`, `list`, …
    pub verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, group, resource, name, verb } = self;
        let name = name.as_deref().unwrap_or("any");
        write!(f, "{verb} {resource} of group {group:?}, name {name}, scope {scope:?}")
    }
}

impl Right {
    /// Whether who has this one needs no other for what takes `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let is_there = self.scope == Scope::Cluster || self.scope == other.scope;
        let is_named = self.name.is_none() || self.name == other.name;
        let is_it = self.group == other.group && self.resource == other.resource && self.verb == other.verb;
        is_there && is_named && is_it
    }
}

/// What differs between rights that are granted and rights that were used.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Granted, and never used.
    pub unused: Vec<Right>,
    /// Used, and not granted.
    pub ungranted: Vec<Right>,
}

impl Difference {
    /// Compares.
    #[must_use]
    pub fn between(granted: &BTreeSet<Right>, used: &BTreeSet<Right>) -> Self {
        let is_unused = |right: &&Right| !used.iter().any(|one| right.covers(one));
        let is_ungranted = |one: &&Right| !granted.iter().any(|right| right.covers(one));
        Self {
            unused: granted.iter().filter(is_unused).cloned().collect(),
            ungranted: used.iter().filter(is_ungranted).cloned().collect(),
        }
    }

    /// Passes if nothing differs.
    ///
    /// # Errors
    /// Names what does.
    pub fn ensure_none(&self) -> Result<()> {
        let lines = |rights: &[Right]| rights.iter().map(|right| format!("\n  {right}")).collect::<String>();
        let (unused, ungranted) = (lines(&self.unused), lines(&self.ungranted));
        ensure!(
            unused.is_empty() && ungranted.is_empty(),
            "granted, never used:{unused}\nused, not granted:{ungranted}"
        );
        Ok(())
    }
}

/// Rights that a broader one makes needless, or that are granted for the same objects by name and without.
#[must_use]
pub fn needless(granted: &BTreeSet<Right>) -> Vec<&Right> {
    let is_covered = |right: &&Right| granted.iter().any(|other| other != *right && other.covers(right));
    granted.iter().filter(is_covered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(scope: Scope, resource: &str, name: Option<&str>, verb: &str) -> Right {
        let (resource, name, verb) = (resource.to_owned(), name.map(str::to_owned), verb.to_owned());
        Right { scope, group: String::new(), resource, name, verb }
    }

    #[test]
    fn a_right_covers_its_own_scope_and_name_alone() {
        let cluster = right(Scope::Cluster, "secrets", None, "get");
        let watched = right(Scope::Watched, "secrets", None, "get");
        let own = right(Scope::Own, "secrets", Some("key"), "get");
        assert!(cluster.covers(&watched) && cluster.covers(&own) && watched.covers(&watched));
        assert!(!watched.covers(&cluster) && !watched.covers(&own));
        assert!(!own.covers(&right(Scope::Own, "secrets", None, "get")), "a list of all has no name");
        assert!(!own.covers(&right(Scope::Own, "secrets", Some("other"), "get")));
        assert!(!cluster.covers(&right(Scope::Cluster, "secrets", None, "list")));
        assert_eq!(needless(&[cluster.clone(), own.clone()].into()), [&own]);
        assert!(needless(&[watched, own].into()).is_empty());
    }

    #[test]
    fn a_right_too_many_and_one_too_few_are_named() {
        let get = right(Scope::Watched, "configmaps", None, "get");
        let used: BTreeSet<_> = [right(Scope::Watched, "configmaps", Some("one"), "get")].into();
        let delete = right(Scope::Watched, "configmaps", None, "delete");
        assert!(Difference::between(&[get.clone()].into(), &used).ensure_none().is_ok());
        let more = Difference::between(&[get, delete.clone()].into(), &used);
        assert_eq!((more.unused.as_slice(), more.ungranted.len()), ([delete].as_slice(), 0));
        let less = Difference::between(&BTreeSet::new(), &used).ensure_none().unwrap_err().to_string();
        assert!(less.contains("used, not granted:\n  get configmaps"), "{less}");
    }

    #[test]
    fn a_namespace_that_is_not_watched_is_elsewhere() {
        let watched = ["a".to_owned()];
        let of = |namespace: &str| Scope::of(namespace, &watched);
        let scopes = [of(""), of(RELEASE), of("a"), of("b"), Scope::of("b", &[])];
        assert_eq!(scopes, [Scope::Cluster, Scope::Own, Scope::Watched, Scope::Elsewhere, Scope::Watched]);
    }
}
