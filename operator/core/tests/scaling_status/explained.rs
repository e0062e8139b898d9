//! The command `explain`.

use operator_core::api::{WorkerDeployment, WorkerDeploymentStatus};
use operator_core::explain;
use operator_core::observed::{LaneKey, TaskType};
use operator_core::scaling::{LaneReport, Limit};
use serde_json::json;

use crate::scene::*;

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
