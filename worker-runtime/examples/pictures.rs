//! A Rust Worker on the runtime's library: two Workflows and an Activity, in one process, on two Task Queues.
//!
//! The Workflow `MakeThumbnails` has thumbnails made on a Task Queue that another fleet serves, in any language (the
//! example's is the program `thumbnail.rs`, as an `exec` handler), and has them checked by an Activity of its own. The
//! Workflow `CheckRelease` is for the gate of a rollout: it runs that Activity alone, on what a release must agree with.

#[path = "shared/picture.rs"]
mod picture;

use std::collections::BTreeMap;
use std::time::Duration;

use picture::{Order, Thumbnail};
use serde::{Deserialize, Serialize};
use temporalio_macros::{activities, activity_definitions, workflow, workflow_methods};
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use temporalio_sdk::{ActivityOptions, WorkerOptions, WorkflowContext, WorkflowResult};
use temporalio_workflow::RetryPolicy;

/// Task Queue of the Workflow.
const WORKFLOWS: &str = "pictures-workflows";
/// Task Queue of the check.
const CHECKS: &str = "pictures-local";
/// Activities that a Workflow has open at a time; the server allows 2,000.
const AT_A_TIME: u32 = 1000;

/// What the Workflow is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    /// Thumbnails to make.
    pictures: u32,
    /// Width of each, in pixels.
    #[serde(default = "default_width")]
    width: u32,
    /// Different pictures that there are.
    #[serde(default = "default_different")]
    different: u32,
    /// Task Queue of the fleet that makes thumbnails.
    #[serde(default = "default_task_queue")]
    task_queue: String,
    /// Time limit of one thumbnail, once started.
    #[serde(default = "default_start_to_close")]
    start_to_close_seconds: u64,
}

fn default_width() -> u32 {
    320
}

fn default_different() -> u32 {
    12
}

fn default_task_queue() -> String {
    "thumbnails".to_owned()
}

fn default_start_to_close() -> u64 {
    60
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Summary {
    /// Thumbnails made.
    pictures: u32,
    /// Thumbnails that were checked and are right.
    checked: u32,
    /// Size of all their files.
    bytes: usize,
}

/// Has thumbnails made and checked.
#[workflow]
#[derive(Default)]
struct MakeThumbnails;

#[workflow_methods]
impl MakeThumbnails {
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, request: Request) -> WorkflowResult<Summary> {
        let mut summary = Summary::default();
        for first in (0..request.pictures).step_by(AT_A_TIME as usize) {
            let numbers = first..request.pictures.min(first + AT_A_TIME);
            let made = temporalio_workflow::join_all(numbers.map(|number| {
                let order = Order { picture: picture::name(number % request.different), width: request.width };
                let limit = Duration::from_secs(request.start_to_close_seconds);
                let options =
                    ActivityOptions::with_start_to_close_timeout(limit).task_queue(request.task_queue.clone()).build();
                ctx.execute_activity(Thumbnails::make, order, options)
            }))
            .await;
            let made = made.into_iter().collect::<Result<Vec<Thumbnail>, _>>()?;
            summary.pictures += u32::try_from(made.len()).unwrap_or(u32::MAX);
            summary.bytes += made.iter().map(|thumbnail| thumbnail.bytes).sum::<usize>();
            let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(300))
                .task_queue(CHECKS.to_owned())
                .build();
            summary.checked += ctx.execute_activity(Checks::check, made, options).await?;
        }
        Ok(summary)
    }
}

/// Passes when this release agrees with thumbnails of earlier ones.
#[workflow]
#[derive(Default)]
struct CheckRelease;

#[workflow_methods]
impl CheckRelease {
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, thumbnails: Vec<Thumbnail>) -> WorkflowResult<u32> {
        let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(60))
            .task_queue(CHECKS.to_owned())
            .retry_policy(RetryPolicy::builder().maximum_attempts(1).build())
            .build();
        Ok(ctx.execute_activity(Checks::check, thumbnails, options).await?)
    }
}

/// The activity of the other fleet.
struct Thumbnails;

#[activity_definitions]
impl Thumbnails {
    #[activity(name = "Thumbnail")]
    #[expect(clippy::unimplemented, reason = "the macro asks for this very body, and never runs it")]
    fn make(_: Order) -> Result<Thumbnail, ActivityError> {
        unimplemented!()
    }
}

struct Checks;

#[activities]
impl Checks {
    /// Compares each thumbnail with one made here, and its colour with that of the picture itself; the answer is how
    /// many there were. A wrong one fails the activity.
    #[activity(name = "CheckThumbnails")]
    async fn check(_ctx: ActivityContext, thumbnails: Vec<Thumbnail>) -> Result<u32, ActivityError> {
        let checked = tokio::task::spawn_blocking(move || check(&thumbnails)).await.map_err(anyhow::Error::from)?;
        Ok(checked?)
    }
}

fn check(thumbnails: &[Thumbnail]) -> anyhow::Result<u32> {
    let mut expected = BTreeMap::new();
    for thumbnail in thumbnails {
        let key = (thumbnail.picture.clone(), thumbnail.width);
        if !expected.contains_key(&key) {
            let made = expectation(&thumbnail.picture, thumbnail.width)?;
            expected.insert(key.clone(), made);
        }
        anyhow::ensure!(
            expected.get(&key) == Some(thumbnail),
            "thumbnail {thumbnail:?} is wrong; expected {:?}",
            expected.get(&key)
        );
    }
    Ok(u32::try_from(thumbnails.len())?)
}

/// The thumbnail that a picture must give, from the picture itself.
fn expectation(name: &str, width: u32) -> anyhow::Result<Thumbnail> {
    let number = name.trim_start_matches("picture-").trim_end_matches(".jpg").parse()?;
    let file = picture::draw(number)?;
    let expected = picture::shrink(name, &file, width)?;
    let whole = picture::mean(&image::load_from_memory(&file)?.to_rgb8());
    let near = whole.iter().zip(expected.mean_color).all(|(whole, small)| whole.abs_diff(small) <= 3);
    anyhow::ensure!(near, "the mean colour of {name} is {whole:?}, and its thumbnail's {:?}", expected.mean_color);
    Ok(expected)
}

#[tokio::main]
async fn main() -> anyhow::Result<worker_runtime::Ended> {
    worker_runtime::init_logs();
    let workflows =
        WorkerOptions::new(WORKFLOWS).register_workflow::<MakeThumbnails>()?.register_workflow::<CheckRelease>()?;
    worker_runtime::Worker::builder()
        .task_queue(workflows.build())
        .task_queue(WorkerOptions::new(CHECKS).register_activities(Checks).build())
        .build()?
        .run()
        .await
}
