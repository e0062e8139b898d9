//! A fleet that has as much to do as it can.

use operator_core::scaling::{Decision, Input, State, decide};

use crate::fixtures::*;

/// A fleet whose pods together start so many tasks a second, and always run as many as they have slots for.
pub struct Saturated {
    pub input: Input,
    pub state: State,
    pub throughput: f64,
    /// Tasks started, by pod.
    pub started: Vec<f64>,
}

impl Saturated {
    pub fn new(pods: usize, backlog: u64) -> Self {
        let mut input = fleet(0, &vec![SLOTS; pods]);
        input.lanes.insert(lane(), cached(backlog));
        Self { input, state: State::default(), throughput: 10.0, started: vec![SLOTS as f64; pods] }
    }

    /// Goes on for `time` seconds; `follow` says what becomes of a decision.
    pub fn play(&mut self, time: u64, mut follow: impl FnMut(&mut Self, &Decision)) -> Decision {
        let mut last = None;
        for _ in 0..(time / 5) {
            self.input.now += STEP;
            let each = self.throughput * 5.0 / self.input.pods.len() as f64;
            for (pod, started) in self.input.pods.iter_mut().zip(&mut self.started) {
                *started += each;
                pod.load = known(load(SLOTS, *started as u64));
            }
            let (decision, state) = decide(&policy(), &self.input, &self.state);
            self.state = state;
            follow(self, &decision);
            last = Some(decision);
        }
        last.unwrap()
    }

    /// Does at once what a decision says.
    pub fn obey(&mut self, decision: &Decision) {
        let pods = decision.desired as usize;
        self.input.current = decision.desired;
        for at in self.input.pods.len()..pods {
            self.input.pods.push(pod(&format!("p{at}"), known(load(0, 0))));
        }
        self.input.pods.truncate(pods);
        self.started.resize(pods, 0.0);
    }
}
