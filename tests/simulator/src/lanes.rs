//! Decisions that were made in runs of the traces while their lane was busy: what the decision's speed is measured on.

use operator_core::scaling::{Input, Policy, State};

use crate::observation::Bounds;
use crate::policies::{Ours, Witness};
use crate::run::simulate_with;
use crate::table::in_parallel;
use crate::traces::{FixtureError, TraceName};

const BOUNDS: Bounds = Bounds { min: 0, max: 100 };

/// What one decision stood on. The fleets of the traces have one lane each.
#[derive(Clone, Debug, PartialEq)]
pub struct Lane {
    /// The user's policy.
    pub policy: Policy,
    /// What was seen.
    pub input: Input,
    /// The state before.
    pub state: State,
}

/// `count` decisions, spread evenly over all in which a task ran or waited in runs of the schedulable traces with `seed`;
/// fewer if there are not so many.
///
/// # Errors
/// When a recorded trace is not what it should be.
pub fn busy(count: usize, seed: u64) -> Result<Vec<Lane>, FixtureError> {
    let traces: Vec<TraceName> = TraceName::ALL.into_iter().filter(|trace| trace.schedulable()).collect();
    let numbers = in_parallel(&traces, |trace| {
        let mut number = 0_usize;
        play(*trace, seed, Box::new(|_, input, _, _| number += usize::from(is_busy(input)))).map(|()| number)
    });
    let all: usize = numbers.into_iter().sum::<Result<_, _>>()?;
    let step = (all / count.max(1)).max(1);
    let taken = in_parallel(&traces, |trace| take(*trace, seed, step));
    let mut lanes = taken.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    // Those too many are spread over the traces, too.
    let excess = lanes.len().saturating_sub(count);
    let total = lanes.len();
    let mut index = 0;
    lanes.retain(|_| {
        index += 1;
        index * excess / total.max(1) == (index - 1) * excess / total.max(1)
    });
    Ok(lanes)
}

/// Every `step`-th busy decision of a run.
fn take(trace: TraceName, seed: u64, step: usize) -> Result<Vec<Lane>, FixtureError> {
    let (mut seen, mut lanes) = (0_usize, Vec::new());
    let note: Witness<'_> = Box::new(|policy, input, state, _| {
        if is_busy(input) {
            if seen % step == 0 {
                lanes.push(Lane { policy: policy.clone(), input: input.clone(), state: state.clone() });
            }
            seen += 1;
        }
    });
    play(trace, seed, note)?;
    Ok(lanes)
}

fn play(trace: TraceName, seed: u64, witness: Witness<'_>) -> Result<(), FixtureError> {
    let workload = trace.workload(seed)?;
    let mut ours = Ours::new(&workload, BOUNDS).with_witness(witness);
    let _ = simulate_with(&workload, &mut ours, BOUNDS, seed, None);
    Ok(())
}

/// Whether a task waits or runs.
fn is_busy(input: &Input) -> bool {
    let waits = input.lanes.values().filter_map(|lane| lane.known()).any(|stats| stats.backlog > 0);
    let loads = || input.pods.iter().filter_map(|pod| pod.load.known());
    waits || loads().flat_map(|load| load.lanes.values()).any(|slots| slots.used > 0)
}

#[cfg(test)]
mod tests {
    use super::{busy, is_busy};

    #[test]
    #[cfg_attr(debug_assertions, ignore = "minutes without optimisation")]
    fn the_lanes_are_busy_and_as_many_as_were_asked_for_from_fleets_of_all_sizes() {
        let lanes = busy(2_000, 1).unwrap();
        assert_eq!(lanes.len(), 2_000);
        assert!(lanes.iter().all(|lane| is_busy(&lane.input) && lane.input.lanes.len() == 1));
        let sizes: Vec<u32> = lanes.iter().map(|lane| lane.input.current).collect();
        assert!(sizes.iter().any(|size| *size <= 2) && sizes.iter().any(|size| *size >= 20));
        assert_eq!(lanes, busy(2_000, 1).unwrap());
    }
}
