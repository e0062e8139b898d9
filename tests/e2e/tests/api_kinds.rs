//! The CRDs on a real API server: they apply both ways, and take and refuse the objects of `data/cel`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use harness::ControlPlane;
use harness::tools::{Tool, Tools};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use kube::core::ObjectMeta;
use kube::{Client, ResourceExt as _};
use operator_core::api::{WorkerDeployment, crd_yaml_files};
use serde::Deserialize;
use serde_json::{Value, json};

const NAMESPACE: &str = "kinds";
const CRDS: [&str; 6] = [
    "clusterconnections.temporal.io",
    "connections.temporal.io",
    "temporalconnections.temporal.io",
    "temporalworkerdeployments.temporal.io",
    "workerdeployments.temporal.io",
    "workerresourcetemplates.temporal.io",
];
/// What is said of every object of a deprecated kind.
const NOT_CREATED: &str = "is deprecated and cannot be created. Use";
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
const TABLES: [&str; 7] = [
    include_str!("../data/cel/cluster_connections.yaml"),
    include_str!("../data/cel/connections.yaml"),
    include_str!("../data/cel/temporal_connections.yaml"),
    include_str!("../data/cel/temporal_worker_deployments.yaml"),
    include_str!("../data/cel/worker_deployments.yaml"),
    include_str!("../data/cel/worker_resource_templates.yaml"),
    include_str!("../data/cel/schema.yaml"),
];

#[derive(Deserialize)]
struct Table {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    /// Message of the CEL rule that the case belongs to.
    rule: Option<String>,
    /// Answer of the schema itself.
    error: Option<String>,
    #[serde(default)]
    accepted: bool,
    object: Value,
}

fn cases(text: &str) -> Result<Vec<Case>> {
    let mut yaml: serde_yaml::Value = serde_yaml::from_str(text)?;
    yaml.apply_merge()?;
    Ok(serde_yaml::from_value::<Table>(yaml)?.cases)
}

/// The API server alone with all CRDs, applied as a user does.
struct Server {
    control_plane: ControlPlane,
    tools: Tools,
    folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for (name, yaml) in crd_yaml_files() {
            std::fs::write(folder.path().join(name), yaml)?;
        }
        let tools = Tools::ensure_async(&[Tool::Kubectl]).await?;
        Ok(Self { control_plane: ControlPlane::start().await?, tools, folder })
    }

    fn client(&self) -> Client {
        self.control_plane.client()
    }

    /// Standard output of kubectl, which must end well and warn of nothing.
    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .tools
            .command("kubectl")?
            .env("KUBECONFIG", self.control_plane.kubeconfig_path())
            .env("HOME", self.folder.path())
            .args(arguments)
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && error.is_empty(), "kubectl {arguments:?}: {}: {error}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Applies the CRDs and waits until they are served.
    async fn apply(&self, options: &[&str]) -> Result<String> {
        let folder = text(self.folder.path())?;
        let said = self.kubectl(&[&["apply", "-f", folder], options].concat())?;
        for name in CRDS {
            established(self.client(), name).await?;
        }
        Ok(said)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path of the temporary folder is not UTF-8")
}

/// Waits until a CRD is Established. One with a rule beyond the cost budget never gets here: it is refused.
async fn established(client: Client, name: &str) -> Result<()> {
    let crds = Api::<CustomResourceDefinition>::all(client);
    let end = Instant::now() + LIMIT;
    loop {
        let crd = crds.get(name).await?;
        let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
        if let Some(bad) = conditions.iter().find(|c| c.type_ == "NonStructuralSchema" && c.status == "True") {
            bail!("{name}: {:?}", bad.message);
        }
        if conditions.iter().any(|c| c.type_ == "Established" && c.status == "True") {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{name} is not established: {conditions:?}");
        tokio::time::sleep(POLL).await;
    }
}

async fn gone(client: Client, name: &str) -> Result<()> {
    let crds = Api::<CustomResourceDefinition>::all(client);
    let end = Instant::now() + LIMIT;
    while crds.get_opt(name).await?.is_some() {
        ensure!(Instant::now() < end, "{name} is still there");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn crds_apply_by_either_way_of_kubectl_and_again() -> Result<()> {
    let server = Server::start().await?;
    assert_eq!(server.apply(&[]).await?.matches(" created").count(), CRDS.len());
    assert_eq!(server.apply(&[]).await?.matches(" unchanged").count(), CRDS.len());
    server.apply(&["--server-side", "--force-conflicts"]).await?;
    for name in CRDS {
        Api::<CustomResourceDefinition>::all(server.client()).delete(name, &DeleteParams::default()).await?;
        gone(server.client(), name).await?;
    }
    let said = server.apply(&["--server-side"]).await?;
    assert_eq!(said.matches(" serverside-applied").count(), CRDS.len(), "{said}");
    server.control_plane.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_taken_and_refused_as_the_tables_say() -> Result<()> {
    let server = Server::start().await?;
    server.apply(&[]).await?;
    create_namespace(server.client()).await?;
    let mut seen = 0;
    for table in TABLES {
        for (index, case) in cases(table)?.into_iter().enumerate() {
            let name = format!("case-{seen}-{index}");
            let outcome = create(server.client(), &name, case.object.clone()).await;
            check(&case, outcome).with_context(|| case.name.clone())?;
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} cases");
    stored_with_defaults(&server).await?;
    server.control_plane.stop()
}

async fn create_namespace(client: Client) -> Result<()> {
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(NAMESPACE.into()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    Api::all(client).create(&PostParams::default(), &namespace).await?;
    Ok(())
}

async fn create(client: Client, name: &str, mut object: Value) -> kube::Result<DynamicObject> {
    if object["metadata"].is_null() {
        object["metadata"] = json!({ "name": name });
    }
    let kind = object["kind"].as_str().unwrap_or_default();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("temporal.io", "v1alpha1", kind));
    let api: Api<DynamicObject> = match kind {
        "ClusterConnection" => Api::all_with(client, &resource),
        _ => Api::namespaced_with(client, NAMESPACE, &resource),
    };
    let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await
}

fn check(case: &Case, outcome: kube::Result<DynamicObject>) -> Result<()> {
    let is_deprecated = case.object["kind"].as_str().is_some_and(|kind| kind.starts_with("Temporal"));
    match (case.accepted, outcome) {
        (true, Ok(_)) => ensure!(!is_deprecated, "is taken"),
        // An answer that names one rule is no list.
        (true, Err(kube::Error::Api(status))) if is_deprecated => {
            let is_only = status.message.contains(NOT_CREATED) && !status.message.contains("is invalid: [");
            ensure!(is_only, "is refused by another rule too: {}", status.message);
        }
        (true, Err(error)) => bail!("is refused: {error}"),
        (false, Ok(_)) => bail!("is taken"),
        (false, Err(error)) => {
            let expected =
                case.rule.as_ref().or(case.error.as_ref()).context("a refused case names its rule or error")?;
            ensure!(error.to_string().contains(expected), "is refused, but not by {expected:?}: {error}");
        }
    }
    Ok(())
}

/// The defaults of the schema are part of what is hashed: the stored object has them all, and the types read it.
async fn stored_with_defaults(server: &Server) -> Result<()> {
    let object = json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "spec": {
            "workerOptions": { "connectionRef": { "name": "temporal" }, "temporalNamespace": "default" },
            "rollout": { "strategy": "AllAtOnce" },
            "sunset": {},
            "scaling": { "taskQueues": [{ "name": "orders" }] },
            "template": { "spec": {
                "containers": [{
                    "name": "worker",
                    "image": "worker:v1",
                    "ports": [{ "containerPort": 80 }],
                    "livenessProbe": { "httpGet": { "port": "http" } },
                    "readinessProbe": { "httpGet": { "port": 80 } },
                    "resources": { "requests": { "cpu": 1, "memory": "1Gi" } },
                    "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "key": "a" } } }],
                }],
                "volumes": [{ "name": "c", "configMap": {} }],
            } },
        },
    });
    create(server.client(), "defaults", object).await?;
    let stored = Api::<WorkerDeployment>::namespaced(server.client(), NAMESPACE).get("defaults").await?;
    let spec = serde_json::to_value(&stored.spec)?;
    for (path, value) in [
        ("/minReadySeconds", json!(0)),
        ("/progressDeadlineSeconds", json!(600)),
        ("/versioning", json!("Enabled")),
        ("/workerOptions/connectionRef/kind", json!("Connection")),
        ("/sunset", json!({ "scaledownDelay": "1h", "deleteDelay": "24h" })),
        ("/scaling/minReplicas", json!(0)),
        ("/scaling/maxReplicas", json!(10)),
        ("/scaling/targetLatency", json!("5s")),
        ("/scaling/idleWindow", json!("180s")),
        ("/scaling/taskQueues/0/types", json!(["Workflow", "Activity"])),
        ("/template/spec/containers/0/ports/0/protocol", json!("TCP")),
        ("/template/spec/containers/0/livenessProbe/httpGet/port", json!("http")),
        ("/template/spec/containers/0/readinessProbe/httpGet/port", json!(80)),
        ("/template/spec/containers/0/resources/requests", json!({ "cpu": 1, "memory": "1Gi" })),
        ("/template/spec/containers/0/env/0/valueFrom/configMapKeyRef/name", json!("")),
        ("/template/spec/volumes/0/configMap/name", json!("")),
    ] {
        assert_eq!(spec.pointer(path), Some(&value), "{path} of {}: {spec}", stored.name_any());
    }
    let table = server.kubectl(&["get", "wd", "-n", NAMESPACE, "defaults"])?;
    let columns: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(columns, ["NAME", "CURRENT", "TARGET", "RAMP", "%", "READY", "DESIRED", "BACKLOG", "AGE"]);
    Ok(())
}
