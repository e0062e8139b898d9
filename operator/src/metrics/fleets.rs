//! Metrics of the fleets: live values of the last decision, and what their pods cost. Labels hold a fleet's namespace and
//! name and words of ours, never the name of a Task Queue: there may be any number of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use operator_core::fleet::Fleet;
use operator_core::observed::KubeState;
use operator_core::plan::Plan;
use operator_core::scaling::{Decision, LaneReport};
use operator_core::status;
use parking_lot::Mutex;
use prometheus::{CounterVec, GaugeVec, IntCounterVec, Opts, Registry};

use super::PREFIX;
use crate::changes::FleetId;
use crate::settings::RESYNC;

/// Live values of a fleet, by the label `value`.
const VALUES: [&str; 10] = [
    "desired",
    "current",
    "ready",
    "backlog",
    "in_flight",
    "backlog_age_seconds",
    "arrival_rate",
    "service_time_seconds",
    "offered_load",
    "metrics_age_seconds",
];
/// Longest time between two looks at a fleet that is counted: after a longer one nobody knows how many pods there were.
const LONGEST_GAP: Duration = RESYNC.saturating_mul(2);

/// The metrics.
#[derive(Clone)]
pub(super) struct Fleets {
    values: GaugeVec,
    decisions: IntCounterVec,
    replica_seconds: CounterVec,
    would_have_cost: CounterVec,
    seen: Arc<Mutex<HashMap<FleetId, Seen>>>,
}

/// A fleet as it was last seen.
struct Seen {
    labels: [String; 2],
    at: Instant,
    /// Pods that there were.
    pods: usize,
    /// Pods that a dry run asked for.
    would_be: Option<u32>,
}

impl Fleets {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |name: &str| format!("{PREFIX}{name}");
        let fleet = ["namespace", "name"];
        let values = Opts::new(
            name("fleet"),
            "Values of a fleet at its last decision: replicas, tasks, rates a second, slots and times.",
        );
        let decisions = Opts::new(
            name("fleet_decisions_total"),
            "Scaling decisions of all fleets, by what the number followed from.",
        );
        let cost =
            Opts::new(name("fleet_replica_seconds_total"), "Seconds of life of a fleet's pods, of all together.");
        let would_have_cost = Opts::new(
            name("fleet_would_have_cost_replica_seconds_total"),
            "The same, had the decisions of a dry run been carried out.",
        );
        let fleets = Self {
            values: GaugeVec::new(values, &["namespace", "name", "value"])?,
            decisions: IntCounterVec::new(decisions, &["term"])?,
            replica_seconds: CounterVec::new(cost, &fleet)?,
            would_have_cost: CounterVec::new(would_have_cost, &fleet)?,
            seen: Arc::default(),
        };
        registry.register(Box::new(fleets.values.clone()))?;
        registry.register(Box::new(fleets.decisions.clone()))?;
        registry.register(Box::new(fleets.replica_seconds.clone()))?;
        registry.register(Box::new(fleets.would_have_cost.clone()))?;
        Ok(fleets)
    }

    /// Shows what a fleet's decision stood on, and counts what its pods cost since the one before.
    pub(super) fn observed(&self, fleet: &Fleet, plan: &Plan, kube: &KubeState, now: Instant) {
        let Some(decision) = &plan.decision else { return };
        let labels = [fleet.namespace.clone(), fleet.name.clone()];
        self.decisions.with_label_values(&[status::term(decision)]).inc();
        let [namespace, name] = &labels;
        for (label, value) in VALUES.into_iter().zip(values(decision, kube)) {
            match value {
                Some(value) => self.values.with_label_values(&[namespace, name, label]).set(value),
                // Unknown is not zero: the series goes away until it is known again.
                None => _ = self.values.remove_label_values(&[namespace, name, label]),
            }
        }
        let dry_run = fleet.scaling.as_ref().is_some_and(|scaling| scaling.dry_run);
        let would_be = dry_run.then_some(decision.desired);
        let seen = Seen { labels, at: now, pods: kube.pods.len(), would_be };
        let before = self.seen.lock().insert(FleetId::from(fleet.uid.as_str()), seen);
        if let Some(before) = before {
            self.count(&before, now);
        }
    }

    fn count(&self, before: &Seen, now: Instant) {
        let time = now.saturating_duration_since(before.at);
        if time > LONGEST_GAP {
            return;
        }
        let [namespace, name] = &before.labels;
        let seconds = time.as_secs_f64();
        self.replica_seconds.with_label_values(&[namespace, name]).inc_by(number(before.pods) * seconds);
        if let Some(would_be) = before.would_be {
            self.would_have_cost.with_label_values(&[namespace, name]).inc_by(f64::from(would_be) * seconds);
        }
    }

    /// Takes a fleet's series away.
    pub(super) fn forget(&self, fleet: &FleetId) {
        let Some(Seen { labels: [namespace, name], .. }) = self.seen.lock().remove(fleet) else { return };
        for label in VALUES {
            let _ = self.values.remove_label_values(&[&namespace, &name, label]);
        }
        for counter in [&self.replica_seconds, &self.would_have_cost] {
            let _ = counter.remove_label_values(&[&namespace, &name]);
        }
    }
}

/// In the order of [`VALUES`]. Over all lanes tasks, rates and load are summed up; ages are those of the worst lane, and
/// the service time that of the lane that needs most.
fn values(decision: &Decision, kube: &KubeState) -> [Option<f64>; VALUES.len()] {
    let lanes = &decision.report.lanes;
    let sum = |part: fn(&LaneReport) -> Option<f64>| lanes.iter().filter_map(part).reduce(|a, b| a + b);
    let worst = |part: fn(&LaneReport) -> Option<Duration>| lanes.iter().filter_map(part).max();
    let seconds = |time: Duration| time.as_secs_f64();
    let binding = lanes.iter().find(|lane| Some(&lane.lane) == decision.report.binding.as_ref());
    let current: u32 = kube.children.iter().map(|child| child.spec_replicas).fold(0, u32::saturating_add);
    let ready = kube.pods.iter().filter(|pod| pod.ready && !pod.terminating).count();
    [
        Some(f64::from(decision.desired)),
        Some(f64::from(current)),
        Some(number(ready)),
        decision.backlog.map(number),
        decision.in_flight.map(number),
        worst(|lane| lane.backlog_age).map(seconds),
        sum(|lane| lane.arrival_rate),
        binding.and_then(|lane| lane.service_time).map(seconds),
        sum(|lane| Some(lane.offered_load)),
        worst(|lane| lane.metrics_age).map(seconds),
    ]
}

fn number(value: impl TryInto<u32>) -> f64 {
    f64::from(value.try_into().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use operator_core::api::WorkerDeployment;
    use operator_core::connection::{Auth, ConnectionFacts};
    use operator_core::fleet::{Surroundings, resolve};
    use operator_core::observed::{LaneKey, TaskType};
    use operator_core::scaling::{Outcome, Report};
    use serde_json::json;

    use super::*;

    fn fleet(dry_run: bool) -> Fleet {
        let object: WorkerDeployment = serde_json::from_value(json!({
        "apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment",
        "metadata": {"name": "orders", "namespace": "prod", "uid": "u"},
        "spec": {
            "workerOptions": {"connectionRef": {"name": "t"}, "temporalNamespace": "default"},
            "template": {"spec": {"containers": [{"name": "w", "image": "w"}]}},
            "versioning": "Disabled",
            "scaling": {"dryRun": dry_run, "taskQueues": [{"name": "q"}]},
        }}))
        .unwrap();
        let connection =
            ConnectionFacts { host_port: "t:7233".into(), server_name: None, auth: Auth::None, ca_cert: None };
        let images = Default::default();
        let around = Surroundings {
            connection: &connection,
            default_runtime_image: "r",
            runtime_images: &images,
            order_keys: &[],
            uncordonable: &Default::default(),
        };
        resolve(&object, &around).unwrap()
    }

    fn plan(desired: u32, lanes: Vec<LaneReport>) -> Plan {
        let binding = lanes.first().map(|lane| lane.lane.clone());
        let decision = Decision {
            desired,
            victims: Vec::new(),
            any_ends_in_time: false,
            cordon: Vec::new(),
            backlog: Some(7),
            in_flight: None,
            outcome: Outcome::Scaled,
            reason: String::new(),
            recheck_after: Duration::ZERO,
            report: Report { lanes, binding, ..Report::default() },
        };
        Plan { decision: Some(decision), ..Plan::default() }
    }

    fn lane(queue: &str, rate: f64, age: u64) -> LaneReport {
        LaneReport {
            lane: LaneKey { task_queue: queue.into(), task_type: TaskType::Activity },
            backlog: Some(1),
            backlog_age: Some(Duration::from_secs(age)),
            arrival_rate: Some(rate),
            in_flight: 1,
            slots_per_pod: Some(10.0),
            service_time: Some(Duration::from_millis(500)),
            offered_load: 2.5,
            rate_replicas: 1,
            burst_replicas: 2,
            metrics_age: None,
        }
    }

    fn pods(count: usize) -> KubeState {
        let pod = |index: usize| operator_core::observed::PodState {
            name: format!("p{index}"),
            ready: true,
            may_run: true,
            ..Default::default()
        };
        KubeState { pods: (0..count).map(pod).collect(), ..KubeState::default() }
    }

    fn series(registry: &Registry) -> Vec<String> {
        let page = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.replace(r#"name="orders",namespace="prod""#, "FLEET")).collect()
    }

    #[test]
    fn lanes_are_added_up_and_no_label_holds_their_names() {
        let registry = Registry::new();
        let fleets = Fleets::register(&registry).unwrap();
        let plan = plan(3, vec![lane("secret-queue", 1.5, 4), lane("other", 2.0, 9)]);
        fleets.observed(&fleet(false), &plan, &pods(2), Instant::now());
        let series = series(&registry);
        for line in [
            r#"temporal_worker_operator_fleet{FLEET,value="arrival_rate"} 3.5"#,
            r#"temporal_worker_operator_fleet{FLEET,value="backlog_age_seconds"} 9"#,
            r#"temporal_worker_operator_fleet{FLEET,value="service_time_seconds"} 0.5"#,
            r#"temporal_worker_operator_fleet{FLEET,value="offered_load"} 5"#,
            r#"temporal_worker_operator_fleet{FLEET,value="ready"} 2"#,
            r#"temporal_worker_operator_fleet_decisions_total{term="Load"} 1"#,
        ] {
            assert!(series.iter().any(|one| one == line), "{line} is not in {series:#?}");
        }
        assert!(!series.iter().any(|one| one.contains("queue")), "{series:#?}");
        assert!(!series.iter().any(|one| one.contains(r#""in_flight""#)), "what is unknown has no value: {series:#?}");
    }

    #[test]
    fn replica_seconds_are_those_of_the_pods_that_there_were_and_of_a_dry_run_those_asked_for() {
        let registry = Registry::new();
        let fleets = Fleets::register(&registry).unwrap();
        let start = Instant::now();
        for (second, desired, count) in [(0, 1, 4), (10, 5, 2), (15, 0, 0)] {
            let now = start + Duration::from_secs(second);
            fleets.observed(&fleet(true), &plan(desired, vec![]), &pods(count), now);
        }
        let series = series(&registry);
        for line in [
            "temporal_worker_operator_fleet_replica_seconds_total{FLEET} 50",
            "temporal_worker_operator_fleet_would_have_cost_replica_seconds_total{FLEET} 35",
        ] {
            assert!(series.iter().any(|one| one == line), "{line} is not in {series:#?}");
        }
    }

    #[test]
    fn a_fleet_that_is_gone_leaves_no_series() {
        let registry = Registry::new();
        let fleets = Fleets::register(&registry).unwrap();
        for _ in 0..2 {
            fleets.observed(&fleet(true), &plan(1, vec![lane("q", 1.0, 1)]), &pods(1), Instant::now());
        }
        assert!(series(&registry).iter().any(|one| one.contains("FLEET")));
        fleets.forget(&FleetId::from("u"));
        let left = series(&registry);
        assert!(!left.iter().any(|one| one.contains("FLEET")), "{left:#?}");
    }
}
