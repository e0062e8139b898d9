//! Runs the controller of each scope until the process ends.

use std::collections::HashSet;
use std::sync::Arc;

use futures::stream::select;
use futures::{Stream, StreamExt, future};
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt};
use operator_core::api::WorkerDeployment;
use operator_core::backoff::Backoff;
use operator_core::old_kinds::OldKind;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fleet::{self, Error};
use super::templates::{self, Board};
use super::{Context, Shared, connections, old_kinds};
use crate::changes::{Changes, FleetId};
use crate::kube::lease::Leadership;
use crate::kube::watches::{self, FleetRef, Guarded};

/// What every scope is started with.
#[derive(Clone)]
pub struct Start {
    /// Client for work.
    pub client: Client,
    /// Whether this replica may write.
    pub leadership: Arc<Leadership>,
    /// What all scopes share.
    pub shared: Arc<Shared>,
    /// Most reconciles at a time.
    pub concurrency: u16,
    /// Ends the scopes.
    pub stop: CancellationToken,
    /// Told of a scope whose caches are complete.
    pub ready: Arc<watch::Sender<usize>>,
}

/// Runs the scopes; all namespaces when none is named.
pub async fn run(start: Start, namespaces: Vec<String>, changes: Arc<Changes>) {
    let names: Vec<Option<String>> =
        if namespaces.is_empty() { vec![None] } else { namespaces.into_iter().map(Some).collect() };
    let own: Vec<_> = names.into_iter().map(|namespace| (namespace, Changes::new())).collect();
    let route = route(changes, start.shared.clone(), own.clone());
    let scopes = own.into_iter().map(|(namespace, changes)| scope(start.clone(), namespace, changes));
    tokio::select! {
        () = route => {}
        _ = futures::future::join_all(scopes) => {}
    }
}

/// Gives the fleets of the poller and the scraper to the scopes that they are in.
async fn route(changes: Arc<Changes>, shared: Arc<Shared>, scopes: Vec<(Option<String>, Arc<Changes>)>) {
    loop {
        let fleet = changes.next().await;
        let Some((namespace, _)) = shared.memories.key(&fleet) else { continue };
        let of_scope = scopes.iter().filter(|(own, _)| own.as_ref().is_none_or(|own| *own == namespace));
        of_scope.for_each(|(_, changes)| changes.send(&fleet));
    }
}

async fn scope(start: Start, namespace: Option<String>, changes: Arc<Changes>) {
    let board = Arc::new(Board::default());
    let told = follow(start.shared.clone(), board.clone(), namespace.clone());
    let scope = watches::start(&start.client, namespace.as_deref(), told);
    let caches = scope.caches.clone();
    start.shared.directory.add(caches.fleets.clone());
    let ctx = Arc::new(Context {
        client: start.client.clone(),
        leadership: start.leadership.clone(),
        caches: caches.clone(),
        old_kinds: Arc::default(),
        shared: start.shared.clone(),
        templates: board.clone(),
    });
    let changed = select(references(changes, start.shared.clone()), references(board.asked(), start.shared.clone()));
    let touched = select(scope.touched, changed.boxed());
    let ready = start.ready.clone();
    tokio::spawn(async move {
        caches.wait_until_ready().await;
        ready.send_modify(|scopes| *scopes += 1);
    });
    let holding = connections::hold(ctx.clone());
    let handing_over = old_kinds::hand_over(ctx.clone(), namespace.as_deref());
    let templates = templates::run(ctx.clone(), namespace.as_deref(), start.stop.clone());
    let led = start.leadership.clone().gained();
    let caches = scope.caches.clone();
    let running = Controller::for_stream(scope.changed, scope.caches.fleets.clone())
        .with_config(Config::default().concurrency(start.concurrency))
        .reconcile_on(touched)
        .reconcile_all_on(led)
        .graceful_shutdown_on(start.stop.clone().cancelled_owned())
        .run(
            move |object, ctx| {
                let caches = caches.clone();
                async move {
                    // Nothing is decided on a cache that has not been filled.
                    caches.wait_until_ready().await;
                    ctx.old_kinds.wait_until_known(OldKind::WorkerDeployment).await;
                    fleet::reconcile(object, ctx).await
                }
            },
            on_error,
            ctx,
        )
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::warn!(%error, "reconcile failed");
            }
        });
    tokio::select! {
        _ = future::join(running, templates) => {}
        () = holding => {}
        () = handing_over => {}
    }
}

/// Forgets fleets that are gone, and of the others what the cache shows by now.
fn follow(
    shared: Arc<Shared>,
    board: Arc<Board>,
    namespace: Option<String>,
) -> impl Fn(&Event<Guarded<WorkerDeployment>>) + Send + Sync + 'static {
    let listing = Listing::default();
    move |event| {
        match event {
            Event::Delete(object) => forget(&shared, &board, &id_of(object)),
            Event::Apply(object) => {
                let status = object.0.as_ref().ok().and_then(|fleet| fleet.status.as_ref());
                shared.memories.shown(&id_of(object), status);
            }
            // A list may be older than what was written; it is in no cache before its end.
            Event::Init | Event::InitApply(_) | Event::InitDone => {}
        }
        // Nobody tells of what went while nothing was watched.
        if let Some(here) = listing.take(event) {
            let gone = shared.memories.missing_in(&here, namespace.as_deref());
            gone.iter().for_each(|fleet| forget(&shared, &board, fleet));
        }
    }
}

fn id_of(object: &Guarded<WorkerDeployment>) -> FleetId {
    FleetId::from(object.uid().unwrap_or_default())
}

/// What was read so far of a list of fleets.
#[derive(Default)]
struct Listing(Mutex<HashSet<FleetId>>);

impl Listing {
    /// All of the list, at its end.
    fn take(&self, event: &Event<Guarded<WorkerDeployment>>) -> Option<HashSet<FleetId>> {
        let mut listed = self.0.lock();
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => _ = listed.insert(id_of(object)),
            Event::InitDone => return Some(std::mem::take(&mut *listed)),
            Event::Apply(_) | Event::Delete(_) => {}
        }
        None
    }
}

fn forget(shared: &Shared, board: &Board, fleet: &FleetId) {
    board.forget(fleet);
    fleet::forget(shared, fleet);
}

/// References to fleets that wait to be looked at.
fn references(changes: Arc<Changes>, shared: Arc<Shared>) -> impl Stream<Item = FleetRef> + Send {
    changes.stream().filter_map(move |fleet| {
        let key = shared.memories.key(&fleet);
        future::ready(key.map(|(namespace, name)| ObjectRef::new(&name).within(&namespace)))
    })
}

/// Each fleet has a backoff of its own.
fn on_error(object: Arc<Guarded<WorkerDeployment>>, error: &Error, ctx: Arc<Context>) -> Action {
    let fleet = id_of(&object);
    let fails = |backoff: &mut Backoff| {
        let (next, after) = backoff.next(error.class(), rand::random());
        *backoff = next;
        after
    };
    let after = ctx.shared.memories.change(&fleet, |memory| fails(&mut memory.backoff));
    Action::requeue(after.unwrap_or_else(|| fails(&mut Backoff::default())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One whose manifest can't be read is there too.
    fn fleet(uid: &str) -> Guarded<WorkerDeployment> {
        serde_json::from_value(json!({"metadata": {"uid": uid}})).unwrap()
    }

    #[test]
    fn a_list_that_was_broken_off_does_not_count() {
        let listing = Listing::default();
        for event in [Event::Init, Event::InitApply(fleet("a")), Event::Init, Event::InitApply(fleet("b"))] {
            assert_eq!(listing.take(&event), None);
        }
        assert_eq!(listing.take(&Event::Apply(fleet("c"))), None);
        assert_eq!(listing.take(&Event::InitDone), Some(HashSet::from(["b".into()])));
        assert_eq!(listing.take(&Event::Init), None);
        assert_eq!(listing.take(&Event::InitDone), Some(HashSet::new()), "nothing stays of the list before");
    }
}
