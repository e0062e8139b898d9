//! Which Connections are kept from going: those that a fleet of their Kubernetes namespace uses, or needs to go itself; and which
//! ClusterConnections: those that a fleet of any does. These have no namespace, and an empty one here.
//!
//! It follows from what is there, and from nothing that is remembered: whatever was missed, by whichever process, the next look
//! makes good. So no Connection is kept for a fleet that has another one now, or is gone.

use std::collections::BTreeSet;

use crate::border::{self, Border};

/// A WorkerDeployment, as far as it holds a Connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Kubernetes namespace of the Connection; empty for a ClusterConnection.
    pub namespace: String,
    /// Name of the Connection; none when what is stored can't be read, so that it may be any.
    pub connection: Option<String>,
    /// Whether it is being deleted and needs no Connection for that.
    pub is_leaving: bool,
}

/// A Connection, as far as it is held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holdable {
    /// Kubernetes namespace; empty for a ClusterConnection.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Whether it has the finalizer.
    pub is_held: bool,
    /// Whether it is being deleted: then it can't be given a finalizer any more.
    pub is_leaving: bool,
}

/// A change of a Connection's finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets the finalizer.
    Hold,
    /// It loses it.
    Release,
}

/// The changes that are due. Both lists have to be complete.
#[must_use]
pub fn changes(uses: &[Use], connections: &[Holdable]) -> Vec<(Holdable, Change)> {
    fn of(namespace: &str) -> &str {
        border::within(Border::ConnectionHold, namespace)
    }
    let staying = || uses.iter().filter(|one| !one.is_leaving);
    let used: BTreeSet<(&str, &str)> =
        staying().filter_map(|one| Some((of(&one.namespace), one.connection.as_deref()?))).collect();
    let unreadable: BTreeSet<&str> =
        uses.iter().filter(|one| one.connection.is_none()).map(|one| one.namespace.as_str()).collect();
    let change = |connection: &Holdable| {
        let is_used = used.contains(&(of(&connection.namespace), connection.name.as_str()));
        match (is_used, connection.is_held) {
            (true, false) if !connection.is_leaving => Some(Change::Hold),
            (false, true) if !unreadable.contains(connection.namespace.as_str()) => Some(Change::Release),
            _ => None,
        }
    };
    connections.iter().filter_map(|connection| Some((connection.clone(), change(connection)?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uses(connection: &str) -> Use {
        Use { namespace: "ns".into(), connection: Some(connection.into()), is_leaving: false }
    }

    fn connection(name: &str, is_held: bool) -> Holdable {
        Holdable { namespace: "ns".into(), name: name.into(), is_held, is_leaving: false }
    }

    fn due(uses: &[Use], connections: &[Holdable]) -> Vec<(String, Change)> {
        changes(uses, connections).into_iter().map(|(connection, change)| (connection.name, change)).collect()
    }

    #[test]
    fn a_connection_is_held_while_a_fleet_of_its_namespace_uses_it() {
        let both = [connection("a", false), connection("b", true)];
        assert_eq!(due(&[uses("a"), uses("a")], &both), [("a".into(), Change::Hold), ("b".into(), Change::Release)]);
        assert_eq!(due(&[uses("a"), uses("b")], &[connection("a", true), connection("b", true)]), []);
        let other = Use { namespace: "other".into(), ..uses("a") };
        assert_eq!(due(&[other], &[connection("a", true)]), [("a".into(), Change::Release)]);
    }

    #[test]
    fn a_fleet_that_is_deleted_holds_it_as_long_as_it_needs_it() {
        let leaving = |is_leaving| Use { is_leaving, ..uses("a") };
        assert_eq!(due(&[leaving(false)], &[connection("a", true)]), []);
        assert_eq!(due(&[leaving(true), leaving(true)], &[connection("a", true)]), [("a".into(), Change::Release)]);
    }

    #[test]
    fn a_connection_that_is_being_deleted_gets_no_finalizer_and_keeps_the_one_it_has() {
        let leaving = |is_held| Holdable { is_leaving: true, ..connection("a", is_held) };
        assert_eq!(due(&[uses("a")], &[leaving(false)]), []);
        assert_eq!(due(&[uses("a")], &[leaving(true)]), []);
        assert_eq!(due(&[], &[leaving(true)]), [("a".into(), Change::Release)]);
    }

    #[test]
    fn a_fleet_that_can_not_be_read_may_use_any_connection_of_its_namespace() {
        let unreadable = Use { connection: None, ..uses("") };
        assert_eq!(due(std::slice::from_ref(&unreadable), &[connection("a", true), connection("b", false)]), []);
        let elsewhere = Use { namespace: "other".into(), ..unreadable };
        assert_eq!(due(&[elsewhere], &[connection("a", true)]), [("a".into(), Change::Release)]);
    }

    fn random_uses() -> impl Strategy<Value = Vec<Use>> {
        let one = (0..2_usize, prop::option::weighted(0.9, 0..3_usize), any::<bool>());
        let named = |(namespace, connection, is_leaving): (usize, Option<usize>, bool)| Use {
            namespace: ["ns", "other"][namespace].into(),
            connection: connection.map(|at| ["a", "b", "c"][at].into()),
            is_leaving,
        };
        prop::collection::vec(one.prop_map(named), 0..5)
    }

    fn random_connections() -> impl Strategy<Value = Vec<Holdable>> {
        let place = (0..2_usize, 0..3_usize);
        let named = |((namespace, name), (is_held, is_leaving)): ((usize, usize), (bool, bool))| Holdable {
            namespace: ["ns", "other"][namespace].into(),
            name: ["a", "b", "c"][name].into(),
            is_held,
            // One that is being deleted is there only because something holds it.
            is_leaving: is_held && is_leaving,
        };
        prop::collection::btree_map(place, (any::<bool>(), any::<bool>()), 0..6)
            .prop_map(move |all| all.into_iter().map(named).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_used_is_held_and_nothing_else_stays_held(uses in random_uses(), connections in random_connections()) {
            let due = changes(&uses, &connections);
            let after: Vec<_> = connections
                .iter()
                .map(|one| {
                    let change = due.iter().find(|(connection, _)| connection == one).map(|(_, change)| *change);
                    Holdable { is_held: change.map_or(one.is_held, |change| change == Change::Hold), ..one.clone() }
                })
                .collect();
            for one in &after {
                let near = || uses.iter().filter(|of| of.namespace == one.namespace);
                let used = near().any(|of| !of.is_leaving && of.connection.as_ref() == Some(&one.name));
                let in_doubt = near().any(|of| of.connection.is_none());
                prop_assert!(one.is_held || !used);
                prop_assert!(!one.is_held || used || in_doubt);
            }
            prop_assert!(changes(&uses, &after).is_empty(), "the second look changes nothing");
        }
    }
}
