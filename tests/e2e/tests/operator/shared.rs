//! ClusterConnections: who may use one, with whose credentials, and how long it stays.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::endpoint::{Authority, Endpoint, Signed};
use e2e::wait::within;
use e2e::{Ground, HostBed, eventually};
use harness::audit;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use operator_core::api::ClusterConnection;
use operator_core::names::DELETE_PROTECTION_FINALIZER;
use serde_json::{Value, json};

use super::{fails, is_blocked, orders, runs};

/// Labels of a namespace are at most a minute old, and a fleet that may not use its ClusterConnection is looked at each minute.
const RELABELLED: Duration = Duration::from_secs(150);

/// A ClusterConnection, deleted with the value.
pub struct SharedConnection {
    api: Api<ClusterConnection>,
    name: &'static str,
}

impl Drop for SharedConnection {
    fn drop(&mut self) {
        let (api, name) = (self.api.clone(), self.name);
        tokio::spawn(async move { api.delete(name, &Default::default()).await });
    }
}

impl SharedConnection {
    pub fn named(client: &Client, name: &'static str) -> Self {
        Self { api: Api::all(client.clone()), name }
    }

    pub async fn apply(&self, spec: Value) -> Result<()> {
        let manifest = json!({"apiVersion": "temporal.io/v1alpha1", "kind": "ClusterConnection",
            "metadata": {"name": self.name}, "spec": spec});
        self.api.patch(self.name, &PatchParams::apply("user").force(), &Patch::Apply(manifest)).await?;
        Ok(())
    }

    pub async fn is_held(&self, held: bool) -> Result<()> {
        eventually(&format!("{} is held: {held}", self.name), async || {
            let finalizers = self.api.get(self.name).await?.finalizers().to_vec();
            ensure!(finalizers.iter().any(|one| one == DELETE_PROTECTION_FINALIZER) == held, "{finalizers:?}");
            Ok(())
        })
        .await
    }
}

/// The fleet `orders` on a ClusterConnection.
pub fn orders_on(name: &str) -> Value {
    let mut fleet = orders();
    fleet["spec"]["workerOptions"]["connectionRef"] = json!({"kind": "ClusterConnection", "name": name});
    fleet
}

fn certificate(signed: &Signed, authority: &Authority) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": signed.certificate, "tls.key": signed.key, "ca.crt": authority.pem}})
}

async fn has_address(ground: &Ground, address: &str) -> Result<Deployment> {
    eventually(&format!("the pods of {} work at {address}", ground.namespace), async || {
        let child = ground.child("orders").await?;
        let template = serde_json::to_value(&child.spec)?["template"].clone();
        let variables = template["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
        let is = variables.into_iter().find(|variable| variable["name"] == "TEMPORAL_ADDRESS");
        ensure!(is == Some(json!({"name": "TEMPORAL_ADDRESS", "value": address})), "{is:?}");
        Ok(child)
    })
    .await
}

pub async fn each_namespace_shows_a_certificate_of_its_own(bed: Arc<HostBed>) -> Result<()> {
    let authority = Authority::new()?;
    let (first, second) = (authority.sign("first", 2099)?, authority.sign("second", 2099)?);
    let stranger = Authority::new()?.sign("stranger", 2099)?;
    let endpoint = Endpoint::start(authority, IpAddr::V4(Ipv4Addr::LOCALHOST), &bed.server.host_port()).await?;
    let shared = SharedConnection::named(&bed.client, "own-credentials");
    shared.apply(json!({"hostPort": endpoint.address, "mutualTLSSecretRef": {"name": "credentials"}})).await?;

    let ground = async |name: &str, signed: Option<&Signed>| {
        let ground = Ground::bare(bed.client.clone(), name).await?;
        if let Some(signed) = signed {
            ground.apply(&certificate(signed, endpoint.authority())).await?;
        }
        ground.apply(&orders_on("own-credentials")).await?;
        anyhow::Ok(ground)
    };
    let grounds =
        [ground("credentials-first", Some(&first)).await?, ground("credentials-second", Some(&second)).await?];
    for (ground, signed) in grounds.iter().zip([&first, &second]) {
        eventually("the server answers", async || {
            ground.has_condition("orders", ("ConnectionHealthy", "True", "ConnectionHealthy")).await
        })
        .await?;
        ensure!(!endpoint.seen(signed).is_empty(), "the certificate of {} was not shown", ground.namespace);
        let volumes = serde_json::to_value(runs(ground).await?.spec)?["template"]["spec"]["volumes"].clone();
        ensure!(volumes.to_string().contains("\"credentials\""), "{volumes}");
    }

    // The clients of both are there: who has no certificate, or a bad one, gets none of them.
    let without = ground("credentials-none", None).await?;
    let parts =
        ["ClusterConnection \"own-credentials\"", "\"credentials\"", "in namespace credentials-none", "create it"];
    is_blocked(&without, "AuthSecretInvalid", &parts).await?;
    let unknown = ground("credentials-stranger", Some(&stranger)).await?;
    fails(&unknown, "TemporalClientCreationFailed", &[]).await?;
    ensure!(!endpoint.refused().is_empty() && endpoint.seen(&stranger).is_empty(), "{:?}", endpoint.seen(&stranger));

    let mut readers: Vec<_> = bed.control_plane.audit_events()?;
    readers.retain(|event| event.resource == "secrets" && event.verb == "get" && event.name == "credentials");
    let own = |event: &harness::AuditEvent| event.namespace.starts_with("credentials-");
    let foreign: Vec<_> = readers.iter().filter(|event| event.namespace.is_empty()).collect();
    ensure!(readers.iter().any(own) && foreign.is_empty(), "{foreign:?}");
    Ok(())
}

pub async fn a_missing_one_is_named_and_a_change_reaches_every_namespace(bed: Arc<HostBed>) -> Result<()> {
    let shared = SharedConnection::named(&bed.client, "everywhere");
    let grounds = [
        Ground::bare(bed.client.clone(), "everywhere-one").await?,
        Ground::bare(bed.client.clone(), "everywhere-two").await?,
    ];
    for ground in &grounds {
        ground.apply(&orders_on("everywhere")).await?;
        let parts = ["spec.workerOptions.connectionRef.name", "ClusterConnection \"everywhere\"", "create it"];
        is_blocked(ground, "ConnectionNotFound", &parts).await?;
    }
    shared.apply(json!({"hostPort": bed.server.host_port()})).await?;
    for ground in &grounds {
        has_address(ground, &bed.server.host_port()).await?;
    }
    let elsewhere = bed.server.host_port().replace("127.0.0.1", "localhost");
    ensure!(elsewhere != bed.server.host_port(), "{elsewhere}");
    shared.apply(json!({"hostPort": elsewhere})).await?;
    for ground in &grounds {
        has_address(ground, &elsewhere).await?;
    }
    Ok(())
}

async fn has_replicas(ground: &Ground, wanted: i32) -> Result<()> {
    eventually(&format!("{wanted} replicas are written"), async || {
        let replicas = ground.replicas("orders").await?;
        ensure!(replicas == wanted, "{replicas} replicas");
        Ok(())
    })
    .await
}

/// Whether the Secret `later` of the ground was asked for.
fn secret_was_read(bed: &HostBed, ground: &Ground) -> Result<bool> {
    let events = bed.writes_in(&ground.namespace)?;
    Ok(events.iter().any(|event| event.resource == "secrets" && event.name == "later"))
}

pub async fn a_namespace_that_is_not_allowed_keeps_its_pods_and_reads_no_secret(bed: Arc<HostBed>) -> Result<()> {
    let shared = SharedConnection::named(&bed.client, "limited");
    let ground = Ground::bare(bed.client.clone(), "allowed").await?;
    shared.apply(json!({"hostPort": bed.server.host_port(), "allowedNamespaces": {"names": ["allowed"]}})).await?;
    let mut fleet = orders_on("limited");
    fleet["spec"]["replicas"] = json!(2);
    ground.apply(&fleet).await?;
    has_replicas(&ground, 2).await?;
    shared.is_held(true).await?;

    let by_key = |allowed: Value| {
        json!({"hostPort": bed.server.host_port(), "apiKeySecretRef": {"name": "later", "key": "key"},
            "allowedNamespaces": allowed})
    };
    // A server-side apply must not take what is empty for absent, which allows all.
    shared.apply(by_key(json!({}))).await?;
    let parts = ["ClusterConnection \"limited\"", "namespace allowed", "spec.allowedNamespaces", "use a Connection"];
    fails(&ground, "ConnectionNotAllowed", &parts).await?;
    for (type_, status) in [("ConnectionHealthy", "False"), ("Stalled", "True")] {
        ground.has_condition("orders", (type_, status, "ConnectionNotAllowed")).await?;
    }
    // Who may not use it does not keep it.
    shared.is_held(false).await?;
    fleet["spec"]["replicas"] = json!(0);
    ground.apply(&fleet).await?;
    fails(&ground, "ConnectionNotAllowed", &parts).await?;
    shared.apply(by_key(json!({"selector": {"matchLabels": {"team": "a"}}}))).await?;
    ensure!(ground.replicas("orders").await? == 2, "{:?}", ground.child("orders").await?.spec);
    let fallen = audit::decreases(&bed.writes_in("allowed")?);
    ensure!(fallen.is_empty(), "{fallen:?}");
    ensure!(!secret_was_read(&bed, &ground)?, "a Secret was read");

    let labels = Patch::Merge(json!({"metadata": {"labels": {"team": "a"}}}));
    Api::<Namespace>::all(bed.client.clone()).patch("allowed", &PatchParams::default(), &labels).await?;
    within(RELABELLED, "the fleet may use it", async || {
        let message = ground.has_condition("orders", ("Ready", "False", "AuthSecretInvalid")).await?;
        ensure!(message.contains("\"later\" does not exist in namespace allowed"), "{message}");
        Ok(())
    })
    .await?;
    ensure!(secret_was_read(&bed, &ground)?, "the log shows no reads of Secrets");
    shared.is_held(true).await?;
    shared.apply(json!({"hostPort": bed.server.host_port()})).await?;
    has_replicas(&ground, 0).await
}

pub async fn one_that_a_fleet_of_any_namespace_uses_stays(bed: Arc<HostBed>) -> Result<()> {
    let shared = SharedConnection::named(&bed.client, "kept");
    shared.apply(json!({"hostPort": bed.server.host_port()})).await?;
    let grounds = [bed.ground("kept-by-one").await?, bed.ground("kept-by-two").await?];
    for ground in &grounds {
        ground.apply(&orders_on("kept")).await?;
        runs(ground).await?;
    }
    shared.is_held(true).await?;
    shared.api.delete("kept", &Default::default()).await?;
    grounds[0].apply(&orders()).await?;
    super::holding::is_held(&grounds[0], "temporal", true).await?;
    let kept = shared.api.get("kept").await?;
    ensure!(kept.metadata.deletion_timestamp.is_some() && !kept.finalizers().is_empty(), "{:?}", kept.metadata);
    grounds[1].apply(&orders()).await?;
    eventually("it is gone", async || {
        let left = shared.api.get_opt("kept").await?;
        ensure!(left.is_none(), "{:?}", left.map(|left| left.metadata));
        Ok(())
    })
    .await?;
    let writes = bed.control_plane.audit_events()?;
    let is_ours = |event: &&harness::AuditEvent| event.resource == "clusterconnections" && event.name == "kept";
    let updates = writes.iter().filter(is_ours).filter(|event| event.verb == "update").count();
    ensure!(updates == 0, "{updates} updates");
    runs(&grounds[1]).await.map(|_| ()).context("the fleet that moved has its Deployment still")
}
