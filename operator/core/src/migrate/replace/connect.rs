//! Where the Workers work, and how they prove who they are.

use serde_json::{Value, json};

use super::super::json::{find, list, name, namespace, text};
use super::keda::{Parameter, Triggers, parameter};
use super::workload::{self, Variable, mounted_secret};
use super::{Findings, Scaler, Source, Wish};
use crate::api::API_VERSION;
use crate::connection::{Auth, ConnectionFacts, SecretKey};

/// Default of a trigger's `namespace`.
const KEDA_NAMESPACE: &str = "default";

/// The Temporal side of the fleet.
pub(super) struct Server {
    /// Temporal namespace.
    pub namespace: String,
    /// Spec of the Connection.
    spec: Value,
    /// The Connection that exists and is asked for.
    asked: Option<String>,
}

/// Finds out where the Workers work: what is asked for, else what their container says, else what KEDA does.
pub(super) fn server(source: &Source, wish: &Wish, triggers: &Triggers<'_>, found: &mut Findings) -> Server {
    let container = triggers.container;
    let namespace = temporal_namespace(wish, triggers, found);
    if let Some(asked) = &wish.connection {
        let existing = find(&source.connections, namespace_of(source), asked);
        if existing.is_none() {
            found.wrong.push(format!(
                "Connection {asked} does not exist in namespace {}: without --connection one is printed.",
                namespace_of(source)
            ));
        }
        let spec = existing.map_or(Value::Null, |existing| existing["spec"].clone());
        return Server { namespace, spec, asked: Some(asked.clone()) };
    }
    let mut spec = json!({"hostPort": address(wish, triggers, found)});
    let server_name = triggers.temporal.iter().find_map(|trigger| text(trigger, "/metadata/tlsServerName"));
    let own_name = container.map(|container| workload::variable(container, "TEMPORAL_TLS_SERVER_NAME"));
    match (server_name, own_name) {
        (_, Some(Variable::Is(name))) | (Some(name), _) => spec["tls"] = json!({"serverName": name}),
        _ => {}
    }
    credentials(source, triggers, &mut spec, found);
    Server { namespace, spec, asked: None }
}

fn namespace_of(source: &Source) -> &str {
    namespace(&source.deployment)
}

fn temporal_namespace(wish: &Wish, triggers: &Triggers<'_>, found: &mut Findings) -> String {
    if let Some(asked) = &wish.temporal_namespace {
        return asked.clone();
    }
    let mut named: Vec<String> = Vec::new();
    for trigger in &triggers.temporal {
        match parameter(trigger, triggers.container, "namespace") {
            Parameter::Is(namespace) => named.push(namespace),
            Parameter::Absent => named.push(KEDA_NAMESPACE.into()),
            Parameter::Hidden(_) => {}
        }
    }
    if let Some(Variable::Is(own)) = triggers.container.map(|it| workload::variable(it, "TEMPORAL_NAMESPACE")) {
        named.push(own.to_owned());
    }
    named.sort();
    named.dedup();
    match named.as_slice() {
        [one] => one.clone(),
        [] => {
            found.wrong.push(
                "The Temporal namespace of these Workers is not written out in TEMPORAL_NAMESPACE: say it with \
                 --temporal-namespace."
                    .into(),
            );
            String::new()
        }
        several => {
            found.wrong.push(format!(
                "The triggers and the container's TEMPORAL_NAMESPACE name several Temporal namespaces ({}), and a fleet works in \
                 one: say which with --temporal-namespace.",
                several.join(", ")
            ));
            String::new()
        }
    }
}

fn address(wish: &Wish, triggers: &Triggers<'_>, found: &mut Findings) -> String {
    if let Some(asked) = &wish.address {
        return checked(asked, found);
    }
    let own = triggers.container.map(|container| workload::variable(container, "TEMPORAL_ADDRESS"));
    let endpoint =
        triggers.temporal.iter().map(|it| parameter(it, triggers.container, "endpoint")).find_map(|it| match it {
            Parameter::Is(endpoint) => Some(endpoint),
            Parameter::Absent | Parameter::Hidden(_) => None,
        });
    match (own, endpoint) {
        (Some(Variable::Is(own)), Some(endpoint)) if own != endpoint => {
            found.notes.push(format!(
                "KEDA asks {endpoint}, and the Workers have TEMPORAL_ADDRESS {own}: the Connection has the Workers'. The operator \
                 has to reach it too."
            ));
            checked(own, found)
        }
        (Some(Variable::Is(own)), _) => checked(own, found),
        (_, Some(endpoint)) => checked(&endpoint, found),
        _ => {
            found.wrong.push(
                "The address of the Temporal server is not written out in TEMPORAL_ADDRESS of the container: say it with --address \
                 HOST:PORT, or name a Connection that exists with --connection."
                    .into(),
            );
            String::new()
        }
    }
}

/// An address as a Connection can hold it.
fn checked(address: &str, found: &mut Findings) -> String {
    let bare = address.trim_start_matches("dns:///").trim_start_matches("https://").trim_start_matches("http://");
    let valid = bare.rsplit_once(':').is_some_and(|(host, port)| {
        let host_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        !host.is_empty() && host.chars().all(host_char) && port.parse::<u16>().is_ok()
    });
    if !valid {
        found
            .wrong
            .push(format!("{address:?} is no HOST:PORT: say the address of the Temporal server with --address."));
    }
    bare.to_owned()
}

/// By what KEDA proves who it is, else by what the container has.
fn credentials(source: &Source, triggers: &Triggers<'_>, spec: &mut Value, found: &mut Findings) {
    if let Scaler::ScaledObject(_) = &source.scaler
        && triggers.temporal.iter().any(|trigger| trigger["authenticationRef"].is_object())
    {
        return of_authentication(source, triggers, spec, found);
    }
    let Some(container) = triggers.container else { return };
    let from_env = triggers.temporal.iter().find_map(|trigger| text(trigger, "/metadata/apiKeyFromEnv"));
    let key_variable = from_env.unwrap_or("TEMPORAL_API_KEY");
    match workload::variable(container, key_variable) {
        Variable::Secret { name, key } => spec["apiKeySecretRef"] = json!({"name": name, "key": key}),
        Variable::Absent => of_files(source, container, spec, found),
        Variable::Is(_) | Variable::Elsewhere => found.notes.push(format!(
            "The API key in {key_variable} is no reference to a Secret, and is not taken over: put it into a Secret of type Opaque \
             and name that in the Connection's apiKeySecretRef."
        )),
    }
}

fn of_files(source: &Source, container: &Value, spec: &mut Value, found: &mut Findings) {
    let Variable::Is(path) = workload::variable(container, "TEMPORAL_TLS_CLIENT_CERT_PATH") else { return };
    match mounted_secret(&source.deployment, container, path) {
        Some((secret, "tls.crt")) => spec["mutualTLSSecretRef"] = json!({"name": secret}),
        _ => found.notes.push(format!(
            "The client certificate at {path} is not taken over: a Connection's mutualTLSSecretRef names a Secret with tls.crt and \
             tls.key."
        )),
    }
}

fn of_authentication(source: &Source, triggers: &Triggers<'_>, spec: &mut Value, found: &mut Findings) {
    let Some(reference) = triggers.temporal.iter().map(|it| &it["authenticationRef"]).find(|it| it.is_object()) else {
        return;
    };
    let named = reference["name"].as_str().unwrap_or_default();
    let kind = reference["kind"].as_str().unwrap_or("TriggerAuthentication");
    let near = kind == "TriggerAuthentication";
    let Some(authentication) = find(&source.authentications, namespace_of(source), named).filter(|_| near) else {
        found.notes.push(format!(
            "Credentials of {kind} {named} are not taken over: it is not one of this namespace that can be read. Name Secrets of \
             this namespace in the Connection's mutualTLSSecretRef or apiKeySecretRef."
        ));
        return;
    };
    let secret = |parameter: &str| {
        let entries = list(authentication, "/spec/secretTargetRef").iter();
        let mut own = entries.filter(|entry| entry["parameter"] == parameter);
        own.find_map(|entry| Some((text(entry, "/name")?, text(entry, "/key")?)))
    };
    let mut taken = true;
    match (secret("apiKey"), secret("cert"), secret("key")) {
        (Some((name, key)), ..) => spec["apiKeySecretRef"] = json!({"name": name, "key": key}),
        (None, Some((cert, "tls.crt")), Some((key, "tls.key"))) if cert == key => {
            spec["mutualTLSSecretRef"] = json!({"name": cert});
        }
        _ => taken = false,
    }
    match secret("ca") {
        Some((name, "ca.crt")) => spec["tls"]["caCertSecretRef"] = json!({"name": name}),
        Some(_) => taken = false,
        None => {}
    }
    if !taken || secret("keyPassword").is_some() {
        found.notes.push(format!(
            "Not all credentials of {kind} {named} are taken over: a Connection takes an API key of any key of an Opaque Secret, a \
             certificate as tls.crt and tls.key of one Secret, without a password, and an authority as ca.crt."
        ));
    }
}

impl Server {
    /// Variables that the operator gives to every container of the pods, in place of their own.
    pub(super) fn variables(&self) -> Vec<&'static str> {
        let mut given = vec!["TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_DEPLOYMENT_NAME"];
        if self.spec["apiKeySecretRef"].is_object() {
            given.push("TEMPORAL_API_KEY");
        }
        if self.spec["mutualTLSSecretRef"].is_object() {
            given.extend(["TEMPORAL_TLS", "TEMPORAL_TLS_CLIENT_KEY_PATH", "TEMPORAL_TLS_CLIENT_CERT_PATH"]);
        }
        if text(&self.spec, "/tls/serverName").is_some() {
            given.push("TEMPORAL_TLS_SERVER_NAME");
        }
        if text(&self.spec, "/tls/caCertSecretRef/name").is_some() {
            given.push("TEMPORAL_TLS_SERVER_CA_CERT_PATH");
        }
        given
    }

    /// A Connection of the namespace that says the same, or that is asked for.
    fn existing<'a>(&'a self, source: &'a Source) -> Option<&'a str> {
        let same = || source.connections.iter().find(|connection| connection["spec"] == self.spec).map(name);
        self.asked.as_deref().or_else(same)
    }

    /// Name of the Connection that is used.
    pub(super) fn connection_name(&self, source: &Source, fleet: &str) -> String {
        const USUAL: &str = "temporal";
        let taken = |wanted: &str| find(&source.connections, namespace_of(source), wanted).is_some();
        match self.existing(source) {
            Some(existing) => existing.to_owned(),
            None if taken(USUAL) => fleet.replace('.', "-"),
            None => USUAL.to_owned(),
        }
    }

    /// The Connection to create, if none is there that says the same.
    pub(super) fn manifest(&self, source: &Source, fleet: &str) -> Option<Value> {
        if self.existing(source).is_some() {
            return None;
        }
        let metadata = json!({"name": self.connection_name(source, fleet), "namespace": namespace_of(source)});
        Some(json!({"apiVersion": API_VERSION, "kind": "Connection", "metadata": metadata, "spec": self.spec}))
    }

    /// What a fleet needs to know of it.
    pub(super) fn facts(&self) -> ConnectionFacts {
        let own = |pointer: &str| text(&self.spec, pointer).map(ToOwned::to_owned);
        let key = own("/apiKeySecretRef/name").zip(own("/apiKeySecretRef/key"));
        let auth = match (own("/mutualTLSSecretRef/name"), key) {
            (Some(secret), _) => Auth::MutualTls { secret, has_ca: false },
            (None, Some((name, key))) => Auth::ApiKey(SecretKey { name, key }),
            (None, None) => Auth::None,
        };
        ConnectionFacts {
            host_port: own("/hostPort").unwrap_or_default(),
            server_name: own("/tls/serverName"),
            auth,
            ca_cert: own("/tls/caCertSecretRef/name").map(|name| SecretKey { name, key: "ca.crt".into() }),
        }
    }
}
