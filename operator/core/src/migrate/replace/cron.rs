//! Triggers of type `cron` as entries of `spec.scaling.schedule`.

use serde_json::{Value, json};

use super::super::json::list;
use super::Findings;
use crate::api::GoDuration;
use crate::schedule::{Schedule, lasts};

/// The entries for the triggers of a ScaledObject; `max`: the most pods, which an entry may not ask more of.
pub(super) fn schedule(scaled: &Value, max: i64, found: &mut Findings) -> Vec<Value> {
    let triggers = list(scaled, "/spec/triggers").iter().filter(|trigger| trigger["type"] == "cron");
    let mut entries = Vec::new();
    for trigger in triggers {
        let trigger = Cron::of(trigger);
        match trigger.entry(entries.len() + 1, max) {
            Ok(entry) => {
                found.notes.push(trigger.taken_over(&entry));
                entries.push(entry);
            }
            Err(why) => found.notes.push(format!(
                "{} is not taken over ({why}): write entries of spec.scaling.schedule, each with its start as cron and the time \
                 until its end as duration.",
                trigger.words()
            )),
        }
    }
    entries
}

/// What a trigger says. A text that is missing is empty.
struct Cron<'a> {
    start: &'a str,
    end: &'a str,
    time_zone: &'a str,
    replicas: &'a str,
}

impl<'a> Cron<'a> {
    fn of(trigger: &'a Value) -> Self {
        let word = |key: &str| trigger["metadata"][key].as_str().unwrap_or_default().trim();
        Self { start: word("start"), end: word("end"), time_zone: word("timezone"), replicas: word("desiredReplicas") }
    }

    fn words(&self) -> String {
        let Self { start, end, time_zone, replicas } = self;
        format!("The cron trigger ({start} to {end}, {time_zone}, {replicas} replicas)")
    }

    fn entry(&self, number: usize, max: i64) -> Result<Value, String> {
        let wanted: u32 = self.replicas.parse().map_err(|_| format!("{:?} is no number of pods", self.replicas))?;
        let replicas = i64::from(wanted).min(max);
        if replicas < 1 {
            return Err("an entry asks for one pod at least".into());
        }
        let duration = lasts(self.start, self.end).map_err(|error| error.to_string())?;
        let duration =
            duration.ok_or("from its start to its end it is not always equally long, or longer than 168h")?;
        let name = format!("cron-{number}");
        Schedule::parse(&name, self.start, self.time_zone, duration, wanted).map_err(|error| error.to_string())?;
        Ok(json!({
            "name": name,
            "cron": self.start,
            "timezone": self.time_zone,
            "duration": GoDuration::from(duration),
            "minReplicas": replicas,
        }))
    }

    fn taken_over(&self, entry: &Value) -> String {
        let (name, most) = (entry["name"].as_str().unwrap_or_default(), entry["minReplicas"].as_u64());
        let fewer = most.filter(|most| self.replicas.parse() != Ok(*most));
        let fewer = fewer.map(|most| format!(", of at most {most} pods")).unwrap_or_default();
        format!(
            "{} becomes entry {name} of spec.scaling.schedule{fewer}. Its pods are ordered before its start.",
            self.words()
        )
    }
}
