//! What is rendered, planned and said.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::{CopyStatus, Reason, TemplateRole, WorkerResourceTemplateStatus};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn hpa() -> Value {
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "kept"}},
        "spec": {
            "scaleTargetRef": {},
            "minReplicas": 1,
            "maxReplicas": 5,
            "metrics": [
                {"type": "External", "external": {"metric": {"name": "backlog", "selector": {"matchLabels": {"queue": "q"}}}}},
                {"type": "External", "external": {"metric": {"name": "other"}}},
            ],
        },
    })
}

fn version(build_id: &str, traffic: Option<Traffic>, is_pinned: Option<bool>) -> VersionPicture {
    VersionPicture { build_id: build_id.into(), child: format!("orders-{build_id}"), traffic, is_pinned }
}

fn scene(versions: Vec<VersionPicture>) -> Picture {
    Picture { fleet: "orders".into(), temporal_namespace: "default".into(), versions, ..Picture::default() }
}

fn current() -> VersionPicture {
    version("v1", Some(Traffic::Current), Some(false))
}

fn input<'a>(template: &'a Value, picture: &'a Picture, known: &'a [CopyStatus]) -> TemplateInput<'a> {
    TemplateInput {
        namespace: "prod",
        name: "scaler",
        uid: "t-1",
        template,
        is_refused: false,
        roles: None,
        picture,
        known,
    }
}

fn rendered(template: &Value, version: &VersionPicture) -> Value {
    render(&input(template, &scene(vec![version.clone()]), &[]), version).object
}

fn entry(build_id: &str) -> CopyStatus {
    serde_json::from_value(
        json!({"buildID": build_id, "resourceName": format!("copy-{build_id}").trim_end_matches('-'),
        "lastTransitionTime": NOW.to_string()}),
    )
    .unwrap()
}

/// What is planned, as `+v1` and `-v1`.
fn signs(steps: &[Step]) -> Vec<String> {
    let sign = |step: &Step| match step {
        Step::Apply { build_id, .. } => format!("+{build_id}"),
        Step::Delete { build_id, .. } => format!("-{build_id}"),
    };
    steps.iter().map(sign).collect()
}

#[test]
fn a_copy_has_the_name_of_the_contract() {
    assert_eq!(copy_name("my-worker", "my-hpa", "abc123"), "my-worker-my-hpa-abc123-a3f6cacf");
    let long = copy_name(&"w".repeat(37), "My_Template", "v1.2.3-45d8");
    assert_eq!(long.len(), 46, "a dash at the cut is taken away: {long}");
    assert!(copy_name("a", "b", "V1.2_x").starts_with("a-b-v1-2-x-"));
    assert_ne!(copy_name("a", "b", "c.d"), copy_name("a", "b", "c-d"));
}

#[test]
fn what_is_left_empty_is_filled_in_wherever_it_stands() {
    let mut template = hpa();
    template["spec"]["more"] = json!([{"deep": {"scaleTargetRef": {}}}]);
    template["spec"]["selector"] = json!({"matchLabels": {}});
    let object = rendered(&template, &current());
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "orders-v1"});
    assert_eq!(object["spec"]["scaleTargetRef"], target);
    assert_eq!(object["spec"]["more"][0]["deep"]["scaleTargetRef"], target);
    let labels = json!({"temporal.io/deployment-name": "orders", "temporal.io/build-id": "v1"});
    assert_eq!(object["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(
        object["spec"]["metrics"][0]["external"]["metric"]["selector"]["matchLabels"],
        json!({"queue": "q", "temporal_worker_deployment_name": "prod_orders", "temporal_worker_build_id": "v1",
            "temporal_namespace": "default"})
    );
    assert_eq!(object["spec"]["metrics"][1], template["spec"]["metrics"][1], "it has no selector");
    assert_eq!(object["spec"]["maxReplicas"], 5);
}

#[test]
fn a_temporal_trigger_gets_what_it_leaves_empty_and_another_one_nothing() {
    let triggers = json!([
        {"type": "temporal", "metadata": {"endpoint": "t:7233", "workerDeploymentName": "", "namespace": ""}},
        {"type": "prometheus", "metadata": {"namespace": ""}},
    ]);
    let template = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "spec": {"triggers": triggers}});
    let object = rendered(&template, &current());
    assert_eq!(
        object["spec"]["triggers"][0]["metadata"],
        json!({"endpoint": "t:7233", "workerDeploymentName": "prod/orders", "namespace": "default"})
    );
    assert_eq!(object["spec"]["triggers"][1], triggers[1]);
}

#[test]
fn a_copy_belongs_to_its_template_and_keeps_the_labels_of_both() {
    let mut template = hpa();
    template["metadata"]["labels"]["temporal.io/deployment-name"] = json!("somebody-elses");
    template["metadata"]["ownerReferences"] = json!([{"uid": "x"}]);
    let metadata = rendered(&template, &current())["metadata"].clone();
    assert_eq!(
        metadata["labels"],
        json!({"team": "a", "temporal.io/deployment-name": "orders", "temporal.io/build-id": "v1"})
    );
    assert_eq!(metadata["annotations"], json!({"note": "kept"}));
    assert_eq!(
        (&metadata["namespace"], &metadata["name"]),
        (&json!("prod"), &json!(copy_name("orders", "scaler", "v1")))
    );
    assert_eq!(
        metadata["ownerReferences"],
        json!([{"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerResourceTemplate", "name": "scaler", "uid": "t-1",
            "controller": true, "blockOwnerDeletion": true}])
    );
}

#[test]
fn the_hash_of_a_copy_has_16_digits_and_changes_with_it() {
    let picture = scene(vec![current()]);
    let (template, mut other) = (hpa(), hpa());
    other["spec"]["maxReplicas"] = json!(6);
    let hash = |template: &Value| render(&input(template, &picture, &[]), &current()).hash;
    assert_eq!(hash(&template).len(), 16);
    assert_eq!(hash(&template), hash(&hpa()));
    assert_ne!(hash(&template), hash(&other));
}

#[test]
fn every_fault_of_a_template_is_named_with_its_place() {
    let allowed = AllowedKinds::new(["horizontalPodAutoscaler", " "]);
    assert_eq!(validate(&hpa(), &allowed), Vec::<String>::new());
    let faults: [(&str, Value, &str); 9] = [
        ("/kind", json!("Secret"), "spec.template.kind \"Secret\""),
        ("/apiVersion", json!(""), "spec.template.apiVersion"),
        ("/metadata/name", json!("mine"), "spec.template.metadata.name"),
        ("/metadata/namespace", json!("other"), "spec.template.metadata.namespace"),
        ("/spec/minReplicas", json!(0), "spec.template.spec.minReplicas is 0"),
        ("/spec/deep", json!([{"scaleTargetRef": {"name": "x"}}]), "spec.template.spec.deep[0].scaleTargetRef"),
        ("/spec/selector", json!({"matchLabels": {"a": "b"}}), "spec.template.spec.selector.matchLabels"),
        (
            "/spec/metrics/0/external/metric/selector/matchLabels",
            json!({"temporal_namespace": "other"}),
            "spec.template.spec.metrics[0].external.metric.selector.matchLabels has temporal_namespace",
        ),
        (
            "/spec/triggers",
            json!([{"type": "temporal", "metadata": {"namespace": "other"}}]),
            "spec.template.spec.triggers[0].metadata.namespace",
        ),
    ];
    for (pointer, value, expected) in faults {
        let mut template = hpa();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        template.pointer_mut(parent).unwrap()[key] = value;
        let wrong = validate(&template, &allowed);
        assert!(wrong.len() == 1 && wrong[0].starts_with(expected), "{pointer}: {wrong:?}");
    }
    assert_eq!(validate(&hpa(), &AllowedKinds::default()).len(), 1, "an empty list allows nothing");
}

#[test]
fn every_version_gets_a_copy_unless_roles_say_which() {
    let all = vec![
        current(),
        version("v2", Some(Traffic::Ramping), Some(false)),
        version("v3", Some(Traffic::Draining), Some(false)),
        version("v4", Some(Traffic::Inactive), Some(false)),
        version("v5", None, Some(false)),
    ];
    let (template, picture) = (hpa(), scene(all));
    let known: Vec<_> = ["v3", "v4", "v5"].map(entry).into();
    let base = input(&template, &picture, &known);
    assert_eq!(signs(&plan(&base)), ["+v1", "+v2", "+v3", "+v4", "+v5"]);
    let roles = [TemplateRole::Current, TemplateRole::Draining];
    let by_role = plan(&TemplateInput { roles: Some(&roles), ..base });
    assert_eq!(signs(&by_role), ["-v4", "+v1", "+v3"], "what v5 is is not known: its copy stays");
    assert_eq!(signs(&plan(&TemplateInput { is_refused: true, ..base })), Vec::<String>::new());
}

#[test]
fn what_scales_a_version_goes_at_its_sunset_and_everything_else_stays() {
    let picture = scene(vec![
        version("old", Some(Traffic::Draining), Some(true)),
        version("new", Some(Traffic::Current), Some(false)),
        version("some", None, None),
    ]);
    let known: Vec<_> = ["old", "some"].map(entry).into();
    let template = hpa();
    assert_eq!(signs(&plan(&input(&template, &picture, &known))), ["-old", "+new"]);
    let budget =
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"selector": {"matchLabels": {}}}});
    assert_eq!(signs(&plan(&input(&budget, &picture, &known))), ["+old", "+new", "+some"]);
}

#[test]
fn what_scales_a_fleet_whose_replicas_have_an_owner_goes() {
    let known = [entry("v1")];
    let template = hpa();
    for picture in
        [Picture { is_scaled: true, ..scene(vec![current()]) }, Picture { is_deleted: true, ..scene(vec![current()]) }]
    {
        assert_eq!(signs(&plan(&input(&template, &picture, &known))), ["-v1"]);
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap"});
        assert_eq!(signs(&plan(&input(&map, &picture, &known))), ["+v1"], "it scales nothing");
    }
}

#[test]
fn a_copy_of_a_version_that_is_gone_needs_proof_of_that() {
    let (template, picture, known) = (hpa(), scene(vec![current()]), [entry("v0"), entry("")]);
    for is_refused in [false, true] {
        let steps = plan(&TemplateInput { is_refused, ..input(&template, &picture, &known) });
        let proof = |step: &Step| match step {
            Step::Delete { name, api_version, kind, proof: Proof::NoDeployment(child), .. } => {
                Some(format!("{api_version} {kind} {name} {child}"))
            }
            _ => None,
        };
        let proofs: Vec<_> = steps.iter().filter_map(proof).collect();
        let of = |rest: &str| format!("autoscaling/v2 HorizontalPodAutoscaler {rest}");
        assert_eq!(proofs, [of("copy-v0 orders-v0"), of("copy orders")]);
    }
}

#[test]
fn a_copy_of_another_kind_is_deleted_before_its_successor_is_applied() {
    let mut known = [entry("v1")];
    let (template, picture) = (hpa(), scene(vec![current()]));
    let mut signs_of = |version: &str, kind: &str| {
        (known[0].api_version, known[0].kind) = (Some(version.into()), Some(kind.into()));
        signs(&plan(&input(&template, &picture, &known)))
    };
    assert_eq!(signs_of("keda.sh/v1alpha1", "ScaledObject"), ["-v1", "+v1"]);
    assert_eq!(signs_of("autoscaling/v1", "HorizontalPodAutoscaler"), ["+v1"], "the same object by an older version");
}

fn reported(previous: &WorkerResourceTemplateStatus, outcomes: &[Outcome]) -> Option<WorkerResourceTemplateStatus> {
    report(&Report { previous, generation: 2, refusal: None, outcomes, now: NOW })
}

fn outcomes(results: &[Result<bool, String>]) -> Vec<Outcome> {
    let (template, picture, known) = (hpa(), scene(vec![current()]), [entry("v0")]);
    let steps = plan(&input(&template, &picture, &known));
    steps.into_iter().zip(results).map(|(step, result)| Outcome { step, result: result.clone() }).collect()
}

fn ready(status: &WorkerResourceTemplateStatus) -> (&str, &str, &str) {
    let ready = &status.conditions[0];
    (&ready.status, &ready.reason, &ready.message)
}

#[test]
fn the_status_says_which_copies_there_are_and_is_written_once() {
    let before = WorkerResourceTemplateStatus { versions: vec![entry("v0")], conditions: vec![] };
    let status = reported(&before, &outcomes(&[Ok(true), Ok(true)])).unwrap();
    assert_eq!(ready(&status).1, "AllVersionsApplied");
    let [copy] = &status.versions[..] else { panic!("{:?}", status.versions) };
    assert_eq!((copy.build_id.as_str(), copy.last_applied_generation), ("v1", Some(2)));
    assert_eq!((copy.kind.as_deref(), &copy.apply_error), (Some("HorizontalPodAutoscaler"), &None));
    assert_eq!(reported(&status, &outcomes(&[Ok(true), Ok(true)])), None);
    let kept = reported(&before, &outcomes(&[Ok(false), Ok(true)])).unwrap();
    assert_eq!(kept.versions.len(), 2, "its Deployment is there after all");
}

#[test]
fn a_failure_is_said_of_its_version_and_in_the_condition() {
    let before = WorkerResourceTemplateStatus { versions: vec![entry("v0")], conditions: vec![] };
    let failed = |text: &str| Err(text.to_owned());
    let status = reported(&before, &outcomes(&[failed("no right"), failed("invalid.")])).unwrap();
    let (is, reason, message) = ready(&status);
    assert_eq!((is, reason), ("False", "ApplyFailed"));
    assert!(message.contains("\"v0\"") && message.contains("no right") && message.contains("invalid."), "{message}");
    assert_eq!(status.versions.iter().filter(|one| one.apply_error.is_some()).count(), 2);
    let mended = reported(&status, &outcomes(&[Ok(true), Ok(true)])).unwrap();
    assert_eq!((ready(&mended).1, &mended.versions[0].apply_error), ("AllVersionsApplied", &None));
}

#[test]
fn a_copy_is_announced_before_it_is_made() {
    let (template, picture) = (hpa(), scene(vec![current()]));
    let steps = plan(&input(&template, &picture, &[]));
    let previous = WorkerResourceTemplateStatus::default();
    let base = Report { previous: &previous, generation: 2, refusal: None, outcomes: &[], now: NOW };
    let announced = base.announce(&steps).unwrap();
    let [copy] = &announced.versions[..] else { panic!("{:?}", announced.versions) };
    assert_eq!(copy.resource_name.as_deref(), Some(copy_name("orders", "scaler", "v1").as_str()));
    assert_eq!((copy.last_applied_generation, &copy.last_applied_hash), (None, &None));
    assert_eq!(Report { previous: &announced, ..base }.announce(&steps), None);
}

#[test]
fn a_refusal_is_the_reason() {
    let previous = WorkerResourceTemplateStatus::default();
    let refusals = [
        (Refusal::invalid(&["a.".into(), "b.".into()]), Reason::InvalidSpec),
        (Refusal::without_fleet("orders", "prod"), Reason::WorkerDeploymentNotFound),
        (Refusal::without_policy("it is not there"), Reason::PolicyNotInstalled),
        (Refusal::scaled("orders"), Reason::ReplicasOwnedByScaling),
    ];
    for (refusal, reason) in refusals {
        let input = Report { previous: &previous, generation: 1, refusal: Some(&refusal), outcomes: &[], now: NOW };
        assert_eq!(ready(&report(&input).unwrap()), ("False", reason.as_str(), refusal.message.as_str()));
    }
}

#[test]
fn many_copies_are_looked_at_less_often() {
    assert_eq!(look_again_after(3), LOOK);
    assert_eq!(look_again_after(3000).as_secs(), 300);
}

#[test]
fn a_copy_by_what_is_no_name_is_looked_for_by_its_own() {
    let (template, picture) = (hpa(), scene(Vec::new()));
    let mut known = entry("v0");
    known.resource_name = Some("../../other/configmaps/theirs".into());
    let steps = plan(&input(&template, &picture, std::slice::from_ref(&known)));
    let [Step::Delete { name, .. }] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(*name, copy_name("orders", "scaler", "v0"));
}
