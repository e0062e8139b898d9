//! Names, labels and annotations: how a WorkerDeployment, its versions and its children find each other.
//!
//! All of them but those marked as our own are those of temporal-worker-controller v1.8, so that children that it
//! created are found and keep running.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::border::{self, Border};

/// Label on child Deployments, their selectors and pods: [`deployment_name_label`].
pub const DEPLOYMENT_NAME_LABEL: &str = "temporal.io/deployment-name";
/// Label on child Deployments, their selectors and pods: [`build_id_label`].
pub const BUILD_ID_LABEL: &str = "temporal.io/build-id";
/// Annotation on pod templates: [`connection_spec_hash`](crate::build_id::connection_spec_hash).
pub const CONNECTION_SPEC_HASH_ANNOTATION: &str = "temporal.io/connection-spec-hash";
/// Annotation on pod templates: [`template_hash`](crate::build_id::template_hash) of the user's template.
pub const POD_TEMPLATE_SPEC_HASH_ANNOTATION: &str = "temporal.io/pod-template-spec-hash";
/// Annotation on child Deployments of runtime fleets, our own: the image that the version was created with.
pub const RUNTIME_IMAGE_ANNOTATION: &str = "temporal.io/runtime-image";
/// Annotation on child Deployments of fleets with a sidecar, our own: the image that the sidecar of the version was created with.
pub const SIDECAR_IMAGE_ANNOTATION: &str = "temporal.io/sidecar-image";
/// Annotation on child Deployments of runtime fleets, our own:
/// [`RUNTIME_HASH_SCHEME`](crate::build_id::RUNTIME_HASH_SCHEME) of its Build ID.
pub const BUILD_ID_SCHEME_ANNOTATION: &str = "temporal.io/build-id-scheme";
/// Annotation on child Deployments of runtime fleets, our own: `true` when its pods know their uid, so that they can be
/// cordoned. It is there from the start or never: a variable that came later would replace the pods.
pub const CORDONABLE_ANNOTATION: &str = "temporal.io/cordonable";
/// Annotation on pods, our own: `true` while the operator orders the pod's Worker to take no new task.
pub const CORDONED_ANNOTATION: &str = "temporal.io/cordoned";
/// Annotation on child Deployments, our own: when it was first seen that nobody wants its version, which never had traffic.
pub const SUPERSEDED_AT_ANNOTATION: &str = "temporal.io/superseded-at";
/// Annotation on child Deployments, our own: who made them, where that was not this operator. Their pods keep what they were made
/// with.
pub const MADE_BY_ANNOTATION: &str = "temporal.io/made-by";
/// Annotation on a WorkerDeployment, our own: the identity that may be taken over as manager of its Worker Deployment, as it is.
pub const TAKE_OVER_ANNOTATION: &str = "temporal.io/take-over";
/// Name of the Secret, in the operator's own namespace, with the private key of its orders.
pub const ORDER_KEY_SECRET: &str = "temporal-worker-operator-order-key";
/// Annotation on a WorkerDeployment, our own: the serial number that tokens of the push endpoint must have
/// ([`push_token`](crate::push_token)). Raising it revokes those that were issued before.
pub const PUSH_TOKEN_SERIAL_ANNOTATION: &str = "temporal.io/push-token-serial";
/// Annotation on the Lease, our own: where the replica that holds it takes calls of the push endpoint, `address:port`.
pub const PUSH_ADDRESS_ANNOTATION: &str = "temporal.io/push-address";
/// Finalizer on a WorkerDeployment (the server is cleaned up first) and on a Connection that is in use.
pub const DELETE_PROTECTION_FINALIZER: &str = "temporal.io/delete-protection";
/// Finalizer on a TemporalWorkerDeployment or TemporalConnection that is not handed over yet.
pub const MIGRATION_GUARD_FINALIZER: &str = "temporal.io/migration-guard";
/// Label on a TemporalWorkerDeployment: `true` once its WorkerDeployment has all that it owned.
pub const MIGRATED_LABEL: &str = "temporal.io/migrated-to-wd";
/// Metadata key on a version in Temporal: which controller routes it.
pub const CONTROLLER_METADATA: &str = "temporal.io/controller";
/// Metadata key on a version in Temporal: the version of that controller.
pub const CONTROLLER_VERSION_METADATA: &str = "temporal.io/controller-version";

/// Name of the Lease that the leader holds. It is the peer's, so that the two never lead at the same time.
pub const LEASE_NAME: &str = "98e39f52.temporal.io";
/// Name of the Secret with the key of push tokens, in the operator's own namespace.
pub const PUSH_KEY_SECRET: &str = "temporal-worker-operator-push";
/// Field manager of everything that is applied.
pub const FIELD_MANAGER: &str = "temporal-worker-operator";
/// Field manager of the copies of WorkerResourceTemplates: the peer's, so that those that it made stand as they are.
pub const TEMPLATE_FIELD_MANAGER: &str = "temporal-worker-controller";
/// Field manager of writes to the `scale` subresource.
pub const SCALER_FIELD_MANAGER: &str = "temporal-worker-operator/scaler";

/// Longest name of a child Deployment: the suffixes of a ReplicaSet and a Pod still fit a DNS label of 63.
pub const MAX_DEPLOYMENT_NAME: usize = 47;
/// Longest name of an object (RFC 1123, a subdomain).
const MAX_OBJECT_NAME: usize = 253;
/// Longest label value.
const MAX_LABEL_VALUE: usize = 63;
/// Bytes that a shortened name keeps of each of its parts.
const PART: usize = 10;

/// The name of a Worker Deployment in Temporal: `<Kubernetes namespace>/<name>`.
#[must_use]
pub fn temporal_deployment_name(namespace: &str, name: &str) -> String {
    if !border::stands(Border::WorkerDeployment) {
        return name.to_owned();
    }
    format!("{namespace}/{name}")
}

/// Whether a text can be the name of an object. Clients put names into the paths of requests as they are: `../` in one would name
/// an object of another namespace to whoever makes paths short on the way.
#[must_use]
pub fn is_object_name(text: &str) -> bool {
    let may_stand = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|c| may_stand(*c))
            && bytes.last().is_some_and(|c| may_stand(*c))
            && bytes.iter().all(|c| may_stand(*c) || *c == b'-')
    };
    text.len() <= MAX_OBJECT_NAME && text.split('.').all(is_label)
}

/// The name of the Deployment that runs a version: `<name>-<Build ID>` as a DNS label.
///
/// A name above [`MAX_DEPLOYMENT_NAME`] bytes becomes ten bytes of the name, ten of the Build ID and ten characters of
/// a hash over both.
#[must_use]
pub fn child_deployment_name(name: &str, build_id: &str) -> String {
    let full = format!("{name}-{build_id}");
    if full.len() <= MAX_DEPLOYMENT_NAME {
        return dns_label(full.as_bytes());
    }
    let hash: String = Sha256::digest(&full).iter().take(PART / 2).map(|byte| format!("{byte:02x}")).collect();
    dns_label(&[head(name, PART), b"-", head(build_id, PART), b"-", hash.as_bytes()].concat())
}

/// The value of [`DEPLOYMENT_NAME_LABEL`].
#[must_use]
pub fn deployment_name_label(name: &str) -> String {
    let mut label = dns_label(name.as_bytes());
    label.truncate(MAX_LABEL_VALUE);
    label
}

/// The value of [`BUILD_ID_LABEL`]: the Build ID, cut to what a label holds.
#[must_use]
pub fn build_id_label(build_id: &str) -> String {
    build_id
        .chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= MAX_LABEL_VALUE).then_some(c)
        })
        .collect()
}

/// The labels by which a child Deployment selects its pods, and by which the operator finds both.
#[must_use]
pub fn selector_labels(name: &str, build_id: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (DEPLOYMENT_NAME_LABEL.to_owned(), deployment_name_label(name)),
        (BUILD_ID_LABEL.to_owned(), build_id_label(build_id)),
    ])
}

fn head(text: &str, bytes: usize) -> &[u8] {
    &text.as_bytes()[..text.len().min(bytes)]
}

/// Runs of what a DNS label can't hold become a dash, letters become lower-case.
pub(crate) fn dns_label(text: &[u8]) -> String {
    replace_runs(text, |c| c.is_ascii_alphanumeric() || c == b'-').to_ascii_lowercase()
}

/// Replaces each run of bytes that are not kept by one dash. Only ASCII may be kept.
pub(crate) fn replace_runs(text: &[u8], kept: impl Fn(u8) -> bool) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut in_run = false;
    for byte in text.iter().copied() {
        let keep = kept(byte);
        if keep {
            replaced.push(char::from(byte));
        } else if !in_run {
            replaced.push('-');
        }
        in_run = !keep;
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_both_parts_as_a_dns_label() {
        assert_eq!(child_deployment_name("orders", "v1.2.3-45d8"), "orders-v1-2-3-45d8");
        assert_eq!(child_deployment_name("orders", "V1__2-45d8"), "orders-v1-2-45d8");
    }

    #[test]
    fn a_long_name_is_cut_and_told_apart_by_a_hash() {
        let name = child_deployment_name("worker-name-0123456789-0123456789", "image-v2.1.0-0123456789-0123456789");
        assert_eq!(name, "worker-nam-image-v2-1-9c4f60cc97");
    }

    #[test]
    fn a_name_is_cut_only_above_47_bytes() {
        let name = "n".repeat(35);
        assert_eq!(child_deployment_name(&name, "v1.2.3-45d8").len(), 47);
        assert_eq!(child_deployment_name(&(name + "n"), "v1.2.3-45d8").len(), 32);
    }

    #[test]
    fn labels_fit_in_63_bytes() {
        assert_eq!(deployment_name_label("Orders.eu"), "orders-eu");
        assert_eq!(deployment_name_label(&"a".repeat(70)).len(), 63);
        assert_eq!(build_id_label(&"é".repeat(40)), "é".repeat(31));
        assert_eq!(selector_labels("orders", "v1")[BUILD_ID_LABEL], "v1");
    }

    #[test]
    fn a_path_is_no_name() {
        for good in ["a", "credentials", "a-1.b", "0"] {
            assert!(is_object_name(good), "{good}");
        }
        for bad in
            ["", ".", "..", "../a", "a/b", "a/../b", "a?b", "a#b", "%2e%2e", "A", "-a", "a-", "a..b", "a b", "\u{e9}"]
        {
            assert!(!is_object_name(bad), "{bad}");
        }
        assert!(is_object_name(&"a".repeat(253)) && !is_object_name(&"a".repeat(254)));
    }

    #[test]
    fn a_worker_deployment_in_temporal_has_its_namespace_in_front() {
        assert_eq!(temporal_deployment_name("prod", "orders"), "prod/orders");
    }
}
