use super::*;

const NAMED: Named<'static> = Named { namespace: "prod", name: "orders" };

/// `flags`: of guarded, leaving, labelled and successor those that hold.
fn old(kind: OldKind, flags: &str, owned: Option<usize>) -> Old {
    let has = |flag: &str| flags.split(' ').any(|one| one == flag);
    Old {
        kind,
        is_guarded: has("guarded"),
        is_leaving: has("leaving"),
        is_labelled: has("labelled"),
        has_successor: has("successor"),
        owned,
    }
}

/// Every object that there may be.
fn every() -> Vec<Old> {
    let mut all = Vec::new();
    for kind in OldKind::ALL {
        for bits in 0..16 {
            for owned in [None, Some(0), Some(2)] {
                all.push(Old {
                    kind,
                    is_guarded: bits & 1 != 0,
                    is_leaving: bits & 2 != 0,
                    is_labelled: bits & 4 != 0,
                    has_successor: bits & 8 != 0,
                    owned,
                });
            }
        }
    }
    all
}

#[test]
fn a_fleet_is_guarded_then_handed_over_then_labelled_then_let_go() {
    use Reason::{DeletingPendingMigration, Deprecated, MigratedToWorkerDeployment, WorkerDeploymentExists};
    use Step::{Guard, HandOver, Label, Release};
    for (flags, owned, expected, reason) in [
        ("", None, vec![Guard], Deprecated),
        ("guarded", None, vec![], Deprecated),
        ("guarded successor", Some(2), vec![HandOver], WorkerDeploymentExists),
        ("successor", Some(2), vec![Guard, HandOver], WorkerDeploymentExists),
        ("guarded successor", None, vec![], WorkerDeploymentExists),
        ("guarded successor", Some(0), vec![Label], MigratedToWorkerDeployment),
        ("guarded successor labelled", None, vec![], MigratedToWorkerDeployment),
        ("guarded successor labelled", Some(1), vec![HandOver], WorkerDeploymentExists),
        ("guarded labelled", None, vec![], MigratedToWorkerDeployment),
        ("guarded leaving", None, vec![], DeletingPendingMigration),
        ("guarded leaving", Some(0), vec![], DeletingPendingMigration),
        ("guarded leaving successor", Some(2), vec![HandOver], DeletingPendingMigration),
        ("guarded leaving successor", Some(0), vec![Release], MigratedToWorkerDeployment),
        ("guarded leaving successor labelled", Some(0), vec![Release], MigratedToWorkerDeployment),
        ("guarded leaving labelled", Some(0), vec![Release], MigratedToWorkerDeployment),
        ("guarded leaving labelled", Some(1), vec![], DeletingPendingMigration),
        ("guarded leaving labelled", None, vec![], DeletingPendingMigration),
        // Somebody else's finalizer keeps it.
        ("leaving successor", Some(2), vec![HandOver], DeletingPendingMigration),
        ("leaving labelled", None, vec![], MigratedToWorkerDeployment),
    ] {
        let old = old(OldKind::WorkerDeployment, flags, owned);
        let ready = ready(&old, NAMED, None);
        assert_eq!((steps(&old), ready.reason), (expected, reason), "{flags} {owned:?}");
        assert_eq!((ready.type_, ready.status), (ConditionType::Ready, ConditionStatus::False));
    }
}

#[test]
fn a_connection_is_guarded_and_let_go_when_there_is_a_new_one() {
    use Reason::{DeletingPendingMigration, Deprecated, MigratedToConnection};
    for (flags, expected, reason) in [
        ("", vec![Step::Guard], Deprecated),
        ("guarded", vec![], Deprecated),
        ("successor", vec![Step::Guard], MigratedToConnection),
        ("guarded successor", vec![], MigratedToConnection),
        ("guarded leaving", vec![], DeletingPendingMigration),
        ("guarded leaving labelled", vec![], DeletingPendingMigration),
        ("guarded leaving successor", vec![Step::Release], MigratedToConnection),
        ("leaving", vec![], DeletingPendingMigration),
    ] {
        let old = old(OldKind::Connection, flags, None);
        assert_eq!((steps(&old), ready(&old, NAMED, None).reason), (expected, reason), "{flags}");
    }
}

#[test]
fn nothing_is_let_go_that_owns_something_or_may() {
    for old in every() {
        let steps = steps(&old);
        if steps.contains(&Step::Release) {
            assert!(old.is_leaving && old.is_guarded, "{old:?}");
            match old.kind {
                OldKind::Connection => assert!(old.has_successor, "{old:?}"),
                OldKind::WorkerDeployment => assert_eq!(old.owned, Some(0), "{old:?}"),
            }
        }
        if steps.contains(&Step::Label) {
            assert!(old.owned == Some(0) && old.has_successor, "{old:?}");
        }
        assert!(!steps.contains(&Step::HandOver) || old.has_successor, "{old:?}");
        assert!(!steps.contains(&Step::Guard) || !old.is_leaving, "{old:?}");
    }
}

/// Once each step is done, what is asked for is asked for and nothing else happens, the look after the last one changes nothing.
#[test]
fn it_comes_to_an_end_from_anywhere() {
    for start in every() {
        let mut old = Old { owned: None, ..start };
        let mut owns = start.owned.unwrap_or(0);
        let mut last = vec![Step::Guard];
        for _ in 0..5 {
            old.owned = must_ask(&old, owns).then_some(owns);
            last = steps(&old);
            for step in &last {
                match step {
                    Step::Guard => old.is_guarded = true,
                    Step::HandOver => owns = 0,
                    Step::Label => old.is_labelled = true,
                    Step::Release => old.is_guarded = false,
                }
            }
        }
        assert_eq!(last, [], "{start:?}");
        if old.kind == OldKind::WorkerDeployment && old.has_successor {
            assert_eq!((owns, old.is_leaving && old.is_guarded), (0, false), "{start:?}");
            assert!(old.is_labelled || old.is_leaving, "{start:?}");
        }
    }
}

#[test]
fn a_worker_deployment_waits_while_its_predecessor_may_own_something() {
    for (is_labelled, seen, expected) in [(false, 0, true), (false, 1, true), (true, 1, true), (true, 0, false)] {
        assert_eq!(holds_its_successor(is_labelled, seen), expected, "{is_labelled} {seen}");
    }
}

#[test]
fn messages_name_the_successor_the_remedy_and_what_failed() {
    let says = |kind, flags, owned, parts: &[&str]| {
        let message = ready(&old(kind, flags, owned), NAMED, None).message;
        parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in: {message}"));
    };
    let (fleet, connection) = (OldKind::WorkerDeployment, OldKind::Connection);
    says(fleet, "guarded", None, &["create WorkerDeployment \"orders\" in namespace prod", "Deployments stay"]);
    says(fleet, "guarded leaving", None, &["temporal.io/migration-guard", "deletes its Deployments"]);
    says(fleet, "labelled", None, &["was there", "kubectl delete temporalworkerdeployments orders -n prod"]);
    says(connection, "guarded", None, &["create Connection \"orders\" in namespace prod"]);
    says(connection, "successor", None, &["is there", "kubectl delete temporalconnections orders -n prod"]);
    let failed = ready(&old(fleet, "successor", Some(1)), NAMED, Some("forbidden")).message;
    assert!(failed.ends_with("The last try failed: forbidden"), "{failed}");
}

fn owner(uid: &str, is_controller: bool) -> OwnerReference {
    OwnerReference {
        api_version: API_VERSION.into(),
        kind: OldKind::WorkerDeployment.name().into(),
        name: "orders".into(),
        uid: uid.into(),
        controller: is_controller.then_some(true),
        block_owner_deletion: Some(true),
    }
}

#[test]
fn an_owner_reference_is_replaced_and_the_others_stay() {
    let uids = |owners: &[OwnerReference]| owners.iter().map(|owner| owner.uid.clone()).collect::<Vec<_>>();
    let after = |owners: &[OwnerReference]| handed_over(owners, "old", NAMED, "new");
    let replaced = after(&[owner("old", true)]).unwrap();
    let expected = OwnerReference { kind: "WorkerDeployment".into(), uid: "new".into(), ..owner("old", true) };
    assert_eq!(replaced, [expected]);
    assert_eq!(uids(&after(&[owner("old", true), owner("other", false)]).unwrap()), ["other", "new"]);
    // Two of one object, or two controllers, would be refused.
    let both = after(&[owner("new", false), owner("old", true)]).unwrap();
    assert_eq!((uids(&both), both[0].controller), (vec!["new".to_owned()], Some(true)));
    assert_eq!(after(&[owner("other", true)]), None);
    assert_eq!(after(&[]), None);
}
