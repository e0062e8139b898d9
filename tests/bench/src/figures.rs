//! What a benchmark found: distributions, figures with their baseline and mark, the table, and the file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use harness::programs::source_root;
use serde::Serialize;

/// How a set of durations is spread, in milliseconds. Percentiles are durations that were measured (nearest rank).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// Half of all took at most this long.
    pub p50: f64,
    /// 95 % of all took at most this long.
    pub p95: f64,
    /// The longest.
    pub max: f64,
}

impl Distribution {
    /// Of durations in milliseconds; none of an empty set.
    pub fn of(durations: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = durations.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Self { p50: rank(50)?, p95: rank(95)?, max: rank(100)? })
    }
}

/// One number. Lower is better for all of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// `ms`, `µs`, `s`, `1/s`, `MB` (10^6 bytes), `%`, `pod s` or `tasks`.
    pub unit: &'static str,
    /// What was measured.
    pub value: f64,
    /// What it is compared with, in the same unit.
    pub baseline: Option<f64>,
    /// What the baseline is.
    pub against: Option<&'static str>,
    /// `value / baseline`; none of a baseline of 0.
    pub ratio: Option<f64>,
    /// The value must not exceed this.
    pub mark: Option<f64>,
    /// Whether it does not, and is as near to a prediction as it must be.
    pub met: Option<bool>,
}

impl Figure {
    /// A figure without baseline and mark.
    pub fn new(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self { name, unit, value, baseline: None, against: None, ratio: None, mark: None, met: None }
    }

    /// Compares it.
    pub fn against(self, what: &'static str, baseline: f64) -> Self {
        let ratio = (baseline != 0.0).then(|| self.value / baseline);
        Self { baseline: Some(baseline), against: Some(what), ratio, ..self }
    }

    /// Says what it must not exceed.
    pub fn mark(self, mark: f64) -> Self {
        Self { mark: Some(mark), met: Some(self.value <= mark), ..self }
    }

    /// Takes its baseline for a prediction: it must be within `share` of that, to both sides, or not more than `same` away.
    pub fn near(self, share: f64, same: f64) -> Self {
        let Some(baseline) = self.baseline else { return self };
        let room = (baseline * share).max(same);
        Self { mark: Some(baseline + room), met: Some((self.value - baseline).abs() <= room), ..self }
    }
}

/// Figures as a table.
pub fn table(figures: &[Figure]) -> String {
    let mut lines = vec![format!(
        "{:<42} {:>10} {:>10} {:>7} {:>10}  {:<8} {}",
        "figure", "value", "baseline", "ratio", "mark", "", "baseline is"
    )];
    for figure in figures {
        let with_unit = |value: f64| format!("{} {}", shown(value), figure.unit);
        let or_blank = |value: Option<f64>| value.map(with_unit).unwrap_or_default();
        let met = figure.met.map_or("", |met| if met { "met" } else { "NOT MET" });
        let ratio = figure.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let line = format!(
            "{:<42} {:>10} {:>10} {ratio:>7} {:>10}  {met:<8} {}",
            figure.name,
            with_unit(figure.value),
            or_blank(figure.baseline),
            or_blank(figure.mark),
            figure.against.unwrap_or_default()
        );
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

fn shown(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Mean number of runnable processes over the last minute.
///
/// # Errors
/// The kernel does not tell.
pub fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    text.split(' ').next().and_then(|load| load.parse().ok()).context("/proc/loadavg holds no load")
}

/// Writes `target/bench/<name>.json`; returns its path.
///
/// # Errors
/// The file can't be written.
pub fn write(name: &str, content: &impl Serialize) -> Result<PathBuf> {
    let folder = source_root().join("target/bench");
    write_into(&folder, name, content)
}

fn write_into(folder: &Path, name: &str, content: &impl Serialize) -> Result<PathBuf> {
    let file = folder.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(content)? + "\n";
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_durations_that_were_measured() {
        let of = |count: u32| Distribution::of((1..=count).rev().map(f64::from)).unwrap();
        assert_eq!(of(20), Distribution { p50: 10.0, p95: 19.0, max: 20.0 });
        assert_eq!(of(21), Distribution { p50: 11.0, p95: 20.0, max: 21.0 });
        assert_eq!(of(1), Distribution { p50: 1.0, p95: 1.0, max: 1.0 });
        assert_eq!(Distribution::of([]), None);
    }

    #[test]
    fn a_figure_has_its_ratio_and_says_whether_its_mark_is_met() {
        let figure = Figure::new("patched", "ms", 300.0).against("the peer", 1200.0).mark(300.0);
        assert_eq!((figure.ratio, figure.met), (Some(0.25), Some(true)));
        assert_eq!(Figure::new("patched", "ms", 300.1).mark(300.0).met, Some(false));
        let near = |value| Figure::new("cost", "pod s", value).against("the simulator", 100.0).near(0.25, 1.0).met;
        assert_eq!([75.0, 125.0, 74.9, 125.1].map(near), [Some(true), Some(true), Some(false), Some(false)]);
        let none = Figure::new("wait", "s", 0.05).against("the simulator", 0.0).near(0.25, 0.1);
        assert_eq!((none.ratio, none.met), (None, Some(true)));
        let table = table(&[figure, Figure::new("rss", "MB", 12.34)]);
        assert!(table.contains("0.25") && table.contains("met") && table.contains("12.3 MB"), "{table}");
        assert_eq!(table.lines().count(), 3);
    }
}
