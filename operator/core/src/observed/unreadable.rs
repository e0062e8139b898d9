//! Why a pod tells no load.

use serde::{Deserialize, Serialize};

use crate::contract::METRICS_PORT_NAME;

/// Why a pod's metrics can't be read, so that a condition can name the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unreadable {
    /// No container says where they are.
    NoPort,
    /// The last read failed.
    Failed {
        /// Where they were read: port and path, `:8080/metrics`.
        at: String,
        /// How it failed.
        failure: ReadFailure,
    },
}

/// Classes of failures of a read of a pod's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReadFailure {
    /// No connection in time: packets are dropped, as a NetworkPolicy does.
    ConnectTimeout,
    /// The connection was refused: nothing listens there.
    Refused,
    /// There is no way to the address, or the connection broke.
    Unreachable,
    /// Connected, but no whole page in time.
    Timeout,
    /// Another status than 200.
    Status(u16),
    /// The page is larger than the operator reads.
    TooLarge,
    /// A page without the slots of a Temporal Worker.
    NoSlots,
}

impl ReadFailure {
    /// The word used in metrics' labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectTimeout => "connect_timeout",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::NoSlots => "no_slots",
        }
    }
}

impl Unreadable {
    /// What is wrong: the rest of a sentence that begins with the pod.
    #[must_use]
    pub fn problem(&self) -> String {
        let Self::Failed { at, failure } = self else {
            return format!("has no container port named {METRICS_PORT_NAME:?}");
        };
        match failure {
            ReadFailure::ConnectTimeout => format!("can't be reached at {at} (connect timed out)"),
            ReadFailure::Refused => format!("can't be reached at {at} (connection refused)"),
            ReadFailure::Unreachable => format!("can't be reached at {at} (no route, or the connection broke)"),
            ReadFailure::Timeout => format!("gave no answer at {at} within the deadline"),
            ReadFailure::Status(status) => format!("answers status {status} at {at}"),
            ReadFailure::TooLarge => format!("answers a page at {at} that is too large to read"),
            ReadFailure::NoSlots => format!("tells no slots of a Temporal Worker at {at}"),
        }
    }

    /// What to do about it, as a clause.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoPort => "name the port of the Worker's metrics so, or set spec.scaling.podMetrics",
            Self::Failed { failure, .. } => match failure {
                ReadFailure::ConnectTimeout | ReadFailure::Unreachable => {
                    "allow the operator's pods to connect to it in the NetworkPolicy of the pod's namespace"
                }
                ReadFailure::Refused => "let the Worker serve its metrics on that port, on all addresses of the pod",
                ReadFailure::Timeout => "give the Worker more CPU, or look into what holds its metrics up",
                ReadFailure::Status(_) | ReadFailure::NoSlots => {
                    "point spec.scaling.podMetrics at the Prometheus metrics of the Worker's SDK"
                }
                ReadFailure::TooLarge => "let the Worker export fewer series",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_place_and_the_remedy() {
        let failed = |failure| Unreadable::Failed { at: ":8080/metrics".into(), failure };
        let cut_off = failed(ReadFailure::ConnectTimeout);
        assert_eq!(cut_off.problem(), "can't be reached at :8080/metrics (connect timed out)");
        assert!(cut_off.remedy().contains("NetworkPolicy"));
        assert!(failed(ReadFailure::Status(404)).problem().contains("404"));
        assert_eq!(Unreadable::NoPort.problem(), "has no container port named \"metrics\"");
    }
}
