//! Who routes a Worker Deployment, on a real server: the claim, by whomever it is managed, and the note on a version.

mod temporal_support;

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use e2e::worker::patiently;
use operator_core::observed::{FailureClass, TemporalFailure};
use temporal_support::{Bed, NAMESPACE};
use temporal_worker_operator::temporal::routing::{self, Routing};
use temporal_worker_operator::temporal::{Phase, Watch};
use temporalio_protos::temporal::api::deployment::v1::WorkerDeploymentVersion;
use temporalio_protos::temporal::api::workflowservice::v1::DescribeWorkerDeploymentVersionRequest;

const DEPLOYMENT: &str = "ns/app";

fn by(identity: &str) -> Routing<'_> {
    Routing { namespace: NAMESPACE, deployment: DEPLOYMENT, conflict_token: &[], identity }
}

fn failed(failure: TemporalFailure) -> anyhow::Error {
    anyhow::anyhow!(failure.message)
}

/// The texts among a version's metadata.
async fn metadata(bed: &Bed, build_id: &str) -> Result<HashMap<String, String>> {
    let version = WorkerDeploymentVersion { deployment_name: DEPLOYMENT.into(), build_id: build_id.into() };
    let request = DescribeWorkerDeploymentVersionRequest {
        namespace: NAMESPACE.into(),
        deployment_version: Some(version),
        ..Default::default()
    };
    let describe = async || bed.client.clone().describe_worker_deployment_version(request.clone()).await;
    let answer = patiently(describe).await?;
    let info = answer.worker_deployment_version_info.context("no version")?;
    let text = |(key, payload): (String, temporalio_protos::temporal::api::common::v1::Payload)| {
        assert_eq!(payload.metadata["encoding"], b"json/plain");
        Ok((key, serde_json::from_slice(&payload.data)?))
    };
    info.metadata.unwrap_or_default().entries.into_iter().map(text).collect()
}

#[tokio::test]
async fn the_operator_takes_over_from_a_manager_that_it_was_and_notes_itself_on_the_version() -> Result<()> {
    let bed = Bed::start().await?;
    let _polls = bed.poll_as_worker("q", DEPLOYMENT, "b1");
    bed.poller.set(bed.versioned("f", DEPLOYMENT, "b1", &["q"], Phase::Registering)?);
    bed.info_when("f", |info| info.version("b1").is_some_and(|version| !version.lanes.is_empty())).await?;
    let connection = bed.connection("main")?;
    routing::claim_manager(&connection, by("operator/u-1")).await.map_err(failed)?;
    let refused = routing::set_current(&connection, by("operator/u-2"), "b1").await.expect_err("it is not the manager");
    assert_eq!(refused.class, FailureClass::FailedPrecondition, "{}", refused.message);

    let token = routing::claim_manager(&connection, by("operator/u-2")).await.map_err(failed)?;
    let routing = Routing { conflict_token: &token, ..by("operator/u-2") };
    routing::set_current(&connection, routing, "b1").await.map_err(failed)?;
    bed.poller.poke(&"f".into());
    bed.info_when("f", |info| info.current_build_id.is_some() && info.manager_identity == "operator/u-2").await?;

    for version in ["1.0.0", "1.1.0"] {
        routing::note_controller(&connection, routing, "b1", version).await.map_err(failed)?;
        let noted = metadata(&bed, "b1").await?;
        assert_eq!(noted["temporal.io/controller"], "operator/u-2");
        assert_eq!(noted["temporal.io/controller-version"], version);
    }
    let unknown = routing::note_controller(&connection, routing, "b9", "1.0.0").await;
    assert!(unknown.is_err(), "there is no such version");
    Ok(())
}

#[tokio::test]
async fn what_was_read_through_another_address_is_forgotten() -> Result<()> {
    let bed = Bed::start().await?;
    let _polls = bed.poll_as_worker("q", DEPLOYMENT, "b1");
    let watch = bed.versioned("f", DEPLOYMENT, "b1", &["q"], Phase::Registering)?;
    bed.poller.set(watch.clone());
    bed.info_when("f", |info| info.version("b1").is_some()).await?;
    // The control: a Connection that was only made anew, as with a new Secret.
    let renewed = bed.connection_to("renewed", &bed.server.host_port())?;
    bed.poller.set(Watch { connection: renewed, ..watch.clone() });
    assert!(bed.state("f").deployment.known().is_some());

    let elsewhere = bed.connection_to("elsewhere", "127.0.0.1:9")?;
    bed.poller.set(Watch { connection: elsewhere, ..watch });
    assert!(bed.state("f").deployment.last().is_none());
    Ok(())
}
