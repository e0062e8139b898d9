//! The fleets, by their number: their names, manifests and versions.

use std::time::Duration;

use anyhow::Result;
use e2e::wait::within;
use e2e::worker::Worker;
use serde_json::{Value, json};

use super::NAMESPACES;

/// Build ID of every fleet's only version.
const BUILD_ID: &str = "v1";
/// Time in which the server makes a version current.
const LIMIT: Duration = Duration::from_secs(120);
/// Replicas while a fleet is not scaled.
pub const REPLICAS: i32 = 2;

/// Name of a Temporal namespace.
pub fn temporal_namespace(number: usize) -> String {
    format!("shop-{number:02}")
}

/// Name of a Kubernetes namespace.
pub fn namespace(number: usize) -> String {
    format!("bench-{number:02}")
}

/// One fleet.
#[derive(Clone, Copy, Debug)]
pub struct Fleet(pub usize);

impl Fleet {
    /// Number of its namespaces.
    pub fn place(self) -> usize {
        self.0 % NAMESPACES
    }

    /// Kubernetes namespace.
    pub fn namespace(self) -> String {
        namespace(self.place())
    }

    /// Name, and that of its Task Queue.
    pub fn name(self) -> String {
        format!("fleet-{:04}", self.0)
    }

    /// Name of its Deployment.
    pub fn child(self) -> String {
        format!("{}-{BUILD_ID}", self.name())
    }

    /// Its manifest: as it is at first, or with `spec` on top.
    pub fn manifest(self, over: &Value) -> Value {
        let mut spec = json!({
            "workerOptions": {"connectionRef": {"name": "temporal"}, "unsafeCustomBuildID": BUILD_ID,
                "temporalNamespace": temporal_namespace(self.place())},
            "template": {
                "metadata": {"labels": {"app": self.name(), "team": "bench"}},
                "spec": {"containers": [{
                    "name": "worker",
                    "image": "registry.example.com/shop/worker:v1",
                    "env": [{"name": "TASK_QUEUE", "value": self.name()}, {"name": "LOG_LEVEL", "value": "info"}],
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                }]},
            },
            "rollout": {"strategy": "AllAtOnce"},
            "sunset": {},
            // What a benchmark leaves is gone with its server.
            "deletionPolicy": "Orphan",
        });
        for (key, value) in over.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        json!({"apiVersion": "temporal.io/v1alpha1", "kind": "WorkerDeployment",
            "metadata": {"name": self.name(), "namespace": self.namespace()}, "spec": spec})
    }

    /// The part of a manifest that has it scaled by its Task Queue.
    pub fn scaling(self) -> Value {
        let queues = json!([{"name": self.name(), "types": ["Workflow"]}]);
        json!({"scaling": {"minReplicas": 0, "maxReplicas": 10, "taskQueues": queues}})
    }

    /// Its Worker, played call by call.
    ///
    /// # Errors
    /// The address is none.
    pub fn worker(self, host_port: &str) -> Result<Worker> {
        Worker::of(host_port, &temporal_namespace(self.place()), &self.name())
    }

    /// Has the server know its version, and makes that current.
    ///
    /// # Errors
    /// The server does not know of it in time, or refuses.
    pub async fn register(self, host_port: &str) -> Result<()> {
        let worker = self.worker(host_port)?;
        let deployment = format!("{}/{}", self.namespace(), self.name());
        worker.register(&deployment, BUILD_ID).await?;
        // A server that is busy with so many registrations may be late.
        within(LIMIT, &format!("{deployment} is current"), async || worker.make_current().await).await
    }
}
