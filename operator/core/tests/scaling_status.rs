//! What status, events and `explain` say of a scaling decision. The decisions here are made up, so that each of their
//! parts can be seen to arrive.

use std::time::Duration;

use jiff::Timestamp;
use operator_core::api::{ConditionType, WorkerDeployment, WorkerDeploymentStatus};
use operator_core::connection::{Auth, ConnectionFacts};
use operator_core::events::{EventData, SLO_MISSED_INTERVAL, scaling_changed};
use operator_core::explain;
use operator_core::fleet::{Fleet, Surroundings, resolve};
use operator_core::observed::{
    ChildState, FailureClass, KubeState, LaneKey, LaneStats, Observation, PodLoad, PodState, RateLimitSource,
    ReadFailure, TaskType, TemporalFailure, TemporalState, Unreadable,
};
use operator_core::plan::{Action, Plan, PlanInput, plan};
use operator_core::scaling::{Decision, LaneReport, Limit, Outcome, Report, Slo, State};
use operator_core::status::{QUIET_WRITE_INTERVAL, STALE_GRACE, StatusInput, compute, must_write};
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-08-07T10:00:00Z".parse().unwrap()
}

fn manifest(scaling: Value) -> WorkerDeployment {
    let spec = json!({
        "workerOptions": {"connectionRef": {"name": "temporal"}, "temporalNamespace": "default"},
        "versioning": "Disabled",
        "template": {"spec": {"containers": [{"name": "worker", "image": "acme/video:v1"}]}},
        "scaling": scaling,
    });
    let metadata = json!({"name": "video", "namespace": "prod", "uid": "u-1", "generation": 3});
    let object =
        json!({"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn fleet(options: Value) -> Fleet {
    let mut scaling = json!({"taskQueues": [{"name": "video", "types": ["Activity"]}]});
    scaling.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let connection = ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth: Auth::None, ca_cert: None };
    let images = Default::default();
    let around = Surroundings {
        connection: &connection,
        default_runtime_image: "runtime",
        runtime_images: &images,
        order_keys: &[],
        uncordonable: &Default::default(),
    };
    resolve(&manifest(scaling), &around).unwrap()
}

fn lane() -> LaneKey {
    LaneKey { task_queue: "video".into(), task_type: TaskType::Activity }
}

fn pod(name: &str, load: Observation<PodLoad>) -> PodState {
    PodState { name: name.into(), ready: true, may_run: true, load, ..PodState::default() }
}

fn known<T>(value: T) -> Observation<T> {
    Observation::Known { value, age: Duration::ZERO }
}

fn cluster() -> KubeState {
    let child = ChildState { name: "video".into(), spec_replicas: 4, ready_replicas: 2, ..ChildState::default() };
    let pods = vec![pod("video-a", known(PodLoad::default())), pod("video-b", known(PodLoad::default()))];
    KubeState { children: vec![child], pods, ..KubeState::default() }
}

fn server() -> TemporalState {
    let lanes = [(lane(), known(LaneStats::default()))].into();
    TemporalState { lanes, ..TemporalState::default() }
}

/// A decision for six pods, with everything that a report can hold but limits.
fn decision() -> Decision {
    let lane_report = LaneReport {
        lane: lane(),
        backlog: Some(1840),
        backlog_age: Some(Duration::from_millis(12_345)),
        arrival_rate: Some(3.904),
        in_flight: 40,
        slots_per_pod: Some(8.25),
        service_time: Some(Duration::from_micros(10_203_004)),
        offered_load: 39.84,
        rate_replicas: 6,
        burst_replicas: 22,
        metrics_age: Some(Duration::from_millis(2_017)),
    };
    let report = Report {
        lanes: vec![lane_report],
        binding: Some(lane()),
        limits: Vec::new(),
        slo: Some(Slo { target: Duration::from_secs(5), late_share: 0.0123, hold_multiplier: 1.3 }),
        next_down_in: Some(Duration::from_millis(42_400)),
    };
    Decision {
        desired: 22,
        victims: Vec::new(),
        cordon: Vec::new(),
        backlog: Some(1840),
        in_flight: Some(40),
        outcome: Outcome::Scaled,
        reason: "22 replicas: so it is.".into(),
        recheck_after: Duration::from_secs(5),
        report,
    }
}

struct Scene {
    fleet: Fleet,
    decision: Decision,
    kube: KubeState,
    temporal: TemporalState,
    stale_for: Option<Duration>,
    now: Timestamp,
    previous: WorkerDeploymentStatus,
}

impl Scene {
    fn new(options: Value) -> Self {
        Self {
            fleet: fleet(options),
            decision: decision(),
            kube: cluster(),
            temporal: server(),
            stale_for: None,
            now: now(),
            previous: WorkerDeploymentStatus::default(),
        }
    }

    fn limited(limit: Limit) -> Self {
        let mut scene = Self::new(json!({}));
        scene.decision.report.limits.push(limit);
        scene
    }

    fn late(share: f64) -> Self {
        let mut scene = Self::new(json!({}));
        scene.decision.report.slo =
            Some(Slo { target: Duration::from_secs(5), late_share: share, hold_multiplier: 2.0 });
        scene
    }

    fn status(&self) -> WorkerDeploymentStatus {
        let plan = Plan { decision: Some(self.decision.clone()), ..Plan::default() };
        compute(&StatusInput {
            generation: 3,
            previous: &self.previous,
            blocked: None,
            planned: Some((&self.fleet, &plan)),
            kube: &self.kube,
            temporal: &self.temporal,
            scaled_to: None,
            stale_for: self.stale_for,
            now: self.now,
        })
    }

    fn condition(&self, type_: ConditionType) -> String {
        said(&self.status(), type_)
    }
}

fn said(status: &WorkerDeploymentStatus, type_: ConditionType) -> String {
    status.condition(type_).map_or_else(String::new, |one| format!("{} {}: {}", one.status, one.reason, one.message))
}

#[test]
fn the_status_has_the_whole_calculation() {
    insta::assert_yaml_snapshot!(Scene::new(json!({})).status().scaling);
}

#[test]
fn a_decision_without_limits_and_with_fresh_readings_is_active_and_met() {
    let scene = Scene::new(json!({}));
    let conditions = [
        ConditionType::ScalingActive,
        ConditionType::ScalingLimited,
        ConditionType::MetricsStale,
        ConditionType::SLOMet,
        ConditionType::Stalled,
    ];
    insta::assert_yaml_snapshot!(conditions.map(|type_| scene.condition(type_)));
}

#[test]
fn every_limit_has_a_condition_with_numbers_and_a_remedy() {
    let rate = |source| Limit::RateLimited { lane: lane(), per_second: 10.0, source };
    let stalled = |pods, why: Option<&str>| Limit::Stalled {
        pods,
        since: Duration::from_secs(250),
        why: why.map(ToOwned::to_owned),
    };
    let limits = [
        Limit::Maximum { needed: 14 },
        rate(Some(RateLimitSource::Worker)),
        rate(Some(RateLimitSource::Api)),
        rate(Some(RateLimitSource::System)),
        rate(None),
        Limit::Ineffective { retry_in: Duration::from_secs(300) },
        Limit::Ramp,
        Limit::Paused,
        stalled(2, Some("ImagePullBackOff")),
        stalled(1, None),
    ];
    let said = limits.map(|limit| {
        let scene = Scene::limited(limit);
        let found = [ConditionType::ScalingLimited, ConditionType::Stalled]
            .map(|type_| format!("{type_} {}", scene.condition(type_)));
        found.into_iter().find(|said| said.contains(" True ")).unwrap_or_default()
    });
    insta::assert_yaml_snapshot!(said);
}

#[test]
fn what_is_stale_is_said_with_its_cause_once_it_lasts() {
    let mut scene = Scene::new(json!({}));
    scene.kube.pods[1].load = Observation::Stale { value: PodLoad::default(), age: Duration::from_secs(41) };
    scene.kube.pods[1].unreadable =
        Some(Unreadable::Failed { at: ":8080/metrics".into(), failure: ReadFailure::ConnectTimeout });
    scene.stale_for = Some(STALE_GRACE / 2);
    assert_eq!(scene.condition(ConditionType::MetricsStale), "", "a reading that is late says nothing yet");
    scene.stale_for = Some(STALE_GRACE);
    let workers = scene.condition(ConditionType::MetricsStale);
    scene.temporal.lanes.insert(lane(), Observation::Unknown);
    scene.temporal.failure = Some(TemporalFailure { class: FailureClass::Unreachable, message: "refused".into() });
    let both = scene.condition(ConditionType::MetricsStale);
    scene.kube = cluster();
    let server = scene.condition(ConditionType::MetricsStale);
    assert!(scene.condition(ConditionType::ScalingActive).starts_with("False SignalsStale"));
    insta::assert_yaml_snapshot!([workers, both, server]);
}

#[test]
fn pods_that_start_or_end_and_pods_that_are_not_asked_are_not_stale() {
    let stale = |scene: &Scene| {
        let plan = Plan::default();
        operator_core::status::staleness(&scene.fleet, &plan, &scene.kube, &scene.temporal).any()
    };
    let mut scene = Scene::new(json!({}));
    scene.kube.pods[1].load = Observation::Unknown;
    assert!(stale(&scene));
    scene.kube.pods[1].ready = false;
    assert!(!stale(&scene), "it starts");
    (scene.kube.pods[1].ready, scene.kube.pods[1].terminating) = (true, true);
    assert!(!stale(&scene), "it ends");
    scene.kube.pods[1].terminating = false;
    scene.fleet = fleet(json!({"mode": "ServerOnly"}));
    assert!(!stale(&scene), "no pod is asked");
}

#[test]
fn a_missed_target_is_met_again_only_when_well_below() {
    let missed = Scene::late(0.06).status();
    let after = |share: f64| {
        let scene = Scene { previous: missed.clone(), ..Scene::late(share) };
        scene.condition(ConditionType::SLOMet)
    };
    assert!(Scene::late(0.04).condition(ConditionType::SLOMet).starts_with("True WithinTarget"));
    assert!(after(0.04).starts_with("False SLOMissed"), "{}", after(0.04));
    assert!(after(0.02).starts_with("True WithinTarget"), "{}", after(0.02));
    let unknown = Scene { decision: Decision { report: Report::default(), ..decision() }, ..Scene::new(json!({})) };
    insta::assert_yaml_snapshot!([after(0.04), after(0.02), unknown.condition(ConditionType::SLOMet)]);
}

#[test]
fn a_dry_run_and_a_pause_are_said() {
    let active = |options: Value| Scene::new(options).condition(ConditionType::ScalingActive);
    assert!(active(json!({"dryRun": true})).starts_with("False DryRun: spec.scaling.dryRun is set"));
    assert!(active(json!({"pause": "All"})).starts_with("False Paused: spec.scaling.pause is All"));
    assert!(active(json!({"pause": "Down"})).starts_with("True SignalsFresh"));
}

#[test]
fn a_fleet_without_scaling_has_none_of_it() {
    let mut scene = Scene::new(json!({}));
    scene.previous = scene.status();
    scene.fleet.scaling = None;
    let status = scene.status();
    assert_eq!(status.scaling, None);
    for type_ in [ConditionType::ScalingLimited, ConditionType::MetricsStale, ConditionType::SLOMet] {
        assert_eq!(said(&status, type_), "", "{type_}");
    }
    assert!(said(&status, ConditionType::ScalingActive).starts_with("False ScalingDisabled"));
}

#[test]
fn ages_are_never_worth_a_write_and_numbers_only_after_a_while() {
    let mut scene = Scene::limited(Limit::Stalled { pods: 2, since: Duration::from_secs(130), why: None });
    let old = scene.status();
    scene.decision.report.lanes[0].metrics_age = Some(Duration::from_secs(4));
    assert_ne!(scene.status(), old);
    assert!(!must_write(&old, &scene.status(), Duration::from_secs(9999)), "an age");
    scene.decision.report.limits = vec![Limit::Stalled { pods: 2, since: Duration::from_secs(135), why: None }];
    scene.decision.report.slo = None;
    assert!(must_write(&old, &scene.status(), Duration::ZERO), "the target is no longer known to be met");
    scene.decision.report.slo = decision().report.slo;
    scene.decision.report.lanes[0].in_flight = 41;
    assert!(!must_write(&old, &scene.status(), QUIET_WRITE_INTERVAL / 2), "numbers, in conditions too");
    assert!(must_write(&old, &scene.status(), QUIET_WRITE_INTERVAL));
    scene.decision.desired += 1;
    assert!(must_write(&old, &scene.status(), Duration::ZERO), "a decision");
}

#[test]
fn the_next_decrease_keeps_its_moment_while_it_comes_nearer() {
    let mut scene = Scene::new(json!({}));
    scene.previous = scene.status();
    let at = |scene: &Scene| scene.status().scaling.unwrap().next_down_at.unwrap().0;
    let first = at(&scene);
    scene.now += Duration::from_millis(5_300);
    scene.decision.report.next_down_in = Some(Duration::from_millis(37_900));
    assert_eq!(at(&scene), first);
    scene.decision.report.next_down_in = Some(Duration::from_secs(60));
    assert!(at(&scene) > first, "it was put off");
}

fn words(events: &[EventData]) -> Vec<&str> {
    events.iter().map(|event| event.reason).collect()
}

#[test]
fn a_condition_that_turns_is_said_once() {
    let good = Scene::new(json!({})).status();
    let turned = |scene: Scene| {
        let bad = scene.status();
        assert!(scaling_changed(&bad, &bad, None).is_empty(), "said twice");
        assert!(scaling_changed(&bad, &good, None).is_empty(), "the way back is said by the condition");
        scaling_changed(&good, &bad, None)
    };
    assert_eq!(words(&turned(Scene::limited(Limit::Maximum { needed: 30 }))), ["ScalingLimited"]);
    let stalled = turned(Scene::limited(Limit::Stalled { pods: 1, since: Duration::from_secs(130), why: None }));
    assert_eq!(words(&stalled), ["Stalled"]);
    assert!(stalled[0].note.contains("2m10s"), "{}", stalled[0].note);
    let mut stale = Scene::new(json!({}));
    stale.stale_for = Some(STALE_GRACE);
    stale.kube.pods[0].load = Observation::Unknown;
    assert_eq!(words(&turned(stale)), ["MetricsStale"]);
    assert_eq!(words(&turned(Scene::late(0.2))), ["SLOMissed"]);
}

#[test]
fn a_missed_target_is_said_at_most_every_fifteen_minutes() {
    let (good, bad) = (Scene::new(json!({})).status(), Scene::late(0.2).status());
    let since = |time| words(&scaling_changed(&good, &bad, Some(time))).len();
    assert_eq!(since(SLO_MISSED_INTERVAL - Duration::from_secs(1)), 0);
    assert_eq!(since(SLO_MISSED_INTERVAL), 1);
}

#[test]
fn a_dry_run_says_what_it_would_have_done() {
    let mut scene = Scene::new(json!({"dryRun": true}));
    let first = scene.status();
    let events = scaling_changed(&WorkerDeploymentStatus::default(), &first, None);
    assert_eq!(words(&events), ["DryRunScaledUp"]);
    assert_eq!(events[0].note, "would be 4 → 22: 22 replicas: so it is.");
    assert!(scaling_changed(&first, &first, None).is_empty());
    scene.decision.desired = 0;
    assert_eq!(words(&scaling_changed(&first, &scene.status(), None)), ["DryRunScaledToZero"]);
    let same = Scene { fleet: fleet(json!({})), ..scene };
    assert!(scaling_changed(&first, &same.status(), None).is_empty(), "a real one is said when it is carried out");
}

/// The same world with and without `dryRun`: the writes are the only difference.
#[test]
fn a_dry_run_decides_and_writes_neither_replicas_nor_marks() {
    let planned = |options: Value| {
        let fleet = fleet(options);
        let lanes = [(lane(), known(LaneStats { backlog: 900, ..LaneStats::default() }))].into();
        let temporal = TemporalState { lanes, ..TemporalState::default() };
        let kube = KubeState {
            children: vec![ChildState { name: "video".into(), spec_replicas: 1, ..ChildState::default() }],
            ..KubeState::default()
        };
        plan(&PlanInput {
            fleet: &fleet,
            kube: &kube,
            applied: &Default::default(),
            temporal: &temporal,
            scaling: &State::default(),
            now: Duration::from_secs(1000),
            wall: now(),
            identity: "me",
        })
    };
    let is_scale = |action: &Action| matches!(action, Action::Scale { .. } | Action::SetDeletionCost { .. });
    let (real, dry) = (planned(json!({})), planned(json!({"dryRun": true})));
    assert!(real.actions.iter().any(is_scale), "{:?}", real.actions);
    assert!(!dry.actions.iter().any(is_scale), "{:?}", dry.actions);
    assert_eq!(real.decision, dry.decision);
    assert!(dry.decision.is_some_and(|decision| decision.desired > 1));
}

fn floor_of(options: Value, wall: &str) -> u32 {
    let fleet = fleet(options);
    let input = PlanInput {
        fleet: &fleet,
        kube: &KubeState {
            children: vec![ChildState { name: "video".into(), spec_replicas: 0, ..ChildState::default() }],
            ..KubeState::default()
        },
        applied: &Default::default(),
        temporal: &server(),
        scaling: &State::default(),
        now: Duration::from_secs(1000),
        wall: wall.parse().unwrap(),
        identity: "me",
    };
    plan(&input).decision.unwrap().desired
}

#[test]
fn floors_of_schedule_and_role_reach_the_decision() {
    let entry =
        json!({"name": "day", "cron": "0 8 * * *", "timezone": "Europe/Berlin", "duration": "10h", "minReplicas": 3});
    let scheduled = json!({"schedule": [entry]});
    assert_eq!(floor_of(scheduled.clone(), "2026-08-07T05:00:00Z"), 0);
    assert_eq!(floor_of(scheduled.clone(), "2026-08-07T05:59:30Z"), 3, "before eight, for the pods to start");
    assert_eq!(floor_of(scheduled.clone(), "2026-08-07T12:00:00Z"), 3);
    assert_eq!(floor_of(scheduled, "2026-08-07T16:00:00Z"), 0);
    let both = json!({"roles": {"current": {"minReplicas": 2}}, "minReplicas": 1});
    assert_eq!(floor_of(both, "2026-08-07T05:00:00Z"), 2);
}

#[test]
fn an_entry_that_can_not_be_read_is_named_with_field_value_and_remedy() {
    let refused = |cron: &str, zone: &str| {
        let entry = json!({"name": "day", "cron": cron, "timezone": zone, "duration": "1h", "minReplicas": 1});
        let scaling = json!({"taskQueues": [{"name": "video"}], "schedule": [entry]});
        let connection =
            ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth: Auth::None, ca_cert: None };
        let images = Default::default();
        let around = Surroundings {
            connection: &connection,
            default_runtime_image: "runtime",
            runtime_images: &images,
            order_keys: &[],
            uncordonable: &Default::default(),
        };
        resolve(&manifest(scaling), &around).unwrap_err().to_string()
    };
    insta::assert_yaml_snapshot!([
        refused("every morning", "UTC"),
        refused("0 8 31 2 *", "UTC"),
        refused("0 8 * * *", "Berlin")
    ]);
}

/// The manifest with the status of a scene, as `explain` reads it.
fn stored(scene: &Scene) -> WorkerDeployment {
    let mut object = manifest(json!({"maxReplicas": 40}));
    object.status = Some(scene.status());
    object
}

#[test]
fn explain_prints_the_whole_calculation() {
    let mut scene = Scene::limited(Limit::Maximum { needed: 50 });
    scene.decision.report.lanes.push(LaneReport {
        lane: LaneKey { task_queue: "mail".into(), task_type: TaskType::Workflow },
        backlog: None,
        backlog_age: None,
        arrival_rate: None,
        in_flight: 0,
        slots_per_pod: None,
        service_time: None,
        offered_load: 0.0,
        rate_replicas: 0,
        burst_replicas: 0,
        metrics_age: None,
    });
    insta::assert_snapshot!(explain::text(&stored(&scene)).unwrap());
    insta::assert_json_snapshot!(explain::json(&stored(&scene)).unwrap());
}

#[test]
fn explain_says_what_is_missing() {
    let mut object = manifest(json!({}));
    let before = explain::text(&object).unwrap_err().to_string();
    let mut waiting = Scene::new(json!({}));
    waiting.kube.children[0].ready_replicas = 0;
    object.status = Some(WorkerDeploymentStatus { scaling: None, ..waiting.status() });
    let undecided = explain::json(&object).unwrap_err().to_string();
    object.spec.scaling = None;
    insta::assert_yaml_snapshot!([before, undecided, explain::text(&object).unwrap_err().to_string()]);
}
