//! Both ways to install against a real API server: what Helm and kubectl put there, what an uninstall leaves, and what
//! the operator's account may do then. Nothing runs: there are no nodes.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::ensure;
use e2e::eventually;
use harness::ControlPlane;
use harness::tools::{Tool, Tools};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, ResourceExt};
use serde_json::json;

const RELEASE: &str = "temporal-worker-operator";
const LEASE: &str = "98e39f52.temporal.io";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `helm` or `kubectl` with all rights on a control plane.
struct Shell {
    tools: Tools,
    kubeconfig: PathBuf,
}

impl Shell {
    async fn of(control_plane: &ControlPlane) -> Self {
        let tools = Tools::ensure_async(&[Tool::Helm, Tool::Kubectl]).await.unwrap();
        Self { tools, kubeconfig: control_plane.kubeconfig_path().to_owned() }
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = self.tools.command(program).unwrap();
        command.current_dir(root()).args(arguments).env("KUBECONFIG", &self.kubeconfig);
        command.output().unwrap()
    }

    fn succeed(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn install_kinds(&self) {
        self.succeed("helm", &["install", "kinds", "charts/temporal-worker-operator-crds"]);
        // Helm does not wait until the API server serves them.
        eventually("the kinds are served", async || {
            let output =
                self.run("kubectl", &["get", "workerdeployments,connections,clusterconnections", "--all-namespaces"]);
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        })
        .await
        .unwrap();
    }

    async fn install(&self, settings: &[&str]) {
        self.install_kinds().await;
        let chart =
            ["install", RELEASE, "charts/temporal-worker-operator", "--namespace", RELEASE, "--create-namespace"];
        self.succeed("helm", &[chart.as_slice(), settings].concat());
    }
}

/// A client with the rights of the operator's account.
async fn operator_client(control_plane: &ControlPlane) -> Client {
    let kubeconfig = Kubeconfig::read_from(control_plane.kubeconfig_path()).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{RELEASE}:{RELEASE}"));
    Client::try_from(config).unwrap()
}

async fn create_namespace(client: &Client, name: &str) {
    let namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

fn workers(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("temporal.io", "v1alpha1", "WorkerDeployment");
    Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind))
}

fn shared_connections(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("temporal.io", "v1alpha1", "ClusterConnection");
    Api::all_with(client.clone(), &ApiResource::from_gvk(&kind))
}

/// The kinds are there, and none of them is on its way: objects of a kind that goes are there for a moment still.
async fn kinds_stay(client: &Client) {
    let crds = Api::<CustomResourceDefinition>::all(client.clone()).list(&ListParams::default()).await.unwrap().items;
    assert!(crds.iter().any(|crd| crd.name_any() == "workerdeployments.temporal.io"), "the kind is gone");
    let going = crds.iter().filter(|crd| crd.metadata.deletion_timestamp.is_some());
    assert_eq!(going.map(ResourceExt::name_any).collect::<Vec<_>>(), Vec::<String>::new());
}

fn is_forbidden<T: std::fmt::Debug>(answer: kube::Result<T>) -> bool {
    match answer {
        Err(kube::Error::Api(status)) => status.is_forbidden(),
        other => panic!("not forbidden: {other:?}"),
    }
}

async fn share_a_connection(client: &Client) {
    let connection = json!({ "apiVersion": "temporal.io/v1alpha1", "kind": "ClusterConnection",
        "metadata": { "name": "shared" }, "spec": { "hostPort": "temporal:7233" } });
    let connection = serde_json::from_value(connection).unwrap();
    shared_connections(client).create(&PostParams::default(), &connection).await.unwrap();
}

/// Everything that the operator does with the API server, with its own rights.
async fn do_what_the_operator_does(client: &Client, namespace: &str, owner_uid: &str) {
    let apply = PatchParams::apply("test").force();
    let owner = json!([{ "apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "name": "echo",
        "uid": owner_uid, "controller": true, "blockOwnerDeletion": true }]);
    let child = json!({ "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "echo-1", "ownerReferences": owner },
        "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": {
            "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "worker", "image": "worker" }] } } } });
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    for _creates_then_updates in 0..2 {
        deployments.patch("echo-1", &apply, &Patch::Apply(&child)).await.unwrap();
    }
    let scale = json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "spec": { "replicas": 3 } });
    deployments.patch_scale("echo-1", &PatchParams::default(), &Patch::Merge(&scale)).await.unwrap();
    assert_eq!(deployments.get("echo-1").await.unwrap().spec.unwrap().replicas, Some(3));

    let config = json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "echo-1", "ownerReferences": owner }, "data": {} });
    Api::<ConfigMap>::namespaced(client.clone(), namespace)
        .patch("echo-1", &apply, &Patch::Apply(&config))
        .await
        .unwrap();
    for finalizers in [json!(["temporal.io/delete-protection"]), json!(null)] {
        let kept = Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
        workers(client, namespace).patch("echo", &PatchParams::default(), &kept).await.unwrap();
    }
    let status = json!({ "apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment",
        "status": { "targetVersion": { "buildID": "1", "status": "NotRegistered" } } });
    workers(client, namespace).patch_status("echo", &apply, &Patch::Apply(&status)).await.unwrap();
    let cost = json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": "1" } } });
    Api::<Pod>::namespaced(client.clone(), namespace)
        .patch("worker", &PatchParams::default(), &Patch::Merge(&cost))
        .await
        .unwrap();
    let event = json!({ "metadata": { "name": "echo.1" }, "reason": "Scaled", "action": "Scale", "type": "Normal",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": RELEASE, "reportingInstance": "test",
        "regarding": { "kind": "WorkerDeployment", "name": "echo", "namespace": namespace } });
    let event = serde_json::from_value(event).unwrap();
    Api::<Event>::namespaced(client.clone(), namespace).create(&PostParams::default(), &event).await.unwrap();
    Api::<Secret>::namespaced(client.clone(), namespace).get("credentials").await.unwrap();
    Api::<ConfigMap>::namespaced(client.clone(), namespace).delete("echo-1", &Default::default()).await.unwrap();
    deployments.delete("echo-1", &Default::default()).await.unwrap();

    let lease =
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": LEASE }, "spec": {} });
    let leases = Api::<Lease>::namespaced(client.clone(), RELEASE);
    let lease = leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    leases.replace(LEASE, &PostParams::default(), &lease).await.unwrap();
    assert!(Api::<Namespace>::all(client.clone()).get(RELEASE).await.unwrap().uid().is_some());
}

/// A user's objects in `namespace`, and the uid of the WorkerDeployment.
async fn create_users_objects(client: &Client, shell: &Shell, namespace: &str) -> String {
    create_namespace(client, namespace).await;
    shell.succeed("kubectl", &["-n", namespace, "apply", "-f", "deploy/samples/runtime-exec.yaml"]);
    let pod = json!({ "metadata": { "name": "worker" }, "spec": { "containers": [{ "name": "worker", "image": "worker" }] } });
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let secret = serde_json::from_value(json!({ "metadata": { "name": "credentials" } })).unwrap();
    Api::<Secret>::namespaced(client.clone(), namespace).create(&PostParams::default(), &secret).await.unwrap();
    workers(client, namespace).get("echo").await.unwrap().uid().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_an_account_that_may_do_its_work_and_no_more() {
    let control_plane = ControlPlane::start().await.unwrap();
    let (client, shell) = (control_plane.client(), Shell::of(&control_plane).await);
    shell.install(&[]).await;
    let uid = create_users_objects(&client, &shell, "team-a").await;
    let operator = operator_client(&control_plane).await;
    do_what_the_operator_does(&operator, "team-a", &uid).await;

    let everything = ListParams::default();
    assert_eq!(workers(&operator, "team-a").list(&everything).await.unwrap().items.len(), 1);
    assert!(is_forbidden(Api::<Secret>::namespaced(operator.clone(), "team-a").list(&everything).await));
    assert!(is_forbidden(Api::<Secret>::all(operator.clone()).list(&everything).await));
    assert!(is_forbidden(Api::<Namespace>::all(operator.clone()).list(&everything).await));
    Api::<Namespace>::all(operator.clone()).get("team-a").await.unwrap();
    share_a_connection(&client).await;
    assert_eq!(shared_connections(&operator).list(&everything).await.unwrap().items.len(), 1);
    let kept = Patch::Merge(json!({ "metadata": { "finalizers": [] } }));
    shared_connections(&operator).patch("shared", &PatchParams::default(), &kept).await.unwrap();
    assert!(is_forbidden(shared_connections(&operator).delete("shared", &Default::default()).await));
    assert!(is_forbidden(workers(&operator, "team-a").delete("echo", &Default::default()).await));
    assert!(is_forbidden(
        Api::<Pod>::namespaced(operator.clone(), "team-a").delete("worker", &Default::default()).await
    ));
    let foreign = Api::<Lease>::namespaced(operator.clone(), RELEASE).get("another").await;
    assert!(is_forbidden(foreign));
    control_plane.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn restricted_to_a_namespace_the_account_can_do_nothing_in_others() {
    let control_plane = ControlPlane::start().await.unwrap();
    let (client, shell) = (control_plane.client(), Shell::of(&control_plane).await);
    create_namespace(&client, "team-b").await;
    shell.install_kinds().await;
    let uid = create_users_objects(&client, &shell, "team-a").await;
    let chart = ["install", RELEASE, "charts/temporal-worker-operator", "--namespace", RELEASE, "--create-namespace"];
    shell.succeed("helm", &[chart.as_slice(), &["--set", "rbac.restrictWatchNamespaces={team-a}"]].concat());
    let operator = operator_client(&control_plane).await;
    do_what_the_operator_does(&operator, "team-a", &uid).await;

    let everything = ListParams::default();
    assert!(is_forbidden(workers(&operator, "team-b").list(&everything).await));
    assert!(is_forbidden(Api::<Secret>::namespaced(operator.clone(), "team-b").get("credentials").await));
    assert!(is_forbidden(Api::<Deployment>::all(operator.clone()).list(&everything).await));
    for foreign in ["team-a", "team-b"] {
        assert!(is_forbidden(Api::<Namespace>::all(operator.clone()).get(foreign).await));
    }
    assert!(is_forbidden(shared_connections(&operator).list(&everything).await));

    share_a_connection(&client).await;
    let chart = ["upgrade", RELEASE, "charts/temporal-worker-operator", "--namespace", RELEASE];
    let more = ["--reuse-values", "--set", "rbac.clusterConnections=true"];
    shell.succeed("helm", &[chart.as_slice(), &more].concat());
    eventually("ClusterConnections can be read", async || {
        ensure!(shared_connections(&operator).list(&everything).await?.items.len() == 1);
        // By its labels a ClusterConnection may select it.
        Api::<Namespace>::all(operator.clone()).get("team-a").await?;
        Ok(())
    })
    .await
    .unwrap();
    let kept = Patch::Merge(json!({ "metadata": { "finalizers": [] } }));
    assert!(is_forbidden(shared_connections(&operator).patch("shared", &PatchParams::default(), &kept).await));
    control_plane.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_are_admitted_where_pod_security_is_restricted() {
    let control_plane = ControlPlane::start().await.unwrap();
    let (client, shell) = (control_plane.client(), Shell::of(&control_plane).await);
    shell.succeed("kubectl", &["apply", "-k", "deploy/kustomize/base"]);
    let namespace = Api::<Namespace>::all(client.clone()).get(RELEASE).await.unwrap();
    assert_eq!(namespace.labels()["pod-security.kubernetes.io/enforce"], "restricted");

    let deployment = Api::<Deployment>::namespaced(client.clone(), RELEASE).get(RELEASE).await.unwrap();
    let template = deployment.spec.unwrap().template;
    let mut pod = Pod { metadata: template.metadata.unwrap_or_default(), spec: template.spec, status: None };
    pod.metadata.name = Some("pod".into());
    let pods = Api::<Pod>::namespaced(client.clone(), RELEASE);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    pods.create(&dry_run, &pod).await.unwrap();

    // The same pod with a right too many is refused: the standard is in force.
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.security_context.as_mut().unwrap().allow_privilege_escalation = Some(true);
    assert!(is_forbidden(pods.create(&dry_run, &pod).await));
    control_plane.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_keep_the_kinds_current_and_an_uninstall_keeps_the_users_objects() {
    let control_plane = ControlPlane::start().await.unwrap();
    let (client, shell) = (control_plane.client(), Shell::of(&control_plane).await);
    shell.install(&["--set", "replicas=1"]).await;
    create_users_objects(&client, &shell, "team-a").await;

    let kinds = Api::<CustomResourceDefinition>::all(client.clone());
    let name = "workerdeployments.temporal.io";
    let old = json!({ "spec": { "names": { "shortNames": ["old"] } } });
    kinds.patch(name, &PatchParams::default(), &Patch::Merge(&old)).await.unwrap();
    shell.succeed("helm", &["upgrade", "kinds", "charts/temporal-worker-operator-crds", "--force-conflicts"]);
    let upgraded = kinds.get(name).await.unwrap();
    assert_eq!(upgraded.spec.names.short_names.unwrap_or_default(), ["wd", "wdeployment"]);
    let chart = ["upgrade", RELEASE, "charts/temporal-worker-operator", "--namespace", RELEASE];
    shell.succeed("helm", &[chart.as_slice(), &["--reset-then-reuse-values", "--set", "logFormat=text"]].concat());
    let deployment = Api::<Deployment>::namespaced(client.clone(), RELEASE).get(RELEASE).await.unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(1), "an earlier value was lost");

    shell.succeed("helm", &["uninstall", RELEASE, "--namespace", RELEASE]);
    shell.succeed("helm", &["uninstall", "kinds"]);
    kinds_stay(&client).await;
    assert!(workers(&client, "team-a").get("echo").await.is_ok());
    assert!(Api::<Deployment>::namespaced(client.clone(), RELEASE).get_opt(RELEASE).await.unwrap().is_none());
    control_plane.stop().unwrap();
}

/// The chart of the kinds as another release would bring them: an uninstall of it deletes them.
fn kinds_of_another_release(folder: &Path) -> PathBuf {
    let (from, to) = (root().join("charts/temporal-worker-operator-crds"), folder.join("other-crds"));
    std::fs::create_dir_all(to.join("templates")).unwrap();
    for file in ["Chart.yaml", "values.yaml", "values.schema.json"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    for file in std::fs::read_dir(from.join("files")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join("templates").join(file.file_name())).unwrap();
    }
    to
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_takes_over_kinds_of_another_release_which_can_then_go() {
    let control_plane = ControlPlane::start().await.unwrap();
    let (client, shell) = (control_plane.client(), Shell::of(&control_plane).await);
    let folder = tempfile::tempdir().unwrap();
    let other = kinds_of_another_release(folder.path());
    create_namespace(&client, "old").await;
    shell.succeed("helm", &["install", "twc-crds", other.to_str().unwrap(), "--namespace", "old"]);
    eventually("the kinds are served", async || {
        let output = shell.run("kubectl", &["get", "workerdeployments,connections", "--all-namespaces"]);
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })
    .await
    .unwrap();
    let uid = create_users_objects(&client, &shell, "team-a").await;

    // As docs/migrate-from-go-controller.md has it.
    let kinds = ["upgrade", "--install", "kinds", "charts/temporal-worker-operator-crds", "--take-ownership"];
    shell.succeed("helm", &[kinds.as_slice(), &["--force-conflicts"]].concat());
    shell.succeed("kubectl", &["--namespace", "old", "delete", "secret", "-l", "owner=helm,name=twc-crds"]);

    let listed = shell.succeed("helm", &["list", "--all-namespaces", "--short"]);
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["kinds"]);
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in crds.list(&ListParams::default()).await.unwrap() {
        let annotations = crd.annotations();
        let of = |key: &str| annotations.get(key).map(String::as_str);
        assert_eq!(of("meta.helm.sh/release-name"), Some("kinds"), "{}", crd.name_any());
        assert_eq!(of("helm.sh/resource-policy"), Some("keep"), "{}", crd.name_any());
    }
    shell.succeed("helm", &["uninstall", "kinds"]);
    kinds_stay(&client).await;
    assert_eq!(workers(&client, "team-a").get("echo").await.unwrap().uid(), Some(uid));
    control_plane.stop().unwrap();
}
