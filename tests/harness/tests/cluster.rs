//! A whole cluster: pods run, find and reach each other, and nothing is left, whichever way it ends. Needs root.

use std::fs;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::images::build;
use harness::process::{self, ProcessId, children, wait_until};
use harness::{Cluster, ClusterOptions, ImageSpec, TemporalOptions, TemporalServer};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{LogParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SHELL: &str = "localhost/shell:1";
const SERVER: &str = "localhost/server:1";
const LIMIT: Duration = Duration::from_secs(60);

async fn create<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

fn shell_pod(name: &str, script: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "shell", "image": SHELL, "imagePullPolicy": "Never", "args": ["-c", script]}],
        },
    })
}

async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition().await {
        assert!(Instant::now() < end, "not within {} s: {what}", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn phase(pods: &Api<Pod>, name: &str) -> String {
    pods.get(name).await.unwrap().status.and_then(|status| status.phase).unwrap_or_default()
}

/// An image with a shell, which shows that programs with libraries run, and one with a small HTTP server.
fn load_images(cluster: &Cluster) {
    let directory = tempfile::tempdir().unwrap();
    let shell = ImageSpec::new(SHELL, ["/bin/bash"]).program(Path::new("/bin/bash"), "/bin/bash");
    let server = ImageSpec::new(SERVER, ["/coredns", "-conf", "/Corefile"])
        .file(cluster.tools().program("coredns").unwrap(), "/coredns")
        .text("/Corefile", ".:5353 {\n  health :8080\n}\n");
    for (name, image) in [("shell.tar", shell), ("server.tar", server)] {
        let archive = directory.path().join(name);
        build(&image, &archive).unwrap();
        cluster.load_image(&archive).unwrap();
    }
}

async fn start(root: &Path) -> Cluster {
    Cluster::start(ClusterOptions { root: root.to_owned(), ..ClusterOptions::default() }).await.unwrap()
}

#[tokio::test]
async fn pods_run_find_names_and_reach_services_and_a_temporal_server() {
    let root = tempfile::tempdir().unwrap();
    let cluster = start(root.path()).await;
    load_images(&cluster);
    let pods = Api::<Pod>::default_namespaced(cluster.client());

    let labels = json!({"app": "server"});
    let container = json!({"name": "server", "image": SERVER, "imagePullPolicy": "Never"});
    let deployment = json!({"metadata": {"name": "server"}, "spec": {
        "replicas": 2,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }});
    create(&Api::<Deployment>::default_namespaced(cluster.client()), deployment).await;
    let ports = json!([{"port": 80, "targetPort": 8080}]);
    let service = json!({"metadata": {"name": "server"}, "spec": {"selector": labels, "ports": ports}});
    create(&Api::<Service>::default_namespaced(cluster.client()), service).await;
    let script = "for try in {1..100}; do \
        if exec 3<>/dev/tcp/server.default.svc.cluster.local/80; then \
        printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3; while read -r line; do echo \"$line\"; done <&3; exit 0; fi; \
        read -rt 0.2 <> <(:); done; exit 1";
    create(&pods, shell_pod("client", script)).await;
    wait_for("the client succeeds", async || phase(&pods, "client").await == "Succeeded").await;
    let said = pods.logs("client", &LogParams::default()).await.unwrap();
    assert!(said.contains("200 OK"), "{said}");

    let reachable = listening_beyond(&cluster);
    assert_eq!(reachable, Vec::<String>::new(), "nothing listens beyond loopback and the link");
    let nodes = cluster.run("kubectl", &["get", "nodes", "--no-headers"]).unwrap();
    assert!(nodes.contains(" Ready "), "{nodes}");
    cut_off(&cluster, &pods).await;
    kill_container(&cluster, &pods).await;
    pause_api_server(&cluster, &pods).await;
    cluster.stop().unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

/// Addresses in the cluster's network that something listens on, other than loopback's and the node's.
fn listening_beyond(cluster: &Cluster) -> Vec<String> {
    const LISTEN: &str = "0A";
    let allowed = [Ipv4Addr::LOCALHOST, cluster.network().node()]
        .map(|address| format!("{:08X}", u32::from(address).swap_bytes()));
    let sockets = cluster.namespace().run_script("cat /proc/net/tcp /proc/net/tcp6").unwrap();
    let local = sockets.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (*fields.get(3)? == LISTEN).then(|| fields[1].to_owned())
    });
    local.filter(|address| !allowed.iter().any(|allowed| address.starts_with(allowed))).collect()
}

async fn cut_off(cluster: &Cluster, pods: &Api<Pod>) {
    let server = TemporalServer::start_in(cluster, TemporalOptions::default()).await.unwrap();
    let (host, port) =
        server.host_port().split_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
    let script = format!("while exec 3<>/dev/tcp/{host}/{port}; do echo reached; read -rt 0.1 <> <(:); done");
    create(pods, shell_pod("poller", &script)).await;
    let reached = async || pods.logs("poller", &LogParams::default()).await.unwrap_or_default().lines().count();
    wait_for("the pod reaches the server", async || reached().await > 3).await;

    server.set_cut_off(true).unwrap();
    wait_for("packets are dropped", async || server.dropped_packets().unwrap() > 1).await;
    let before = reached().await;
    assert!(
        server.cli().unwrap().args(["operator", "cluster", "health"]).output().unwrap().status.success(),
        "only pods are cut off"
    );
    assert_eq!(reached().await, before, "nothing gets through");
    server.set_cut_off(false).unwrap();
    wait_for("the pod reaches the server again", async || reached().await > before).await;
}

async fn kill_container(cluster: &Cluster, pods: &Api<Pod>) {
    create(pods, shell_pod("victim", "while true; do read -rt 1 <> <(:); done")).await;
    wait_for("the victim runs", async || phase(pods, "victim").await == "Running").await;
    assert!(cluster.signal_container(("default", "victim"), "shell", Signal::SIGKILL).await.unwrap() > 0);
    wait_for("the victim has failed", async || phase(pods, "victim").await == "Failed").await;
    let status = pods.get("victim").await.unwrap().status.unwrap();
    let ended = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!(ended.exit_code, 137);
}

async fn pause_api_server(cluster: &Cluster, pods: &Api<Pod>) {
    cluster.signal_component("kube-apiserver", Signal::SIGSTOP).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(1), pods.get("victim")).await;
    assert!(answer.is_err(), "a stopped server does not answer: {answer:?}");
    cluster.signal_component("kube-apiserver", Signal::SIGCONT).unwrap();
    wait_for("the server answers again", async || pods.get("victim").await.is_ok()).await;
}

#[test]
fn after_kills_at_any_moment_the_next_start_works_and_its_end_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    for log in ["namespaces.log", "containerd.log", "kube-apiserver.log", "kubelet.log"] {
        let mut starter = dev_cluster(root.path(), "up").stderr(Stdio::null()).spawn().unwrap();
        let started = root.path().join("dev/logs").join(log);
        assert!(wait_until(LIMIT, || started.exists()), "{}", started.display());
        starter.kill().unwrap();
        starter.wait().unwrap();
        assert!(wait_until(LIMIT, || processes_of(root.path()).is_empty()), "after a kill at {log}");
    }

    let up = dev_cluster(root.path(), "up").output().unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    assert!(String::from_utf8_lossy(&up.stdout).starts_with("export KUBECONFIG="));
    let again = dev_cluster(root.path(), "up").output().unwrap();
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("runs already"));
    let record: Value = serde_json::from_slice(&fs::read(root.path().join("dev/cluster.json")).unwrap()).unwrap();
    for name in ["containerd", "kubelet", "etcd"] {
        kill_part(&record, name);
    }

    let down = dev_cluster(root.path(), "down").output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert_eq!(processes_of(root.path()), Vec::<String>::new());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "files");
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(root.path().to_str().unwrap()), "mounts");
    let cgroup = record["cgroup"].as_str().unwrap();
    assert!(!Path::new("/sys/class/net").join(Path::new(cgroup).file_name().unwrap()).exists(), "network link");
    let mut found = String::new();
    let mut find = Command::new("find")
        .args(["/sys/fs/cgroup", "-path", &format!("*{cgroup}*")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    find.stdout.take().unwrap().read_to_string(&mut found).unwrap();
    find.wait().unwrap();
    assert_eq!(found, "", "control groups");
}

fn dev_cluster(root: &Path, action: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dev-cluster"));
    command.arg(action).arg("--state").arg(root);
    command
}

fn kill_part(record: &Value, name: &str) {
    let init: ProcessId = serde_json::from_value(record["init"].clone()).unwrap();
    let is_part = |pid: &i32| process::program(*pid).is_some_and(|path| path.ends_with(&format!("/{name}")));
    let pid = children(init.pid).into_iter().find(is_part).unwrap();
    assert!(ProcessId::of(pid, name).unwrap().kill(LIMIT));
}

/// Command lines of processes that name the folder.
fn processes_of(root: &Path) -> Vec<String> {
    let line = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).ok();
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(line);
    let texts = lines.map(|raw| String::from_utf8_lossy(&raw).replace('\0', " "));
    texts.filter(|text| text.contains(root.to_str().unwrap())).collect()
}
