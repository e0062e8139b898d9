//! Several versions of a fleet at a time: who must have how many pods before traffic moves, and who gets what of a common
//! maximum. What calls these functions decides on the routing; they read nothing and keep nothing.

use crate::observed::VersionStatus;

/// Pods that a version must have, whatever its own work calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleFloor {
    /// Least replicas.
    pub replicas: u32,
    /// Whether the version is scaled by its work at all; a drained one is left to the rollout.
    pub scaled: bool,
}

/// What the user asks for by role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleFloors {
    /// Least replicas of the current version.
    pub current: u32,
    /// Least replicas of one that ramps up, or is about to.
    pub ramping: u32,
    /// Least replicas of one that drains.
    pub draining: u32,
    /// Least replicas of one that is kept warm to go back to.
    pub keep_warm: u32,
}

/// The floor of a version in its role.
///
/// One without traffic that shall get some runs at least one pod until it polls: a version that never polled owns no backlog
/// that could start it. A draining one has no floor of its own, but its own backlog may lift it from zero at any time: the
/// decision for it goes on as long as [`RoleFloor::scaled`].
#[must_use]
pub fn role_floor(status: VersionStatus, is_target: bool, floors: RoleFloors) -> RoleFloor {
    let of = |replicas| RoleFloor { replicas, scaled: true };
    match status {
        VersionStatus::Current => of(floors.current),
        VersionStatus::Ramping => of(floors.ramping.max(1)),
        VersionStatus::Draining => of(floors.draining),
        VersionStatus::NotRegistered | VersionStatus::Inactive if is_target => of(floors.ramping.max(1)),
        VersionStatus::NotRegistered | VersionStatus::Inactive => of(floors.keep_warm),
        VersionStatus::Drained => RoleFloor { replicas: floors.keep_warm, scaled: false },
    }
}

/// Pods that a version must have before it gets `percent` of the traffic, when `total` pods do the whole of it: rounded up.
#[must_use]
pub fn ramp_floor(total: u32, percent: f64) -> u32 {
    let share = percent.clamp(0.0, 100.0) / 100.0;
    super::need::pods(f64::from(total) * share)
}

/// Whether so many Ready pods are enough for the step: four of five of the floor.
#[must_use]
pub fn ramp_is_ready(ready: u32, floor: u32) -> bool {
    u64::from(ready) * 5 >= u64::from(floor) * 4
}

/// What a version asks for of a common maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// Replicas that its work calls for.
    pub wanted: u32,
    /// Replicas that it must have first: those of a draining version that run tasks.
    pub first: u32,
    /// Its weight beside the others; a version with twice the weight gets twice the replicas while there are too few.
    pub weight: f64,
}

/// Splits `total` replicas between versions: each gets what it must have first, in the order given, and the rest rises in all
/// of them like water in vessels, by weight, until each has what it wants. The sum is at most `total`.
#[must_use]
pub fn split(total: u32, claims: &[Claim]) -> Vec<u32> {
    let mut left = total;
    let mut given: Vec<u32> = Vec::with_capacity(claims.len());
    for claim in claims {
        let first = claim.first.min(claim.wanted).min(left);
        left -= first;
        given.push(first);
    }
    // One at a time to whom has least for its weight: totals are small, and the rounding is right by itself.
    while left > 0 {
        let level = |at: usize| f64::from(given[at]) / claims[at].weight.max(f64::MIN_POSITIVE);
        let open = (0..claims.len()).filter(|at| given[*at] < claims[*at].wanted);
        let Some(lowest) = open.min_by(|one, other| level(*one).total_cmp(&level(*other))) else { break };
        given[lowest] += 1;
        left -= 1;
    }
    given
}

#[cfg(test)]
mod tests {
    use super::{Claim, RoleFloors, ramp_floor, ramp_is_ready, role_floor, split};
    use crate::observed::VersionStatus;

    const FLOORS: RoleFloors = RoleFloors { current: 3, ramping: 0, draining: 0, keep_warm: 2 };

    #[test]
    fn a_target_runs_a_pod_before_it_has_any_traffic() {
        for status in [VersionStatus::NotRegistered, VersionStatus::Inactive, VersionStatus::Ramping] {
            assert_eq!(role_floor(status, true, FLOORS).replicas, 1, "{status:?}");
        }
        assert_eq!(role_floor(VersionStatus::Inactive, false, FLOORS).replicas, 2, "kept warm");
        assert_eq!(role_floor(VersionStatus::Inactive, false, RoleFloors::default()).replicas, 0);
    }

    #[test]
    fn a_draining_version_may_be_at_zero_and_is_scaled_on_and_a_drained_one_is_not() {
        let draining = role_floor(VersionStatus::Draining, false, FLOORS);
        assert_eq!((draining.replicas, draining.scaled), (0, true));
        assert!(!role_floor(VersionStatus::Drained, false, FLOORS).scaled);
        assert_eq!(role_floor(VersionStatus::Current, true, FLOORS).replicas, 3);
    }

    #[test]
    fn a_ramp_has_its_pods_before_its_traffic() {
        assert_eq!([0.0, 1.0, 25.0, 100.0].map(|percent| ramp_floor(10, percent)), [0, 1, 3, 10]);
        assert_eq!((ramp_floor(10, 200.0), ramp_floor(10, f64::NAN)), (10, 0));
        assert!(ramp_is_ready(8, 10) && !ramp_is_ready(7, 10) && ramp_is_ready(0, 0));
    }

    fn claim(wanted: u32, first: u32, weight: f64) -> Claim {
        Claim { wanted, first, weight }
    }

    #[test]
    fn enough_for_all_gives_each_what_it_wants() {
        assert_eq!(split(20, &[claim(7, 0, 1.0), claim(3, 0, 1.0)]), [7, 3]);
        assert_eq!(split(5, &[]), Vec::<u32>::new());
    }

    #[test]
    fn too_few_are_split_by_weight_and_nobody_gets_more_than_it_wants() {
        assert_eq!(split(9, &[claim(10, 0, 2.0), claim(10, 0, 1.0)]), [6, 3]);
        assert_eq!(split(9, &[claim(10, 0, 1.0), claim(2, 0, 1.0)]), [7, 2]);
    }

    #[test]
    fn what_a_draining_version_runs_comes_first() {
        assert_eq!(split(6, &[claim(4, 4, 1.0), claim(10, 0, 1.0)]), [4, 2]);
        assert_eq!(split(3, &[claim(4, 4, 1.0), claim(10, 0, 1.0)]), [3, 0]);
        assert_eq!(split(6, &[claim(4, 0, 1.0), claim(10, 0, 1.0)]), [3, 3], "the control");
    }
}
