use super::*;
use crate::cordon::Until;
use crate::metrics::TaskType;

fn poll(sticky: bool) -> Poll {
    let task_type = if sticky { TaskType::Workflow } else { TaskType::Activity };
    Poll { lane: Lane { task_queue: "q".into(), task_type }, sticky }
}

fn task(token: &'static [u8], timeout: Option<Duration>) -> Task {
    Task { token: Bytes::from_static(token), waited: None, timeout }
}

struct Bed {
    traffic: Traffic,
    cordon: Cordon,
    metrics: Metrics,
}

fn bed() -> Bed {
    let (cordon, metrics) = (Cordon::default(), Metrics::without_cpu(None).unwrap());
    Bed { traffic: Traffic::new(cordon.clone(), metrics.clone()), cordon, metrics }
}

impl Bed {
    fn slots(&self) -> (i64, i64) {
        let (used, available, _) = self.metrics.slots("q", TaskType::Activity).values();
        (used, available)
    }

    fn brings(&self, token: &'static [u8], timeout: Option<Duration>) {
        let asked = poll(false);
        self.traffic.open(&asked).brought(asked.lane, &task(token, timeout));
    }
}

#[tokio::test]
async fn it_is_idle_without_open_polls_and_tasks() {
    let bed = bed();
    let _worker = bed.traffic.connect();
    let idle = async || tokio::time::timeout(Duration::from_millis(20), bed.traffic.idle()).await.is_ok();
    assert!(idle().await);
    let open = bed.traffic.open(&poll(true));
    assert!(!idle().await, "a poll of Workflows in the cache may bring a task too");
    open.brought(poll(true).lane, &task(b"w", None));
    assert!(!idle().await, "the task runs");
    assert_eq!(bed.traffic.end(b"another", "completed"), None);
    assert!(bed.traffic.end(b"w", "completed").is_some());
    assert!(idle().await);
}

#[tokio::test]
async fn slots_are_those_used_and_polled_for_and_none_is_free_without_a_poll() {
    let bed = bed();
    let first = bed.traffic.ask(&poll(false));
    let second = bed.traffic.ask(&poll(false));
    assert_eq!(bed.slots(), (0, 2));
    bed.brings(b"1", None);
    bed.brings(b"2", None);
    assert_eq!(bed.slots(), (2, 2));
    drop(first);
    bed.traffic.end(b"1", "completed");
    assert_eq!(bed.slots(), (1, 3), "four were seen at a time");
    drop(second);
    assert_eq!(bed.slots(), (1, 0), "a Worker that does not poll has none free");
    let _third = bed.traffic.ask(&poll(false));
    bed.traffic.told(&poll(false).lane, 10);
    assert_eq!(bed.slots(), (1, 9), "it told how many it has");
}

#[tokio::test]
async fn tasks_of_a_worker_that_is_gone_and_those_over_are_forgotten() {
    let bed = bed();
    let worker = bed.traffic.connect();
    bed.brings(b"short", Some(Duration::from_secs(5)));
    bed.brings(b"long", Some(Duration::from_secs(600)));
    bed.traffic.forget_those_over(Instant::now() + Duration::from_secs(4));
    assert_eq!(bed.slots().0, 2);
    bed.traffic.forget_those_over(Instant::now() + Duration::from_secs(6));
    assert_eq!(bed.slots().0, 1);
    drop(worker);
    bed.traffic.forget_those_over(Instant::now() + RECONNECTS_WITHIN / 2);
    assert_eq!(bed.slots().0, 1, "it may connect again");
    bed.traffic.forget_those_over(Instant::now() + RECONNECTS_WITHIN);
    assert_eq!(bed.slots().0, 0);
}

#[tokio::test]
async fn a_cordon_counts_what_may_still_come_and_what_runs() {
    let bed = bed();
    let instant = Instant::now() + Duration::from_secs(60);
    bed.cordon.set(Some(Until { instant, wall: jiff::Timestamp::UNIX_EPOCH }));
    let open = bed.traffic.open(&poll(false));
    assert!(!bed.cordon.status().empty);
    open.brought(poll(false).lane, &task(b"1", None));
    let status = bed.cordon.status();
    assert_eq!((status.open_polls, status.running_tasks), (0, 1));
    bed.traffic.end(b"1", "completed");
    assert!(bed.cordon.status().empty);
}
