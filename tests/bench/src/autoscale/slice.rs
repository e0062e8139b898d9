//! Slices of recorded traffic that a machine of two cores can play.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::activities::Arrival;
use harness::programs::source_root;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use scale_sim::traces::TraceName;
use scale_sim::{Task, Workload, csv};

/// Most tasks a second, on average and in any one second: the dev server's limit.
const MEAN: f64 = 40.0;
const PEAK: f64 = 80.0;
/// The seed of all that is drawn: the same slices in every run.
const SEED: u64 = 1;

/// A slice to play.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Name of the trace, and of the files and figures.
    pub name: &'static str,
    /// Name of the fleet and its Task Queue.
    pub fleet: &'static str,
    /// The trace.
    pub trace: TraceName,
    /// Where in the trace it starts.
    pub from: Duration,
    /// Names of its figures: cost, p50 and p95 of the waits, killed.
    pub figures: [&'static str; 4],
}

/// Bursts: four tasks a second on average, up to 42 in one second.
pub const AZLLM_CODE: Slice = Slice {
    name: "azllm_code",
    fleet: "azllm-code",
    trace: TraceName::AzllmCode,
    from: Duration::from_secs(1200),
    figures: ["azllm_code_cost", "azllm_code_wait_p50", "azllm_code_wait_p95", "azllm_code_killed"],
};
/// A step: 2.6 tasks a second, and 30.8 from the middle of five minutes on.
pub const NAB_ELB: Slice = Slice {
    name: "nab_elb_x60",
    fleet: "nab-elb",
    trace: TraceName::NabElbX60,
    from: Duration::from_secs(106 * 300 + 150),
    figures: ["nab_elb_cost", "nab_elb_wait_p50", "nab_elb_wait_p95", "nab_elb_killed"],
};

impl Slice {
    /// Its tasks, for the simulator.
    ///
    /// # Errors
    /// The trace is damaged, or empty there.
    pub fn workload(&self, length: Duration) -> Result<Workload> {
        let whole = self.trace.workload(SEED)?;
        let tasks = thinned(cut(&whole.tasks, self.from, length), length);
        anyhow::ensure!(!tasks.is_empty(), "trace {} has no task in this slice", self.name);
        Ok(Workload { name: self.name.into(), tasks, ..whole })
    }

    /// Writes the tasks to `target/bench/autoscale-<name>.csv`, for `scale-sim run --trace`.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, workload: &Workload) -> Result<PathBuf> {
        let file = source_root().join("target/bench").join(format!("autoscale-{}.csv", self.name));
        let lines =
            workload.tasks.iter().map(|task| format!("{},{}\n", in_seconds(task.arrival), in_seconds(task.service)));
        std::fs::create_dir_all(file.parent().context("a file without a folder")?)?;
        std::fs::write(&file, format!("{}\n", csv::HEADER) + &lines.collect::<String>())
            .with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }
}

/// The tasks of a workload, for the cluster.
pub fn arrivals(workload: &Workload) -> Vec<Arrival> {
    let of =
        |task: &Task| Arrival { at: Duration::from_micros(task.arrival), service: Duration::from_micros(task.service) };
    workload.tasks.iter().map(of).collect()
}

/// Microseconds as seconds, exactly.
fn in_seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// What arrives in a window, from its start on.
fn cut(tasks: &[Task], from: Duration, length: Duration) -> Vec<Task> {
    let from = u64::try_from(from.as_micros()).unwrap_or(u64::MAX);
    let length = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
    let moved = tasks.iter().filter_map(|task| Some(Task { arrival: task.arrival.checked_sub(from)?, ..*task }));
    moved.filter(|task| task.arrival < length).collect()
}

/// Tasks left out at random, the same share everywhere, until neither mean nor peak is too high.
fn thinned(mut tasks: Vec<Task>, length: Duration) -> Vec<Task> {
    let mut random = StdRng::seed_from_u64(SEED);
    let marks: Vec<f64> = tasks.iter().map(|_| random.random()).collect();
    let mut all: Vec<_> = tasks.drain(..).zip(marks).collect();
    loop {
        let mean = all.len() as f64 / length.as_secs_f64();
        let too_many = (mean / MEAN).max(peak(all.iter().map(|(task, _)| task.arrival)) / PEAK);
        if too_many <= 1.0 {
            return all.into_iter().map(|(task, _)| task).collect();
        }
        let highest = all.iter().map(|(_, mark)| *mark).fold(0.0, f64::max);
        all.retain(|(_, mark)| *mark < highest / too_many);
    }
}

/// Most tasks of a second.
fn peak(arrivals: impl Iterator<Item = u64>) -> f64 {
    let mut seconds = std::collections::BTreeMap::new();
    arrivals.for_each(|at| *seconds.entry(at / 1_000_000).or_insert(0_u32) += 1);
    seconds.into_values().max().unwrap_or(0).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_MINUTES: Duration = Duration::from_secs(300);

    #[test]
    fn a_slice_is_as_recorded_where_the_server_can_bear_it() {
        for (slice, tasks) in [(AZLLM_CODE, 1000..1300), (NAB_ELB, 4500..5500)] {
            let workload = slice.workload(FIVE_MINUTES).unwrap();
            assert!(tasks.contains(&workload.tasks.len()), "{}: {}", slice.name, workload.tasks.len());
            assert_eq!(slice.workload(FIVE_MINUTES).unwrap(), workload, "another run has another slice");
            assert!(workload.last_arrival() < 300_000_000);
        }
        assert_eq!(AZLLM_CODE.workload(FIVE_MINUTES).unwrap().slots, 4);
    }

    #[test]
    fn too_many_tasks_are_thinned_to_the_mean_and_to_the_peak() {
        let every = |micros: u64, length: u64| (0..length / micros).map(move |n| n * micros);
        let task = |arrival| Task { arrival, service: 1, queue: 0 };
        let dense: Vec<_> = every(5_000, 10_000_000).map(task).collect();
        let thin = thinned(dense, Duration::from_secs(10));
        assert!((300..=400).contains(&thin.len()), "{} of 2000 in 10 s", thin.len());
        let spiked: Vec<_> = every(5_000, 1_000_000).map(task).collect();
        let thin = thinned(spiked, Duration::from_secs(100));
        assert!((60..=80).contains(&thin.len()), "{} of 200 in one second", thin.len());
    }

    #[test]
    fn times_are_written_to_the_microsecond() {
        assert_eq!([in_seconds(0), in_seconds(12_000_345)], ["0.000000", "12.000345"]);
    }
}
