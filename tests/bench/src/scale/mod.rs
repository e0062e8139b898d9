//! What the operator uses with many fleets, and how soon all are right after a restart: against etcd and the API server, without
//! pods, and a real Temporal server with its default limits.

mod children;
mod detect;
mod fleets;
mod rest;
mod restart;
mod world;

use anyhow::Result;
use harness::TemporalOptions;
use serde::Serialize;

use self::rest::Rest;
use self::restart::Restarts;
use self::world::World;
use crate::figures::{self, Distribution, Figure};

/// The Go controller v1.8.1 with as many fleets, half of them registered, on a machine of this kind.
const PEER: &str = "Go controller, recorded";
/// The same with 500 fleets, all registered; the lower end of what was measured.
const PEER_WITH_HALF: &str = "Go controller with 500, recorded";
/// Temporal namespaces, and Kubernetes namespaces.
const NAMESPACES: usize = 20;
/// The operator's budget of one Temporal namespace.
const BUDGET: f64 = 120.0;

#[derive(Serialize)]
struct Report {
    conditions: Conditions,
    at_rest: Rest,
    restart: Restarts,
    /// With `spec.scaling`, all fleets at zero.
    at_zero: Option<Rest>,
    accepted_to_patched_ms: Option<Distribution>,
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Conditions {
    fleets: usize,
    namespaces: usize,
    cores: usize,
    /// Mean number of runnable processes over a minute, before the first measurement.
    load_before: f64,
    /// And after the last one.
    load_after: f64,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Fleets.
    pub fleets: usize,
    /// Restarts of each kind.
    pub restarts: usize,
    /// Tasks for fleets at zero; none leaves out what is measured with `spec.scaling`.
    pub tasks: usize,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// It could not measure. A mark that is missed is no error.
pub async fn run(extent: Extent) -> Result<()> {
    let names = (0..NAMESPACES).map(fleets::temporal_namespace).collect();
    let options = TemporalOptions { namespaces: names, ..TemporalOptions::default() };
    let mut world = World::build(extent.fleets, options).await?;
    let measured = measure(&mut world, extent).await;
    if measured.is_err() {
        eprintln!("{}", world.last_words());
    }
    world.end()?;
    let report = measured?;
    println!("\n{}", figures::table(&report.figures));
    println!("\n{} fleets; {} written", extent.fleets, figures::write("scale", &report)?.display());
    Ok(())
}

async fn measure(world: &mut World, extent: Extent) -> Result<Report> {
    let load_before = figures::load()?;
    let at_rest = rest::measure(world).await?;
    println!("at rest: {at_rest:?}");
    let restart = restart::measure(world, extent.restarts).await?;
    let (mut at_zero, mut detected) = (None, None);
    if extent.tasks > 0 {
        world.scale_from_zero().await?;
        at_zero = Some(rest::measure(world).await?);
        println!("with spec.scaling, at zero: {at_zero:?}");
        detected = Some(detect::measure(world, extent.tasks).await?);
    }
    let conditions = Conditions {
        fleets: extent.fleets,
        namespaces: NAMESPACES,
        cores: std::thread::available_parallelism()?.get(),
        load_before,
        load_after: figures::load()?,
    };
    let figures = figures_of(&at_rest, &restart, (at_zero.as_ref(), detected.as_ref()));
    Ok(Report { conditions, at_rest, restart, at_zero, accepted_to_patched_ms: detected, figures })
}

fn figures_of(at_rest: &Rest, restart: &Restarts, zero: (Option<&Rest>, Option<&Distribution>)) -> Vec<Figure> {
    let mut figures = vec![
        Figure::new("resident memory", "MB", at_rest.resident_mb).against(PEER, 102.0).mark(40.0),
        Figure::new("CPU time a minute", "s", at_rest.cpu_seconds_per_minute).against(PEER, 7.2).mark(0.5),
        Figure::new("Kubernetes writes", "1/s", at_rest.kubernetes_writes_per_second).against(PEER, 97.0).mark(0.0),
        Figure::new("Temporal calls", "1/s", at_rest.temporal_calls_per_second).against(PEER, 144.0).mark(20.0),
        Figure::new("restart, children intact", "s", restart.intact_s.max).against(PEER_WITH_HALF, 5.0).mark(3.0),
        Figure::new("restart, children deleted", "s", restart.deleted_s.max).against(PEER_WITH_HALF, 27.0).mark(15.0),
    ];
    if let (Some(rest), Some(detected)) = zero {
        let each = rest.temporal_calls_per_second / NAMESPACES as f64;
        figures.extend([
            Figure::new("at zero: resident memory", "MB", rest.resident_mb),
            Figure::new("at zero: CPU time a minute", "s", rest.cpu_seconds_per_minute),
            Figure::new("at zero: Kubernetes writes", "1/s", rest.kubernetes_writes_per_second),
            Figure::new("at zero: Temporal calls a namespace", "1/s", each).mark(BUDGET),
            Figure::new("at zero: accepted to patched, p50", "ms", detected.p50).mark(1000.0),
            Figure::new("at zero: accepted to patched, p95", "ms", detected.p95),
        ]);
    }
    figures
}
