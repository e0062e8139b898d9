//! What is taken from versions.

use operator_core::plan::Action;
use proptest::prelude::*;

use super::worlds::{Answer, OLD, World};
use super::{holds, taken};

#[test]
fn s1_a_deployment_goes_only_with_proof_that_nothing_runs_on_it_and_after_both_delays() {
    holds(|world, plan| {
        for action in &plan.actions {
            let Action::DeleteChild { child, .. } = action else { continue };
            let (at, version) = world.of_child(child);
            prop_assert!(world.has_no_work(at, version), "deletes what may have work");
            prop_assert!(version.replicas == 0 && version.pods == 0, "deletes what has pods");
            prop_assert!(world.hours_over(version) >= 25, "deletes too soon");
        }
        Ok(())
    });
}

#[test]
fn s1_pods_go_only_when_none_runs_a_task_and_after_the_delay() {
    holds(|world, plan| {
        for action in &plan.actions {
            let Action::Scale { child, from: 1.., to: 0, .. } = action else { continue };
            let (_, version) = world.of_child(child);
            prop_assert!(!version.busy || version.pods == 0, "ends tasks that run");
            prop_assert!(world.hours_over(version) >= 1, "takes pods too soon");
        }
        Ok(())
    });
}

#[test]
fn s2_a_version_that_may_have_work_keeps_a_pod() {
    holds(|world, plan| {
        for action in &plan.actions {
            let Action::Scale { child, from, to, .. } = action else { continue };
            let (at, version) = world.of_child(child);
            prop_assert!(*to > 0 || world.has_no_work(at, version), "takes the pods of what may have work");
            let read = matches!(version.answer, Answer::Is(_)) || world.fleet().replicas.is_some();
            prop_assert!(to >= from || read || world.has_no_work(at, version), "shrinks what was not read");
        }
        Ok(())
    });
}

#[test]
fn s4_nothing_is_taken_from_a_version_that_was_not_read() {
    holds(|world, _| {
        for at in 1..=OLD.len() {
            let mut unread = world.clone();
            *unread.answer(at) = Answer::NotAsked;
            let own = |(_, of): &(&str, String)| *of == unread.child_name(at) || *of == unread.build_id(at);
            prop_assert!(!taken(&unread.plan()).iter().any(own), "it was never asked for");
        }
        let unread = World { fresh: false, ..world.clone() };
        prop_assert!(taken(&unread.plan()).is_empty(), "the server did not answer");
        Ok(())
    });
}

#[test]
fn s18_and_s23_each_write_to_a_deployment_carries_what_it_was_decided_on() {
    holds(|world, plan| {
        let version_of = |child: &String| format!("version of {child}");
        for action in &plan.actions {
            match action {
                Action::DeleteChild { child, uid, resource_version, .. } => {
                    prop_assert_eq!(uid, &format!("uid of {child}"));
                    prop_assert_eq!(resource_version, &version_of(child));
                }
                Action::Scale { child, from, resource_version, .. } => {
                    prop_assert_eq!(*from, world.of_child(child).1.replicas);
                    prop_assert_eq!(resource_version, &version_of(child));
                }
                Action::NoteSuperseded { child, resource_version, .. } => {
                    prop_assert_eq!(resource_version, &version_of(child));
                }
                _ => {}
            }
        }
        Ok(())
    });
}

#[test]
fn s24_what_is_missing_from_a_part_of_the_cluster_takes_no_pods_and_no_deployment() {
    holds(|world, plan| {
        let whole = taken(plan);
        for hidden in OLD {
            let mut kube = world.kube();
            kube.children.retain(|child| child.build_id.as_deref() != Some(hidden));
            kube.pods.retain(|pod| pod.build_id.as_deref() != Some(hidden));
            let part = world.plan_of(&kube, &world.temporal());
            let of_cluster = taken(&part).into_iter().filter(|(what, _)| *what != "record");
            prop_assert!(of_cluster.into_iter().all(|one| whole.contains(&one)), "{hidden} was not seen");
        }
        Ok(())
    });
}

#[test]
fn s25_a_clock_that_is_set_takes_nothing_sooner() {
    holds(|world, plan| {
        let right = taken(&World { ahead: 0, ..world.clone() }.plan());
        let now = taken(plan);
        prop_assert!(now.is_subset(&right), "{now:?}, and only {right:?} with a clock that is right");
        let mut unseen = world.clone();
        unseen.old.iter_mut().for_each(|version| version.seen_hours_ago = None);
        prop_assert!(now.is_subset(&taken(&unseen.plan())), "by the server's clock alone");
        Ok(())
    });
}
