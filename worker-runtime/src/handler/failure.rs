//! Failures that a handler chooses itself, as a JSON object.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::payload;
use crate::report::Terms;

/// Longest delay that a handler may ask for: what the server's own policies allow.
const LONGEST_DELAY: f64 = 365.0 * 24.0 * 3600.0;

/// A failure in the words of a handler.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// What happened; empty if it did not say.
    pub message: String,
    /// What the server makes of it.
    pub terms: Terms,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Told<'a> {
    message: Option<String>,
    #[serde(rename = "type")]
    failure_type: Option<String>,
    non_retryable: Option<bool>,
    next_retry_delay: Option<f64>,
    #[serde(borrow)]
    details: Option<Vec<&'a RawValue>>,
    benign: Option<bool>,
    stack_trace: Option<String>,
}

/// Reads the value of `failure`.
///
/// # Errors
/// What is wrong with it: the field, its value, and what it should be.
pub fn read(text: &str) -> Result<Chosen, String> {
    let told: Told<'_> = serde_json::from_str(text).map_err(|error| format!("failure: {error}"))?;
    let delay = |seconds: f64| {
        (0.0..=LONGEST_DELAY).contains(&seconds).then(|| Duration::from_secs_f64(seconds)).ok_or_else(|| {
            format!("failure.nextRetryDelay: is {seconds}; give seconds from 0 to {LONGEST_DELAY}, or leave it out")
        })
    };
    Ok(Chosen {
        message: told.message.unwrap_or_default(),
        terms: Terms {
            failure_type: told.failure_type.filter(|name| !name.is_empty()),
            non_retryable: told.non_retryable.unwrap_or_default(),
            next_retry_delay: told.next_retry_delay.map(delay).transpose()?,
            details: told.details.iter().flatten().map(|detail| payload::of_json(detail.get())).collect(),
            benign: told.benign.unwrap_or_default(),
            stack_trace: told.stack_trace.unwrap_or_default(),
        },
    })
}

/// The failure in an output that is the object `{"failure": {…}}` and nothing else; none in any other output.
///
/// # Errors
/// As [`read`].
pub fn in_output(output: &[u8]) -> Option<Result<Chosen, String>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Output<'a> {
        #[serde(borrow)]
        failure: &'a RawValue,
    }
    let output: Output<'_> = serde_json::from_slice(output).ok()?;
    Some(read(output.failure.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_failure_can_be_chosen() {
        let text = r#"{"failure":{"message":"no card","type":"Declined","nonRetryable":true,"nextRetryDelay":2.5,
            "details":[{"code":7},null],"benign":true,"stackTrace":"at line 1"}}"#;
        let Chosen { message, terms } = in_output(text.as_bytes()).unwrap().unwrap();
        assert_eq!((message.as_str(), terms.failure_type.as_deref()), ("no card", Some("Declined")));
        assert_eq!(terms.next_retry_delay, Some(Duration::from_millis(2500)));
        assert!(terms.non_retryable && terms.benign && terms.stack_trace == "at line 1");
        assert_eq!(terms.details[0].data, br#"{"code":7}"#);
        assert_eq!(terms.details.len(), 2);
    }

    #[test]
    fn an_empty_failure_is_retryable_and_has_no_type() {
        for text in ["{}", r#"{"message":null,"nonRetryable":null,"details":null,"benign":null,"stackTrace":null}"#] {
            let Chosen { message, terms } = read(text).unwrap();
            assert_eq!((message.as_str(), terms), ("", Terms::default()));
        }
    }

    #[test]
    fn what_is_no_failure_is_left_to_others() {
        for output in ["", "7", r#"{"failed":1}"#, r#"{"failure":{},"more":1}"#, "no json"] {
            assert_eq!(in_output(output.as_bytes()), None, "{output}");
        }
    }

    #[test]
    fn a_failure_that_can_not_be_read_is_named_with_its_field() {
        for (text, part) in [
            (r#"{"nextRetryDelay":-1}"#, "failure.nextRetryDelay: is -1"),
            (r#"{"nextRetryDelay":1e300}"#, "failure.nextRetryDelay"),
            (r#"{"retry":false}"#, "retry"),
            (r#"{"message":7}"#, "string"),
            ("[]", "failure"),
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }
}
