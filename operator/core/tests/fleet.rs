//! From a manifest to a fleet, its objects, its plan and its status, as one would read them in a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use operator_core::api::{ConditionType, Reason, WorkerDeployment, WorkerDeploymentStatus};
use operator_core::connection::{Auth, ConnectionFacts};
use operator_core::fleet::{Fleet, InvalidSpec, Surroundings, resolve};
use operator_core::observed::{
    ChildState, DeploymentInfo, FailureClass, KubeState, LaneKey, LaneStats, Observation, PodLoad, PodState,
    PollingDegraded, SlotUse, TaskType, TemporalFailure, TemporalState, VersionInfo, VersionStatus, Waiting,
};
use operator_core::plan::{Action, Plan, PlanInput, VICTIM_COST, object_key, plan};
use operator_core::scaling::State;
use operator_core::status::{Blocked, STALE_GRACE, StatusInput, compute, must_write, staleness};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn manifest(patch: Value) -> WorkerDeployment {
    let mut spec = json!({
        "workerOptions": {"connectionRef": {"name": "temporal"}, "temporalNamespace": "default"},
        "rollout": {"strategy": "AllAtOnce"},
        "sunset": {},
        "template": {"metadata": {"labels": {"app": "orders"}}, "spec": {"containers": [
            {"name": "worker", "image": "acme/orders:v1", "env": [{"name": "TEMPORAL_ADDRESS", "value": "mine"}]}]}},
    });
    spec.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
    let metadata = json!({"name": "orders", "namespace": "prod", "uid": "u-1", "generation": 3});
    let object =
        json!({"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn runtime() -> Value {
    json!({
        "taskQueues": [{"name": "q", "maxConcurrentActivities": 4}],
        "handlers": [{"name": "cat", "exec": {"command": ["cat"], "timeout": "90s"}}],
        "activities": [{"type": "Echo", "handler": "cat"}],
    })
}

fn try_resolve(manifest: &WorkerDeployment, images: &[(&str, &str)]) -> Result<Fleet, InvalidSpec> {
    let connection = ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth: Auth::None, ca_cert: None };
    let images = images.iter().map(|(child, image)| ((*child).into(), (*image).into())).collect();
    let around = Surroundings {
        connection: &connection,
        default_runtime_image: "runtime:v9",
        runtime_images: &images,
        order_keys: &[],
        uncordonable: &BTreeSet::new(),
    };
    resolve(manifest, &around)
}

fn fleet(patch: Value) -> Fleet {
    try_resolve(&manifest(patch), &[]).unwrap()
}

fn lane() -> LaneKey {
    LaneKey { task_queue: "q".into(), task_type: TaskType::Activity }
}

fn known<T>(value: T) -> Observation<T> {
    Observation::Known { value, age: Duration::ZERO }
}

/// A cluster in which the fleet's child has `replicas`, of which `busy` pods run a task.
fn cluster(fleet: &Fleet, replicas: u32, busy: u32) -> KubeState {
    let pod = |index: u32| {
        let used = u64::from(index < busy);
        let load = PodLoad::of([(lane(), SlotUse { used, available: 4 - used, started: used, ..SlotUse::default() })]);
        PodState {
            name: format!("pod-{index}"),
            build_id: fleet.build_id.clone(),
            ready: true,
            terminating: false,
            may_run: true,
            waiting: None,
            deletion_cost: 0,
            restarts: 0,
            may_be_cordoned: false,
            unreadable: None,
            cordoned: false,
            shown_cordoned: false,
            load: known(load),
        }
    };
    let child = ChildState {
        name: fleet.child_name.clone(),
        uid: "c-1".into(),
        build_id: fleet.build_id.clone(),
        spec_replicas: replicas,
        ready_replicas: replicas,
        resource_version: "77".into(),
        ..ChildState::default()
    };
    KubeState { children: vec![child], pods: (0..replicas).map(pod).collect(), ..KubeState::default() }
}

/// A server on which the fleet's version is current and `backlog` tasks wait.
fn server(fleet: &Fleet, backlog: u64) -> TemporalState {
    let build_id = fleet.build_id.clone().unwrap_or_default();
    let version = VersionInfo { status: VersionStatus::Current, lanes: [lane()].into(), ..VersionInfo::default() };
    let info = DeploymentInfo {
        current_build_id: Some(build_id.clone()),
        versions: BTreeMap::from([(build_id, version)]),
        conflict_token: vec![1],
        ..DeploymentInfo::default()
    };
    TemporalState {
        deployment: known(Some(info)),
        lanes: BTreeMap::from([(lane(), known(LaneStats { backlog, ..LaneStats::default() }))]),
        ..TemporalState::default()
    }
}

fn plan_of(fleet: &Fleet, kube: &KubeState, temporal: &TemporalState) -> Plan {
    plan_after_marks(fleet, kube, temporal, None)
}

fn plan_after_marks(fleet: &Fleet, kube: &KubeState, temporal: &TemporalState, since_marked: Option<Duration>) -> Plan {
    plan(&PlanInput {
        fleet,
        kube,
        applied: &BTreeMap::new(),
        temporal,
        scaling: &State::default(),
        now: Duration::from_secs(1000),
        wall: NOW,
        identity: "me",
        since_marked,
    })
}

fn scales(plan: &Plan) -> Vec<(u32, u32)> {
    let scale = |action: &Action| match action {
        Action::Scale { from, to, .. } => Some((*from, *to)),
        _ => None,
    };
    plan.actions.iter().filter_map(scale).collect()
}

fn status(
    fleet: &Fleet,
    kube: &KubeState,
    temporal: &TemporalState,
    blocked: Option<&Blocked>,
) -> WorkerDeploymentStatus {
    let plan = plan_of(fleet, kube, temporal);
    let previous = WorkerDeploymentStatus::default();
    compute(&StatusInput {
        generation: 3,
        previous: &previous,
        blocked,
        planned: Some((fleet, &plan)),
        kube,
        temporal,
        scaled_to: None,
        stale_for: staleness(fleet, &plan, kube, temporal).any().then_some(STALE_GRACE),
        now: NOW,
    })
}

fn words(status: &WorkerDeploymentStatus, type_: ConditionType) -> (String, String) {
    let condition = status.condition(type_).unwrap_or_else(|| panic!("no condition {type_}"));
    (condition.status.clone(), condition.reason.clone())
}

fn says(status: &str, reason: Reason) -> (String, String) {
    (status.to_owned(), reason.as_str().to_owned())
}

#[test]
fn the_child_has_the_names_labels_annotations_and_variables_of_the_contract() {
    let fleet = fleet(json!({}));
    assert_eq!(fleet.child.replaced_variables, ["worker/TEMPORAL_ADDRESS"]);
    insta::assert_json_snapshot!(fleet.child.object);
}

#[test]
fn a_runtime_fleet_without_a_template_runs_the_runtime_with_both_files() {
    let fleet = fleet(json!({"template": null, "runtime": runtime(), "scaling": {}}));
    insta::assert_json_snapshot!(json!({"child": fleet.child.object, "configMaps": fleet.config_maps}));
}

#[test]
fn handlers_of_a_template_get_no_credentials_and_outlive_the_drain() {
    let fleet = fleet(json!({"runtime": runtime()}));
    let containers = &fleet.child.object["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["env"], json!([{"name": "TEMPORAL_ADDRESS", "value": "mine"}]));
    assert_eq!(containers[0]["lifecycle"]["preStop"]["httpGet"]["path"], "/drained");
    assert_eq!(containers[1]["name"], "temporal-worker-runtime");
    assert!(fleet.child.replaced_variables.is_empty());
}

#[test]
fn a_worker_on_the_library_is_told_where_its_files_are_and_shows_its_metrics() {
    let library = json!({"mode": "Library", "taskQueues": [{"name": "q"}]});
    let container = |template: Value| {
        let fleet = fleet(json!({"runtime": library, "template": template}));
        fleet.child.object["spec"]["template"]["spec"]["containers"][0].clone()
    };
    let plain = container(json!({"spec": {"containers": [{"name": "w", "image": "acme/w:v1"}]}}));
    assert_eq!(plain["env"][0], json!({"name": "WORKER_RUNTIME_CONFIG", "value": "/etc/temporal-worker/runtime.json"}));
    assert_eq!(plain["env"][1], json!({"name": "WORKER_RUNTIME_LIMITS", "value": "/etc/temporal-worker/limits.json"}));
    assert_eq!(plain["ports"], json!([{"name": "metrics", "containerPort": 8080, "protocol": "TCP"}]));
    let own = container(json!({"spec": {"containers": [{"name": "w", "image": "acme/w:v1",
        "env": [{"name": "WORKER_RUNTIME_CONFIG", "value": "/mine"}], "ports": [{"name": "metrics", "containerPort": 9}]}]}}));
    assert_eq!(own["env"][0]["value"], "/mine");
    assert_eq!(own["ports"], json!([{"name": "metrics", "containerPort": 9}]));
}

#[test]
fn no_object_of_a_fleet_ever_holds_replicas() {
    for patch in [json!({}), json!({"replicas": 3}), json!({"scaling": {}}), json!({"versioning": "Disabled"})] {
        let fleet = fleet(patch);
        assert!(fleet.child.object["spec"].get("replicas").is_none(), "{}", fleet.child.object);
    }
}

#[test]
fn limits_change_without_a_new_version_and_handlers_do_not() {
    let build_id = |change: &dyn Fn(&mut Value)| {
        let mut runtime = runtime();
        change(&mut runtime);
        let fleet = fleet(json!({"template": null, "runtime": runtime}));
        (fleet.build_id.unwrap(), fleet.child.object["spec"]["template"]["metadata"]["annotations"].clone())
    };
    let (first, annotations) = build_id(&|_| {});
    let (same, other_annotations) = build_id(&|runtime| {
        runtime["taskQueues"][0]["maxConcurrentActivities"] = 9.into();
        runtime["handlers"][0]["exec"]["timeout"] = "5s".into();
        runtime["drainTimeout"] = "10m".into();
    });
    assert_eq!(first, same);
    assert_ne!(annotations, other_annotations, "the pods are replaced, to read the new limits");
    let (other, _) = build_id(&|runtime| runtime["handlers"][0]["exec"]["command"] = json!(["dog"]));
    assert_ne!(first, other);
}

#[test]
fn the_configuration_of_a_version_is_immutable_unless_the_user_names_the_version() {
    let immutable = |patch: Value| fleet(patch).config_maps[0]["immutable"].clone();
    assert_eq!(immutable(json!({"runtime": runtime()})), json!(true));
    let options =
        json!({"connectionRef": {"name": "temporal"}, "temporalNamespace": "default", "unsafeCustomBuildID": "v1"});
    assert_eq!(immutable(json!({"runtime": runtime(), "workerOptions": options})), Value::Null);
    assert_eq!(immutable(json!({"runtime": runtime(), "versioning": "Disabled"})), Value::Null);
}

#[test]
fn a_version_keeps_the_default_image_that_it_was_created_with() {
    let manifest = manifest(json!({"template": null, "runtime": runtime()}));
    let child = try_resolve(&manifest, &[]).unwrap().child_name;
    let kept = try_resolve(&manifest, &[(&child, "runtime:v8")]).unwrap();
    assert_eq!(kept.child_name, child);
    assert_eq!(kept.child.object["spec"]["template"]["spec"]["containers"][0]["image"], "runtime:v8");
}

#[test]
fn what_can_not_run_names_field_value_and_remedy() {
    let error = |patch: Value| try_resolve(&manifest(patch), &[]).unwrap_err().to_string();
    let message = error(json!({"template": {"spec": {"containers": []}}}));
    assert!(message.starts_with("spec.template.spec.containers: is empty; name the Worker's container"), "{message}");
    let message = error(json!({"template": {"spec": {"containers": [
        {"name": "w", "image": "i", "resources": {"limits": {"cpu": "lots"}}}]}}}));
    assert!(message.contains("resources.limits.cpu") && message.contains("lots"), "{message}");
    let mut dotted = manifest(json!({}));
    dotted.metadata.name = Some("orders.eu".into());
    let message = try_resolve(&dotted, &[]).unwrap_err().to_string();
    assert!(message.contains("metadata.name") && message.contains("orders.eu"), "{message}");
}

#[test]
fn an_idle_fleet_that_stands_as_applied_needs_no_write() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let (kube, temporal) = (cluster(&fleet, 0, 0), server(&fleet, 0));
    let first = plan_of(&fleet, &kube, &temporal);
    let digest = |action: &Action| match action {
        Action::Apply { object, digest } => Some((object_key(object), digest.clone())),
        _ => None,
    };
    let applied: BTreeMap<_, _> = first.actions.iter().filter_map(digest).collect();
    assert_eq!(applied.len(), 3, "two ConfigMaps and the Deployment");
    let scaling = State::default();
    let again = plan(&PlanInput {
        fleet: &fleet,
        kube: &kube,
        applied: &applied,
        temporal: &temporal,
        scaling: &scaling,
        now: Duration::from_secs(1000),
        wall: NOW,
        identity: "me",
        since_marked: None,
    });
    assert_eq!(again.actions, []);
}

#[test]
fn a_backlog_at_zero_orders_the_pods_for_it_on_the_version_that_was_seen() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let plan = plan_of(&fleet, &cluster(&fleet, 0, 0), &server(&fleet, 9));
    assert_eq!(scales(&plan), [(0, 3)]);
    let based_on = plan.actions.iter().find_map(|action| match action {
        Action::Scale { resource_version, .. } => Some(resource_version.as_str()),
        _ => None,
    });
    assert_eq!(based_on, Some("77"));
}

#[test]
fn a_server_that_is_away_changes_nothing_but_conditions() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let kube = cluster(&fleet, 3, 0);
    let mut temporal = server(&fleet, 0);
    temporal.lanes.insert(lane(), Observation::Stale { value: LaneStats::default(), age: Duration::from_secs(90) });
    temporal.failure = Some(TemporalFailure { class: FailureClass::Unreachable, message: "refused".into() });
    assert_eq!(scales(&plan_of(&fleet, &kube, &temporal)), []);
    let status = status(&fleet, &kube, &temporal, None);
    assert_eq!(words(&status, ConditionType::Ready), says("False", Reason::TemporalClientCreationFailed));
    assert_eq!(words(&status, ConditionType::ScalingActive), says("False", Reason::SignalsStale));
    assert!(status.condition(ConditionType::Stalled).is_none(), "it heals alone");
}

#[test]
fn spec_replicas_is_written_by_scale_and_no_replicas_means_hands_off() {
    let fixed = fleet(json!({"replicas": 3}));
    assert_eq!(scales(&plan_of(&fixed, &cluster(&fixed, 1, 0), &server(&fixed, 0))), [(1, 3)]);
    let free = fleet(json!({}));
    assert_eq!(scales(&plan_of(&free, &cluster(&free, 7, 0), &server(&free, 0))), [], "7 stays 7");
}

#[test]
fn a_pod_without_a_running_container_holds_nothing_up() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {"maxReplicas": 1}}));
    let mut kube = cluster(&fleet, 2, 0);
    kube.pods[1].ready = false;
    kube.pods[1].load = Observation::Unknown;
    assert_eq!(scales(&plan_of(&fleet, &kube, &server(&fleet, 0))), [], "its load is not known");
    kube.pods[1].may_run = false;
    let plan = plan_of(&fleet, &kube, &server(&fleet, 0));
    let mark = Action::SetDeletionCost { pod: "pod-1".into(), cost: Some(VICTIM_COST) };
    assert!(plan.actions.contains(&mark) && scales(&plan).is_empty(), "first it is marked: {:?}", plan.actions);
    kube.pods[1].deletion_cost = VICTIM_COST;
    assert_eq!(scales(&plan_of(&fleet, &kube, &server(&fleet, 0))), [(2, 1)]);
}

#[test]
fn a_victim_goes_only_once_it_was_read_after_it_was_marked() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {"maxReplicas": 1}}));
    let mut kube = cluster(&fleet, 2, 1);
    kube.pods[1].deletion_cost = VICTIM_COST;
    let scales_after = |age: u64| {
        let mut kube = kube.clone();
        let load = kube.pods[1].load.known().unwrap().clone();
        kube.pods[1].load = Observation::Known { value: load, age: Duration::from_millis(age) };
        let since_marked = Some(Duration::from_millis(500));
        scales(&plan_after_marks(&fleet, &kube, &server(&fleet, 0), since_marked))
    };
    assert_eq!(scales_after(1_800), [], "it may have got a task since");
    assert_eq!(scales_after(40), [(2, 1)]);
}

#[test]
fn a_mark_that_is_no_longer_meant_is_taken_away() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let mut kube = cluster(&fleet, 2, 2);
    kube.pods[1].deletion_cost = VICTIM_COST;
    let plan = plan_of(&fleet, &kube, &server(&fleet, 0));
    assert!(plan.actions.contains(&Action::SetDeletionCost { pod: "pod-1".into(), cost: None }), "{:?}", plan.actions);
}

#[test]
fn a_new_version_is_not_sized_by_the_backlog_of_the_current_one() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let mut temporal = server(&fleet, 500);
    if let Observation::Known { value: Some(info), .. } = &mut temporal.deployment {
        info.current_build_id = Some("older".into());
    }
    let plan = plan_of(&fleet, &cluster(&fleet, 1, 0), &temporal);
    assert_eq!(scales(&plan), []);
    assert!(plan.actions.iter().any(|action| matches!(action, Action::SetCurrent { .. })), "{:?}", plan.actions);
}

#[test]
fn a_deployment_of_somebody_else_is_never_applied_over() {
    let fleet = fleet(json!({"runtime": runtime()}));
    let kube = KubeState { foreign_deployments: [fleet.child_name.clone()].into(), ..KubeState::default() };
    let plan = plan_of(&fleet, &kube, &server(&fleet, 0));
    assert_eq!(plan.actions, []);
    let status = status(&fleet, &kube, &server(&fleet, 0), None);
    let ready = status.condition(ConditionType::Ready).unwrap();
    assert!(ready.message.contains(&fleet.child_name) && ready.message.contains("belongs to somebody else"));
}

#[test]
fn a_connection_whose_readings_come_late_says_so_with_the_remedy() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let kube = cluster(&fleet, 1, 0);
    let health = |factor: f64| {
        let degraded = Some(PollingDegraded { factor });
        let status = status(&fleet, &kube, &TemporalState { degraded, ..server(&fleet, 0) }, None);
        let condition = status.condition(ConditionType::ConnectionHealthy).unwrap();
        assert_eq!(words(&status, ConditionType::ConnectionHealthy), says("True", Reason::PollingDegraded));
        condition.message.clone()
    };
    let message = health(2.6);
    assert!(message.contains("up to 4 times") && message.contains("--temporal-calls-per-second"), "{message}");
    assert_eq!(message, health(3.9), "what changes a little is not written anew");
}

#[test]
fn each_situation_has_its_conditions() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let (kube, temporal) = (cluster(&fleet, 1, 0), server(&fleet, 0));
    let current = status(&fleet, &kube, &temporal, None);
    assert_eq!(words(&current, ConditionType::Ready), says("True", Reason::RolloutComplete));
    assert_eq!(words(&current, ConditionType::Progressing), says("False", Reason::RolloutComplete));
    assert_eq!(words(&current, ConditionType::ConnectionHealthy), says("True", Reason::ConnectionHealthy));
    assert_eq!(current.observed_generation, Some(3));

    let unread = status(&fleet, &kube, &TemporalState::default(), None);
    assert_eq!(words(&unread, ConditionType::Ready), says("Unknown", Reason::PollerStatusUnknown));

    let unseen = TemporalState { deployment: known(None), ..TemporalState::default() };
    let waiting = status(&fleet, &kube, &unseen, None);
    assert_eq!(words(&waiting, ConditionType::Ready), says("False", Reason::WaitingForPollers));
    assert_eq!(words(&waiting, ConditionType::Progressing), says("True", Reason::WaitingForPollers));

    let blocked = Blocked { reason: Reason::ConnectionNotFound, message: "gone".into() };
    let blocked = status(&fleet, &kube, &temporal, Some(&blocked));
    assert_eq!(words(&blocked, ConditionType::Ready), says("False", Reason::ConnectionNotFound));
    assert_eq!(words(&blocked, ConditionType::Stalled), says("True", Reason::ConnectionNotFound));
}

#[test]
fn pods_that_can_not_start_are_named_with_their_image() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {}}));
    let mut kube = cluster(&fleet, 1, 0);
    kube.children[0].ready_replicas = 0;
    kube.pods[0].ready = false;
    kube.pods[0].waiting = Some(Waiting {
        container: "w".into(),
        image: "nowhere/x:1".into(),
        reason: "ImagePullBackOff".into(),
        message: "not found".into(),
    });
    let status = status(&fleet, &kube, &server(&fleet, 0), None);
    assert_eq!(words(&status, ConditionType::Stalled), says("True", Reason::PodStartFailed));
    let message = &status.condition(ConditionType::Ready).unwrap().message;
    assert!(["pod-0", "container w", "nowhere/x:1", "ImagePullBackOff"].iter().all(|word| message.contains(word)));
}

#[test]
fn an_old_version_is_said_to_be_left_alone() {
    let fleet = fleet(json!({"runtime": runtime()}));
    let mut kube = cluster(&fleet, 1, 0);
    kube.children.push(ChildState { name: "orders-old".into(), build_id: Some("old".into()), ..ChildState::default() });
    let status = status(&fleet, &kube, &server(&fleet, 0), None);
    assert_eq!(words(&status, ConditionType::OldVersionsKept), says("True", Reason::SunsetNotSupported));
    assert_eq!(status.deprecated_versions[0].version.build_id, "old");
}

#[test]
fn numbers_alone_are_written_at_most_every_thirty_seconds() {
    let fleet = fleet(json!({"runtime": runtime(), "scaling": {"minReplicas": 1}}));
    let kube = cluster(&fleet, 1, 1);
    let quiet = status(&fleet, &kube, &server(&fleet, 0), None);
    let busier = status(&fleet, &kube, &server(&fleet, 2), None);
    assert_ne!(quiet, busier);
    assert!(!must_write(&quiet, &busier, Duration::from_secs(29)));
    assert!(must_write(&quiet, &busier, Duration::from_secs(30)));
    assert!(!must_write(&quiet, &quiet, Duration::from_secs(999)), "at rest nothing is written");
    let unread = status(&fleet, &kube, &TemporalState::default(), None);
    assert!(must_write(&quiet, &unread, Duration::ZERO), "a condition changed");
}
