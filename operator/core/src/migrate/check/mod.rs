//! What a cluster has of temporal-worker-controller and of those who scale its Workers, and what will happen to each object when
//! this operator takes over.

mod definitions;
mod fleets;
mod manager;
mod scalers;

use super::query::{Cluster, Kind, Listed};
use super::{Finding, Report, Unread};

/// Judges everything that was read.
#[must_use]
pub fn check(cluster: &Cluster) -> Report {
    let findings: Vec<Finding> = [
        manager::findings(cluster),
        definitions::findings(cluster),
        fleets::findings(cluster),
        scalers::findings(cluster),
    ]
    .concat();
    Report::new(findings, unread(cluster))
}

/// One line a kind, though it may have been asked for twice.
fn unread(cluster: &Cluster) -> Vec<Unread> {
    let mut unread: Vec<Unread> = Vec::new();
    for (kind, listed) in &cluster.lists {
        let title = kind.query().title();
        let entry = match listed {
            Listed::Objects(_) => continue,
            Listed::NotServed => {
                Unread { kind: title, not_served: true, reason: "the cluster does not have this kind".into() }
            }
            Listed::Refused(why) => {
                let reason = format!("can't be listed, so that nothing is said of it: {why}");
                Unread { kind: title, not_served: false, reason }
            }
        };
        if !unread.contains(&entry) {
            unread.push(entry);
        }
    }
    unread
}

/// The fleet that controls a Deployment, by kind and name, as it is found again: owners count by name, not by UID.
fn owner(child: &serde_json::Value) -> Option<(&str, &str)> {
    let owner = super::json::controller(child)?;
    Some((owner["kind"].as_str()?, owner["name"].as_str()?))
}

/// The WorkerDeployment that a Deployment is a version of.
fn fleet_of<'a>(cluster: &'a Cluster, child: &serde_json::Value) -> Option<&'a serde_json::Value> {
    let (kind, name) = owner(child)?;
    let fleets = cluster.of(Kind::Fleet);
    (kind == "WorkerDeployment").then(|| super::json::find(fleets, super::json::namespace(child), name)).flatten()
}
