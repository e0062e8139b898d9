//! The API server and etcd alone: they start, serve, and leave nothing, whichever way they end.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::ControlPlane;
use harness::audit::decreases;
use harness::process::wait_until;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

fn deployment(replicas: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "fleet"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "fleet"}},
            "template": {
                "metadata": {"labels": {"app": "fleet"}},
                "spec": {"containers": [{"name": "worker", "image": "localhost/none:1"}]},
            },
        },
    }))
    .unwrap()
}

/// Ids of processes whose command line names `path`.
fn processes_naming(path: &Path) -> Vec<String> {
    let names = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(path.to_str().unwrap())
    };
    let entries = fs::read_dir("/proc").unwrap().flatten().filter(names);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn it_serves_stops_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start_in(root.path()).await.unwrap();
    let namespaces = Api::<Namespace>::all(control_plane.client());
    assert!(namespaces.get("default").await.is_ok());
    let state = control_plane.state_path().unwrap().to_owned();
    assert!(!processes_naming(&state).is_empty());

    let started = Instant::now();
    control_plane.stop().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(processes_naming(&state), Vec::<String>::new());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn several_run_side_by_side_without_seeing_each_other() {
    let root = tempfile::tempdir().unwrap();
    let (first, second) = tokio::join!(ControlPlane::start_in(root.path()), ControlPlane::start_in(root.path()));
    let (first, second) = (first.unwrap(), second.unwrap());
    let object = serde_json::from_value(json!({"metadata": {"name": "only-here"}})).unwrap();
    Api::<Namespace>::all(first.client()).create(&PostParams::default(), &object).await.unwrap();
    assert!(Api::<Namespace>::all(second.client()).get_opt("only-here").await.unwrap().is_none());
}

#[tokio::test]
async fn credentials_are_needed_and_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start_in(root.path()).await.unwrap();
    let kubeconfig = control_plane.kubeconfig_path();
    assert_eq!(fs::metadata(kubeconfig).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(control_plane.state_path().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);

    let read = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let mut anonymous = kube::Config::from_custom_kubeconfig(read, &Default::default()).await.unwrap();
    anonymous.auth_info = kube::config::AuthInfo::default();
    let client = kube::Client::try_from(anonymous).unwrap();
    let refused = Api::<Namespace>::all(client).list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");
}

#[tokio::test]
async fn the_audit_log_tells_who_changed_replicas_and_who_read_secrets() {
    let root = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start_in(root.path()).await.unwrap();
    let deployments = Api::<Deployment>::namespaced(control_plane.client(), "default");
    deployments.create(&PostParams::default(), &deployment(3)).await.unwrap();
    let merge = |replicas| Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments.patch_scale("fleet", &PatchParams::default(), &merge(5)).await.unwrap();
    deployments.patch_scale("fleet", &PatchParams::default(), &merge(0)).await.unwrap();
    deployments.patch("fleet", &PatchParams::default(), &merge(4)).await.unwrap();
    deployments.patch("fleet", &PatchParams::default(), &merge(1)).await.unwrap();
    deployments.delete("fleet", &DeleteParams::default()).await.unwrap();
    deployments.create(&PostParams::default(), &deployment(0)).await.unwrap();
    Api::<Secret>::namespaced(control_plane.client(), "default").get_opt("none").await.unwrap();

    let events = control_plane.audit_events().unwrap();
    let falls: Vec<_> = decreases(&events).iter().map(|fall| (fall.user.clone(), fall.from, fall.to)).collect();
    assert_eq!(falls, [("admin".to_owned(), 5, 0), ("admin".to_owned(), 4, 1)]);
    let scaled: Vec<_> = events.iter().filter(|event| event.resource == "deployments/scale").collect();
    assert_eq!(scaled.iter().map(|event| event.replicas).collect::<Vec<_>>(), [Some(5), Some(0)]);
    assert!(scaled.iter().all(|event| event.verb == "patch" && event.name == "fleet" && event.namespace == "default"));
    assert!(events.iter().any(|event| event.resource == "secrets" && event.verb == "get" && event.name == "none"));
}

#[test]
fn it_ends_when_its_starter_is_killed_and_the_next_start_removes_its_files() {
    let root = tempfile::tempdir().unwrap();
    let mut starter = start_as_process(root.path());
    let kubeconfig = printed_kubeconfig(&mut starter);
    let state = kubeconfig.parent().unwrap().to_owned();
    assert!(!processes_naming(&state).is_empty());

    starter.kill().unwrap();
    starter.wait().unwrap();
    assert!(
        wait_until(Duration::from_secs(10), || processes_naming(&state).is_empty()),
        "{:?}",
        processes_naming(&state)
    );
    assert!(state.exists(), "nobody was left to remove it");

    let mut next = start_as_process(root.path());
    printed_kubeconfig(&mut next);
    assert!(!state.exists());
    let pid = nix::unistd::Pid::from_raw(next.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(next.wait().unwrap().success());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

fn start_as_process(root: &Path) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dev-cluster"));
    command.args(["api-server", "--state"]).arg(root).stdout(Stdio::piped()).spawn().unwrap()
}

fn printed_kubeconfig(process: &mut std::process::Child) -> PathBuf {
    let mut line = String::new();
    BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    PathBuf::from(line.trim().strip_prefix("export KUBECONFIG=").unwrap())
}
