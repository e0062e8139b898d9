//! Which pods a ReplicaSet removes when it has too many.

use std::cmp::Reverse;

use super::pod::{Phase, Pod, PodId};
use crate::time::Micros;

/// The pods to remove of `pods`, `count` of them: those not Ready first, then those that are `named` (by their deletion
/// cost), then those Ready for less time, in steps of a factor of two within which the UID decides, then the younger ones.
/// The order of `ActivePodsWithRanks` in Kubernetes' `controller_utils.go`; of nodes and restarts nothing is known here.
pub(super) fn victims<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    count: usize,
    named: &[PodId],
    now: Micros,
) -> Vec<PodId> {
    let mut candidates: Vec<_> = pods.map(|pod| (rank(pod, named, now), pod.id())).collect();
    candidates.sort_unstable();
    candidates.into_iter().take(count).map(|(_, id)| id).collect()
}

/// Least first: Ready, not named, logarithm of the time Ready, UID; without a time, younger first.
type Rank = (bool, bool, u32, u64, Reverse<Micros>);

fn rank(pod: &Pod, named: &[PodId], now: Micros) -> Rank {
    let spared = !named.contains(&pod.id());
    match (pod.phase(), pod.ready()) {
        (Phase::Ready, Some(since)) => {
            let time = (now - since) * 1_000;
            (true, spared, time.checked_ilog2().unwrap_or(0), pod.uid, Reverse(0))
        }
        _ => (false, spared, 0, 0, Reverse(pod.created())),
    }
}

#[cfg(test)]
mod tests {
    use super::victims;
    use crate::time::SECOND;
    use crate::world::pod::Pod;

    fn ready(id: u32, uid: u64, since: u64) -> Pod {
        let mut pod = Pod::new(id, uid, (1, 1), 0);
        pod.become_ready(since * SECOND);
        pod
    }

    #[test]
    fn those_not_ready_go_first_the_younger_before_the_older() {
        let pods = [ready(0, 0, 10), Pod::new(1, 9, (1, 1), 20 * SECOND), Pod::new(2, 5, (1, 1), 30 * SECOND)];
        assert_eq!(victims(pods.iter(), 3, &[], 40 * SECOND), [2, 1, 0]);
    }

    #[test]
    fn those_ready_for_less_time_go_before_the_others_and_the_uid_decides_in_between() {
        // Ready for 1000, 70, 69 and 5 s: the middle two are in one step.
        let pods = [ready(0, 1, 0), ready(1, 7, 930), ready(2, 3, 931), ready(3, 9, 995)];
        assert_eq!(victims(pods.iter(), 3, &[], 1_000 * SECOND), [3, 2, 1]);
    }

    #[test]
    fn the_named_go_before_other_ready_pods_but_after_those_not_ready() {
        let pods = [ready(0, 1, 0), ready(1, 2, 990), Pod::new(2, 3, (1, 1), 999 * SECOND)];
        assert_eq!(victims(pods.iter(), 2, &[0], 1_000 * SECOND), [2, 0]);
    }
}
