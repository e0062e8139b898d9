//! `Connection`: how to reach a Temporal server, and with which credentials.

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// How Workers and the operator reach a Temporal server.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "temporal.io",
    version = "v1alpha1",
    kind = "Connection",
    plural = "connections",
    namespaced,
    status = "ConnectionStatus",
    derive = "PartialEq",
    doc = "How to reach a Temporal server, and with which credentials.",
    printcolumn(
        name = "Host",
        type_ = "string",
        json_path = ".spec.hostPort",
        description = "Temporal server endpoint"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Age"),
    validation = Rule::new("has(self.spec)").message("spec is required")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.mutualTLSSecretRef) && has(self.apiKeySecretRef))")
        .message("Only one of mutualTLSSecretRef or apiKeySecretRef may be set")
)]
pub struct ConnectionSpec {
    /// Address of the Temporal frontend, `host:port`.
    #[schemars(extend("pattern" = "^[a-zA-Z0-9.-]+:[0-9]+$"))]
    pub host_port: String,
    /// Transport security beyond what the credentials imply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Secret of type kubernetes.io/tls or Opaque with tls.crt, tls.key and optionally ca.crt.
    #[serde(default, rename = "mutualTLSSecretRef", skip_serializing_if = "Option::is_none")]
    pub mutual_tls_secret_ref: Option<SecretReference>,
    /// Key of an Opaque Secret that holds an API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<KeySelector>,
}

/// Empty: nothing is reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionStatus {}

/// Transport security of a [`ConnectionSpec`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsConfig {
    /// Name that the server's certificate is verified against; set alone, it turns TLS on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[a-zA-Z0-9.-]+$"))]
    pub server_name: Option<String>,
    /// Secret whose ca.crt signs the server's certificate; for the operator and the pods.
    #[serde(default, rename = "caCertSecretRef", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ca_cert_secret")]
    pub ca_cert_secret_ref: Option<SecretReference>,
}

/// A Secret of the same namespace as the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(extend("pattern" = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// The contract's references have no limit; this one is ours.
fn ca_cert_secret(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = SecretReference::json_schema(generator);
    if let Some(name) = schema.pointer_mut("/properties/name") {
        name["maxLength"] = 253.into();
    }
    schema
}

/// A key of a Secret or ConfigMap of the same namespace as the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct KeySelector {
    /// Name of the object.
    #[serde(default)]
    pub name: String,
    /// Key in its data.
    pub key: String,
    /// Whether the object or key may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}
