//! Calls of a Temporal server with compute providers, to either replica of the operator.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::HostBed;
use e2e::push::{Push, Through};
use e2e::wait::eventually;

pub async fn a_call_of_the_server_raises_a_fleet_from_zero_through_either_replica(_bed: Arc<HostBed>) -> Result<()> {
    let push = Push::start().await?;
    let told = story(&push).await;
    let logs = push.operators.iter().map(|operator| operator.log().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    push.stop()?;
    told.with_context(|| logs)
}

async fn story(push: &Push) -> Result<()> {
    let leader = push.leader().await?;
    push.trial(Through::Nobody).await.context("without push")?;
    ensure!(push.calls(leader).await?.is_empty(), "who called?");

    push.aim(Through::Leader).await?;
    push.connect().await?;
    for through in [Through::Leader, Through::Standby, Through::Leader, Through::Standby] {
        let before = hints(push, leader).await?;
        push.trial(through).await.with_context(|| format!("through {through:?}"))?;
        let after = hints(push, leader).await?;
        let relayed = after.1 > before.1;
        ensure!(after.0 > before.0, "{through:?}: no hint was accepted: {after:?}");
        ensure!(relayed == (through == Through::Standby), "{through:?}: relayed {before:?} → {after:?}");
    }
    // The server counts each task as one more replica; what it counted to is nobody's business.
    let replicas: Vec<_> = push.scales()?.into_iter().map(|write| write.replicas).collect();
    ensure!(replicas.iter().all(|replicas| matches!(replicas, Some(0 | 1))), "{replicas:?}");
    a_revoked_token_is_refused_and_a_new_one_is_not(push, leader).await?;
    no_log_holds_a_token(push)
}

async fn a_revoked_token_is_refused_and_a_new_one_is_not(push: &Push, leader: usize) -> Result<()> {
    push.revoke().await?;
    let accepted = hints(push, leader).await?.0;
    push.trial(Through::Leader).await.context("with a revoked token")?;
    eventually("the token is refused", async || {
        let calls = push.calls(leader).await?;
        ensure!(calls.get("refused").is_some_and(|refused| *refused > 0), "{calls:?}");
        Ok(())
    })
    .await?;
    ensure!(hints(push, leader).await?.0 == accepted, "a hint was accepted");
    push.connect().await.context("with a new token")?;
    push.trial(Through::Leader).await?;
    ensure!(hints(push, leader).await?.0 > accepted, "no hint with the new token was accepted");
    Ok(())
}

fn no_log_holds_a_token(push: &Push) -> Result<()> {
    for operator in &push.operators {
        ensure!(!operator.log()?.contains("twp1."), "a token is in the log");
    }
    Ok(())
}

/// Hints that the leader accepted, and that the other replica relayed.
async fn hints(push: &Push, leader: usize) -> Result<(u64, u64)> {
    let (accepted, relayed) = (push.calls(leader).await?, push.calls(1 - leader).await?);
    Ok((accepted.get("accepted").copied().unwrap_or(0), relayed.get("relayed").copied().unwrap_or(0)))
}
