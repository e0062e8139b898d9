//! Changes of the routing.

use operator_core::observed::VersionStatus;
use operator_core::plan::Action;
use operator_core::rollout::{Order, Strategy};
use proptest::prelude::*;

use super::worlds::{Answer, FORGOTTEN, TOKEN, World};
use super::{given, holds, is_routing};

#[test]
fn s6_each_change_carries_the_token_that_was_read_and_none_is_made_under_another_manager() {
    holds(|world, plan| {
        let routing: Vec<_> = plan.actions.iter().filter(|action| is_routing(action)).collect();
        prop_assert!(routing.len() <= 1, "more than one change of the routing");
        let claims = plan.actions.iter().any(|action| matches!(action, Action::ClaimManager { .. }));
        prop_assert_eq!(claims, world.manager == 0 && !routing.is_empty());
        prop_assert!(routing.is_empty() || world.fresh && world.manager != 2);
        for action in &plan.actions {
            if let Action::ClaimManager { conflict_token, .. }
            | Action::SetCurrent { conflict_token, .. }
            | Action::SetRamping { conflict_token, .. }
            | Action::ClearRamp { conflict_token, .. } = action
            {
                prop_assert_eq!(&conflict_token[..], &TOKEN[..]);
            }
        }
        Ok(())
    });
}

/// Least time that a share has been what it is, in seconds, by all that tells.
fn held(world: &World) -> u64 {
    world.ramp.as_ref().map_or(0, |share| share.seconds.min(share.seen.unwrap_or(u64::MAX)))
}

#[test]
fn s7_a_ramp_skips_no_step_and_no_pause() {
    holds(|world, plan| {
        let Strategy::Progressive(steps) = &world.fleet().rollout.strategy else { return Ok(()) };
        let own = world.ramp.as_ref().filter(|share| share.at == 0);
        for action in &plan.actions {
            let Action::SetRamping { percent, .. } = action else { continue };
            let reached = own.and_then(|share| steps.iter().rposition(|step| step.percent <= share.percent));
            let next = match reached {
                None => steps.first(),
                Some(at) if Some(*percent) == own.map(|share| share.percent) || *percent == steps[at].percent => {
                    Some(&steps[at])
                }
                Some(at) => {
                    prop_assert!(held(world) >= steps[at].pause.as_secs(), "a pause is cut short");
                    steps.get(at + 1)
                }
            };
            prop_assert_eq!(next.map(|step| step.percent), Some(*percent), "a step is skipped: {:?}", world.ramp);
            let by_operator = own.is_none_or(|share| share.by_operator || share.percent >= steps[0].percent);
            prop_assert!(by_operator, "forward on somebody else's change");
        }
        Ok(())
    });
}

/// Whether the target was current a short time ago, so that it goes back at once.
fn was_current(world: &World) -> bool {
    world.target.last_current_hours_ago.is_some_and(|hours| hours <= 1)
}

#[test]
fn s8_a_version_gets_traffic_only_once_it_polls_and_has_passed_its_steps() {
    holds(|world, plan| {
        if given(plan) == 0 {
            return Ok(());
        }
        let runs = world.has_target_child && world.target.pods > 0 && world.target.replicas > 0;
        let polls = runs && matches!(world.target.answer, Answer::Is(_));
        prop_assert!(polls, "routes to what does not poll");
        let policy = &world.fleet().rollout;
        let promoted = world.order == Order::Promote;
        let held = matches!(world.order, Order::Pause | Order::Abort) || policy.paused && !promoted;
        prop_assert!(!held, "goes forward though it is held");
        prop_assert!(promoted || policy.strategy != Strategy::Manual, "changes what is left to the user");
        let Strategy::Progressive(steps) = &policy.strategy else { return Ok(()) };
        if given(plan) == 100 && !promoted && !was_current(world) && world.current.is_some() {
            let share = world.ramp.as_ref().filter(|share| share.at == 0).map(|share| share.percent);
            prop_assert_eq!(share, steps.last().map(|step| step.percent), "a step is skipped");
            prop_assert!(held_long_enough(world, steps.last().unwrap().pause.as_secs()), "a pause is cut short");
        }
        Ok(())
    });
}

fn held_long_enough(world: &World, pause: u64) -> bool {
    held(world) >= pause
}

#[test]
fn s9_nothing_but_the_user_or_another_manager_keeps_a_fleet_from_going_back() {
    holds(|world, plan| {
        let policy = &world.fleet().rollout;
        let free = matches!(world.order, Order::AsSpecified | Order::Promote)
            && !policy.paused
            && policy.strategy != Strategy::Manual
            && world.manager != 2;
        let may = world.fresh && world.has_target_child && world.target.pods > 0 && world.target.replicas > 0;
        let is_known = matches!(world.target.answer, Answer::Is(_));
        let back = world.target.last_current_hours_ago == Some(0) && world.ahead == 0 && world.current != Some(0);
        if free && may && is_known && back {
            prop_assert_eq!(given(plan), 100, "{:?}", plan.rollout);
        }
        Ok(())
    });
}

#[test]
fn s12_a_fleet_that_somebody_else_manages_leaves_the_server_as_it_is() {
    holds(|world, plan| {
        let own = |build_id: &String| build_id != FORGOTTEN;
        let writes = |action: &Action| match action {
            Action::DeleteVersion { build_id } => !own(build_id),
            action => is_routing(action) || matches!(action, Action::ClaimManager { .. }),
        };
        prop_assert!(world.manager != 2 || !plan.actions.iter().any(writes));
        Ok(())
    });
}

#[test]
fn s25_a_clock_that_is_set_brings_no_share_forward() {
    holds(|world, plan| {
        let right = World { ahead: 0, ..world.clone() };
        prop_assert!(given(plan) <= given(&right.plan()), "{} hours ahead", world.ahead);
        let mut unseen = world.clone();
        unseen.ramp.iter_mut().for_each(|share| share.seen = None);
        prop_assert!(given(plan) <= given(&unseen.plan()), "by the server's clock alone");
        Ok(())
    });
}

#[test]
fn s4_a_server_that_did_not_answer_changes_no_routing() {
    holds(|world, _| {
        let mut unread = World { fresh: false, ..world.clone() };
        prop_assert!(!unread.plan().actions.iter().any(is_routing));
        unread.fresh = true;
        unread.target.answer = Answer::Old(VersionStatus::Inactive);
        prop_assert_eq!(given(&unread.plan()), 0, "the target was not read lately");
        Ok(())
    });
}
