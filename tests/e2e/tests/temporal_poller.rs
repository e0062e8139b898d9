//! The poller on a real Temporal server: what it sees, and how soon.

mod temporal_support;

use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::TemporalOptions;
use operator_core::observed::{
    DeploymentInfo, FailureClass, LaneKey, Observation, RateLimitSource, TaskType, TemporalFailure, TemporalState,
    VersionInfo, VersionStatus,
};
use temporal_support::{Bed, NAMESPACE, known, lanes, quantile, workflow_lane};
use temporal_worker_operator::temporal::routing::{self, Drained};
use temporal_worker_operator::temporal::{Limits, Phase, Routing, Watch};
use temporalio_protos::temporal::api::enums::v1::TaskQueueType;
use temporalio_protos::temporal::api::taskqueue::v1::RateLimit;
use temporalio_protos::temporal::api::workflowservice::v1::UpdateTaskQueueConfigRequest;
use temporalio_protos::temporal::api::workflowservice::v1::update_task_queue_config_request::RateLimitUpdate;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_task_on_a_queue_at_zero_is_signalled_at_the_next_sweep() -> Result<()> {
    let bed = Bed::start().await?;
    bed.poller.set(bed.watch("f", &["q".into()], Phase::AtZero)?);
    bed.when("f", SOON, |state| known(state, "q").is_some_and(|stats| stats.backlog == 0)).await?;
    let mut delays = Vec::new();
    for number in 1..=60 {
        // Tasks come at any moment of a sweep.
        tokio::time::sleep(Duration::from_millis(number * 137 % 500)).await;
        bed.start_workflow("q").await?;
        let accepted = Instant::now();
        bed.when("f", SOON, |state| known(state, "q").is_some_and(|stats| stats.backlog == number)).await?;
        delays.push(accepted.elapsed());
    }
    let (p50, p95) = (quantile(&mut delays, 0.5), quantile(&mut delays, 0.95));
    println!("accepted to signalled: p50 {p50:?}, p95 {p95:?}");
    Ok(())
}

#[tokio::test]
async fn a_version_is_absent_until_it_polls_and_then_becomes_current() -> Result<()> {
    let bed = Bed::start().await?;
    bed.poller.set(bed.versioned("f", "ns/app", "b1", &["q"], Phase::Registering)?);
    let state = bed.when("f", SOON, |state| state.deployment.known().is_some()).await?;
    assert_eq!(state.deployment.known(), Some(&None), "the server has no such deployment");

    let _polls = bed.poll_as_worker("q", "ns/app", "b1");
    let registered = |state: &TemporalState| {
        let info = state.deployment.known().and_then(Option::as_ref);
        info.is_some_and(|info| info.version("b1").is_some_and(|version| version.lanes == lanes(&["q"])))
    };
    let state = bed.when("f", SOON, registered).await?;
    let info = state.deployment.known().and_then(Option::as_ref).context("registered")?;
    let status = info.version("b1").map(|version| version.status);
    assert_eq!((status, info.current_build_id.as_deref()), (Some(VersionStatus::Inactive), None));

    let connection = bed.connection("main")?;
    let routing =
        Routing { namespace: NAMESPACE, deployment: "ns/app", conflict_token: b"stale", identity: "operator/test" };
    let refused = routing::set_current(&connection, routing, "b1").await.expect_err("a stale conflict token");
    assert_eq!(refused.class, FailureClass::FailedPrecondition, "{}", refused.message);
    let routing = Routing { conflict_token: &info.conflict_token, ..routing };
    routing::set_current(&connection, routing, "b1").await.map_err(|failure| anyhow::anyhow!(failure.message))?;
    bed.poller.poke(&"f".into());
    let current = bed.when("f", Duration::from_secs(3), |state| {
        let info = state.deployment.known().and_then(Option::as_ref);
        let is_current = |version: &VersionInfo| version.status == VersionStatus::Current;
        info.is_some_and(|info| info.version("b1").is_some_and(is_current) && info.current_build_id.is_some())
    });
    let info = current.await?.deployment.known().cloned().flatten().context("current")?;
    assert_eq!(info.current_build_id.as_deref(), Some("b1"));
    assert_eq!(info.last_modifier_identity, "operator/test");
    Ok(())
}

#[tokio::test]
async fn a_list_of_the_server_confirms_what_a_status_has_of_a_fleet_at_rest_and_of_no_other() -> Result<()> {
    let bed = Bed::start().await?;
    let _polls = ["settled", "ramps"].map(|name| bed.poll_as_worker("q", &format!("ns/{name}"), "b1"));
    let connection = bed.connection("main")?;
    let failed = |failure: TemporalFailure| anyhow::anyhow!(failure.message);
    for name in ["settled", "ramps"] {
        bed.poller.set(bed.versioned(name, &format!("ns/{name}"), "b1", &["q"], Phase::Registering)?);
        let info = bed.info_when(name, |info| info.version("b1").is_some()).await?;
        let routing = Routing {
            namespace: NAMESPACE,
            deployment: &format!("ns/{name}"),
            conflict_token: &info.conflict_token,
            identity: "operator/test",
        };
        match name {
            "settled" => routing::set_current(&connection, routing, "b1").await.map_err(failed)?,
            _ => routing::set_ramping(&connection, routing, ("b1", 10)).await.map_err(failed)?,
        }
        bed.poller.remove(&name.into());
    }
    let remembered = |build_id: &str| {
        let current_build_id = Some(build_id.to_owned());
        Some(DeploymentInfo { current_build_id, remembered: true, ..DeploymentInfo::default() })
    };
    let watch = |fleet: &str, name: &str, build_id: &str| -> Result<Watch> {
        let watch = bed.versioned(fleet, &format!("ns/{name}"), build_id, &[], Phase::Registering)?;
        Ok(Watch { remembered: remembered(build_id), ..watch })
    };
    // The server's list follows what happens after a moment.
    let deadline = Instant::now() + SOON;
    loop {
        bed.poller.set(watch("a", "settled", "b1")?);
        let info = bed.info_when("a", |_| true).await?;
        if info.remembered {
            assert_eq!(info.current_build_id.as_deref(), Some("b1"));
            break;
        }
        anyhow::ensure!(Instant::now() < deadline, "the list never had it");
        bed.poller.remove(&"a".into());
    }
    bed.poller.set(watch("b", "ramps", "b1")?);
    let info = bed.info_when("b", |_| true).await?;
    assert!(!info.remembered && info.ramp_of("b1").is_some(), "{info:?}");
    bed.poller.set(watch("c", "settled", "b0")?);
    let info = bed.info_when("c", |_| true).await?;
    assert!(!info.remembered && info.current_build_id.as_deref() == Some("b1"), "{info:?}");
    Ok(())
}

#[tokio::test]
async fn a_share_is_given_moved_and_taken_away_by_the_manager_alone() -> Result<()> {
    let bed = Bed::start().await?;
    let _polls = ["b1", "b2"].map(|build_id| bed.poll_as_worker("q", "ns/app", build_id));
    let watch = bed.versioned("f", "ns/app", "b2", &["q"], Phase::Registering)?;
    // b1 does the work, and is read as often as b2.
    bed.poller.set(Watch { build_ids: vec!["b2".into(), "b1".into()], main: Some("b1".into()), ..watch });
    let info = bed.info_when("f", |info| ["b1", "b2"].iter().all(|id| info.version(id).is_some())).await?;
    let connection = bed.connection("main")?;
    let by =
        |identity: &'static str| Routing { namespace: NAMESPACE, deployment: "ns/app", conflict_token: &[], identity };
    let failed = |failure: TemporalFailure| anyhow::anyhow!(failure.message);

    // The change takes the token that the claim gave.
    let routing = Routing { conflict_token: &info.conflict_token, ..by("operator/test") };
    let token = routing::claim_manager(&connection, routing).await.map_err(failed)?;
    routing::set_current(&connection, Routing { conflict_token: &token, ..routing }, "b1").await.map_err(failed)?;
    let foreign = routing::set_ramping(&connection, by("somebody"), ("b2", 10)).await.expect_err("not the manager");
    assert_eq!(foreign.class, FailureClass::FailedPrecondition, "{}", foreign.message);
    bed.poller.poke(&"f".into());
    let info = bed.info_when("f", |info| info.current_build_id.is_some()).await?;
    assert_eq!((info.manager_identity.as_str(), &info.ramp), ("operator/test", &None));

    for percent in [10, 50] {
        routing::set_ramping(&connection, by("operator/test"), ("b2", percent)).await.map_err(failed)?;
        bed.poller.poke(&"f".into());
        let has_share =
            |info: &DeploymentInfo| info.ramp_of("b2").is_some_and(|ramp| ramp.percent == f32::from(percent));
        let info = bed.info_when("f", has_share).await?;
        let ramp = info.ramp_of("b2").context("ramps")?;
        assert!(ramp.changed_at.is_some() && ramp.since <= ramp.changed_at, "{ramp:?}");
        assert!(ramp.unchanged_for.is_some_and(|time| time < SOON), "it was seen to change: {ramp:?}");
    }
    bed.info_when("f", |info| info.version("b2").is_some_and(|version| version.status == VersionStatus::Ramping))
        .await?;
    routing::set_ramping(&connection, by("operator/test"), ("", 0)).await.map_err(failed)?;
    bed.poller.poke(&"f".into());
    let info = bed.info_when("f", |info| info.ramp.is_none()).await?;
    assert_eq!(info.current_build_id.as_deref(), Some("b1"));
    bed.info_when("f", |info| info.version("b2").is_some_and(|version| version.status == VersionStatus::Draining))
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_worker_deployment_is_taken_away_once_nobody_polls_it() -> Result<()> {
    let soon = ("matching.PollerHistoryTTL".to_owned(), "\"20s\"".to_owned());
    let options = TemporalOptions { dynamic_config: vec![soon], ..Default::default() };
    let bed = Bed::with(options, Limits::default()).await?;
    let polls = bed.poll_as_worker("q", "ns/app", "b1");
    bed.poller.set(bed.versioned("f", "ns/app", "b1", &["q"], Phase::Registering)?);
    let info = bed.info_when("f", |info| info.version("b1").is_some_and(|version| !version.lanes.is_empty())).await?;
    assert_eq!(info.summaries.keys().collect::<Vec<_>>(), ["b1"]);
    let connection = bed.connection("main")?;
    let routing =
        Routing { namespace: NAMESPACE, deployment: "ns/app", conflict_token: &[], identity: "operator/test" };
    let failed = |failure: TemporalFailure| anyhow::anyhow!(failure.message);
    routing::set_current(&connection, routing, "b1").await.map_err(failed)?;

    let delete = async || routing::delete_version(&connection, routing, "b1", Drained::OrNot).await;
    let refused = delete().await.expect_err("it is current");
    assert_eq!(refused.class, FailureClass::FailedPrecondition, "{}", refused.message);
    routing::clear_current(&connection, routing).await.map_err(failed)?;
    let refused = delete().await.expect_err("it is polled");
    assert_eq!(refused.class, FailureClass::FailedPrecondition, "{}", refused.message);
    drop(polls);
    let end = Instant::now() + Duration::from_secs(60);
    while let Err(failure) = delete().await {
        anyhow::ensure!(Instant::now() < end, "{failure:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    delete().await.map_err(failed).context("a second time")?;
    routing::delete_deployment(&connection, routing).await.map_err(failed)?;
    routing::delete_deployment(&connection, routing).await.map_err(failed).context("a second time")?;
    bed.poller.poke(&"f".into());
    bed.when("f", SOON, |state| state.deployment.known() == Some(&None)).await?;
    Ok(())
}

#[tokio::test]
async fn the_rate_limit_of_a_queue_is_told_with_its_source_and_the_servers_default_is_none() -> Result<()> {
    let bed = Bed::start().await?;
    let update = RateLimitUpdate { rate_limit: Some(RateLimit { requests_per_second: 3.5 }), reason: "test".into() };
    let request = UpdateTaskQueueConfigRequest {
        namespace: NAMESPACE.into(),
        identity: "test".into(),
        task_queue: "limited".into(),
        task_queue_type: TaskQueueType::Activity.into(),
        update_queue_rate_limit: Some(update),
        ..Default::default()
    };
    bed.client.clone().update_task_queue_config(request).await?;
    let lane = |queue: &str| LaneKey { task_queue: queue.into(), task_type: TaskType::Activity };
    for (fleet, phase) in [("running", Phase::Running), ("at-zero", Phase::AtZero)] {
        let lanes = ["limited", "free"].map(lane).into();
        bed.poller.set(Watch { lanes, ..bed.watch(fleet, &[], phase)? });
        let stats = |state: &TemporalState, queue| state.lanes.get(&lane(queue)).and_then(Observation::known).copied();
        let read = |state: &TemporalState| stats(state, "limited").is_some() && stats(state, "free").is_some();
        let state = bed.when(fleet, SOON, read).await?;
        let limit = stats(&state, "limited").and_then(|stats| stats.rate_limit).context("limited")?;
        assert_eq!((limit.per_second, limit.source), (3.5, RateLimitSource::Api), "{fleet}");
        assert_eq!(stats(&state, "free").and_then(|stats| stats.rate_limit), None, "{fleet}");
    }
    Ok(())
}

#[tokio::test]
async fn a_version_that_never_polled_is_never_made_current() -> Result<()> {
    let bed = Bed::start().await?;
    let _polls = bed.poll_as_worker("q", "ns/app", "b1");
    bed.poller.set(bed.versioned("f", "ns/app", "b2", &["q"], Phase::Registering)?);
    let is_absent = |state: &TemporalState| {
        let info = state.deployment.known().and_then(Option::as_ref);
        info.is_some_and(|info| info.known_version("b2") == Some(None))
    };
    let state = bed.when("f", SOON, is_absent).await?;
    let info = state.deployment.known().cloned().flatten().context("exists")?;
    let routing = Routing {
        namespace: NAMESPACE,
        deployment: "ns/app",
        conflict_token: &info.conflict_token,
        identity: "operator/test",
    };
    let refused = routing::set_current(&*bed.connection("main")?, routing, "b2").await.expect_err("b2 has no pollers");
    assert!(matches!(refused.class, FailureClass::Other | FailureClass::FailedPrecondition), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_new_workflow_is_found_at_once_among_more_queues_at_zero_than_can_be_swept() -> Result<()> {
    // By ten calls a second it takes more than ten to look at each of these once.
    let bed = Bed::with(TemporalOptions::default(), Limits { calls_per_second: 10 }).await?;
    let queues: Vec<_> = (0..120).map(|number| format!("q{number}")).collect();
    for queue in &queues {
        bed.poller.set(bed.watch(queue, std::slice::from_ref(queue), Phase::AtZero)?);
    }
    bed.when("q119", Duration::from_secs(60), |state| known(state, "q119").is_some()).await?;
    let mut delays = Vec::new();
    for queue in queues.iter().step_by(12) {
        bed.start_workflow(queue).await?;
        let accepted = Instant::now();
        let seen = |state: &TemporalState| known(state, queue).is_some_and(|stats| stats.backlog == 1);
        bed.when(queue, Duration::from_secs(60), seen).await?;
        delays.push(accepted.elapsed());
    }
    let p50 = quantile(&mut delays, 0.5);
    println!("accepted to signalled: p50 {p50:?}, longest {:?}", delays.last());
    assert!(p50 < Duration::from_secs(3), "{delays:?}");
    Ok(())
}

#[tokio::test]
async fn pinned_tasks_wake_a_fleet_at_zero() -> Result<()> {
    // The server remembers for minutes that a version was not in a Task Queue.
    let forgetful = ("history.versionMembershipCacheTTL".to_owned(), "\"1s\"".to_owned());
    let options = TemporalOptions { dynamic_config: vec![forgetful], ..Default::default() };
    let bed = Bed::with(options, Limits::default()).await?;
    let polls = bed.poll_as_worker("q", "ns/app", "b1");
    bed.poller.set(bed.versioned("f", "ns/app", "b1", &["q"], Phase::Registering)?);
    bed.when("f", SOON, |state| {
        let info = state.deployment.known().and_then(Option::as_ref);
        info.is_some_and(|info| info.version("b1").is_some_and(|version| version.lanes == lanes(&["q"])))
    })
    .await?;
    drop(polls);
    bed.poller.set(bed.versioned("f", "ns/app", "b1", &["q"], Phase::AtZero)?);
    // The server takes pinned Workflows once the version has reached the Task Queue itself.
    let end = Instant::now() + SOON;
    while let Err(error) = bed.start_pinned_workflow("q", "ns/app", "b1").await {
        anyhow::ensure!(Instant::now() < end, "{error:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let started = Instant::now();
    bed.when("f", Duration::from_secs(20), |state| known(state, "q").is_some_and(|stats| stats.backlog == 1)).await?;
    println!("pinned task seen after {:?}", started.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_burst_is_seen_in_full_while_the_fleet_wakes() -> Result<()> {
    let bed = Bed::start().await?;
    bed.poller.set(bed.watch("f", &["q".into()], Phase::AtZero)?);
    bed.when("f", SOON, |state| known(state, "q").is_some()).await?;
    for _ in 0..30 {
        bed.start_workflow("q").await?;
    }
    bed.when("f", SOON, |state| known(state, "q").is_some_and(|stats| stats.backlog > 0)).await?;
    bed.poller.set(bed.watch("f", &["q".into()], Phase::Running)?);
    let woken = Instant::now();
    bed.when("f", SOON, |state| known(state, "q").is_some_and(|stats| stats.backlog == 30)).await?;
    println!("burst of 30 seen in full after {:?}", woken.elapsed());
    assert!(woken.elapsed() < Duration::from_secs(4), "{:?}", woken.elapsed());
    // And it stays in sight when the live readings end.
    tokio::time::sleep(Duration::from_secs(13)).await;
    assert_eq!(bed.backlog("f", "q"), Some(30));
    Ok(())
}

#[tokio::test]
async fn a_fleet_that_is_no_longer_watched_costs_no_calls() -> Result<()> {
    let bed = Bed::start().await?;
    bed.poller.set(bed.watch("f", &["q".into()], Phase::AtZero)?);
    bed.when("f", SOON, |state| known(state, "q").is_some()).await?;
    bed.poller.remove(&"f".into());
    assert!(matches!(bed.state("f").deployment, Observation::Unknown));
    assert!(!bed.state("f").lanes.contains_key(&workflow_lane("q")));
    // What was under way may still end.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = bed.calls(None, None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bed.calls(None, None), before);
    Ok(())
}
