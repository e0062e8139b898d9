//! Wires the operator together and runs it until it is told to end, or until a part of it that it can't do without ends.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use prometheus::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::changes::Changes;
use crate::compat;
use crate::controller::{Shared, checkpoint, memory::Memories, push as push_backend, scopes, templates::Rules};
use crate::kube::client::{bounded, clients_of};
use crate::kube::directory::Directory;
use crate::kube::events::Events;
use crate::kube::lease::Leadership;
use crate::kube::namespaces::Namespaces;
use crate::kube::order_key::OrderKeys;
use crate::kube::others;
use crate::kube::secrets::Secrets;
use crate::kube::served;
use crate::metrics::Metrics;
use crate::recorder::Recorder;
use crate::settings::Settings;
use crate::temporal::{Heartbeats, Limits, Poller, Pool};
use crate::workers::{Cordons, Scraper};
use crate::{http, push, temporal, workers};

/// Runs the operator.
///
/// # Errors
/// When it can't start, or when a part of it fails; the process then ends and is started anew.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let (push_listen, push_address) = (settings.push.listen()?, settings.push.advertised()?);
    let (client, lease_client) =
        clients_of(settings.kubeconfig.as_deref()).await.context("no way to the Kubernetes API")?;
    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    let changes = Changes::new();
    let push_metrics = push::Metrics::register(&registry)?;
    let identity = identity(&client, &settings).await;
    let leadership = Arc::new(Leadership::new(settings.leader_elect, push_address, metrics.clone()));
    let cordons = Cordons::new(&registry, {
        let leadership = leadership.clone();
        Box::new(move || leadership.may_write())
    })?;
    let shared = shared(&client, &settings, &registry, (metrics, changes.clone(), identity, cordons))?;
    let stop = CancellationToken::new();
    let ready = Arc::new(watch::Sender::new(0));
    let namespaces = settings.namespaces();
    let scope_count = namespaces.len().max(1);
    // Unique to this process: a container that is started anew in the same pod is another candidate.
    let me = format!("{}_{:08x}", settings.pod_name, rand::random::<u32>());
    let push_operator = push_backend::Operator {
        client: client.clone(),
        leadership: leadership.clone(),
        shared: shared.clone(),
        namespace: settings.pod_namespace.clone(),
    };
    let start = scopes::Start {
        client: client.clone(),
        leadership: leadership.clone(),
        shared: shared.clone(),
        concurrency: settings.concurrent_reconciles,
        stop: stop.clone(),
        ready: ready.clone(),
    };
    for line in compat::unused(&settings.unused, |name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        tracing::warn!("{line}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespaces = ?namespaces, "operator starts");
    // Before that, nothing leads, looks or writes.
    let kinds = served::wait(client.clone()).shared();
    tokio::select! {
        result = http::serve_metrics(settings.metrics_bind_address, registry, stop.clone()) => result.context("metrics")?,
        result = http::serve_probes(settings.health_probe_bind_address, ready, scope_count, stop.clone()) => {
            result.context("probes")?;
        }
        result = kinds.clone().then(|()| lead(&leadership, &lease_client, &settings, &me)) => {
            result.context("leader election")?;
        }
        result = push_backend::run(push_operator, push_listen, push_metrics) => result.context("push endpoint")?,
        () = kinds.then(|()| scopes::run(start, namespaces, changes)) => {}
        fields = served::lost(client.clone()) => bail!(
            "the API server lacks fields that it had ({}): install the chart of the kinds of this version", fields.join(", ")
        ),
        () = told_to_end() => tracing::info!("operator ends"),
    }
    stop.cancel();
    checkpoint::save_all(&client, &leadership, &shared).await;
    leadership.release(lease_client, &settings.pod_namespace, &me).await;
    Ok(())
}

/// Competes for the Lease once no other manager serves the same fleets.
async fn lead(leadership: &Leadership, client: &Client, settings: &Settings, me: &str) -> anyhow::Result<()> {
    if settings.leader_elect {
        others::wait(client, &settings.pod_namespace, &settings.namespaces()).await;
    }
    leadership.keep(client.clone(), &settings.pod_namespace, me).await
}

/// What all scopes share, from the settings.
///
/// # Errors
/// A metric exists twice, or decisions can't be recorded.
pub(crate) fn shared(
    client: &Client,
    settings: &Settings,
    registry: &Registry,
    (metrics, changes, identity, cordons): (Metrics, Arc<Changes>, String, Arc<Cordons>),
) -> anyhow::Result<Arc<Shared>> {
    let temporal = temporal::Metrics::register(registry)?;
    let limits = Limits { calls_per_second: settings.temporal_calls_per_second };
    let scraper = Scraper::new(workers::Settings::default(), changes.clone(), workers::Metrics::register(registry)?)?;
    Ok(Arc::new(Shared {
        directory: Directory::default(),
        secrets: Secrets::new(client.clone()),
        namespaces: Namespaces::new(client.clone()),
        pool: Pool::new(limits, temporal.clone()),
        poller: Poller::new(changes.clone(), temporal),
        heartbeats: Heartbeats::new(changes),
        scraper,
        cordons,
        order_keys: OrderKeys::new(client.clone(), &settings.pod_namespace),
        memories: Memories::default(),
        templates: Rules::new(client, &settings.templates),
        events: Events::new(client.clone(), settings.pod_name.clone()),
        metrics,
        runtime_image: settings.runtime_image.clone(),
        former_identities: settings.former_identities(&identity),
        identity,
        recorder: recorder(settings)?,
        started: tokio::time::Instant::now(),
        started_at: jiff::Timestamp::now(),
        max_versions: settings.max_deployment_versions_ineligible_for_deletion,
    }))
}

fn recorder(settings: &Settings) -> anyhow::Result<Option<Recorder>> {
    let start = |file: &PathBuf| {
        let wrong = || {
            format!(
                "--record-decisions {} can't be written; name a file in a folder that exists and is writable",
                file.display()
            )
        };
        Recorder::start(file).with_context(wrong)
    };
    settings.record_decisions.as_ref().map(start).transpose()
}

/// The identity towards Temporal: unique to this installation, by the UID of its namespace.
pub(crate) async fn identity(client: &Client, settings: &Settings) -> String {
    let api: Api<Namespace> = Api::all(client.clone());
    let uid = match bounded(api.get(&settings.pod_namespace)).await {
        Ok(namespace) => namespace.metadata.uid,
        Err(error) => {
            tracing::warn!(%error, namespace = settings.pod_namespace, "UID of the namespace can't be read; the identity goes without");
            None
        }
    };
    [Some(settings.controller_identity.clone()), uid].into_iter().flatten().collect::<Vec<_>>().join("/")
}

async fn told_to_end() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals can't be listened for");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
