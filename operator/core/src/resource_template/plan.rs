//! Which copies are applied, and which are deleted.
//!
//! | the version | its copy |
//! |---|---|
//! | has a Deployment, and one of `roles` if there are any | is applied |
//! | the same, at its sunset, and the template scales it | is deleted: it would start pods again |
//! | has a Deployment, and none of `roles` | is deleted |
//! | has a Deployment, and what it depends on is not known | stays as it is |
//! | has none, which a read of the Deployment confirms | is deleted |

use serde_json::Value;

use super::template::text;
use super::{Copy, Picture, Traffic, VersionPicture, copy_name, render, scales};
use crate::api::{CopyStatus, TemplateRole};
use crate::names;

/// A template and all that its copies follow from.
#[derive(Clone, Copy, Debug)]
pub struct TemplateInput<'a> {
    /// Kubernetes namespace of the template, its fleet and its copies.
    pub namespace: &'a str,
    /// Name of the template.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// `spec.template`.
    pub template: &'a Value,
    /// Whether no copy may be applied, as the template is refused: then only what is left of versions that are gone is deleted.
    pub is_refused: bool,
    /// `spec.roles`.
    pub roles: Option<&'a [TemplateRole]>,
    /// The fleet.
    pub picture: &'a Picture,
    /// Copies by the status.
    pub known: &'a [CopyStatus],
}

/// What is done with the copy of one version.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// See to it that the copy is there as it should be.
    Apply {
        /// The version.
        build_id: String,
        /// Name of the copy.
        name: String,
        /// The copy.
        copy: Box<Copy>,
    },
    /// Delete the copy, if it is this template's own.
    Delete {
        /// The version.
        build_id: String,
        /// Name of the copy.
        name: String,
        /// Its `apiVersion`.
        api_version: String,
        /// Its kind.
        kind: String,
        /// What has to be proven first.
        proof: Proof,
    },
}

impl Step {
    /// The version that it is about.
    #[must_use]
    pub fn build_id(&self) -> &str {
        match self {
            Self::Apply { build_id, .. } | Self::Delete { build_id, .. } => build_id,
        }
    }
}

/// What has to be proven before a copy is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing more: what was seen is enough.
    Seen,
    /// That there is no Deployment of this name.
    NoDeployment(String),
}

/// Plans: deletions first, so that nothing scales what is about to go.
#[must_use]
pub fn plan(input: &TemplateInput<'_>) -> Vec<Step> {
    let scales = scales(input.template);
    let (mut deletions, mut applies) = (Vec::new(), Vec::new());
    for entry in input.known {
        if !input.picture.versions.iter().any(|version| version.build_id == entry.build_id) {
            let child = child_name(input, &entry.build_id);
            deletions.push(delete(input, entry, Proof::NoDeployment(child)));
        }
    }
    let versions = if input.is_refused { &[][..] } else { &input.picture.versions };
    for version in versions {
        let entry = input.known.iter().find(|entry| entry.build_id == version.build_id);
        let of_another_kind = entry.filter(|entry| is_of_another_kind(input, entry));
        match wanted(input, version, scales) {
            Some(true) => {
                deletions.extend(of_another_kind.map(|entry| delete(input, entry, Proof::Seen)));
                let name = copy_name(&input.picture.fleet, input.name, &version.build_id);
                let copy = Box::new(render(input, version));
                applies.push(Step::Apply { build_id: version.build_id.clone(), name, copy });
            }
            Some(false) => deletions.extend(entry.map(|entry| delete(input, entry, Proof::Seen))),
            None => {}
        }
    }
    deletions.into_iter().chain(applies).collect()
}

/// Whether a version is to have a copy; none while what that depends on is not known.
fn wanted(input: &TemplateInput<'_>, version: &VersionPicture, scales: bool) -> Option<bool> {
    let picture = input.picture;
    if scales && (picture.is_scaled || picture.is_deleted) {
        return Some(false);
    }
    let by_role = match input.roles {
        None => true,
        Some(roles) => role(version.traffic?).is_some_and(|role| roles.contains(&role)),
    };
    if scales && by_role {
        return version.is_pinned.map(|pinned| !pinned);
    }
    Some(by_role)
}

fn role(traffic: Traffic) -> Option<TemplateRole> {
    match traffic {
        Traffic::Current => Some(TemplateRole::Current),
        Traffic::Ramping => Some(TemplateRole::Ramping),
        Traffic::Draining => Some(TemplateRole::Draining),
        Traffic::Inactive => None,
    }
}

fn delete(input: &TemplateInput<'_>, entry: &CopyStatus, proof: Proof) -> Step {
    // Who wrote the entry without a kind had only the template's.
    let of = |own: &Option<String>, field: &str| own.clone().unwrap_or_else(|| text(input.template, field).to_owned());
    let name = entry.resource_name.clone().filter(|name| names::is_object_name(name));
    Step::Delete {
        build_id: entry.build_id.clone(),
        name: name.unwrap_or_else(|| copy_name(&input.picture.fleet, input.name, &entry.build_id)),
        api_version: of(&entry.api_version, "/apiVersion"),
        kind: of(&entry.kind, "/kind"),
        proof,
    }
}

/// Another version of the same API group is the same object.
fn is_of_another_kind(input: &TemplateInput<'_>, entry: &CopyStatus) -> bool {
    let group = |version: &str| version.split_once('/').map_or("", |(group, _)| group).to_owned();
    let (Some(version), Some(kind)) = (&entry.api_version, &entry.kind) else { return false };
    kind != text(input.template, "/kind") || group(version) != group(text(input.template, "/apiVersion"))
}

fn child_name(input: &TemplateInput<'_>, build_id: &str) -> String {
    match build_id {
        "" => input.picture.fleet.clone(),
        id => names::child_deployment_name(&input.picture.fleet, id),
    }
}
