//! What is written: every Worker's rounds, the rivals' source, and the figures with their marks.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use harness::tools::RIVAL_SOURCE;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Measured;
use super::size::Sizes;
use crate::figures::{self, Figure};

/// Where the rivals' source is kept.
const RIVAL_PATH: &str = "tests/workers/rival/main.go";

/// Everything.
#[derive(Serialize)]
pub struct Report {
    conditions: Conditions,
    rival: Rival,
    /// By name.
    pub workers: BTreeMap<&'static str, Measured>,
    sizes: Sizes,
    /// Ratios and marks.
    pub figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Conditions {
    cores: usize,
    /// Mean number of runnable processes over a minute, before the first Worker was started.
    load_before: f64,
    /// And at the end, this benchmark's own among them.
    load_after: f64,
}

/// What the runtime is measured against.
#[derive(Serialize)]
struct Rival {
    path: &'static str,
    sha256: String,
    source: &'static str,
}

impl Report {
    /// Compares what was measured.
    ///
    /// # Errors
    /// A Worker was not measured.
    pub fn new(load_before: f64, workers: BTreeMap<&'static str, Measured>, sizes: Sizes) -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let conditions = Conditions { cores, load_before, load_after: figures::load()? };
        let sha256 = Sha256::digest(RIVAL_SOURCE).iter().map(|byte| format!("{byte:02x}")).collect();
        let rival = Rival { path: RIVAL_PATH, sha256, source: RIVAL_SOURCE };
        let figures = cpu(&workers)?.into_iter().chain(others(&sizes)).collect();
        Ok(Self { conditions, rival, workers, sizes, figures })
    }
}

fn cpu(workers: &BTreeMap<&'static str, Measured>) -> Result<Vec<Figure>> {
    let of = |name: &str| workers.get(name).with_context(|| format!("{name} was not measured"));
    let figure = |name: &'static str| Ok::<_, anyhow::Error>(Figure::new(name, "ms", of(name)?.ms));
    let beside = |name: &'static str, what: &'static str, rival: &str, most: Option<f64>| {
        let baseline = of(rival)?.ms;
        let figure = figure(name)?.against(what, baseline);
        Ok::<_, anyhow::Error>(most.map_or(figure.clone(), |most| figure.mark(most * baseline)))
    };
    Ok(vec![
        figure("go_plain")?,
        figure("go_http")?,
        figure("go_exec")?,
        beside("http", "Go with a local service", "go_http", Some(0.6))?,
        beside("exec", "Go that runs cat", "go_exec", Some(0.8))?,
        beside("pool", "plain Go", "go_plain", Some(0.6))?,
        Figure::new("pool_handlers", "ms", of("pool")?.handlers_ms),
        beside("library", "plain Go", "go_plain", Some(0.7))?,
        beside("pool_gzip", "the pool without gzip", "pool", None)?,
        beside("pool_1kib_encrypted", "the pool, 1 KiB, not encrypted", "pool_1kib", Some(1.3))?,
    ])
}

fn others(sizes: &Sizes) -> [Figure; 5] {
    let against = "plain Go";
    [
        Figure::new("start_to_first_task_p50", "ms", sizes.start_ms.p50)
            .against(against, sizes.go_start_ms.p50)
            .mark(40.0),
        Figure::new("start_to_first_task_p95", "ms", sizes.start_ms.p95).against(against, sizes.go_start_ms.p95),
        Figure::new("idle_rss_one_queue", "MB", sizes.one_queue_mb).against(against, sizes.go_one_queue_mb).mark(16.0),
        Figure::new("idle_rss_fifty_queues", "MB", sizes.fifty_queues_mb).mark(30.0),
        Figure::new("program", "MB", sizes.program_mb).mark(20.0),
    ]
}
