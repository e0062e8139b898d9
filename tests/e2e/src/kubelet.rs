//! Pods played where no kubelet runs: a pod is an object that is shown as Ready, and a process of this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(200);

/// Plays the pods of one namespace, one for each Deployment that has replicas, until it is dropped.
pub struct Kubelet {
    // Ended with this value.
    _loop: JoinSet<()>,
}

struct Node {
    client: Client,
    namespace: String,
    program: PathBuf,
    environment: Vec<(String, String)>,
    running: BTreeMap<String, Child>,
}

impl Kubelet {
    /// Runs `program` for each pod, with the variables of its container that have a value, and with `environment` on top.
    #[must_use]
    pub fn start(client: Client, namespace: &str, program: PathBuf, environment: Vec<(String, String)>) -> Self {
        let namespace = namespace.to_owned();
        let mut node = Node { client, namespace, program, environment, running: BTreeMap::new() };
        let mut looks = JoinSet::new();
        looks.spawn(async move {
            loop {
                if let Err(error) = node.look().await {
                    println!("the kubelet that is played: {error:#}");
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { _loop: looks }
    }
}

impl Node {
    async fn look(&mut self) -> Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), &self.namespace);
        let all = deployments.list(&ListParams::default()).await?.items;
        let wanted = |child: &&Deployment| child.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1) > 0;
        for child in all.iter().filter(wanted) {
            if !self.running.contains_key(&child.name_any()) {
                self.begin(child).await.with_context(|| format!("begin a pod of {}", child.name_any()))?;
            }
        }
        let names: Vec<_> = all.iter().filter(wanted).map(|child| child.name_any()).collect();
        let over: Vec<_> = self.running.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in over {
            self.end(&name).await.with_context(|| format!("end the pod of {name}"))?;
        }
        for child in &all {
            let count = i32::from(self.running.contains_key(&child.name_any()));
            let shown = child.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
            if shown != count {
                let status = json!({"status": {"replicas": count, "readyReplicas": count}});
                let params = PatchParams::default();
                deployments.patch_status(&child.name_any(), &params, &Patch::Merge(&status)).await?;
            }
        }
        Ok(())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn begin(&mut self, child: &Deployment) -> Result<()> {
        let name = child.name_any();
        let template = child.spec.as_ref().map(|spec| spec.template.clone()).context("no template")?;
        let container = template.spec.as_ref().and_then(|spec| spec.containers.first()).context("no container")?;
        let variables = container.env.iter().flatten().filter_map(|one| Some((one.name.clone(), one.value.clone()?)));
        let process = Command::new(&self.program)
            .envs(variables)
            .envs(self.environment.iter().cloned())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "worker", "image": "played:1"}]},
        }))?;
        self.pods().create(&PostParams::default(), &pod).await?;
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        self.pods().patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
        self.running.insert(name, process);
        Ok(())
    }

    /// The process ends what it runs.
    async fn end(&mut self, name: &str) -> Result<()> {
        if let Some(process) = self.running.get_mut(name) {
            if let Some(pid) = process.id().and_then(|pid| i32::try_from(pid).ok()) {
                kill(Pid::from_raw(pid), Signal::SIGTERM)?;
            }
            process.wait().await?;
        }
        self.pods().delete(name, &DeleteParams::default().grace_period(0)).await?;
        self.running.remove(name);
        Ok(())
    }
}
