//! From `spec.rollout` to what the rollout is given.

use super::{duration, gate};
use crate::api::{OnGateFailure, RollbackStrategy, RolloutSpec, RolloutStep, RolloutStrategy, SunsetSpec};
use crate::rollout::sunset::Delays;
use crate::rollout::{Policy, Step, Strategy};

/// Resolves `spec.rollout`; without it versions are promoted at once. What is wrong is added to `wrong`: field, value and
/// remedy, a sentence each.
pub(super) fn resolve(spec: Option<&RolloutSpec>, wrong: &mut Vec<String>) -> Policy {
    let strategy = match spec.map(|spec| spec.strategy).unwrap_or_default() {
        RolloutStrategy::Manual => Strategy::Manual,
        RolloutStrategy::AllAtOnce => Strategy::AllAtOnce,
        RolloutStrategy::Progressive => Strategy::Progressive(steps(spec, wrong)),
    };
    let rollback = spec.and_then(|spec| spec.rollback.clone()).unwrap_or_default();
    let window = duration(&rollback.window, "spec.rollout.rollback.window", wrong);
    let gate = spec.and_then(|spec| spec.gate.as_ref()).map(|spec| gate::resolve(spec, "spec.rollout.gate", wrong));
    Policy {
        strategy,
        gate,
        rolls_back: spec.is_some_and(|spec| spec.on_gate_failure == OnGateFailure::Rollback),
        paused: spec.is_some_and(|spec| spec.paused),
        rollback_window: (rollback.strategy == RollbackStrategy::AllAtOnce).then_some(window),
    }
}

/// Resolves `spec.sunset`; without it its defaults hold.
pub(super) fn delays(spec: Option<&SunsetSpec>, wrong: &mut Vec<String>) -> Delays {
    let spec = spec.cloned().unwrap_or_default();
    Delays {
        scaledown: duration(&spec.scaledown_delay, "spec.sunset.scaledownDelay", wrong),
        delete: duration(&spec.delete_delay, "spec.sunset.deleteDelay", wrong),
    }
}

fn steps(spec: Option<&RolloutSpec>, wrong: &mut Vec<String>) -> Vec<Step> {
    let given = spec.map(|spec| spec.steps.as_slice()).unwrap_or_default();
    for (index, pair) in given.windows(2).enumerate() {
        let (before, after) = (pair[0].ramp_percentage, pair[1].ramp_percentage);
        if after <= before {
            let next = index + 1;
            wrong.push(format!(
                "spec.rollout.steps[{next}].rampPercentage: {after} is not more than {before} of the step before; let each \
                 step raise it."
            ));
        }
    }
    let step = |(index, step): (usize, &RolloutStep)| {
        let field = format!("spec.rollout.steps[{index}]");
        Step {
            percent: u8::try_from(step.ramp_percentage).unwrap_or(100),
            pause: duration(&step.pause_duration, &format!("{field}.pauseDuration"), wrong),
            gate: step.gate.as_ref().map(|spec| gate::resolve(spec, &format!("{field}.gate"), wrong)),
        }
    };
    given.iter().enumerate().map(step).collect()
}
