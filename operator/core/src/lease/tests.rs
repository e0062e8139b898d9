use proptest::prelude::*;

use super::*;

const ME: &str = "operator-1_a7";
const OTHER: &str = "operator-2_c9";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn held_by(holder: &str, renewed: i64) -> LeaseView {
    let at = Some(Timestamp::from_second(renewed).unwrap());
    let record = LeaseRecord {
        holder: holder.into(),
        duration: Some(LEASE_DURATION),
        transitions: 4,
        acquired: Some(Timestamp::UNIX_EPOCH),
        renewed: at,
    };
    LeaseView::Present { resource_version: format!("rv{renewed}"), record }
}

/// A candidate that has acquired the Lease at 100 s and knows it.
fn leader() -> LeaseState {
    let (action, state) = step(&LeaseView::Absent, ME, &LeaseState::default(), seconds(100), 0.0);
    assert!(matches!(action, LeaseAction::Create(_)));
    let (_, state) = step(&held_by(ME, 1), ME, &state, seconds(101), 0.0);
    assert!(may_write(&state, seconds(101)));
    state
}

#[test]
fn an_absent_lease_is_created_and_the_right_begins_with_its_confirmation() {
    let (action, state) = step(&LeaseView::Absent, ME, &LeaseState::default(), seconds(100), 0.0);
    let claim = Claim { holder: ME.into(), duration: LEASE_DURATION, transitions: 0, acquires: true };
    assert_eq!(action, LeaseAction::Create(claim));
    assert!(!may_write(&state, seconds(100)), "not before the server has said so");
    let (action, state) = step(&held_by(ME, 1), ME, &state, seconds(101), 0.0);
    assert_eq!(action, LeaseAction::Wait(seconds(1)));
    assert!(may_write(&state, seconds(101)) && may_write(&state, Duration::from_millis(109_999)));
    assert!(!may_write(&state, seconds(110)), "it counts from the begin of the write");
}

#[test]
fn a_holder_renews_every_period_without_a_transition() {
    let state = leader();
    let (action, state) = step(&held_by(ME, 1), ME, &state, seconds(102), 0.0);
    let claim = Claim { holder: ME.into(), duration: LEASE_DURATION, transitions: 4, acquires: false };
    assert_eq!(action, LeaseAction::Update { resource_version: "rv1".into(), claim });
    let (_, state) = step(&held_by(ME, 2), ME, &state, seconds(103), 0.0);
    assert!(may_write(&state, seconds(111)) && !may_write(&state, seconds(112)));
}

#[test]
fn another_holder_is_left_alone_until_its_record_has_not_changed_for_its_duration() {
    let mut state = LeaseState::default();
    for now in 0..15 {
        let (action, next) = step(&held_by(OTHER, 1), ME, &state, seconds(now), 0.0);
        assert!(matches!(action, LeaseAction::Wait(wait) if wait <= RETRY_PERIOD), "{action:?} at {now}");
        state = next;
    }
    let renewed = step(&held_by(OTHER, 2), ME, &state, seconds(15), 0.0);
    assert_eq!(renewed.0, LeaseAction::Wait(RETRY_PERIOD), "the control: it did renew");
    let (action, _) = step(&held_by(OTHER, 1), ME, &state, seconds(15), 0.0);
    let claim = Claim { holder: ME.into(), duration: LEASE_DURATION, transitions: 5, acquires: true };
    assert_eq!(action, LeaseAction::Update { resource_version: "rv1".into(), claim });
}

#[test]
fn the_times_in_a_record_are_not_compared_with_a_clock() {
    for renewed in [-2_000_000_000, 0, 4_000_000_000] {
        let (action, _) = step(&held_by(OTHER, renewed), ME, &LeaseState::default(), seconds(1_000_000), 0.0);
        assert_eq!(action, LeaseAction::Wait(RETRY_PERIOD), "renewed at {renewed}");
    }
}

#[test]
fn a_record_tells_its_own_duration() {
    for (duration, taken_after) in [(Some(seconds(40)), 40), (None, 15), (Some(Duration::ZERO), 15)] {
        let LeaseView::Present { resource_version, mut record } = held_by(OTHER, 1) else { unreachable!() };
        record.duration = duration;
        let view = LeaseView::Present { resource_version, record };
        let (_, state) = step(&view, ME, &LeaseState::default(), seconds(0), 0.0);
        let (early, _) = step(&view, ME, &state, seconds(taken_after - 1), 0.0);
        let (late, _) = step(&view, ME, &state, seconds(taken_after), 0.0);
        assert!(matches!((early, late), (LeaseAction::Wait(_), LeaseAction::Update { .. })), "{duration:?}");
    }
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let (action, _) = step(&held_by("", 1), ME, &LeaseState::default(), seconds(0), 0.0);
    assert!(matches!(action, LeaseAction::Update { claim: Claim { transitions: 5, acquires: true, .. }, .. }));
}

#[test]
fn a_holder_gives_the_lease_up_and_its_right_before_it() {
    let (action, state) = release(ME, &leader());
    let claim = Claim { holder: String::new(), duration: seconds(1), transitions: 4, acquires: false };
    assert_eq!(action, LeaseAction::Update { resource_version: "rv1".into(), claim });
    assert!(!may_write(&state, seconds(101)));
    let (_, standby) = step(&held_by(OTHER, 1), ME, &LeaseState::default(), seconds(0), 0.0);
    assert_eq!(release(ME, &standby).0, LeaseAction::Wait(RETRY_PERIOD), "not its own to give");
}

#[test]
fn a_process_that_was_suspended_has_lost_the_right_and_finds_the_new_holder() {
    let state = leader();
    assert!(!may_write(&state, seconds(400)));
    let (action, state) = step(&held_by(OTHER, 9), ME, &state, seconds(400), 0.0);
    assert_eq!(action, LeaseAction::Wait(RETRY_PERIOD));
    assert!(!may_write(&state, seconds(101)), "the right is gone for good, whatever the clock");
}

#[test]
fn a_clock_that_went_back_gives_no_right() {
    assert!(!may_write(&leader(), seconds(99)));
}

#[test]
fn a_holder_that_cannot_reach_the_server_loses_the_right_and_may_get_it_back() {
    let mut state = leader();
    for now in 102..110 {
        state = step(&LeaseView::Unreadable, ME, &state, seconds(now), 0.0).1;
        assert!(may_write(&state, seconds(now)));
    }
    assert!(!may_write(&state, seconds(110)));
    let (action, state) = step(&held_by(ME, 1), ME, &state, seconds(112), 0.0);
    assert!(matches!(action, LeaseAction::Update { .. }));
    let (_, state) = step(&held_by(ME, 2), ME, &state, seconds(113), 0.0);
    assert!(may_write(&state, seconds(121)) && !may_write(&state, seconds(122)));
}

#[test]
fn a_lost_answer_counts_from_the_begin_of_the_first_write_that_may_have_come_through() {
    let state = leader();
    let (_, state) = step(&held_by(ME, 1), ME, &state, seconds(103), 0.0);
    let (second, state) = step(&held_by(ME, 1), ME, &state, seconds(108), 0.0);
    assert!(matches!(second, LeaseAction::Update { .. }));
    let (_, state) = step(&held_by(ME, 2), ME, &state, seconds(109), 0.0);
    assert!(may_write(&state, seconds(112)) && !may_write(&state, seconds(113)));
}

#[test]
fn a_late_write_is_not_taken_for_a_later_one_that_failed() {
    // The first write arrives while the process stands still with an old reading in its hands.
    let (first, state) = step(&held_by("", 1), ME, &LeaseState::default(), seconds(100), 0.0);
    assert!(matches!(first, LeaseAction::Update { .. }));
    let (second, state) = step(&held_by("", 1), ME, &state, seconds(130), 0.0);
    assert!(matches!(second, LeaseAction::Update { .. }), "it ends in a conflict");
    let (_, state) = step(&held_by(ME, 2), ME, &state, seconds(131), 0.0);
    assert!(!may_write(&state, seconds(131)));
}

#[test]
fn a_write_that_can_no_longer_arrive_does_not_shorten_the_next() {
    let (_, state) = step(&held_by("", 1), ME, &LeaseState::default(), seconds(100), 0.0);
    let (_, state) = step(&held_by("", 2), ME, &state, seconds(108), 0.0);
    let (_, state) = step(&held_by(ME, 3), ME, &state, seconds(109), 0.0);
    assert!(may_write(&state, seconds(117)) && !may_write(&state, seconds(118)));
}

#[test]
fn a_label_on_the_lease_confirms_nothing() {
    let state = leader();
    let (_, state) = step(&held_by(ME, 1), ME, &state, seconds(103), 0.0);
    let LeaseView::Present { record, .. } = held_by(ME, 1) else { unreachable!() };
    let labelled = LeaseView::Present { resource_version: "rv77".into(), record };
    let (_, state) = step(&labelled, ME, &state, seconds(104), 0.0);
    assert!(!may_write(&state, seconds(110)));
}

#[test]
fn an_identity_from_an_earlier_life_gives_no_right() {
    let (action, state) = step(&held_by(ME, 1), ME, &LeaseState::default(), seconds(0), 0.0);
    assert!(matches!(action, LeaseAction::Update { claim: Claim { acquires: false, .. }, .. }));
    assert!(!may_write(&state, seconds(0)));
}

#[test]
fn a_deleted_lease_ends_the_right() {
    let (action, state) = step(&LeaseView::Absent, ME, &leader(), seconds(103), 0.0);
    assert!(matches!(action, LeaseAction::Create(_)));
    assert!(!may_write(&state, seconds(103)));
}

#[test]
fn failed_writes_are_repeated_no_faster_than_the_period() {
    let (_, state) = step(&LeaseView::Absent, ME, &LeaseState::default(), seconds(0), 1.0);
    let (action, state) = step(&LeaseView::Absent, ME, &state, seconds(1), 1.0);
    assert_eq!(action, LeaseAction::Wait(Duration::from_millis(1500)));
    assert!(matches!(step(&LeaseView::Absent, ME, &state, Duration::from_millis(2500), 1.0).0, LeaseAction::Create(_)));
}

/// A candidate with a clock of its own that runs up to a tenth fast or slow.
struct Candidate {
    name: String,
    offset: Duration,
    rate: f64,
    state: LeaseState,
    wake: u64,
    /// What it read before it was suspended.
    read: Option<LeaseView>,
}

impl Candidate {
    fn clock(&self, millis: u64) -> Duration {
        self.offset + Duration::from_millis(millis).mul_f64(self.rate)
    }

    fn may_write(&self, millis: u64) -> bool {
        may_write(&self.state, self.clock(millis))
    }
}

/// What befalls a candidate's turn.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    CannotRead,
    /// The write never arrives.
    RequestLost,
    /// The write arrives, its answer does not.
    AnswerLost,
    /// The write arrives that much later; its answer does not.
    Late(u64),
    /// The process stands still for so long between reading and deciding.
    Suspended(u64),
    /// Somebody labels the Lease.
    Labelled,
    /// It shuts down and starts again under a new name.
    Restart,
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        2 => Just(Fault::CannotRead),
        2 => Just(Fault::RequestLost),
        2 => Just(Fault::AnswerLost),
        2 => (0_u64..20_000).prop_map(Fault::Late),
        1 => (0_u64..40_000).prop_map(Fault::Suspended),
        1 => Just(Fault::Labelled),
        1 => Just(Fault::Restart),
    ]
}

/// An API server that holds one Lease.
struct Server {
    view: LeaseView,
    version: u64,
    /// Writes on their way: when they arrive.
    late: Vec<(u64, LeaseAction)>,
}

impl Server {
    fn write(&mut self, action: &LeaseAction, millis: u64) {
        let (claim, before) = match (action, &self.view) {
            (LeaseAction::Create(claim), LeaseView::Absent) => (claim, LeaseRecord::default()),
            (
                LeaseAction::Update { resource_version: base, claim },
                LeaseView::Present { resource_version, record },
            ) if base == resource_version => (claim, record.clone()),
            _ => return,
        };
        let now = Timestamp::from_millisecond(i64::try_from(millis).unwrap()).unwrap();
        self.version += 1;
        let record = LeaseRecord {
            holder: claim.holder.clone(),
            duration: Some(claim.duration),
            transitions: claim.transitions,
            acquired: if claim.acquires { Some(now) } else { before.acquired },
            renewed: Some(now),
        };
        self.view = LeaseView::Present { resource_version: self.version.to_string(), record };
    }

    fn label(&mut self) {
        self.version += 1;
        if let LeaseView::Present { resource_version, .. } = &mut self.view {
            *resource_version = self.version.to_string();
        }
    }

    fn arrive(&mut self, millis: u64) {
        let (now, later) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= millis);
        self.late = later;
        for (_, action) in now {
            self.write(&action, millis);
        }
    }
}

struct World {
    server: Server,
    candidates: Vec<Candidate>,
    millis: u64,
    restarts: u64,
    /// Names that had the right at some time.
    leaders: std::collections::BTreeSet<String>,
}

impl World {
    fn new(clocks: &[(u64, f64)]) -> Self {
        let candidate = |(at, (offset, rate)): (usize, &(u64, f64))| Candidate {
            name: format!("c{at}"),
            offset: seconds(*offset),
            rate: *rate,
            state: LeaseState::default(),
            wake: 0,
            read: None,
        };
        Self {
            server: Server { view: LeaseView::Absent, version: 0, late: Vec::new() },
            candidates: clocks.iter().enumerate().map(candidate).collect(),
            millis: 0,
            restarts: 0,
            leaders: std::collections::BTreeSet::new(),
        }
    }

    /// Lets a tenth of a second pass, with a fault for whoever's turn it is.
    fn tick(&mut self, fault: &mut impl FnMut() -> Fault) {
        self.millis += 100;
        self.server.arrive(self.millis);
        for at in 0..self.candidates.len() {
            if self.candidates[at].wake <= self.millis {
                self.turn(at, fault());
            }
        }
        let leaders: Vec<_> = self.candidates.iter().filter(|it| it.may_write(self.millis)).collect();
        assert!(leaders.len() <= 1, "two may write at {} ms: {:?}", self.millis, leaders[0].state);
        self.leaders.extend(leaders.into_iter().map(|it| it.name.clone()));
    }

    fn turn(&mut self, at: usize, fault: Fault) {
        let millis = self.millis;
        let seen = if fault == Fault::CannotRead { LeaseView::Unreadable } else { self.server.view.clone() };
        let view = self.candidates[at].read.take().unwrap_or(seen);
        if let Fault::Suspended(time) = fault {
            self.candidates[at].wake = millis + time;
            self.candidates[at].read = Some(view);
            return;
        }
        if fault == Fault::Labelled {
            self.server.label();
        }
        let restarts = &mut self.restarts;
        let candidate = &mut self.candidates[at];
        if fault == Fault::Restart {
            let (action, _) = release(&candidate.name, &candidate.state);
            *restarts += 1;
            candidate.name = format!("c{at}-{restarts}");
            candidate.state = LeaseState::default();
            self.server.write(&action, millis);
            return;
        }
        let now = candidate.clock(millis);
        let (action, state) = step(&view, &candidate.name, &candidate.state, now, 0.3);
        candidate.state = state;
        if let LeaseAction::Wait(wait) = action {
            candidate.wake = millis + u64::try_from(wait.as_millis()).unwrap();
            return;
        }
        match fault {
            Fault::RequestLost => {}
            Fault::Late(by) => self.server.late.push((millis + by, action)),
            Fault::AnswerLost => self.server.write(&action, millis),
            _ => {
                self.server.write(&action, millis);
                let (_, state) = step(&self.server.view, &candidate.name, &candidate.state, now, 0.3);
                candidate.state = state;
            }
        }
    }

    fn holder(&self) -> Option<&Candidate> {
        self.candidates.iter().find(|it| it.may_write(self.millis))
    }
}

proptest! {
    #[test]
    fn two_never_may_write_and_one_does_when_faults_end(
        clocks in proptest::collection::vec((0_u64..1_000_000, 0.9_f64..1.1), 2..4),
        faults in proptest::collection::vec(any_fault(), 1..400),
    ) {
        let mut world = World::new(&clocks);
        let mut faults = faults.into_iter();
        while faults.len() > 0 {
            world.tick(&mut || faults.next().unwrap_or(Fault::None));
        }
        // The longest suspension, the last late write, the duration of the Lease and some periods.
        for _ in 0..900 {
            world.tick(&mut || Fault::None);
        }
        prop_assert!(world.holder().is_some(), "nobody holds the Lease: {:?}", world.server.view);
    }
}

#[test]
fn a_standby_takes_over_from_a_holder_that_dies_and_at_once_from_one_that_leaves() {
    for (fault, most) in [(Fault::Suspended(1_000_000), 18_000), (Fault::Restart, 3_000)] {
        let mut world = World::new(&[(0, 1.0), (5000, 1.0)]);
        (0..100).for_each(|_| world.tick(&mut || Fault::None));
        let before = world.holder().unwrap().name.clone();
        let dying = world.candidates.iter().position(|it| it.name == before).unwrap();
        world.turn(dying, fault);
        world.candidates[dying].wake = u64::MAX;
        let died = world.millis;
        while world.holder().is_none_or(|it| it.name == before) {
            world.tick(&mut || Fault::None);
            assert!(world.millis - died <= most, "{fault:?}: nobody after {} ms", world.millis - died);
        }
        assert_eq!(world.leaders.len(), 2);
    }
}
