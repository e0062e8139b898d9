use super::beats::{Asked, Beat, Beats, Identity, Slots};
use super::wire::told;
use operator_core::observed::{LaneKey, Observation, PodLoad, SlotUse, TaskType};
use std::time::Duration;
use temporalio_protos::temporal::api::enums::v1::WorkerStatus;
use temporalio_protos::temporal::api::worker::v1::{WorkerHeartbeat, WorkerSlotsInfo};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
/// The Workers' clock at the start of a test.
const CLOCK: Duration = Duration::from_secs(1_700_000_000);

struct Bed {
    beats: Beats,
    start: Instant,
}

impl Bed {
    fn new() -> Self {
        Self { beats: Beats::default(), start: Instant::now() }
    }

    /// Takes a complete list `second`s after the start, on a clock that agrees with the Workers'.
    fn list(&mut self, second: u64, beats: &[Beat]) {
        self.list_by(second, 0, beats);
    }

    /// The same on a clock that is behind.
    fn list_by(&mut self, second: u64, behind: u64, beats: &[Beat]) {
        let clock = CLOCK + Duration::from_secs(second) - Duration::from_secs(behind);
        let asked = Asked { at: self.start + Duration::from_secs(second), clock };
        self.beats.take(beats.to_vec(), asked, true);
    }

    fn load(&self, second: u64) -> Observation<PodLoad> {
        let of = Identity { pod: "pod", version: Some(("ns/w", "b1")) };
        self.beats.load(of, self.start + Duration::from_secs(second))
    }

    fn slots(&self, second: u64) -> SlotUse {
        self.load(second).last().expect("a load").lanes[&lane()].clone()
    }
}

fn lane() -> LaneKey {
    LaneKey { task_queue: "q".into(), task_type: TaskType::Activity }
}

/// A heartbeat `second`s after the start, of a process that began then or before.
fn beat(instance: &str, second: u64, (used, processed): (u64, u64)) -> Beat {
    Beat {
        instance: instance.into(),
        host: "pod".into(),
        task_queue: "q".into(),
        version: Some(("ns/w".into(), "b1".into())),
        running: true,
        started: CLOCK,
        sent: CLOCK + Duration::from_secs(second),
        interval: Some(MINUTE),
        slots: vec![(TaskType::Activity, Slots { used, available: Some(10 - used), processed })],
        cached: 0,
    }
}

#[test]
fn a_heartbeat_is_proof_for_two_and_a_half_intervals() {
    let mut bed = Bed::new();
    assert_eq!(bed.load(0), Observation::Unknown);
    bed.list(10, &[beat("a", 0, (3, 20))]);
    assert_eq!(bed.slots(20), SlotUse { used: 3, available: 7, started: 23, ..SlotUse::default() });
    assert!(matches!(bed.load(149), Observation::Known { age, .. } if age == Duration::from_secs(149)));
    bed.list(140, &[beat("a", 0, (3, 20))]);
    assert!(matches!(bed.load(151), Observation::Stale { .. }), "a list that shows nothing new made it younger");
    bed.list(152, &[beat("a", 151, (0, 23))]);
    assert_eq!(bed.load(153).known().map(|load| load.lanes[&lane()].used), Some(0));
}

#[test]
fn without_a_known_interval_nothing_is_proven() {
    let mut bed = Bed::new();
    let first = Beat { interval: None, ..beat("a", 0, (0, 0)) };
    bed.list(1, std::slice::from_ref(&first));
    assert!(matches!(bed.load(2), Observation::Stale { .. }));
    bed.list(61, &[Beat { sent: CLOCK + MINUTE, ..first }]);
    assert!(bed.load(62).known().is_some(), "the time between two heartbeats is an interval");
}

#[test]
fn a_worker_that_shuts_down_or_is_of_another_version_proves_nothing() {
    let mut bed = Bed::new();
    bed.list(1, &[Beat { running: false, ..beat("a", 0, (0, 0)) }]);
    assert!(matches!(bed.load(2), Observation::Stale { .. }));
    bed.list(1, &[Beat { version: Some(("ns/w".into(), "b2".into())), ..beat("c", 0, (0, 0)) }]);
    assert_eq!(bed.load(2), Observation::Unknown);
    bed.list(1, &[Beat { version: None, ..beat("b", 0, (0, 0)) }]);
    assert_eq!(bed.load(2), Observation::Unknown);
}

#[test]
fn every_worker_of_a_pod_must_be_fresh() {
    let mut bed = Bed::new();
    let other_queue = Beat { task_queue: "r".into(), ..beat("b", 0, (2, 2)) };
    bed.list(1, &[beat("a", 0, (1, 1)), other_queue.clone()]);
    assert_eq!(bed.load(2).known().map(|load| load.lanes.len()), Some(2));
    bed.list(161, &[beat("a", 160, (1, 1)), other_queue]);
    assert!(matches!(bed.load(162), Observation::Stale { .. }), "one of two Workers says nothing any more");
}

#[test]
fn a_process_that_another_one_followed_is_gone_and_its_tasks_stay_counted() {
    let mut bed = Bed::new();
    let killed = beat("a", 10, (4, 20));
    let next = |second, counts| Beat { started: CLOCK + Duration::from_secs(30), ..beat("b", second, counts) };
    bed.list(11, std::slice::from_ref(&killed));
    for second in [95, 96] {
        bed.list(second, &[killed.clone(), next(90, (1, 2))]);
        let expected = SlotUse { used: 1, available: 9, started: 24 + 3, ..SlotUse::default() };
        assert_eq!(bed.load(second).known().map(|load| load.lanes[&lane()].clone()), Some(expected));
    }
    bed.list(400, &[next(390, (0, 7))]);
    assert_eq!(bed.slots(401).started, 24 + 7, "the server forgot the first one");
    let mut bed = Bed::new();
    bed.list(11, &[beat("a", 10, (4, 20)), beat("b", 10, (1, 2))]);
    assert_eq!(bed.slots(11).used, 5, "two processes that both live add up");
}

#[test]
fn ages_do_not_trust_a_clock_that_disagrees() {
    let mut bed = Bed::new();
    bed.list_by(10, 3600, &[beat("a", 9, (0, 0))]);
    bed.list_by(70, 3600, &[beat("a", 69, (0, 0))]);
    assert!(matches!(bed.load(70), Observation::Known { age, .. } if age == MINUTE), "sent after the list before");
}

#[test]
fn a_supplier_without_a_number_has_no_capacity_and_an_unused_kind_no_lane() {
    let info = |used, available, processed| {
        Some(WorkerSlotsInfo {
            current_used_slots: used,
            current_available_slots: available,
            total_processed_tasks: processed,
            ..Default::default()
        })
    };
    let mut heartbeat = WorkerHeartbeat {
        worker_instance_key: "a".into(),
        task_queue: "q".into(),
        activity_task_slots_info: info(2, -1, 5),
        workflow_task_slots_info: info(0, 0, 0),
        ..Default::default()
    };
    heartbeat.set_status(WorkerStatus::Running);
    let beat = told(heartbeat, "pod".into());
    assert!(beat.running);
    let slots = Slots { used: 2, available: None, processed: 5 };
    assert_eq!(beat.slots, vec![(TaskType::Activity, slots)]);
    let mut bed = Bed::new();
    bed.list(1, &[Beat { version: Some(("ns/w".into(), "b1".into())), ..beat }]);
    assert_eq!(bed.slots(1), SlotUse { used: 2, unlimited: true, started: 7, ..SlotUse::default() });
}
