//! Two versions of a fleet, while the arrivals move from one to the other.

use scale_sim::observation::Bounds;
use scale_sim::ramp::{Ramp, Ramped, simulate_ramp};
use scale_sim::time::{Micros, SECOND};
use scale_sim::{PolicyName, Task, Workload};

/// 60 tasks/s of 1 s for an hour: 6 pods, if every slot were always busy.
fn workload() -> Workload {
    let arrivals = (0..3_600 * SECOND).step_by(usize::try_from(SECOND / 60).unwrap());
    let task = |arrival| Task { arrival, service: SECOND, queue: 0 };
    Workload::new("versions", arrivals.map(task).collect())
}

fn ramped(prepares: bool) -> Ramped {
    in_steps(vec![0.1, 0.5, 1.0], prepares)
}

fn in_steps(steps: Vec<f64>, prepares: bool) -> Ramped {
    let ramp = Ramp { start: 900 * SECOND, steps, pause: 240 * SECOND, prepares };
    simulate_ramp(&workload(), &ramp, PolicyName::Ours, Bounds { min: 0, max: 100 }, 1)
}

/// When the new version first got such a share.
fn reached(ramped: &Ramped, share: f64) -> Micros {
    ramped.course.iter().find(|moment| moment.share >= share).unwrap().at / SECOND
}

#[test]
fn arrivals_move_to_the_new_version_and_the_old_one_ends() {
    let ramped = ramped(true);
    let (old, new) = (ramped.old.counts, ramped.new.counts);
    assert_eq!(old.arrived + new.arrived, workload().tasks.len() as u64);
    assert_eq!((old.finished, new.finished), (old.arrived, new.arrived));
    assert_eq!((old.killed, new.killed), (0, 0));
    let steps = [0.1, 0.5, 1.0].map(|share| reached(&ramped, share));
    assert!(steps[0] > 900 && steps[1] >= steps[0] + 240 && steps[2] >= steps[1] + 240, "{steps:?}");
    assert!(steps[2] < 1_800, "{steps:?}");
    // A tenth of the arrivals between the first two steps, half of them between the next two, and all after.
    let expected = 60 * ((steps[1] - steps[0]) / 10 + (steps[2] - steps[1]) / 2 + 3_600 - steps[2]);
    assert!(new.arrived.abs_diff(expected) < expected / 50, "{} instead of {expected}", new.arrived);
    let last = ramped.course.iter().rfind(|moment| moment.at < 3_500 * SECOND).unwrap();
    assert_eq!(last.old, 0, "the old version is at zero");
    assert!((6..=10).contains(&last.new), "{}", last.new);
}

#[test]
fn a_step_that_is_prepared_makes_no_task_late_and_one_that_is_not_does() {
    let from_zero = in_steps(Vec::new(), true).late_share();
    let (prepared, abrupt) = (ramped(true).late_share() - from_zero, ramped(false).late_share() - from_zero);
    assert!(prepared < 0.000_5, "{prepared}");
    assert!(abrupt > 0.003, "{abrupt} beside {prepared}");
}

#[test]
fn the_same_rollout_goes_the_same_way() {
    assert_eq!(ramped(true), ramped(true));
}
