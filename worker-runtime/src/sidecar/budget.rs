//! The memory that messages under way may take, so that many large ones wait in their connections' windows, and not here.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a request that its connection takes before there is room for it. Those of all calls of a Worker together
/// stay below [`LARGEST_WINDOW`], that of the connection: otherwise those that wait here would take the room from those
/// that are being read, and each would wait for the other.
///
/// [`LARGEST_WINDOW`]: crate::transport::LARGEST_WINDOW
pub const REQUEST_WINDOW: u32 = 128 * 1024;
/// The same of an answer. The server is farther away: with less, a long answer would take a round trip for each part.
pub const ANSWER_WINDOW: u32 = 512 * 1024;
/// Bytes of one permit.
const UNIT: usize = 1024;

/// A bound on bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    units: Arc<Semaphore>,
    all: u32,
}

/// A part of it, until it is dropped.
pub type Share = OwnedSemaphorePermit;

impl Budget {
    /// A bound of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let all = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        Self { units: Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(usize::MAX))), all }
    }

    /// Waits for so many bytes; who asks for more than there are gets all of them.
    pub async fn share(&self, bytes: usize) -> Share {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.all);
        match self.units.clone().acquire_many_owned(units).await {
            Ok(share) => share,
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_waits_and_what_never_fits_goes_alone() {
        let budget = Budget::new(10 * UNIT);
        let first = budget.share(6 * UNIT).await;
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.share(100 * UNIT).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        drop(waiting.await.unwrap());
    }
}
