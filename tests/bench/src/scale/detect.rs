//! How soon a task of a fleet at zero has its replicas raised, with all others at zero too.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use super::world::World;
use crate::figures::Distribution;

const LIMIT: Duration = Duration::from_secs(120);
/// Pause between two tasks, in milliseconds: at random, so that tasks come at any moment of a sweep.
const PAUSE_MS: std::ops::Range<u64> = 500..1500;

/// Gives a task to so many fleets, one after the other.
///
/// # Errors
/// A fleet is not scaled in time.
pub async fn measure(world: &World, tasks: usize) -> Result<Distribution> {
    ensure!(tasks <= world.fleets.len(), "there are {} fleets for {tasks} tasks", world.fleets.len());
    let mut fleets = world.fleets.clone();
    fleets.shuffle(&mut rand::rng());
    let mut times = Vec::new();
    for fleet in fleets.into_iter().take(tasks) {
        let pause = rand::rng().random_range(PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        fleet.worker(&world.server.host_port())?.start_workflow().await?;
        let accepted = Instant::now();
        let patched = world.children.runs(&fleet.child(), LIMIT).await?;
        times.push(patched.saturating_duration_since(accepted).as_secs_f64() * 1000.0);
    }
    Distribution::of(times).context("there was no task")
}
