//! The borders between tenants: what keeps a fleet of one Kubernetes namespace from what is another's.
//!
//! Each stands in the code that it guards as a question to [`stands`], or as the namespace of a key ([`within`]). The answer is a
//! constant, so that a normal build has the guards alone. Only a build with the feature `breach` can take one down, and only such a
//! build can show that the tests of a border would see it gone.

/// A guard between tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Border {
    /// A fleet finds Connections of its own namespace alone.
    Connection,
    /// A ClusterConnection is for the namespaces that it allows.
    ClusterConnection,
    /// Labels of namespaces are kept by namespace.
    NamespaceLabels,
    /// Secrets are read in the fleet's own namespace.
    SecretNamespace,
    /// Secrets that were read lately are kept by namespace.
    SecretCache,
    /// A name is a name, and no path.
    ObjectName,
    /// The argument of a gate's Workflow is read in the fleet's own namespace.
    GateInput,
    /// A channel to a server is for one namespace, and for the Secrets that it was made from.
    Channel,
    /// A Connection is held by fleets of its own namespace alone.
    ConnectionHold,
    /// A fleet's Deployments are of its own namespace.
    Deployments,
    /// A fleet's pods are of its own namespace.
    Pods,
    /// A fleet waits for objects of the deprecated kinds in its own namespace alone.
    OldKinds,
    /// What an object of a deprecated kind owns goes to a successor in its own namespace.
    Successor,
    /// A template is for a fleet of its own namespace.
    TemplateFleet,
    /// Copies of a template are made in its own namespace.
    TemplateNamespace,
    /// A push token is good for the fleet that it names.
    PushFleet,
    /// A push token is signed by the installation.
    PushSignature,
    /// The name of a Worker Deployment in Temporal begins with the fleet's Kubernetes namespace.
    WorkerDeployment,
}

impl Border {
    /// Every one.
    pub const ALL: [Self; 18] = [
        Self::Connection,
        Self::ClusterConnection,
        Self::NamespaceLabels,
        Self::SecretNamespace,
        Self::SecretCache,
        Self::ObjectName,
        Self::GateInput,
        Self::Channel,
        Self::ConnectionHold,
        Self::Deployments,
        Self::Pods,
        Self::OldKinds,
        Self::Successor,
        Self::TemplateFleet,
        Self::TemplateNamespace,
        Self::PushFleet,
        Self::PushSignature,
        Self::WorkerDeployment,
    ];
}

/// Whether a border stands.
#[cfg(not(feature = "breach"))]
#[must_use]
#[inline]
pub const fn stands(_: Border) -> bool {
    true
}

/// The namespace in a key that tells tenants apart: none where the border does not stand.
#[must_use]
#[inline]
pub fn within(border: Border, namespace: &str) -> &str {
    if stands(border) { namespace } else { "" }
}

#[cfg(feature = "breach")]
pub use breach::{stands, take_down};

/// For tests of the borders alone.
#[cfg(feature = "breach")]
mod breach {
    use std::sync::OnceLock;

    use super::Border;

    static DOWN: OnceLock<Vec<Border>> = OnceLock::new();

    /// Whether a border stands.
    #[must_use]
    pub fn stands(border: Border) -> bool {
        !DOWN.get().is_some_and(|down| down.contains(&border))
    }

    /// Takes down the borders with these names, as the enum has them, separated by commas: once, before anything is asked. Gives
    /// them back.
    pub fn take_down(names: &str) -> &'static [Border] {
        let is_named = |border: &Border| names.split(',').any(|name| name == format!("{border:?}"));
        DOWN.get_or_init(|| Border::ALL.into_iter().filter(is_named).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_border_stands_and_is_listed_once() {
        let mut all = Border::ALL.to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), Border::ALL.len());
        assert!(all.into_iter().all(stands));
        assert_eq!(within(Border::SecretCache, "prod"), "prod");
    }
}
