//! Fleets by name, over the caches of all scopes.

use std::sync::Arc;

use kube::runtime::reflector::{ObjectRef, Store};
use operator_core::api::WorkerDeployment;
use parking_lot::RwLock;

use super::watches::Guarded;

/// The caches of WorkerDeployments, one a scope.
#[derive(Default)]
pub struct Directory(RwLock<Vec<Store<Guarded<WorkerDeployment>>>>);

impl Directory {
    /// Adds a scope's cache.
    pub fn add(&self, fleets: Store<Guarded<WorkerDeployment>>) {
        self.0.write().push(fleets);
    }

    /// The fleet of a Kubernetes namespace and name; none while the caches don't show it.
    #[must_use]
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Guarded<WorkerDeployment>>> {
        let key = ObjectRef::new(name).within(namespace);
        self.0.read().iter().find_map(|fleets| fleets.get(&key))
    }
}
