//! Cordon of a Worker process: what it takes, what it finishes, and whose orders it obeys.

mod runtime_support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use operator_core::contract::CordonStatus;
use operator_core::cordon::{Order, OrderKey, SEED_LENGTH, Verb};
use runtime_support::stream::stream;
use runtime_support::{Activity, SOON, Server, Worker, exec, program, wait_for};
use serde_json::{Value, json};
use temporalio_protos::temporal::api::enums::v1::PendingActivityState;

const WORK: &str = r#"task_queue="q",task_type="activity""#;

/// A Worker in a pod, and the operator that it obeys.
struct Pod {
    worker: Worker,
    uid: String,
    operator: OrderKey,
}

fn operator(seed: u8) -> OrderKey {
    OrderKey::from_seed(&[seed; SEED_LENGTH]).expect("a seed of its length")
}

impl Pod {
    /// Starts `program` (the shared runtime when there is none) in a pod, and waits until it is ready.
    async fn start(server: &Server, program: Option<Command>, configuration: &Value) -> Result<Self> {
        let (uid, operator) = (format!("uid-{:08x}", rand::random::<u32>()), operator(1));
        let limits = json!({"maxConcurrentActivities": {"q": 8}, "orderKeys": [operator.public()]});
        let (address, environment) = (server.temporal.host_port(), [("POD_UID", uid.as_str())]);
        let worker = match program {
            Some(program) => Worker::start_program(program, &address, configuration, &limits, &environment)?,
            None => Worker::start(&address, configuration, &limits, &environment)?,
        };
        worker.wait_ready().await;
        Ok(Self { worker, uid, operator })
    }

    fn new_order(&self, verb: Verb) -> Order {
        Order::new(verb, &self.uid, Timestamp::now())
    }

    /// Gives an order, and says what became of it.
    async fn give(&self, order: Order) -> Result<u16> {
        let path = format!("/{}", order.verb.as_str());
        Ok(self.worker.post(&path, &self.operator.sign(order)).await?.0)
    }

    async fn order(&self, verb: Verb) -> Result<()> {
        assert_eq!(self.give(self.new_order(verb)).await?, 200, "{}", self.worker.log());
        Ok(())
    }

    async fn status(&self) -> CordonStatus {
        let (status, body) = self.worker.probe("/cordon").await.expect("an answer");
        assert_eq!(status, 200);
        serde_json::from_str(&body).expect("the status of a cordon")
    }

    /// Cordons it, and waits until no task can reach it any more.
    async fn close(&self) -> Result<()> {
        self.order(Verb::Cordon).await?;
        wait_for("the end of the open polls", SOON, async || (self.status().await.open_polls == 0).then_some(())).await;
        Ok(())
    }

    async fn started(&self) -> f64 {
        self.worker.metric("tasks_started_total", WORK).await.unwrap_or(0.0)
    }
}

#[tokio::test]
async fn a_cordoned_worker_takes_no_new_task_finishes_what_runs_and_resumes() -> Result<()> {
    let (server, gate) = (Server::start().await?, tempfile::tempdir()?);
    let script = format!("while [ ! -e {}/open ]; do sleep 0.05; done; echo 1", gate.path().display());
    let pod = Pod::start(&server, None, &exec(&["sh", "-c", &script])).await?;
    let long = server.start_activity(Activity::default()).await?;
    pod.worker.wait_metric("slots_used", WORK, 1.0).await;
    assert!(pod.status().await.open_polls > 0, "it polls, so that there is something to end");
    pod.close().await?;
    let status = pod.status().await;
    assert_eq!((status.cordoned, status.running_tasks, status.empty), (true, 1, false), "{status:?}");
    assert_eq!(pod.worker.probe("/readyz").await.map(|answer| answer.0), Some(200));

    // Others take what comes.
    let other = Pod::start(&server, None, &exec(&["echo", "2"])).await?;
    let mut activities = Vec::new();
    for _ in 0..20 {
        activities.push(server.start_activity(Activity::default()).await?);
    }
    for activity_id in &activities {
        assert_eq!(server.end_of(activity_id).await.result(), json!(2));
    }
    assert_eq!((pod.started().await, other.started().await), (1.0, 20.0));

    std::fs::write(gate.path().join("open"), "")?;
    assert_eq!(server.end_of(&long).await.result(), json!(1));
    assert_eq!(server.describe(&long).await?.attempt, 1);
    wait_for("an empty pod", SOON, async || pod.status().await.empty.then_some(())).await;

    // Both poll again, and only one of them says 1.
    pod.order(Verb::Uncordon).await?;
    other.close().await?;
    assert_eq!(server.run(Activity::default()).await?.result(), json!(1));
    Ok(())
}

#[tokio::test]
async fn a_cordon_lapses_when_nobody_renews_it() -> Result<()> {
    let server = Server::start().await?;
    let pod = Pod::start(&server, None, &exec(&["cat"])).await?;
    pod.close().await?;
    let activity_id = server.start_activity(Activity::default()).await?;
    let renewal = pod.new_order(Verb::Cordon);
    let expires_at = renewal.issued_at + Duration::from_secs(4);
    assert_eq!(pod.give(Order { expires_at, ..renewal }).await?, 200);
    assert!(pod.status().await.cordoned);
    assert_eq!(server.describe(&activity_id).await?.run_state(), PendingActivityState::Scheduled);
    assert_eq!(server.end_of(&activity_id).await.result(), json!([{"n": 1}]));
    assert!(Timestamp::now() >= expires_at, "it was taken before");
    assert_eq!(server.describe(&activity_id).await?.attempt, 1);
    assert!(!pod.status().await.cordoned && pod.worker.log().contains("lapsed"), "{}", pod.worker.log());
    Ok(())
}

#[tokio::test]
async fn only_a_fresh_order_of_its_operator_to_itself_is_obeyed() -> Result<()> {
    let server = Server::start().await?;
    let mut pod = Pod::start(&server, None, &exec(&["cat"])).await?;
    let foreign = Order::new(Verb::Cordon, "uid-of-another-pod", Timestamp::now());
    assert_eq!(pod.give(foreign).await?, 403);
    let expired = Order::new(Verb::Cordon, &pod.uid, Timestamp::now() - Duration::from_secs(61));
    assert_eq!(pod.give(expired).await?, 410);
    pod.operator = operator(2);
    assert_eq!(pod.give(pod.new_order(Verb::Cordon)).await?, 401, "a stranger");
    pod.operator = operator(1);
    assert!(!pod.status().await.cordoned);

    let order = pod.operator.sign(pod.new_order(Verb::Cordon));
    assert_eq!(pod.worker.post("/cordon", &order).await?.0, 200);
    assert!(pod.status().await.cordoned);
    pod.order(Verb::Uncordon).await?;
    assert_eq!(pod.worker.post("/cordon", &order).await?.0, 409, "the same order again");
    assert!(!pod.status().await.cordoned);
    for outcome in ["foreign", "out_of_time", "not_signed", "replayed"] {
        let labels = format!(r#"outcome="{outcome}",verb="cordon""#);
        assert_eq!(pod.worker.metric("orders_total", &labels).await, Some(1.0), "{outcome}");
    }
    assert_eq!(server.run(Activity::default()).await?.result(), json!([{"n": 1}]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cordons_under_a_stream_of_tasks_lose_none() -> Result<()> {
    let server = Arc::new(Server::start().await?);
    let pods = [Pod::start(&server, None, &exec(&["true"])).await?, Pod::start(&server, None, &exec(&["true"])).await?];
    let stop = Arc::new(AtomicBool::new(false));
    let starters: Vec<_> =
        (0..3).map(|_| tokio::spawn(stream(server.clone(), stop.clone(), Duration::from_millis(20)))).collect();
    for round in 0..4 {
        let (cordoned, other) = (&pods[round % 2], &pods[(round + 1) % 2]);
        cordoned.close().await?;
        let (before, others) = (cordoned.started().await, other.started().await);
        let goes_on = async || (other.started().await >= others + 10.0).then_some(());
        wait_for("the other one's work", SOON, goes_on).await;
        assert_eq!(cordoned.started().await, before, "it took a task though no poll was open");
        cordoned.order(Verb::Uncordon).await?;
        let resumes = async || (cordoned.started().await > before).then_some(());
        wait_for("work after the cordon", SOON, resumes).await;
    }
    stop.store(true, Ordering::Relaxed);
    for starter in starters {
        for activity_id in starter.await?? {
            assert_eq!(server.end_of(&activity_id).await.result(), json!(null));
            assert_eq!(server.describe(&activity_id).await?.attempt, 1);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_cordoned_library_worker_goes_on_with_its_workflows_and_takes_no_new_work() -> Result<()> {
    const WORKFLOWS: &str = r#"task_queue="pictures-workflows",task_type="workflow""#;
    const CHECKS: &str = r#"task_queue="pictures-local",task_type="activity""#;
    let (server, folder) = (Server::start().await?, tempfile::tempdir()?);
    let made = Command::new(program("thumbnail")).arg("--make-pictures").arg(folder.path()).arg("3").status()?;
    assert!(made.success());
    let queues = json!({"version": 1, "taskQueues": ["pictures-workflows", "pictures-local"]});
    let example = || Some(Command::new(program("pictures")));
    let start = |workflow_id: &str| {
        let arguments = ["workflow", "start", "--workflow-id", workflow_id, "--type", "MakeThumbnails"];
        let input = json!({"pictures": 3, "different": 3, "width": 200}).to_string();
        server.cli(&[&arguments[..], &["--task-queue", "pictures-workflows", "--input", &input]].concat())
    };
    let tasks = async |pod: &Pod, labels| pod.worker.metric("tasks_started_total", labels).await.unwrap_or(0.0);

    // It has a Workflow, which waits for activities that nobody runs yet.
    let pod = Pod::start(&server, example(), &queues).await?;
    start("old")?;
    wait_for("its Workflow", SOON, async || (tasks(&pod, WORKFLOWS).await >= 1.0).then_some(())).await;
    pod.close().await?;
    let before = tasks(&pod, WORKFLOWS).await;
    let other = Pod::start(&server, example(), &queues).await?;
    start("new")?;
    wait_for("the new one elsewhere", SOON, async || (tasks(&other, WORKFLOWS).await >= 1.0).then_some(())).await;
    assert_eq!(tasks(&pod, WORKFLOWS).await, before, "it took a new Workflow");

    let command = [program("thumbnail").display().to_string(), folder.path().display().to_string()];
    let thumbnails = json!({
        "version": 1,
        "taskQueues": ["thumbnails"],
        "handlers": [{"name": "thumbnail", "exec": {"command": command}}],
        "activities": [{"type": "Thumbnail", "handler": "thumbnail"}],
    });
    let _fleet = Pod::start(&server, None, &thumbnails).await?;
    for workflow_id in ["old", "new"] {
        wait_for("the Workflow's end", Duration::from_secs(90), async || {
            let described = server.cli(&["workflow", "describe", "--workflow-id", workflow_id]).ok()?;
            let status = &described["workflowExecutionInfo"]["status"];
            (status == "WORKFLOW_EXECUTION_STATUS_COMPLETED").then_some(())
        })
        .await;
    }
    assert!(tasks(&pod, WORKFLOWS).await > before, "its own Workflow had to wait for another process");
    assert_eq!((tasks(&pod, CHECKS).await, tasks(&other, CHECKS).await), (0.0, 2.0));
    wait_for("an empty pod", SOON, async || pod.status().await.empty.then_some(())).await;
    Ok(())
}
