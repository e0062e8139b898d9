//! Why a task is to stop before its end, and the wait for it.

use temporalio_common::protos::coresdk::activity_task::ActivityCancelReason;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why a task is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody asked for it.
    Cancelled,
    /// One of its timeouts is over: the server no longer waits for it.
    TimedOut,
    /// The server does not know it any more.
    NotFound,
    /// Somebody paused it.
    Paused,
    /// Somebody reset it.
    Reset,
    /// The drain timeout of this process is over.
    WorkerShutdown,
}

impl Reason {
    /// The word that handlers get.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::TimedOut => "TIMED_OUT",
            Self::NotFound => "NOT_FOUND",
            Self::Paused => "PAUSED",
            Self::Reset => "RESET",
            Self::WorkerShutdown => "WORKER_SHUTDOWN",
        }
    }

    /// Whether the server waits for no answer.
    fn is_forgotten(self) -> bool {
        matches!(self, Self::TimedOut | Self::NotFound)
    }
}

impl From<ActivityCancelReason> for Reason {
    fn from(reason: ActivityCancelReason) -> Self {
        match reason {
            ActivityCancelReason::Cancelled => Self::Cancelled,
            ActivityCancelReason::TimedOut => Self::TimedOut,
            ActivityCancelReason::NotFound => Self::NotFound,
            ActivityCancelReason::Paused => Self::Paused,
            ActivityCancelReason::Reset => Self::Reset,
            ActivityCancelReason::WorkerShutdown => Self::WorkerShutdown,
        }
    }
}

/// Tells one task when it is to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop {
    server: watch::Receiver<Option<Reason>>,
    abandon: CancellationToken,
}

impl Stop {
    /// A stop that is never asked for until `server` holds a reason, or `abandon` is cancelled.
    pub fn new(server: watch::Receiver<Option<Reason>>, abandon: CancellationToken) -> Self {
        Self { server, abandon }
    }

    /// Waits until the task is to stop.
    pub async fn asked(&self) -> Reason {
        tokio::select! {
            biased;
            reason = self.told(|_| true) => reason,
            () = self.abandon.cancelled() => Reason::WorkerShutdown,
        }
    }

    /// Waits until the server no longer waits for the task's end.
    pub async fn forgotten(&self) {
        self.told(Reason::is_forgotten).await;
    }

    async fn told(&self, which: impl Fn(Reason) -> bool) -> Reason {
        let mut server = self.server.clone();
        match server.wait_for(|reason| reason.is_some_and(&which)).await.map(|reason| *reason) {
            Ok(Some(reason)) => reason,
            // Nobody is left who could ask.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_stop_is_asked_for_by_the_server_or_at_the_end_of_the_drain() {
        let (server, receiver) = watch::channel(None);
        let abandon = CancellationToken::new();
        let stop = Stop::new(receiver, abandon.clone());
        assert_eq!(stop.asked().now_or_never(), None);
        abandon.cancel();
        assert_eq!(stop.asked().now_or_never(), Some(Reason::WorkerShutdown));
        assert_eq!(stop.forgotten().now_or_never(), None);
        server.send_replace(Some(Reason::TimedOut));
        assert_eq!(stop.asked().now_or_never(), Some(Reason::TimedOut), "the server's reason says more");
        assert_eq!(stop.forgotten().now_or_never(), Some(()));
    }
}
