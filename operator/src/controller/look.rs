//! The first half of a reconcile: what is seen, and what follows from it. Nothing is written here, so that a plan can be shown
//! without being carried out.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;
use operator_core::api::{Reason, WorkerDeployment, WorkerDeploymentStatus};
use operator_core::commands;
use operator_core::cordon::OrderKey;
use operator_core::fleet::{self, Fleet, Surroundings};
use operator_core::identity::reclaimable;
use operator_core::observed::{KubeState, Observation, TemporalState};
use operator_core::plan::{self, Plan, PlanInput, object_key};
use operator_core::rollout::{Order, Strategy};
use operator_core::standing::stands;
use operator_core::status::{Blocked, StatusInput};
use operator_core::versions;
use tokio::time::Instant;

use super::carry_out::Outcome;
use super::cordon::Known;
use super::fleet::Error;
use super::memory::{Applied, Memory};
use super::{Context, checkpoint, connect, loads};
use crate::changes::FleetId;
use crate::kube::apply;
use crate::kube::connection::{self, ConnectionProblem, ConnectionState, Reads};
use crate::kube::observe::{self, FleetKey};
use crate::kube::standing;
use crate::kube::views::PodView;
use crate::temporal::{Connection, Phase, Watch};

/// One fleet at one reconcile.
pub(crate) struct Reconcile<'a> {
    /// Its object.
    pub wd: &'a WorkerDeployment,
    /// What every reconcile shares.
    pub ctx: &'a Context,
    /// Its names.
    pub key: FleetKey<'a>,
    /// Its UID.
    pub id: &'a FleetId,
}

/// What was seen of a fleet and is to be done for it.
pub(crate) struct Seen {
    /// The fleet as the user wants it.
    pub fleet: Fleet,
    /// The channel to its server.
    pub connection: Arc<Connection>,
    /// The cluster.
    pub kube: KubeState,
    /// The server.
    pub temporal: TemporalState,
    /// What follows.
    pub plan: Plan,
}

impl Reconcile<'_> {
    /// Observes, resolves and decides; or says why nothing can be decided, with what the cluster has.
    ///
    /// # Errors
    /// The API server could not be asked.
    pub(crate) async fn see(
        &self,
        order_key: Option<&OrderKey>,
        memory: &mut Memory,
    ) -> Result<Result<Seen, (Blocked, KubeState)>, Error> {
        let shared = &self.ctx.shared;
        let mut kube = self.observe_kube(order_key);
        let (fleet, connection) = match self.resolve(&kube, order_key).await? {
            Ok(resolved) => resolved,
            Err(blocked) => {
                self.show_templates(&kube, None);
                return Ok(Err((blocked, kube)));
            }
        };
        self.tell_target(&fleet, memory);
        loads::add_heartbeats(&shared.heartbeats, self.id, &fleet, &connection, &mut kube);
        self.watch((&fleet, &connection), &kube, memory);
        // What is proven by free slots counts for longer: by those of this look, and not by those of the one before.
        let temporal = shared.poller.snapshot(self.id, Instant::now());
        self.remember(&fleet, &kube, &temporal, memory).await?;
        self.find_standing(&fleet, &kube, memory).await?;
        let plan = self.plan(&fleet, &kube, &temporal, memory);
        self.show_templates(&kube, Some((&fleet, &temporal, &plan)));
        Ok(Ok(Seen { fleet, connection, kube, temporal, plan }))
    }

    /// Says, once, why the target has another Build ID than its template stands for.
    fn tell_target(&self, fleet: &Fleet, memory: &mut Memory) {
        let why = fleet.origin.why();
        let told = fleet.build_id.clone().filter(|_| why.is_some());
        if memory.told_target != told {
            if let (Some(build_id), Some(why)) = (&told, why) {
                let (namespace, name) = (self.key.namespace, self.key.name);
                tracing::info!(
                    namespace,
                    name,
                    build_id,
                    why,
                    "the target keeps a Build ID that is not the computed one"
                );
            }
            memory.told_target = told;
        }
    }

    /// Finds out of objects that this process never applied whether they stand as it would apply them.
    async fn find_standing(&self, fleet: &Fleet, kube: &KubeState, memory: &mut Memory) -> Result<(), Error> {
        for object in fleet.config_maps.iter().chain([&fleet.child.object]) {
            let key = object_key(object);
            let child = key.strip_prefix("Deployment/");
            let missing = child.is_some_and(|name| !kube.children.iter().any(|child| child.name == name));
            if missing || memory.applied.contains_key(&key) {
                continue;
            }
            let Some(found) = standing::read(&self.ctx.client, object).await? else { continue };
            if stands(object, &found, operator_core::names::FIELD_MANAGER) {
                let uid = found["metadata"]["uid"].as_str().map(str::to_owned);
                let generation = found["metadata"]["generation"].as_i64();
                let at = std::time::Instant::now();
                let applied = Applied { digest: plan::digest(object), uid, generation, at };
                memory.applied.insert(key, Box::new(applied));
            }
        }
        Ok(())
    }

    /// Sees to it that the memory is about the fleet's children: what an earlier process knew, or nothing.
    async fn remember(
        &self,
        fleet: &Fleet,
        kube: &KubeState,
        temporal: &TemporalState,
        memory: &mut Memory,
    ) -> Result<(), Error> {
        let main = versions::main_child(fleet, kube, temporal).map_or(&fleet.child_name, |child| &child.name);
        if memory.child.is_empty() {
            if fleet.scaling.is_some() {
                memory.scaling = checkpoint::restore(&self.ctx.client, &self.key).await?;
            }
            memory.child.clone_from(main);
        }
        memory.follow(main, &kube.children);
        // Nothing but the status is written of a fleet that is only watched.
        if fleet.scaling.as_ref().is_none_or(|scaling| scaling.dry_run) {
            memory.saved = None;
        } else if memory.saved.is_none() {
            memory.saved = Some(Box::new((memory.scaling.clone(), std::time::Instant::now())));
        }
        Ok(())
    }

    pub(super) fn observe_kube(&self, order_key: Option<&OrderKey>) -> KubeState {
        let scraper = &self.ctx.shared.scraper;
        let metrics = self.wd.spec.scaling.as_ref().and_then(|scaling| scaling.pod_metrics.clone()).unwrap_or_default();
        let target = |pod: &PodView| loads::target(pod, &metrics);
        let targets = observe::pods(&self.ctx.caches, &self.key).iter().filter_map(|pod| target(pod)).collect();
        scraper.set(self.id.clone(), targets);
        let shared = &self.ctx.shared;
        let known = Known { shared, now: Instant::now(), has_key: order_key.is_some(), metrics: &metrics };
        observe::kube_state(&self.ctx.caches, &self.key, &known)
    }

    async fn resolve(
        &self,
        kube: &KubeState,
        order_key: Option<&OrderKey>,
    ) -> Result<Result<(Fleet, Arc<Connection>), Blocked>, Error> {
        let shared = &self.ctx.shared;
        let state = match self.connection().await {
            Ok(state) => state,
            Err(ConnectionProblem::Blocked(blocked)) => return Ok(Err(blocked)),
            Err(ConnectionProblem::Call(error)) => return Err(error.into()),
        };
        let reference = &self.wd.spec.worker_options.connection_ref;
        let connection = match connect::connect(&shared.pool, self.key.namespace, reference, &state, Timestamp::now()) {
            Ok(connection) => connection,
            Err(blocked) => return Ok(Err(blocked)),
        };
        let images = kube
            .children
            .iter()
            .filter_map(|child| child.runtime_image.clone().map(|image| (child.name.clone(), image)))
            .collect();
        let uncordonable =
            kube.children.iter().filter(|child| !child.cordonable).map(|child| child.name.clone()).collect();
        let order_keys: Vec<_> = order_key.iter().map(|key| key.public()).collect();
        let around = Surroundings {
            connection: &state.facts,
            default_runtime_image: &shared.runtime_image,
            runtime_images: &images,
            order_keys: &order_keys,
            uncordonable: &uncordonable,
        };
        Ok(fleet::resolve_beside(self.wd, &around, &kube.children)
            .map(|fleet| (fleet, connection))
            .map_err(|invalid| Blocked { reason: Reason::InvalidSpec, message: invalid.to_string() }))
    }

    /// The Connection; its Secrets are read again at once when the server refused what they held. Of a server whose
    /// ClusterConnection the fleet may not use, nothing is read any more.
    pub(super) async fn connection(&self) -> Result<ConnectionState, ConnectionProblem> {
        let shared = &self.ctx.shared;
        let state = self.read_connection(false).await;
        if matches!(&state, Err(ConnectionProblem::Blocked(blocked)) if blocked.reason == Reason::ConnectionNotAllowed)
        {
            shared.poller.remove(self.id);
            shared.heartbeats.remove(self.id);
        }
        let state = state?;
        let refused = shared.pool.get(&connect::key(self.key.namespace, &state)).is_some_and(|open| open.refused());
        if refused { self.read_connection(true).await } else { Ok(state) }
    }

    async fn read_connection(&self, again: bool) -> Result<ConnectionState, ConnectionProblem> {
        let shared = &self.ctx.shared;
        let reads = Reads { secrets: &shared.secrets, namespaces: &shared.namespaces };
        connection::connection(&self.ctx.caches, reads, self.wd, again).await
    }

    /// Says what is to be read of the server from now on.
    fn watch(&self, (fleet, connection): (&Fleet, &Arc<Connection>), kube: &KubeState, memory: &Memory) {
        let seen = self.ctx.shared.poller.snapshot(self.id, Instant::now());
        let temporal = &seen;
        let child = versions::main_child(fleet, kube, temporal);
        let info = versions::last_info(temporal);
        let current = info.and_then(|info| info.current_build_id.clone());
        let is_new = fleet.build_id.is_some() && fleet.build_id != current;
        let phase = match child {
            _ if is_new && memory.settled != fleet.build_id => Phase::Registering,
            Some(child) if child.spec_replicas == 0 && fleet.scaling.is_some() => Phase::AtZero,
            _ => Phase::Running,
        };
        let gated = phase == Phase::Running && plan::is_gated(fleet, kube, temporal);
        // A first version by steps shares with Workers without Worker Versioning, if they poll its Task Queues.
        let is_first = current.is_none() && matches!(fleet.rollout.strategy, Strategy::Progressive(_));
        let lanes = match fleet.scaling.is_some() || is_first {
            true => plan::known_lanes(fleet, kube, temporal).into_keys().collect(),
            false => Default::default(),
        };
        self.ctx.shared.poller.set(Watch {
            fleet: self.id.clone(),
            namespace: fleet.temporal_namespace.clone(),
            connection: connection.clone(),
            deployment_name: fleet.build_id.is_some().then(|| fleet.deployment_name.clone()),
            build_ids: versions::build_ids(fleet, kube, temporal),
            main: versions::main_build_id(fleet, kube, temporal).map(str::to_owned),
            remembered: match temporal.deployment {
                Observation::Unknown => versions::remembered(fleet, &self.previous_status(memory)),
                _ => None,
            },
            lanes,
            phase,
            gated,
        });
    }

    pub(super) fn plan(&self, fleet: &Fleet, kube: &KubeState, temporal: &TemporalState, memory: &Memory) -> Plan {
        let applied = memory.standing(&kube.children);
        plan::plan(&PlanInput {
            fleet,
            kube,
            applied: &applied,
            temporal,
            scaling: &memory.scaling,
            others: &memory.others,
            now: self.ctx.shared.started.elapsed(),
            clock: self.ctx.shared.clock(),
            identity: &self.ctx.shared.identity,
            former_identities: &reclaimable(&self.ctx.shared.former_identities, self.wd.annotations()),
            protected: apply::is_protected(&self.wd.metadata),
            order: self.order(fleet, memory),
            gates: &self.gates(fleet, memory),
            outdated: outdated(temporal, memory),
            since_marked: memory.marked.map(|marked| marked.elapsed()),
            resting: &memory.resting(),
            max_versions: self.ctx.shared.max_versions,
        })
    }

    /// What the status is computed from, of what was planned and came of it.
    pub(crate) fn status_input<'a>(
        &'a self,
        seen: &'a Seen,
        (blocked, outcome): (Option<&'a Blocked>, &'a Outcome),
        previous: &'a WorkerDeploymentStatus,
        memory: &Memory,
    ) -> StatusInput<'a> {
        StatusInput {
            generation: self.wd.metadata.generation.unwrap_or(0),
            previous,
            blocked,
            planned: Some((&seen.fleet, &seen.plan)),
            kube: &seen.kube,
            temporal: &seen.temporal,
            annotations: self.wd.annotations(),
            order: self.order(&seen.fleet, memory),
            scaled_to: &outcome.scaled_to,
            stale_for: memory.stale_since.map(|since| since.elapsed()),
            now: Timestamp::now(),
        }
    }

    /// The same where nothing could be planned.
    pub(crate) fn blocked_input<'a>(
        &self,
        (blocked, kube): (&'a Blocked, &'a KubeState),
        previous: &'a WorkerDeploymentStatus,
        (temporal, scaled_to): (&'a TemporalState, &'a BTreeMap<String, u32>),
    ) -> StatusInput<'a>
    where
        Self: 'a,
    {
        StatusInput {
            generation: self.wd.metadata.generation.unwrap_or(0),
            previous,
            blocked: Some(blocked),
            planned: None,
            kube,
            temporal,
            annotations: self.wd.annotations(),
            order: Order::AsSpecified,
            scaled_to,
            stale_for: None,
            now: Timestamp::now(),
        }
    }

    /// What the commands that are written down order of the target's rollout.
    pub(super) fn order(&self, fleet: &Fleet, memory: &Memory) -> Order {
        let build_id = fleet.build_id.as_deref().unwrap_or_default();
        commands::order(&self.previous_status(memory).handled_commands, build_id)
    }

    pub(crate) fn previous_status(&self, memory: &Memory) -> WorkerDeploymentStatus {
        memory.written.as_deref().or(self.wd.status.as_ref()).cloned().unwrap_or_default()
    }
}

/// Whether the last change of the routing is not yet in what was read.
fn outdated(temporal: &TemporalState, memory: &Memory) -> bool {
    let read = temporal.deployment.last().and_then(Option::as_ref);
    memory.routed.is_some() && memory.routed.as_ref() == read.map(|read| &read.conflict_token)
}
