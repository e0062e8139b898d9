//! Keeps Connections and ClusterConnections that are in use from going.
//!
//! A ClusterConnection is held only by an operator that sees the fleets of all namespaces: another one would let it go while a
//! fleet that it does not see has it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt as _};
use operator_core::api::{ClusterConnection, Connection, ConnectionKind, DeletionPolicy, WorkerDeployment};
use operator_core::backoff::{Backoff, RetryClass};
use operator_core::connection_use::{Change, Holdable, Use, changes};

use super::Context;
use crate::kube::apply;
use crate::kube::client::CallError;
use crate::kube::connection::allows;
use crate::kube::watches::{Caches, Guarded};
use crate::settings::RESYNC;

/// Changes that come together are looked at once.
const SETTLE: Duration = Duration::from_millis(200);

/// Gives Connections of a scope, and ClusterConnections if it is that of all namespaces, the finalizer, and takes it away, for as long as the process lives.
pub(super) async fn hold(ctx: Arc<Context>) {
    ctx.caches.wait_until_ready().await;
    let mut led = ctx.leadership.clone().gained().boxed();
    let mut changed = ctx.caches.uses_changed.subscribe();
    let mut backoff = Backoff::default();
    loop {
        let mut pause = RESYNC;
        match look(&ctx).await {
            0 => backoff = Backoff::default(),
            _ => (backoff, pause) = backoff.next(RetryClass::Transient, rand::random()),
        }
        let woken = async {
            tokio::select! {
                _ = changed.changed() => {}
                _ = led.next() => {}
            }
        };
        // What fails is not tried again sooner because something else changes.
        match backoff.failures() {
            0 => _ = tokio::time::timeout(pause, woken).await,
            _ => tokio::time::sleep(pause).await,
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// Makes the changes that are due. Gives back how many failed.
async fn look(ctx: &Context) -> usize {
    if !ctx.leadership.may_write() {
        return 0;
    }
    let due = changes(&uses(ctx).await, &holdables(&ctx.caches));
    let mut failed = 0;
    for (connection, change) in due {
        if let Err(error) = set(ctx, &connection, change).await {
            let (namespace, name) = (&connection.namespace, &connection.name);
            tracing::warn!(namespace, name, %error, ?change, "finalizer of the Connection not changed");
            failed += 1;
        }
    }
    failed
}

async fn set(ctx: &Context, connection: &Holdable, change: Change) -> Result<(), CallError> {
    let (namespace, name, client) = (&connection.namespace, &connection.name, ctx.client.clone());
    let is_held = change == Change::Hold;
    let Some(_permit) = ctx.leadership.permit().await else { return Ok(()) };
    if namespace.is_empty() {
        let key = ObjectRef::<Guarded<ClusterConnection>>::new(name);
        let Some(found) = ctx.caches.cluster_connections.get(&key) else { return Ok(()) };
        return apply::set_protected(&Api::<ClusterConnection>::all(client), found.meta(), is_held).await;
    }
    let key = ObjectRef::<Guarded<Connection>>::new(name).within(namespace);
    let Some(found) = ctx.caches.connections.get(&key) else { return Ok(()) };
    apply::set_protected(&Api::<Connection>::namespaced(client, namespace), found.meta(), is_held).await
}

async fn uses(ctx: &Context) -> Vec<Use> {
    let mut uses = Vec::new();
    for fleet in ctx.caches.fleets.state() {
        let of = uses_of(&fleet);
        let is_shared = of.len() == 1 && of[0].namespace.is_empty();
        // Who may not use it does not keep it either.
        if !is_shared || may_use(ctx, &fleet.namespace().unwrap_or_default(), &of[0]).await {
            uses.extend(of);
        }
    }
    uses
}

/// One that can't be read may use any Connection of its namespace, and any ClusterConnection.
fn uses_of(fleet: &Guarded<WorkerDeployment>) -> Vec<Use> {
    let namespace = fleet.namespace().unwrap_or_default();
    let any = |namespace: String| Use { namespace, connection: None, is_leaving: false };
    let Ok(read) = &fleet.0 else { return vec![any(namespace), any(String::new())] };
    let reference = &read.spec.worker_options.connection_ref;
    let is_deleted = read.metadata.deletion_timestamp.is_some();
    let needs_none = !apply::is_protected(&read.metadata) || read.spec.deletion_policy == DeletionPolicy::Orphan;
    let namespace = match reference.kind {
        ConnectionKind::Connection => namespace,
        ConnectionKind::ClusterConnection => String::new(),
    };
    vec![Use { namespace, connection: Some(reference.name.clone()), is_leaving: is_deleted && needs_none }]
}

/// Whether the fleets of a namespace may use that ClusterConnection, or may be taken to.
async fn may_use(ctx: &Context, namespace: &str, of: &Use) -> bool {
    let key = ObjectRef::<Guarded<ClusterConnection>>::new(of.connection.as_deref().unwrap_or_default());
    let Some(found) = ctx.caches.cluster_connections.get(&key) else { return true };
    let Ok(connection) = &found.0 else { return true };
    allows(connection, &ctx.shared.namespaces, namespace).await.unwrap_or(true)
}

fn holdables(caches: &Caches) -> Vec<Holdable> {
    let own = caches.connections.state().into_iter().map(|one| holdable(&*one));
    let shared = caches.cluster_connections.state().into_iter().map(|one| holdable(&*one));
    own.chain(shared.filter(|_| caches.has_all_fleets)).collect()
}

fn holdable(connection: &impl Resource) -> Holdable {
    let meta = connection.meta();
    Holdable {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        is_held: apply::is_protected(meta),
        is_leaving: meta.deletion_timestamp.is_some(),
    }
}
