//! A gate that opens once, for any number of waiters.
//!
//! `Store::wait_until_ready` of kube-runtime 5.0 wakes only the waiter that polled last, so with two of them one may wait
//! for ever. The controller's own wait is the only one; everybody else waits here.

use tokio::sync::watch;

/// Closed at first.
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    /// Opens it for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn passed(&self) {
        // The sender lives as long as `self`, so the wait can't fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn every_waiter_passes_when_it_opens() {
        let gate = Arc::new(Gate::default());
        let waiters: Vec<_> = (0..5)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.passed().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        gate.open();
        for waiter in waiters {
            waiter.await.unwrap();
        }
        gate.passed().await;
    }
}
