//! Changes that reach the pods of a version without making a new one: of the Connection, the Temporal namespace, and how pods
//! are replaced.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::worker::Worker;
use e2e::{Ground, HostBed, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use operator_core::names;
use serde_json::{Value, json};

use super::{ORDERS_CHILD, orders, runs};

const ORDERS: &str = "orders";

fn connection(spec: Value) -> Value {
    json!({"apiVersion": "temporal.io/v1alpha1", "kind": "Connection", "metadata": {"name": "temporal"}, "spec": spec})
}

/// The fleet at a release of its own, which nobody but the user makes current.
fn release(tag: &str) -> Value {
    let mut fleet = orders();
    fleet["spec"]["template"]["spec"]["containers"][0]["image"] = json!(format!("ghcr.io/acme/worker:{tag}"));
    fleet["spec"]["rollout"] = json!({"strategy": "Manual"});
    fleet
}

/// Applies a release and waits for its Deployment, by name.
async fn add(ground: &Ground, tag: &str) -> Result<String> {
    ground.apply(&release(tag)).await?;
    eventually("the release has its Deployment", async || {
        let children = ground.children(ORDERS).await?;
        let start = format!("orders-{}-", tag.replace('.', "-"));
        children.into_keys().find(|name| name.starts_with(&start)).context("none yet")
    })
    .await
}

/// A fleet with a current version, an old one and a target, by the names of their Deployments.
pub async fn three_versions(bed: &HostBed, ground: &Ground) -> Result<[String; 3]> {
    let current = add(ground, "v1").await?;
    let build_id = build_id(&ground.api::<Deployment>().get(&current).await?);
    let worker = Worker::of(&bed.server.host_port(), "default", &ground.namespace)?;
    worker.register(&format!("{}/{ORDERS}", ground.namespace), &build_id).await?;
    worker.make_current().await?;
    let old = add(ground, "v2").await?;
    let target = add(ground, "v3").await?;
    eventually("the operator has seen which is current", async || {
        let status = ground.status(ORDERS).await?;
        let is = status.current_version.context("no current version")?.build_id;
        ensure!(is == build_id && status.deprecated_versions.len() == 1, "{is}: {:?}", status.deprecated_versions);
        Ok(())
    })
    .await?;
    Ok([current, old, target])
}

pub fn build_id(child: &Deployment) -> String {
    child.labels().get(names::BUILD_ID_LABEL).cloned().unwrap_or_default()
}

fn template(child: &Deployment) -> Result<Value> {
    Ok(serde_json::to_value(child.spec.as_ref().context("no spec")?)?["template"].clone())
}

/// The value of a variable of the Worker's, if it has it.
fn variable(child: &Deployment, name: &str) -> Result<Option<Value>> {
    let template = template(child)?;
    let variables = template["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
    Ok(variables.into_iter().find(|variable| variable["name"] == name))
}

async fn has(ground: &Ground, child: &str, name: &str, value: &str) -> Result<Deployment> {
    eventually(&format!("{child} has {name}={value}"), async || {
        let found = ground.api::<Deployment>().get(child).await?;
        let is = variable(&found, name)?;
        ensure!(is == Some(json!({"name": name, "value": value})), "{is:?}");
        Ok(found)
    })
    .await
}

pub async fn target_and_current_follow_a_changed_connection_and_an_old_version_keeps_its_own(
    bed: Arc<HostBed>,
) -> Result<()> {
    let ground = bed.ground("moved").await?;
    let [current, old, target] = three_versions(&bed, &ground).await?;
    let before = ground.api::<Deployment>().get(&old).await?;
    let image = |child: &Deployment| Ok::<_, anyhow::Error>(template(child)?["spec"]["containers"][0]["image"].clone());
    // The same server by another name.
    let address = bed.server.host_port().replace("127.0.0.1", "localhost");
    ensure!(address != bed.server.host_port(), "{address}");
    ground.apply(&connection(json!({"hostPort": address}))).await?;
    has(&ground, &target, "TEMPORAL_ADDRESS", &address).await?;
    let followed = has(&ground, &current, "TEMPORAL_ADDRESS", &address).await?;
    ensure!(image(&followed)? == "ghcr.io/acme/worker:v1", "it has the new release's template");
    let hash = operator_core::build_id::connection_spec_hash(&address, None, None);
    let annotations = &template(&followed)?["metadata"]["annotations"];
    ensure!(annotations[names::CONNECTION_SPEC_HASH_ANNOTATION] == hash.as_str(), "{annotations}");
    let after = ground.api::<Deployment>().get(&old).await?;
    ensure!(after.metadata.generation == before.metadata.generation, "the old version was changed: {after:?}");
    ensure!(variable(&after, "TEMPORAL_ADDRESS")? != variable(&followed, "TEMPORAL_ADDRESS")?);
    eventually("an event says it", async || {
        let events = ground.events(ORDERS).await?;
        let told = |(reason, note): &(String, String)| reason == "DeploymentUpdated" && note.contains(&current);
        ensure!(events.iter().filter(|event| told(event)).count() == 1, "{events:?}");
        Ok(())
    })
    .await
}

pub async fn a_changed_namespace_reaches_the_target_and_the_current_version_works_on_where_it_is(
    bed: Arc<HostBed>,
) -> Result<()> {
    let ground = bed.ground("moved-namespace").await?;
    let [current, _, target] = three_versions(&bed, &ground).await?;
    let before = ground.api::<Deployment>().get(&current).await?;
    let mut fleet = release("v3");
    fleet["spec"]["workerOptions"]["temporalNamespace"] = json!("temporal-system");
    ground.apply(&fleet).await?;
    has(&ground, &target, "TEMPORAL_NAMESPACE", "temporal-system").await?;
    eventually("the other namespace was read", async || {
        ground.has_condition(ORDERS, ("Ready", "False", "WaitingForPollers")).await
    })
    .await?;
    let after = ground.api::<Deployment>().get(&current).await?;
    ensure!(after.metadata.generation == before.metadata.generation, "it was changed: {after:?}");
    Ok(())
}

pub async fn a_switch_of_credentials_changes_the_pods_wholly(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("credentials").await?;
    ground.apply(&orders()).await?;
    let child = runs(&ground).await?;
    let plain = template(&child)?;
    let address = bed.server.host_port();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cloud"}, "type": "Opaque",
        "stringData": {"key": "k"}});
    ground.apply(&secret).await?;
    ground.apply(&super::child::certificate()?).await?;
    let by_certificate = json!({"hostPort": address, "mutualTLSSecretRef": {"name": "certs"}});
    let by_key = json!({"hostPort": address, "apiKeySecretRef": {"name": "cloud", "key": "key"}});
    ground.apply(&connection(by_certificate)).await?;
    let certified = has(&ground, ORDERS_CHILD, "TEMPORAL_TLS", "true").await?;
    let pod = &template(&certified)?["spec"];
    ensure!(pod["volumes"][0]["secret"]["secretName"] == "certs", "{pod}");
    ground.apply(&connection(by_key)).await?;
    eventually("the API key takes the certificate's place", async || {
        let pod = template(&ground.child(ORDERS).await?)?["spec"].clone();
        ensure!(pod["volumes"].is_null() && pod["containers"][0]["volumeMounts"].is_null(), "{pod}");
        let text = pod.to_string();
        ensure!(text.contains("TEMPORAL_API_KEY") && !text.contains("TEMPORAL_TLS"), "{pod}");
        Ok(())
    })
    .await?;
    ground.apply(&connection(json!({"hostPort": address}))).await?;
    eventually("it is as it was", async || {
        let is = template(&ground.child(ORDERS).await?)?;
        ensure!(is == plain, "{is}");
        Ok(())
    })
    .await
}

pub async fn what_somebody_else_left_of_a_connection_is_taken_away(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("left-over").await?;
    ground.apply(&orders()).await?;
    let plain = template(&runs(&ground).await?)?;
    let at = |file: &str| format!("/etc/temporal/tls/{file}");
    let theirs = json!({"spec": {"template": {"spec": {
        "volumes": [{"name": "temporal-tls", "secret": {"secretName": "certs"}}],
        "containers": [{"name": "worker",
            "env": [{"name": "TEMPORAL_TLS", "value": "true"},
                {"name": "TEMPORAL_TLS_CLIENT_KEY_PATH", "value": at("tls.key")},
                {"name": "TEMPORAL_TLS_CLIENT_CERT_PATH", "value": at("tls.crt")}],
            "volumeMounts": [{"name": "temporal-tls", "mountPath": "/etc/temporal/tls"}]}]}}}});
    let params = PatchParams { field_manager: Some("temporal-worker-controller".into()), ..PatchParams::default() };
    let deployments = ground.api::<Deployment>();
    let changed = deployments.patch(ORDERS_CHILD, &params, &Patch::Strategic(&theirs)).await?;
    ensure!(template(&changed)? != plain, "the change did not take");
    eventually("the template is the operator's alone", async || {
        let is = template(&ground.child(ORDERS).await?)?;
        ensure!(is == plain, "{is}");
        Ok(())
    })
    .await
}

pub async fn how_pods_are_replaced_reaches_the_version_that_is_there(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("replaced-pods").await?;
    let mut fleet = orders();
    ground.apply(&fleet).await?;
    let before = runs(&ground).await?;
    let becomes = async |fleet: &Value, wanted: Value| {
        ground.apply(fleet).await?;
        eventually("the Deployment follows", async || {
            let child = ground.child(ORDERS).await?;
            ensure!(child.uid() == before.uid() && template(&child)? == template(&before)?, "{child:?}");
            let spec = serde_json::to_value(&child.spec)?;
            let is = json!([spec["minReadySeconds"], spec["progressDeadlineSeconds"], spec["strategy"]]);
            ensure!(is == wanted, "{is} is not {wanted}");
            Ok(())
        })
        .await
    };
    let rolling = |surge: Value, unavailable: &str| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    fleet["spec"]["minReadySeconds"] = json!(5);
    fleet["spec"]["progressDeadlineSeconds"] = json!(77);
    becomes(&fleet, json!([5, 77, rolling(json!("25%"), "25%")])).await?;
    fleet["spec"]["deploymentStrategy"] = json!({"rollingUpdate": {"maxSurge": 3}});
    becomes(&fleet, json!([5, 77, rolling(json!(3), "25%")])).await?;
    fleet["spec"]["deploymentStrategy"] = json!({"type": "Recreate"});
    becomes(&fleet, json!([5, 77, {"type": "Recreate"}])).await?;
    fleet["spec"]["deploymentStrategy"] = json!({"rollingUpdate": {"maxUnavailable": "50%"}});
    becomes(&fleet, json!([5, 77, rolling(json!("25%"), "50%")])).await?;
    fleet["spec"]["deploymentStrategy"] = json!({"type": "Recreate"});
    becomes(&fleet, json!([5, 77, {"type": "Recreate"}])).await?;
    fleet["spec"].as_object_mut().context("a spec")?.remove("deploymentStrategy");
    fleet["spec"]["minReadySeconds"] = json!(0);
    becomes(&fleet, json!([Value::Null, 77, rolling(json!("25%"), "25%")])).await
}
