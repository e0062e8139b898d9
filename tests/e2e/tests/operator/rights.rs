//! What an operator does with the account that the chart makes, by the audit log of an API server that also checks who sets owners,
//! beside what the chart grants that account.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::ground::{TEMPORAL_NAMESPACE, runtime_fleet};
use e2e::host::{Operator, install_kinds, write_kubeconfig_of};
use e2e::rights::chart::granted;
use e2e::rights::golden::Installation;
use e2e::rights::used::used;
use e2e::rights::{Difference, RELEASE, Right, Scope};
use e2e::wait::within;
use e2e::worker::Worker;
use e2e::{Ground, HostBed, eventually};
use harness::audit::OPERATOR_ACCOUNT;
use harness::control_plane::free_ports;
use harness::programs::source_root;
use harness::tools::{Tool, Tools};
use harness::{ControlPlane, TemporalOptions, TemporalServer};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use operator_core::build::runtime::config_map_name;
use operator_core::resource_template::copy_name;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::attach::build_id;
use super::old_kinds::{connection_says, create_old_objects, fleet_says, install_old_kinds};
use super::shared::{SharedConnection, orders_on};
use super::templates::{BUILD_ID, LOOKED_AT, POLICY, hpa, says, template};
use super::{orders, runs, scaling};

/// Namespace of the fleets, and another one that is listed with it.
pub const NAMESPACES: [&str; 2] = ["rights", "rights-beside"];
/// Time that an operator gets to end.
const GRACE: Duration = Duration::from_secs(15);
/// Time from that to its last request in the log: a watch is logged when it ends.
const LOGGED: Duration = Duration::from_secs(30);
/// Time until a version that nobody wants is gone: the server counts its pollers for 20 s, and it is kept for 40 s after 5.
const RETIRED: Duration = Duration::from_secs(300);

/// An API server with the account of the chart and its rights, and nothing else of the chart.
pub struct World {
    pub control_plane: ControlPlane,
    pub ground: Ground,
    /// What was rendered of it.
    pub objects: Vec<Value>,
    installation: Installation,
    granted: BTreeSet<Right>,
    folder: TempDir,
}

impl World {
    pub async fn new(installation: Installation) -> Result<Self> {
        let control_plane = ControlPlane::start_strict().await?;
        let client = control_plane.client();
        install_kinds(&client).await?;
        let ground = Ground::bare(client.clone(), NAMESPACES[0]).await?;
        for name in [RELEASE, NAMESPACES[1]] {
            let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
            Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        }
        let objects = rendered(&installation.values()).await?;
        for object in &objects {
            apply(&client, object).await?;
        }
        let granted = granted(&objects, &installation.namespaces)?;
        eventually("the account has its rights", async || {
            for right in &granted {
                ensure!(has(&client, right).await?, "{right}");
            }
            Ok(())
        })
        .await?;
        let world = Self { control_plane, ground, objects, installation, granted, folder: tempfile::tempdir()? };
        write_kubeconfig_of(&world.control_plane, (RELEASE, RELEASE), &world.kubeconfig()).await?;
        Ok(world)
    }

    /// That of the account.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    pub fn stop(self) -> Result<()> {
        let Self { control_plane, ground, .. } = self;
        drop(ground);
        control_plane.stop()
    }

    async fn start_operator(&self, bed: &HostBed) -> Result<Operator> {
        let [push] = free_ports()?;
        let flags = [
            "--leader-elect".to_owned(),
            format!("--pod-namespace={RELEASE}"),
            format!("--watch-namespaces={}", self.installation.namespaces.join(",")),
            "--allowed-kinds=HorizontalPodAutoscaler".to_owned(),
            format!("--resource-template-policy={POLICY}"),
            format!("--push-bind-address=127.0.0.1:{push}"),
            "--push-plain-http".to_owned(),
        ];
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        Operator::start(&bed.programs, &self.kubeconfig(), &flags).await
    }

    /// What the chart's Job does before an uninstall; it does not wait for the fleets.
    fn delete_fleets(&self, bed: &HostBed) -> Result<()> {
        let output = Command::new(bed.programs.program("temporal-worker-operator")?)
            .env("KUBECONFIG", self.kubeconfig())
            .env("WATCH_NAMESPACES", self.installation.namespaces.join(","))
            .args(["delete-fleets", "--timeout", "1"])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("not all WorkerDeployments are gone") && !said.contains("forbidden"), "{said}");
        Ok(())
    }

    /// Whether all that was granted was used by now, and nothing else was tried. Gives back what was used.
    fn compare(&self) -> Result<BTreeSet<Right>> {
        let events = self.control_plane.requests_of(OPERATOR_ACCOUNT)?;
        let refused: Vec<_> = events.iter().filter(|event| event.is_unauthorized).collect();
        ensure!(refused.is_empty(), "refused: {refused:?}");
        let used = used(&events, &self.installation.namespaces);
        Difference::between(&self.granted, &used).ensure_none()?;
        Ok(used)
    }
}

/// The account, its roles, and the policy of resource templates.
async fn rendered(values: &Value) -> Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("values.json");
    std::fs::write(&file, values.to_string())?;
    let tools = Tools::ensure_async(&[Tool::Helm]).await?;
    let output = tools
        .command("helm")?
        .current_dir(source_root())
        .args(["template", RELEASE, "charts/temporal-worker-operator", "--namespace", RELEASE, "--values"])
        .arg(&file)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let documents = serde_yaml::Deserializer::from_str(&text).map(Value::deserialize).collect::<Result<Vec<_>, _>>()?;
    let is_of_the_account = |object: &Value| {
        let kind = object["kind"].as_str().unwrap_or_default();
        ["Role", "RoleBinding", "ServiceAccount"].iter().any(|end| kind.ends_with(end))
            || kind.starts_with("ValidatingAdmissionPolicy")
    };
    Ok(documents.into_iter().filter(is_of_the_account).collect())
}

/// Applies an object of whichever kind.
pub async fn apply(client: &Client, object: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name, version) = (text(&object["kind"]), text(&object["metadata"]["name"]), text(&object["apiVersion"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let applied = api.patch(&name, &PatchParams::apply("helm").force(), &Patch::Apply(object)).await;
    applied.with_context(|| format!("apply {kind} {name}")).map(drop)
}

/// Whether the account has a right by now: the API server takes a moment to see new roles.
async fn has(client: &Client, right: &Right) -> Result<bool> {
    let namespaces: &[&str] = match right.scope {
        Scope::Watched => &NAMESPACES,
        Scope::Own => &[RELEASE],
        Scope::Cluster | Scope::Elsewhere => &[""],
    };
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
    for namespace in namespaces {
        let attributes = json!({"namespace": namespace, "verb": right.verb, "group": right.group, "resource": resource,
            "subresource": subresource, "name": right.name.as_deref().unwrap_or_default()});
        let review = json!({"spec": {"user": OPERATOR_ACCOUNT, "resourceAttributes": attributes}});
        let review: SubjectAccessReview = serde_json::from_value(review)?;
        let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
        if !answer.status.is_some_and(|status| status.allowed) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A fleet of the old kind is handed over, and then has a template with a copy, until it has an autoscaler of its own.
async fn succeed_and_copy(ground: &Ground, address: &str) -> Result<()> {
    fleet_says(ground, "orders", "Deprecated").await?;
    connection_says(ground, "Deprecated").await?;
    ground.connect(address).await?;
    ground.apply(&orders()).await?;
    fleet_says(ground, "orders", "MigratedToWorkerDeployment").await?;
    connection_says(ground, "MigratedToConnection").await?;
    runs(ground).await?;

    ground.apply(&template("hpa", hpa())).await?;
    let (copies, copy) = (ground.objects(&hpa()), copy_name("orders", "hpa", BUILD_ID));
    within(LOOKED_AT, "the copy is there", async || Ok(copies.get(&copy).await?)).await?;
    let mut fleet = orders();
    fleet["spec"]["scaling"] = json!({"maxReplicas": 3});
    ground.apply(&fleet).await?;
    says(ground, "hpa", "ReplicasOwnedByScaling", &[]).await?;
    within(LOOKED_AT, "the copy is gone", async || {
        ensure!(copies.get_opt(&copy).await?.is_none());
        Ok(())
    })
    .await
}

/// A fleet on a ClusterConnection that selects namespaces by their labels, and names a Secret.
async fn share(ground: &Ground, address: &str, is_held: bool) -> Result<()> {
    let shared = SharedConnection::named(&ground.client, "shared");
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": ground.namespace}});
    let key = json!({"name": "later", "key": "key"});
    let spec = json!({"hostPort": address, "apiKeySecretRef": key, "allowedNamespaces": {"selector": selector}});
    shared.apply(spec).await?;
    let mut fleet = orders_on("shared");
    fleet["metadata"]["name"] = json!("keyed");
    ground.apply(&fleet).await?;
    eventually("the missing Secret is named", async || {
        ground.has_condition("keyed", ("Ready", "False", "AuthSecretInvalid")).await
    })
    .await?;
    shared.is_held(is_held).await
}

/// An idle pod of a fleet without Worker Versioning is marked, and goes.
async fn go_to_zero(ground: &Ground) -> Result<()> {
    let port = scaling::serve_metrics("idle-queue").await?;
    ground.apply(&scaling::fleet("idle", "idle-queue", port)).await?;
    eventually("it has its Deployment", async || ground.child("idle").await).await?;
    scaling::ready_pod(ground, "idle").await?;
    scaling::has_replicas(ground, "idle", 0).await
}

/// A version of a runtime fleet that the server knows and nobody wants any more goes, with its ConfigMap.
async fn retire(ground: &Ground, address: &str) -> Result<()> {
    let mut fleet = runtime_fleet("pool", "pool-queue", 4);
    fleet["spec"].as_object_mut().context("no spec")?.remove("scaling");
    fleet["spec"]["rollout"] = json!({"strategy": "Manual"});
    fleet["spec"]["sunset"] = json!({"scaledownDelay": "5s", "deleteDelay": "40s"});
    ground.apply(&fleet).await?;
    let first = eventually("it has its Deployment", async || ground.child("pool").await).await?;
    let worker = Worker::of(address, TEMPORAL_NAMESPACE, "pool-queue")?;
    worker.register(&format!("{}/pool", ground.namespace), &build_id(&first)).await?;
    fleet["spec"]["runtime"]["handlers"][0]["exec"]["command"] = json!(["true"]);
    ground.apply(&fleet).await?;
    within(RETIRED, "the first version is gone", async || {
        let name = first.name_any();
        let left = ground.api::<Deployment>().get_opt(&name).await?;
        ensure!(left.is_none(), "{:?}", ground.events("pool").await?);
        let left = ground.api::<ConfigMap>().get_opt(&config_map_name(&name)).await?;
        ensure!(left.is_none(), "its ConfigMap is there");
        Ok(())
    })
    .await
}

async fn play(world: &World, address: &str) -> Result<()> {
    let ground = &world.ground;
    // Who does not see the fleets of all namespaces keeps no ClusterConnection.
    let is_held = world.installation.namespaces.is_empty();
    tokio::try_join!(
        succeed_and_copy(ground, address),
        share(ground, address, is_held),
        go_to_zero(ground),
        retire(ground, address),
    )?;
    Ok(())
}

/// With one right more or one less the comparison fails, and names it.
fn the_comparison_tells(granted: &BTreeSet<Right>, used: &BTreeSet<Right>) -> Result<()> {
    let is_delete = |right: &&Right| right.resource == "configmaps" && right.verb == "delete";
    let own = granted.iter().find(is_delete).context("no right to delete ConfigMaps")?;
    let extra = Right { verb: "list".into(), ..own.clone() };
    let mut more = granted.clone();
    more.insert(extra.clone());
    let expected = Difference { unused: vec![extra], ungranted: Vec::new() };
    ensure!(Difference::between(&more, used) == expected, "{:?}", Difference::between(&more, used));
    for right in granted {
        let mut less = granted.clone();
        less.remove(right);
        let Difference { unused, ungranted } = Difference::between(&less, used);
        let is_named = !ungranted.is_empty() && ungranted.iter().all(|one| right.covers(one));
        ensure!(is_named && unused.is_empty(), "without {right}: {ungranted:?}, {unused:?}");
    }
    Ok(())
}

async fn is_exact(bed: &HostBed, namespaces: &[&str]) -> Result<()> {
    let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
    let installation = Installation { namespaces, with: Installation::EXTRAS.into() };
    let server = TemporalServer::start(TemporalOptions::quick_to_drain());
    let (world, server) = tokio::try_join!(World::new(installation), server)?;
    ensure!(world.granted == world.installation.rights()?, "the rights are not those of tests/e2e/data/rights.yaml");
    let (client, address) = (world.control_plane.client(), server.host_port());
    install_old_kinds(&client).await?;
    create_old_objects(&world.ground, &address).await?;
    install_kinds(&client).await?;

    let mut operator = world.start_operator(bed).await?;
    play(&world, &address).await.with_context(|| operator.log().unwrap_or_default())?;
    world.delete_fleets(bed)?;
    operator.process.stop(GRACE)?;
    let compared = within(LOGGED, "what was used is what is granted", async || world.compare()).await;
    let used = compared.with_context(|| operator.log().unwrap_or_default())?;
    the_comparison_tells(&world.granted, &used)?;
    world.stop()
}

pub async fn an_operator_of_all_namespaces_uses_what_the_chart_grants_and_no_more(bed: Arc<HostBed>) -> Result<()> {
    is_exact(&bed, &[]).await
}

pub async fn an_operator_of_listed_namespaces_uses_what_the_chart_grants_and_no_more(bed: Arc<HostBed>) -> Result<()> {
    is_exact(&bed, &NAMESPACES).await
}
