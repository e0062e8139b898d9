//! The operator as a process of this machine, against etcd and the API server alone and a Temporal server: no pods run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use harness::control_plane::free_ports;
use harness::launch::{Launch, Place, Running};
use harness::programs::{self, Profile, Programs};
use harness::tools::{Tool, Tools};
use harness::{AuditEvent, ControlPlane, TemporalOptions, TemporalServer};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use operator_core::names::LEASE_NAME;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ground::Ground;
use crate::suite::Environment;
use crate::wait::{SOON, eventually};

/// What the scenarios share.
pub struct HostBed {
    /// etcd and the API server.
    pub control_plane: ControlPlane,
    /// A client with all rights.
    pub client: Client,
    /// The Temporal server.
    pub server: TemporalServer,
    /// Programs that were built from the tree.
    pub programs: Programs,
    /// The operator of all scenarios that don't run their own.
    pub operator: Operator,
}

/// A running operator.
pub struct Operator {
    /// Its process.
    pub process: Running,
    /// Port of its metrics.
    pub metrics_port: u16,
    logs: TempDir,
}

impl Environment for HostBed {
    async fn start() -> Result<Self> {
        let server = TemporalServer::start(TemporalOptions::default());
        let (programs, control_plane, server) =
            tokio::join!(Programs::build(Profile::own()), ControlPlane::start(), server);
        let (programs, control_plane, server) = (programs?, control_plane?, server?);
        let client = control_plane.client();
        install_kinds(&client).await?;
        let operator = Operator::start(&programs, control_plane.kubeconfig_path(), &[]).await?;
        Ok(Self { control_plane, client, server, programs, operator })
    }

    async fn explain(&self, _scenario: &str) -> String {
        format!("the operator's log:\n{}", self.operator.log().unwrap_or_default())
    }

    fn stop(self) -> Result<()> {
        let Self { control_plane, client, server, programs: _, operator } = self;
        operator.kill()?;
        drop((client, server));
        control_plane.stop()
    }
}

impl HostBed {
    /// A namespace for a scenario, with a Connection to the shared server.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn ground(&self, name: &str) -> Result<Ground> {
        Ground::with_connection(self.client.clone(), name, &self.server.host_port()).await
    }

    /// Requests of a namespace that the API server has finished, oldest first.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn writes_in(&self, namespace: &str) -> Result<Vec<AuditEvent>> {
        let mut events = self.control_plane.audit_events()?;
        events.retain(|event| event.namespace == namespace);
        Ok(events)
    }
}

impl Operator {
    /// Starts the operator with a kubeconfig and waits until its caches are filled.
    ///
    /// # Errors
    /// It ends, or is not ready in time: the message holds its log.
    pub async fn start(programs: &Programs, kubeconfig: &Path, flags: &[&str]) -> Result<Self> {
        Self::start_with(programs, kubeconfig, flags, &[]).await
    }

    /// The same with more in its environment.
    ///
    /// # Errors
    /// As [`Operator::start`].
    pub async fn start_with(
        programs: &Programs,
        kubeconfig: &Path,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let tools = Tools::ensure_async(&[Tool::Pause]).await?;
        let logs = tempfile::tempdir()?;
        let [metrics_port, probes_port] = free_ports()?;
        let mut arguments: Vec<OsString> = vec![
            format!("--metrics-bind-address=127.0.0.1:{metrics_port}").into(),
            format!("--health-probe-bind-address=127.0.0.1:{probes_port}").into(),
        ];
        arguments.extend(flags.iter().map(OsString::from));
        let (variable, value) = programs::OPERATOR_ENVIRONMENT;
        let variables = [("KUBECONFIG", kubeconfig.into()), (variable, value.into())];
        let more = environment.iter().map(|(name, value)| (*name, value.into()));
        let mark = logs.path().display().to_string();
        let process = Place::Guarded { pause: tools.program("pause")?, mark: &mark }.launch(Launch {
            name: "operator",
            program: programs.program("temporal-worker-operator")?,
            arguments,
            environment: variables.into_iter().chain(more).collect(),
            logs: logs.path(),
            goes_first: false,
        })?;
        let operator = Self { process, metrics_port, logs };
        let ready = eventually("the operator is ready", async || {
            let answer = reqwest::get(format!("http://127.0.0.1:{probes_port}/readyz")).await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            Ok(())
        });
        ready.await.with_context(|| operator.log().unwrap_or_default())?;
        Ok(operator)
    }

    /// Everything that it logged.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.logs.path().join("operator.log"))?)
    }

    /// Its metrics page.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(reqwest::get(format!("http://127.0.0.1:{}/metrics", self.metrics_port)).await?.text().await?)
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }
}

fn crds() -> Result<Vec<(String, Value)>> {
    let folder = programs::source_root().join("crds");
    let files = std::fs::read_dir(&folder)?.map(|file| Ok(file?.path())).collect::<Result<Vec<PathBuf>>>()?;
    let yaml = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let read = |path: PathBuf| {
        let crd: Value = serde_yaml::from_str(&std::fs::read_to_string(path)?)?;
        Ok((crd["metadata"]["name"].as_str().context("a kind without a name")?.to_owned(), crd))
    };
    yaml.map(read).collect()
}

/// Applies the generated kinds, and waits until they are served.
///
/// # Errors
/// The API server refuses.
pub async fn install_kinds(client: &Client) -> Result<()> {
    install_kinds_but(client, &[]).await
}

/// Applies the generated kinds but those of these names, and waits until they are served.
///
/// # Errors
/// The API server refuses.
pub async fn install_kinds_but(client: &Client, left_out: &[&str]) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (name, crd) in crds()?.into_iter().filter(|(name, _)| !left_out.contains(&name.as_str())) {
        api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&crd)).await?;
        let established = await_condition(api.clone(), &name, is_crd_established());
        tokio::time::timeout(SOON, established).await.with_context(|| format!("{name} is not established"))??;
    }
    Ok(())
}

/// Writes a kubeconfig with a token of a ServiceAccount that exists, by which the API server knows who asks.
///
/// # Errors
/// The API server gives no token, or the file can't be written.
pub async fn write_kubeconfig_of(
    control_plane: &ControlPlane,
    (namespace, account): (&str, &str),
    path: &Path,
) -> Result<()> {
    let accounts = Api::<ServiceAccount>::namespaced(control_plane.client(), namespace);
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": []}}))?;
    let token = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let token = token.status.context("no token")?.token;
    let mut config = serde_json::to_value(Kubeconfig::read_from(control_plane.kubeconfig_path())?)?;
    config["users"][0]["user"] = json!({"token": token});
    Ok(std::fs::write(path, serde_yaml::to_string(&config)?)?)
}

/// Name of the replica that holds the Lease in a namespace.
///
/// # Errors
/// None does.
pub async fn holder(client: &Client, namespace: &str) -> Result<String> {
    let lease = Api::<Lease>::namespaced(client.clone(), namespace).get(LEASE_NAME).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty());
    let holder = holder.context("nobody holds the Lease")?;
    Ok(holder.rsplit_once('_').map_or(holder.as_str(), |(replica, _)| replica).to_owned())
}
