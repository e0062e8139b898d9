//! A whole rollout, with the operator killed before and after each of its writes, and with each reply lost.

use crate::act::Act;
use crate::fleets::Kind;
use crate::look::Looker;
use crate::model::{self, Event};
use crate::operator::{Fate, Operators};
use crate::settle;
use crate::world::{Leader, Pod, Work, World, ids};

/// What goes wrong at a write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    KilledBefore,
    KilledAfter,
    ReplyLost,
}

const BLOWS: [Blow; 3] = [Blow::KilledBefore, Blow::KilledAfter, Blow::ReplyLost];
/// Rounds within which each part of the story ends.
const ROUNDS: usize = 40;

#[derive(Default)]
struct Played {
    writes: Vec<Act>,
    blows: usize,
    /// The world after each part of the story.
    ends: Vec<World>,
    broken: u32,
}

/// Counts writes, and lets the one at `at` go wrong.
struct Player {
    operators: Operators,
    blow: Option<(usize, Blow)>,
    played: Played,
}

impl Player {
    fn new(blow: Option<(usize, Blow)>) -> Self {
        let operators = Operators { looker: Looker::new(Kind::Runtime, None), by_steps: true, mutant: None };
        Self { operators, blow, played: Played::default() }
    }

    /// Plays until nothing happens any more.
    fn rest(&mut self, world: &mut World) {
        let (operators, blow, played) = (&self.operators, self.blow, &mut self.played);
        let mut step = |world: &mut World| step(operators, blow, played, world);
        let rounds = (0..ROUNDS).take_while(|_| settle::round_by(operators, world, &mut step)).count();
        assert!(rounds < ROUNDS, "it comes to no rest: {world:#?}");
        played.broken |= world.broken;
    }

    /// A first version; a second one by steps, while pinned work is open on the first; sunset of the first; deletion.
    fn play(mut self) -> Played {
        let mut world = World::default();
        self.rest(&mut world);
        self.played.ends.push(world.clone());
        world.set_work(0, Work::Pinned);
        model::happens_by_people(&mut world, Event::Retarget(1));
        self.rest(&mut world);
        self.played.ends.push(world.clone());
        model::happens_by_people(&mut world, Event::Delete);
        self.rest(&mut world);
        self.played.ends.push(world.clone());
        self.played
    }
}

fn step(operators: &Operators, blow: Option<(usize, Blow)>, played: &mut Played, world: &mut World) -> bool {
    let Some(next) = world.leader.plan.last().copied() else { return false };
    if operators.leaves_out(world, next) {
        operators.step(world, Fate::Answered);
        return true;
    }
    let now = blow.filter(|(at, _)| *at == played.writes.len()).map(|(_, blow)| blow);
    played.writes.push(next);
    played.blows += usize::from(now.is_some());
    match now {
        None => _ = operators.step(world, Fate::Answered),
        Some(Blow::ReplyLost) => _ = operators.step(world, Fate::Unheard),
        Some(Blow::KilledAfter) => {
            operators.step(world, Fate::Unheard);
            operators.crash(world);
        }
        Some(Blow::KilledBefore) => operators.crash(world),
    }
    true
}

/// What counts of a world: not what an operator remembers, nor how long ago all that was.
fn lasting(world: &World) -> World {
    World { leader: Leader::default(), ..world.clone() }
}

#[test]
fn a_kill_or_a_lost_reply_at_any_write_of_a_rollout_changes_nothing_of_where_it_ends() {
    let clean = Player::new(None).play();
    let temporals = clean.writes.iter().filter(|act| act.is_temporals()).count();
    let wanted: Vec<_> = clean.ends.iter().map(lasting).collect();
    assert_eq!(clean.broken, 0);
    let mut done = [0; BLOWS.len()];
    for at in 0..clean.writes.len() {
        for (kind, blow) in BLOWS.into_iter().enumerate() {
            let played = Player::new(Some((at, blow))).play();
            assert_eq!(played.blows, 1, "{blow:?} at write {at} did not happen");
            assert_eq!(played.broken, 0, "{blow:?} at write {at} ({:?})", clean.writes[at]);
            let ends: Vec<_> = played.ends.iter().map(lasting).collect();
            assert_eq!(ends, wanted, "{blow:?} at write {at} ({:?})", clean.writes[at]);
            done[kind] += played.blows;
        }
    }
    let writes = clean.writes.len();
    println!("{writes} writes, {temporals} of them to Temporal: {:?}", clean.writes);
    println!("killed before {}, killed after {}, replies lost {}", done[0], done[1], done[2]);
    assert_eq!(done, [writes; BLOWS.len()]);
}

#[test]
fn the_rollout_that_is_killed_is_a_whole_one() {
    let clean = Player::new(None).play();
    let ramps = clean.writes.iter().filter(|act| matches!(act, Act::Ramp(1, _))).count();
    assert_eq!(ramps, crate::world::STEPS.len());
    for act in [
        Act::Protect,
        Act::ApplyLimits,
        Act::ApplyConfigMap(1),
        Act::Apply(1),
        Act::Claim,
        Act::SetCurrent(0),
        Act::SetCurrent(1),
        Act::Scale(0, 0),
        Act::DeleteRecord(0),
        Act::DeleteConfigMap(0),
        Act::DeleteChild(0),
        Act::ClearCurrent,
        Act::ForceDeleteRecord(1),
        Act::DeleteServer,
        Act::Release(false),
    ] {
        assert!(clean.writes.contains(&act), "{act:?} is not in {:?}", clean.writes);
    }
    let [first, second, gone] = &clean.ends[..] else { panic!("three parts") };
    assert_eq!((first.server.current, second.server.current), (Some(0), Some(1)));
    assert!(second.child(0).is_none() && second.record(0).is_none() && gone.cluster.spec.gone && !gone.server.exists);
    assert!(ids().all(|id| gone.cluster.pods[usize::from(id)] == Pod::None));
}
