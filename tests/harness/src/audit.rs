//! The API server's audit log: what is logged, and how tests read it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control_plane::options;
use crate::pki::write_private;

/// The account of an operator that the chart installed under its own name: what it reads is logged too.
pub const OPERATOR_ACCOUNT: &str = "system:serviceaccount:temporal-worker-operator:temporal-worker-operator";
/// Annotation of an event: what was decided by the sender's rights.
const DECISION: &str = "authorization.k8s.io/decision";
/// The API server, as a client of its own.
const API_SERVER: &str = "system:apiserver";
const READS: [&str; 3] = ["get", "list", "watch"];

/// One finished request to the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditEvent {
    /// When the server received the request.
    pub time: Timestamp,
    /// User name of the sender, such as `system:serviceaccount:<namespace>:<name>`.
    pub user: String,
    /// Client program as it calls itself.
    pub user_agent: String,
    /// `create`, `update`, `patch`, `delete`; for Secrets, and of [`OPERATOR_ACCOUNT`], also `get`, `list` and `watch`.
    pub verb: String,
    /// Group of the resource; empty for the core's.
    pub group: String,
    /// Resource, with its subresource: `deployments`, `deployments/scale`.
    pub resource: String,
    /// Namespace; empty for objects of the cluster.
    pub namespace: String,
    /// Name; empty for a list.
    pub name: String,
    /// HTTP status of the answer.
    pub code: u16,
    /// Whether the sender has no right to this. Another refusal with status 403 is that of an admission plugin.
    pub is_unauthorized: bool,
    /// Kinds of the owners in the request that are not to go before the object, where its contents are logged.
    pub blocking_owners: Vec<String>,
    /// Whether the request holds the object as a whole, and not what is to be changed of it.
    pub is_whole: bool,
    /// `spec.replicas` after the request, for Deployments and their scale; of a refused request, what it asked for.
    pub replicas: Option<i64>,
}

/// A fall of one Deployment's replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decrease {
    /// When the server received the request.
    pub time: Timestamp,
    /// Who sent it.
    pub user: String,
    /// Namespace of the Deployment.
    pub namespace: String,
    /// Name of the Deployment.
    pub name: String,
    /// Replicas before.
    pub from: i64,
    /// Replicas after.
    pub to: i64,
}

impl AuditEvent {
    /// Whether nothing was to be changed.
    #[must_use]
    pub fn is_read(&self) -> bool {
        READS.contains(&self.verb.as_str())
    }

    /// Whether something was to be changed, by somebody else than the API server itself, which has objects of its own to
    /// renew.
    #[must_use]
    pub fn is_write_from_outside(&self) -> bool {
        !self.is_read() && self.user != API_SERVER
    }
}

/// Reads the writes of a log, and who read Secrets, see [`read`].
///
/// # Errors
/// As [`read`].
pub fn read_writes(path: &Path) -> Result<Vec<AuditEvent>> {
    let mut events = read(path)?;
    events.retain(|event| !event.is_read() || event.resource == "secrets");
    Ok(events)
}

/// Reads all that a user asked for, see [`read`].
///
/// # Errors
/// As [`read`].
pub fn read_of(path: &Path, user: &str) -> Result<Vec<AuditEvent>> {
    let mut events = read(path)?;
    events.retain(|event| event.user == user);
    Ok(events)
}

/// Reads a log, oldest event first. A last line that is still being written is left out.
///
/// # Errors
/// The file can't be read, or a line of it is no event.
pub fn read(path: &Path) -> Result<Vec<AuditEvent>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.with_context(|| format!("read {}", path.display()))?,
    };
    parse(&text).with_context(|| format!("read {}", path.display()))
}

/// Parses the lines of a log, see [`read`].
///
/// # Errors
/// A whole line is no event.
pub fn parse(log: &str) -> Result<Vec<AuditEvent>> {
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let mut events = Vec::new();
    for line in whole.lines() {
        let raw: RawEvent = serde_json::from_str(line).with_context(|| format!("audit event {line}"))?;
        events.push(raw.into());
    }
    events.sort_by_key(|event: &AuditEvent| event.time);
    Ok(events)
}

/// Every fall of replicas of any Deployment in the events, by whoever and whatever means: `scale`, update, patch, apply.
#[must_use]
pub fn decreases(events: &[AuditEvent]) -> Vec<Decrease> {
    let mut last = BTreeMap::new();
    let mut found = Vec::new();
    for event in events.iter().filter(|event| event.code < 300 && !event.name.is_empty()) {
        let key = (event.namespace.clone(), event.name.clone());
        match (event.resource.as_str(), event.verb.as_str(), event.replicas) {
            ("deployments", "delete", _) => drop(last.remove(&key)),
            ("deployments" | "deployments/scale", _, Some(to)) => {
                let from = last.insert(key, to);
                if let Some(from) = from.filter(|from| *from > to) {
                    let (namespace, name) = (event.namespace.clone(), event.name.clone());
                    found.push(Decrease { time: event.time, user: event.user.clone(), namespace, name, from, to });
                }
            }
            _ => {}
        }
    }
    found
}

/// Options of the API server that switch the log on, and the policy file that they name.
pub(crate) fn server_arguments(directory: &Path, log: &Path) -> Result<Vec<OsString>> {
    let policy = directory.join("audit-policy.json");
    write_private(&policy, &serde_json::to_vec_pretty(&policy_document())?)?;
    Ok(options([
        ("audit-policy-file", policy.into()),
        ("audit-log-path", log.into()),
        // An event stands in the file before the client has its answer.
        ("audit-log-mode", "blocking-strict".into()),
        ("audit-log-maxsize", "2000".into()),
    ]))
}

/// Writes of everybody, with contents where replicas are in them; who reads Secrets; and all that the operator's own account does,
/// with the contents of what has owners.
fn policy_document() -> Value {
    let writes = ["create", "update", "patch", "delete", "deletecollection"];
    let owned = [
        json!({"group": "temporal.io", "resources": ["workerresourcetemplates"]}),
        json!({"group": "autoscaling", "resources": ["horizontalpodautoscalers"]}),
    ];
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "omitManagedFields": true,
        "rules": [
            {"level": "None", "nonResourceURLs": ["*"]},
            {"level": "RequestResponse", "verbs": writes,
             "resources": [{"group": "apps", "resources": ["deployments", "deployments/scale"]}]},
            {"level": "Request", "users": [OPERATOR_ACCOUNT], "verbs": writes, "resources": owned},
            {"level": "Metadata", "users": [OPERATOR_ACCOUNT]},
            {"level": "Metadata", "verbs": READS, "resources": [{"group": "", "resources": ["secrets"]}]},
            {"level": "None", "verbs": READS},
            {"level": "Metadata"},
        ],
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEvent {
    request_received_timestamp: Timestamp,
    verb: String,
    #[serde(default)]
    user_agent: String,
    user: RawUser,
    #[serde(default)]
    object_ref: RawObject,
    #[serde(default)]
    response_status: RawStatus,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    request_object: Option<Value>,
    response_object: Option<Value>,
}

#[derive(Deserialize)]
struct RawUser {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawObject {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    code: u16,
}

impl From<RawEvent> for AuditEvent {
    fn from(raw: RawEvent) -> Self {
        let replicas = [&raw.response_object, &raw.request_object].into_iter().flatten().find_map(replicas_of);
        let object = raw.object_ref;
        let subresource =
            if object.subresource.is_empty() { String::new() } else { format!("/{}", object.subresource) };
        let named_in_body = || raw.response_object.as_ref()?.pointer("/metadata/name")?.as_str().map(str::to_owned);
        let name = if object.name.is_empty() { named_in_body().unwrap_or_default() } else { object.name };
        Self {
            time: raw.request_received_timestamp,
            user: raw.user.username,
            user_agent: raw.user_agent,
            verb: raw.verb,
            group: object.api_group,
            resource: object.resource + &subresource,
            namespace: object.namespace,
            name,
            code: raw.response_status.code,
            is_unauthorized: raw.annotations.get(DECISION).is_some_and(|decision| decision == "forbid"),
            blocking_owners: raw.request_object.as_ref().map(blocking_owners).unwrap_or_default(),
            is_whole: raw.request_object.as_ref().is_some_and(|request| request["kind"].is_string()),
            replicas,
        }
    }
}

/// Kinds of the owners that wait for an object.
fn blocking_owners(object: &Value) -> Vec<String> {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let blocking = owners.filter(|owner| owner["blockOwnerDeletion"] == true);
    blocking.filter_map(|owner| owner["kind"].as_str()).map(str::to_owned).collect()
}

/// Replicas in an object, or in a JSON patch.
fn replicas_of(object: &Value) -> Option<i64> {
    let in_object = object.pointer("/spec/replicas").and_then(Value::as_i64);
    let in_patch = || {
        let steps = object.as_array()?;
        steps.iter().find(|step| step["path"] == "/spec/replicas").and_then(|step| step["value"].as_i64())
    };
    // A scale to zero is answered without the field.
    let in_scale = || (object["kind"] == "Scale" && object["spec"].is_object()).then_some(0);
    in_object.or_else(in_patch).or_else(in_scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: u32, body: Value) -> String {
        let mut event = json!({
            "requestReceivedTimestamp": format!("2026-01-01T00:00:{second:02}.000000Z"),
            "verb": "patch",
            "user": {"username": "operator"},
            "objectRef": {"resource": "deployments", "subresource": "scale", "namespace": "n", "name": "d"},
            "responseStatus": {"code": 200},
        });
        event.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        format!("{event}\n")
    }

    #[test]
    fn replicas_are_read_from_the_answer_else_from_the_request_of_any_patch_type() {
        for (body, replicas) in [
            (
                json!({"responseObject": {"kind": "Scale", "spec": {"replicas": 4}}, "requestObject": {"spec": {"replicas": 9}}}),
                Some(4),
            ),
            (json!({"responseObject": {"kind": "Scale", "spec": {}}}), Some(0)),
            (json!({"requestObject": {"spec": {"replicas": 2}}}), Some(2)),
            (json!({"requestObject": [{"op": "replace", "path": "/spec/replicas", "value": 3}]}), Some(3)),
            (json!({"requestObject": {"metadata": {}}}), None),
        ] {
            assert_eq!(parse(&line(0, body)).unwrap()[0].replicas, replicas);
        }
    }

    #[test]
    fn neither_a_read_nor_what_the_api_server_renews_is_a_write_from_outside() {
        for (body, is) in
            [(json!({}), true), (json!({"verb": "get"}), false), (json!({"user": {"username": API_SERVER}}), false)]
        {
            assert_eq!(parse(&line(0, body)).unwrap()[0].is_write_from_outside(), is);
        }
    }

    #[test]
    fn a_fall_is_found_in_order_of_time_and_a_refused_request_is_none() {
        let replicas = |count: i64| json!({"requestObject": {"spec": {"replicas": count}}});
        let mut refused = replicas(0);
        refused["responseStatus"] = json!({"code": 403});
        let log = line(3, replicas(2)) + &line(1, replicas(1)) + &line(2, replicas(5)) + &line(4, refused);
        let falls = decreases(&parse(&log).unwrap());
        assert_eq!(falls.iter().map(|fall| (fall.from, fall.to)).collect::<Vec<_>>(), [(5, 2)]);
        assert_eq!(falls[0].user, "operator");
    }

    #[test]
    fn a_refusal_for_want_of_a_right_and_owners_that_wait_are_told_from_others() {
        let refused = |decision: &str| json!({"responseStatus": {"code": 403}, "annotations": {DECISION: decision}});
        for (body, expected) in [(refused("forbid"), true), (refused("allow"), false), (json!({}), false)] {
            assert_eq!(parse(&line(0, body)).unwrap()[0].is_unauthorized, expected);
        }
        let owners = json!([{"kind": "A", "blockOwnerDeletion": true}, {"kind": "B"}]);
        let body =
            |kind: Option<&str>| json!({"requestObject": {"kind": kind, "metadata": {"ownerReferences": owners}}});
        for (kind, is_whole) in [(Some("Deployment"), true), (None, false)] {
            let event = &parse(&line(0, body(kind))).unwrap()[0];
            assert_eq!((event.blocking_owners.as_slice(), event.is_whole), (["A".to_owned()].as_slice(), is_whole));
        }
    }

    #[test]
    fn a_line_that_is_still_being_written_is_left_out_and_garbage_is_an_error() {
        let whole = line(1, json!({}));
        assert_eq!(parse(&(whole.clone() + r#"{"verb": "pa"#)).unwrap().len(), 1);
        assert!(parse("garbage\n").is_err());
    }
}
