//! Why there is no result.

use std::time::Duration;

use super::failure::Chosen;
use super::limits::Limit;
use crate::report::Terms;

/// Why a handler gave no result. Retryable, unless the handler says otherwise: a new image or configuration heals it.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The program can't be started.
    #[error(
        "handler {handler:?}: exec.{field} is {value:?}, and can't be started: {cause}; put the program into the handler's image, with execute permission, or correct the field"
    )]
    NotStarted {
        /// Handler name.
        handler: String,
        /// Field of the handler that is to blame.
        field: &'static str,
        /// Its value.
        value: String,
        /// What the system said.
        cause: String,
    },
    /// The program ended with another exit code than 0, or by a signal.
    #[error("handler {handler:?} {end}; the end of its standard error: {stderr}")]
    Exited {
        /// Handler name.
        handler: String,
        /// How it ended.
        end: String,
        /// Last [`MAX_DETAIL`](super::MAX_DETAIL) bytes of its standard error.
        stderr: String,
    },
    /// The handler says why, in its own words.
    #[error("{}", if .0.message.is_empty() { "the handler failed, and did not say why" } else { &.0.message })]
    Chosen(Chosen),
    /// The service answered with another status than 2xx.
    #[error("handler {handler:?}: {url} answered {status}: {body}")]
    Refused {
        /// Handler name.
        handler: String,
        /// Address of the service.
        url: String,
        /// HTTP status.
        status: u16,
        /// Up to [`MAX_DETAIL`](super::MAX_DETAIL) bytes of its body.
        body: String,
        /// Whether the same request may succeed later.
        retryable: bool,
        /// When to try again, if the service said so.
        retry_after: Option<Duration>,
    },
    /// The service can't be reached, or broke off.
    #[error(
        "handler {handler:?}: http.url {url:?} gave no answer: {cause}; check that the service listens in the same pod on that port"
    )]
    Unreachable {
        /// Handler name.
        handler: String,
        /// Address of the service.
        url: String,
        /// What the client said.
        cause: String,
    },
    /// The answer is not JSON.
    #[error(
        "handler {handler:?} answered what is not one JSON value ({problem}); it begins with {begin:?}; print the result alone on standard output (or as the body), and everything else on standard error"
    )]
    NotJson {
        /// Handler name.
        handler: String,
        /// What the parser found.
        problem: String,
        /// First bytes of the answer.
        begin: String,
    },
    /// What a persistent process wrote is no line of the protocol.
    #[error(
        "handler {handler:?} wrote a line that is not of the protocol ({problem}); it begins with {begin:?}; write one JSON object a line on standard output, and everything else on standard error"
    )]
    NotProtocol {
        /// Handler name.
        handler: String,
        /// What is wrong with it.
        problem: String,
        /// First bytes of the line.
        begin: String,
    },
    /// The answer is larger than [`MAX_OUTPUT`](super::MAX_OUTPUT).
    #[error("handler {handler:?} answered more than {limit} bytes; keep the result in a store and return its address")]
    TooLarge {
        /// Handler name.
        handler: String,
        /// The limit.
        limit: usize,
    },
    /// The handler ran longer than its own limit.
    #[error(
        "handler {handler:?} ran longer than its timeout of {timeout:?}, and was stopped; make it faster, or raise the timeout"
    )]
    TimedOut {
        /// Handler name.
        handler: String,
        /// The limit.
        timeout: Duration,
    },
    /// One run of the program used more than it may.
    #[error(
        "handler {handler:?} used more than its limit of {limit}, with all that it started, and was ended; have it use less, or raise the limit"
    )]
    LimitExceeded {
        /// Handler name.
        handler: String,
        /// The limit.
        limit: Limit,
    },
    /// The operating system failed while the program ran.
    #[error("handler {handler:?}: {cause}")]
    System {
        /// Handler name.
        handler: String,
        /// What failed.
        cause: String,
    },
}

impl HandlerError {
    /// Closed set of words: the failure's type in Temporal, and the `reason` label of the metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotStarted { .. } => "HandlerNotStarted",
            Self::Exited { .. } | Self::Chosen(_) => "HandlerFailed",
            Self::Refused { .. } => "HandlerRefused",
            Self::Unreachable { .. } => "HandlerUnreachable",
            Self::NotJson { .. } | Self::NotProtocol { .. } => "HandlerOutputInvalid",
            Self::TooLarge { .. } => "HandlerOutputTooLarge",
            Self::TimedOut { .. } => "HandlerTimedOut",
            Self::LimitExceeded { .. } => "HandlerLimitExceeded",
            Self::System { .. } => "HandlerSystemError",
        }
    }

    /// What the server makes of it.
    pub fn terms(&self) -> Terms {
        match self {
            Self::Chosen(chosen) => chosen.terms.clone(),
            Self::Refused { retryable, retry_after, .. } => {
                Terms { non_retryable: !retryable, next_retry_delay: *retry_after, ..Terms::default() }
            }
            _ => Terms::default(),
        }
    }
}
