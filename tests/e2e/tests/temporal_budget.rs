//! The poller's calls on a real Temporal server: how many, and how often each queue is read.

mod temporal_support;

use std::time::Duration;

use anyhow::Result;
use harness::TemporalOptions;
use operator_core::observed::{FailureClass, TemporalState};
use temporal_support::{Bed, known};
use temporal_worker_operator::temporal::{Limits, Phase};
use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(8);

/// Calls a second over a window, once every queue was read.
async fn rate(bed: &Bed, queues: &[String]) -> Result<f64> {
    let all_known = |state: &TemporalState| queues.iter().all(|q| known(state, q).is_some());
    bed.when("f", Duration::from_secs(30), all_known).await?;
    let (before, started) = (bed.calls(None, None), Instant::now());
    tokio::time::sleep(WINDOW).await;
    Ok((bed.calls(None, None) - before) / started.elapsed().as_secs_f64())
}

fn queues(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("q-{n}")).collect()
}

/// Time between two reads of the same partition, by the poller's own metric.
fn mean_sweep(bed: &Bed) -> f64 {
    let families = bed.registry.gather();
    let sweeps = families.iter().find(|family| family.name() == "temporal_worker_operator_temporal_live_sweep_seconds");
    let histogram = sweeps.map(|family| family.get_metric()[0].get_histogram());
    histogram.map_or(f64::NAN, |histogram| histogram.get_sample_sum() / histogram.get_sample_count() as f64)
}

#[tokio::test]
async fn a_fleet_at_zero_with_one_queue_takes_eight_calls_a_second() -> Result<()> {
    let bed = Bed::start().await?;
    bed.poller.set(bed.watch("f", &queues(1), Phase::AtZero)?);
    let rate = rate(&bed, &queues(1)).await?;
    println!("1 queue: {rate:.1} calls/s, a sweep each {:.2} s", mean_sweep(&bed));
    assert!((4.0..9.0).contains(&rate), "{rate} calls/s");
    Ok(())
}

#[tokio::test]
async fn ten_queues_are_read_twice_a_second() -> Result<()> {
    let bed = Bed::start().await?;
    bed.poller.set(bed.watch("f", &queues(10), Phase::AtZero)?);
    let rate = rate(&bed, &queues(10)).await?;
    println!("10 queues: {rate:.1} calls/s, a sweep each {:.2} s", mean_sweep(&bed));
    assert!((40.0..=90.0).contains(&rate), "{rate} calls/s");
    assert!(mean_sweep(&bed) < 1.2, "{}", mean_sweep(&bed));
    Ok(())
}

#[tokio::test]
async fn fifty_queues_are_read_as_often_as_the_budget_allows() -> Result<()> {
    let bed = Bed::start().await?;
    bed.poller.set(bed.watch("f", &queues(50), Phase::AtZero)?);
    let rate = rate(&bed, &queues(50)).await?;
    println!("50 queues: {rate:.1} calls/s, a sweep each {:.2} s", mean_sweep(&bed));
    // Within the budget of 120, of which a quarter of a second's may come at once.
    let most = 120.0 * (1.0 + 0.25 / WINDOW.as_secs_f64());
    assert!((60.0..=most).contains(&rate), "{rate} calls/s, more than {most}");
    assert!(mean_sweep(&bed) < 4.0, "{}", mean_sweep(&bed));
    Ok(())
}

#[tokio::test]
async fn a_server_that_asks_for_less_gets_less() -> Result<()> {
    let options = TemporalOptions {
        dynamic_config: [("frontend.namespaceRPS", "20"), ("frontend.namespaceBurstRatio", "1.0")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        ..Default::default()
    };
    let bed = Bed::with(options, Limits::default()).await?;
    bed.poller.set(bed.watch("f", &queues(10), Phase::AtZero)?);
    let limited = |state: &TemporalState| {
        state.failure.as_ref().is_some_and(|failure| failure.class == FailureClass::ResourceExhausted)
    };
    bed.when("f", Duration::from_secs(20), limited).await?;
    tokio::time::sleep(WINDOW).await;
    let (before, refused) = (bed.calls(None, None), bed.calls(None, Some("resource_exhausted")));
    tokio::time::sleep(WINDOW).await;
    let rate = (bed.calls(None, None) - before) / WINDOW.as_secs_f64();
    let refused = (bed.calls(None, Some("resource_exhausted")) - refused) / WINDOW.as_secs_f64();
    println!("a server with a limit of 20/s gets {rate:.1} calls/s, refuses {refused:.1}/s");
    assert!(rate < 30.0, "{rate} calls/s");
    assert!(refused < rate / 3.0, "{refused} of {rate} calls/s were refused");
    Ok(())
}
