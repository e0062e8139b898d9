//! Whose the fields are of objects that temporal-worker-controller wrote (`metadata.managedFields`).
//!
//! It writes by updates, under the name of its binary. A server-side apply takes a field away only if the same manager applied it
//! before: so whatever an update set, and nobody applies, would stay for ever. Here its entries become ours, as if we had applied
//! what it wrote. No value changes by that.
//!
//! `spec.replicas` never becomes part of an apply: what an apply once held, a later one without it resets. That field becomes one
//! that the `scale` subresource wrote.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use serde_json::{Value, json};

use crate::api::API_VERSION;
use crate::names::{FIELD_MANAGER, SCALER_FIELD_MANAGER};

/// Names that temporal-worker-controller has as a field manager: that of its program, in the image and as it is built by hand.
pub const PEER_MANAGERS: [&str; 2] = ["temporal-worker-controller", ANY_BINARY];
/// Many programs are called so: it is the peer's where it wrote what only the peer writes.
const ANY_BINARY: &str = "manager";

/// The entries of a child Deployment, with the peer's become ours; none when it has none.
#[must_use]
pub fn of_child(meta: &ObjectMeta) -> Option<Vec<ManagedFieldsEntry>> {
    // The selector is never changed: who has it made the Deployment.
    let (peers, mut kept) = split(meta, "", "/f:spec/f:selector")?;
    let (mut applied, mut scaled) = (Sum::default(), Sum::default());
    for entry in peers {
        let mut fields = fields(&entry);
        if let Some(replicas) = take_replicas(&mut fields) {
            scaled.add(replicas, &entry);
        }
        if subresource(&entry).is_empty() {
            remove(&mut fields, "f:status");
            applied.add(fields, &entry);
        }
    }
    applied.join(&mut kept, (FIELD_MANAGER, "Apply", ""), "apps/v1");
    scaled.join(&mut kept, (SCALER_FIELD_MANAGER, "Update", "scale"), "apps/v1");
    Some(kept)
}

/// The entries of a WorkerDeployment, with the peer's become ours; none when it has none. What it had of the spec becomes
/// nobody's, so that it is in no user's way: a full update made it the owner of fields that it had only read.
#[must_use]
pub fn of_fleet(meta: &ObjectMeta) -> Option<Vec<ManagedFieldsEntry>> {
    let (peers, mut kept) = split(meta, "status", "/f:status")?;
    let (mut status, mut finalizers) = (Sum::default(), Sum::default());
    for entry in peers {
        let fields = fields(&entry);
        if subresource(&entry) == "status" {
            status.add(fields, &entry);
        } else if let Some(own) = fields.pointer("/f:metadata/f:finalizers") {
            finalizers.add(json!({"f:metadata": {"f:finalizers": own}}), &entry);
        }
    }
    status.join(&mut kept, (FIELD_MANAGER, "Apply", "status"), API_VERSION);
    finalizers.join(&mut kept, (FIELD_MANAGER, "Update", ""), API_VERSION);
    Some(kept)
}

/// The peer's entries and the others. [`ANY_BINARY`] is the peer's where it owns the field `proof` of this subresource.
fn split(meta: &ObjectMeta, of: &str, proof: &str) -> Option<(Vec<ManagedFieldsEntry>, Vec<ManagedFieldsEntry>)> {
    let entries = meta.managed_fields.as_deref()?;
    let proves = |entry: &ManagedFieldsEntry| {
        is_update(entry, ANY_BINARY) && subresource(entry) == of && fields(entry).pointer(proof).is_some()
    };
    let any_is_peer = entries.iter().any(proves);
    let peers = PEER_MANAGERS.into_iter().filter(|name| *name != ANY_BINARY || any_is_peer);
    let peers: Vec<_> = peers.collect();
    let is_peers = |entry: &ManagedFieldsEntry| peers.iter().any(|name| is_update(entry, name));
    let (taken, kept): (Vec<_>, Vec<_>) = entries.iter().cloned().partition(is_peers);
    (!taken.is_empty()).then_some((taken, kept))
}

fn is_update(entry: &ManagedFieldsEntry, manager: &str) -> bool {
    entry.manager.as_deref() == Some(manager) && entry.operation.as_deref() == Some("Update")
}

fn subresource(entry: &ManagedFieldsEntry) -> &str {
    entry.subresource.as_deref().unwrap_or_default()
}

fn fields(entry: &ManagedFieldsEntry) -> Value {
    entry.fields_v1.as_ref().map(|fields| fields.0.clone()).unwrap_or_default()
}

fn remove(fields: &mut Value, key: &str) -> Option<Value> {
    fields.as_object_mut()?.remove(key)
}

fn take_replicas(fields: &mut Value) -> Option<Value> {
    let replicas = remove(fields.get_mut("f:spec")?, "f:replicas")?;
    Some(json!({"f:spec": {"f:replicas": replicas}}))
}

/// Fields of several entries.
#[derive(Default)]
struct Sum {
    fields: Option<Value>,
    like: Option<ManagedFieldsEntry>,
}

impl Sum {
    fn add(&mut self, fields: Value, of: &ManagedFieldsEntry) {
        match &mut self.fields {
            Some(own) => unite(own, fields),
            None => self.fields = Some(fields),
        }
        self.like = Some(of.clone());
    }

    /// Adds them to the entry of a manager, or makes one.
    fn join(self, to: &mut Vec<ManagedFieldsEntry>, (manager, operation, of): (&str, &str, &str), version: &str) {
        let Some(fields) = self.fields else { return };
        let is_own = |entry: &&mut ManagedFieldsEntry| {
            let same = entry.manager.as_deref() == Some(manager) && entry.operation.as_deref() == Some(operation);
            same && subresource(entry) == of && entry.api_version.as_deref() == Some(version)
        };
        if let Some(own) = to.iter_mut().find(is_own) {
            unite(&mut own.fields_v1.get_or_insert_with(|| FieldsV1(json!({}))).0, fields);
            return;
        }
        to.push(ManagedFieldsEntry {
            api_version: Some(version.to_owned()),
            fields_type: Some("FieldsV1".to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            manager: Some(manager.to_owned()),
            operation: Some(operation.to_owned()),
            subresource: (!of.is_empty()).then(|| of.to_owned()),
            time: self.like.and_then(|entry| entry.time),
        });
    }
}

/// Adds fields to others. A field is itself owned where nothing, or `.`, is below it.
fn unite(into: &mut Value, from: Value) {
    let (Value::Object(into), Value::Object(from)) = (into, from) else { return };
    let is_leaf = (into.is_empty(), from.is_empty());
    if is_leaf == (true, false) || is_leaf == (false, true) {
        into.insert(".".to_owned(), json!({}));
    }
    for (key, below) in from {
        match into.get_mut(&key) {
            Some(own) => unite(own, below),
            None => _ = into.insert(key, below),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(entries: Value) -> ObjectMeta {
        serde_json::from_value(json!({"managedFields": entries})).unwrap()
    }

    fn entry(manager: &str, operation: &str, subresource: Option<&str>, fields: Value) -> Value {
        let version = "apps/v1";
        let mut entry = json!({"apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields, "manager": manager,
            "operation": operation});
        if let Some(subresource) = subresource {
            entry["subresource"] = json!(subresource);
        }
        entry
    }

    /// Each entry as `manager operation subresource` with its fields.
    fn told(entries: &[ManagedFieldsEntry]) -> Vec<(String, Value)> {
        let name = |entry: &ManagedFieldsEntry| {
            let word = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{} {} {}", word(&entry.manager), word(&entry.operation), subresource(entry))
        };
        entries.iter().map(|entry| (name(entry).trim_end().to_owned(), fields(entry))).collect()
    }

    #[test]
    fn what_the_peer_made_of_a_deployment_becomes_applied_but_for_its_replicas() {
        for peer in PEER_MANAGERS {
            let made =
                json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {"f:spec": {"f:volumes": {}}}}});
            let later =
                json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {}}}}, "f:status": {"f:replicas": {}}});
            let others = entry("kubectl", "Update", None, json!({"f:metadata": {}}));
            let all = json!([
                entry(peer, "Update", None, made),
                others,
                entry(peer, "Update", None, later),
                entry(peer, "Update", Some("scale"), json!({"f:spec": {"f:replicas": {}}})),
            ]);
            let template = json!({"f:spec": {"f:volumes": {}, "f:containers": {}}});
            let expected = [
                ("kubectl Update".to_owned(), json!({"f:metadata": {}})),
                (
                    "temporal-worker-operator Apply".to_owned(),
                    json!({"f:spec": {"f:selector": {}, "f:template": template}}),
                ),
                ("temporal-worker-operator/scaler Update scale".to_owned(), json!({"f:spec": {"f:replicas": {}}})),
            ];
            assert_eq!(told(&of_child(&meta(all)).unwrap()), expected);
        }
    }

    #[test]
    fn replicas_that_somebody_else_wrote_last_stay_theirs() {
        let all = json!([
            entry("temporal-worker-controller", "Update", None, json!({"f:spec": {"f:selector": {}}})),
            entry("hpa", "Update", Some("scale"), json!({"f:spec": {"f:replicas": {}}})),
        ]);
        let entries = told(&of_child(&meta(all)).unwrap());
        assert_eq!(entries[0].0, "hpa Update scale");
        assert!(entries.iter().all(|(name, _)| !name.contains("scaler")), "{entries:?}");
    }

    #[test]
    fn another_program_of_the_peers_name_keeps_what_it_wrote() {
        let other = json!([entry("manager", "Update", None, json!({"f:metadata": {"f:annotations": {"f:a": {}}}}))]);
        assert_eq!(of_child(&meta(other)), None);
        assert_eq!(of_child(&meta(json!([]))), None);
        let applied = json!([entry("temporal-worker-controller", "Apply", None, json!({"f:spec": {}}))]);
        assert_eq!(of_child(&meta(applied)), None, "what it applied can be applied by it alone");
    }

    #[test]
    fn what_was_applied_before_is_added_to() {
        let all = json!([
            entry(
                "temporal-worker-controller",
                "Update",
                None,
                json!({"f:spec": {"f:template": {}, "f:selector": {}}})
            ),
            entry(FIELD_MANAGER, "Apply", None, json!({"f:spec": {"f:template": {"f:spec": {}}}})),
        ]);
        let entries = told(&of_child(&meta(all)).unwrap());
        let template = json!({".": {}, "f:spec": {}});
        assert_eq!(entries[0].1, json!({"f:spec": {"f:template": template, "f:selector": {}}}));
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn a_fleets_status_becomes_applied_and_its_spec_nobodys() {
        let of = |manager: &str, subresource, fields| {
            let mut entry = entry(manager, "Update", subresource, fields);
            entry["apiVersion"] = json!(API_VERSION);
            entry
        };
        let kept = json!({"f:finalizers": {".": {}, "v:\"temporal.io/delete-protection\"": {}}});
        let all = json!([
            of("manager", None, json!({"f:metadata": kept, "f:spec": {"f:sunset": {"f:scaledownDelay": {}}}})),
            of("manager", Some("status"), json!({"f:status": {"f:targetVersion": {}}})),
            of("helm", None, json!({"f:spec": {}})),
        ]);
        let expected = [
            ("helm Update".to_owned(), json!({"f:spec": {}})),
            ("temporal-worker-operator Apply status".to_owned(), json!({"f:status": {"f:targetVersion": {}}})),
            ("temporal-worker-operator Update".to_owned(), json!({"f:metadata": kept})),
        ];
        assert_eq!(told(&of_fleet(&meta(all)).unwrap()), expected);
        let without_status = json!([of("manager", None, json!({"f:spec": {}}))]);
        assert_eq!(of_fleet(&meta(without_status)), None, "some other program's");
    }
}
