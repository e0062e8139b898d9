//! Connections and Secrets that are missing or can't be used.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use e2e::wait::within;
use e2e::{Ground, HostBed};
use serde_json::{Value, json};

use super::{is_blocked, orders, runs};

fn connection(spec: Value) -> Value {
    json!({"apiVersion": "temporal.io/v1alpha1", "kind": "Connection", "metadata": {"name": "temporal"}, "spec": spec})
}

fn secret(kind: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"}, "type": kind, "stringData": data})
}

/// A client certificate of another time, and its key.
fn expired() -> Result<Value> {
    let key = rcgen::KeyPair::generate()?;
    let mut certificate = rcgen::CertificateParams::new(["client".to_owned()])?;
    certificate.not_before = rcgen::date_time_ymd(2000, 1, 1);
    certificate.not_after = rcgen::date_time_ymd(2001, 1, 1);
    Ok(json!({"tls.crt": certificate.self_signed(&key)?.pem(), "tls.key": key.serialize_pem()}))
}

pub async fn a_missing_connection_is_named_and_found_when_it_appears(bed: Arc<HostBed>) -> Result<()> {
    let ground = Ground::bare(bed.client.clone(), "missing-connection").await?;
    ground.apply(&orders()).await?;
    let parts = ["spec.workerOptions.connectionRef.name", "\"temporal\"", "namespace missing-connection", "create it"];
    is_blocked(&ground, "ConnectionNotFound", &parts).await?;
    ground.connect(&bed.server.host_port()).await?;
    runs(&ground).await.map(|_| ())
}

pub async fn a_secret_that_can_not_be_used_is_named_with_its_remedy(bed: Arc<HostBed>) -> Result<()> {
    let (tls, opaque) = ("kubernetes.io/tls", "Opaque");
    let by_key = json!({"apiKeySecretRef": {"name": "credentials", "key": "key"}});
    let by_pem = json!({"mutualTLSSecretRef": {"name": "credentials"}});
    let by_ca = json!({"tls": {"caCertSecretRef": {"name": "credentials"}}});
    let nonsense = json!({"tls.crt": "nonsense", "tls.key": "nonsense"});
    let cases: [(&str, &Value, Option<Value>, &[&str]); 8] = [
        ("secret-missing", &by_key, None, &["spec.apiKeySecretRef", "does not exist", "create it"]),
        ("secret-missing-tls", &by_pem, None, &["spec.mutualTLSSecretRef", "does not exist", "create it"]),
        ("secret-wrong-type", &by_key, Some(secret(tls, nonsense.clone())), &["kubernetes.io/tls", "use Opaque"]),
        ("secret-wrong-key", &by_key, Some(secret(opaque, json!({"other": "x"}))), &["\"key\"", "add it"]),
        ("secret-no-cert", &by_pem, Some(secret(opaque, json!({"tls.key": "x"}))), &["\"tls.crt\"", "add it"]),
        ("secret-malformed", &by_pem, Some(secret(tls, nonsense)), &["tls.crt"]),
        ("secret-expired", &by_pem, Some(secret(tls, expired()?)), &["tls.crt", "expired at 2001-", "new one"]),
        ("secret-no-ca", &by_ca, Some(secret(opaque, json!({"other": "x"}))), &["caCertSecretRef", "\"ca.crt\""]),
    ];
    for (namespace, reference, secret, parts) in &cases {
        let ground = Ground::bare(bed.client.clone(), namespace).await?;
        if let Some(secret) = secret {
            ground.apply(secret).await?;
        }
        let mut spec = (*reference).clone();
        spec["hostPort"] = json!(bed.server.host_port());
        ground.apply(&connection(spec)).await?;
        ground.apply(&orders()).await?;
        let named = [&["Connection \"temporal\""], *parts].concat();
        is_blocked(&ground, "AuthSecretInvalid", &named).await?;
    }
    Ok(())
}

pub async fn a_corrected_secret_is_found_within_a_minute(bed: Arc<HostBed>) -> Result<()> {
    let ground = Ground::bare(bed.client.clone(), "corrected-secret").await?;
    let spec = json!({"hostPort": bed.server.host_port(), "apiKeySecretRef": {"name": "credentials", "key": "key"}});
    ground.apply(&connection(spec)).await?;
    ground.apply(&orders()).await?;
    is_blocked(&ground, "AuthSecretInvalid", &["\"credentials\"", "does not exist"]).await?;
    ground.apply(&secret("Opaque", json!({"key": "valid"}))).await?;
    within(Duration::from_secs(75), "orders has its Deployment", async || ground.child("orders").await).await?;
    Ok(())
}
