//! The Lease that says which replica may write.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use nix::time::{ClockId, clock_gettime};
use operator_core::lease::{self, Claim, LeaseAction, LeaseRecord, LeaseState, LeaseView, RETRY_PERIOD};
use operator_core::names::{LEASE_NAME, PUSH_ADDRESS_ANNOTATION};
use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard, watch};
use tokio::time::{sleep, timeout};

use crate::metrics::Metrics;

/// Deadline of one call about the Lease: a renewal can be tried twice before the right to write ends.
const CALL: Duration = Duration::from_secs(4);

/// Whether this replica may write.
pub struct Leadership {
    state: Mutex<LeaseState>,
    alone: bool,
    leading: watch::Sender<bool>,
    writes: RwLock<()>,
    metrics: Metrics,
    /// Where this replica takes push calls.
    push_address: Option<SocketAddr>,
    /// Where the replica that held the Lease when it was last read takes them.
    leaders_push_address: Mutex<Option<SocketAddr>>,
}

impl Leadership {
    /// Leadership by the Lease, or that of a replica which is alone. `push_address` is where this replica takes push calls,
    /// which it writes into the Lease.
    #[must_use]
    pub fn new(by_lease: bool, push_address: Option<SocketAddr>, metrics: Metrics) -> Self {
        metrics.lead(!by_lease);
        let leading = watch::Sender::new(!by_lease);
        Self {
            state: Mutex::default(),
            alone: !by_lease,
            leading,
            writes: RwLock::default(),
            metrics,
            push_address,
            leaders_push_address: Mutex::default(),
        }
    }

    /// Whether this replica may write now: the right ends by the clock, without a call.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.alone || lease::may_write(&self.state.lock(), boot_time())
    }

    /// Where another replica, which held the Lease when it was last read, takes push calls.
    #[must_use]
    pub fn push_address_of_leader(&self) -> Option<SocketAddr> {
        self.leaders_push_address.lock().filter(|address| Some(*address) != self.push_address)
    }

    /// The right to one write, held until that write is done; none when this replica may not write.
    pub async fn permit(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let permit = self.writes.read().await;
        self.may_write().then_some(permit)
    }

    /// An item when this replica begins to lead; a loss ends the process, so there is one at most.
    pub fn gained(self: Arc<Self>) -> impl Stream<Item = ()> + Send + 'static {
        let mut leading = self.leading.subscribe();
        let first = async move {
            let _ = leading.wait_for(|leading| *leading).await;
        };
        futures::stream::once(first).chain(futures::stream::pending())
    }

    /// Competes for the Lease, and keeps it. Never ends while all is well.
    ///
    /// # Errors
    /// When the Lease was held and is lost: nothing of this replica may write any more.
    pub async fn keep(&self, client: Client, namespace: &str, me: &str) -> anyhow::Result<()> {
        if self.alone {
            return std::future::pending().await;
        }
        let api: Api<Lease> = Api::namespaced(client, namespace);
        loop {
            let wait = self.look(&api, me).await;
            let leads = self.may_write();
            if *self.leading.borrow() && !leads {
                bail!("Lease {namespace}/{LEASE_NAME} was lost, or could not be renewed in time");
            }
            if leads && !self.leading.send_replace(true) {
                tracing::info!(holder = me, "this replica leads");
                self.metrics.lead(true);
            }
            sleep(wait).await;
        }
    }

    /// Looks at the Lease once and does what is to be done about it. Gives back when to look again.
    async fn look(&self, api: &Api<Lease>, me: &str) -> Duration {
        let read = timeout(CALL, api.get_opt(LEASE_NAME)).await.context("no answer in time");
        let found =
            read.and_then(|found| Ok(found?)).inspect_err(|error| tracing::warn!(%error, "the Lease can't be read"));
        let view = match &found {
            Ok(None) => LeaseView::Absent,
            Ok(Some(lease)) => view(lease),
            Err(_) => LeaseView::Unreadable,
        };
        if let Ok(lease) = &found {
            *self.leaders_push_address.lock() = lease.as_ref().and_then(push_address_of_holder);
        }
        let action = self.step(&view, me);
        if let LeaseAction::Wait(wait) = action {
            return wait;
        }
        match self.write(api, found.ok().flatten(), action).await {
            // The answer confirms the write.
            Ok(lease) => match self.step(&self::view(&lease), me) {
                LeaseAction::Wait(wait) => wait,
                LeaseAction::Create(_) | LeaseAction::Update { .. } => RETRY_PERIOD,
            },
            Err(error) => {
                tracing::warn!(%error, "the Lease can't be written");
                RETRY_PERIOD
            }
        }
    }

    fn step(&self, view: &LeaseView, me: &str) -> LeaseAction {
        let mut state = self.state.lock();
        let (action, next) = lease::step(view, me, &state, boot_time(), rand::random());
        *state = next;
        action
    }

    /// Gives the Lease up, so that another replica need not wait for it to expire.
    pub async fn release(&self, client: Client, namespace: &str, me: &str) {
        if self.alone {
            return;
        }
        // What was begun with the right to write ends before anybody else gets it.
        let _no_writes = self.writes.write().await;
        let api: Api<Lease> = Api::namespaced(client, namespace);
        let found = timeout(CALL, api.get_opt(LEASE_NAME)).await.ok().and_then(Result::ok).flatten();
        let (action, next) = lease::release(me, &self.state.lock());
        *self.state.lock() = next;
        if matches!(action, LeaseAction::Wait(_)) {
            return;
        }
        if let Err(error) = self.write(&api, found, action).await {
            tracing::warn!(%error, "the Lease was not released; another replica takes it when it expires");
        }
    }

    async fn write(&self, api: &Api<Lease>, found: Option<Lease>, action: LeaseAction) -> anyhow::Result<Lease> {
        let params = PostParams::default();
        match action {
            LeaseAction::Create(claim) => {
                let metadata = ObjectMeta { name: Some(LEASE_NAME.into()), ..ObjectMeta::default() };
                let mut lease = Lease { metadata, spec: Some(spec(&claim, LeaseSpec::default())) };
                self.announce(&mut lease);
                Ok(timeout(CALL, api.create(&params, &lease)).await.context("no answer in time")??)
            }
            LeaseAction::Update { resource_version, claim } => {
                let mut lease = found.context("it is gone")?;
                // Whoever wrote since that version was read wins.
                lease.metadata.resource_version = Some(resource_version);
                lease.spec = Some(spec(&claim, lease.spec.take().unwrap_or_default()));
                self.announce(&mut lease);
                Ok(timeout(CALL, api.replace(LEASE_NAME, &params, &lease)).await.context("no answer in time")??)
            }
            LeaseAction::Wait(_) => bail!("nothing to write"),
        }
    }

    /// Holder and address are written together, so that they are always of the same replica.
    fn announce(&self, lease: &mut Lease) {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match self.push_address {
            Some(address) => annotations.insert(PUSH_ADDRESS_ANNOTATION.into(), address.to_string()),
            None => annotations.remove(PUSH_ADDRESS_ANNOTATION),
        };
    }
}

/// A clock that goes on while the machine is suspended: a process that slept must not believe in a right it has lost.
fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Nobody holds a Lease that was given up, whatever stands in its annotation.
fn push_address_of_holder(lease: &Lease) -> Option<SocketAddr> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    let address = lease.metadata.annotations.as_ref()?.get(PUSH_ADDRESS_ANNOTATION)?;
    (!holder.is_empty()).then(|| address.parse().ok())?
}

fn spec(claim: &Claim, old: LeaseSpec) -> LeaseSpec {
    let now = Some(MicroTime(Timestamp::now()));
    LeaseSpec {
        holder_identity: Some(claim.holder.clone()),
        lease_duration_seconds: i32::try_from(claim.duration.as_secs()).ok(),
        lease_transitions: i32::try_from(claim.transitions).ok(),
        acquire_time: if claim.acquires { now.clone() } else { old.acquire_time.clone() },
        renew_time: now,
        ..old
    }
}

fn view(lease: &Lease) -> LeaseView {
    let resource_version = lease.metadata.resource_version.clone().unwrap_or_default();
    LeaseView::Present { resource_version, record: record(lease) }
}

/// What a Lease says of its holder.
pub(super) fn record(lease: &Lease) -> LeaseRecord {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    LeaseRecord {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: seconds.map(Duration::from_secs),
        transitions: spec.lease_transitions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        acquired: spec.acquire_time.map(|time| time.0),
        renewed: spec.renew_time.map(|time| time.0),
    }
}
