//! Handlers whose processes stay, against a real Temporal server, with the adapters and the interpreters of each language.

mod runtime_support;

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use runtime_support::pids::runs;
use runtime_support::{
    Activity, Ended, SOON, Server, WORK, Worker, assert_says, config, json_payload, project, wait_for,
};
use serde_json::{Value, json};

/// Interpreter and demo of each adapter. The demos have the same activity types.
const LANGUAGES: [(&str, &str); 4] =
    [("python3", "python/demo.py"), ("node", "node/demo.mjs"), ("php", "php/demo.php"), ("ruby", "ruby/demo.rb")];

/// Configuration with a pool that runs every activity type.
fn pool(command: &[&str]) -> Value {
    let mut configuration = config(json!({"name": "worker", "exec": {"command": command, "mode": "Pool"}}));
    configuration["activities"] = json!([{"type": "*", "handler": "worker"}]);
    configuration
}

fn one_process() -> Value {
    json!({"handlerProcesses": {"worker": 1}})
}

/// A process that is written in the test itself, in Python.
fn python(script: &str) -> Value {
    pool(&["python3", "-u", "-c", script])
}

fn activity<'a>(activity_type: &'a str, arguments: &[Value]) -> Activity<'a> {
    Activity { activity_type, input: arguments.iter().map(json_payload).collect(), ..Activity::default() }
}

/// A Worker with the demo of a language, of one process.
async fn demo(server: &Server, (interpreter, demo): (&str, &str)) -> Result<Worker> {
    let demo = project().join("worker-runtime/adapters").join(demo);
    assert!(demo.exists(), "{}", demo.display());
    Worker::ready(server, pool(&[interpreter, &demo.display().to_string()]), one_process()).await
}

async fn each_language(check: impl AsyncFn(&Server, &Worker, &str) -> Result<()>) -> Result<()> {
    let server = Server::start().await?;
    for language in LANGUAGES {
        let worker = demo(&server, language).await?;
        check(&server, &worker, language.0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn each_language_gives_results_and_keeps_what_it_prints_out_of_them() -> Result<()> {
    each_language(async |server, _, language| {
        let arguments = [json!({"a": "é\n\u{1F600}"}), json!(null), json!([1, 2.5])];
        assert_eq!(server.run(activity("Echo", &arguments)).await?.result(), json!(arguments), "{language}");
        assert_eq!(server.run(activity("Print", &[])).await?.result(), json!("quiet"), "{language}");
        assert_eq!(server.run(activity("Echo", &[])).await?.result(), json!([]), "{language}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_language_chooses_its_failures_and_names_what_it_did_not_expect() -> Result<()> {
    each_language(async |server, _, language| {
        let ended = server.run(Activity { attempts: 0, ..activity("Fail", &[json!("why not")]) }).await?;
        assert!(
            matches!(&ended, Ended::Failure { message, .. } if message.contains("why not")),
            "{language}: {ended:?}"
        );
        let info = ended.info();
        assert_eq!((info.r#type.as_str(), info.non_retryable), ("Broken", true), "{language}");
        let delay: Duration = info.next_retry_delay.expect("a delay").try_into()?;
        assert_eq!(delay, Duration::from_millis(2500), "{language}");
        let details: Value = serde_json::from_slice(&info.details.expect("details").payloads[0].data)?;
        assert_eq!(details, json!({"why": "why not"}), "{language}");
        let raised = server.run(activity("Raise", &[])).await?.info();
        assert!(!raised.non_retryable && !raised.r#type.is_empty(), "{language}: {raised:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_language_that_crashes_fails_its_task_alone() -> Result<()> {
    each_language(async |server, _, language| {
        let (kind, message) = server.run(activity("Crash", &[])).await?.failure();
        assert_eq!(kind, "HandlerFailed", "{language}");
        assert_says(&message, &["\"worker\"", "exited with code 3"]);
        assert_eq!(server.run(activity("Echo", &[json!(1)])).await?.result(), json!([1]), "{language}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_language_stops_when_it_is_asked_to_and_goes_on_with_the_next_task() -> Result<()> {
    each_language(async |server, worker, language| {
        let task = Activity { heartbeat: Some(Duration::from_secs(1)), ..activity("Sleep", &[json!(50)]) };
        let activity_id = server.start_activity(task).await?;
        worker.wait_metric("slots_used", WORK, 1.0).await;
        server.cancel(&activity_id).await?;
        assert!(matches!(server.end_of(&activity_id).await, Ended::Cancelled), "{language}");
        assert!(!worker.log().contains("is killed"), "{language}: {}", worker.log());
        assert_eq!(server.run(activity("Echo", &[json!(1)])).await?.result(), json!([1]), "{language}");
        Ok(())
    })
    .await
}

/// Reads tasks and gives what `work` makes of each: statements with `task`, `say` and `tell` at hand.
fn script(work: &str) -> String {
    let work: String = work.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "import json, os, sys, time, subprocess\n\
         def say(**line): print(json.dumps(line), flush=True)\n\
         for line in sys.stdin:\n    task = json.loads(line)\n    id = task['id']\n    if 'cancel' in task: continue\n{work}"
    )
}

#[tokio::test]
async fn one_process_runs_all_tasks_and_several_run_as_many_at_a_time() -> Result<()> {
    let server = Server::start().await?;
    let work = script("time.sleep(0.5)\nsay(id=id, result=os.getpid())");
    let mut pids = Vec::new();
    let worker = Worker::ready(&server, python(&work), one_process()).await?;
    for _ in 0..3 {
        pids.push(server.run(activity("Work", &[])).await?.result());
    }
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    drop(worker);
    let _worker = Worker::ready(&server, python(&work), json!({})).await?;
    let mut started = Vec::new();
    for _ in 0..3 {
        started.push(server.start_activity(activity("Work", &[])).await?);
    }
    let mut pids = Vec::new();
    for activity_id in started {
        pids.push(server.end_of(&activity_id).await.result().as_i64());
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3, "{pids:?}");
    Ok(())
}

#[tokio::test]
async fn details_of_a_heartbeat_reach_the_next_attempt() -> Result<()> {
    let server = Server::start().await?;
    let work = script(
        "say(id=id, heartbeat={'page': 3})\n\
         if task['info']['attempt'] == 1:\n    time.sleep(0.2)\n    say(id=id, failure={'message': 'again', 'nextRetryDelay': 0})\n\
         else:\n    say(id=id, result=task.get('heartbeat'))",
    );
    let _worker = Worker::ready(&server, python(&work), one_process()).await?;
    let task = Activity { heartbeat: Some(Duration::from_secs(30)), attempts: 0, ..activity("Work", &[]) };
    assert_eq!(server.run(task).await?.result(), json!({"page": 3}));
    Ok(())
}

#[tokio::test]
async fn a_process_that_does_not_stop_is_killed_with_its_children() -> Result<()> {
    let server = Server::start().await?;
    let folder = tempfile::tempdir()?;
    let pids = folder.path().join("pids");
    let work = script(&format!(
        "child = subprocess.Popen(['sleep', '600'])\n\
         open({0:?}, 'w').write(f'{{child.pid}} {{os.getpid()}}')\ntime.sleep(600)",
        pids.display().to_string(),
    ));
    let worker = Worker::ready(&server, python(&work), one_process()).await?;
    let task = Activity { heartbeat: Some(Duration::from_secs(1)), ..activity("Work", &[]) };
    let activity_id = server.start_activity(task).await?;
    let text = wait_for("the process to run", SOON, async || {
        std::fs::read_to_string(&pids).ok().filter(|text| text.contains(' '))
    })
    .await;
    server.cancel(&activity_id).await?;
    assert!(matches!(server.end_of(&activity_id).await, Ended::Cancelled));
    worker.wait_log("did not stop its task").await;
    let pids = text.split_whitespace().map(str::parse).collect::<Result<Vec<i32>, _>>()?;
    wait_for("both to be gone", SOON, async || (!pids.iter().any(|pid| runs(*pid))).then_some(())).await;
    Ok(())
}

#[tokio::test]
async fn a_line_that_is_not_of_the_protocol_is_shown() -> Result<()> {
    let server = Server::start().await?;
    let work = script("print('loading the model')\nsay(id=id, result=1)");
    let _worker = Worker::ready(&server, python(&work), one_process()).await?;
    let (kind, message) = server.run(activity("Work", &[])).await?.failure();
    assert_eq!(kind, "HandlerOutputInvalid");
    assert_says(&message, &["\"worker\"", "loading the model", "one JSON object a line", "standard error"]);
    Ok(())
}

#[tokio::test]
async fn a_line_without_an_end_is_refused() -> Result<()> {
    let server = Server::start().await?;
    let work = script("while True: sys.stdout.write('x' * 65536)");
    let _worker = Worker::ready(&server, python(&work), one_process()).await?;
    let (kind, message) = server.run(activity("Work", &[])).await?.failure();
    assert_eq!(kind, "HandlerOutputTooLarge");
    assert_says(&message, &["2097152 bytes"]);
    Ok(())
}

#[tokio::test]
async fn a_process_that_ended_while_it_was_idle_costs_no_task() -> Result<()> {
    let server = Server::start().await?;
    let work = script("say(id=id, result=os.getpid())\nos._exit(0)");
    let _worker = Worker::ready(&server, python(&work), one_process()).await?;
    let first = server.run(activity("Work", &[])).await?.result();
    let pid = first.as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
    wait_for("the process to end", SOON, async || (!runs(pid)).then_some(())).await;
    assert_ne!(server.run(activity("Work", &[])).await?.result(), first);
    Ok(())
}

#[test]
fn every_adapter_keeps_to_the_protocol() -> Result<()> {
    let conformance = project().join("worker-runtime/adapters/conformance.py");
    let output = Command::new("python3").arg(conformance).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for (interpreter, demo) in LANGUAGES {
        let language = demo.split('/').next().expect("a folder");
        let checks =
            said.lines().filter(|line| line.starts_with("ok") && line.contains(&format!(" {language}: "))).count();
        assert!(checks >= 18, "{interpreter}: {checks} checks\n{said}");
    }
    Ok(())
}
