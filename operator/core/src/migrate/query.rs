//! What has to be read of a cluster, and what was.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::names::{DEPLOYMENT_NAME_LABEL, LEASE_NAME};

/// Label that the pods and the Deployment of temporal-worker-controller have from its chart.
const OF_THE_GO_CONTROLLER: &str = "app.kubernetes.io/name=temporal-worker-controller";
/// The same of this operator.
const OF_THIS_OPERATOR: &str = "app.kubernetes.io/name=temporal-worker-operator";

/// A part that objects play in a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Deployments of temporal-worker-controller itself.
    Manager,
    /// Its pods.
    ManagerPod,
    /// Pods of this operator.
    OperatorPod,
    /// Leases of the name that both use.
    Lease,
    /// CustomResourceDefinitions.
    Definition,
    /// ValidatingWebhookConfigurations.
    Webhook,
    /// WorkerDeployments.
    Fleet,
    /// Connections.
    Connection,
    /// TemporalWorkerDeployments, which WorkerDeployments replaced.
    DeprecatedFleet,
    /// TemporalConnections, which Connections replaced.
    DeprecatedConnection,
    /// WorkerResourceTemplates.
    ResourceTemplate,
    /// Deployments of versions.
    Child,
    /// KEDA's ScaledObjects.
    ScaledObject,
    /// HorizontalPodAutoscalers.
    Autoscaler,
}

/// Where objects of a kind are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// They have no namespace.
    Cluster,
    /// In all namespaces, whichever is asked about: what is there acts on all of them.
    Everywhere,
    /// In the namespace that is asked about, or in all.
    Asked,
}

/// A list request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// API group; empty for the core one.
    pub group: &'static str,
    /// Version of the group.
    pub version: &'static str,
    /// Kind of the objects.
    pub kind: &'static str,
    /// Its plural.
    pub plural: &'static str,
    /// Where.
    pub scope: Scope,
    /// Label selector; empty for none.
    pub labels: &'static str,
    /// Name that they have; empty for any.
    pub name: &'static str,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Manager,
        Self::ManagerPod,
        Self::OperatorPod,
        Self::Lease,
        Self::Definition,
        Self::Webhook,
        Self::Fleet,
        Self::Connection,
        Self::DeprecatedFleet,
        Self::DeprecatedConnection,
        Self::ResourceTemplate,
        Self::Child,
        Self::ScaledObject,
        Self::Autoscaler,
    ];

    /// How its objects are listed.
    #[must_use]
    pub fn query(self) -> Query {
        let query = |group, version, kind, plural| Query {
            group,
            version,
            kind,
            plural,
            scope: Scope::Asked,
            labels: "",
            name: "",
        };
        let own = |kind, plural| query("temporal.io", "v1alpha1", kind, plural);
        let deployments = query("apps", "v1", "Deployment", "deployments");
        let pods = Query { scope: Scope::Everywhere, ..query("", "v1", "Pod", "pods") };
        match self {
            Self::Manager => Query { scope: Scope::Everywhere, labels: OF_THE_GO_CONTROLLER, ..deployments },
            Self::ManagerPod => Query { labels: OF_THE_GO_CONTROLLER, ..pods },
            Self::OperatorPod => Query { labels: OF_THIS_OPERATOR, ..pods },
            Self::Lease => Query {
                scope: Scope::Everywhere,
                name: LEASE_NAME,
                ..query("coordination.k8s.io", "v1", "Lease", "leases")
            },
            Self::Definition => Query {
                scope: Scope::Cluster,
                ..query("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
            },
            Self::Webhook => Query {
                scope: Scope::Cluster,
                ..query(
                    "admissionregistration.k8s.io",
                    "v1",
                    "ValidatingWebhookConfiguration",
                    "validatingwebhookconfigurations",
                )
            },
            Self::Fleet => own("WorkerDeployment", "workerdeployments"),
            Self::Connection => own("Connection", "connections"),
            Self::DeprecatedFleet => own("TemporalWorkerDeployment", "temporalworkerdeployments"),
            Self::DeprecatedConnection => own("TemporalConnection", "temporalconnections"),
            Self::ResourceTemplate => own("WorkerResourceTemplate", "workerresourcetemplates"),
            Self::Child => Query { labels: DEPLOYMENT_NAME_LABEL, ..deployments },
            Self::ScaledObject => query("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
            Self::Autoscaler => query("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        }
    }
}

impl Query {
    /// Kind and group, as people write them: `ScaledObject.keda.sh`.
    #[must_use]
    pub fn title(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }
}

/// What became of a list request.
#[derive(Clone, Debug, PartialEq)]
pub enum Listed {
    /// These are all.
    Objects(Vec<Value>),
    /// The API server does not know the kind.
    NotServed,
    /// It was not answered, for this reason.
    Refused(String),
}

/// What was read of a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// By kind; what is missing was not asked for, and counts as none.
    pub lists: BTreeMap<Kind, Listed>,
    /// When it was read.
    pub now: Timestamp,
}

impl Cluster {
    /// The objects of a kind, as far as they could be read.
    #[must_use]
    pub fn of(&self, kind: Kind) -> &[Value] {
        match self.lists.get(&kind) {
            Some(Listed::Objects(objects)) => objects,
            _ => &[],
        }
    }

    /// Whether the objects of a kind could be read, so that what is not among them does not exist.
    #[must_use]
    pub fn knows(&self, kind: Kind) -> bool {
        !matches!(self.lists.get(&kind), Some(Listed::Refused(_)))
    }
}
