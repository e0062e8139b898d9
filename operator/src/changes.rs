//! Fleets whose situation changed, waiting to be looked at.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A fleet: the uid of its `WorkerDeployment`. Opaque here; cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FleetId(Arc<str>);

impl FleetId {
    /// The uid.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for FleetId {
    fn from(uid: &str) -> Self {
        Self(uid.into())
    }
}

impl From<String> for FleetId {
    fn from(uid: String) -> Self {
        Self(uid.into())
    }
}

impl fmt::Display for FleetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A queue of fleets in which each stands at most once: whoever is slow to read it gets fewer entries, not a longer
/// queue.
#[derive(Default)]
pub struct Changes {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    order: VecDeque<FleetId>,
    members: HashSet<FleetId>,
}

impl Changes {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Adds a fleet, unless it waits already.
    pub fn send(&self, fleet: &FleetId) {
        let mut waiting = self.waiting.lock();
        if waiting.members.insert(fleet.clone()) {
            waiting.order.push_back(fleet.clone());
            self.arrived.notify_one();
        }
    }

    /// Takes the fleet that has waited longest; waits for one. Nothing is lost when the wait is given up.
    pub async fn next(&self) -> FleetId {
        loop {
            if let Some(fleet) = self.take() {
                return fleet;
            }
            self.arrived.notified().await;
        }
    }

    /// The queue as a stream without an end.
    pub fn stream(self: Arc<Self>) -> impl Stream<Item = FleetId> + Send {
        futures::stream::unfold(self, |changes| async move {
            let fleet = changes.next().await;
            Some((fleet, changes))
        })
    }

    fn take(&self) -> Option<FleetId> {
        let mut waiting = self.waiting.lock();
        let fleet = waiting.order.pop_front()?;
        waiting.members.remove(&fleet);
        Some(fleet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fleet_that_waits_is_not_added_again() {
        let changes = Changes::new();
        for uid in ["a", "b", "a", "a"] {
            changes.send(&uid.into());
        }
        assert_eq!((changes.next().await.as_str(), changes.next().await.as_str()), ("a", "b"));
        assert!(changes.take().is_none());
        changes.send(&"a".into());
        assert_eq!(changes.next().await.as_str(), "a");
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let changes = Changes::new();
        let reader = tokio::spawn({
            let changes = changes.clone();
            async move { changes.next().await }
        });
        tokio::task::yield_now().await;
        changes.send(&"a".into());
        assert_eq!(reader.await.unwrap().as_str(), "a");
    }
}
