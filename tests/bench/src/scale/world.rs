//! etcd, the API server, a Temporal server, the operator, and all fleets.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::Ground;
use e2e::host::{Operator, install_kinds};
use e2e::wait::within;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use harness::programs::Programs;
use harness::{ControlPlane, TemporalOptions, TemporalServer};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::NAMESPACES;
use super::children::Children;
use super::fleets::{Fleet, REPLICAS, namespace};
use crate::leader::sum;

/// Time in which all fleets are as they should be.
const LIMIT: Duration = Duration::from_secs(600);
/// Requests under way at a time, to either server.
const CONCURRENCY: usize = 16;
/// Versions that are registered at a time: each takes the server many writes.
const REGISTRATIONS: usize = 8;
/// Time that the operator gets to end.
const GRACE: Duration = Duration::from_secs(15);

/// Everything that runs.
pub struct World {
    /// etcd and the API server.
    pub control_plane: ControlPlane,
    /// A client with all rights.
    pub client: Client,
    /// The Temporal server.
    pub server: TemporalServer,
    /// The fleets.
    pub fleets: Vec<Fleet>,
    /// Their Deployments.
    pub children: Children,
    programs: Programs,
    operator: Option<Operator>,
    grounds: Vec<Ground>,
}

impl World {
    /// Starts everything, and ends when every fleet's version is registered, current, and said to be.
    ///
    /// # Errors
    /// A part can't be built or started, or the fleets don't become right in time.
    pub async fn build(fleets: usize, options: TemporalOptions) -> Result<Self> {
        let programs = Programs::of_image("temporal-worker-operator", "small")?;
        let (control_plane, server) = tokio::try_join!(ControlPlane::start(), TemporalServer::start(options))?;
        let client = control_plane.client();
        install_kinds(&client).await?;
        let mut grounds = Vec::new();
        for number in 0..NAMESPACES {
            grounds.push(Ground::with_connection(client.clone(), &namespace(number), &server.host_port()).await?);
        }
        let children = Children::watch(client.clone());
        let fleets = (0..fleets).map(Fleet).collect();
        let mut world = Self { control_plane, client, server, fleets, children, programs, operator: None, grounds };
        // While nobody reads: the server has enough to do.
        world.register().await?;
        world.start_operator().await?;
        let replicas = json!({"replicas": REPLICAS});
        world.apply(|_| replicas.clone()).await?;
        world.children.all_have(world.fleets.len(), REPLICAS, LIMIT).await?;
        world.all_ready(LIMIT).await?;
        Ok(world)
    }

    /// Starts the operator; it is ready when this ends.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start_operator(&mut self) -> Result<()> {
        let operator = Operator::start(&self.programs, self.control_plane.kubeconfig_path(), &[]).await?;
        self.operator = Some(operator);
        Ok(())
    }

    /// The operator.
    ///
    /// # Errors
    /// It does not run.
    pub fn operator(&self) -> Result<&Operator> {
        self.operator.as_ref().context("the operator does not run")
    }

    /// Ends it as Kubernetes would.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_operator(&mut self) -> Result<()> {
        self.operator.take().context("the operator does not run")?.process.stop(GRACE)
    }

    /// Applies every fleet with what `over` gives on top of its spec.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn apply(&self, over: impl Fn(Fleet) -> Value) -> Result<()> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("temporal.io", "v1alpha1", "WorkerDeployment"));
        let params = PatchParams::apply("bench").force();
        let one = |fleet: Fleet| {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &fleet.namespace(), &kind);
            let (manifest, params) = (fleet.manifest(&over(fleet)), params.clone());
            async move { api.patch(&fleet.name(), &params, &Patch::Apply(&manifest)).await.map(|_| ()) }
        };
        stream::iter(self.fleets.iter().map(|fleet| one(*fleet)))
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await
            .context("apply the fleets")
    }

    async fn register(&self) -> Result<()> {
        let began = Instant::now();
        let host_port = self.server.host_port();
        let registered = self.fleets.iter().map(|fleet| fleet.register(&host_port));
        let mut registered = stream::iter(registered).buffer_unordered(REGISTRATIONS);
        let mut count = 0;
        while let Some(result) = registered.next().await {
            result?;
            count += 1;
            if count % 50 == 0 {
                println!("{count} fleets are registered after {} s", began.elapsed().as_secs());
            }
        }
        Ok(())
    }

    /// Waits until the operator itself takes every fleet for ready. Gives back how long that took.
    ///
    /// # Errors
    /// It does not within `limit`.
    pub async fn all_ready(&self, limit: Duration) -> Result<Duration> {
        let began = Instant::now();
        within(limit, "every fleet is ready", async || {
            let ready = sum(&self.operator()?.metrics().await?, "temporal_worker_operator_fleets{ready=\"True\"}");
            ensure!(ready as usize == self.fleets.len(), "{ready} of {} are", self.fleets.len());
            Ok(())
        })
        .await?;
        Ok(began.elapsed())
    }

    /// Takes every fleet to zero, and has it scaled by its Task Queue from then on.
    ///
    /// # Errors
    /// They are not at zero in time.
    pub async fn scale_from_zero(&self) -> Result<()> {
        self.apply(|_| json!({"replicas": 0})).await?;
        self.children.all_have(self.fleets.len(), 0, LIMIT).await?;
        self.apply(Fleet::scaling).await
    }

    /// The end of the operator's log.
    pub fn last_words(&self) -> String {
        let log = self.operator.as_ref().and_then(|operator| operator.log().ok()).unwrap_or_default();
        log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
    }

    /// Ends everything.
    ///
    /// # Errors
    /// Something can't be ended or removed.
    pub fn end(mut self) -> Result<()> {
        if self.operator.is_some() {
            self.stop_operator()?;
        }
        let Self { control_plane, server, grounds, children, .. } = self;
        // The namespaces go with the API server.
        grounds.into_iter().for_each(std::mem::forget);
        drop((server, children));
        control_plane.stop()
    }
}
