//! Temporal's own scaler, the algorithm `rate_based`, with its defaults but for the maximum.
//!
//! temporalio/temporal-auto-scaled-workers, `wci/workflow/scaling_algorithm/rate_based.go`. The server tells it of each task
//! that no Worker waited for; that signal is inside the server, and is exact here.

use super::Every;
use crate::observation::{Bounds, Observation};
use crate::policy::{Policy, Verdict};
use crate::random::Stream;
use crate::server::ServerStats;
use crate::time::{Micros, SECOND, ceiling};

/// Time between two looks at the signals; they are handed over in batches.
const LOOK: Micros = SECOND / 2;
const POLL: Micros = 60 * SECOND;
/// Weight of a new sample.
const ALPHA: f64 = 0.45;
/// Tasks a second of a Worker, until measured.
const INITIAL_CAPACITY: f64 = 2.0;
/// Tasks a second added to the arrivals while there is backlog.
const DRAIN_RATE: f64 = 2.0;
/// Backlog from which on what is dispatched shows the capacity.
const MATERIAL_BACKLOG: u64 = 50;
const UTILIZATION: f64 = 0.8;
const HALFIN_WHITT_BETA: f64 = 0.5;
const MAX_STEP: u32 = 4;
const UP_COOLDOWN: Micros = 2 * SECOND;
const DOWN_COOLDOWN: Micros = 60 * SECOND;
/// Time without a signal after which it may scale down.
const QUIET: Micros = 90 * SECOND;

/// The scaler.
#[derive(Debug)]
pub struct Wci {
    bounds: Bounds,
    poll: Every,
    unmatched: u64,
    arrival: Option<f64>,
    capacity: f64,
    last_up: Option<Micros>,
    last_down: Option<Micros>,
    last_signal: Option<Micros>,
}

impl Wci {
    /// With its defaults.
    #[must_use]
    pub fn new(bounds: Bounds, phase: &mut Stream) -> Self {
        Self {
            bounds,
            poll: Every::starting(phase.phase(POLL), POLL),
            unmatched: 0,
            arrival: None,
            capacity: INITIAL_CAPACITY,
            last_up: None,
            last_down: None,
            last_signal: None,
        }
    }

    /// One more for a signal, unless it was just done.
    fn signalled(&mut self, now: Micros, current: u32) -> u32 {
        self.last_signal = Some(now);
        if current >= self.bounds.max || !passed(now, self.last_up, UP_COOLDOWN) {
            return current;
        }
        self.last_up = Some(now);
        current + 1
    }

    fn polled(&mut self, now: Micros, current: u32, stats: &ServerStats) -> u32 {
        self.learn(current, stats);
        let desired = self.desired(stats.backlog);
        if desired > current && passed(now, self.last_up, UP_COOLDOWN) {
            self.last_up = Some(now);
            return desired.min(current + MAX_STEP);
        }
        let quiet = passed(now, self.last_signal, QUIET) && passed(now, self.last_down, DOWN_COOLDOWN);
        if desired < current && quiet && current > self.bounds.min {
            self.last_down = Some(now);
            return current - 1;
        }
        current
    }

    fn learn(&mut self, planned: u32, stats: &ServerStats) {
        let idle = stats.backlog == 0 && stats.add_rate <= 0.0 && stats.dispatch_rate <= 0.0;
        self.arrival = match self.arrival {
            _ if idle => Some(0.0),
            Some(before) => Some(ALPHA * stats.add_rate + (1.0 - ALPHA) * before),
            None => Some(stats.add_rate),
        };
        if stats.backlog >= MATERIAL_BACKLOG && planned > 0 && stats.dispatch_rate > 0.0 {
            // By what is planned, not by what is Ready: slow starts look like slow Workers.
            let sample = stats.dispatch_rate / f64::from(planned);
            self.capacity = ALPHA * sample + (1.0 - ALPHA) * self.capacity;
        }
    }

    fn desired(&self, backlog: u64) -> u32 {
        let drain = if backlog > 0 { DRAIN_RATE } else { 0.0 };
        let load = (self.arrival.unwrap_or(0.0) + drain) / self.capacity;
        let by_utilization = libm::ceil(load / UTILIZATION);
        let by_square_root = libm::ceil(load + HALFIN_WHITT_BETA * libm::sqrt(load));
        self.bounds.clamp(ceiling(by_utilization.max(by_square_root), u32::MAX))
    }
}

fn passed(now: Micros, since: Option<Micros>, time: Micros) -> bool {
    since.is_none_or(|since| now - since >= time)
}

impl Policy for Wci {
    fn decide(&mut self, now: Micros, seen: &Observation<'_>) -> Verdict {
        let mut replicas = seen.replicas;
        let mut why = "nothing new";
        if seen.ideal.unmatched > self.unmatched {
            self.unmatched = seen.ideal.unmatched;
            replicas = self.signalled(now, replicas);
            why = "a task found no Worker";
        }
        if self.poll.due(now)
            && let Some(stats) = seen.server
        {
            replicas = self.polled(now, replicas, &stats);
            why = "arrivals over capacity";
        }
        Verdict::new(replicas, why, (now + LOOK).min(self.poll.next))
    }
}
