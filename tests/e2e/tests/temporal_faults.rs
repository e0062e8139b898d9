//! The poller while a Temporal server is away, or refuses.

mod temporal_support;

use std::time::Duration;

use anyhow::Result;
use operator_core::observed::{FailureClass, Observation, TemporalState};
use temporal_support::{Bed, known, workflow_lane};
use temporal_worker_operator::temporal::{Phase, Watch};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(15);

fn fails_as(class: FailureClass) -> impl Fn(&TemporalState) -> bool {
    move |state| state.failure.as_ref().is_some_and(|failure| failure.class == class)
}

#[tokio::test]
async fn a_server_that_dies_makes_readings_old_not_empty_and_is_found_again() -> Result<()> {
    let mut bed = Bed::start().await?;
    bed.start_workflow("q").await?;
    bed.poller.set(bed.watch("f", &["q".into()], Phase::AtZero)?);
    bed.when("f", SOON, |state| known(state, "q").is_some_and(|stats| stats.backlog == 1)).await?;

    bed.server.kill()?;
    let state = bed.when("f", SOON, fails_as(FailureClass::Unreachable)).await?;
    assert!(state.failure.is_some_and(|failure| !failure.message.is_empty()));
    let old = Instant::now() + Duration::from_secs(16);
    let state = bed.poller.snapshot(&"f".into(), old);
    let lane = state.lanes.get(&workflow_lane("q"));
    assert!(
        matches!(lane, Some(Observation::Stale { value, .. }) if value.backlog == 1),
        "an old reading is neither fresh nor gone: {lane:?}"
    );
    let failed = bed.calls(None, Some("unreachable"));
    tokio::time::sleep(Duration::from_secs(6)).await;
    let probes = bed.calls(None, Some("unreachable")) - failed;
    assert!((1.0..=12.0).contains(&probes), "{probes} probes in 6 s");

    bed.server.restart().await?;
    let back = Instant::now();
    bed.when("f", SOON, |state| state.failure.is_none() && known(state, "q").is_some()).await?;
    println!("read again {:?} after the server served", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(20), "{:?}", back.elapsed());
    bed.start_workflow("q").await?;
    // A server that was killed may count a task twice for a while, and that a count falls is told to nobody.
    bed.when("f", SOON, |state| known(state, "q").is_some_and(|stats| stats.backlog >= 2)).await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_hangs_is_unreachable_too() -> Result<()> {
    let bed = Bed::start().await?;
    bed.poller.set(bed.watch("f", &["q".into()], Phase::AtZero)?);
    bed.when("f", SOON, |state| known(state, "q").is_some()).await?;
    bed.server.set_paused(true)?;
    bed.when("f", SOON, fails_as(FailureClass::Unreachable)).await?;
    bed.server.set_paused(false)?;
    bed.when("f", Duration::from_secs(12), |state| state.failure.is_none()).await?;
    Ok(())
}

#[tokio::test]
async fn a_dead_server_slows_no_other() -> Result<()> {
    let bed = Bed::start().await?;
    let queues: Vec<String> = (0..20).map(|n| format!("dead-{n}")).collect();
    let dead = bed.connection_to("dead", "127.0.0.1:1")?;
    bed.poller.set(Watch { connection: dead, ..bed.watch("dead", &queues, Phase::AtZero)? });
    bed.poller.set(bed.watch("f", &["q".into()], Phase::AtZero)?);
    bed.when("f", SOON, |state| known(state, "q").is_some()).await?;
    bed.when("dead", SOON, fails_as(FailureClass::Unreachable)).await?;
    bed.start_workflow("q").await?;
    let accepted = Instant::now();
    bed.when("f", SOON, |state| known(state, "q").is_some_and(|stats| stats.backlog == 1)).await?;
    assert!(accepted.elapsed() < Duration::from_secs(5), "{:?}", accepted.elapsed());
    assert_eq!(bed.state("f").failure, None);
    Ok(())
}

#[tokio::test]
async fn an_unknown_namespace_is_named_as_such() -> Result<()> {
    let bed = Bed::start().await?;
    let unknown = |watch: Watch| Watch { namespace: "no-such-namespace".into(), ..watch };
    bed.poller.set(unknown(bed.watch("plain", &["q".into()], Phase::AtZero)?));
    bed.poller.set(unknown(bed.versioned("versioned", "ns/app", "b1", &[], Phase::Registering)?));
    for fleet in ["plain", "versioned"] {
        let state = bed.when(fleet, SOON, fails_as(FailureClass::NamespaceNotFound)).await?;
        assert!(state.failure.is_some_and(|failure| failure.message.contains("no-such-namespace")), "{fleet}");
        assert_eq!(state.deployment, Observation::Unknown, "{fleet}: nothing is known of its deployment");
    }
    Ok(())
}
