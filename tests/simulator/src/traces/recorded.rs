//! Traffic that was recorded. Sources and licences: `traces/README.md`.

use std::io::Read;

use flate2::read::GzDecoder;
use thiserror::Error;

use super::synthetic::Draw;
use crate::time::micros;
use crate::workload::{Task, Workload};

const AZLLM_CODE: &[u8] = include_bytes!("../../traces/azllm_code.csv.gz");
const NAB_ELB: &[u8] = include_bytes!("../../traces/nab_elb.csv.gz");
const NAB_TAXI: &[u8] = include_bytes!("../../traces/nab_taxi.csv.gz");

/// A recorded trace that is not what it should be.
#[derive(Debug, Error)]
pub enum FixtureError {
    /// It can't be read.
    #[error("trace {trace}: {source}; restore its file in tests/simulator/traces")]
    Unreadable {
        /// Its name.
        trace: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A row is not as expected.
    #[error("trace {trace}, row {row}: {found:?} is not a row of it; restore its file in tests/simulator/traces")]
    Row {
        /// Its name.
        trace: &'static str,
        /// Number of the row, the header left out.
        row: usize,
        /// What it says.
        found: String,
    },
}

/// Requests to a language model: 0.3 s, 0.03 s for each token that is generated and 0.2 ms for each of the context, on pods
/// of 4 slots. All of it as recorded: another seed draws nothing else.
pub(super) fn azllm_code() -> Result<Workload, FixtureError> {
    let text = text("azllm_code", AZLLM_CODE)?;
    let mut tasks = Vec::new();
    let mut first = None;
    for (row, line) in text.lines().skip(1).enumerate() {
        let wrong = || FixtureError::Row { trace: "azllm_code", row: row + 1, found: line.into() };
        let (time, context, generated) = request(line).ok_or_else(wrong)?;
        let arrival = micros(time - *first.get_or_insert(time));
        let service = micros(0.3 + 0.03 * generated + 0.0002 * context);
        tasks.push(Task { arrival, service, ..Task::default() });
    }
    Ok(Workload { slots: 4, ..Workload::new("azllm_code", tasks) })
}

/// Second of the day, tokens of the context and tokens generated of `2023-11-16 18:17:03.9799600,4808,10`.
fn request(line: &str) -> Option<(f64, f64, f64)> {
    let mut fields = line.split(',');
    let mut clock = fields.next()?.split_once(' ')?.1.split(':').map(|part| part.parse::<f64>().ok());
    let time = clock.next()?? * 3_600.0 + clock.next()?? * 60.0 + clock.next()??;
    Some((time, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// A day at a load balancer from a Saturday afternoon on, 60 requests for each, of 1 s on average.
pub(super) fn nab_elb_x60(seed: u64) -> Result<Workload, FixtureError> {
    let counts = counts("nab_elb_x60", NAB_ELB)?;
    let day = counts.iter().skip(750).take(288);
    Ok(at_rates(seed, 300.0, &day.map(|count| count * 60.0 / 300.0).collect::<Vec<_>>()))
}

/// The second week of taxi passengers, 12 times as fast, three of ten, with 1 s for each on average.
pub(super) fn nab_taxi(seed: u64) -> Result<Workload, FixtureError> {
    let counts = counts("nab_taxi", NAB_TAXI)?;
    let week = counts.iter().skip(336).take(336);
    Ok(at_rates(seed, 150.0, &week.map(|count| count * 0.3 / 150.0).collect::<Vec<_>>()))
}

/// Arrivals at a rate for each interval.
fn at_rates(seed: u64, interval: f64, rates: &[f64]) -> Workload {
    let peak = rates.iter().copied().fold(0.0, f64::max);
    let length = interval * crate::time::count(rates.len() as u64);
    let rate = |t: f64| rates[index(t / interval).min(rates.len() - 1)];
    Draw::new(seed).rate(length, peak, rate).exponential(1.0)
}

/// A float that is not below zero, rounded down.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn index(value: f64) -> usize {
    value as usize
}

/// The second column of a `timestamp,value` file. Rows are at equal distances, so that times are not needed.
fn counts(trace: &'static str, gzip: &[u8]) -> Result<Vec<f64>, FixtureError> {
    let text = text(trace, gzip)?;
    let rows = text.lines().skip(1).enumerate();
    rows.map(|(row, line)| {
        let value = line.split_once(',').and_then(|(_, value)| value.parse().ok());
        value.ok_or_else(|| FixtureError::Row { trace, row: row + 1, found: line.into() })
    })
    .collect()
}

fn text(trace: &'static str, gzip: &[u8]) -> Result<String, FixtureError> {
    let mut text = String::new();
    let read = GzDecoder::new(gzip).read_to_string(&mut text);
    read.map_err(|source| FixtureError::Unreadable { trace, source })?;
    Ok(text)
}
