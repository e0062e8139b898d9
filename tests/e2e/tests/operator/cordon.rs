//! Orders to pods of the runtime: whose key signs them, whom they reach, and what the cluster shows of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::ground::runtime_fleet;
use e2e::wait::within;
use e2e::{Ground, HostBed, eventually};
use harness::control_plane::free_ports;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use operator_core::contract::CordonStatus;
use operator_core::names::{CORDONED_ANNOTATION, DEPLOYMENT_NAME_LABEL, ORDER_KEY_SECRET};
use serde_json::{Value, json};

use crate::runtime_support::{Worker, exec};

const FLEET: &str = "pool";
/// Time from a change of the manifest to what follows from it, with the ten seconds that open polls take.
const A_WHILE: Duration = Duration::from_secs(60);

/// A pod that the API server has, and the process that runs in it.
struct Inhabited {
    name: String,
    worker: Worker,
}

impl Inhabited {
    async fn start(ground: &Ground, bed: &HostBed, name: &str, limits: &Value) -> Result<Self> {
        let [metrics, probes] = free_ports()?;
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {DEPLOYMENT_NAME_LABEL: FLEET}},
            "spec": {"containers": [{"name": "runtime", "image": "runtime:1", "ports": [
                {"name": "metrics", "containerPort": metrics}, {"name": "probes", "containerPort": probes}]}]},
        }))?;
        let uid = ground.api::<Pod>().create(&PostParams::default(), &pod).await?.uid().context("no uid")?;
        let at = |port: u16| format!("127.0.0.1:{port}");
        let environment = [
            ("POD_UID", uid),
            ("WORKER_RUNTIME_METRICS_BIND_ADDRESS", at(metrics)),
            ("WORKER_RUNTIME_HEALTH_PROBE_BIND_ADDRESS", at(probes)),
        ];
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        let worker = Worker::start(&bed.server.host_port(), &exec(&["true"]), limits, &environment)?;
        worker.wait_ready().await;
        let status = json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        ground.api::<Pod>().patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(Self { name: name.to_owned(), worker })
    }

    async fn status(&self) -> Result<CordonStatus> {
        let (_, body) = self.worker.probe("/cordon").await.context("no answer")?;
        Ok(serde_json::from_str(&body)?)
    }

    async fn is_shown(&self, ground: &Ground) -> Result<bool> {
        let pod = ground.api::<Pod>().get(&self.name).await?;
        Ok(pod.annotations().get(CORDONED_ANNOTATION).is_some_and(|value| value == "true"))
    }
}

/// The limits file that the operator wrote for the fleet.
async fn limits(ground: &Ground) -> Result<Value> {
    let map = ground.api::<ConfigMap>().get(&format!("{FLEET}-runtime-limits")).await?;
    let limits = map.data.unwrap_or_default().remove("limits.json").context("no limits.json")?;
    let limits: Value = serde_json::from_str(&limits)?;
    ensure!(limits["orderKeys"][0].is_string(), "no key in {limits}");
    Ok(limits)
}

pub async fn a_pod_too_many_is_cordoned_then_removed_and_taken_back_on_demand(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("cordon").await?;
    let mut fleet = runtime_fleet(FLEET, "q", 4);
    fleet["spec"]["versioning"] = json!("Disabled");
    fleet["spec"]["scaling"] = json!({"minReplicas": 2, "maxReplicas": 2});
    ground.apply(&fleet).await?;
    let limits = eventually("the limits hold the operator's key", async || limits(&ground).await).await?;
    let pods = [
        Inhabited::start(&ground, &bed, "pool-a", &limits).await?,
        Inhabited::start(&ground, &bed, "pool-b", &limits).await?,
    ];
    eventually("two replicas", async || {
        let replicas = ground.replicas(FLEET).await?;
        ensure!(replicas == 2, "{replicas}");
        Ok(())
    })
    .await?;
    for pod in &pods {
        ensure!(!pod.status().await?.cordoned && !pod.is_shown(&ground).await?, "{} is cordoned", pod.name);
    }

    fleet["spec"]["scaling"] = json!({"minReplicas": 0, "maxReplicas": 1, "idleWindow": "10m"});
    ground.apply(&fleet).await?;
    within(A_WHILE, "one replica", async || {
        let replicas = ground.replicas(FLEET).await?;
        ensure!(replicas == 1, "{replicas}");
        Ok(())
    })
    .await?;
    // Nobody removes pods here, so that the one that goes can be asked.
    let mut cordoned = Vec::new();
    for pod in &pods {
        if pod.status().await?.cordoned {
            cordoned.push(pod);
        }
    }
    ensure!(cordoned.len() == 1, "{} pods are cordoned", cordoned.len());
    let goes = cordoned[0];
    let status = goes.status().await?;
    ensure!(status.empty, "it went with {status:?}");
    eventually("the cluster shows it", async || {
        ensure!(goes.is_shown(&ground).await?, "{} has no annotation", goes.name);
        Ok(())
    })
    .await?;

    fleet["spec"]["scaling"] = json!({"minReplicas": 2, "maxReplicas": 2});
    ground.apply(&fleet).await?;
    within(A_WHILE, "it takes tasks again", async || {
        ensure!(!goes.status().await?.cordoned, "still cordoned");
        ensure!(!goes.is_shown(&ground).await?, "still shown");
        Ok(())
    })
    .await
}

pub async fn the_key_is_one_secret_of_the_operators_own_namespace(bed: Arc<HostBed>) -> Result<()> {
    let ground = bed.ground("order-key").await?;
    let mut fleet = runtime_fleet(FLEET, "q", 4);
    fleet["spec"]["versioning"] = json!("Disabled");
    ground.apply(&fleet).await?;
    let limits = eventually("the limits hold the operator's key", async || limits(&ground).await).await?;
    let secrets: Api<Secret> = Api::all(bed.client.clone());
    let found = secrets.list(&kube::api::ListParams::default()).await?.items;
    let own: Vec<_> = found.iter().filter(|secret| secret.name_any() == ORDER_KEY_SECRET).collect();
    let [secret] = own.as_slice() else { anyhow::bail!("{} such Secrets", own.len()) };
    ensure!(
        secret.namespace().as_deref() == Some("default") && secret.immutable == Some(true),
        "{:?}",
        secret.metadata
    );
    let seed = secret.data.as_ref().and_then(|data| data.get("seed")).context("no seed")?;
    let key = operator_core::cordon::OrderKey::from_seed(&seed.0).context("no key")?;
    ensure!(limits["orderKeys"] == json!([key.public()]), "{limits}");
    let hex: String = seed.0.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(!bed.operator.log()?.contains(&hex) && !limits.to_string().contains(&hex), "the private key is shown");
    Ok(())
}
