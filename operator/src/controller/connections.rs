//! Keeps Connections that are in use from going.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use operator_core::api::{Connection, ConnectionKind, DeletionPolicy, WorkerDeployment};
use operator_core::backoff::{Backoff, RetryClass};
use operator_core::connection_use::{Change, Holdable, Use, changes};

use super::Context;
use crate::kube::apply;
use crate::kube::client::CallError;
use crate::kube::watches::{Caches, Guarded};
use crate::settings::RESYNC;

/// Changes that come together are looked at once.
const SETTLE: Duration = Duration::from_millis(200);

/// Gives Connections of a scope the finalizer, and takes it away, for as long as the process lives.
pub(super) async fn hold(ctx: Arc<Context>) {
    ctx.caches.wait_until_ready().await;
    let mut led = ctx.leadership.clone().gained().boxed();
    let mut backoff = Backoff::default();
    loop {
        let mut pause = RESYNC;
        match look(&ctx).await {
            0 => backoff = Backoff::default(),
            _ => (backoff, pause) = backoff.next(RetryClass::Transient, rand::random()),
        }
        let woken = async {
            tokio::select! {
                () = ctx.caches.uses_changed.notified() => {}
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
    let due = changes(&uses(&ctx.caches), &holdables(&ctx.caches));
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
    let key = ObjectRef::<Guarded<Connection>>::new(&connection.name).within(&connection.namespace);
    let Some(found) = ctx.caches.connections.get(&key) else { return Ok(()) };
    let Some(_permit) = ctx.leadership.permit().await else { return Ok(()) };
    apply::set_protected::<Connection>(&ctx.client, found.meta(), change == Change::Hold).await
}

fn uses(caches: &Caches) -> Vec<Use> {
    caches.fleets.state().iter().filter_map(|fleet| use_of(fleet)).collect()
}

fn use_of(fleet: &Guarded<WorkerDeployment>) -> Option<Use> {
    let namespace = fleet.namespace().unwrap_or_default();
    let Ok(read) = &fleet.0 else { return Some(Use { namespace, connection: None, is_leaving: false }) };
    let reference = &read.spec.worker_options.connection_ref;
    let is_deleted = read.metadata.deletion_timestamp.is_some();
    let needs_none = !apply::is_protected(&read.metadata) || read.spec.deletion_policy == DeletionPolicy::Orphan;
    let connection = Some(reference.name.clone());
    let is_leaving = is_deleted && needs_none;
    (reference.kind == ConnectionKind::Connection).then_some(Use { namespace, connection, is_leaving })
}

fn holdables(caches: &Caches) -> Vec<Holdable> {
    let holdable = |connection: &Guarded<Connection>| Holdable {
        namespace: connection.namespace().unwrap_or_default(),
        name: connection.name_any(),
        is_held: apply::is_protected(connection.meta()),
        is_leaving: connection.meta().deletion_timestamp.is_some(),
    };
    caches.connections.state().iter().map(|connection| holdable(connection)).collect()
}
