//! Limits of one run of a handler's program, against a real Temporal server: with control groups, and where the runtime may
//! make none.

mod runtime_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::process::wait_until;
use runtime_support::pids::{Pids, runs};
use runtime_support::{Activity, SOON, Server, Worker, assert_says, exec, program, wait_for};
use serde_json::{Value, json};

/// Memory that a run may have, in bytes.
const MEMORY: u64 = 100 << 20;
/// Takes 16 MiB again and again, in a child of its own, until it has what its argument says.
const HOG: &str = "import os, sys, time
if os.fork() == 0:
    a = []
    while len(a) < int(sys.argv[1]) >> 4:
        a.append(b'x' * (16 << 20))
        time.sleep(0.05)
    os._exit(0)
open(sys.argv[2], 'a').write('%d\\n' % os.getpid())
os.wait()
print(7)";

/// What the runtime finds of control groups.
enum Ground {
    /// A group of its own, in which it may make others.
    Groups(PathBuf),
    /// None.
    Nothing,
}

impl Ground {
    /// A group that is handed to the runtime, as to a privileged container.
    fn groups() -> Result<Self> {
        let root = unified()?;
        for controller in ["+memory", "+pids"] {
            // A hybrid machine's unified hierarchy has none: then the runtime counts.
            fs::write(root.join("cgroup.subtree_control"), controller).ok();
        }
        let group = root.join(format!("runtime-limits-{:08x}", rand::random::<u32>()));
        fs::create_dir(&group).with_context(|| format!("make the control group {}", group.display()))?;
        Ok(Self::Groups(group))
    }

    /// Starts the runtime, in a mount namespace that shows it the ground.
    async fn worker(&self, server: &Server, config: Value, limits: Value) -> Result<Worker> {
        let (prepare, says) = match self {
            Self::Groups(group) => {
                let root = unified()?.display().to_string();
                let enter = format!("echo $$ > {}/cgroup.procs", group.display());
                (format!("{enter} && mount --bind {root} /sys/fs/cgroup"), "has a control group of its own")
            }
            Self::Nothing => ("mount -t tmpfs none /sys/fs/cgroup".to_owned(), "have no control groups"),
        };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &format!(r#"{prepare} && exec "$@""#), "sh"]);
        command.arg(program("worker-runtime")).arg("run");
        let worker = Worker::start_program(command, &server.temporal.host_port(), &config, &limits, &[])?;
        worker.wait_ready().await;
        worker.wait_log(says).await;
        Ok(worker)
    }

    /// Waits until no run has a group any more.
    async fn no_runs(&self) {
        let Self::Groups(group) = self else { return };
        wait_for("the groups of runs to be gone", SOON, async || {
            let names = below(group).into_iter().filter_map(|group| Some(group.file_name()?.to_owned()));
            names.eq(["runtime"]).then_some(())
        })
        .await;
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let Self::Groups(group) = self else { return };
        fs::write(group.join("cgroup.kill"), "1").ok();
        let gone = wait_until(SOON, || {
            for group in below(group).iter().chain([&*group]) {
                fs::remove_dir(group).ok();
            }
            !group.exists()
        });
        assert!(gone || std::thread::panicking(), "{} can't be removed", group.display());
    }
}

/// Where control groups of version 2 are mounted.
fn unified() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = fields.find(|fields| fields[2] == "cgroup2").context("no control groups of version 2 are mounted")?;
    Ok(mount[1].into())
}

fn below(group: &Path) -> Vec<PathBuf> {
    fs::read_dir(group).into_iter().flatten().flatten().map(|it| it.path()).filter(|path| path.is_dir()).collect()
}

async fn too_much_memory(ground: Ground) -> Result<()> {
    let (server, pids) = (Server::start().await?, Pids::new()?);
    let file = pids.path().display().to_string();
    // The first run is told to take all, the others little.
    let script = format!("test -e {file} && all=16 || all=100000; exec python3 -c \"$0\" $all {file}");
    let limits = json!({"handlerMemoryBytes": {"worker": MEMORY}});
    let worker = ground.worker(&server, exec(&["sh", "-c", &script, HOG]), limits).await?;
    let (kind, message) = server.run(Activity::default()).await?.failure();
    assert_eq!(kind, "HandlerLimitExceeded", "{message}");
    assert_says(&message, &["\"worker\"", "104857600 bytes of memory", "handlerMemoryBytes", "raise the limit"]);
    pids.gone(1).await;
    assert_eq!(server.run(Activity::default()).await?.result(), json!(7), "the runtime goes on");
    assert!(runs(worker.pid().cast_signed()));
    ground.no_runs().await;
    Ok(())
}

#[tokio::test]
async fn a_program_that_takes_too_much_memory_is_ended_in_its_group() -> Result<()> {
    too_much_memory(Ground::groups()?).await
}

#[tokio::test]
async fn a_program_that_takes_too_much_memory_is_ended_without_groups() -> Result<()> {
    too_much_memory(Ground::Nothing).await
}

/// The control of the tests above.
#[tokio::test]
async fn a_program_without_a_limit_takes_what_it_needs() -> Result<()> {
    for ground in [Ground::groups()?, Ground::Nothing] {
        let (server, pids) = (Server::start().await?, Pids::new()?);
        let command = ["python3", "-c", HOG, "300", &pids.path().display().to_string()];
        let _worker = ground.worker(&server, exec(&command), json!({"handlerMemoryBytes": {"other": 1}})).await?;
        assert_eq!(server.run(Activity::default()).await?.result(), json!(7));
    }
    Ok(())
}

async fn too_many_processes(ground: Ground) -> Result<()> {
    let (server, pids) = (Server::start().await?, Pids::new()?);
    let file = pids.path().display().to_string();
    // Each in a session of its own, without the mark of its run, and without a parent that waits.
    let start = format!("(env -i setsid sh -c 'echo $$ >> {file}; exec sleep 600' </dev/null >/dev/null 2>&1 &)");
    let script = format!("echo $$ >> {file}; while :; do {start}; sleep 600 & sleep 0.02; done");
    let limits = json!({"handlerPids": {"worker": 30}});
    let worker = ground.worker(&server, exec(&["sh", "-c", &script]), limits).await?;
    let (kind, message) = server.run(Activity::default()).await?.failure();
    assert_eq!(kind, "HandlerLimitExceeded", "{message}");
    assert_says(&message, &["\"worker\"", "30 processes and threads", "handlerPids"]);
    pids.gone(1).await;
    let started = pids.all(1).await.len();
    assert!(started < 300, "{started} processes were started");
    assert!(runs(worker.pid().cast_signed()));
    ground.no_runs().await;
    Ok(())
}

#[tokio::test]
async fn a_program_that_starts_too_many_processes_is_ended_in_its_group() -> Result<()> {
    too_many_processes(Ground::groups()?).await
}

#[tokio::test]
async fn a_program_that_starts_too_many_processes_is_ended_without_groups() -> Result<()> {
    too_many_processes(Ground::Nothing).await
}

/// A process that stays, and takes all in its first task, and nothing in those of others.
fn pool(file: &Path) -> Value {
    let program = format!(
        "import json, os, sys, time
for line in sys.stdin:
    task, a = json.loads(line), []
    first = not os.path.exists({file:?})
    open({file:?}, 'a').write('%d\\n' % os.getpid())
    while first:
        a.append(b'x' * (16 << 20))
        time.sleep(0.05)
    print(json.dumps({{'id': task['id'], 'result': os.getpid()}}), flush=True)"
    );
    let mut config = exec(&["python3", "-c", &program]);
    config["handlers"][0]["exec"]["mode"] = json!("Pool");
    config
}

#[tokio::test]
async fn a_process_that_stays_is_replaced_when_it_takes_too_much() -> Result<()> {
    for ground in [Ground::groups()?, Ground::Nothing] {
        let (server, pids) = (Server::start().await?, Pids::new()?);
        let limits = json!({"handlerMemoryBytes": {"worker": MEMORY}, "handlerProcesses": {"worker": 1}});
        let _worker = ground.worker(&server, pool(&pids.path()), limits).await?;
        assert_eq!(server.run(Activity::default()).await?.failure().0, "HandlerLimitExceeded");
        pids.gone(1).await;
        let next = server.run(Activity::default()).await?.result();
        assert_ne!(next, json!(pids.all(1).await[0]), "a new process");
        assert_eq!(server.run(Activity::default()).await?.result(), next, "which stays");
    }
    Ok(())
}

/// How an orphan that cleared its environment fares while its task runs and another one comes and goes, and after it.
async fn orphan(ground: &Ground, lives: bool) -> Result<()> {
    let (server, pids) = (Server::start().await?, Pids::new()?);
    let file = pids.path().display().to_string();
    let script = format!(
        "if test -e {file}; then echo 2; exit; fi; touch {file}
         (env -i setsid sh -c 'echo $$ >> {file}; exec sleep 600' </dev/null >/dev/null 2>&1 &)
         while ! test -e {file}.done; do sleep 0.05; done; echo 1"
    );
    let _worker = ground.worker(&server, exec(&["sh", "-c", &script]), json!({})).await?;
    let first = server.start_activity(Activity::default()).await?;
    let orphan = pids.all(1).await[0];
    assert_eq!(server.run(Activity::default()).await?.result(), json!(2));
    if lives {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(runs(orphan), "it is gone before its task");
    } else {
        pids.gone(1).await;
    }
    fs::write(format!("{file}.done"), "")?;
    assert_eq!(server.end_of(&first).await.result(), json!(1));
    pids.gone(1).await;
    ground.no_runs().await;
    Ok(())
}

#[tokio::test]
async fn an_orphan_that_forgot_where_it_came_from_ends_with_its_task_and_not_before_in_its_group() -> Result<()> {
    orphan(&Ground::groups()?, true).await
}

#[tokio::test]
async fn an_orphan_that_forgot_where_it_came_from_ends_with_any_task_without_groups() -> Result<()> {
    orphan(&Ground::Nothing, false).await
}

#[tokio::test]
async fn a_program_that_is_gone_is_named_in_its_group_too() -> Result<()> {
    let (server, folder, ground) = (Server::start().await?, tempfile::tempdir()?, Ground::groups()?);
    let own = folder.path().join("program");
    fs::copy("/bin/true", &own)?;
    let _worker = ground.worker(&server, exec(&[&own.display().to_string()]), json!({})).await?;
    assert_eq!(server.run(Activity::default()).await?.result(), Value::Null);
    fs::remove_file(&own)?;
    let (kind, message) = server.run(Activity::default()).await?.failure();
    assert_eq!(kind, "HandlerNotStarted");
    assert_says(&message, &["\"worker\"", "command[0]", "it is not there"]);
    ground.no_runs().await;
    Ok(())
}
