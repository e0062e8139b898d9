//! The kinds' definitions: whose they are, and whether they have the fields that this operator reads and writes.

use serde_json::Value;

use super::super::json::{annotation, is_ending, list, name, text};
use super::super::query::{Cluster, Kind};
use super::Finding;
use crate::api::GROUP;

/// The definition that tells whose schema is served: a field of its spec is this operator's own.
const FLEETS: &str = "workerdeployments.temporal.io";
const KIND: &str = "CustomResourceDefinition";
const TAKE_OVER: &str =
    "helm upgrade --install temporal-worker-operator-crds charts/temporal-worker-operator-crds --take-ownership";
const APPLY: &str = "kubectl apply --server-side --force-conflicts -f crds/";

pub(super) fn findings(cluster: &Cluster) -> Vec<Finding> {
    let own: Vec<&Value> =
        cluster.of(Kind::Definition).iter().filter(|it| text(it, "/spec/group") == Some(GROUP)).collect();
    let fleets = own.iter().find(|definition| name(definition) == FLEETS);
    let served = fleets.is_some_and(|definition| has_our_fields(definition));
    let ours = fleets.filter(|_| served).map(|definition| release(definition));
    own.iter().map(|definition| judge(definition, served, ours)).collect()
}

fn judge(definition: &Value, served: bool, ours: Option<Option<Release<'_>>>) -> Finding {
    let owner = release(definition);
    let owned = match owner {
        Some(owner) => format!("belongs to Helm release {:?} of namespace {:?}", owner.name, owner.namespace),
        None => "belongs to no Helm release".to_owned(),
    };
    let found = |rest: &str| Finding::fine(KIND, definition, format!("{owned}{rest}"));
    if is_ending(definition) {
        return found(", and is being deleted, with every object of its kind.").blocking(
            "Find out who deletes it. A deletion can't be taken back; objects that a finalizer keeps are still there: save them.",
        );
    }
    if name(definition) == FLEETS && !served {
        let fate = ", and its schema lacks this operator's fields: the API server would drop them. The operator writes nothing \
                    until they are served.";
        let change =
            "Install the kinds of this operator over it. Objects stay, and fields that they have keep their meaning.";
        return found(fate).blocking(change).by(if owner.is_some() { TAKE_OVER } else { APPLY });
    }
    match (owner, ours) {
        (owner, Some(ours)) if owner == ours => found(", as the kinds of this operator do."),
        (Some(owner), _) => {
            let change = format!(
                "Do not uninstall {0:?}: that would delete the kind, and with it every object of it. Let this operator's chart of \
                 the kinds take it over, then make Helm forget {0:?}: kubectl -n {1} delete secret -l owner=helm,name={0}.",
                owner.name, owner.namespace
            );
            found(".").warning(change).by(TAKE_OVER)
        }
        (None, _) => found(". It stays as it is until the kinds of this operator are installed."),
    }
}

/// Whether version v1alpha1 has a field that is this operator's own.
fn has_our_fields(definition: &Value) -> bool {
    let versions = list(definition, "/spec/versions").iter();
    versions
        .filter(|version| version["name"] == "v1alpha1")
        .any(|version| version.pointer("/schema/openAPIV3Schema/properties/spec/properties/scaling").is_some())
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Release<'a> {
    name: &'a str,
    namespace: &'a str,
}

fn release(definition: &Value) -> Option<Release<'_>> {
    Some(Release {
        name: annotation(definition, "meta.helm.sh/release-name")?,
        namespace: annotation(definition, "meta.helm.sh/release-namespace").unwrap_or_default(),
    })
}
