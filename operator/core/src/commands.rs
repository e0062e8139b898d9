//! Verbs by annotation: `temporal.io/<verb>: <Build ID>@<anything that differs each time>`.
//!
//! A command is first recorded in the status, and has its effect from there: so each value counts once, whatever crashes on
//! the way, and the annotation may stay, as GitOps would put it back. What holds for the target is what its last commands
//! leave:
//!
//! | verb | effect on the rollout of its Build ID | ends |
//! |---|---|---|
//! | `pause` | its traffic stays as it is | with the next one |
//! | `resume` | as the spec says | with the next one |
//! | `promote` | made current as soon as it polls all that it must: no steps, pauses, gate or wait for pods | with the next one |
//! | `abort` | loses its share, and gets no more | with the next one |
//! | `retry-gate` | the gate that failed is run again, under other Workflow IDs | when that ends |

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::HandledCommand;
use crate::rollout::Order;
use crate::rollout::gate::GateId;

/// Commands that are remembered beside those whose annotations are there.
const REMEMBERED: usize = 16;
/// Longest value, in bytes: a Build ID, and enough to tell one time from another.
const MAX_VALUE: usize = 256;
/// The verb that has a gate run again.
const RETRY_GATE: &str = "retry-gate";
/// Verbs in the order in which those of one moment count: the most cautious one is the last.
const VERBS: [&str; 5] = ["resume", RETRY_GATE, "promote", "pause", "abort"];

/// The version that commands are for.
#[derive(Clone, Copy, Debug)]
pub struct Addressee<'a> {
    /// Build ID of the target.
    pub build_id: &'a str,
    /// Its gate that failed, if one did.
    pub failed_gate: Option<GateId>,
    /// Whether it was looked whether one failed. A command to run one again is not answered before.
    pub gates_seen: bool,
}

/// Annotation of a verb.
#[must_use]
pub fn annotation(verb: &str) -> String {
    format!("temporal.io/{verb}")
}

/// What the commands that were recorded leave for a version.
#[must_use]
pub fn order(handled: &[HandledCommand], build_id: &str) -> Order {
    let own = |command: &&HandledCommand| command.accepted && build_id_of(&command.value) == Some(build_id);
    handled.iter().filter(own).fold(Order::default(), |order, command| match command.verb.as_str() {
        "pause" => Order::Pause,
        "resume" => Order::AsSpecified,
        "promote" => Order::Promote,
        "abort" => Order::Abort,
        _ => order,
    })
}

/// The command that last had each gate of a version run again, by its value.
#[must_use]
pub fn retries(handled: &[HandledCommand], build_id: &str) -> BTreeMap<GateId, String> {
    let of_version = handled.iter().filter(|command| build_id_of(&command.value) == Some(build_id));
    of_version.filter_map(|command| Some((retried(command)?, command.value.clone()))).collect()
}

/// The gate that a command has run again.
fn retried(command: &HandledCommand) -> Option<GateId> {
    let retries = command.accepted && command.verb == RETRY_GATE;
    command.gate.as_deref().filter(|_| retries).and_then(GateId::of)
}

/// The record of commands, with those of the annotations that were not in it.
#[must_use]
pub fn record(
    handled: &[HandledCommand],
    annotations: &BTreeMap<String, String>,
    target: Option<Addressee<'_>>,
    now: Timestamp,
) -> Vec<HandledCommand> {
    let given = |verb: &'static str| annotations.get(&annotation(verb)).map(|value| (verb, cut(value)));
    let is = |command: &HandledCommand, (verb, value): (&str, &str)| command.verb == verb && command.value == value;
    let present: Vec<_> = VERBS.into_iter().filter_map(given).collect();
    let mut all = handled.to_vec();
    for &(verb, value) in &present {
        let early = verb == RETRY_GATE && target.is_some_and(|target| !target.gates_seen);
        if !early && !all.iter().any(|command| is(command, (verb, value))) {
            all.push(answer(verb, value, target, now));
        }
    }
    let mut surplus = all.len().saturating_sub(REMEMBERED);
    // The Workflow IDs of a gate stand on the last command that had it run again.
    let standing = target.map(|target| retries(&all, target.build_id)).unwrap_or_default();
    let stands =
        |command: &HandledCommand| retried(command).and_then(|gate| standing.get(&gate)) == Some(&command.value);
    all.retain(|command| {
        let keep = surplus == 0 || present.iter().any(|one| is(command, *one)) || stands(command);
        surplus -= usize::from(!keep);
        keep
    });
    all
}

fn answer(verb: &str, value: &str, target: Option<Addressee<'_>>, now: Timestamp) -> HandledCommand {
    let gate = target.and_then(|target| target.failed_gate).filter(|_| verb == RETRY_GATE);
    let refusal = match (build_id_of(value), target) {
        (None, _) => Some(format!("{:?} is not <Build ID>@<anything that differs each time>", value)),
        (_, None) => Some("the fleet has no versions: spec.versioning is Disabled".to_owned()),
        (Some(named), Some(target)) if named != target.build_id => {
            Some(format!("version {named} is not the target, which is {}", target.build_id))
        }
        (Some(named), _) if verb == RETRY_GATE && gate.is_none() => Some(format!("no gate of version {named} failed")),
        _ => None,
    };
    HandledCommand {
        verb: verb.to_owned(),
        value: value.to_owned(),
        accepted: refusal.is_none(),
        gate: gate.filter(|_| refusal.is_none()).map(|gate| gate.to_string()),
        message: refusal.unwrap_or_else(|| match gate {
            Some(gate) => format!("The gate {gate} is run again."),
            None => "It holds from now on.".to_owned(),
        }),
        at: Time(now),
    }
}

fn build_id_of(value: &str) -> Option<&str> {
    value.split_once('@').map(|(build_id, _)| build_id).filter(|build_id| !build_id.is_empty())
}

fn cut(value: &str) -> &str {
    let mut end = value.len().min(MAX_VALUE);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn annotations(given: &[(&str, &str)]) -> BTreeMap<String, String> {
        given.iter().map(|(verb, value)| (annotation(verb), (*value).to_owned())).collect()
    }

    fn after(handled: &[HandledCommand], given: &[(&str, &str)]) -> Vec<HandledCommand> {
        after_failure(handled, given, None)
    }

    fn after_failure(
        handled: &[HandledCommand],
        given: &[(&str, &str)],
        failed_gate: Option<GateId>,
    ) -> Vec<HandledCommand> {
        record(handled, &annotations(given), Some(Addressee { build_id: "b2", failed_gate, gates_seen: true }), NOW)
    }

    #[test]
    fn each_value_counts_once_however_long_its_annotation_stays() {
        let paused = after(&[], &[("pause", "b2@1")]);
        assert_eq!((paused.len(), order(&paused, "b2")), (1, Order::Pause));
        let resumed = after(&paused, &[("pause", "b2@1"), ("resume", "b2@1")]);
        assert_eq!((resumed.len(), order(&resumed, "b2")), (2, Order::AsSpecified));
        assert_eq!(after(&resumed, &[("pause", "b2@1"), ("resume", "b2@1")]), resumed, "nothing is run again");
        let again = after(&resumed, &[("pause", "b2@2")]);
        assert_eq!(order(&again, "b2"), Order::Pause, "another value is another command");
    }

    #[test]
    fn the_last_command_counts_and_of_one_moment_the_most_cautious() {
        let all = [("abort", "b2@1"), ("pause", "b2@1"), ("promote", "b2@1"), ("resume", "b2@1")];
        let handled = after(&[], &all);
        assert_eq!(order(&handled, "b2"), Order::Abort);
        let promoted = after(&handled, &[("promote", "b2@2")]);
        assert_eq!(order(&promoted, "b2"), Order::Promote);
        assert_eq!(order(&promoted, "b3"), Order::AsSpecified, "of another version");
    }

    #[test]
    fn what_can_not_be_done_is_refused_with_the_reason_and_has_no_effect() {
        for (given, part) in [("b1@1", "is not the target"), ("b2", "<Build ID>@"), ("@1", "<Build ID>@")] {
            let handled = after(&[], &[("promote", given)]);
            assert!(!handled[0].accepted && handled[0].message.contains(part), "{handled:?}");
            assert_eq!(order(&handled, "b2"), Order::AsSpecified);
            assert_eq!(after(&handled, &[("promote", given)]), handled, "said once");
        }
        let early = after(&[], &[("retry-gate", "b2@1")]);
        assert!(!early[0].accepted && early[0].message.contains("no gate of version b2 failed"), "{early:?}");
        assert!(!record(&[], &annotations(&[("pause", "b2@1")]), None, NOW)[0].accepted);
    }

    #[test]
    fn a_gate_is_not_run_again_nor_is_that_refused_before_its_failure_was_looked_for() {
        let given = annotations(&[("retry-gate", "b2@1"), ("pause", "b2@1")]);
        let unseen = Addressee { build_id: "b2", failed_gate: None, gates_seen: false };
        let early = record(&[], &given, Some(unseen), NOW);
        assert_eq!(early.iter().map(|command| command.verb.as_str()).collect::<Vec<_>>(), ["pause"]);
        let seen = Addressee { failed_gate: Some(GateId::Rollout), gates_seen: true, ..unseen };
        let answered = record(&early, &given, Some(seen), NOW);
        assert!(answered.len() == 2 && answered[1].accepted, "{answered:?}");
    }

    #[test]
    fn each_gate_that_failed_is_run_again_by_the_last_command_for_it() {
        let (first, second) = (Some(GateId::Rollout), Some(GateId::Step(50)));
        let one = after_failure(&[], &[("retry-gate", "b2@1")], first);
        assert_eq!(retries(&one, "b2"), [(GateId::Rollout, "b2@1".to_owned())].into());
        assert_eq!(after_failure(&one, &[("retry-gate", "b2@1")], second), one, "each value counts once");
        let two = after_failure(&one, &[("retry-gate", "b2@2")], second);
        let expected = [(GateId::Rollout, "b2@1".to_owned()), (GateId::Step(50), "b2@2".to_owned())];
        assert_eq!(retries(&two, "b2"), expected.clone().into());
        assert_eq!(retries(&two, "b3"), BTreeMap::new(), "of another version");
        assert_eq!(order(&two, "b2"), Order::AsSpecified);
        let later = (0..100).fold(two, |handled, number| after(&handled, &[("pause", &format!("b2@{number}"))]));
        assert_eq!(retries(&later, "b2"), expected.into(), "what they stand on is not forgotten");
        assert!(later.len() <= REMEMBERED, "{}", later.len());
    }

    #[test]
    fn the_record_is_bounded_and_forgets_no_command_whose_annotation_is_there() {
        let mut handled = after(&[], &[("promote", "b2@first")]);
        for number in 0..100 {
            let value = format!("b2@{number}");
            handled = after(&handled, &[("promote", "b2@first"), ("pause", &value)]);
        }
        assert_eq!(handled.len(), REMEMBERED);
        assert_eq!((handled[0].value.as_str(), handled[15].value.as_str()), ("b2@first", "b2@99"));
        assert_eq!(order(&handled, "b2"), Order::Pause, "the first one is not run again");
        let long = "b2@".to_owned() + &"é".repeat(1_000);
        assert_eq!(after(&after(&[], &[("pause", &long)]), &[("pause", &long)]).len(), 1);
    }
}
