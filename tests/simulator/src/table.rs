//! The table of all traces and policies, and how it is printed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::observation::Bounds;
use crate::policy::PolicyName;
use crate::run::{Figures, simulate};
use crate::time::count;
use crate::traces::{FixtureError, TraceName};

/// What a table is made of.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The rows.
    pub traces: Vec<TraceName>,
    /// The columns.
    pub policies: Vec<PolicyName>,
    /// What every policy is allowed.
    pub bounds: Bounds,
    /// The seeds over which a figure is a mean.
    pub seeds: Vec<u64>,
}

/// Means of figures over the seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Means {
    /// Replica-seconds.
    pub cost: f64,
    /// Median of the waits, in seconds.
    pub p50: f64,
    /// 95th percentile of the waits.
    pub p95: f64,
    /// 99th percentile of the waits.
    pub p99: f64,
    /// Fraction of late tasks.
    pub late: f64,
    /// Tasks killed.
    pub killed: f64,
    /// Changes of the number of replicas.
    pub events: f64,
}

impl Means {
    fn add(&mut self, figures: &Figures, weight: f64) {
        self.cost += figures.cost_replica_s * weight;
        self.p50 += figures.wait_p50_s * weight;
        self.p95 += figures.wait_p95_s * weight;
        self.p99 += figures.wait_p99_s * weight;
        self.late += figures.late_share * weight;
        self.killed += count(figures.killed) * weight;
        self.events += count(figures.scale_events) * weight;
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The trace.
    pub trace: TraceName,
    /// Its work bound in replica-seconds, a mean over the seeds.
    pub work_bound: f64,
    /// A cell for each policy of the scope.
    pub cells: Vec<Means>,
}

/// The runs of one trace and one seed.
struct Runs {
    work_bound: f64,
    figures: Vec<Figures>,
}

/// Runs every policy on every trace with every seed, on all processors. The order of the runs does not show.
///
/// # Errors
/// When a recorded trace is not what it should be.
pub fn compute(scope: &Scope) -> Result<Vec<Row>, FixtureError> {
    let mut jobs: Vec<(TraceName, u64)> =
        scope.traces.iter().flat_map(|trace| scope.seeds.iter().map(|seed| (*trace, *seed))).collect();
    // The recorded ones are the longest and stand last; begun first, they don't run alone at the end.
    jobs.reverse();
    let done = in_parallel(&jobs, |(trace, seed)| runs(scope, *trace, *seed));
    let mut by_trace: BTreeMap<TraceName, Vec<Runs>> = BTreeMap::new();
    for ((trace, _), runs) in jobs.iter().zip(done).rev() {
        by_trace.entry(*trace).or_default().push(runs?);
    }
    Ok(scope.traces.iter().filter_map(|trace| Some(row(*trace, by_trace.get(trace)?, scope.policies.len()))).collect())
}

fn runs(scope: &Scope, trace: TraceName, seed: u64) -> Result<Runs, FixtureError> {
    let workload = trace.workload(seed)?;
    let run = |policy: &PolicyName| simulate(&workload, *policy, scope.bounds, seed).figures;
    Ok(Runs { work_bound: workload.work_bound(), figures: scope.policies.iter().map(run).collect() })
}

fn row(trace: TraceName, runs: &[Runs], policies: usize) -> Row {
    let weight = 1.0 / count(runs.len() as u64);
    let mut row = Row { trace, work_bound: 0.0, cells: vec![Means::default(); policies] };
    for run in runs {
        row.work_bound += run.work_bound * weight;
        for (cell, figures) in row.cells.iter_mut().zip(&run.figures) {
            cell.add(figures, weight);
        }
    }
    row
}

/// Does `work` for every item, on all processors; the results are in the order of the items.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Columns of a width each.
    Text,
    /// A Markdown table.
    Markdown,
}

/// The tables of figures and the summary.
#[must_use]
pub fn print(scope: &Scope, rows: &[Row], style: Style) -> String {
    let names = || scope.policies.iter().map(|policy| policy.to_string());
    let head: Vec<String> = std::iter::once("trace (work bound)".into()).chain(names()).collect();
    let grid = |cell: fn(&Means) -> String| {
        let lines = rows.iter().map(|row| {
            let name = format!("{} ({:.1})", row.trace, row.work_bound / 1_000.0);
            std::iter::once(name).chain(row.cells.iter().map(cell)).collect()
        });
        grid(&head, lines.collect(), style)
    };
    let mut out = format!("{}\n\n", "Wait p95 s / later than the target % / thousand replica-seconds");
    out += &grid(|cell| format!("{:.1} / {:.0} / {:.1}", cell.p95, cell.late * 100.0, cell.cost / 1_000.0));
    out += "\nWait p50 s / wait p99 s / changes of the replicas / tasks killed\n\n";
    out += &grid(|cell| format!("{:.1} / {:.1} / {:.0} / {:.0}", cell.p50, cell.p99, cell.events, cell.killed));
    out += "\nOver the schedulable traces (all but ratelimited and poison)\n\n";
    out += &summary(scope, rows, style);
    out
}

fn summary(scope: &Scope, rows: &[Row], style: Style) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.trace.schedulable()).collect();
    let rival = scope.policies.iter().position(|policy| *policy == PolicyName::Keda);
    let head = [
        "policy",
        "cost vs keda (geo-mean)",
        "p95 + 1 s (geo-mean)",
        "late % (mean)",
        "killed",
        "changes",
        "cheaper and faster than keda",
    ];
    let lines = scope.policies.iter().enumerate().map(|(index, policy)| {
        let cells: Vec<&Means> = rows.iter().map(|row| &row.cells[index]).collect();
        let pairs: Vec<(&Means, &Means)> = rival
            .map(|rival| rows.iter().map(|row| (&row.cells[index], &row.cells[rival])).collect())
            .unwrap_or_default();
        let better = pairs.iter().filter(|(own, keda)| own.cost < keda.cost && own.p95 < keda.p95).count();
        vec![
            policy.to_string(),
            if pairs.is_empty() {
                "-".into()
            } else {
                format!("{:.3}", geo_mean(pairs.iter().map(|(own, keda)| own.cost / keda.cost)))
            },
            format!("{:.2}", geo_mean(cells.iter().map(|cell| cell.p95 + 1.0))),
            format!("{:.1}", 100.0 * mean(cells.iter().map(|cell| cell.late))),
            format!("{:.0}", cells.iter().map(|cell| cell.killed).sum::<f64>()),
            format!("{:.0}", cells.iter().map(|cell| cell.events).sum::<f64>()),
            if pairs.is_empty() { "-".into() } else { format!("{better} of {}", pairs.len()) },
        ]
    });
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    grid(&head, lines.collect(), style)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let taken = values.len().max(1);
    values.sum::<f64>() / count(taken as u64)
}

pub(crate) fn geo_mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    libm::exp(mean(values.map(libm::log)))
}

/// Lines of cells below a head; the first column to the left, the others to the right.
pub(crate) fn grid(head: &[String], lines: Vec<Vec<String>>, style: Style) -> String {
    let width = |column: usize| lines.iter().chain([&head.to_vec()]).map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let write = |out: &mut String, line: &[String]| {
        let cells = line.iter().zip(&widths).enumerate().map(|(index, (cell, width))| {
            if index == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let cells: Vec<String> = cells.collect();
        // Writing to a string does not fail.
        let _ = match style {
            Style::Text => writeln!(out, "{}", cells.join("  ")),
            Style::Markdown => writeln!(out, "| {} |", cells.join(" | ")),
        };
    };
    let mut out = String::new();
    write(&mut out, head);
    if style == Style::Markdown {
        let rule = widths.iter().enumerate().map(|(index, width)| match index {
            0 => "-".repeat(*width),
            _ => "-".repeat(width - 1) + ":",
        });
        write(&mut out, &rule.collect::<Vec<_>>());
    }
    lines.iter().for_each(|line| write(&mut out, line));
    out
}

#[cfg(test)]
mod tests {
    use super::{Style, geo_mean, grid, in_parallel};

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..100).collect();
        assert_eq!(in_parallel(&items, |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
    }

    #[test]
    fn a_grid_is_aligned_or_markdown() {
        let head = ["a".to_string(), "bcd".to_string()];
        let lines = vec![vec!["long".to_string(), "1".to_string()]];
        assert_eq!(grid(&head, lines.clone(), Style::Text), "a     bcd\nlong    1\n");
        assert_eq!(grid(&head, lines, Style::Markdown), "| a    | bcd |\n| ---- | --: |\n| long |   1 |\n");
    }

    #[test]
    fn the_geometric_mean_of_two_and_eight_is_four() {
        assert!((geo_mean([2.0, 8.0].into_iter()) - 4.0).abs() < 1e-9);
    }
}
