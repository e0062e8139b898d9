//! Activities that come while something else happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::{Activity, Server};

/// Starts one activity after the other, with a pause between them, until told to stop; their IDs. A task that is lost comes
/// back after ten seconds, on its second attempt.
pub async fn stream(server: Arc<Server>, stop: Arc<AtomicBool>, pause: Duration) -> Result<Vec<String>> {
    let mut activities = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let activity = Activity { start_to_close: Duration::from_secs(10), attempts: 0, ..Activity::default() };
        activities.push(server.start_activity(activity).await?);
        tokio::time::sleep(pause).await;
    }
    Ok(activities)
}
