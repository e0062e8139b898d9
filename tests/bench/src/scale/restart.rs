//! How soon all fleets are right after the operator was started anew.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde::Serialize;

use super::NAMESPACES;
use super::fleets::{REPLICAS, namespace};
use super::world::World;
use crate::figures::Distribution;

const LIMIT: Duration = Duration::from_secs(300);

/// Times from the start of the process, in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Restarts {
    /// Until it takes every fleet for ready by fresh answers of both servers; all Deployments are as they were.
    pub intact_s: Distribution,
    /// The same, and every Deployment is there again with its replicas; all were deleted while no operator ran.
    pub deleted_s: Distribution,
}

/// Starts the operator anew, so many times with children intact, and as many with children deleted.
///
/// # Errors
/// Not everything is right in time.
pub async fn measure(world: &mut World, times: usize) -> Result<Restarts> {
    let (mut intact, mut deleted) = (Vec::new(), Vec::new());
    for _ in 0..times {
        intact.push(restart(world, false).await?);
        println!("restart with children intact: {:.2} s", intact[intact.len() - 1]);
    }
    for _ in 0..times {
        deleted.push(restart(world, true).await?);
        println!("restart with children deleted: {:.2} s", deleted[deleted.len() - 1]);
    }
    let of = |times: Vec<f64>| Distribution::of(times).context("there was no restart");
    Ok(Restarts { intact_s: of(intact)?, deleted_s: of(deleted)? })
}

async fn restart(world: &mut World, delete: bool) -> Result<f64> {
    world.stop_operator()?;
    if delete {
        for number in 0..NAMESPACES {
            let api: Api<Deployment> = Api::namespaced(world.client.clone(), &namespace(number));
            api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        }
        world.children.all_have(0, REPLICAS, LIMIT).await?;
    }
    let began = Instant::now();
    world.start_operator().await?;
    let children = world.children.all_have(world.fleets.len(), REPLICAS, LIMIT);
    tokio::try_join!(children, world.all_ready(LIMIT))?;
    Ok(began.elapsed().as_secs_f64())
}
