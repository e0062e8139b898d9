//! Each fault in the operator is found, and by the invariant that it breaks.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use crate::fleets::Kind;
use crate::invariants::S;
use crate::model::{Rollouts, Scope};
use crate::mutants::Mutant;
use crate::world::{Left, World};

/// Most worlds that are tried.
const MOST: usize = 1_000_000;

/// What a mutant needs to show itself, and what finds it.
pub(super) struct Case {
    pub mutant: Mutant,
    kind: Kind,
    begin: fn() -> World,
    left: Left,
    /// What it breaks.
    pub found_by: S,
}

fn case(mutant: Mutant, begin: fn() -> World, (faults, edits, outside): (u8, u8, u8), found_by: S) -> Case {
    let left = Left { faults, answers: 1, edits, outside };
    Case { mutant, kind: Kind::Progressive, begin, left, found_by }
}

pub(super) fn cases() -> Vec<Case> {
    use Mutant as M;
    let (new, settled, old) = (World::default, World::settled, World::with_an_old_version);
    let at_once = |case| Case { kind: Kind::AllAtOnce, ..case };
    vec![
        at_once(case(M::NotFoundIsOver, settled, (1, 1, 0), S::S4)),
        at_once(case(M::UnlistedIsOver, settled, (1, 1, 0), S::S4)),
        at_once(case(M::DrainingIsInactive, settled, (0, 1, 0), S::S2)),
        case(M::RefusalIsIgnored, old, (0, 0, 1), S::S19),
        case(M::RecordsAreKept, old, (0, 0, 0), S::S15),
        case(M::ReleaseAtOnce, settled, (0, 1, 0), S::S20),
        at_once(case(M::NeverToZero, settled, (0, 1, 0), S::S15)),
        case(M::ReplicasAtEachLook, settled, (0, 0, 0), S::S15),
        at_once(case(M::BusyIsIdle, settled, (0, 1, 0), S::S1)),
        at_once(case(M::TrafficIsOverlooked, settled, (0, 1, 0), S::S2)),
        case(M::OldIsFresh, old, (1, 1, 0), S::S4),
        case(M::NoLeaseCheck, new, (1, 0, 0), S::S5),
        case(M::NoToken, old, (0, 1, 1), S::S6),
        case(M::ForeignManagerIsOverlooked, old, (0, 1, 1), S::S6),
        case(M::OthersRecordsAreDeleted, World::with_a_forgotten_record, (0, 0, 1), S::S12),
        case(M::NoPause, settled, (0, 1, 0), S::S7),
        case(M::StepsAreSkipped, settled, (0, 1, 0), S::S7),
        case(M::PodsAreNotAwaited, old, (0, 1, 0), S::S8),
        case(M::RollbackBySteps, old, (0, 1, 0), S::S9),
        case(M::StatusOfOldReadings, settled, (1, 0, 0), S::S14),
        case(M::OneTooMany, old, (0, 1, 0), S::S17),
        case(M::NoPreconditions, old, (0, 0, 0), S::S18),
        case(M::NoResourceVersion, new, (0, 1, 0), S::S23),
        case(M::DeploymentBeforeRecord, old, (0, 0, 0), S::S19),
        case(M::NoFinalizer, new, (0, 0, 0), S::S20),
        case(M::PartOfTheCluster, old, (0, 0, 0), S::S24),
        at_once(case(M::OneClock, settled, (1, 1, 0), S::S25)),
    ]
}

/// Invariants that are broken, and the number of worlds that were tried.
fn broken(case: &Case, mutant: Option<Mutant>) -> (BTreeSet<&'static str>, usize) {
    let settle_every = u64::from(case.found_by == S::S15);
    let scope = Scope { kind: case.kind, begin: vec![(case.begin)()], left: case.left, versions: 2, settle_every };
    // One thread: what is found first is the same each time.
    let check = Rollouts::new(scope, mutant).checker().finish_when(HasDiscoveries::AnyFailures);
    let checker = check.target_state_count(MOST).spawn_bfs().join();
    if mutant.is_none() {
        for (name, path) in checker.discoveries().into_iter().filter(|(name, _)| name.starts_with('S')) {
            println!("{name}: {:?} {:?}", path.last_state(), path.clone().into_actions());
        }
    }
    let found = checker.discoveries().into_keys().filter(|name| name.starts_with('S')).collect();
    (found, checker.unique_state_count())
}

#[test]
fn each_fault_is_found_by_the_invariant_that_it_breaks() {
    let cases = cases();
    let all: BTreeSet<_> = cases.iter().map(|case| case.mutant).collect();
    assert_eq!(all, Mutant::ALL.into(), "each has a case");
    let mut missed = Vec::new();
    for case in &cases {
        let (found, worlds) = broken(case, Some(case.mutant));
        println!("{:?}: {found:?} in {worlds} worlds", case.mutant);
        if !found.contains(&*format!("{:?}", case.found_by)) {
            missed.push(format!("{:?}: found {found:?}, not {:?}", case.mutant, case.found_by));
        }
        let (control, _) = broken(case, None);
        assert_eq!(control, BTreeSet::new(), "without the fault, in the scope of {:?}", case.mutant);
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
