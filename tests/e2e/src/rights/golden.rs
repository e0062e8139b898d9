//! The rights as they were reviewed, in `data/rights.yaml`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Right, Scope};

/// What a right depends on.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// No namespaces are listed.
    AllNamespaces,
    /// Namespaces are listed.
    NamespacesListed,
    /// ClusterConnections can be read.
    ClusterConnections,
    /// Resource templates are on.
    Templates,
    /// The push endpoint is on.
    Push,
    /// All fleets are deleted when the chart is uninstalled.
    DeleteFleets,
}

impl Condition {
    /// As the install guide has it.
    fn told(self) -> &'static str {
        match self {
            Self::AllNamespaces => "all namespaces watched",
            Self::NamespacesListed => "`rbac.restrictWatchNamespaces`",
            Self::ClusterConnections => "all namespaces watched, or `rbac.clusterConnections`",
            Self::Templates => "resource templates on",
            Self::Push => "`push.enabled`",
            Self::DeleteFleets => "`uninstall.deleteFleets`",
        }
    }
}

/// Rights that are there for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    scope: Scope,
    group: String,
    resources: Vec<String>,
    #[serde(default)]
    names: Vec<String>,
    verbs: Vec<String>,
    #[serde(default)]
    when: Vec<Condition>,
    why: String,
}

/// How the chart is installed, as far as rights depend on it.
#[derive(Clone, Debug, Default)]
pub struct Installation {
    /// Namespaces that are listed; none for all.
    pub namespaces: Vec<String>,
    /// What is switched on beside.
    pub with: Vec<Condition>,
}

impl Installation {
    /// All that can be switched on.
    pub const EXTRAS: [Condition; 4] =
        [Condition::ClusterConnections, Condition::Templates, Condition::Push, Condition::DeleteFleets];

    /// Values of the chart.
    #[must_use]
    pub fn values(&self) -> Value {
        let has = |condition| self.with.contains(&condition);
        let (templates, push) = (has(Condition::Templates), has(Condition::Push));
        json!({
            "rbac": {
                "restrictWatchNamespaces": self.namespaces,
                "clusterConnections": has(Condition::ClusterConnections),
                "resourceTemplates": templates,
            },
            "workerResourceTemplate": {"policy": {"create": templates}},
            "push": {"enabled": push, "plainHTTP": push},
            "uninstall": {"deleteFleets": has(Condition::DeleteFleets)},
        })
    }

    fn meets(&self, condition: Condition) -> bool {
        match condition {
            Condition::AllNamespaces => self.namespaces.is_empty(),
            Condition::NamespacesListed => !self.namespaces.is_empty(),
            Condition::ClusterConnections => self.namespaces.is_empty() || self.with.contains(&condition),
            extra => self.with.contains(&extra),
        }
    }

    /// The rights that the operator's account is to have.
    ///
    /// # Errors
    /// The list can't be read.
    pub fn rights(&self) -> Result<BTreeSet<Right>> {
        let entries = entries()?;
        let here = entries.iter().filter(|entry| entry.when.iter().all(|condition| self.meets(*condition)));
        Ok(here.flat_map(|entry| self.rights_of(entry)).collect())
    }

    fn rights_of(&self, entry: &Entry) -> Vec<Right> {
        let scope = match entry.scope {
            Scope::Watched if self.namespaces.is_empty() => Scope::Cluster,
            scope => scope,
        };
        let names = if entry.names.is_empty() { vec![None] } else { entry.names.iter().cloned().map(Some).collect() };
        let mut rights = Vec::new();
        for resource in &entry.resources {
            for name in &names {
                rights.extend(entry.verbs.iter().map(|verb| Right {
                    scope,
                    group: entry.group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                    verb: verb.clone(),
                }));
            }
        }
        rights
    }
}

fn entries() -> Result<Vec<Entry>> {
    serde_yaml::from_str(include_str!("../../data/rights.yaml")).context("tests/e2e/data/rights.yaml")
}

/// The table of the install guide.
///
/// # Errors
/// The list can't be read.
pub fn table() -> Result<String> {
    let mut table = "| Objects | Verbs | Where | With | Why |\n|---|---|---|---|---|\n".to_owned();
    for Entry { scope, group, resources, names, verbs, when, why } in entries()? {
        let code = |words: &[String]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let mut objects = code(&resources);
        if !group.is_empty() {
            write!(objects, " of `{group}`")?;
        }
        if !names.is_empty() {
            write!(objects, ", named {}", code(&names))?;
        }
        let place = match scope {
            Scope::Own => "its own namespace",
            Scope::Watched => "watched namespaces",
            Scope::Cluster | Scope::Elsewhere => "the cluster",
        };
        let with = when.into_iter().map(Condition::told).collect::<Vec<_>>().join("; ");
        writeln!(table, "| {objects} | {} | {place} | {with} | {why} |", verbs.join(", "))?;
    }
    Ok(table)
}
