//! What the demo plays on: programs, cluster, Temporal server, operator and the two fleets.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{CLUSTER, NAMESPACE, OPERATOR, Options, Play, WORKFLOWS_QUEUE, step};
use crate::cluster::{Cluster, ClusterOptions};
use crate::programs::{self, OPERATOR_IMAGE, Profile, Programs, RUNTIME_IMAGE};
use crate::sdk_images::sdk_images;
use crate::temporal::{TemporalOptions, TemporalServer};
use crate::tools::Tools;

/// Kubernetes namespace and name of the Service in front of the Temporal server, as `deploy/demo/connection.yaml` has it.
const TEMPORAL: (&str, &str) = ("temporal", "temporal-frontend");

/// The running parts. They end with this value, the server before the cluster that it runs in.
pub struct Stage {
    /// The Temporal server.
    pub server: TemporalServer,
    /// The cluster.
    pub cluster: Cluster,
    /// The project's programs.
    pub programs: Programs,
    /// The pictures that are in the image.
    pub pictures: TempDir,
}

impl Stage {
    /// Builds and starts everything but the operator.
    ///
    /// # Errors
    /// A part can't be built or started.
    pub async fn set_up(options: &Options) -> Result<Self> {
        let built = match options.play {
            Play::Pictures { .. } => "two example programs",
            Play::Languages => "Workers in Go, Java, Python, Rust and TypeScript",
        };
        step(1, "Programs", &format!("the operator, the worker runtime and {built}, built from this source tree"));
        println!("      Third-party programs are built once into a cache; the first time takes about 15 minutes.");
        let programs = Programs::build(Profile::own()).await?;
        Tools::ensure_async(Tools::ALL).await?;

        step(2, "Cluster", "etcd, API server, controllers, scheduler, kubelet, containerd, DNS: all of Kubernetes");
        if Cluster::remove(&options.root, CLUSTER)? {
            println!("      The cluster of an earlier demo is removed.");
        }
        let cluster = Cluster::start(ClusterOptions { name: CLUSTER.into(), root: options.root.clone() }).await?;
        let pictures = tempfile::tempdir()?;
        let mut images = vec![programs.operator_image()?, programs.runtime_image(RUNTIME_IMAGE)?];
        match options.play {
            Play::Pictures { .. } => {
                images.extend([programs.handlers_image(pictures.path())?, programs.worker_image()?])
            }
            Play::Languages => images.extend(sdk_images(&programs).await?),
        }
        programs::load(&cluster, &images)?;
        println!("      Images are loaded without a registry: {}", short_names(&images));

        step(
            3,
            "Temporal",
            "a server with the namespace \"demo\", which pods reach by the name temporal-frontend.temporal",
        );
        let options = TemporalOptions { namespaces: vec![NAMESPACE.into()], ui: true, ..TemporalOptions::default() };
        let server = TemporalServer::start_in(&cluster, options).await?;
        let stage = Self { server, cluster, programs, pictures };
        stage.publish_temporal().await?;
        Ok(stage)
    }

    /// A client of the cluster with all rights.
    pub fn client(&self) -> Client {
        self.cluster.client()
    }

    /// Gives the Temporal server a name in the cluster.
    async fn publish_temporal(&self) -> Result<()> {
        let (namespace, name) = TEMPORAL;
        let host_port = self.server.host_port();
        let (address, port) = host_port.split_once(':').context("the server has no port")?;
        let port: u16 = port.parse()?;
        self.create_namespace(namespace).await?;
        let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"name": "grpc", "port": port}]}});
        create::<Service>(Api::namespaced(self.client(), namespace), service).await?;
        let slice = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": port}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        });
        create::<EndpointSlice>(Api::namespaced(self.client(), namespace), slice).await
    }

    /// Creates a Kubernetes namespace.
    ///
    /// # Errors
    /// It exists.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        create::<Namespace>(Api::all(self.client()), json!({"metadata": {"name": name}})).await
    }

    /// Installs the operator as a user does.
    ///
    /// # Errors
    /// Helm fails, or the operator does not become ready.
    pub async fn install(&self) -> Result<()> {
        step(4, "Operator", "two charts by Helm: the custom resources, and the operator with a standby replica");
        self.run("helm", &["install", "temporal-worker-operator-crds", "charts/temporal-worker-operator-crds"]).await?;
        let image = |key: &str, name: &str| {
            let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
            format!("{key}.repository={repository},{key}.tag={tag}")
        };
        let (operator, runtime) = (image("image", OPERATOR_IMAGE), image("runtimeImage", RUNTIME_IMAGE));
        let install = ["install", OPERATOR, "charts/temporal-worker-operator", "--namespace", OPERATOR];
        let options = ["--create-namespace", "--set", &operator, "--set", &runtime, "--wait", "--timeout", "2m"];
        self.run("helm", &[install.as_slice(), &options].concat()).await.map(drop)
    }

    /// Applies the fleets' manifests.
    ///
    /// # Errors
    /// The API server refuses them.
    pub async fn apply_fleets(&self) -> Result<()> {
        step(5, "Fleets", "kubectl apply -f deploy/demo: a Connection and two WorkerDeployments");
        println!("      pictures    a Worker in Rust: the Workflow, and the activity that checks results");
        println!("      thumbnails  the shared worker runtime, which runs a program for each task: no Worker code");
        println!("      Each new version runs one pod until Temporal knows it, then the fleet goes to zero.");
        self.create_namespace(NAMESPACE).await?;
        self.run("kubectl", &["--namespace", NAMESPACE, "apply", "-f", "deploy/demo"]).await.map(drop)
    }

    /// Runs `kubectl` or another tool on the cluster, in the folder of the sources; returns what it printed.
    ///
    /// # Errors
    /// It fails: the message holds what it said.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::from(self.cluster.command(program)?);
        command.args(arguments).current_dir(programs::source_root()).stdin(Stdio::null());
        // In a group of its own: a Ctrl-C is for us, who then end it.
        let output = command.process_group(0).kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `temporal` against the server; returns the JSON that it printed.
    ///
    /// # Errors
    /// It fails, or prints none.
    pub fn temporal(&self, arguments: &[&str]) -> Result<Value> {
        let output =
            self.server.cli()?.args(arguments).args(["--namespace", NAMESPACE, "--output", "json"]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "temporal {}: {}", arguments.join(" "), said.trim());
        serde_json::from_slice(&output.stdout).with_context(|| format!("temporal {}: no JSON", arguments.join(" ")))
    }

    /// Ends everything.
    ///
    /// # Errors
    /// Something can't be ended or removed.
    pub fn end(self) -> Result<()> {
        drop(self.server);
        self.cluster.stop()
    }

    /// Lets cluster and server live on, and says how to look around and how to remove them.
    ///
    /// # Errors
    /// The cluster has ended.
    pub fn keep(self, play: Play) -> Result<()> {
        let kubeconfig = self.cluster.kubeconfig_path();
        let kubectl = self.cluster.tools().program("kubectl")?.to_owned();
        let temporal = self.cluster.tools().program("temporal")?.to_owned();
        let (host_port, ui) = (self.server.host_port(), self.server.ui().unwrap_or_default());
        self.cluster.release()?;
        // The server runs in the cluster's namespaces and ends with them, and so do its files: it is left running.
        std::mem::forget(self.server);
        println!("\nThe cluster still runs. Look around:");
        println!("  export KUBECONFIG={}", kubeconfig.display());
        println!("  {} get workerdeployments,deployments,pods --all-namespaces", shown(&kubectl));
        println!("  Temporal's web UI: {ui}/namespaces/{NAMESPACE}");
        if let Play::Pictures { .. } = play {
            println!("  {} --namespace {NAMESPACE} describe workerdeployment thumbnails", shown(&kubectl));
            println!("More work:");
            println!("  {} workflow start --address {host_port} --namespace {NAMESPACE} \\", shown(&temporal));
            println!("    --task-queue {WORKFLOWS_QUEUE} --type MakeThumbnails --input '{{\"pictures\": 200}}'");
        }
        println!("Remove everything:");
        println!("  make cluster-down");
        Ok(())
    }
}

/// A program by its name alone when that finds it.
fn shown(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let found = crate::prerequisites::find_program(&name);
    if found.as_deref() == Some(program) { name.into_owned() } else { program.display().to_string() }
}

fn short_names(images: &[crate::ImageSpec]) -> String {
    let names = images.iter().map(|image| image.name().trim_start_matches("docker.io/library/"));
    names.collect::<Vec<_>>().join(", ")
}

async fn create<K>(api: Api<K>, object: Value) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object)?;
    let name = object.meta().name.clone().unwrap_or_default();
    api.create(&PostParams::default(), &object).await.with_context(|| format!("create {} {name}", K::kind(&())))?;
    Ok(())
}

/// An empty folder, whatever was there.
///
/// # Errors
/// It can't be made.
pub fn fresh_folder(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))
}
