//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Deadline of what takes seconds on an idle machine; generous, since test machines are not idle.
pub const SOON: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

/// Waits until `look` succeeds, within [`SOON`].
///
/// # Errors
/// As [`within`].
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    within(SOON, what, look).await
}

/// Waits until `look` succeeds.
///
/// # Errors
/// It did not in time: the message holds its last error.
pub async fn within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        let error = match look().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if begun.elapsed() > limit {
            bail!("not within {} s: {what}; last seen: {error:#}", limit.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}
