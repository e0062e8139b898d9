//! What the benchmarks run on: a cluster, a Temporal server in it, and the operator installed by Helm.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use harness::programs::{self, OPERATOR_IMAGE, Profile, Programs, source_root};
use harness::{Cluster, ClusterOptions, TemporalOptions, TemporalServer};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use crate::fleet;

/// Helm release of the operator, and its Kubernetes namespace.
pub const OPERATOR: &str = "temporal-worker-operator";
/// The worker runtime's image with `cat`, `bash` and `sleep` on top.
pub const WORKER_IMAGE: &str = "bench-worker:dev";

/// The running parts. They end with this value, the server before the cluster that it runs in.
pub struct Stage {
    /// The Temporal server.
    pub server: TemporalServer,
    /// The cluster.
    pub cluster: Cluster,
}

impl Stage {
    /// Builds and starts everything, with an empty namespace for fleets and their `Connection`.
    ///
    /// # Errors
    /// A part can't be built or started.
    pub async fn set_up(profile: Profile) -> Result<Self> {
        let programs = Programs::build(profile).await?;
        let cluster = Cluster::start(ClusterOptions::default()).await?;
        let mut worker = programs.runtime_image(WORKER_IMAGE)?;
        for program in ["/bin/cat", "/bin/bash", "/bin/sleep"] {
            worker = worker.program(Path::new(program), program);
        }
        programs::load(&cluster, &[programs.operator_image()?, worker])?;
        let server = TemporalServer::start_in(&cluster, TemporalOptions::default()).await?;
        let stage = Self { server, cluster };
        stage.install().await?;
        let client = stage.cluster.client();
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": fleet::NAMESPACE}}))?;
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        fleet::apply_connection(&client, &stage.server.host_port()).await?;
        Ok(stage)
    }

    async fn install(&self) -> Result<()> {
        self.helm(&["install", "temporal-worker-operator-crds", "charts/temporal-worker-operator-crds"]).await?;
        let (repository, tag) = OPERATOR_IMAGE.split_once(':').context("the operator's image has no tag")?;
        let image = format!("image.repository={repository},image.tag={tag}");
        let install = ["install", OPERATOR, "charts/temporal-worker-operator", "--namespace", OPERATOR];
        let options = ["--create-namespace", "--set", &image, "--wait", "--timeout", "2m"];
        self.helm(&[install.as_slice(), &options].concat()).await
    }

    async fn helm(&self, arguments: &[&str]) -> Result<()> {
        let mut command = tokio::process::Command::from(self.cluster.command("helm")?);
        command.args(arguments).current_dir(source_root()).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm {}: {}", arguments.join(" "), said.trim());
        Ok(())
    }

    /// Shows what helps to understand a failure: objects, and the ends of the operator's and the Workers' logs.
    pub fn explain(&self) {
        let operator = format!("app.kubernetes.io/instance={OPERATOR}");
        let logs = |namespace: &'static str| ["logs", "--tail=20", "--prefix", "--namespace", namespace, "--selector"];
        let commands = [
            ["get", "workerdeployments,deployments,pods", "--all-namespaces"].to_vec(),
            [logs(OPERATOR).as_slice(), &[operator.as_str()]].concat(),
            [logs(fleet::NAMESPACE).as_slice(), &[fleet::LABEL]].concat(),
        ];
        for arguments in commands {
            match self.cluster.run("kubectl", &arguments) {
                Ok(said) => eprintln!("kubectl {}\n{}", arguments.join(" "), said.trim_end()),
                Err(error) => eprintln!("{error:#}"),
            }
        }
    }

    /// Ends everything.
    ///
    /// # Errors
    /// Something can't be ended or removed.
    pub fn end(self) -> Result<()> {
        drop(self.server);
        self.cluster.stop()
    }
}
