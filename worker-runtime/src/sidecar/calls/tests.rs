use std::time::SystemTime;

use prost::Message as _;
use temporalio_common::protos::temporal::api::command::v1::command::Attributes;
use temporalio_common::protos::temporal::api::command::v1::{Command, ScheduleActivityTaskCommandAttributes};
use temporalio_common::protos::temporal::api::enums::v1::TaskQueueKind;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1 as api;

use super::*;

const TOKEN: &[u8] = b"token";

fn at<T: From<SystemTime>>(seconds: u64) -> Option<T> {
    Some((SystemTime::UNIX_EPOCH + Duration::from_millis(1000 * seconds + 500)).into())
}

fn activity() -> api::PollActivityTaskQueueResponse {
    api::PollActivityTaskQueueResponse {
        task_token: TOKEN.into(),
        scheduled_time: at(1),
        current_attempt_scheduled_time: at(100),
        started_time: at(103),
        start_to_close_timeout: Duration::from_secs(60).try_into().ok(),
        ..Default::default()
    }
}

fn workflow() -> api::PollWorkflowTaskQueueResponse {
    api::PollWorkflowTaskQueueResponse {
        task_token: TOKEN.into(),
        scheduled_time: at(100),
        started_time: at(101),
        ..Default::default()
    }
}

fn tasks(call: Call, answer: &impl prost::Message) -> Vec<(TaskType, Task)> {
    call.tasks(&answer.encode_to_vec().into()).unwrap()
}

fn task(waited: u64, timeout: Option<u64>) -> Task {
    let seconds = Duration::from_secs;
    Task { token: TOKEN.into(), waited: Some(seconds(waited)), timeout: timeout.map(seconds) }
}

#[test]
fn tasks_are_read_wherever_they_come() {
    let (an_activity, a_workflow) = ((TaskType::Activity, task(3, Some(60))), (TaskType::Workflow, task(1, None)));
    assert_eq!(tasks(Call::Poll(TaskType::Activity), &activity()), std::slice::from_ref(&an_activity));
    assert_eq!(tasks(Call::Poll(TaskType::Workflow), &workflow()), std::slice::from_ref(&a_workflow));
    let nexus = api::PollNexusTaskQueueResponse { task_token: TOKEN.into(), ..Default::default() };
    let expected = Task { token: TOKEN.into(), waited: None, timeout: None };
    assert_eq!(tasks(Call::Poll(TaskType::Nexus), &nexus), [(TaskType::Nexus, expected)]);
    let completed = api::RespondWorkflowTaskCompletedResponse {
        workflow_task: Some(workflow()),
        activity_tasks: vec![activity(), activity()],
        ..Default::default()
    };
    assert_eq!(tasks(Call::RespondWorkflow, &completed), [a_workflow.clone(), an_activity.clone(), an_activity]);
    let started = api::StartWorkflowExecutionResponse { eager_workflow_task: Some(workflow()), ..Default::default() };
    assert_eq!(tasks(Call::Start, &started), [a_workflow]);
    assert_eq!(tasks(Call::Poll(TaskType::Activity), &api::PollActivityTaskQueueResponse::default()), []);
}

#[test]
fn a_poll_tells_its_task_queue() {
    let queue = |kind: TaskQueueKind, name: &str, normal: &str| {
        Some(TaskQueue { kind: kind.into(), name: name.into(), normal_name: normal.into() })
    };
    let read = |task_type, request: &[u8]| {
        let Poll { lane, sticky } = Poll::read(task_type, request).unwrap();
        (lane.task_queue, sticky)
    };
    let task_queue = queue(TaskQueueKind::Sticky, "sticky-1", "q");
    let request = api::PollWorkflowTaskQueueRequest { task_queue, ..Default::default() }.encode_to_vec();
    assert_eq!(read(TaskType::Workflow, &request), ("q".into(), true));
    let task_queue = queue(TaskQueueKind::Normal, "q", "");
    let request = api::PollActivityTaskQueueRequest { task_queue: task_queue.clone(), ..Default::default() };
    assert_eq!(read(TaskType::Activity, &request.encode_to_vec()), ("q".into(), false));
    let request = api::PollNexusTaskQueueRequest { task_queue, ..Default::default() };
    assert_eq!(read(TaskType::Nexus, &request.encode_to_vec()), ("q".into(), false));
}

#[test]
fn wishes_for_eager_tasks_are_taken_out() {
    let completed = |eager| {
        let attributes = ScheduleActivityTaskCommandAttributes {
            activity_id: "1".into(),
            request_eager_execution: eager,
            ..Default::default()
        };
        let attributes = Some(Attributes::ScheduleActivityTaskCommandAttributes(attributes));
        let command = Command { attributes, ..Default::default() };
        let commands = vec![command];
        api::RespondWorkflowTaskCompletedRequest { task_token: TOKEN.into(), commands, ..Default::default() }
            .encode_to_vec()
    };
    let without = Call::RespondWorkflow.without_eager(&completed(true)).unwrap();
    assert_eq!(without.as_deref(), Some(&*completed(false)));
    assert_eq!(Call::RespondWorkflow.without_eager(&completed(false)), Ok(None));
    let start = |request_eager_execution| {
        let request = api::StartWorkflowExecutionRequest { request_eager_execution, ..Default::default() };
        request.encode_to_vec()
    };
    assert_eq!(Call::Start.without_eager(&start(true)).unwrap().as_deref(), Some(&*start(false)));
}

#[test]
fn every_call_that_ends_a_task_names_it_by_its_token() {
    let tokens = [
        (
            "RespondActivityTaskCompleted",
            api::RespondActivityTaskCompletedRequest { task_token: TOKEN.into(), ..Default::default() }.encode_to_vec(),
        ),
        (
            "RespondActivityTaskFailed",
            api::RespondActivityTaskFailedRequest { task_token: TOKEN.into(), ..Default::default() }.encode_to_vec(),
        ),
        (
            "RespondActivityTaskCanceled",
            api::RespondActivityTaskCanceledRequest { task_token: TOKEN.into(), ..Default::default() }.encode_to_vec(),
        ),
        (
            "RespondWorkflowTaskFailed",
            api::RespondWorkflowTaskFailedRequest { task_token: TOKEN.into(), ..Default::default() }.encode_to_vec(),
        ),
        (
            "RespondQueryTaskCompleted",
            api::RespondQueryTaskCompletedRequest { task_token: TOKEN.into(), ..Default::default() }.encode_to_vec(),
        ),
        (
            "RespondNexusTaskCompleted",
            api::RespondNexusTaskCompletedRequest { task_token: TOKEN.into(), ..Default::default() }.encode_to_vec(),
        ),
        (
            "RespondNexusTaskFailed",
            api::RespondNexusTaskFailedRequest { task_token: TOKEN.into(), ..Default::default() }.encode_to_vec(),
        ),
    ];
    for (name, request) in tokens {
        let Call::Respond { token, .. } = Call::of(&format!("/service/{name}")) else { panic!("{name}") };
        assert_eq!(bytes_of(&request, token), Ok(TOKEN), "{name}");
    }
    let request = api::RespondWorkflowTaskCompletedRequest { task_token: TOKEN.into(), ..Default::default() };
    assert_eq!(bytes_of(&request.encode_to_vec(), 1), Ok(TOKEN));
    let known = |name: &str| temporal_wire::method(&format!("/temporal.api.workflowservice.v1.WorkflowService/{name}"));
    let responds = temporal_wire::METHODS.iter().filter_map(|method| method.path.split("/Respond").nth(1));
    for name in responds.filter(|name| !name.ends_with("ById")) {
        assert_ne!(Call::of(&format!("Respond{name}")), Call::Other, "Respond{name} ends a task");
        assert!(known(&format!("Respond{name}")).is_some());
    }
}
