//! Watches of one scope (all namespaces, or one): they feed the caches and say which fleets to look at.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{Predicate, WatchStreamExt, predicates};
use kube::{Api, Client, Resource, ResourceExt};
use operator_core::api::{ClusterConnection, Connection, ConnectionKind, ConnectionRef, WorkerDeployment};
use operator_core::border::{self, Border};
use operator_core::names;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::adopt;
use super::client::is_not_found;
use super::gate::Gate;
use super::index::{Group, Index, View};
use super::views::{DeploymentView, PodView};

/// Objects of a first list that are read at a time.
const PAGE: u32 = 100;
/// Time until it is asked again for objects that the operator may not read, or whose kind is not installed.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// A WorkerDeployment, or why what is stored under its name is none.
pub type Guarded<K> = DeserializeGuard<K>;
/// Reference to a WorkerDeployment.
pub type FleetRef = ObjectRef<Guarded<WorkerDeployment>>;

/// What a cache has under a name of a namespace.
#[must_use]
pub fn named<K>(store: &Store<K>, border: Border, namespace: &str, name: &str) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    if border::stands(border) {
        return store.get(&ObjectRef::new(name).within(namespace));
    }
    store.find(|object| object.meta().name.as_deref() == Some(name))
}

/// Caches of one scope.
pub struct Caches {
    /// WorkerDeployments.
    pub fleets: Store<Guarded<WorkerDeployment>>,
    /// Connections.
    pub connections: Store<Guarded<Connection>>,
    /// ClusterConnections.
    pub cluster_connections: Store<Guarded<ClusterConnection>>,
    /// Why these can't be read, while they never could.
    refused: Mutex<Option<String>>,
    /// Whether the scope is all namespaces, so that every fleet is in these caches.
    pub has_all_fleets: bool,
    /// Told of each change of [`Caches::fleets`], [`Caches::connections`] or [`Caches::cluster_connections`].
    pub uses_changed: watch::Sender<()>,
    /// Open once [`Caches::fleets`] is filled.
    fleets_filled: Gate,
    /// Open once [`Caches::connections`] is filled.
    connections_filled: Gate,
    /// Open once [`Caches::cluster_connections`] is filled, or may not be.
    cluster_connections_filled: Gate,
    /// Deployments with the label of a fleet, by that label.
    pub deployments: Index<DeploymentView>,
    /// Pods with the label of a fleet, by that label.
    pub pods: Index<PodView>,
}

impl Caches {
    /// Caches of what was listed once, without fleets.
    #[must_use]
    pub fn listed(connections: StoredConnections, deployments: Vec<Deployment>, pods: Vec<Pod>) -> Self {
        let (fleets, _) = kube::runtime::reflector::store();
        let caches = Self::new(fleets, (stored(connections.own), stored(connections.shared)), false);
        list(deployments).for_each(|event| _ = caches.deployments.take(&event));
        list(pods).for_each(|event| _ = caches.pods.take(&event));
        caches
    }

    fn new(
        fleets: Store<Guarded<WorkerDeployment>>,
        (connections, cluster_connections): (Store<Guarded<Connection>>, Store<Guarded<ClusterConnection>>),
        has_all_fleets: bool,
    ) -> Self {
        Self {
            fleets,
            connections,
            cluster_connections,
            refused: Mutex::default(),
            has_all_fleets,
            cluster_connections_filled: Gate::default(),
            uses_changed: watch::Sender::new(()),
            fleets_filled: Gate::default(),
            connections_filled: Gate::default(),
            deployments: Index::default(),
            pods: Index::default(),
        }
    }

    /// Waits until every first list is complete.
    pub async fn wait_until_ready(&self) {
        self.fleets_filled.passed().await;
        self.connections_filled.passed().await;
        self.cluster_connections_filled.passed().await;
        self.deployments.wait_until_ready().await;
        self.pods.wait_until_ready().await;
    }

    /// Fleets of a namespace whose label is this one.
    fn fleets_labelled(&self, (namespace, label): &Group) -> Vec<FleetRef> {
        // For every change of a pod all fleets are gone through: nothing is copied for those of other namespaces.
        let matches = |fleet: &Guarded<WorkerDeployment>| {
            let meta = fleet.meta();
            let named = |name: &String| name == label || &names::deployment_name_label(name) == label;
            meta.namespace.as_ref() == Some(namespace) && meta.name.as_ref().is_some_and(named)
        };
        self.fleets.state_filter(matches).iter().map(|fleet| ObjectRef::from_obj(&**fleet)).collect()
    }

    /// Why ClusterConnections can't be read, while they never could.
    #[must_use]
    pub fn cluster_connections_refused(&self) -> Option<String> {
        self.refused.lock().clone()
    }

    /// Keeps why ClusterConnections can't be read, and says it once; what was read before stays.
    fn take_refusal(&self, event: &Result<Event<Guarded<ClusterConnection>>, watcher::Error>) {
        open_when_filled(event, &self.cluster_connections_filled);
        let mut refused = self.refused.lock();
        match (event, refusal(event)) {
            (Err(_), Some(reason)) => {
                if refused.is_none() {
                    tracing::warn!(reason, "ClusterConnections can't be read; fleets that use one wait");
                }
                *refused = Some(reason);
                self.cluster_connections_filled.open();
            }
            (Err(error), None) => tracing::warn!(%error, kind = "ClusterConnection", "watch interrupted"),
            (Ok(Event::InitDone), _) => *refused = None,
            (Ok(_), _) => {}
        }
    }

    /// Fleets that use a Connection of their namespace, or a ClusterConnection, which has none.
    fn fleets_connected(&self, namespace: Option<&str>, name: &str) -> Vec<FleetRef> {
        let kind = if namespace.is_some() { ConnectionKind::Connection } else { ConnectionKind::ClusterConnection };
        let matches = |fleet: &Guarded<WorkerDeployment>| {
            let reference = |fleet: &WorkerDeployment| {
                let ConnectionRef { kind: own, name: its } = &fleet.spec.worker_options.connection_ref;
                *own == kind && its == name
            };
            let is_near = namespace.is_none() || fleet.meta().namespace.as_deref() == namespace;
            is_near && fleet.0.as_ref().is_ok_and(reference)
        };
        self.fleets.state_filter(matches).iter().map(|fleet| ObjectRef::from_obj(&**fleet)).collect()
    }
}

/// What `connectionRef`s may name, as it was listed once.
#[derive(Default)]
pub struct StoredConnections {
    /// Connections.
    pub own: Vec<Guarded<Connection>>,
    /// ClusterConnections.
    pub shared: Vec<Guarded<ClusterConnection>>,
}

/// A cache of what was listed once.
fn stored<K>(objects: Vec<K>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (kept, mut writer) = kube::runtime::reflector::store();
    list(objects).for_each(|event| writer.apply_watcher_event(&event));
    kept
}

/// A list as a watch tells it.
fn list<K>(objects: Vec<K>) -> impl Iterator<Item = Event<K>> {
    std::iter::once(Event::Init).chain(objects.into_iter().map(Event::InitApply)).chain([Event::InitDone])
}

/// A started scope: its caches, the stream of changed WorkerDeployments, and that of fleets to look at for another
/// reason.
pub struct Scope {
    /// The caches.
    pub caches: Arc<Caches>,
    /// WorkerDeployments whose spec changed.
    pub changed: futures::stream::BoxStream<'static, Result<Guarded<WorkerDeployment>, watcher::Error>>,
    /// Fleets whose surroundings changed.
    pub touched: futures::stream::BoxStream<'static, FleetRef>,
}

/// Starts the watches of a scope. `told` is told what happened to WorkerDeployments, once the cache shows it.
pub fn start(
    client: &Client,
    namespace: Option<&str>,
    told: impl Fn(&Event<Guarded<WorkerDeployment>>) + Send + Sync + 'static,
) -> Scope {
    let (fleets, fleet_writer) = kube::runtime::reflector::store();
    let (connections, connection_writer) = kube::runtime::reflector::store();
    let (shared, shared_writer) = kube::runtime::reflector::store();
    let caches = Arc::new(Caches::new(fleets, (connections, shared), namespace.is_none()));
    let labelled = config().labels(names::DEPLOYMENT_NAME_LABEL);
    let changed = fleets_stream(api(client, namespace), fleet_writer, caches.clone(), told);
    let connections = connections_stream(api(client, namespace), connection_writer, caches.clone());
    let shared = cluster_connections_stream(Api::all(client.clone()), shared_writer, caches.clone());
    let deployments = watcher(api::<Deployment>(client, namespace), labelled.clone());
    let deployments = indexed(deployments, caches.clone(), |caches| &caches.deployments);
    let pods = watcher(api::<Pod>(client, namespace), labelled);
    let pods = indexed(pods, caches.clone(), |caches| &caches.pods);
    let touched = futures::stream::select_all([connections.boxed(), shared.boxed(), deployments.boxed(), pods.boxed()]);
    Scope { caches, changed: changed.boxed(), touched: touched.boxed() }
}

/// In small pages: what a page takes while it is read is never given back whole.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

pub(super) fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Changes of the spec and of annotations; what the operator itself writes into the status does not wake it.
fn fleets_stream(
    api: Api<Guarded<WorkerDeployment>>,
    writer: Writer<Guarded<WorkerDeployment>>,
    caches: Arc<Caches>,
    told: impl Fn(&Event<Guarded<WorkerDeployment>>) + Send + Sync + 'static,
) -> impl Stream<Item = Result<Guarded<WorkerDeployment>, watcher::Error>> + Send {
    watcher(api, config())
        .default_backoff()
        .modify(|fleet| adopt::keep_peers(fleet.managed_fields_mut()))
        .inspect(log_errors("WorkerDeployment"))
        .reflect(writer)
        .inspect(move |event| {
            event.iter().for_each(&told);
            open_when_filled(event, &caches.fleets_filled);
            caches.uses_changed.send_replace(());
        })
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::annotations),
            kube::runtime::PredicateConfig::default(),
        )
}

fn connections_stream(
    api: Api<Guarded<Connection>>,
    writer: Writer<Guarded<Connection>>,
    caches: Arc<Caches>,
) -> impl Stream<Item = FleetRef> + Send {
    let (filled, changed) = (caches.clone(), caches.clone());
    watcher(api, config())
        .default_backoff()
        .modify(|connection| connection.managed_fields_mut().clear())
        .inspect(log_errors("Connection"))
        .reflect(writer)
        .inspect(move |event| open_when_filled(event, &filled.connections_filled))
        .touched_objects()
        .inspect(move |_| changed.uses_changed.send_replace(()))
        .filter_map(|connection| future::ready(connection.ok()))
        .flat_map(move |connection| {
            let namespace = connection.namespace().unwrap_or_default();
            futures::stream::iter(caches.fleets_connected(Some(&namespace), &connection.name_any()))
        })
}

/// Nobody waits for ClusterConnections that the operator may not read, or whose kind is not there: it is limited to namespaces,
/// or newer than the kinds.
fn cluster_connections_stream(
    api: Api<Guarded<ClusterConnection>>,
    writer: Writer<Guarded<ClusterConnection>>,
    caches: Arc<Caches>,
) -> impl Stream<Item = FleetRef> + Send {
    let (filled, changed) = (caches.clone(), caches.clone());
    watcher(api, config())
        .default_backoff()
        .modify(|connection| connection.managed_fields_mut().clear())
        .reflect(writer)
        .inspect(move |event| filled.take_refusal(event))
        .then(|event| async {
            if refusal(&event).is_some() {
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            event
        })
        .touched_objects()
        .inspect(move |_| changed.uses_changed.send_replace(()))
        .filter_map(|connection| future::ready(connection.ok()))
        .flat_map(move |connection| futures::stream::iter(caches.fleets_connected(None, &connection.name_any())))
}

/// What the API server says where the kind can't be read at all.
pub(super) fn refusal<K>(event: &Result<Event<K>, watcher::Error>) -> Option<String> {
    match event {
        Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
            if status.is_forbidden() || is_not_found(status) =>
        {
            Some(status.message.trim_end_matches(['.', '\n']).to_owned())
        }
        _ => None,
    }
}

/// Feeds an index, and says which fleets its changes are about.
fn indexed<V: View>(
    events: impl Stream<Item = Result<Event<V::Object>, watcher::Error>> + Send,
    caches: Arc<Caches>,
    index: impl Fn(&Caches) -> &Index<V> + Send,
) -> impl Stream<Item = FleetRef> + Send
where
    V::Object: Resource<DynamicType = ()> + Send,
{
    events
        .default_backoff()
        .inspect(log_errors(std::any::type_name::<V>().rsplit(':').next().unwrap_or_default()))
        .filter_map(|event| future::ready(event.ok()))
        .map(move |event| {
            let groups = index(&caches).take(&event);
            let fleets: Vec<_> = groups.iter().flat_map(|group| caches.fleets_labelled(group)).collect();
            futures::stream::iter(fleets)
        })
        .flatten()
}

fn log_errors<T>(kind: &'static str) -> impl Fn(&Result<T, watcher::Error>) {
    move |event| {
        if let Err(error) = event {
            tracing::warn!(%error, kind, "watch interrupted");
        }
    }
}

fn open_when_filled<K>(event: &Result<Event<K>, watcher::Error>, gate: &Gate) {
    if matches!(event, Ok(Event::InitDone)) {
        gate.open();
    }
}
