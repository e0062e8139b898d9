//! Two replicas of the operator with the push endpoint, a Temporal server with compute providers that calls it, and a fleet
//! at zero. No pods run: the Worker is played.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::control_plane::free_ports;
use harness::pki::{Authority, User};
use harness::programs::{Profile, Programs};
use harness::{AuditEvent, ControlPlane, TemporalOptions, TemporalServer};
use jiff::Timestamp;
use kube::Client;
use kube::api::{Patch, PatchParams};
use operator_core::api::WorkerDeployment;
use operator_core::names::PUSH_TOKEN_SERIAL_ANNOTATION;
use rand::RngExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ground::{Ground, TEMPORAL_NAMESPACE};
use crate::host::{Operator, holder, install_kinds};
use crate::service::Service;
use crate::wait::eventually;
use crate::worker::Worker;

/// Name of the fleet, and of its Task Queue.
pub const FLEET: &str = "pushed";
const NAMESPACE: &str = "push";
const REPLICAS: [&str; 2] = ["replica-a", "replica-b"];
/// Queues of another fleet at zero, which have to be watched too.
const CROWD: usize = 20;
/// With it, the queues of all fleets are read each 2.3 s: what the budget is to 60 of them in the default setting.
const CALLS_PER_SECOND: &str = "--temporal-calls-per-second=40";
/// Up to this long is waited before a task, so that tasks don't come in step with the operator's readings.
const PAUSE_MS: u64 = 2500;

/// Who takes the calls of the Temporal server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// The replica that leads.
    Leader,
    /// The other one.
    Standby,
    /// None: the operator finds the task by itself.
    Nobody,
}

/// One trial.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The server accepted the task.
    pub accepted: Timestamp,
    /// The API server received the write that raised the replicas.
    pub patched: Timestamp,
}

impl Trial {
    /// From the one to the other, in milliseconds.
    #[must_use]
    pub fn milliseconds(&self) -> f64 {
        self.patched.duration_since(self.accepted).as_secs_f64() * 1000.0
    }
}

/// Everything together.
pub struct Push {
    /// A client with all rights.
    pub client: Client,
    /// The fleet's namespace.
    pub ground: Ground,
    /// The two replicas.
    pub operators: Vec<Operator>,
    control_plane: ControlPlane,
    server: TemporalServer,
    programs: Programs,
    service: Service,
    worker: Worker,
    tls: TempDir,
    targets: [u16; 2],
}

impl Push {
    /// Starts all of it, and waits until the fleet rests at zero.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start() -> Result<Self> {
        let options = TemporalOptions {
            dynamic_config: vec![
                ("workercontroller.enabled".into(), "true".into()),
                ("workercontroller.compute_providers.enabled".into(), r#"["k8s"]"#.into()),
            ],
            ..TemporalOptions::default()
        };
        let (programs, control_plane, server) =
            tokio::join!(Programs::build(Profile::own()), ControlPlane::start(), TemporalServer::start(options));
        let (programs, control_plane, server) = (programs?, control_plane?, server?);
        let client = control_plane.client();
        install_kinds(&client).await?;
        let ground = Ground::with_connection(client.clone(), NAMESPACE, &server.host_port()).await?;
        let tls = certificate()?;
        let targets = free_ports::<2>()?;
        let mut operators = Vec::new();
        for (replica, port) in REPLICAS.iter().zip(targets) {
            let flags = flags(replica, port, &tls);
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            operators.push(Operator::start(&programs, control_plane.kubeconfig_path(), &flags).await?);
        }
        let worker = Worker::of(&server.host_port(), TEMPORAL_NAMESPACE, FLEET)?;
        let service = Service::start().await?;
        let push = Self { client, ground, operators, control_plane, server, programs, service, worker, tls, targets };
        push.set_up().await?;
        Ok(push)
    }

    async fn set_up(&self) -> Result<()> {
        self.ground.apply(&fleet()).await?;
        self.ground.apply(&crowd()).await?;
        let build_id = eventually("the fleet has a version", async || {
            let status = self.ground.status(FLEET).await?;
            let build_id = status.target_version.version.build_id;
            ensure!(!build_id.is_empty(), "it has none");
            Ok(build_id)
        })
        .await?;
        let deployment = operator_core::names::temporal_deployment_name(NAMESPACE, FLEET);
        self.worker.register(&deployment, &build_id).await?;
        self.worker.make_current().await?;
        self.rests("crowd").await?;
        self.rests(FLEET).await
    }

    /// Waits until a fleet has no replicas.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn rests(&self, fleet: &str) -> Result<()> {
        eventually(&format!("{fleet} is at zero"), async || {
            let replicas = self.ground.replicas(fleet).await?;
            ensure!(replicas == 0, "{replicas} replicas");
            Ok(())
        })
        .await
    }

    /// Has the Temporal server call the endpoint, with the request that the operator prints.
    ///
    /// # Errors
    /// The server refuses: it looks whether the Deployment exists.
    pub async fn connect(&self) -> Result<()> {
        self.worker.set_compute_config(&self.print_request()?).await
    }

    fn print_request(&self) -> Result<Value> {
        let program = self.programs.program("temporal-worker-operator")?;
        let server = format!("https://{}", self.service.address());
        let output = Command::new(program)
            .env("KUBECONFIG", self.control_plane.kubeconfig_path())
            .args(["push-kubeconfig", &format!("{NAMESPACE}/{FLEET}"), "--request", "--server", &server])
            .args(["--operator-namespace", NAMESPACE, "--ca"])
            .arg(self.tls.path().join("ca.crt"))
            .output()?;
        ensure!(output.status.success(), "push-kubeconfig: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Revokes the fleet's token.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn revoke(&self) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {PUSH_TOKEN_SERIAL_ANNOTATION: "1"}}});
        self.ground.api::<WorkerDeployment>().patch(FLEET, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Index of the replica that leads.
    ///
    /// # Errors
    /// None does.
    pub async fn leader(&self) -> Result<usize> {
        let holder = eventually("one leads", async || holder(&self.client, NAMESPACE).await).await?;
        REPLICAS.iter().position(|replica| *replica == holder).with_context(|| format!("{holder} leads"))
    }

    /// Aims the calls of the Temporal server at a replica.
    ///
    /// # Errors
    /// None leads.
    pub async fn aim(&self, through: Through) -> Result<()> {
        let leader = self.leader().await?;
        let target = match through {
            Through::Leader => Some(self.targets[leader]),
            Through::Standby => Some(self.targets[1 - leader]),
            Through::Nobody => None,
        };
        self.service.aim(target);
        Ok(())
    }

    /// One task for the fleet at zero; afterwards it rests at zero again.
    ///
    /// # Errors
    /// The task finds no replicas, or the fleet does not come to rest.
    pub async fn trial(&self, through: Through) -> Result<Trial> {
        self.aim(through).await?;
        self.rests(FLEET).await?;
        let pause = rand::rng().random_range(500..PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let accepted = self.worker.start_workflow().await?;
        eventually("the replicas are raised", async || {
            ensure!(self.ground.replicas(FLEET).await? > 0, "there are none");
            Ok(())
        })
        .await?;
        self.worker.complete_workflow().await?;
        let raised = self.scales()?.into_iter().find(|write| write.time >= accepted && write.replicas != Some(0));
        let patched = raised.context("nobody raised the replicas")?.time;
        self.rests(FLEET).await?;
        Ok(Trial { accepted, patched })
    }

    /// Writes of the fleet's scale that succeeded, oldest first.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn scales(&self) -> Result<Vec<AuditEvent>> {
        let mut events = self.control_plane.audit_events()?;
        events.retain(|event| {
            event.resource == "deployments/scale"
                && event.namespace == NAMESPACE
                && event.name.starts_with(FLEET)
                && event.code < 300
                && event.verb != "get"
        });
        Ok(events)
    }

    /// Calls that a replica's endpoint took, by what became of them.
    ///
    /// # Errors
    /// Its metrics can't be read.
    pub async fn calls(&self, replica: usize) -> Result<BTreeMap<String, u64>> {
        let page = self.operators[replica].metrics().await?;
        let calls = page.lines().filter_map(|line| {
            let rest = line.strip_prefix("temporal_worker_operator_push_calls_total{outcome=\"")?;
            let (outcome, count) = rest.split_once("\"} ")?;
            Some((outcome.to_owned(), count.parse().ok()?))
        });
        Ok(calls.collect())
    }

    /// Ends all of it.
    ///
    /// # Errors
    /// Something does not end.
    pub fn stop(self) -> Result<()> {
        let Self { operators, control_plane, mut server, ground, service, worker, client, .. } = self;
        drop((ground, service, worker, client));
        for operator in operators {
            operator.kill()?;
        }
        server.kill()?;
        control_plane.stop()
    }
}

fn flags(replica: &str, port: u16, tls: &TempDir) -> Vec<String> {
    let mut flags: Vec<String> =
        ["--leader-elect", "--pod-namespace", NAMESPACE, "--pod-name", replica].map(Into::into).into();
    flags.extend([
        CALLS_PER_SECOND.to_owned(),
        format!("--push-bind-address=127.0.0.1:{port}"),
        format!("--push-tls-dir={}", tls.path().display()),
    ]);
    flags
}

fn certificate() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "push")?;
    let user = User { name: "push", group: "operator" };
    authority.sign("tls", user, &[std::net::Ipv4Addr::LOCALHOST.into()], &["push.operator.svc"])?;
    Ok(folder)
}

/// A fleet of Workers that scales to zero soon.
fn fleet() -> Value {
    json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "metadata": {"name": FLEET},
        "spec": {
            "workerOptions": {"connectionRef": {"name": crate::ground::CONNECTION}, "temporalNamespace": TEMPORAL_NAMESPACE},
            "template": {"spec": {"containers": [{"name": "worker", "image": "worker:1"}]}},
            "scaling": {"minReplicas": 0, "maxReplicas": 3, "idleWindow": "1s"},
            "rollout": {"strategy": "AllAtOnce"},
            "sunset": {},
        },
    })
}

/// A fleet with many Task Queues and nothing to do.
fn crowd() -> Value {
    let queues: Vec<_> = (0..CROWD).map(|n| json!({"name": format!("crowd-{n}"), "types": ["Activity"]})).collect();
    let mut crowd = fleet();
    crowd["metadata"]["name"] = json!("crowd");
    crowd["spec"]["versioning"] = json!("Disabled");
    crowd["spec"]["scaling"]["taskQueues"] = json!(queues);
    crowd
}
