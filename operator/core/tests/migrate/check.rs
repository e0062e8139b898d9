use operator_core::migrate::{Kind, Listed, Severity, check};
use serde_json::{Value, json};

use super::fixtures::*;

const MANAGER: &str = "Deployment temporal-system/twc-manager";
const LEASE: &str = "Lease temporal-system/98e39f52.temporal.io";
const FLEET: &str = "WorkerDeployment prod/orders";
const CHILD: &str = "Deployment prod/orders-v1-2-3-45d8";

fn lease(holder: &str, renewed: &str) -> Value {
    json!({
        "metadata": {"name": "98e39f52.temporal.io", "namespace": "temporal-system"},
        "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15},
    })
}

fn webhook(policy: &str) -> Value {
    json!({"metadata": {"name": "twc-wrt"},
        "webhooks": [{"name": "vworkerresourcetemplate.kb.io", "failurePolicy": policy}]})
}

#[test]
fn nothing_at_all_blocks_nothing() {
    let report = report(&[]);
    assert!(!report.blocked && report.findings.is_empty() && report.unread.is_empty());
    assert!(report.text().contains("0 blocking, 0 warnings, 0 fine"));
}

#[test]
fn a_running_controller_blocks_until_it_is_at_zero() {
    let running = report(&[(Kind::Manager, manager(2)), (Kind::ManagerPod, pod("twc-manager-a-b"))]);
    let command = "kubectl -n temporal-system scale deployment/twc-manager --replicas=0";
    says(&running, MANAGER, Severity::Blocking, &["2 replicas", "v1.8.1", "\"twc/temporal-system\"", command]);
    assert_eq!(
        running.findings.len(),
        1,
        "a pod of a Deployment that is named already is not named again: {running:#?}"
    );

    let ending = report(&[
        (Kind::Manager, manager(0)),
        (Kind::ManagerPod, {
            let mut pod = pod("twc-manager-a-b");
            pod["metadata"]["deletionTimestamp"] = json!(NOW);
            pod
        }),
    ]);
    says(&ending, MANAGER, Severity::Fine, &["at zero"]);
    says(&ending, "Pod temporal-system/twc-manager-a-b", Severity::Blocking, &["wait --for=delete"]);

    let ended = report(&[(Kind::Manager, manager(0))]);
    assert!(!ended.blocked, "{ended:#?}");
}

#[test]
fn a_lease_blocks_while_somebody_else_holds_it() {
    let held = lease("twc-manager-a-b_0f", "2026-11-27T11:59:50.000000Z");
    let by_controller = report(&[(Kind::Lease, held.clone()), (Kind::ManagerPod, pod("twc-manager-a-b"))]);
    says(&by_controller, LEASE, Severity::Blocking, &["temporal-worker-controller", "twc-manager-a-b_0f"]);
    let by_us = report(&[(Kind::Lease, held.clone()), (Kind::OperatorPod, pod("twc-manager-a-b"))]);
    says(&by_us, LEASE, Severity::Fine, &["this operator"]);
    says(&report(&[(Kind::Lease, held)]), LEASE, Severity::Blocking, &["not known here"]);
    let lapsed = lease("twc-manager-a-b_0f", "2026-11-27T11:59:44Z");
    says(&report(&[(Kind::Lease, lapsed)]), LEASE, Severity::Fine, &["nobody"]);
    says(&report(&[(Kind::Lease, lease("", NOW))]), LEASE, Severity::Fine, &["nobody"]);
}

#[test]
fn webhooks_that_nobody_answers_block() {
    let object = "ValidatingWebhookConfiguration twc-wrt";
    let command = "kubectl delete validatingwebhookconfiguration twc-wrt";
    says(&report(&[(Kind::Webhook, webhook("Fail"))]), object, Severity::Blocking, &[command, "refused"]);
    says(&report(&[(Kind::Webhook, webhook("Ignore"))]), object, Severity::Warning, &[command]);
    let other = json!({"metadata": {"name": "other"}, "webhooks": [{"name": "v.example.com"}]});
    assert!(report(&[(Kind::Webhook, other)]).findings.is_empty());
}

#[test]
fn definitions_are_ours_or_to_be_taken_over() {
    let theirs = |name| (Kind::Definition, definition(name, Some("twc-crds"), json!({"template": {}})));
    let before = report(&[theirs("workerdeployments"), theirs("connections")]);
    let take = "--take-ownership";
    let fleets = "CustomResourceDefinition workerdeployments.temporal.io";
    let connections = "CustomResourceDefinition connections.temporal.io";
    says(&before, fleets, Severity::Blocking, &["\"twc-crds\"", "lacks", take]);
    says(&before, connections, Severity::Warning, &["Do not uninstall \"twc-crds\"", "owner=helm,name=twc-crds", take]);

    let ours = |name| (Kind::Definition, definition(name, Some("ours"), json!({"scaling": {}})));
    let after = report(&[ours("workerdeployments"), ours("connections"), theirs("temporalconnections")]);
    says(&after, fleets, Severity::Fine, &["\"ours\""]);
    says(&after, connections, Severity::Fine, &["\"ours\""]);
    says(&after, "CustomResourceDefinition temporalconnections.temporal.io", Severity::Warning, &["twc-crds"]);

    let by_hand = report(&[(Kind::Definition, definition("workerdeployments", None, json!({"template": {}})))]);
    says(&by_hand, fleets, Severity::Blocking, &["no Helm release", "kubectl apply --server-side"]);
    let mut ending = definition("workerdeployments", None, json!({"scaling": {}}));
    ending["metadata"]["deletionTimestamp"] = json!(NOW);
    says(&report(&[(Kind::Definition, ending)]), fleets, Severity::Blocking, &["being deleted"]);
    let foreign = json!({"metadata": {"name": "a.example.com"}, "spec": {"group": "example.com"}});
    assert!(report(&[(Kind::Definition, foreign)]).findings.is_empty());
}

#[test]
fn a_settled_fleet_is_taken_over_with_its_children() {
    let report =
        report(&[(Kind::Fleet, fleet(json!({}))), (Kind::Child, child(json!({}))), (Kind::Manager, manager(0))]);
    says(&report, FLEET, Severity::Fine, &["with its Deployment (orders-v1-2-3-45d8)", "No pod restarts"]);
    says(&report, CHILD, Severity::Fine, &["as version v1.2.3-45d8 of orders"]);
    assert!(!report.blocked, "{report:#?}");
}

#[test]
fn a_spec_that_nobody_has_seen_would_be_rolled_out() {
    let newer =
        json!({"spec": {"template": {"metadata": {"labels": {"app": "other"}}}}, "metadata": {"generation": 3}});
    says(
        &report(&[(Kind::Fleet, fleet(newer.clone()))]),
        FLEET,
        Severity::Warning,
        &["v1.2.3-45d8", "observedGeneration 3"],
    );
    // The same Build ID stands when it was computed for this very spec, such as by another scheme.
    let mut seen = newer;
    merge(&mut seen, json!({"status": {"conditions": [{"observedGeneration": 3}]}}));
    let mut seen = fleet(seen);
    seen["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "reason": "RolloutComplete",
        "observedGeneration": 3, "message": "", "lastTransitionTime": NOW}]);
    says(&report(&[(Kind::Fleet, seen.clone())]), FLEET, Severity::Fine, &["is taken over"]);
    // Not when the condition only says what keeps this spec from being looked at.
    seen["status"]["conditions"][0]["reason"] = json!("ConnectionNotFound");
    says(&report(&[(Kind::Fleet, seen)]), FLEET, Severity::Warning, &["v1.2.3-45d8"]);
}

#[test]
fn a_fleet_that_is_somebody_elses_on_the_server_is_named_with_the_remedy() {
    let other = fleet(json!({"status": {"managerIdentity": "twc/other/ns-9"}}));
    let report_with = |fleet| report(&[(Kind::Fleet, fleet), (Kind::Manager, manager(0))]);
    let by_annotation = "--overwrite temporal.io/take-over=twc/other/ns-9";
    let remedies = ["formerIdentities", by_annotation, "--namespace shop --deployment-name prod/orders"];
    says(&report_with(other.clone()), FLEET, Severity::Warning, &remedies);
    let annotated = |identity: &str| {
        let mut fleet = other.clone();
        fleet["metadata"]["annotations"] = json!({"temporal.io/take-over": identity});
        report_with(fleet)
    };
    says(&annotated("twc/other/ns-9"), FLEET, Severity::Fine, &["is taken over"]);
    says(&annotated("twc/other/ns-8"), FLEET, Severity::Warning, &[by_annotation]);
    says(&report_with(fleet(json!({}))), FLEET, Severity::Fine, &[]);
    // Without a controller nobody knows whose it should be.
    says(&report(&[(Kind::Fleet, other)]), FLEET, Severity::Fine, &[]);
}

#[test]
fn a_fleet_that_goes_or_can_not_be_read_is_said() {
    let leaving =
        fleet(json!({"metadata": {"deletionTimestamp": NOW, "finalizers": ["temporal.io/delete-protection"]}}));
    says(&report(&[(Kind::Fleet, leaving)]), FLEET, Severity::Warning, &["temporal.io/delete-protection"]);
    let unreadable = fleet(json!({"spec": {"rollout": {"strategy": "Sideways"}}}));
    says(&report(&[(Kind::Fleet, unreadable)]), FLEET, Severity::Blocking, &["Sideways"]);
}

#[test]
fn children_without_a_fleet_are_left_alone() {
    says(&report(&[(Kind::Child, child(json!({})))]), CHILD, Severity::Warning, &["does not exist", "left alone"]);
    let orphan = child(json!({"metadata": {"ownerReferences": []}}));
    says(&report(&[(Kind::Child, orphan)]), CHILD, Severity::Warning, &["no fleet"]);
    let unlabelled = child(json!({"metadata": {"labels": {"temporal.io/build-id": null}}}));
    let with = |fleet: Value| report(&[(Kind::Child, unlabelled.clone()), (Kind::Fleet, fleet)]);
    says(&with(fleet(json!({}))), CHILD, Severity::Warning, &["without the label"]);
    says(
        &with(fleet(json!({"spec": {"versioning": "Disabled"}}))),
        CHILD,
        Severity::Fine,
        &["is taken over of orders"],
    );
    // Whose fleets could not be read is not said to have none.
    let mut unknown = cluster(&[(Kind::Child, child(json!({})))]);
    unknown.lists.insert(Kind::Fleet, Listed::Refused("forbidden".into()));
    says(&check(&unknown), CHILD, Severity::Fine, &["not judged"]);
}

#[test]
fn deprecated_kinds_are_to_be_replaced() {
    let old = |labels: Value| json!({"metadata": {"name": "orders", "namespace": "prod", "labels": labels}});
    let object = "TemporalWorkerDeployment prod/orders";
    says(
        &report(&[(Kind::DeprecatedFleet, old(json!({})))]),
        object,
        Severity::Warning,
        &["Create a WorkerDeployment orders"],
    );
    let with_new = report(&[(Kind::DeprecatedFleet, old(json!({}))), (Kind::Fleet, fleet(json!({})))]);
    says(&with_new, object, Severity::Fine, &["No pod restarts"]);
    let moved = old(json!({"temporal.io/migrated-to-wd": "true"}));
    says(&report(&[(Kind::DeprecatedFleet, moved)]), object, Severity::Fine, &["can be deleted"]);
    let connection = report(&[(Kind::DeprecatedConnection, old(json!({})))]);
    says(&connection, "TemporalConnection prod/orders", Severity::Warning, &["Create a Connection orders"]);
    let both = report(&[(Kind::DeprecatedConnection, old(json!({}))), (Kind::Connection, old(json!({})))]);
    says(&both, "TemporalConnection prod/orders", Severity::Fine, &["can be deleted"]);
}

#[test]
fn kinds_that_are_missing_or_forbidden_are_said_and_block_nothing() {
    let mut cluster = cluster(&[]);
    cluster.lists.insert(Kind::ScaledObject, Listed::NotServed);
    cluster.lists.insert(Kind::ManagerPod, Listed::Refused("pods is forbidden".into()));
    cluster.lists.insert(Kind::OperatorPod, Listed::Refused("pods is forbidden".into()));
    let report = check(&cluster);
    assert!(!report.blocked);
    let said: Vec<_> = report.unread.iter().map(|unread| (unread.kind.as_str(), unread.not_served)).collect();
    assert_eq!(said, [("Pod", false), ("ScaledObject.keda.sh", true)]);
    assert!(report.text().contains("Pod: can't be listed, so that nothing is said of it: pods is forbidden"));
}

#[test]
fn the_report_is_for_people_and_for_programs() {
    let report = report(&[(Kind::Fleet, fleet(json!({}))), (Kind::Manager, manager(2))]);
    let text = report.text();
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}, in: {text}"));
    assert!(at("BLOCKING") < at(MANAGER) && at(MANAGER) < at("FINE") && at("FINE") < at(FLEET), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["blocked"], true);
    assert_eq!(json["findings"][0]["severity"], "blocking");
    assert_eq!(json["findings"][0]["namespace"], "temporal-system");
    assert_eq!(json["findings"][1]["kind"], "WorkerDeployment");
    assert_eq!(json["findings"][1].get("change"), None);
}
