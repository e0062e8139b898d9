//! Fleets of temporal-worker-controller whose pods run: this operator takes them over, rolls one out, is uninstalled, and, when
//! it is told so, takes them along. A cluster of its own, since its operator may not be there before. Needs root.

mod takeover_support;

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually;
use e2e::peer::{FLEET, Left, RELEASES, Sight, Told};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use operator_core::api::WorkerDeployment;
use takeover_support::{Kept, Stage, Work, orders};
use tonic::{Code, Status};

/// A fleet, its work, and what it was.
struct Played {
    left: Left,
    work: Work,
    kept: Kept,
}

impl Played {
    async fn of(stage: &Stage, left: Left) -> Result<Self> {
        let work = Work::begin(&stage.server.host_port(), left.release.namespace, &left.build_id).await?;
        let kept = Kept::of(&left.ground).await?;
        Ok(Self { left, work, kept })
    }

    /// The operator has it, and neither its pods nor their template, its spec or the routing were touched.
    async fn is_taken_over(&self) -> Result<()> {
        self.left.is_taken_over().await?;
        self.work.ends(&self.left.build_id).await?;
        self.left.stands().await?;
        let now = Kept::of(&self.left.ground).await?;
        ensure!(now.restarts == self.kept.restarts, "other pods, or restarts: {:?}", now.restarts);
        ensure!(now.replica_sets == self.kept.replica_sets, "a template was written: {:?}", now.replica_sets);
        ensure!(now.fleet[0] == self.kept.fleet[0], "its spec was written: {}", now.fleet[0]);
        Ok(())
    }

    /// Gives it another template, and waits until that is current; its Build ID.
    async fn rolls_out(&self) -> Result<String> {
        let fleet = orders(self.left.release.namespace, "two");
        let build_id = self.left.release.build_id(&fleet["spec"]["template"])?;
        ensure!(build_id != self.left.build_id, "no other version");
        self.left.ground.apply(&fleet).await?;
        eventually("the new version is current", async || {
            self.left.ground.has_condition(FLEET, ("Ready", "True", "RolloutComplete")).await?;
            let current = self.left.ground.status(FLEET).await?.current_version.unwrap_or_default().build_id;
            ensure!(current == build_id, "{current} is");
            Ok(())
        })
        .await?;
        Ok(build_id)
    }

    /// Nobody looks after it, its pods work on, and its former operator would find what it goes by.
    async fn is_given_back(&self, stage: &Stage, target: &str) -> Result<()> {
        self.work.goes_on().await?;
        let now = Kept::of(&self.left.ground).await?;
        ensure!(now == self.kept, "{now:?} was before: {:?}", self.kept);
        let (_, current, manager) = self.left.worker.routing().await?;
        ensure!(current == target, "{current} is current");
        let sight = Sight::of(&self.left.ground, manager).await?;
        let found = sight.goes_on(target, &self.left.release.identity(&stage.uid))?;
        ensure!(found.iter().eq(now.children.keys()), "it finds {found:?} of {:?}", now.children.keys());
        Ok(())
    }

    /// Nothing is left of it, neither here nor on the server.
    async fn is_gone(&self) -> Result<()> {
        let (ground, all) = (&self.left.ground, ListParams::default());
        eventually(&format!("{} is empty", ground.namespace), async || {
            ensure!(ground.api::<WorkerDeployment>().get_opt(FLEET).await?.is_none(), "the fleet is there");
            let deployments = ground.api::<Deployment>().list(&all).await?.items.len();
            let pods = ground.api::<Pod>().list(&all).await?.items.len();
            ensure!((deployments, pods) == (0, 0), "{deployments} Deployments, {pods} pods");
            Ok(())
        })
        .await?;
        let known = self.left.worker.versions_of(&self.left.worker_deployment()).await;
        let refusal = known.err().context("the server still knows of it")?;
        let code = refusal.downcast_ref::<Status>().map(Status::code);
        ensure!(code == Some(Code::NotFound), "{refusal:#}");
        Ok(())
    }
}

/// The fleets are the caller's, so that they are there still when a failure is explained.
async fn story(stage: &Stage, fleets: &mut Vec<Played>) -> Result<()> {
    let begun = Instant::now();
    let progress = |what: &str| println!("{what} after {:.1} s", begun.elapsed().as_secs_f64());
    let left = try_join_all(RELEASES.map(|release| stage.leave(release))).await?;
    *fleets = try_join_all(left.into_iter().map(|left| Played::of(stage, left))).await?;
    progress("fleets at work");

    stage.install(&[]).await?;
    progress("the operator leads");
    try_join_all(fleets.iter().map(Played::is_taken_over)).await?;
    let (writes, told) = (stage.writes().await?, Told::read()?);
    for fleet in fleets.iter() {
        told.holds(&fleet.left, &writes).with_context(|| fleet.left.release.namespace)?;
    }
    let scaled = writes.iter().find(|write| write.resource == "deployments/scale");
    ensure!(scaled.is_none(), "replicas were written: {scaled:?}");
    progress("taken over");

    let mut targets: Vec<_> = fleets.iter().map(|fleet| fleet.left.build_id.clone()).collect();
    let (last, target) = fleets.last().zip(targets.last_mut()).context("no fleet")?;
    *target = last.rolls_out().await?;
    // Its status says it all by then.
    stage.writes().await?;
    for fleet in fleets.iter_mut() {
        let before = std::mem::replace(&mut fleet.kept, Kept::of(&fleet.left.ground).await?);
        ensure!(before.restarts.iter().all(|pod| fleet.kept.restarts.get(pod.0) == Some(pod.1)), "{before:?}");
    }
    progress("rolled out");

    stage.uninstall().await?;
    try_join_all(fleets.iter().zip(&targets).map(|(fleet, target)| fleet.is_given_back(stage, target))).await?;
    progress("given back");

    stage.install(&["--set", "uninstall.deleteFleets=true"]).await?;
    stage.uninstall().await?;
    try_join_all(fleets.iter().map(Played::is_gone)).await?;
    progress("gone");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn running_fleets_are_taken_over_given_back_and_taken_along_when_that_is_said() -> Result<()> {
    let stage = Stage::start().await?;
    let mut fleets = Vec::new();
    story(&stage, &mut fleets).await.with_context(|| stage.explain())?;
    drop(fleets);
    stage.stop()
}
