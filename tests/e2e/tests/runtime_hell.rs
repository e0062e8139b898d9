//! Handlers that do what they should not, against a real Temporal server: nothing of them outlives its task, and the runtime
//! goes on.

mod runtime_support;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::process::children;
use runtime_support::pids::{Pids, runs};
use runtime_support::{Activity, SOON, Server, Worker, assert_says, exec, wait_for};
use serde_json::{Value, json};

/// Time limit of the handler in tests that wait for it.
const TIMEOUT: &str = r#"{"handlerTimeoutMs": {"worker": 1500}}"#;

fn shell(script: &str) -> Value {
    exec(&["sh", "-c", script])
}

fn limits() -> Value {
    serde_json::from_str(TIMEOUT).expect("JSON")
}

/// Appends the id of a process that sleeps in a session of its own to `file`.
fn in_its_own_session(file: &Path) -> String {
    format!("setsid sh -c 'echo $$ >> {}; exec sleep 600' </dev/null >/dev/null 2>&1 &", file.display())
}

#[tokio::test]
async fn a_child_in_a_session_of_its_own_ends_with_the_task() -> Result<()> {
    let (server, pids) = (Server::start().await?, Pids::new()?);
    let child = in_its_own_session(&pids.path());
    let script = format!("{child} while ! test -s {}; do sleep 0.01; done; echo 7", pids.path().display());
    let _worker = Worker::ready(&server, shell(&script), json!({})).await?;
    assert_eq!(server.run(Activity::default()).await?.result(), json!(7));
    pids.gone(1).await;
    Ok(())
}

#[tokio::test]
async fn a_child_in_a_session_of_its_own_ends_at_the_timeout() -> Result<()> {
    let (server, pids) = (Server::start().await?, Pids::new()?);
    let script = format!("{} echo $$ >> {}; sleep 600", in_its_own_session(&pids.path()), pids.path().display());
    let _worker = Worker::ready(&server, shell(&script), limits()).await?;
    assert_eq!(server.run(Activity::default()).await?.failure().0, "HandlerTimedOut");
    pids.gone(2).await;
    Ok(())
}

#[tokio::test]
async fn an_orphan_that_forgot_where_it_came_from_ends_too() -> Result<()> {
    let (server, pids) = (Server::start().await?, Pids::new()?);
    let file = pids.path().display().to_string();
    // The one in between has ended, and its child's environment is empty.
    let orphan = format!("(env -i setsid sh -c 'echo $$ >> {file}; exec sleep 600' </dev/null >/dev/null 2>&1 &)");
    let script = format!("{orphan}; while ! test -s {file}; do sleep 0.01; done; echo 7");
    let _worker = Worker::ready(&server, shell(&script), json!({})).await?;
    assert_eq!(server.run(Activity::default()).await?.result(), json!(7));
    pids.gone(1).await;
    Ok(())
}

#[tokio::test]
async fn a_child_that_holds_the_output_open_holds_up_nothing() -> Result<()> {
    let (server, pids) = (Server::start().await?, Pids::new()?);
    let file = pids.path().display().to_string();
    let child = format!("setsid sh -c 'echo $$ >> {file}; exec sleep 600' &");
    let script = format!("{child} while ! test -s {file}; do sleep 0.01; done; echo 7");
    let _worker = Worker::ready(&server, shell(&script), json!({})).await?;
    assert_eq!(server.run(Activity::default()).await?.result(), json!(7));
    pids.gone(1).await;
    Ok(())
}

#[tokio::test]
async fn a_helper_of_another_task_that_still_runs_is_left_alone() -> Result<()> {
    let (server, pids) = (Server::start().await?, Pids::new()?);
    let file = pids.path().display().to_string();
    // The first task has an orphan of its own, and waits for it; the second comes and goes meanwhile.
    let script = format!(
        "if test -e {file}; then echo 2; exit; fi; touch {file}
         (setsid sh -c 'echo $$ >> {file}; sleep 3; touch {file}.done' </dev/null >/dev/null 2>&1 &)
         while ! test -e {file}.done; do sleep 0.05; done; echo 1"
    );
    let _worker = Worker::ready(&server, shell(&script), json!({})).await?;
    let first = server.start_activity(Activity::default()).await?;
    pids.all(1).await;
    assert_eq!(server.run(Activity::default()).await?.result(), json!(2));
    assert!(runs(pids.all(1).await[0]), "the orphan is gone before its task");
    assert_eq!(server.end_of(&first).await.result(), json!(1));
    Ok(())
}

#[tokio::test]
async fn a_hundred_processes_in_as_many_sessions_end_at_the_timeout() -> Result<()> {
    let (server, pids) = (Server::start().await?, Pids::new()?);
    let script = format!(
        "for i in $(seq 100); do {} done; echo $$ >> {}; sleep 600",
        in_its_own_session(&pids.path()),
        pids.path().display()
    );
    let limits = json!({"handlerTimeoutMs": {"worker": 4000}});
    let _worker = Worker::ready(&server, shell(&script), limits).await?;
    assert_eq!(server.run(Activity::default()).await?.failure().0, "HandlerTimedOut");
    pids.gone(90).await;
    Ok(())
}

#[tokio::test]
async fn a_program_that_closes_its_output_and_lives_on_ends_at_the_timeout() -> Result<()> {
    let (server, pids) = (Server::start().await?, Pids::new()?);
    let script = format!("echo $$ >> {}; exec >&- 2>&-; exec sleep 600", pids.path().display());
    let _worker = Worker::ready(&server, shell(&script), limits()).await?;
    assert_eq!(server.run(Activity::default()).await?.failure().0, "HandlerTimedOut");
    pids.gone(1).await;
    Ok(())
}

#[tokio::test]
async fn gigabytes_of_output_are_refused_at_once_and_take_no_memory() -> Result<()> {
    let server = Server::start().await?;
    let worker = Worker::ready(&server, shell("head -c 2G /dev/zero; head -c 2G /dev/zero >&2"), json!({})).await?;
    let before = resident(worker.pid())?;
    let (kind, message) = server.run(Activity::default()).await?.failure();
    assert_eq!(kind, "HandlerOutputTooLarge");
    assert_says(&message, &["2097152 bytes"]);
    let grown = resident(worker.pid())?.saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    Ok(())
}

#[tokio::test]
async fn gigabytes_of_standard_error_take_no_memory() -> Result<()> {
    let server = Server::start().await?;
    let worker = Worker::ready(&server, shell("head -c 1G /dev/zero >&2; exit 3"), json!({})).await?;
    let before = resident(worker.pid())?;
    assert_eq!(server.run(Activity::default()).await?.failure().0, "HandlerFailed");
    let grown = resident(worker.pid())?.saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    Ok(())
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

#[tokio::test]
async fn an_end_by_a_signal_names_it() -> Result<()> {
    let (kind, message) = Worker::failure(shell("kill -TERM $$"), json!({})).await?;
    assert_eq!(kind, "HandlerFailed");
    assert_says(&message, &["\"worker\"", "signal 15"]);
    Ok(())
}

#[tokio::test]
async fn output_that_is_no_text_is_refused() -> Result<()> {
    let (kind, message) = Worker::failure(shell("printf '\"\\377\"'"), json!({})).await?;
    assert_eq!(kind, "HandlerOutputInvalid");
    assert_says(&message, &["\"worker\"", "not one JSON value"]);
    Ok(())
}

#[tokio::test]
async fn hundreds_of_tasks_leave_no_process_and_no_descriptor() -> Result<()> {
    const TASKS: usize = 300;
    let server = Server::start().await?;
    let leave = "setsid sleep 600 </dev/null >/dev/null 2>&1 & echo 1";
    let worker = Worker::ready(&server, shell(leave), json!({})).await?;
    let descriptors = || Ok::<_, std::io::Error>(std::fs::read_dir(format!("/proc/{}/fd", worker.pid()))?.count());
    server.run(Activity::default()).await?.result();
    let before = descriptors()?;
    let mut started = Vec::new();
    for _ in 0..TASKS {
        started.push(server.start_activity(Activity::default()).await?);
    }
    for activity_id in &started {
        assert_eq!(server.end_of(activity_id).await.result(), json!(1));
    }
    wait_for("all processes of handlers to be gone", SOON, async || {
        children(worker.pid().cast_signed()).is_empty().then_some(())
    })
    .await;
    let after = descriptors()?;
    assert!(after <= before + 3, "{before} descriptors, then {after}");
    Ok(())
}

#[tokio::test]
async fn a_process_that_stays_sees_the_death_of_the_runtime() -> Result<()> {
    let (server, pids) = (Server::start().await?, Pids::new()?);
    // What reads its input to the end sees the end of the runtime.
    let program = format!("import os, sys; open({:?}, 'w').write(str(os.getpid())); sys.stdin.read()", pids.path());
    let mut configuration = exec(&["python3", "-c", &program]);
    configuration["handlers"][0]["exec"]["mode"] = json!("Pool");
    let worker = Worker::ready(&server, configuration, json!({})).await?;
    server.start_activity(Activity { start_to_close: Duration::from_secs(5), ..Activity::default() }).await?;
    let pid = pids.all(1).await[0];
    assert!(runs(pid));
    drop(worker);
    wait_for("the process to see the end of its input", SOON, async || (!runs(pid)).then_some(())).await;
    Ok(())
}
