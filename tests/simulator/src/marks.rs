//! The marks that the operator's decision has to reach, and whether it does.

use crate::observation::Bounds;
use crate::policy::PolicyName;
use crate::run::simulate;
use crate::table::{Means, Row, Scope, Style, geo_mean, grid, in_parallel};
use crate::time::{Micros, SECOND, count};
use crate::traces::{FixtureError, TraceName};
use crate::workload::{Options, Window};

/// The policies that a mark speaks of, in the order of the rows' cells.
pub const POLICIES: [PolicyName; 5] =
    [PolicyName::Ours, PolicyName::Keda, PolicyName::KedaExpert, PolicyName::Kpa, PolicyName::Clairvoyant];

/// Traces on which few tasks may be late, with the share that may be.
const LATE: [(TraceName, f64); 11] = [
    (TraceName::Steady, 0.05),
    (TraceName::Step, 0.05),
    (TraceName::Ramp, 0.05),
    (TraceName::Diurnal, 0.05),
    (TraceName::Heavytail, 0.05),
    (TraceName::Long, 0.05),
    (TraceName::Tiny, 0.05),
    (TraceName::Busyempty, 0.05),
    (TraceName::NabElbX60, 0.05),
    (TraceName::NabTaxi, 0.05),
    (TraceName::AzllmCode, 0.09),
];

/// Outages in the middle of changes, in seconds: before the arrivals of `step` rise and fall, on a rise and a fall of
/// `diurnal`, and in a wave of `long`.
const OUTAGES: [(TraceName, Micros); 5] = [
    (TraceName::Step, 1_400),
    (TraceName::Step, 3_700),
    (TraceName::Diurnal, 6_000),
    (TraceName::Diurnal, 17_000),
    (TraceName::Long, 18_000),
];
/// How long they last, in seconds.
const OUTAGE_LASTS: Micros = 600;

/// How a figure has to stand to its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Not above it.
    AtMost,
    /// Not below it.
    AtLeast,
}

/// A mark beside its figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// What is measured.
    pub name: String,
    /// What was measured; none if a trace or policy is missing.
    pub figure: Option<f64>,
    /// How it has to stand to `mark`.
    pub relation: Relation,
    /// The mark.
    pub mark: f64,
}

impl Mark {
    fn at_most(name: impl Into<String>, figure: Option<f64>, mark: f64) -> Self {
        Self { name: name.into(), figure, relation: Relation::AtMost, mark }
    }

    fn at_least(name: impl Into<String>, figure: Option<f64>, mark: f64) -> Self {
        Self { name: name.into(), figure, relation: Relation::AtLeast, mark }
    }

    /// Whether the figure is there and stands as it has to.
    #[must_use]
    pub fn met(&self) -> bool {
        self.figure.is_some_and(|figure| match self.relation {
            Relation::AtMost => figure <= self.mark,
            Relation::AtLeast => figure >= self.mark,
        })
    }
}

/// What the marks are judged by.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Every trace with [`POLICIES`], means over fixed seeds.
    pub fixed: Vec<Row>,
    /// The same over seeds that were drawn.
    pub drawn: Vec<Row>,
    /// Replicas on average on `poison`.
    pub poison_replicas: f64,
    /// Decreases on stale data, over all outages and fixed seeds.
    pub stale_decreases: u64,
}

/// Runs everything that the marks need.
///
/// # Errors
/// When a recorded trace is not what it should be.
pub fn measure(fixed: &[u64], drawn: &[u64]) -> Result<Measured, FixtureError> {
    let rows = |seeds: &[u64]| crate::table::compute(&scope(seeds));
    Ok(Measured {
        fixed: rows(fixed)?,
        drawn: rows(drawn)?,
        poison_replicas: poison_replicas(fixed)?,
        stale_decreases: stale_decreases(fixed)?,
    })
}

/// Every trace with the policies that a mark speaks of.
#[must_use]
pub fn scope(seeds: &[u64]) -> Scope {
    Scope { traces: TraceName::ALL.to_vec(), policies: POLICIES.to_vec(), bounds: BOUNDS, seeds: seeds.to_vec() }
}

const BOUNDS: Bounds = Bounds { min: 0, max: 100 };

fn poison_replicas(seeds: &[u64]) -> Result<f64, FixtureError> {
    let mean =
        |seed: &u64| Ok(simulate(&TraceName::Poison.workload(*seed)?, PolicyName::Ours, BOUNDS, *seed).mean_replicas());
    let means = seeds.iter().map(mean).collect::<Result<Vec<f64>, _>>()?;
    Ok(means.iter().sum::<f64>() / count(means.len().max(1) as u64))
}

fn stale_decreases(seeds: &[u64]) -> Result<u64, FixtureError> {
    let mut jobs = Vec::new();
    for seed in seeds {
        for (trace, from) in OUTAGES {
            jobs.extend(outages(from).map(|options| (trace, *seed, options)));
        }
    }
    let decreases = in_parallel(&jobs, |(trace, seed, options)| {
        let workload = crate::Workload { options: options.clone(), ..trace.workload(*seed)? };
        Ok(simulate(&workload, PolicyName::Ours, BOUNDS, *seed).stale_decreases)
    });
    decreases.into_iter().sum()
}

/// Without the server, without the pods' metrics, without both.
fn outages(from: Micros) -> [Options; 3] {
    let outage = || vec![Window { from: from * SECOND, until: (from + OUTAGE_LASTS) * SECOND }];
    [
        Options { server_outages: outage(), ..Options::default() },
        Options { scrape_outages: outage(), ..Options::default() },
        Options { server_outages: outage(), scrape_outages: outage(), ..Options::default() },
    ]
}

/// Every mark beside its figure.
#[must_use]
pub fn judge(measured: &Measured) -> Vec<Mark> {
    let (fixed, drawn) = (Judged(&measured.fixed), Judged(&measured.drawn));
    let mut marks = vec![
        Mark::at_least("cheaper and faster (p95) than keda, traces", fixed.better_than(PolicyName::Keda), 13.0),
        Mark::at_least(
            "cheaper and faster (p95) than keda-expert, traces",
            fixed.better_than(PolicyName::KedaExpert),
            13.0,
        ),
    ];
    for (which, rows) in [("", fixed), (", drawn seeds", drawn)] {
        marks.push(Mark::at_most(format!("cost / keda, geo-mean{which}"), rows.cost_of(PolicyName::Keda), 0.12));
        marks.push(Mark::at_most(format!("cost / kpa, geo-mean{which}"), rows.cost_of(PolicyName::Kpa), 0.65));
    }
    marks.push(Mark::at_most("p95 + 1 s, geo-mean", fixed.latency(), 4.5));
    for (trace, most) in LATE {
        let late = fixed.cell(trace, PolicyName::Ours).map(|cell| cell.late * 100.0);
        marks.push(Mark::at_most(format!("late on {trace}, %"), late, most * 100.0));
    }
    let clairvoyant = fixed.ratio(TraceName::Ratelimited, PolicyName::Clairvoyant, |cell| cell.cost);
    let poison = fixed.cell(TraceName::Poison, PolicyName::Ours).map(|_| measured.poison_replicas);
    marks.extend([
        Mark::at_most("killed", fixed.sum(PolicyName::Ours, |cell| cell.killed), 10.0),
        Mark::at_most("killed on long", fixed.cell(TraceName::Long, PolicyName::Ours).map(|cell| cell.killed), 0.0),
        Mark::at_most("changes of the replicas / keda", fixed.events(), 0.4),
        Mark::at_most("cost on ratelimited / clairvoyant", clairvoyant, 1.2),
        Mark::at_most("replicas on poison, mean", poison, 2.2),
        Mark::at_most("decreases on stale data", Some(count(measured.stale_decreases)), 0.0),
    ]);
    marks
}

/// Rows with the questions that marks ask of them. What lacks a row has no answer.
#[derive(Clone, Copy)]
struct Judged<'a>(&'a [Row]);

impl Judged<'_> {
    fn cell(self, trace: TraceName, policy: PolicyName) -> Option<Means> {
        let column = POLICIES.iter().position(|other| *other == policy)?;
        self.0.iter().find(|row| row.trace == trace)?.cells.get(column).copied()
    }

    /// Ours and another one on every schedulable trace.
    fn pairs(self, other: PolicyName) -> Option<Vec<(Means, Means)>> {
        let traces = TraceName::ALL.into_iter().filter(|trace| trace.schedulable());
        traces.map(|trace| Some((self.cell(trace, PolicyName::Ours)?, self.cell(trace, other)?))).collect()
    }

    fn better_than(self, other: PolicyName) -> Option<f64> {
        let better = |(ours, other): &&(Means, Means)| ours.cost < other.cost && ours.p95 < other.p95;
        Some(count(self.pairs(other)?.iter().filter(better).count() as u64))
    }

    fn cost_of(self, other: PolicyName) -> Option<f64> {
        Some(geo_mean(self.pairs(other)?.iter().map(|(ours, other)| ours.cost / other.cost)))
    }

    fn latency(self) -> Option<f64> {
        Some(geo_mean(self.pairs(PolicyName::Ours)?.iter().map(|(ours, _)| ours.p95 + 1.0)))
    }

    fn events(self) -> Option<f64> {
        let pairs = self.pairs(PolicyName::Keda)?;
        let sum = |events: fn(&(Means, Means)) -> f64| pairs.iter().map(events).sum::<f64>();
        Some(sum(|(ours, _)| ours.events) / sum(|(_, keda)| keda.events))
    }

    fn sum(self, policy: PolicyName, figure: fn(&Means) -> f64) -> Option<f64> {
        TraceName::ALL.into_iter().map(|trace| self.cell(trace, policy).map(|cell| figure(&cell))).sum()
    }

    fn ratio(self, trace: TraceName, other: PolicyName, figure: fn(&Means) -> f64) -> Option<f64> {
        Some(figure(&self.cell(trace, PolicyName::Ours)?) / figure(&self.cell(trace, other)?))
    }
}

/// The marks as a table.
#[must_use]
pub fn print(marks: &[Mark], style: Style) -> String {
    let lines = marks.iter().map(|mark| {
        let sign = match mark.relation {
            Relation::AtMost => "<=",
            Relation::AtLeast => ">=",
        };
        let figure = mark.figure.map_or("missing".into(), |figure| format!("{figure:.3}"));
        let met = if mark.met() { "met" } else { "NOT MET" };
        vec![mark.name.clone(), figure, format!("{sign} {}", mark.mark), met.into()]
    });
    grid(&["figure", "value", "mark", ""].map(String::from), lines.collect(), style)
}

#[cfg(test)]
mod tests;
