//! A hint, as from a server that pushes: what is read at once because of it, and what of that is news.

use super::*;

fn live_reads(made: &[(Instant, Job)]) -> usize {
    made.iter().filter(|(_, job)| matches!(job, Job::Live { .. })).count()
}

#[tokio::test]
async fn a_hint_reads_every_partition_at_once_and_each_but_once() {
    let mut bed = Bed::new();
    bed.set(None, &[], Phase::AtZero);
    bed.run(Duration::from_secs(5), |_| None);
    let moment = Duration::from_millis(10);
    while live_reads(&bed.run(moment, |_| None)) > 0 {}
    bed.state.hint(&fleet(), bed.now);
    let made = bed.run(moment, |job| matches!(job, Job::Live { partition: 1, .. }).then_some(Answer::Live(waiting(3))));
    assert_eq!(live_reads(&made), 2, "{made:?}");
    assert_eq!(bed.lane().and_then(|lane| lane.known().map(|lane| lane.backlog)), Some(3));
    assert_eq!(live_reads(&bed.run(moment, |_| None)), 0, "without a hint there is nothing to read");
}

#[tokio::test]
async fn a_hint_reads_the_live_backlog_of_a_fleet_that_runs_too() {
    let mut bed = Bed::new();
    bed.set(None, &[], Phase::Running);
    let before = bed.run(Duration::from_secs(20), |_| None);
    assert_eq!(live_reads(&before), 0);
    bed.state.hint(&fleet(), bed.now);
    let made =
        bed.run(Duration::from_secs(1), |job| matches!(job, Job::Live { .. }).then_some(Answer::Live(waiting(2))));
    assert_eq!(live_reads(&made), 2, "{made:?}");
    assert_eq!(bed.lane().and_then(|lane| lane.known().map(|lane| lane.backlog)), Some(4));
}

#[tokio::test]
async fn a_backlog_that_a_hint_shows_is_news_whatever_one_showed_long_ago() {
    let mut bed = Bed::new();
    bed.set(None, &[], Phase::Running);
    bed.run(Duration::from_secs(20), |_| None);
    // The first hint asks for the partitions too.
    bed.state.hint(&fleet(), bed.now);
    bed.run(Duration::from_secs(20), |_| None);
    let mut told_by = |pause: Duration, backlog: u64| {
        bed.run(pause, |_| None);
        bed.state.hint(&fleet(), bed.now);
        let jobs = bed.due();
        let job = jobs.iter().find(|job| matches!(job, Job::Live { partition: 0, .. })).expect("a live read");
        let told = bed.finish(job, Ok(Answer::Live(waiting(backlog))));
        for job in jobs.iter().filter(|other| *other != job) {
            bed.finish(job, Ok(usual(job)));
        }
        // The other partition.
        bed.run(Duration::from_secs(1), |_| None);
        !told.is_empty()
    };
    assert!(told_by(Duration::from_secs(1), 5));
    assert!(!told_by(Duration::from_secs(1), 5), "the control: a moment later it is known");
    assert!(told_by(Duration::from_secs(60), 5));
}

#[tokio::test]
async fn a_hint_during_a_read_reads_that_partition_again() {
    let mut bed = Bed::new();
    bed.set(None, &[], Phase::AtZero);
    bed.run(Duration::from_secs(5), |_| None);
    let job = loop {
        match bed.due().into_iter().find(|job| matches!(job, Job::Live { .. })) {
            Some(job) => break job,
            None => bed.now += Duration::from_millis(10),
        }
    };
    bed.state.hint(&fleet(), bed.now);
    bed.finish(&job, Ok(Answer::Live(waiting(0))));
    let made = bed.run(Duration::from_millis(10), |_| None);
    assert_eq!(live_reads(&made), 2, "{made:?}");
}
