//! The task that reads one Temporal namespace through one connection.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use operator_core::observed::{TemporalFailure, TemporalState};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Watch;
use super::fleet::Fleet;
use super::outcome::Answer;
use super::places::Places;
use super::schedule::{Job, Next};
use super::state::State;
use crate::changes::{Changes, FleetId};
use crate::temporal::api;
use crate::temporal::budget::Budget;
use crate::temporal::connection::Connection;
use crate::temporal::errors::CallError;
use crate::temporal::gates;
use crate::temporal::lists;
use crate::temporal::metrics::Metrics;
use crate::temporal::room::Permit;

/// Calls under way at a time. Ten would do for 120 calls a second at 80 ms each.
const IN_FLIGHT: usize = 24;

/// Reads everything that is watched in one Temporal namespace through one connection.
pub(super) struct NamespacePoller {
    connection: Arc<Connection>,
    namespace: String,
    budget: Arc<Budget>,
    changes: Arc<Changes>,
    metrics: Metrics,
    state: Mutex<State>,
    wake: Notify,
}

/// A read that has ended, when it began, and its place.
type Done = (Job, Instant, Result<Answer, CallError>, Option<Permit>);

impl NamespacePoller {
    /// Starts the task. It ends after [`NamespacePoller::close`].
    pub(super) fn start(watch: &Watch, changes: Arc<Changes>, metrics: Metrics) -> Arc<Self> {
        let poller = Arc::new(Self {
            connection: watch.connection.clone(),
            namespace: watch.namespace.clone(),
            budget: watch.connection.budget(&watch.namespace),
            changes,
            metrics,
            state: Mutex::default(),
            wake: Notify::new(),
        });
        tokio::spawn(poller.clone().run());
        poller
    }

    pub(super) fn set(&self, watch: Watch, carried: Option<Fleet>) {
        if self.state.lock().set(watch, carried, Instant::now()) {
            self.wake.notify_one();
        }
    }

    /// Takes a fleet out; says also whether none is left.
    pub(super) fn remove(&self, fleet: &FleetId) -> (Option<Fleet>, bool) {
        let mut state = self.state.lock();
        let taken = state.remove(fleet, &self.budget);
        (taken, state.fleets.is_empty())
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    pub(super) fn poke(&self, fleet: &FleetId) {
        self.state.lock().poke(fleet, Instant::now());
        self.wake.notify_one();
    }

    pub(super) fn hint(&self, fleet: &FleetId) {
        self.state.lock().hint(fleet, Instant::now());
        self.wake.notify_one();
    }

    pub(super) fn follow_tests(&self, fleet: &FleetId, wanted: &BTreeSet<String>) {
        if self.state.lock().follow_tests(fleet, wanted, Instant::now()) {
            self.wake.notify_one();
        }
    }

    pub(super) fn test_started(&self, fleet: &FleetId, workflow_id: &str, run_id: Option<String>) {
        self.state.lock().test_started(fleet, workflow_id, run_id, Instant::now());
        self.wake.notify_one();
    }

    pub(super) fn snapshot(&self, fleet: &FleetId, now: Instant) -> TemporalState {
        self.state.lock().snapshot(fleet, now)
    }

    async fn run(self: Arc<Self>) {
        let (mut calls, mut places) = (FuturesUnordered::new(), Places::default());
        loop {
            let wake_at = loop {
                let mut state = self.state.lock();
                if state.closed {
                    return;
                }
                let now = Instant::now();
                if calls.len() >= IN_FLIGHT {
                    break now + api::DEADLINE;
                }
                match state.next(now, calls.len(), &self.budget, |kind| places.ready(kind, &self.budget)) {
                    Next::Read(job) => {
                        let place = places.take(job.kind());
                        calls.push(self.read(job, place));
                    }
                    Next::WaitUntil(at) => break at,
                }
            };
            places.release();
            tokio::select! {
                () = places.come() => {}
                Some(done) = calls.next(), if !calls.is_empty() => self.finish(done),
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    async fn read(&self, job: Job, place: Option<Permit>) -> Done {
        let asked = Instant::now();
        let (connection, namespace) = (&*self.connection, self.namespace.as_str());
        let outcome = match &job {
            Job::Partitions { queue } => api::partitions(connection, namespace, queue).await.map(Answer::Partitions),
            Job::Live { lane, partition } => {
                api::partition_status(connection, namespace, lane, *partition).await.map(Answer::Live)
            }
            Job::Stats { lane } => api::lane_statistics(connection, namespace, lane).await.map(Answer::Stats),
            Job::Starts { queues } => lists::starts(connection, namespace, queues).await.map(Answer::Starts),
            Job::List => lists::settled_deployments(connection, namespace).await.map(Answer::List),
            Job::Deployment { name, .. } => api::deployment(connection, namespace, name).await.map(Answer::Deployment),
            Job::Version { name, build_id, .. } => {
                api::version(connection, namespace, name, build_id).await.map(Answer::Version)
            }
            Job::Test { workflow_id, .. } => gates::read(connection, namespace, workflow_id).await.map(Answer::Test),
        };
        (job, asked, outcome, place)
    }

    fn finish(&self, (job, asked, outcome, place): Done) {
        let now = Instant::now();
        if let (Some(places), Some(place)) = (self.budget.places(job.kind()), place) {
            places.ended(place, now.saturating_duration_since(asked), outcome.is_ok(), now);
        }
        let mut state = self.state.lock();
        let read_before = state.last_live(&job);
        let was_down = state.health.failure.is_some();
        let changed = state.finish(&job, outcome, (asked, now), &self.budget);
        let down = state.health.failure.clone();
        drop(state);
        if let Some(before) = read_before {
            self.metrics.swept(asked.saturating_duration_since(before));
        }
        self.log(was_down, down);
        for fleet in &changed {
            self.changes.send(fleet);
        }
    }

    fn log(&self, was_down: bool, down: Option<TemporalFailure>) {
        let (server, namespace) = (self.connection.host_port(), self.namespace.as_str());
        match down {
            Some(failure) if !was_down => {
                tracing::warn!(server, namespace, class = ?failure.class, reason = failure.message, "Temporal can't be read");
            }
            None if was_down => tracing::info!(server, namespace, "Temporal can be read again"),
            _ => {}
        }
    }
}
