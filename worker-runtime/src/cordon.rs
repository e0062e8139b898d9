//! Whether this process takes new tasks: by default it does, until an order says otherwise, and again when that lapses.
//!
//! A cordon cuts nothing. It lets no further poll begin; polls that are open end by themselves, and what they bring is done,
//! like all that runs. Sticky polls go on: they bring the next tasks of Workflows that this process runs already, and that
//! would wait for ten seconds each to be moved elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jiff::Timestamp;
use operator_core::contract::CordonStatus;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// When a cordon lapses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// By the clock that nobody sets.
    pub instant: Instant,
    /// By the clock on the wall, for people.
    pub wall: Timestamp,
}

/// The cordon of a process, and what may still come or runs behind it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cordon {
    until: watch::Sender<Option<Until>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    open_polls: AtomicU64,
    running: AtomicU64,
}

impl Default for Cordon {
    fn default() -> Self {
        Self { until: watch::Sender::new(None), counts: Arc::default() }
    }
}

impl Cordon {
    /// Takes no new task `until` then, or takes tasks again.
    pub fn set(&self, until: Option<Until>) {
        let before = self.until.send_replace(until);
        match (before, until) {
            (None, Some(until)) => tracing::info!(until = %until.wall, "cordoned: no further poll begins"),
            (Some(_), None) => tracing::info!("uncordoned: polling goes on"),
            _ => {}
        }
    }

    /// Whether no further poll may begin.
    pub fn is_on(&self) -> bool {
        self.until.borrow().is_some()
    }

    /// Waits until polls may begin.
    pub async fn lifted(&self) {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.until.subscribe().wait_for(Option::is_none).await;
    }

    /// Ends each cordon at its time. Never returns.
    pub async fn keep(&self) {
        let mut watcher = self.until.subscribe();
        loop {
            let until = *watcher.borrow_and_update();
            let lapse = async {
                match until {
                    Some(until) => sleep_until(until.instant).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = watcher.changed() => {}
                () = lapse => {
                    tracing::warn!("the order to take no new task lapsed: nobody renewed it");
                    self.set(None);
                }
            }
        }
    }

    /// What holds now.
    pub fn status(&self) -> CordonStatus {
        let until = *self.until.borrow();
        // In this order: a poll that brings a task is counted as running before it is no longer counted as open.
        let open_polls = self.counts.open_polls.load(Ordering::SeqCst);
        let running_tasks = self.counts.running.load(Ordering::SeqCst);
        CordonStatus {
            cordoned: until.is_some(),
            until: until.map(|until| until.wall),
            open_polls,
            running_tasks,
            empty: until.is_some() && open_polls == 0 && running_tasks == 0,
        }
    }

    /// Counts somebody who polls, or is about to. A `sticky` poll brings no task of a new Workflow.
    pub fn pass(&self, sticky: bool) -> Pass {
        if !sticky {
            self.counts.open_polls.fetch_add(1, Ordering::SeqCst);
        }
        Pass { counts: self.counts.clone(), sticky, runs: AtomicBool::new(false) }
    }
}

/// Somebody who polls, and then runs the task that the poll brought. Counted until it is dropped.
#[derive(Debug)]
pub struct Pass {
    counts: Arc<Counts>,
    sticky: bool,
    runs: AtomicBool,
}

impl Pass {
    /// The poll brought a task, which runs from now on. Says whether that is new.
    pub fn run(&self) -> bool {
        let new = !self.runs.swap(true, Ordering::SeqCst);
        if new {
            self.counts.running.fetch_add(1, Ordering::SeqCst);
            self.end_poll();
        }
        new
    }

    /// Whether it runs a task.
    pub fn runs(&self) -> bool {
        self.runs.load(Ordering::SeqCst)
    }

    fn end_poll(&self) {
        if !self.sticky {
            self.counts.open_polls.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.runs() {
            self.counts.running.fetch_sub(1, Ordering::SeqCst);
        } else {
            self.end_poll();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn until(from_now: Duration) -> Option<Until> {
        Some(Until { instant: Instant::now() + from_now, wall: Timestamp::UNIX_EPOCH })
    }

    #[tokio::test]
    async fn a_cordon_lapses_at_its_time_unless_it_is_renewed() {
        let cordon = Cordon::default();
        let keeper = tokio::spawn({
            let cordon = cordon.clone();
            async move { cordon.keep().await }
        });
        let begun = Instant::now();
        cordon.set(until(Duration::from_millis(50)));
        cordon.lifted().await;
        assert!(begun.elapsed() >= Duration::from_millis(50));
        cordon.set(until(Duration::from_millis(50)));
        cordon.set(until(Duration::from_millis(300)));
        let renewed = Instant::now();
        cordon.lifted().await;
        assert!(renewed.elapsed() >= Duration::from_millis(290), "{:?}", renewed.elapsed());
        keeper.abort();
    }

    #[test]
    fn empty_is_cordoned_without_a_poll_or_a_task() {
        let cordon = Cordon::default();
        let seen = |cordon: &Cordon| {
            let status = cordon.status();
            (status.open_polls, status.running_tasks, status.empty)
        };
        let (poll, task, sticky) = (cordon.pass(false), cordon.pass(false), cordon.pass(true));
        task.run();
        assert_eq!(seen(&cordon), (1, 1, false));
        drop(task);
        drop(poll);
        assert_eq!(seen(&cordon), (0, 0, false), "it takes tasks");
        cordon.set(until(Duration::from_secs(60)));
        assert_eq!(seen(&cordon), (0, 0, true), "a sticky poll does not count");
        sticky.run();
        assert_eq!(seen(&cordon), (0, 1, false), "its task does");
        drop(sticky);
        assert_eq!(seen(&cordon), (0, 0, true));
    }
}
