//! Which read comes next.

use std::time::Duration;

use operator_core::observed::LaneKey;
use tokio::time::Instant;

use super::fleet::Fleet;
use super::lane::Lane;
use super::pace::Class;
use super::state::State;
use super::timer::Timer;
use crate::changes::FleetId;
use crate::temporal::budget::{Budget, Kind};

/// Longest time until it is looked again what is due.
const FAR: Duration = Duration::from_secs(30);
/// Paces follow changes of the demand at least this often.
const PLAN_EVERY: Duration = Duration::from_secs(1);

/// A read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Partitions { queue: String },
    Live { lane: LaneKey, partition: usize },
    Stats { lane: LaneKey },
    List,
    Starts { queues: Vec<String> },
    Deployment { fleet: FleetId, name: String },
    Version { fleet: FleetId, name: String, build_id: String },
    Test { fleet: FleetId, workflow_id: String },
}

impl Job {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Partitions { .. } | Self::Live { .. } | Self::Stats { .. } | Self::Test { .. } => Kind::Queue,
            Self::Deployment { .. } | Self::Version { .. } => Kind::Deployment,
            Self::List | Self::Starts { .. } => Kind::List,
        }
    }
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Read this; its token is taken.
    Read(Job),
    /// Nothing before then.
    WaitUntil(Instant),
}

/// What is due first; then by deadline, then by period.
type Order = (Rank, Instant, Duration);

/// What comes before all else that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// What finds tasks: a call that tells of a hundred queues, and partitions of a queue that has a task by what a hint says. There
    /// are few of them, however slow the server is.
    Hinted,
    /// What was not read for two periods.
    Starving,
    Usual,
}

/// A read with its place in the order.
struct Planned {
    order: Order,
    class: Class,
    job: Job,
}

impl Planned {
    fn due(&self) -> Instant {
        self.order.1
    }
}

/// The first of what was offered.
struct Earliest<T> {
    now: Instant,
    first: Option<(Order, Class, T)>,
}

impl<T> Earliest<T> {
    fn new(now: Instant) -> Self {
        Self { now, first: None }
    }

    fn offer(&mut self, timer: &Timer, (class, period): (Class, Duration), what: T) {
        let Some(due) = timer.due(period) else { return };
        let rank = match timer.starves(period, self.now) {
            _ if class == Class::Starts || period.is_zero() => Rank::Hinted,
            true => Rank::Starving,
            false => Rank::Usual,
        };
        let order = (rank, due, period);
        if self.first.as_ref().is_none_or(|(first, ..)| order < *first) {
            self.first = Some((order, class, what));
        }
    }
}

impl State {
    /// Chooses the read that is most overdue, within the budget, and has a place at the server, which `has_place` asks for.
    pub(super) fn next(
        &mut self,
        now: Instant,
        in_flight: usize,
        budget: &Budget,
        has_place: impl FnMut(Kind) -> bool,
    ) -> Next {
        if self.planned_at.is_none_or(|planned| now.saturating_duration_since(planned) >= PLAN_EVERY) {
            self.plan(now, budget);
        }
        let far = now + FAR;
        let lists = [self.first_list(now), self.first_starts(now)];
        let firsts = [self.first_queue_read(now), self.first_deployment_read(now)].into_iter().chain(lists);
        let mut reads: Vec<Planned> = firsts.flatten().collect();
        reads.sort_by_key(|read| read.order);
        if let Some(probe_at) = self.health.probe_at {
            // One call at a time finds out whether the server is back, whatever is due.
            if in_flight > 0 {
                return Next::WaitUntil(far);
            }
            reads.truncate(1);
            reads.iter_mut().for_each(|read| read.order.1 = probe_at);
        }
        self.take(reads, (now, far), budget, has_place)
    }

    fn take(
        &mut self,
        reads: Vec<Planned>,
        (now, far): (Instant, Instant),
        budget: &Budget,
        mut has_place: impl FnMut(Kind) -> bool,
    ) -> Next {
        let mut wake = far;
        for read in reads {
            let due = read.due();
            if due > now {
                wake = wake.min(due);
                continue;
            }
            if !has_place(read.job.kind()) {
                continue;
            }
            match budget.try_take(read.job.kind(), now) {
                Ok(()) => {
                    budget.waited(read.job.kind(), now.saturating_duration_since(due));
                    if let Some(gap) = self.timer(&read.job).and_then(|timer| timer.start(now)) {
                        budget.polled(read.class.as_str(), gap);
                    }
                    return Next::Read(read.job);
                }
                Err(wait) => wake = wake.min(now + wait),
            }
        }
        // Paces are looked at again while lanes are swept.
        if self.sweeping {
            wake = wake.min(now + PLAN_EVERY);
        }
        Next::WaitUntil(wake)
    }

    fn first_queue_read(&self, now: Instant) -> Option<Planned> {
        let configured = (Class::Configured, self.queue_pace.interval(Class::Configured));
        let mut earliest = Earliest::new(now);
        for (key, lane) in &self.lanes {
            let queue = self.queues.get(&key.task_queue);
            let partitions = queue.map_or(1, |queue| queue.partitions_of(key.task_type));
            if let Some(every) = lane.live_period(partitions) {
                match queue {
                    Some(queue) if queue.partitions.is_none() => {
                        earliest.offer(&queue.timer, configured, Candidate::Partitions(&key.task_queue));
                    }
                    Some(_) => {
                        earliest.offer(&lane.live_timer, (every.class, every.period), Candidate::Live(key, lane));
                    }
                    None => {}
                }
            }
            if let Some(every) = lane.stats_read {
                earliest.offer(&lane.stats_timer, (every.class, every.period), Candidate::Stats(key));
            }
        }
        if self.live_on(now) {
            for (name, queue) in self.queues.iter().filter(|(_, queue)| queue.partitions.is_some()) {
                earliest.offer(&queue.timer, configured, Candidate::Partitions(name));
            }
        }
        self.offer_tests(&mut earliest);
        earliest.first.map(|(order, class, candidate)| Planned { order, class, job: candidate.job() })
    }

    fn offer_tests<'a>(&'a self, earliest: &mut Earliest<Candidate<'a>>) {
        let every = (Class::Test, self.queue_pace.interval(Class::Test));
        for (id, fleet) in &self.fleets {
            for (workflow_id, test) in fleet.tests.iter().filter(|(_, test)| test.is_open()) {
                earliest.offer(&test.timer, every, Candidate::Test(id, workflow_id));
            }
        }
    }

    fn first_list(&self, now: Instant) -> Option<Planned> {
        let mut earliest = Earliest::new(now);
        let every = (Class::Settled, self.deployment_pace.interval(Class::Settled));
        earliest.offer(self.wanted_list()?, every, Job::List);
        earliest.first.map(|(order, class, job)| Planned { order, class, job })
    }

    fn first_starts(&self, now: Instant) -> Option<Planned> {
        let mut earliest = Earliest::new(now);
        earliest.offer(self.wanted_starts()?, (Class::Starts, self.queue_pace.interval(Class::Starts)), ());
        let job = || Job::Starts { queues: self.queues_of_starts() };
        earliest.first.map(|(order, class, ())| Planned { order, class, job: job() })
    }

    fn first_deployment_read(&self, now: Instant) -> Option<Planned> {
        let every = |class| (class, self.deployment_pace.interval(class));
        let mut earliest: Earliest<(&Fleet, Option<&str>)> = Earliest::new(now);
        for fleet in self.fleets.values() {
            if let Some(class) = fleet.deployment_class(now) {
                earliest.offer(&fleet.deployment_timer, every(class), (fleet, None));
            }
            // Which versions matter is in the description of their deployment.
            for (build_id, version) in fleet.versions.iter().filter(|_| fleet.deployment.is_some()) {
                if let Some(class) = fleet.version_class(build_id, now) {
                    earliest.offer(&version.timer, every(class), (fleet, Some(build_id)));
                }
            }
        }
        let (order, class, (fleet, build_id)) = earliest.first?;
        let (name, fleet) = (fleet.watch.deployment_name.clone()?, fleet.watch.fleet.clone());
        let job = match build_id {
            Some(build_id) => Job::Version { fleet, name, build_id: build_id.to_owned() },
            None => Job::Deployment { fleet, name },
        };
        Some(Planned { order, class, job })
    }
}

enum Candidate<'a> {
    Partitions(&'a str),
    Live(&'a LaneKey, &'a Lane),
    Stats(&'a LaneKey),
    Test(&'a FleetId, &'a str),
}

impl Candidate<'_> {
    fn job(self) -> Job {
        match self {
            Self::Partitions(queue) => Job::Partitions { queue: queue.to_owned() },
            Self::Live(key, lane) => Job::Live { lane: key.clone(), partition: lane.next_partition },
            Self::Stats(key) => Job::Stats { lane: key.clone() },
            Self::Test(fleet, workflow_id) => Job::Test { fleet: fleet.clone(), workflow_id: workflow_id.to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_for_two_periods_comes_before_what_is_due_for_longer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let read_at = |seconds| {
            let mut timer = Timer::new(start);
            for read in [start, at(seconds)] {
                timer.start(read);
                timer.succeeded(1.0);
            }
            timer
        };
        let (slow, fast) = (read_at(0), read_at(56));
        let first = |now| {
            let mut earliest = Earliest::new(now);
            earliest.offer(&slow, (Class::Steady, Duration::from_secs(60)), "slow");
            earliest.offer(&fast, (Class::Hot, Duration::from_secs(5)), "fast");
            earliest.first.map(|(_, _, what)| what)
        };
        assert_eq!(first(at(65)), Some("slow"), "due since 60 s, the other since 61 s");
        assert_eq!(first(at(67)), Some("fast"), "not read for more than twice its period");
        assert_eq!(first(at(121)), Some("slow"), "nor was the other one");
    }

    #[test]
    fn what_finds_tasks_comes_before_what_was_left_out_for_long() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let read_at = |read| {
            let mut timer = Timer::new(start);
            timer.start(read);
            timer.succeeded(1.0);
            timer
        };
        let now = start + 600 * second;
        let (starving, fresh) = (read_at(start), read_at(now - second));
        let first = |class, period| {
            let mut earliest = Earliest::new(now);
            earliest.offer(&starving, (Class::Pinned, 10 * second), "starving");
            earliest.offer(&fresh, (class, period), "fresh");
            earliest.first.map(|(_, _, what)| what)
        };
        assert_eq!(first(Class::Hot, Duration::ZERO), Some("fresh"), "a partition that a hint names");
        assert_eq!(first(Class::Starts, second / 2), Some("fresh"), "the call that gives hints");
        assert_eq!(first(Class::Hot, second / 2), Some("starving"), "but no other");
    }
}
