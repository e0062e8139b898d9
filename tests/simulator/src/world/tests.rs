use super::{Phase, Want, World};
use crate::time::{Micros, SECOND};
use crate::workload::{Options, Task, Window, Workload};

fn workload(tasks: &[(Micros, Micros)]) -> Workload {
    let tasks = tasks.iter().map(|(arrival, service)| Task { arrival: arrival * SECOND, service: service * SECOND });
    Workload { slots: 2, ..Workload::new("test", tasks.collect()) }
}

/// Goes on until `until`, whatever the policy would say.
fn go_on(world: &mut World<'_>, until: Micros) {
    world.plan_decision(until);
    while world.advance().is_some() {
        if world.now() >= until {
            return;
        }
    }
    panic!("the run ended before {until}");
}

fn phases(world: &mut World<'_>) -> Vec<Phase> {
    world.observe().pods().map(crate::world::Pod::phase).collect()
}

#[test]
fn a_pod_starts_works_and_is_gone_once_its_work_is_done() {
    let workload = workload(&[(100, 20)]);
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, SECOND);
    assert_eq!(phases(&mut world), [Phase::Starting]);
    go_on(&mut world, 99 * SECOND);
    assert_eq!(phases(&mut world), [Phase::Ready]);
    let ready = world.observe().pods().next().and_then(crate::world::Pod::ready).unwrap();
    assert!((8 * SECOND..60 * SECOND).contains(&ready), "{ready}");
    go_on(&mut world, 105 * SECOND);
    world.scale(0, &[]);
    assert_eq!(phases(&mut world), [Phase::Terminating]);
    go_on(&mut world, 119 * SECOND);
    assert_eq!(phases(&mut world), [Phase::Terminating]);
    go_on(&mut world, 120 * SECOND);
    assert_eq!(phases(&mut world), []);
    while world.advance().is_some() {}
    let closed = world.close();
    // The last arrival, and 400 s.
    assert_eq!(closed.end, 500 * SECOND);
    assert_eq!(closed.pod_time, 120 * SECOND);
    assert_eq!((closed.counts.finished, closed.counts.killed), (1, 0));
}

#[test]
fn what_outlasts_the_grace_period_is_killed_and_comes_back_after_half_a_minute() {
    let workload = workload(&[(100, 70)]);
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, 110 * SECOND);
    world.scale(0, &[]);
    go_on(&mut world, 139 * SECOND);
    assert_eq!((world.waiting(), world.running()), (0, 1));
    go_on(&mut world, 141 * SECOND);
    assert_eq!(phases(&mut world), []);
    assert_eq!((world.tally.counts.killed, world.waiting()), (1, 0));
    go_on(&mut world, 170 * SECOND);
    assert_eq!(world.waiting(), 1);
    world.scale(1, &[]);
    while world.advance().is_some() {}
    let closed = world.close();
    assert_eq!((closed.counts.arrived, closed.counts.started, closed.counts.finished), (1, 2, 1));
    // Its wait is that for its first start.
    assert_eq!(closed.waits, [0]);
}

#[test]
fn an_idle_pod_and_one_that_starts_are_gone_at_once() {
    let workload = workload(&[(100, 1)]);
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, 90 * SECOND);
    world.scale(2, &[]);
    assert_eq!(phases(&mut world), [Phase::Ready, Phase::Starting]);
    world.scale(0, &[]);
    assert_eq!(phases(&mut world), []);
}

#[test]
fn tasks_start_in_their_order_and_no_more_than_there_are_slots() {
    let workload = workload(&[(100, 10), (100, 10), (101, 10), (102, 10)]);
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, 105 * SECOND);
    assert_eq!((world.running(), world.waiting()), (2, 2));
    assert_eq!(world.observe().ideal.unmatched, 2);
    while world.advance().is_some() {}
    assert_eq!(world.close().waits, [0, 0, 9 * SECOND, 8 * SECOND]);
}

#[test]
fn metrics_are_read_every_five_seconds_but_not_in_an_outage() {
    let mut workload = workload(&[(100, 30)]);
    workload.options.scrape_outages = vec![Window { from: 105 * SECOND, until: 150 * SECOND }];
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, 104 * SECOND);
    // A read happened within the last 5 s; whether it saw the task depends on its phase.
    let age = |world: &mut World<'_>| {
        let now = world.now();
        world.observe().pods().next().and_then(|pod| pod.scrape().copied()).map(|scrape| now - scrape.taken)
    };
    assert!(age(&mut world).unwrap() < 5 * SECOND);
    go_on(&mut world, 149 * SECOND);
    assert!(age(&mut world).unwrap() > 44 * SECOND);
    go_on(&mut world, 156 * SECOND);
    assert!(age(&mut world).unwrap() < 5 * SECOND);
    let scrape = world.observe().pods().next().and_then(|pod| pod.scrape().copied()).unwrap();
    assert_eq!((scrape.used, scrape.available, scrape.started, scrape.completed), (0, 2, 1, 1));
    assert_eq!(scrape.waits, [1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn an_outage_hides_the_server_from_the_policy_and_not_from_the_pods() {
    let mut workload = workload(&[(100, 1)]);
    workload.options.server_outages = vec![Window { from: 90 * SECOND, until: 110 * SECOND }];
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, 105 * SECOND);
    assert_eq!((world.observe().server, world.observe().live_backlog), (None, None));
    assert_eq!(world.tally.counts.finished, 1);
    go_on(&mut world, 110 * SECOND);
    assert!(world.observe().server.is_some());
}

#[test]
fn a_rate_limit_holds_tasks_back_though_slots_are_free() {
    let tasks: Vec<_> = (0..30).map(|_| (100, 0)).collect();
    let options = Options { rate_limit: Some(10.0), ..Options::default() };
    let workload = Workload { slots: 100, options, ..workload(&tasks) };
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, 100 * SECOND + SECOND / 2);
    // Ten at once, and five in half a second.
    assert_eq!(world.tally.counts.finished, 15);
    assert!(world.observe().server.unwrap().rate_limited);
    go_on(&mut world, 103 * SECOND);
    assert_eq!(world.tally.counts.finished, 30);
}

#[test]
fn pods_that_are_never_ready_cost_and_the_run_ends_all_the_same() {
    let mut workload = workload(&[(0, 1), (100, 1)]);
    workload.options.never_ready = true;
    let mut world = World::new(&workload, 1, 2);
    while world.advance().is_some() {}
    let closed = world.close();
    assert_eq!(closed.end, 500 * SECOND);
    assert_eq!(closed.pod_time, 1_000 * SECOND);
    assert_eq!(closed.waits, [500 * SECOND, 400 * SECOND]);
}

#[test]
fn a_run_in_which_nothing_gets_done_is_given_up() {
    let workload = workload(&[(0, 1), (100, 30)]);
    let mut world = World::new(&workload, 1, 0);
    while world.advance().is_some_and(|want| matches!(want, Want::Decision)) {}
    // 400 s after the last arrival, then an hour and twice 30 s.
    assert_eq!(world.close().end, (500 + 3_600 + 60) * SECOND);
}
