//! Keys and certificates that change while tasks run.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::bed::GO_WORKER_IMAGE;
use e2e::codec::{self, KEYS};
use e2e::endpoint::{Authority, Endpoint, Signed};
use e2e::ground::{CONNECTION, Ground, TEMPORAL_NAMESPACE, runtime_fleet};
use e2e::history::Activity;
use e2e::stream::Stream;
use e2e::tasks::{Order, payload};
use e2e::{ClusterBed, eventually};
use kube::ResourceExt as _;
use operator_core::contract::{RUNTIME_CONTAINER, SIDECAR_CONTAINER, TLS_MOUNT_PATH};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

const FLEET: &str = "rotating";
const KEYS_QUEUE: &str = "rotating-keys";
const CERTIFICATES_QUEUE: &str = "rotating-certificates";
const SIDECARS_QUEUE: &str = "rotating-sidecars";
/// Seconds that a task of the runtime takes, and milliseconds that one of the Worker in Go does.
const TASK: f64 = 0.5;
const GO_TASK: u64 = 500;
/// Time within which a new certificate is in use once its file is in the pod.
const TAKEN: Duration = Duration::from_secs(10);
/// Time after which a poll has been answered.
const POLL: Duration = Duration::from_secs(12);

/// Two pods, a third of whose slots the stream keeps busy.
fn fleet(task_queue: &str) -> Value {
    let mut fleet = runtime_fleet(FLEET, task_queue, 3);
    fleet["spec"]["scaling"] = json!({"minReplicas": 2, "maxReplicas": 2});
    fleet
}

/// Waits until both pods of the fleet serve, and gives how often each was started again.
async fn served(ground: &Ground) -> Result<BTreeMap<String, i32>> {
    ground.is_current(FLEET).await?;
    eventually("two pods serve", async || ground.settled_at(FLEET, 2).await).await?;
    ground.restarts(FLEET).await
}

fn keys(ids: &[&str]) -> Value {
    let known = KEYS.iter().filter(|(id, _)| ids.contains(id));
    let data: BTreeMap<_, _> = known.map(|(id, key)| (*id, STANDARD.encode(key))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "data": data})
}

fn encryption(write: &str, read: &[&str]) -> Value {
    let key = |id: &str| json!({"id": id, "secretKeyRef": {"name": "keys", "key": id}});
    let read: Vec<_> = read.iter().map(|id| key(id)).collect();
    json!({"mode": "Require", "writeKey": key(write), "readKeys": read})
}

/// The same tasks with their arguments encrypted with the first key, and with the second.
fn sealed(order: &Order) -> Result<[Order; 2]> {
    let plain: Vec<_> = order.inputs.iter().map(payload).collect();
    let with = |key| {
        let inputs = codec::seal(key, &plain)?.iter().map(codec::to_json).collect();
        anyhow::Ok(Order { inputs, sealed: true, ..order.clone() })
    };
    Ok([with("k1")?, with("k2")?])
}

/// Waits until every pod has encrypted what it did last with a key.
async fn all_write(ground: &Ground, stream: &Stream<'_>, key: &str) -> Result<()> {
    let mut last = BTreeMap::new();
    ground
        .once_mounted(FLEET, &format!("every pod writes with {key}"), async || {
            for activity in stream.next().await?.into_values() {
                last.insert(activity.worker, activity.payloads.last().and_then(codec::key_of));
            }
            let all = last.len() == 2 && last.values().all(|written| written.as_deref() == Some(key));
            ensure!(all, "{last:?}");
            Ok(())
        })
        .await
}

/// Adds a key that pods read and write with from then on. `encrypted` is the part of the manifest that names keys.
async fn change_key(
    ground: &Ground,
    fleet: &mut Value,
    encrypted: &str,
    stream: &Stream<'_>,
    use_new_key: impl FnOnce(),
) -> Result<()> {
    all_write(ground, stream, "k1").await?;
    ground.apply(&keys(&["k1", "k2"])).await?;
    fleet["spec"][encrypted]["encryption"] = encryption("k2", &["k1"]);
    ground.apply(fleet).await?;
    all_write(ground, stream, "k2").await?;
    // What the pods can read, the clients may write.
    use_new_key();
    stream.next().await?;
    stream.next().await.map(drop)
}

/// Fails unless all payloads can be read and say `said`, and tasks ran with the first key, both, and the second.
async fn check_payloads(ended: Vec<Activity>, said: Value) -> Result<()> {
    let pairs = ended.iter().map(|one| one.payloads.iter().map(codec::key_of).collect());
    let pairs: BTreeSet<Vec<_>> = pairs.collect();
    let key = |id: &str| Some(id.to_owned());
    for pair in [["k1", "k1"], ["k1", "k2"], ["k2", "k2"]] {
        ensure!(pairs.contains(&pair.map(key)[..]), "no task had keys {pair:?} of argument and result: {pairs:?}");
    }
    let payloads: Vec<_> = ended.into_iter().flat_map(|one| one.payloads).collect();
    for opened in spawn_blocking(move || codec::open(&payloads)).await?? {
        let value: Value = serde_json::from_slice(&opened.data)?;
        ensure!(value == said, "a payload says {value}");
    }
    Ok(())
}

pub async fn keys_change_under_load_and_every_payload_can_be_read(bed: Arc<ClusterBed>) -> Result<()> {
    let ground = bed.ground("keys_change_under_load").await?;
    ground.apply(&keys(&["k1"])).await?;
    let mut fleet = fleet(KEYS_QUEUE);
    fleet["spec"]["runtime"]["encryption"] = encryption("k1", &[]);
    ground.apply(&fleet).await?;
    let before = served(&ground).await?;
    let [first, second] = spawn_blocking(|| sealed(&Order::work(KEYS_QUEUE, 4, TASK))).await??;

    let tasks = bed.tasks()?;
    let (stream, clients_have) = (Stream::of(&tasks), Cell::new(&first));
    let rotate = change_key(&ground, &mut fleet, "runtime", &stream, || clients_have.set(&second));
    stream.during(|| clients_have.get().clone(), rotate).await?;
    let ended = stream.ends_once_each().await?;
    ensure!(ground.restarts(FLEET).await? == before, "pods were replaced or restarted: {before:?}");
    check_payloads(ended, json!(TASK)).await
}

/// The Secret of a client certificate.
fn certificate(signed: &Signed, authority: &Authority) -> Value {
    let data = json!({"tls.crt": signed.certificate, "tls.key": signed.key, "ca.crt": authority.pem});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "client"},
        "type": "kubernetes.io/tls", "stringData": data})
}

/// Where each pod of the fleet has its certificate, seen from this machine, by the pod's address.
async fn files(bed: &ClusterBed, ground: &Ground, container: &str) -> Result<BTreeMap<IpAddr, String>> {
    let mut files = BTreeMap::new();
    for pod in ground.pods(FLEET).await? {
        let processes = bed.container_processes((&ground.namespace, &pod.name_any()), container).await?;
        // The runtime was there before its handlers' programs.
        let process = processes.into_iter().min().context("no process")?;
        let address = pod.status.and_then(|status| status.pod_ip).context("no address")?;
        files.insert(address.parse()?, format!("/proc/{process}/root{TLS_MOUNT_PATH}/tls.crt"));
    }
    Ok(files)
}

/// Waits until a certificate is in every pod, and gives when it was.
async fn mounted(ground: &Ground, files: &BTreeMap<IpAddr, String>, new: &Signed) -> Result<BTreeMap<IpAddr, Instant>> {
    let mut since = BTreeMap::new();
    ground
        .once_mounted(FLEET, "the new certificate is in the pods", async || {
            for (address, file) in files {
                if std::fs::read_to_string(file)? == new.certificate {
                    since.entry(*address).or_insert_with(Instant::now);
                }
            }
            ensure!(since.len() == files.len(), "it is in {since:?}");
            Ok(())
        })
        .await?;
    Ok(since)
}

/// Waits until each pod uses a certificate, and checks how long that took since its file was there.
async fn used(endpoint: &Endpoint, new: &Signed, since: &BTreeMap<IpAddr, Instant>) -> Result<()> {
    for (pod, since) in since {
        let seen = eventually("the new certificate is used", async || {
            endpoint.seen(new).into_iter().find(|seen| seen.peer == *pod).with_context(|| format!("not by {pod}"))
        })
        .await?;
        let took = seen.at.saturating_duration_since(*since);
        ensure!(took <= TAKEN, "pod {pod} used its new certificate after {took:?}");
    }
    Ok(())
}

/// Has the endpoint refuse the old certificate, once no pod waits for anything that it asked with it.
async fn retire(endpoint: &Endpoint, (old, new): (&Signed, &Signed), pods: &BTreeSet<IpAddr>) -> Result<()> {
    eventually("no pod polls with the old certificate", async || {
        let mut left = endpoint.seen(old);
        left.retain(|seen| pods.contains(&seen.peer) && seen.open && seen.last.elapsed() < POLL);
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    endpoint.call(old).await.context("the old certificate before it was revoked")?;
    ensure!(endpoint.refused().is_empty(), "{:?}", endpoint.refused());
    endpoint.revoke(old)?;
    ensure!(endpoint.call(old).await.is_err(), "the old certificate is still good");
    // The client learns of it first.
    eventually("the refusal of the old certificate is noted", async || {
        ensure!(endpoint.refused().iter().any(|one| one.why.contains("Revoked")), "{:?}", endpoint.refused());
        Ok(())
    })
    .await?;
    endpoint.call(new).await.context("the new certificate")
}

/// Waits until the operator, which was cut off, has looked for the new certificate, and is content.
async fn operator_follows(bed: &ClusterBed, ground: &Ground, (endpoint, new): (&Endpoint, &Signed)) -> Result<()> {
    let pods = bed.operator_pods().await?;
    let addresses = pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok());
    let addresses: BTreeSet<IpAddr> = addresses.collect();
    eventually("the operator has the new certificate", async || {
        ensure!(endpoint.seen(new).iter().any(|seen| addresses.contains(&seen.peer)), "not seen from {addresses:?}");
        ground.has_condition(FLEET, ("ConnectionHealthy", "True", "ConnectionHealthy")).await.map(drop)
    })
    .await
}

/// An endpoint in front of the server that knows clients by their certificates, a namespace with a Connection to it, and the
/// certificate that is there and the one that follows.
async fn certified(bed: &ClusterBed, namespace: &str) -> Result<(Ground, Endpoint, [Signed; 2])> {
    let ground = Ground::bare(bed.client.clone(), namespace).await?;
    let host = bed.cluster.network().host();
    let endpoint = Endpoint::start(Authority::new()?, host.into(), &bed.server.host_port()).await?;
    let authority = endpoint.authority();
    let signed = [authority.sign("worker", 2090)?, authority.sign("worker", 2091)?];
    ground.apply(&certificate(&signed[0], authority)).await?;
    let connection = json!({"apiVersion": "temporal.io/v1alpha1", "kind": "Connection",
        "metadata": {"name": CONNECTION},
        "spec": {"hostPort": endpoint.address, "mutualTLSSecretRef": {"name": "client"}}});
    ground.apply(&connection).await?;
    Ok((ground, endpoint, signed))
}

/// Puts the new certificate in the old one's place, and revokes that once nobody uses it any more.
async fn change_certificate(
    bed: &ClusterBed,
    ground: &Ground,
    (endpoint, [old, new]): (&Endpoint, &[Signed; 2]),
    container: &str,
    stream: &Stream<'_>,
) -> Result<()> {
    stream.next().await?;
    let files = files(bed, ground, container).await?;
    ensure!(files.len() == 2 && endpoint.seen(new).is_empty(), "{files:?}");
    ground.apply(&certificate(new, endpoint.authority())).await?;
    let since = mounted(ground, &files, new).await?;
    used(endpoint, new, &since).await?;
    let pods = files.into_keys().collect();
    retire(endpoint, (old, new), &pods).await?;
    operator_follows(bed, ground, (endpoint, new)).await?;
    stream.next().await.with_context(|| format!("connections are {:?}", endpoint.seen(new)))?;
    let refused = endpoint.refused().into_iter().find(|refused| pods.contains(&refused.peer));
    ensure!(refused.is_none(), "a pod came back with the old certificate: {refused:?}");
    Ok(())
}

pub async fn a_new_certificate_is_taken_under_load_and_the_old_one_is_not_missed(bed: Arc<ClusterBed>) -> Result<()> {
    let (ground, endpoint, signed) = certified(&bed, "a-new-certificate-is-taken-under-load").await?;
    ground.apply(&fleet(CERTIFICATES_QUEUE)).await?;
    let before = served(&ground).await?;
    let tasks = bed.tasks()?;
    let stream = Stream::of(&tasks);
    let rotate = change_certificate(&bed, &ground, (&endpoint, &signed), RUNTIME_CONTAINER, &stream);
    stream.during(|| Order::work(CERTIFICATES_QUEUE, 4, TASK), rotate).await?;
    stream.ends_once_each().await?;
    ensure!(ground.restarts(FLEET).await? == before, "pods were replaced or restarted: {before:?}");
    Ok(())
}

/// Two pods of a Worker in Go that knows of no key and no certificate.
fn fleet_beside_sidecars() -> Value {
    let environment = json!([{"name": "TASK_QUEUE", "value": SIDECARS_QUEUE}, {"name": "SLOTS", "value": "4"}]);
    json!({
        "apiVersion": "temporal.io/v1alpha1",
        "kind": "WorkerDeployment",
        "metadata": {"name": FLEET},
        "spec": {
            "workerOptions": {"connectionRef": {"name": CONNECTION}, "temporalNamespace": TEMPORAL_NAMESPACE},
            "scaling": {"minReplicas": 2, "maxReplicas": 2},
            "sidecar": {"encryption": encryption("k1", &[])},
            "template": {"spec": {"containers": [{"name": "worker", "image": GO_WORKER_IMAGE, "env": environment}]}},
            "rollout": {"strategy": "AllAtOnce"},
            "sunset": {},
        },
    })
}

pub async fn sidecars_take_a_new_key_and_a_new_certificate_under_load(bed: Arc<ClusterBed>) -> Result<()> {
    let (ground, endpoint, signed) = certified(&bed, "sidecars-take-a-new-key").await?;
    ground.apply(&keys(&["k1"])).await?;
    let mut fleet = fleet_beside_sidecars();
    ground.apply(&fleet).await?;
    let before = served(&ground).await?;
    let order = Order { inputs: vec![json!(GO_TASK); 4], ..Order::work(SIDECARS_QUEUE, 0, 0.0) };
    let [first, second] = spawn_blocking(move || sealed(&order)).await??;

    let tasks = bed.tasks()?;
    let (stream, clients_have) = (Stream::of(&tasks), Cell::new(&first));
    let rotate = async {
        change_key(&ground, &mut fleet, "sidecar", &stream, || clients_have.set(&second)).await?;
        change_certificate(&bed, &ground, (&endpoint, &signed), SIDECAR_CONTAINER, &stream).await
    };
    stream.during(|| clients_have.get().clone(), rotate).await?;
    let ended = stream.ends_once_each().await?;
    ensure!(ground.restarts(FLEET).await? == before, "pods were replaced or restarted: {before:?}");
    check_payloads(ended, json!(GO_TASK)).await
}
