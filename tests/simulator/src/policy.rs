//! What a policy is, and which there are.

use std::borrow::Cow;

use clap::ValueEnum;

use crate::observation::{Bounds, Observation};
use crate::policies::{Clairvoyant, HpaSlots, Keda, Kpa, Ours, Wci};
use crate::random::{Purpose, Stream};
use crate::time::Micros;
use crate::workload::Workload;
use crate::world::PodId;

/// What a policy decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Replicas to order.
    pub replicas: u32,
    /// Pods that should go first when there are too many: they get a low deletion cost.
    pub victims: Vec<PodId>,
    /// Pods that should take no new task. Every other pod takes tasks, again if it did not.
    pub cordon: Vec<PodId>,
    /// Why, in a sentence.
    pub explanation: Cow<'static, str>,
    /// When to ask again.
    pub next: Micros,
}

impl Verdict {
    /// So many replicas, whichever go, with a reason.
    #[must_use]
    pub fn new(replicas: u32, explanation: &'static str, next: Micros) -> Self {
        Self { replicas, victims: Vec::new(), cordon: Vec::new(), explanation: explanation.into(), next }
    }
}

/// A way to decide how many replicas there should be.
pub trait Policy {
    /// Decides. It is asked at the start of a run and then when it wanted to be.
    fn decide(&mut self, now: Micros, seen: &Observation<'_>) -> Verdict;

    /// Its process was started anew at `now`, with what the old one left to be kept or with nothing. A policy that has all
    /// it needs in the cluster does nothing here.
    fn restart(&mut self, _now: Micros, _checkpoint: bool) {}
}

/// The policies by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum PolicyName {
    /// The operator's own decision
    Ours,
    /// The same for Workers that can be told to take no new task
    OursCordon,
    /// KEDA's Temporal scaler and the HPA that it makes, with their defaults
    Keda,
    /// The same with at least one replica
    #[value(name = "keda-min1")]
    KedaMin1,
    /// KEDA tuned by somebody who knows the service time
    KedaExpert,
    /// HPA on slot utilisation and backlog, as the Temporal Worker Controller recommends
    HpaSlots,
    /// Knative's autoscaler, with metrics of each second
    Kpa,
    /// Temporal's own rate-based scaler
    Wci,
    /// One that knows the future: no task waits, and pods are kept for 45 s
    Clairvoyant,
}

impl PolicyName {
    /// Every policy, in the order of tables.
    pub const ALL: [Self; 9] = [
        Self::Ours,
        Self::OursCordon,
        Self::Keda,
        Self::KedaMin1,
        Self::KedaExpert,
        Self::HpaSlots,
        Self::Kpa,
        Self::Wci,
        Self::Clairvoyant,
    ];

    /// The name, as on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursCordon => "ours-cordon",
            Self::Keda => "keda",
            Self::KedaMin1 => "keda-min1",
            Self::KedaExpert => "keda-expert",
            Self::HpaSlots => "hpa-slots",
            Self::Kpa => "kpa",
            Self::Wci => "wci",
            Self::Clairvoyant => "clairvoyant",
        }
    }

    /// The bounds that the policy works within: two of them can't scale to zero.
    #[must_use]
    pub fn bounds(self, asked: Bounds) -> Bounds {
        match self {
            Self::KedaMin1 | Self::HpaSlots => asked.at_least(1),
            _ => asked,
        }
    }

    /// The policy for a run.
    #[must_use]
    pub fn build(self, workload: &Workload, bounds: Bounds, seed: u64) -> Box<dyn Policy> {
        let bounds = self.bounds(bounds);
        let mut phase = Stream::new(seed, Purpose::Phase);
        match self {
            Self::Ours => Box::new(Ours::new(workload, bounds)),
            Self::OursCordon => Box::new(Ours::new(workload, bounds).with_cordon()),
            Self::Keda | Self::KedaMin1 => Box::new(Keda::with_defaults(bounds, &mut phase)),
            Self::KedaExpert => Box::new(Keda::of_an_expert(workload, bounds, &mut phase)),
            Self::HpaSlots => Box::new(HpaSlots::new(bounds, &mut phase)),
            Self::Kpa => Box::new(Kpa::new(workload.all_slots(), bounds)),
            Self::Wci => Box::new(Wci::new(bounds, &mut phase)),
            Self::Clairvoyant => Box::new(Clairvoyant::new(workload, bounds)),
        }
    }
}

impl std::fmt::Display for PolicyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
