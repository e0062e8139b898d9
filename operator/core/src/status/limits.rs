//! What keeps a number of pods from what the work calls for, in words.

use std::time::Duration;

use crate::api::{Reason, ScalingLimit};
use crate::observed::RateLimitSource;
use crate::scaling::{Limit, Policy};

/// A limit with its name, numbers and a remedy.
pub(super) fn describe(limit: &Limit, policy: &Policy) -> (Reason, String) {
    match limit {
        Limit::Maximum { needed } => (
            Reason::AtMaximum,
            format!(
                "The tasks call for {needed} pods, and spec.scaling.maxReplicas allows {}; raise it if they should have \
                 them.",
                policy.max_replicas
            ),
        ),
        Limit::RateLimited { lane, per_second, source } => (
            Reason::RateLimited,
            format!(
                "The {lane} gives out {} tasks a second at most ({}), so that more pods would not help; raise the limit if \
                 what it protects can take more.",
                decimal(*per_second),
                by(*source)
            ),
        ),
        Limit::Ineffective { retry_in } => (
            Reason::Ineffective,
            format!(
                "More pods brought no more throughput and were taken back, to be tried again in {}; look for what the tasks \
                 wait for, such as a database.",
                time(*retry_in)
            ),
        ),
        Limit::Ramp => {
            (Reason::RampLimited, "spec.scaling.ramp allows no faster change; raise it if it should be faster.".into())
        }
        Limit::Paused => {
            (Reason::Paused, "spec.scaling.pause holds a change back; set it to None to let it through.".into())
        }
        Limit::Stalled { pods, since, why } => (
            Reason::PodsNotBecomingReady,
            format!(
                "{pods} {} not been ready for {}{}, so that more would not help; look at their events and logs.",
                if *pods == 1 { "pod has" } else { "pods have" },
                time(*since),
                why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default()
            ),
        ),
    }
}

/// A limit as the status has it.
pub(super) fn entry(limit: &Limit, policy: &Policy) -> ScalingLimit {
    let (reason, message) = describe(limit, policy);
    ScalingLimit { reason: reason.as_str().into(), message }
}

fn by(source: Option<RateLimitSource>) -> &'static str {
    match source {
        Some(RateLimitSource::Api) => "set by a call of the API",
        Some(RateLimitSource::Worker) => "set by its Workers' maxTaskQueueActivitiesPerSecond",
        Some(RateLimitSource::System) => "set by the server's configuration",
        None => "as measured",
    }
}

/// A number in three digits that count: `0.042`, `3.9`, `1840`.
pub(super) fn decimal(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if !text.contains('.') {
        return text;
    }
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short == "-0" { "0".into() } else { short.to_owned() }
}

/// A time as precise as it is of use: `12ms`, `3.4s`, `4m10s`.
pub(super) fn time(value: Duration) -> String {
    crate::api::GoDuration::from(rounded(value)).to_string()
}

/// To milliseconds below a second, to tenths below a hundred, to seconds from there on.
pub(super) fn rounded(value: Duration) -> Duration {
    let step = match value {
        long if long >= Duration::from_secs(100) => 1_000,
        middle if middle >= Duration::from_secs(1) => 100,
        _ => 1,
    };
    let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis((millis.saturating_add(step / 2) / step) * step)
}
