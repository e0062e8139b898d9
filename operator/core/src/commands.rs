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
//! | `retry-gate` | none: refused in this release, which runs no gates | |

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::HandledCommand;
use crate::rollout::Order;

/// Commands that are remembered beside those whose annotations are there.
const REMEMBERED: usize = 16;
/// Longest value, in bytes: a Build ID, and enough to tell one time from another.
const MAX_VALUE: usize = 256;
/// Verbs in the order in which those of one moment count: the most cautious one is the last.
const VERBS: [&str; 5] = ["resume", "retry-gate", "promote", "pause", "abort"];

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

/// The record of commands, with those of the annotations that were not in it.
#[must_use]
pub fn record(
    handled: &[HandledCommand],
    annotations: &BTreeMap<String, String>,
    target: Option<&str>,
    now: Timestamp,
) -> Vec<HandledCommand> {
    let given = |verb: &'static str| annotations.get(&annotation(verb)).map(|value| (verb, cut(value)));
    let is = |command: &HandledCommand, (verb, value): (&str, &str)| command.verb == verb && command.value == value;
    let present: Vec<_> = VERBS.into_iter().filter_map(given).collect();
    let mut all = handled.to_vec();
    for &(verb, value) in &present {
        if !all.iter().any(|command| is(command, (verb, value))) {
            all.push(answer(verb, value, target, now));
        }
    }
    let mut surplus = all.len().saturating_sub(REMEMBERED);
    all.retain(|command| {
        let keep = surplus == 0 || present.iter().any(|one| is(command, *one));
        surplus -= usize::from(!keep);
        keep
    });
    all
}

fn answer(verb: &str, value: &str, target: Option<&str>, now: Timestamp) -> HandledCommand {
    let refusal = match (build_id_of(value), target) {
        (None, _) => Some(format!("{:?} is not <Build ID>@<anything that differs each time>", value)),
        (_, None) => Some("the fleet has no versions: spec.versioning is Disabled".to_owned()),
        (Some(named), Some(target)) if named != target => {
            Some(format!("version {named} is not the target, which is {target}"))
        }
        _ if verb == "retry-gate" => Some("no gate is run in this release".to_owned()),
        _ => None,
    };
    HandledCommand {
        verb: verb.to_owned(),
        value: value.to_owned(),
        accepted: refusal.is_none(),
        message: refusal.unwrap_or_else(|| "It holds from now on.".to_owned()),
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
        record(handled, &annotations(given), Some("b2"), NOW)
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
        assert!(!after(&[], &[("retry-gate", "b2@1")])[0].accepted);
        assert!(!record(&[], &annotations(&[("pause", "b2@1")]), None, NOW)[0].accepted);
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
