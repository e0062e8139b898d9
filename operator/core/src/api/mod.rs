//! The kinds of group `temporal.io`, version `v1alpha1`: types, schema, conditions.
//!
//! `WorkerDeployment`, `Connection` and `ClusterConnection` keep the schema of temporal-worker-controller v1.8, "the contract" below, so that
//! manifests written for it apply unchanged. The types are the only source: CRDs and the reference in the docs are printed
//! from them.

mod cluster_connection;
pub mod conditions;
mod connection;
mod crds;
mod duration;
mod old_kinds;
mod reference;
mod rollout;
mod runtime;
mod scaling;
mod scaling_status;
mod schema;
mod status;
mod template;
mod worker_deployment;
mod worker_resource_template;

pub use cluster_connection::{
    Allowance, AllowedNamespaces, ClusterConnection, ClusterConnectionSpec, LabelOperator, LabelRequirement,
    NamespaceSelector,
};
pub use conditions::{
    ConditionStatus, ConditionType, ConditionUpdate, Reason, find_condition, remove_condition, set_condition,
};
pub use connection::{Connection, ConnectionSpec, ConnectionStatus, KeySelector, SecretReference, TlsConfig};
pub(crate) use crds::sorted;
pub use crds::{crd_yaml_files, crds};
pub use duration::{DurationError, GoDuration};
pub use old_kinds::{
    OldConnectionRef, OldRolloutSpec, OldRolloutStep, OldWorkerOptions, TemporalConnection, TemporalConnectionSpec,
    TemporalConnectionStatus, TemporalWorkerDeployment, TemporalWorkerDeploymentSpec,
};
pub use reference::reference_markdown;
pub use rollout::{
    GateInputSource, GateSpec, OnGateFailure, RollbackSpec, RollbackStrategy, RolloutSpec, RolloutStep,
    RolloutStrategy, SunsetSpec,
};
pub use runtime::{
    ActivityRoute, EncryptionKey, EncryptionSpec, ExecHandler, ExecLimits, Handler, HttpHandler, PollerRange,
    ResourceTargets, RuntimeMode, RuntimeSpec, RuntimeTaskQueue,
};
pub use scaling::{
    AUTO, DEFAULT_METRICS_PATH, PodMetrics, RoleFloor, ScalingMode, ScalingPause, ScalingRamp, ScalingRoles,
    ScalingSchedule, ScalingSpec, ScalingTaskQueue, TaskQueueType,
};
pub use scaling_status::{LaneStatus, ScalingBinding, ScalingLimit, ScalingStatus, SloStatus};
pub use status::{
    DeprecatedVersion, HandledCommand, TargetVersion, TestWorkflow, Version, VersionStatus, VersionTaskQueue,
    WorkerDeploymentStatus,
};
pub use template::PodTemplate;
pub use worker_deployment::{
    ConnectionKind, ConnectionRef, DEFAULT_PROGRESS_DEADLINE_SECONDS, DeletionPolicy, DeploymentStrategy,
    DeploymentStrategyType, RollingUpdate, SidecarSpec, Versioning, WorkerDeployment, WorkerDeploymentSpec,
    WorkerOptions,
};
pub use worker_resource_template::{
    CopyStatus, FleetReference, TemplateRole, WorkerResourceTemplate, WorkerResourceTemplateSpec,
    WorkerResourceTemplateStatus,
};

/// API group of every kind.
pub const GROUP: &str = "temporal.io";
/// Version of every kind.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every kind.
pub const API_VERSION: &str = "temporal.io/v1alpha1";
