//! Runs with what goes wrong in a cluster: readings that fail, an operator that is started anew; and with more than one
//! Task Queue.

use scale_sim::observation::Bounds;
use scale_sim::policies::Ours;
use scale_sim::time::{Micros, SECOND};
use scale_sim::traces::TraceName;
use scale_sim::workload::Restart;
use scale_sim::world::{Phase, Pod};
use scale_sim::{
    Observation, Options, Policy, PolicyName, Run, Task, Verdict, Window, Workload, simulate, simulate_with,
};

const BOUNDS: Bounds = Bounds { min: 0, max: 100 };

fn step(options: Options) -> Workload {
    Workload { options, ..TraceName::Step.workload(1).unwrap() }
}

fn window(from: Micros, until: Micros) -> Vec<Window> {
    vec![Window { from: from * SECOND, until: until * SECOND }]
}

fn run(workload: &Workload, policy: PolicyName) -> Run {
    simulate(workload, policy, BOUNDS, 1)
}

/// Ten minutes without the server, the pods' metrics, or both, while the arrivals fall to a twentieth.
fn outages() -> [Options; 3] {
    let at = || window(3_800, 4_400);
    [
        Options { server_outages: at(), ..Options::default() },
        Options { scrape_outages: at(), ..Options::default() },
        Options { server_outages: at(), scrape_outages: at(), ..Options::default() },
    ]
}

#[test]
fn nothing_is_scaled_down_on_readings_that_are_stale() {
    for options in outages() {
        let run = run(&step(options.clone()), PolicyName::Ours);
        assert_eq!(run.stale_decreases, 0, "{options:?}");
        assert_eq!(run.counts.finished, run.counts.arrived, "{options:?}");
    }
    // A policy that looks at neither goes down all the same: the outage was there.
    for options in outages() {
        assert!(run(&step(options), PolicyName::Clairvoyant).stale_decreases > 0);
    }
}

#[test]
fn a_share_of_failed_reads_costs_little() {
    let losses = Options { scrape_loss: 0.2, server_loss: 0.2, ..Options::default() };
    let (whole, lossy) = (run(&step(Options::default()), PolicyName::Ours), run(&step(losses), PolicyName::Ours));
    assert_ne!(whole.figures, lossy.figures);
    assert_eq!(lossy.counts.finished, lossy.counts.arrived);
    assert!(lossy.figures.cost_replica_s < 1.5 * whole.figures.cost_replica_s, "{:?}", lossy.figures);
    assert!(lossy.figures.late_share < whole.figures.late_share + 0.05, "{:?}", lossy.figures);
}

/// The replicas that `ours` has ordered at a time, seconds from the start.
fn replicas(run: &Run, at: Micros) -> u32 {
    run.course.iter().rev().find(|note| note.at <= at * SECOND).map_or(0, |note| note.replicas)
}

#[test]
fn an_operator_that_is_started_anew_takes_no_pod_for_a_minute_and_kills_nothing() {
    let restarts = |checkpoint| {
        let away = Window { from: 3_895 * SECOND, until: 3_915 * SECOND };
        Options { restarts: vec![Restart { away, checkpoint }], ..Options::default() }
    };
    for checkpoint in [true, false] {
        let workload = step(restarts(checkpoint));
        let mut ours = Ours::new(&workload, BOUNDS);
        let run = simulate_with(&workload, &mut ours, BOUNDS, 1, Some(SECOND));
        let before = replicas(&run, 3_894);
        assert!(before >= 4, "{before}");
        // The arrivals fell while it was away.
        assert!((3_915..3_970).all(|at| replicas(&run, at) >= before), "checkpoint: {checkpoint}");
        assert!(replicas(&run, 4_500) < before, "checkpoint: {checkpoint}");
        assert_eq!((run.counts.killed, run.counts.finished), (0, run.counts.arrived));
    }
}

/// Notes when it was asked, and how it was started anew.
#[derive(Default)]
struct Diary {
    asked: Vec<Micros>,
    restarted: Vec<(Micros, bool)>,
}

impl Policy for Diary {
    fn decide(&mut self, now: Micros, _: &Observation<'_>) -> Verdict {
        self.asked.push(now);
        Verdict::new(1, "one", now + 10 * SECOND)
    }

    fn restart(&mut self, now: Micros, checkpoint: bool) {
        self.restarted.push((now, checkpoint));
    }
}

#[test]
fn nobody_decides_while_the_operator_is_away_and_each_new_one_is_told_once() {
    let task = Task { service: SECOND, ..Task::default() };
    let restart = |from, until, checkpoint| Restart { away: window(from, until)[0], checkpoint };
    let options = Options { restarts: vec![restart(95, 125, true), restart(201, 202, false)], ..Options::default() };
    let mut diary = Diary::default();
    let _ = simulate_with(&Workload { options, ..Workload::new("one", vec![task]) }, &mut diary, BOUNDS, 1, None);
    assert!(diary.asked.contains(&(90 * SECOND)) && diary.asked.contains(&(125 * SECOND)));
    assert!(!diary.asked.iter().any(|at| (95 * SECOND..125 * SECOND).contains(at)));
    // The second one is too short to be seen but for what it leaves.
    assert_eq!(diary.restarted, [(125 * SECOND, true), (205 * SECOND, false)]);
}

/// One fleet with 20 tasks/s of 1 s on one Task Queue, and 60/s of 1 s on another for twenty minutes.
fn two_queues() -> Workload {
    let tasks = |queue, each: Micros, from: Micros, until: Micros| {
        let arrivals = (from * SECOND..until * SECOND).step_by(usize::try_from(each).unwrap());
        arrivals.map(move |arrival| Task { arrival, service: SECOND, queue })
    };
    let all = tasks(0, SECOND / 20, 0, 3_600).chain(tasks(1, SECOND / 60, 1_200, 2_400));
    Workload { queues: vec!["mail".into(), "video".into()], ..Workload::new("two", all.collect()) }
}

#[test]
fn a_fleet_of_two_task_queues_has_pods_for_the_one_that_needs_most() {
    let workload = two_queues();
    let mut ours = Ours::new(&workload, BOUNDS);
    let run = simulate_with(&workload, &mut ours, BOUNDS, 1, Some(10 * SECOND));
    assert_eq!(run.counts.finished, run.counts.arrived);
    let (alone, both) = (replicas(&run, 1_100), replicas(&run, 2_300));
    // 20 and 60 busy slots of 10 a pod: not their sum, 80.
    assert!((2..=4).contains(&alone), "{alone}");
    assert!((6..=9).contains(&both), "{both}");
    assert!(run.figures.late_share < 0.05, "{:?}", run.figures);
}

/// Keeps two pods; from 60 s on it cordons the first one, and from 200 s on takes it once it is empty.
struct Cordoner;

impl Policy for Cordoner {
    fn decide(&mut self, now: Micros, seen: &Observation<'_>) -> Verdict {
        let first = seen.pods().find(|pod| pod.id() == 0);
        let empty =
            first.is_some_and(|pod| pod.phase() == Phase::Ready && pod.scrape().is_some_and(|read| read.used == 0));
        let replicas = if seen.replicas == 2 && !(now > 200 * SECOND && empty) { 2 } else { 1 };
        let named: Vec<_> = first.map(Pod::id).filter(|_| now >= 60 * SECOND).into_iter().collect();
        Verdict { victims: named.clone(), cordon: named, ..Verdict::new(replicas, "cordons the first", now + SECOND) }
    }
}

#[test]
fn a_fleet_of_long_tasks_shrinks_by_a_cordon_without_a_kill() {
    // Four tasks of ten minutes on two pods of three slots, and then one of a minute each half minute.
    let task = |arrival, service| Task { arrival: arrival * SECOND, service: service * SECOND, queue: 0 };
    let later = (0..30).map(|number| task(100 + 30 * number, 60));
    let tasks = (0..4).map(|_| task(0, 600)).chain(later).collect();
    let workload = Workload { slots: 3, ..Workload::new("long", tasks) };
    let run = simulate_with(&workload, &mut Cordoner, Bounds { min: 2, max: 2 }, 1, Some(SECOND));
    assert_eq!((run.counts.killed, run.counts.finished), (0, 34));
    // As soon as its first tasks are done, though others kept arriving.
    let removed = run.course.iter().find(|note| note.replicas == 1).unwrap().at / SECOND;
    assert!((600..700).contains(&removed), "{removed}");
}
