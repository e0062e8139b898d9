//! Trials: one task for a fleet at zero, and when what followed happened.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{AuditEvent, Cluster};
use jiff::Timestamp;
use kube::Client;
use rand::RngExt as _;
use serde::Serialize;
use serde_json::{Value, json};

use crate::fleet::{Fleet, NAMESPACE};
use crate::leader::Leader;
use crate::stage::{OPERATOR, Stage, WORKER_IMAGE};
use crate::tasks::{ACTIVITY_TYPE, Tasks};

/// Short, so that a trial is over soon; detection and start do not depend on it.
const IDLE_WINDOW: &str = "3s";
/// Live readings of the Task Queue between the way to zero and the next task: two of each of its four partitions.
const READINGS: f64 = 8.0;
/// Up to this long is waited before a task, so that tasks don't come in step with the operator's readings.
const PAUSE_MS: u64 = 1500;
/// Time that a task waits before replicas are raised by hand.
const WAITING_MS: u64 = 500;

/// Who raises the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaler {
    /// The operator.
    Operator,
    /// A client that knows when to.
    Hand,
}

/// One trial. Times are the server's and the API server's, on one machine.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// Who raised the replicas.
    pub scaler: Scaler,
    /// The server accepted the task.
    pub accepted: Timestamp,
    /// The API server received the write that raised the replicas.
    pub patched: Timestamp,
    /// A Worker took the task.
    pub started: Timestamp,
    /// The task was completed.
    pub completed: Timestamp,
    /// From `accepted` to `patched`.
    pub accepted_to_patched_ms: f64,
    /// From `patched` to `completed`.
    pub patched_to_first_task_ms: f64,
    /// From `accepted` to `completed`.
    pub accepted_to_first_task_ms: f64,
    /// Identity of the Worker.
    pub worker: String,
}

/// Two fleets at zero: one is the operator's to scale, the other is not.
pub struct Bench<'a> {
    cluster: &'a Cluster,
    client: Client,
    tasks: Tasks,
    scaled: Fleet,
    by_hand: Fleet,
}

impl<'a> Bench<'a> {
    /// Applies the fleets and waits until both rest at zero.
    ///
    /// # Errors
    /// They don't get there.
    pub async fn set_up(stage: &'a Stage) -> Result<Self> {
        let client = stage.cluster.client();
        let scaling = json!({"minReplicas": 0, "maxReplicas": 2, "idleWindow": IDLE_WINDOW});
        let scaled = Fleet::apply(client.clone(), "scaled", echo("scaled"), Some(scaling)).await?;
        let by_hand = Fleet::apply(client.clone(), "by-hand", echo("by-hand"), None).await?;
        scaled.wait_ready().await?;
        by_hand.wait_ready().await?;
        by_hand.scale(0).await?;
        let tasks = Tasks::connect(&stage.server.host_port()).await?;
        Ok(Self { cluster: &stage.cluster, client, tasks, scaled, by_hand })
    }

    /// One trial.
    ///
    /// # Errors
    /// A fleet does not go to zero, or the task is not completed once, or somebody else wrote the replicas.
    pub async fn trial(&self, scaler: Scaler) -> Result<Trial> {
        self.rest().await?;
        let fleet = match scaler {
            Scaler::Operator => &self.scaled,
            Scaler::Hand => &self.by_hand,
        };
        let task = self.tasks.start(fleet.name()).await?;
        if scaler == Scaler::Hand {
            tokio::time::sleep(Duration::from_millis(WAITING_MS)).await;
            fleet.scale(1).await?;
        }
        let done = self.tasks.completed(&task).await?;
        if scaler == Scaler::Hand {
            fleet.scale(0).await?;
        }
        let child = fleet.child_name().await?;
        let patched = raised(&self.cluster.audit_events()?, &child, done.accepted, scaler)?;
        Ok(Trial {
            scaler,
            accepted: done.accepted,
            patched,
            started: done.started,
            completed: done.completed,
            accepted_to_patched_ms: milliseconds(done.accepted, patched),
            patched_to_first_task_ms: milliseconds(patched, done.completed),
            accepted_to_first_task_ms: milliseconds(done.accepted, done.completed),
            worker: done.worker,
        })
    }

    /// Waits until both fleets are at zero and the operator watches for tasks, and then for a random time more.
    async fn rest(&self) -> Result<Leader> {
        self.by_hand.wait_at_zero().await?;
        self.scaled.wait_at_zero().await?;
        let leader = Leader::find(&self.client).await?;
        leader.wait_sweeps(READINGS).await?;
        let pause = rand::rng().random_range(0..PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        Ok(leader)
    }

    /// Leaves one fleet at zero and nothing else; the operator's leader.
    ///
    /// # Errors
    /// The other fleet is not deleted, or this one does not go to zero.
    pub async fn leave_one(self) -> Result<Leader> {
        self.rest().await?;
        self.by_hand.delete().await?;
        Leader::find(&self.client).await
    }
}

/// Activities that give back their arguments.
fn echo(task_queue: &str) -> Value {
    json!({
        "image": WORKER_IMAGE,
        "taskQueues": [{"name": task_queue, "maxConcurrentActivities": 4}],
        "handlers": [{"name": "cat", "exec": {"command": ["/bin/cat"], "timeout": "20s"}}],
        "activities": [{"type": ACTIVITY_TYPE, "handler": "cat"}],
    })
}

/// When the first write since `accepted` that raised the replicas of a Deployment was received.
fn raised(events: &[AuditEvent], child: &str, accepted: Timestamp, scaler: Scaler) -> Result<Timestamp> {
    let operator = format!("system:serviceaccount:{OPERATOR}:");
    let of_child = |event: &&AuditEvent| {
        event.resource == "deployments/scale" && (event.namespace.as_str(), event.name.as_str()) == (NAMESPACE, child)
    };
    let raises = |event: &&AuditEvent| event.code < 300 && event.replicas.is_some_and(|replicas| replicas > 0);
    let found = events.iter().filter(|event| event.time >= accepted).filter(of_child).find(raises);
    let event = found.with_context(|| format!("nobody raised the replicas of {child}"))?;
    let by_operator = event.user.starts_with(&operator);
    ensure!(by_operator == (scaler == Scaler::Operator), "{} raised the replicas of {child}", event.user);
    Ok(event.time)
}

fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(second: i64, user: &str, replicas: i64) -> AuditEvent {
        AuditEvent {
            time: Timestamp::from_second(second).unwrap(),
            user: user.into(),
            verb: "patch".into(),
            resource: "deployments/scale".into(),
            namespace: NAMESPACE.into(),
            name: "child".into(),
            code: 200,
            replicas: Some(replicas),
            ..AuditEvent::default()
        }
    }

    #[test]
    fn the_first_write_after_the_task_that_raised_the_replicas_counts() {
        let operator = format!("system:serviceaccount:{OPERATOR}:sa");
        let mut refused = write(11, &operator, 1);
        refused.code = 409;
        let events = [write(5, &operator, 1), write(8, &operator, 0), refused, write(12, &operator, 1)];
        let accepted = Timestamp::from_second(10).unwrap();
        let at = |scaler| raised(&events, "child", accepted, scaler);
        assert_eq!(at(Scaler::Operator).unwrap(), Timestamp::from_second(12).unwrap());
        assert!(at(Scaler::Hand).unwrap_err().to_string().contains("serviceaccount"));
        assert!(raised(&events, "other", accepted, Scaler::Operator).is_err());
    }
}
