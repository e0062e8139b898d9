//! Every world of some scopes.

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, Model};

use crate::dangers;
use crate::fleets::Kind;
use crate::model::{Rollouts, Scope};
use crate::world::{Left, VERSIONS, World};

/// Fewest worlds of a check that proves anything.
const FEWEST: usize = 100_000;
/// One of so many worlds is brought to rest.
const SETTLE_EVERY: u64 = 64;

/// Faults, edits by the user, and changes of the routing by somebody else.
type Bounds = (u8, u8, u8);

fn scope((faults, edits, outside): Bounds) -> Scope {
    Scope {
        kind: Kind::Progressive,
        begin: vec![World::settled(), World::default(), World::with_a_forgotten_record(), World::with_an_old_version()],
        left: Left { faults, answers: 1, edits, outside },
        versions: VERSIONS as u8,
        settle_every: SETTLE_EVERY,
    }
}

/// Tries everything, and gives the number of worlds and the dangers that were met.
fn try_all(bounds: Bounds) -> (usize, BTreeSet<&'static str>) {
    let began = Instant::now();
    let checker = Rollouts::new(scope(bounds), None).checker().threads(2).spawn_bfs().join();
    let (found, model) = (checker.discoveries(), checker.model());
    let broken: Vec<_> = found.iter().filter(|(name, _)| name.starts_with('S')).collect();
    for (name, path) in &broken {
        println!("{name} is broken by {:?}, which ends in {:?}", (*path).clone().into_actions(), path.last_state());
    }
    assert!(broken.is_empty(), "{:?} broken", broken.iter().map(|(name, _)| name).collect::<Vec<_>>());
    let events = dangers::EVENTS.iter().enumerate().filter(|(bit, _)| model.events() & (1 << bit) != 0);
    let met = found.keys().copied().chain(events.map(|(_, name)| *name)).collect();
    let unique = checker.unique_state_count();
    println!(
        "{bounds:?}: {} worlds, {unique} unique, {} views, depth {}, {:?}",
        checker.state_count(),
        model.views(),
        checker.max_depth(),
        began.elapsed()
    );
    (unique, met)
}

fn all_dangers() -> BTreeSet<&'static str> {
    dangers::STATES.iter().map(|(name, _)| *name).chain(dangers::EVENTS).collect()
}

#[test]
fn no_order_of_events_breaks_an_invariant() {
    let tried = [(2, 1, 0), (1, 1, 1), (0, 2, 0)].map(try_all);
    let unique: usize = tried.iter().map(|(unique, _)| unique).sum();
    println!("{unique} unique worlds");
    assert!(tried.iter().all(|(unique, _)| *unique >= FEWEST), "{unique} worlds are too few");
    let met = tried.into_iter().flat_map(|(_, met)| met).collect();
    let missed: Vec<_> = all_dangers().difference(&met).copied().collect();
    assert!(missed.is_empty(), "not met: {missed:?}");
}

#[test]
fn long_no_order_of_more_events_breaks_an_invariant() {
    for bounds in [(1, 2, 0), (2, 0, 1)] {
        let (unique, _) = try_all(bounds);
        assert!(unique >= FEWEST, "{unique} worlds are too few");
    }
}
