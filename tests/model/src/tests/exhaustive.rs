//! Every world of a scope.

use std::time::Instant;

use stateright::{Checker, Model};

use crate::dangers;
use crate::fleets::Kind;
use crate::model::{Rollouts, Scope};
use crate::world::{Left, World};

/// Fewest worlds of a check that proves anything.
const FEWEST: usize = 100_000;

/// Tries everything, and gives the number of worlds and the dangers that were met.
fn try_all(scope: Scope) -> (usize, Vec<&'static str>) {
    let began = Instant::now();
    let checker = Rollouts::new(scope, None).checker().threads(2).spawn_bfs().join();
    let (found, model) = (checker.discoveries(), checker.model());
    let broken: Vec<_> = found.iter().filter(|(name, _)| name.starts_with('S')).collect();
    for (name, path) in &broken {
        println!("{name} is broken by {:?}, which ends in {:?}", (*path).clone().into_actions(), path.last_state());
    }
    assert!(broken.is_empty(), "{:?} broken", broken.iter().map(|(name, _)| name).collect::<Vec<_>>());
    let events = dangers::EVENTS.iter().enumerate().filter(|(bit, _)| model.events() & (1 << bit) != 0);
    let met: Vec<_> = found.keys().copied().chain(events.map(|(_, name)| *name)).collect();
    let unique = checker.unique_state_count();
    println!(
        "{} worlds, {unique} unique, {} views, depth {}, {:?}",
        checker.state_count(),
        model.views(),
        checker.max_depth(),
        began.elapsed()
    );
    (unique, met)
}

fn dangers_but(met: &[&'static str]) -> Vec<&'static str> {
    let all = dangers::STATES.iter().map(|(name, _)| *name).chain(dangers::EVENTS);
    all.filter(|name| !met.contains(name)).collect()
}

fn number(name: &str, default: u8) -> u8 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_order_of_events_breaks_an_invariant() {
    let scope = Scope {
        kind: Kind::Progressive,
        begin: vec![World::settled(), World::default(), World::with_a_forgotten_record(), World::with_an_old_version()],
        left: Left { faults: number("F", 1), edits: number("E", 1), outside: number("O", 0) },
        versions: number("V", 3),
        settle_every: u64::from(number("SE", 64)),
    };
    let (unique, met) = try_all(scope);
    println!("not met: {:?}", dangers_but(&met));
    assert!(unique >= FEWEST, "{unique} worlds are too few");
}
