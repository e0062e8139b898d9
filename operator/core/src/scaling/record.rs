//! A decision as it was made, complete enough to be made again.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Decision, Input, Policy, Recording, State, decide};

/// One decision with everything that it stood on. A recording is a file with one of these a line, as JSON; who reads it back
/// must read floating-point numbers exactly (`float_roundtrip` of serde_json).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord<'a> {
    /// The fleet: `namespace/name`.
    pub fleet: Cow<'a, str>,
    /// What the user asked for.
    pub policy: Cow<'a, Policy>,
    /// What was seen.
    pub input: Cow<'a, Input>,
    /// The state before: all of it, unlike what is kept over a restart.
    pub state: Recording,
    /// What was decided.
    pub decision: Cow<'a, Decision>,
    /// SHA-256, in hexadecimal digits, of the JSON of all of the state after.
    pub next: String,
}

impl<'a> DecisionRecord<'a> {
    /// The decision that was made for `fleet`, and the state that it left.
    ///
    /// # Errors
    /// When the state has no JSON form.
    pub fn new(
        fleet: &'a str,
        policy: &'a Policy,
        input: &'a Input,
        state: &'a State,
        (decision, next): (&'a Decision, &State),
    ) -> serde_json::Result<Self> {
        Ok(Self {
            fleet: Cow::Borrowed(fleet),
            policy: Cow::Borrowed(policy),
            input: Cow::Borrowed(input),
            state: state.recording(),
            decision: Cow::Borrowed(decision),
            next: digest(next)?,
        })
    }

    /// The same with what [`decide`] makes of it now.
    ///
    /// # Errors
    /// When the state has no JSON form.
    pub fn made_again(&'a self) -> serde_json::Result<Self> {
        let (decision, next) = decide(&self.policy, &self.input, &self.state.clone().into());
        Ok(Self {
            fleet: Cow::Borrowed(&self.fleet),
            policy: Cow::Borrowed(&self.policy),
            input: Cow::Borrowed(&self.input),
            state: self.state.clone(),
            decision: Cow::Owned(decision),
            next: digest(&next)?,
        })
    }
}

fn digest(state: &State) -> serde_json::Result<String> {
    let json = serde_json::to_vec(&state.recording())?;
    Ok(Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::DecisionRecord;
    use crate::observed::{LaneKey, LaneStats, Observation, TaskType};
    use crate::scaling::{
        DEFAULT_GRACE, DEFAULT_IDLE_WINDOW, IdleWindow, Input, Mode, Pause, Policy, Ramp, State, decide,
    };

    fn policy() -> Policy {
        Policy {
            min_replicas: 0,
            max_replicas: 9,
            target_latency: Duration::from_secs(5),
            percentile: 0.95,
            idle_window: IdleWindow::Fixed(DEFAULT_IDLE_WINDOW),
            pause: Pause::None,
            mode: Mode::Full,
            ramp: Ramp::default(),
        }
    }

    fn input(now: u64, backlog: u64) -> Input {
        let lane = LaneKey { task_queue: "mail".into(), task_type: TaskType::Activity };
        let reading = Observation::Known {
            value: LaneStats { backlog, ..LaneStats::default() },
            age: Duration::from_millis(300),
        };
        Input {
            now: Duration::from_secs(now),
            current: 3,
            lanes: BTreeMap::from([(lane.clone(), reading)]),
            lanes_complete: true,
            declared_slots: BTreeMap::from([(lane, 2)]),
            pods: Vec::new(),
            floors: Vec::new(),
            grace: DEFAULT_GRACE,
            template: "mailer-b1".into(),
        }
    }

    #[test]
    fn a_recording_that_was_read_back_leads_to_the_same_decision_though_a_checkpoint_would_not() {
        let (_, before) = decide(&policy(), &input(100, 8), &State::default());
        let input = input(105, 0);
        let (decision, after) = decide(&policy(), &input, &before);
        let policy = policy();
        let made = DecisionRecord::new("mail/mailer", &policy, &input, &before, (&decision, &after)).unwrap();
        let line = serde_json::to_string(&made).unwrap();
        let read: DecisionRecord<'_> = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_string(&read.made_again().unwrap()).unwrap(), line);

        let kept: State = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
        let restarted = DecisionRecord::new("mail/mailer", &policy, &input, &kept, (&decision, &after)).unwrap();
        assert_ne!(restarted.made_again().unwrap().next, made.next);
    }
}
