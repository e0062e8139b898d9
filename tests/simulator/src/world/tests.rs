use super::{Phase, Want, World};
use crate::time::{Micros, SECOND};
use crate::workload::{Options, Restart, Task, Window, Workload};

fn workload(tasks: &[(Micros, Micros)]) -> Workload {
    let tasks = tasks.iter().map(|(arrival, service)| Task {
        arrival: arrival * SECOND,
        service: service * SECOND,
        ..Task::default()
    });
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
    world.observe(0).pods().map(crate::world::Pod::phase).collect()
}

#[test]
fn a_pod_starts_works_and_is_gone_once_its_work_is_done() {
    let workload = workload(&[(100, 20)]);
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, SECOND);
    assert_eq!(phases(&mut world), [Phase::Starting]);
    go_on(&mut world, 99 * SECOND);
    assert_eq!(phases(&mut world), [Phase::Ready]);
    let ready = world.observe(0).pods().next().and_then(crate::world::Pod::ready).unwrap();
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
    assert_eq!(world.observe(0).ideal.unmatched, 2);
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
        world.observe(0).pods().next().and_then(|pod| pod.scrape().copied()).map(|scrape| now - scrape.taken)
    };
    assert!(age(&mut world).unwrap() < 5 * SECOND);
    go_on(&mut world, 149 * SECOND);
    assert!(age(&mut world).unwrap() > 44 * SECOND);
    go_on(&mut world, 156 * SECOND);
    assert!(age(&mut world).unwrap() < 5 * SECOND);
    let scrape = world.observe(0).pods().next().and_then(|pod| pod.scrape().copied()).unwrap();
    assert_eq!((scrape.used, scrape.available, scrape.started, scrape.completed), (0, 2, 1, 1));
    assert_eq!(scrape.waits, [1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn an_outage_hides_the_server_from_the_policy_and_not_from_the_pods() {
    let mut workload = workload(&[(100, 1)]);
    workload.options.server_outages = vec![Window { from: 90 * SECOND, until: 110 * SECOND }];
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, 105 * SECOND);
    assert_eq!((world.observe(0).server, world.observe(0).live_backlog), (None, None));
    assert_eq!(world.tally.counts.finished, 1);
    go_on(&mut world, 110 * SECOND);
    assert!(world.observe(0).server.is_some());
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
    assert!(world.observe(0).server.unwrap().rate_limited);
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

#[test]
fn a_cordoned_pod_takes_no_new_task_goes_on_with_what_it_has_and_takes_tasks_again() {
    let workload = workload(&[(100, 30), (110, 5), (115, 5), (150, 5)]);
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, 105 * SECOND);
    assert_eq!(world.running(), 1);
    world.cordon(&[0]);
    go_on(&mut world, 125 * SECOND);
    // The free slot is not used, the busy one is.
    assert_eq!((world.running(), world.waiting()), (1, 2));
    assert!(world.observe(0).pods().all(|pod| pod.cordoned() && pod.phase() == Phase::Ready));
    go_on(&mut world, 131 * SECOND);
    // Nor is the slot whose task is done.
    assert_eq!((world.running(), world.waiting(), world.tally.counts.finished), (0, 2, 1));
    world.cordon(&[]);
    assert_eq!((world.running(), world.waiting()), (2, 0));
    while world.advance().is_some() {}
    let closed = world.close();
    assert_eq!((closed.counts.finished, closed.counts.killed), (4, 0));
    assert_eq!(closed.waits, [0, 21 * SECOND, 16 * SECOND, 0]);
}

#[test]
fn a_pod_that_starts_cordoned_takes_no_task_when_it_is_ready() {
    let workload = workload(&[(0, 5)]);
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, SECOND);
    world.cordon(&[0]);
    go_on(&mut world, 99 * SECOND);
    assert_eq!((phases(&mut world), world.waiting()), (vec![Phase::Ready], 1));
    world.cordon(&[]);
    assert_eq!(world.running(), 1);
}

#[test]
fn an_order_to_take_no_new_task_lapses_when_the_one_who_gave_it_stays_away() {
    let mut workload = workload(&[(100, 1), (300, 1)]);
    let away = |from, until| Restart { away: Window { from: from * SECOND, until: until * SECOND }, checkpoint: true };
    workload.options.restarts = vec![away(110, 150), away(200, 270)];
    let mut world = World::new(&workload, 1, 1);
    let cordoned = |world: &mut World<'_>| world.observe(0).pods().all(crate::world::Pod::cordoned);
    go_on(&mut world, 105 * SECOND);
    world.cordon(&[0]);
    // Away for 40 s: the next one renews the order in time.
    go_on(&mut world, 199 * SECOND);
    assert!(cordoned(&mut world));
    go_on(&mut world, 259 * SECOND);
    assert!(cordoned(&mut world));
    go_on(&mut world, 261 * SECOND);
    assert!(!cordoned(&mut world));
}

#[test]
fn each_task_queue_has_slots_of_its_own() {
    let mut workload = workload(&[(100, 10), (100, 10), (100, 10), (101, 10)]);
    workload.queues = vec!["mail".into(), "video".into()];
    workload.tasks.last_mut().unwrap().queue = 1;
    let mut world = World::new(&workload, 1, 1);
    go_on(&mut world, 106 * SECOND);
    // Two of three run on the one, and the one on the other though a task of the one waits.
    assert_eq!((world.running(), world.waiting()), (3, 1));
    let seen = world.observe(0);
    assert_eq!(seen.queues.iter().map(|queue| queue.live_backlog).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(seen.live_backlog, Some(1));
    let pod = seen.pods().next().unwrap();
    assert_eq!(
        pod.scrapes().iter().map(|scrape| (scrape.used, scrape.available)).collect::<Vec<_>>(),
        [(2, 0), (1, 1)]
    );
    assert_eq!(pod.scrape().map(|scrape| (scrape.used, scrape.available, scrape.started)), Some((3, 1, 3)));
    while world.advance().is_some() {}
    assert_eq!(world.close().waits, [0, 0, 10 * SECOND, 0]);
}

#[test]
fn a_share_of_the_reads_fails_and_the_others_do_not() {
    let mut workload = workload(&[(0, 1), (10_000, 1)]);
    (workload.options.scrape_loss, workload.options.server_loss) = (0.3, 0.2);
    let mut world = World::new(&workload, 1, 2);
    let (mut old, mut missing) = (0, 0);
    for look in 20..1_020 {
        go_on(&mut world, look * 5 * SECOND);
        let now = world.now();
        let seen = world.observe(0);
        missing += u32::from(seen.server.is_none());
        old += seen.pods().filter(|pod| pod.scrape().is_some_and(|scrape| now - scrape.taken >= 5 * SECOND)).count();
    }
    // Of 1000 reads of the server, and of 2000 of a pod.
    assert!((150..250).contains(&missing), "{missing}");
    assert!((500..700).contains(&old), "{old}");
}

#[test]
fn a_decrease_on_old_readings_is_counted_and_one_on_fresh_ones_is_not() {
    let mut workload = workload(&[(0, 1), (1_000, 1)]);
    let outage = |from, until| Window { from: from * SECOND, until: until * SECOND };
    workload.options.server_outages = vec![outage(100, 200)];
    workload.options.scrape_outages = vec![outage(300, 400)];
    let mut world = World::new(&workload, 1, 9);
    // Before, at first, later, after; an increase in the middle.
    let orders = [(90, 8), (120, 7), (140, 6), (150, 7), (250, 6), (350, 5), (450, 4)];
    let counted: Vec<u64> = orders
        .into_iter()
        .map(|(at, replicas)| {
            go_on(&mut world, at * SECOND);
            world.scale(replicas, &[]);
            world.tally.stale_decreases
        })
        .collect();
    assert_eq!(counted, [0, 0, 1, 1, 1, 2, 2]);
}
