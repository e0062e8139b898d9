//! `push-kubeconfig`: what a Temporal server is given so that it can call the push endpoint for one fleet.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::ByteString;
use kube::{Api, ResourceExt as _};
use operator_core::api::WorkerDeployment;
use operator_core::names::{PUSH_TOKEN_SERIAL_ANNOTATION, temporal_deployment_name};
use operator_core::push_token::{Grant, serial_of};
use serde_json::{Value, json};

use crate::kube::client::{bounded, clients};
use crate::kube::push_key;
use crate::kube::secrets::Secrets;
use crate::settings::PushSettings;

/// What is asked for.
pub struct Wanted {
    /// The fleet, as `namespace/name`.
    pub fleet: String,
    /// URL of the endpoint.
    pub server: String,
    /// PEM file of the authority to believe.
    pub ca: Option<PathBuf>,
    /// Whether to print the request that gives it to the server.
    pub request: bool,
    /// Kubernetes namespace of the operator.
    pub namespace: String,
}

/// The authority of the endpoint that these settings serve, if there is a file of it.
#[must_use]
pub fn authority(settings: &PushSettings) -> Option<PathBuf> {
    let directory = settings.push_tls_dir.as_ref()?;
    ["ca.crt", "tls.crt"].map(|file| directory.join(file)).into_iter().find(|path| path.exists())
}

/// Prints the kubeconfig, or the request with it.
///
/// # Errors
/// The fleet or the key can't be read, or an argument is none.
pub async fn run(wanted: &Wanted, mut out: impl Write) -> Result<()> {
    let (namespace, name) = wanted.fleet.split_once('/').context("the fleet is not NAMESPACE/NAME")?;
    let ca = wanted.ca.as_ref().map(|path| std::fs::read(path).with_context(|| format!("read {}", path.display())));
    let ca = ca.transpose()?;
    check(&wanted.server, ca.as_deref())?;
    let (client, _) = clients().await.context("no way to the Kubernetes API")?;
    let api: Api<WorkerDeployment> = Api::namespaced(client.clone(), namespace);
    let fleet = bounded(api.get(name)).await.with_context(|| format!("WorkerDeployment {}", wanted.fleet))?;
    let grant = grant(&fleet).with_context(|| format!("WorkerDeployment {}", wanted.fleet))?;
    let key = push_key::read(&Secrets::new(client), &wanted.namespace, true).await?;
    let config = kubeconfig(&wanted.server, ca, (namespace, name), &key.issue(&grant))?;
    let config = serde_yaml::to_string(&config)?;
    if wanted.request {
        writeln!(out, "{:#}", request(&config, &fleet)?)?;
    } else {
        out.write_all(config.as_bytes())?;
    }
    Ok(())
}

/// `UpdateWorkerDeploymentVersionComputeConfig` for the target version, in the JSON form of its message: the server's provider
/// for Kubernetes for all kinds of tasks. Its scaler counts replicas that it believes in; it must never reach its maximum, or
/// pause, for it would not call then.
fn request(kubeconfig: &str, fleet: &WorkerDeployment) -> Result<Value> {
    let (namespace, name) = (fleet.namespace().unwrap_or_default(), fleet.name_any());
    let build_id = fleet.status.as_ref().map(|status| status.target_version.version.build_id.as_str());
    let build_id = build_id.filter(|build_id| !build_id.is_empty()).with_context(|| {
        format!("WorkerDeployment {namespace}/{name} has no version in its status yet, or runs without versions")
    })?;
    let details = json!({"namespace": namespace, "deployment": name, "kubeconfig": kubeconfig});
    let scaler = json!({"max_count": i32::MAX, "scale_up_cooldown_ms": 0});
    let group = json!({"provider": {"type": "k8s", "details": payload(&details)?},
        "scaler": {"type": "rate-based", "details": payload(&scaler)?}});
    Ok(json!({
        "namespace": fleet.spec.worker_options.temporal_namespace,
        "deploymentVersion": {
            "deploymentName": temporal_deployment_name(&namespace, &name),
            "buildId": build_id,
        },
        "computeConfigScalingGroups": {"push": {
            "scalingGroup": group,
            // For a group that is there already; a new one is taken as a whole.
            "updateMask": "provider,scaler",
        }},
        "requestId": format!("{:032x}", rand::random::<u128>()),
    }))
}

fn payload(value: &Value) -> Result<Value> {
    let bytes = |bytes: &[u8]| serde_json::to_value(ByteString(bytes.to_vec()));
    Ok(json!({"metadata": {"encoding": bytes(b"json/plain")?}, "data": bytes(value.to_string().as_bytes())?}))
}

fn check(server: &str, ca: Option<&[u8]>) -> Result<()> {
    let uri: http::Uri = server.parse().with_context(|| format!("--server {server:?} is no URL"))?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") => ensure!(ca.is_none(), "--server {server:?} has no TLS, and so no use for --ca"),
        _ => bail!("--server {server:?} is not of the form https://HOST:PORT"),
    }
    Ok(())
}

/// What the fleet's token must stand for now.
fn grant(fleet: &WorkerDeployment) -> Result<Grant> {
    let annotation = fleet.annotations().get(PUSH_TOKEN_SERIAL_ANNOTATION).map(String::as_str);
    Ok(Grant { fleet_uid: fleet.uid().context("it has no UID")?, serial: serial_of(annotation)? })
}

fn kubeconfig(server: &str, ca: Option<Vec<u8>>, (namespace, name): (&str, &str), token: &str) -> Result<Value> {
    let mut cluster = json!({"server": server});
    if let Some(ca) = ca {
        // Written as base64, by definition of the Kubernetes API.
        cluster["certificate-authority-data"] = serde_json::to_value(ByteString(ca))?;
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "push", "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": "push", "context": {"cluster": "push", "user": name, "namespace": namespace}}],
        "current-context": "push",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_holds_address_authority_and_token_and_nothing_else_of_the_fleet() {
        let config =
            kubeconfig("https://push:8443", Some(b"pem".to_vec()), ("prod", "orders"), "twp1.u.0.mac").unwrap();
        let parsed: kube::config::Kubeconfig = serde_json::from_value(config.clone()).unwrap();
        let cluster = parsed.clusters[0].cluster.clone().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://push:8443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("cGVt"));
        assert_eq!(config["users"][0]["user"], json!({"token": "twp1.u.0.mac"}));
        assert_eq!(parsed.current_context.as_deref(), Some("push"));
    }

    #[test]
    fn a_server_is_a_url_and_an_authority_is_for_tls() {
        assert!(check("https://push:8443", None).is_ok() && check("http://push:8080", None).is_ok());
        for (server, ca) in [("push:8443", None), ("/push", None), ("http://push", Some(&b"pem"[..]))] {
            assert!(check(server, ca).is_err(), "{server}");
        }
    }

    fn fleet(build_id: &str) -> WorkerDeployment {
        serde_json::from_value(json!({
            "apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment",
            "metadata": {"name": "orders", "namespace": "prod", "uid": "u",
                "annotations": {PUSH_TOKEN_SERIAL_ANNOTATION: "4"}},
            "spec": {"workerOptions": {"connectionRef": {"name": "temporal"}, "temporalNamespace": "shop"},
                "template": {"spec": {"containers": []}}, "rollout": {"strategy": "AllAtOnce"}, "sunset": {}},
            "status": {"targetVersion": {"buildID": build_id, "status": "NotRegistered"}},
        }))
        .unwrap()
    }

    #[test]
    fn a_request_is_for_the_target_version_and_never_reaches_the_scalers_maximum() {
        let request = request("kubeconfig", &fleet("v1")).unwrap();
        assert_eq!(request["namespace"], "shop");
        assert_eq!(request["deploymentVersion"], json!({"deploymentName": "prod/orders", "buildId": "v1"}));
        let group = &request["computeConfigScalingGroups"]["push"]["scalingGroup"];
        let data = |of: &Value| -> Value {
            let data: ByteString = serde_json::from_value(of["details"]["data"].clone()).unwrap();
            serde_json::from_slice(&data.0).unwrap()
        };
        let details = data(&group["provider"]);
        assert_eq!(details, json!({"namespace": "prod", "deployment": "orders", "kubeconfig": "kubeconfig"}));
        assert_eq!(data(&group["scaler"]), json!({"max_count": 2_147_483_647, "scale_up_cooldown_ms": 0}));
        assert_eq!(grant(&fleet("v1")).unwrap(), Grant { fleet_uid: "u".into(), serial: 4 });
    }

    #[test]
    fn a_fleet_without_a_version_has_no_request() {
        let error = request("kubeconfig", &fleet("")).unwrap_err().to_string();
        assert!(error.contains("prod/orders") && error.contains("no version"), "{error}");
    }
}
