//! The runtime as a library, for Workers written in Rust.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use futures::FutureExt as _;
use futures::future::{join_all, try_join_all};
use operator_core::contract::RuntimeConfig;
use temporalio_common::worker::VersioningBehavior;
use temporalio_sdk::WorkerOptions;
use tokio::sync::watch;

use crate::files::{Files, Told};
use crate::hosted::{Common, Hosted};
use crate::lifecycle::{Ended, Stage};
use crate::options::Options;
use crate::process::Process;
use crate::queue::Wish;
use crate::resources::Controllers;
use crate::{limits, link};

/// A Worker process: the Workflows and Activities of a team, on one or several Task Queues.
///
/// It reads what the operator writes: `TEMPORAL_*` of the environment for connection and version, and the files that
/// `WORKER_RUNTIME_CONFIG` and `WORKER_RUNTIME_LIMITS` name, if any. It connects, retrying until it works, serves
/// `/metrics` on port 8080 and `/healthz`, `/readyz`, `/drained` on port 8081, encrypts, and on SIGTERM finishes what runs.
///
/// ```no_run
/// # use temporalio_sdk::WorkerOptions;
/// # async fn worker(orders: WorkerOptions, mails: WorkerOptions) -> anyhow::Result<worker_runtime::Ended> {
/// worker_runtime::Worker::builder().task_queue(orders).task_queue(mails).build()?.run().await
/// # }
/// ```
///
/// Deployment options, slots, identity and shutdown period of the [`WorkerOptions`] are the runtime's to set; every
/// other option is the team's.
pub struct Worker {
    task_queues: Vec<WorkerOptions>,
    behavior: VersioningBehavior,
}

/// Builds a [`Worker`].
pub struct WorkerBuilder(Worker);

impl Worker {
    /// A process without Task Queues.
    #[must_use]
    pub fn builder() -> WorkerBuilder {
        WorkerBuilder(Self { task_queues: Vec::new(), behavior: VersioningBehavior::AutoUpgrade })
    }

    /// Runs until SIGTERM or SIGINT, and then until what runs has ended, within the drain timeout. Says how that went; as
    /// the value of `main` it is the exit code.
    ///
    /// # Errors
    /// The environment or a file can't be used, the Task Queues are not those of the configuration, a port is taken,
    /// or the server refuses the Worker; the message names what it is about, and what to do.
    pub async fn run(self) -> anyhow::Result<Ended> {
        // Boxed, so that what a Worker does is compiled with this library, and not with each program once more.
        self.host().boxed_local().await
    }

    async fn host(self) -> anyhow::Result<Ended> {
        let options = Options::from_environment()?;
        let process = Process::start(&options).await?;
        self.check(&process.told.borrow())?;
        process.run(async |process| self.serve(process).await).await
    }

    fn check(&self, told: &Told) -> anyhow::Result<()> {
        let names: Vec<_> = self.task_queues.iter().map(|options| options.task_queue.as_str()).collect();
        limits::check(&told.limits)?;
        check_task_queues(&names, told.config.as_ref())
    }

    async fn serve(&self, process: &Process) -> anyhow::Result<()> {
        let lifecycle = &process.lifecycle;
        let (link, keeper) = tokio::select! {
            opened = link::open(&process.settings, process.wire.clone(), &process.metrics) => opened?,
            () = lifecycle.reached(Stage::Draining) => return Ok(()),
        };
        let controllers = Controllers::default();
        let common = Common { process, link: &link, controllers: &controllers, behavior: self.behavior };
        let (mut wishes, mut hosted) = (BTreeMap::new(), Vec::new());
        for options in &self.task_queues {
            let (sender, wish) = watch::channel(Wish::of(&options.task_queue, &process.told.borrow().limits));
            wishes.insert(options.task_queue.as_str(), sender);
            hosted.push(Hosted::new(common, options.clone(), wish)?);
        }
        let ready = async {
            join_all(hosted.iter().map(Hosted::polled)).await;
            lifecycle.reach(Stage::Serving);
            std::future::pending().await
        };
        let mut files = process.files()?;
        tokio::select! {
            result = try_join_all(hosted.iter().map(Hosted::work)) => drop(result?),
            () = ready => {}
            () = keeper.keep() => {}
            () = self.follow(process, &mut files, &wishes) => {}
        }
        Ok(())
    }

    /// Takes over what the files say. Never returns.
    async fn follow(&self, process: &Process, files: &mut Files, wishes: &BTreeMap<&str, watch::Sender<Wish>>) {
        loop {
            let told = files.changed().await;
            if let Err(problem) = self.check(&told) {
                files.refuse(format!("{problem:#}"));
                continue;
            }
            for (task_queue, wish) in wishes {
                let now = Wish::of(task_queue, &told.limits);
                wish.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
            }
            process.take_over(files, told);
        }
    }
}

impl WorkerBuilder {
    /// Adds the Worker of one Task Queue. All share one connection.
    #[must_use]
    pub fn task_queue(mut self, options: WorkerOptions) -> Self {
        self.0.task_queues.push(options);
        self
    }

    /// What a Workflow does when another version becomes Current: stay with its version (`Pinned`), or move on
    /// (`AutoUpgrade`, the default). Only with Worker Versioning.
    #[must_use]
    pub fn versioning_behavior(mut self, behavior: VersioningBehavior) -> Self {
        self.0.behavior = behavior;
        self
    }

    /// The Worker.
    ///
    /// # Errors
    /// It has no Task Queue, or one twice.
    pub fn build(self) -> anyhow::Result<Worker> {
        self.0.check(&Told::default()).context("the Worker can't be built")?;
        Ok(self.0)
    }
}

/// Checks that the Task Queues of the program are those that the operator scales by.
fn check_task_queues(names: &[&str], config: Option<&RuntimeConfig>) -> anyhow::Result<()> {
    ensure!(!names.is_empty(), "the Worker has no Task Queue; add one with WorkerBuilder::task_queue");
    let registered: BTreeSet<_> = names.iter().copied().collect();
    ensure!(
        registered.len() == names.len(),
        "two Workers of the program poll the same Task Queue, of {names:?}; merge them"
    );
    let Some(config) = config else { return Ok(()) };
    let problems: Vec<_> = config.violations().iter().map(ToString::to_string).collect();
    ensure!(problems.is_empty(), "the configuration can't run:\n{}", problems.join("\n"));
    let configured: BTreeSet<_> = config.task_queues.iter().map(String::as_str).collect();
    ensure!(
        registered == configured,
        "taskQueues of the configuration are {configured:?}, and the program polls {registered:?}; make them equal: a \
         Task Queue that only one side knows is not scaled, or not polled"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(queues: &[&str]) -> RuntimeConfig {
        RuntimeConfig {
            version: operator_core::contract::CONFIG_VERSION,
            task_queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
            handlers: Vec::new(),
            activities: Vec::new(),
        }
    }

    #[test]
    fn the_program_polls_what_the_operator_scales() {
        assert!(check_task_queues(&["a", "b"], Some(&config(&["b", "a"]))).is_ok());
        assert!(check_task_queues(&["a"], None).is_ok());
        let message = check_task_queues(&["a"], Some(&config(&["a", "c"]))).unwrap_err().to_string();
        assert!(message.contains("\"c\"") && message.contains("make them equal"), "{message}");
        assert!(check_task_queues(&["a", "a"], None).is_err() && check_task_queues(&[], None).is_err());
    }
}
