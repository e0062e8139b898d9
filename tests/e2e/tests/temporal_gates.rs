//! Test Workflows of gates on a real Temporal server: their start, and what is read of them.

mod temporal_support;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::worker::Worker;
use operator_core::observed::{TemporalFailure, TemporalState, TestRun, TestStatus};
use temporal_support::{Bed, NAMESPACE};
use temporal_worker_operator::temporal::Phase;
use temporal_worker_operator::temporal::gates::{self, TestStart};
use temporalio_protos::temporal::api::common::v1::WorkflowExecution;
use temporalio_protos::temporal::api::history::v1::WorkflowExecutionStartedEventAttributes;
use temporalio_protos::temporal::api::history::v1::history_event::Attributes;
use temporalio_protos::temporal::api::workflow::v1::versioning_override::Override;
use temporalio_protos::temporal::api::workflowservice::v1 as wire;

const SOON: Duration = Duration::from_secs(15);
const FLEET: &str = "f";
const DEPLOYMENT: &str = "ns/app";
const QUEUE: &str = "q";

fn failed(failure: TemporalFailure) -> anyhow::Error {
    anyhow::anyhow!(failure.message)
}

/// A test Workflow on version b2.
fn test<'a>(workflow_id: &'a str, argument: Option<&'a [u8]>) -> TestStart<'a> {
    TestStart {
        namespace: NAMESPACE,
        deployment: DEPLOYMENT,
        build_id: "b2",
        workflow_id,
        workflow_type: "Smoke",
        task_queue: QUEUE,
        argument,
        identity: "operator/test",
    }
}

/// Two versions, of which b1 is current, and a fleet with these tests.
async fn two_versions(bed: &Bed, tests: &[&str]) -> Result<[Worker; 2]> {
    let workers = ["b1", "b2"].map(|_| Worker::of(&bed.server.host_port(), NAMESPACE, QUEUE));
    let [current, target] = workers;
    let (current, target) = (current?, target?);
    current.register(DEPLOYMENT, "b1").await?;
    current.make_current().await?;
    target.register(DEPLOYMENT, "b2").await?;
    bed.poller.set(bed.versioned(FLEET, DEPLOYMENT, "b2", &[QUEUE], Phase::Registering)?);
    bed.poller.follow_tests(&FLEET.into(), &ids(tests));
    Ok([current, target])
}

fn ids(tests: &[&str]) -> BTreeSet<String> {
    tests.iter().map(|id| (*id).to_owned()).collect()
}

fn seen<'a>(state: &'a TemporalState, workflow_id: &str) -> Option<&'a Option<TestRun>> {
    state.test_workflows.get(workflow_id)?.known()
}

async fn when_is(bed: &Bed, workflow_id: &str, status: TestStatus) -> Result<TestRun> {
    let is = |state: &TemporalState| seen(state, workflow_id).is_some_and(|run| is_status(run, status));
    let state = bed.when(FLEET, SOON, is).await?;
    seen(&state, workflow_id).cloned().flatten().context("it was there")
}

fn is_status(run: &Option<TestRun>, status: TestStatus) -> bool {
    run.as_ref().is_some_and(|run| run.status == status)
}

async fn started(bed: &Bed, workflow_id: &str) -> Result<WorkflowExecutionStartedEventAttributes> {
    let execution = Some(WorkflowExecution { workflow_id: workflow_id.into(), run_id: String::new() });
    let request =
        wire::GetWorkflowExecutionHistoryRequest { namespace: NAMESPACE.into(), execution, ..Default::default() };
    let history = bed.client.clone().get_workflow_execution_history(request).await?.into_inner().history;
    let first = history.and_then(|history| history.events.into_iter().next()).context("no event")?;
    match first.attributes {
        Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => Ok(started),
        other => anyhow::bail!("{other:?}"),
    }
}

#[tokio::test]
async fn a_test_is_started_once_runs_on_its_version_alone_and_is_read_until_it_ends() -> Result<()> {
    const ID: &str = "test-ns/app:b2-q";
    let bed = Bed::start().await?;
    let [_current, target] = two_versions(&bed, &[ID]).await?;
    bed.when(FLEET, SOON, |state| seen(state, ID) == Some(&None)).await.context("it is absent at first")?;
    let connection = bed.connection("main")?;
    let argument = br#"{"pictures":3}"#;
    let run_id = gates::start(&connection, test(ID, Some(argument))).await.map_err(failed)?.context("it was there")?;
    bed.poller.test_started(&FLEET.into(), ID, Some(run_id.clone()));
    assert_eq!(when_is(&bed, ID, TestStatus::Running).await?.run_id, run_id);

    let first = started(&bed, ID).await?;
    assert_eq!(first.input.unwrap_or_default().payloads.first().map(|one| one.data.as_slice()), Some(&argument[..]));
    assert_eq!(first.workflow_execution_timeout.map(|timeout| timeout.seconds), Some(3600));
    let pinned = first.versioning_override.and_then(|one| one.r#override);
    let Some(Override::Pinned(pinned)) = pinned else { anyhow::bail!("{pinned:?}") };
    assert_eq!(pinned.version.map(|version| version.build_id).as_deref(), Some("b2"));

    // A reply that was lost: asked again, there is no second run.
    let again = gates::start(&connection, test(ID, None)).await.map_err(failed)?;
    assert!(again.is_none_or(|again| again == run_id));
    // Without the pin it would go to b1, which is current.
    target.complete_workflow().await?;
    assert_eq!(when_is(&bed, ID, TestStatus::Completed).await?.run_id, run_id);

    let calls = |method: &str| bed.calls(Some(method), None);
    let (reads, described) = (calls("DescribeWorkflowExecution"), calls("DescribeWorkerDeployment"));
    let grown = tokio::time::timeout(Duration::from_secs(60), async {
        while calls("DescribeWorkerDeployment") < described + 5.0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    grown.await.context("the poller went on")?;
    assert_eq!(calls("DescribeWorkflowExecution"), reads, "what ended is not read again");

    let over = gates::start(&connection, test(ID, None)).await.map_err(failed)?;
    bed.poller.test_started(&FLEET.into(), ID, over);
    assert_eq!(when_is(&bed, ID, TestStatus::Completed).await?.run_id, run_id, "nor is it run again");
    Ok(())
}

#[tokio::test]
async fn a_failure_is_read_with_what_it_says_and_an_id_that_is_taken_is_left_alone() -> Result<()> {
    const FAILS: &str = "test-ns/app:b2-q";
    const ENDED: &str = "test-ns/app:b2:retry-1-q";
    let bed = Bed::start().await?;
    let [_current, target] = two_versions(&bed, &[FAILS, ENDED]).await?;
    let connection = bed.connection("main")?;
    gates::start(&connection, test(FAILS, None)).await.map_err(failed)?.context("it was there")?;
    assert_eq!(started(&bed, FAILS).await?.input.unwrap_or_default().payloads.len(), 0, "no argument");
    target.fail_workflow("disk full").await?;
    assert_eq!(when_is(&bed, FAILS, TestStatus::Failed).await?.failure.as_deref(), Some("disk full"));

    gates::start(&connection, test(ENDED, None)).await.map_err(failed)?.context("it was there")?;
    let request = wire::TerminateWorkflowExecutionRequest {
        namespace: NAMESPACE.into(),
        workflow_execution: Some(WorkflowExecution { workflow_id: ENDED.into(), run_id: String::new() }),
        reason: "not today".into(),
        ..Default::default()
    };
    bed.client.clone().terminate_workflow_execution(request).await?;
    assert_eq!(when_is(&bed, ENDED, TestStatus::Terminated).await?.failure.as_deref(), Some("not today"));

    // Somebody else's Workflow has the ID.
    bed.start_workflow(QUEUE).await?;
    let taken = gates::start(&connection, test("test-0", None)).await.map_err(failed)?;
    assert_eq!(taken, None);
    assert_eq!(started(&bed, "test-0").await?.workflow_type.map(|one| one.name).as_deref(), Some("Test"));
    Ok(())
}

#[tokio::test]
async fn a_start_that_the_server_refuses_says_why() -> Result<()> {
    let bed = Bed::start().await?;
    let connection = bed.connection("main")?;
    let start = TestStart { namespace: "no-such-namespace", ..test("test-1", None) };
    let refused = gates::start(&connection, start).await.expect_err("no such namespace");
    assert!(refused.message.contains("no-such-namespace"), "{}", refused.message);
    Ok(())
}
