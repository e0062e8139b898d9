//! Traffic drawn from a rate and a distribution of service times. The parameters stand in the constructors; times are in
//! seconds.

use super::TraceName;
use crate::random::{Purpose, Stream};
use crate::time::{Micros, SECOND, micros};
use crate::workload::{Options, Task, Workload};

/// Distribution of service times.
#[derive(Clone, Copy, Debug)]
enum Service {
    /// Exponential with a mean.
    Exponential(f64),
    /// Lognormal with a mean, a standard deviation of the logarithm, and a greatest value.
    Lognormal { mean: f64, sigma: f64, cap: f64 },
}

impl Service {
    fn draw(self, stream: &mut Stream) -> Micros {
        micros(match self {
            Self::Exponential(mean) => stream.exponential(mean),
            Self::Lognormal { mean, sigma, cap } => {
                stream.lognormal(mean * libm::exp(-sigma * sigma / 2.0), sigma).min(cap)
            }
        })
    }
}

const HOUR: f64 = 3_600.0;
const DAY: f64 = 24.0 * HOUR;

/// The workload of a synthetic trace; those that are recorded have no tasks here.
pub(super) fn draw(name: TraceName, seed: u64) -> Workload {
    let second = Service::Exponential(1.0);
    let mut draw = Draw::new(seed);
    match name {
        TraceName::Steady => draw.rate(2.0 * HOUR, 20.0, |_| 20.0).service(second),
        TraceName::Step => draw.step(second),
        TraceName::StepSlownode => Workload { startup: 90 * SECOND, ..draw.step(second) },
        TraceName::Ramp => draw.rate(2.0 * HOUR, 60.0, ramp).service(second),
        TraceName::Spike => {
            let fan_outs = [1_200, 2_700, 4_200, 5_700];
            let instants = fan_outs.iter().flat_map(|at| std::iter::repeat_n(at * SECOND, 2_000));
            draw.rate(2.0 * HOUR, 3.0, |_| 3.0).and(instants).service(Service::Exponential(2.0))
        }
        TraceName::Diurnal => draw.rate(12.0 * HOUR, 30.0, |t| wave(t, 6.0 * HOUR, 3.0, 30.0)).service(second),
        TraceName::Onoff => draw.bursts().service(Service::Exponential(0.5)),
        TraceName::Heavytail => {
            draw.rate(3.0 * HOUR, 8.0, |_| 8.0).service(Service::Lognormal { mean: 3.0, sigma: 1.8, cap: 600.0 })
        }
        TraceName::Long => {
            let tasks = draw.rate(DAY, 0.0207, |t| wave(t, 6.0 * HOUR, 0.0023, 0.0207));
            Workload { slots: 4, target: 60 * SECOND, ..tasks.service(Service::Exponential(1_800.0)) }
        }
        TraceName::Tiny => {
            let rate = |t: f64| if t < HOUR / 2.0 { 60.0 } else { 300.0 };
            Workload { slots: 4, ..draw.rate(HOUR, 300.0, rate).service(Service::Exponential(0.02)) }
        }
        TraceName::Busyempty => draw.rate(3.0 * HOUR, 0.64, |_| 0.64).service(Service::Exponential(10.0)),
        TraceName::Sparse => draw.rate(12.0 * HOUR, 1.0 / 240.0, |_| 1.0 / 240.0).service(Service::Exponential(5.0)),
        TraceName::Ratelimited => {
            let offered = |t: f64| if (1_800.0..3_600.0).contains(&t) { 15.0 } else { 3.0 };
            let options = Options { rate_limit: Some(10.0), ..Options::default() };
            Workload { options, ..draw.rate(2.0 * HOUR, 15.0, offered).service(second) }
        }
        TraceName::Poison => {
            let options = Options { never_ready: true, ..Options::default() };
            Workload { options, ..draw.rate(HOUR, 5.0, |_| 5.0).service(second) }
        }
        TraceName::AzllmCode | TraceName::NabElbX60 | TraceName::NabTaxi => draw.service(second),
    }
}

/// From 1 to 60 in an hour, back in half an hour, then 1.
fn ramp(t: f64) -> f64 {
    if t < HOUR {
        1.0 + 59.0 * t / HOUR
    } else if t < 1.5 * HOUR {
        60.0 - 59.0 * (t - HOUR) / (HOUR / 2.0)
    } else {
        1.0
    }
}

/// A wave that begins at its least.
fn wave(t: f64, period: f64, least: f64, most: f64) -> f64 {
    least + (most - least) * (1.0 - libm::cos(std::f64::consts::TAU * t / period)) / 2.0
}

/// Arrivals on their way to a workload.
pub(super) struct Draw {
    seed: u64,
    arrivals: Vec<Micros>,
}

impl Draw {
    /// No arrival yet.
    pub fn new(seed: u64) -> Self {
        Self { seed, arrivals: Vec::new() }
    }

    /// A Poisson process with a rate that is a function of time and never above `peak`, for so many seconds. It is drawn by
    /// thinning one with the rate `peak`.
    pub fn rate(&mut self, length: f64, peak: f64, rate: impl Fn(f64) -> f64) -> &mut Self {
        let mut stream = Stream::new(self.seed, Purpose::Arrivals);
        let mut at = stream.exponential(1.0 / peak);
        while at < length {
            if stream.unit() * peak < rate(at) {
                self.arrivals.push(micros(at));
            }
            at += stream.exponential(1.0 / peak);
        }
        self
    }

    fn step(&mut self, service: Service) -> Workload {
        let rate = |t: f64| if (1_500.0..3_900.0).contains(&t) { 40.0 } else { 2.0 };
        self.rate(1.5 * HOUR, 40.0, rate).service(service)
    }

    /// A minute of traffic each 8 to 15 minutes, for 6 hours.
    fn bursts(&mut self) -> &mut Self {
        let mut stream = Stream::new(self.seed, Purpose::Phase);
        let mut starts = Vec::new();
        let mut start = 480.0 * stream.unit();
        while start < 6.0 * HOUR {
            starts.push(start);
            start += 480.0 + 420.0 * stream.unit();
        }
        let in_burst = |t: f64| {
            let begun = starts.partition_point(|start| *start <= t);
            begun > 0 && t - starts[begun - 1] < 60.0
        };
        self.rate(6.0 * HOUR, 30.0, |t| if in_burst(t) { 30.0 } else { 0.0 })
    }

    /// Adds arrivals at given times.
    fn and(&mut self, arrivals: impl Iterator<Item = Micros>) -> &mut Self {
        self.arrivals.extend(arrivals);
        self.arrivals.sort_unstable();
        self
    }

    /// The workload, with a service time for each arrival.
    fn service(&mut self, service: Service) -> Workload {
        let mut stream = Stream::new(self.seed, Purpose::Service);
        self.tasks(|_| service.draw(&mut stream))
    }

    /// The workload with exponential service times.
    pub fn exponential(&mut self, mean: f64) -> Workload {
        self.service(Service::Exponential(mean))
    }

    fn tasks(&mut self, mut service: impl FnMut(Micros) -> Micros) -> Workload {
        let task = |arrival| Task { arrival, service: service(arrival), ..Task::default() };
        Workload::new("", self.arrivals.drain(..).map(task).collect())
    }
}
