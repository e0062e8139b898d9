//! Events. Each is an object of its own: the library's recorder merges those that differ in their numbers only, and
//! keeps the first one's text.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use operator_core::events::{EventData, Severity};

use super::client::bounded;

/// Longest note that the API server takes, in bytes.
const MAX_NOTE: usize = 1024;
/// Name of the operator in its events.
const REPORTER: &str = "temporal-worker-operator";

/// Publishes events on WorkerDeployments.
pub struct Events {
    client: Client,
    instance: String,
}

/// The object that events are about.
#[derive(Clone, Debug)]
pub struct Regarding<'a> {
    /// Kubernetes namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// UID.
    pub uid: &'a str,
}

impl Events {
    /// A publisher for one replica of the operator.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance }
    }

    /// Publishes. What can't be published is logged: an event never fails a reconcile.
    pub async fn publish(&self, about: &Regarding<'_>, event: &EventData) {
        let api: Api<Event> = Api::namespaced(self.client.clone(), about.namespace);
        if let Err(error) = bounded(api.create(&PostParams::default(), &self.object(about, event))).await {
            tracing::warn!(namespace = about.namespace, name = about.name, %error, "event not published");
        }
    }

    fn object(&self, about: &Regarding<'_>, event: &EventData) -> Event {
        Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", about.name)),
                namespace: Some(about.namespace.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(event.action.to_owned()),
            reason: Some(event.reason.to_owned()),
            note: Some(cut(&event.note)),
            type_: Some(match event.severity {
                Severity::Normal => "Normal".into(),
                Severity::Warning => "Warning".into(),
            }),
            event_time: Some(MicroTime(Timestamp::now())),
            reporting_controller: Some(REPORTER.into()),
            reporting_instance: Some(self.instance.clone()),
            regarding: Some(k8s_openapi::api::core::v1::ObjectReference {
                api_version: Some(operator_core::api::API_VERSION.into()),
                kind: Some("WorkerDeployment".into()),
                name: Some(about.name.to_owned()),
                namespace: Some(about.namespace.to_owned()),
                uid: Some(about.uid.to_owned()),
                ..Default::default()
            }),
            ..Event::default()
        }
    }
}

fn cut(note: &str) -> String {
    let mut end = note.len().min(MAX_NOTE);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note[..end].to_owned()
}
