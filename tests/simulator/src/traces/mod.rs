//! The built-in traces: traffic that was recorded, and traffic that shows one thing each.

mod recorded;
mod synthetic;

use clap::ValueEnum;

use crate::workload::Workload;

pub use recorded::FixtureError;

/// The built-in traces by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum TraceName {
    /// 20 tasks/s of 1 s, for 2 h
    Steady,
    /// 2, 40, and again 2 tasks/s
    Step,
    /// The same with pods that take 90 s to start
    #[value(name = "step_slownode")]
    StepSlownode,
    /// From 1 to 60 tasks/s within an hour, and back
    Ramp,
    /// 3 tasks/s of 2 s, and 2000 at once, four times
    Spike,
    /// Two days of 6 h each, between 3 and 30 tasks/s
    Diurnal,
    /// 30 tasks/s of 0.5 s for a minute, each 8 to 15 minutes
    Onoff,
    /// Service times from milliseconds to 10 minutes
    Heavytail,
    /// Tasks of half an hour, in waves, for a day
    Long,
    /// Tasks of 20 ms, 60 and then 300 a second
    Tiny,
    /// 6.4 of 10 slots busy all the time, and nothing waits
    Busyempty,
    /// A task each 4 minutes
    Sparse,
    /// 15 tasks/s for a queue that gives out 10
    Ratelimited,
    /// Pods that never become Ready
    Poison,
    /// Requests to a language model, recorded
    #[value(name = "azllm_code")]
    AzllmCode,
    /// Requests at a load balancer, recorded, 60 times as many
    #[value(name = "nab_elb_x60")]
    NabElbX60,
    /// Taxi passengers of a week, recorded, 12 times as fast
    #[value(name = "nab_taxi")]
    NabTaxi,
}

impl TraceName {
    /// Every trace, in the order of tables.
    pub const ALL: [Self; 17] = [
        Self::Steady,
        Self::Step,
        Self::StepSlownode,
        Self::Ramp,
        Self::Spike,
        Self::Diurnal,
        Self::Onoff,
        Self::Heavytail,
        Self::Long,
        Self::Tiny,
        Self::Busyempty,
        Self::Sparse,
        Self::Ratelimited,
        Self::Poison,
        Self::AzllmCode,
        Self::NabElbX60,
        Self::NabTaxi,
    ];

    /// The name, as on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Step => "step",
            Self::StepSlownode => "step_slownode",
            Self::Ramp => "ramp",
            Self::Spike => "spike",
            Self::Diurnal => "diurnal",
            Self::Onoff => "onoff",
            Self::Heavytail => "heavytail",
            Self::Long => "long",
            Self::Tiny => "tiny",
            Self::Busyempty => "busyempty",
            Self::Sparse => "sparse",
            Self::Ratelimited => "ratelimited",
            Self::Poison => "poison",
            Self::AzllmCode => "azllm_code",
            Self::NabElbX60 => "nab_elb_x60",
            Self::NabTaxi => "nab_taxi",
        }
    }

    /// Whether more or fewer pods make a difference to the tasks' waits.
    #[must_use]
    pub fn schedulable(self) -> bool {
        !matches!(self, Self::Ratelimited | Self::Poison)
    }

    /// The workload that `seed` draws.
    ///
    /// # Errors
    /// When a recorded trace is not what it should be.
    pub fn workload(self, seed: u64) -> Result<Workload, FixtureError> {
        let mut workload = match self {
            Self::AzllmCode => recorded::azllm_code()?,
            Self::NabElbX60 => recorded::nab_elb_x60(seed)?,
            Self::NabTaxi => recorded::nab_taxi(seed)?,
            synthetic => synthetic::draw(synthetic, seed),
        };
        workload.name = self.as_str().into();
        workload.queues = vec![workload.name.clone()];
        Ok(workload)
    }
}

impl std::fmt::Display for TraceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
