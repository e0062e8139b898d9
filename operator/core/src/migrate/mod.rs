//! The way here: from temporal-worker-controller, the Go operator of the same kinds ([`check()`]), and from Deployments that KEDA,
//! a HorizontalPodAutoscaler or nobody scales ([`replace()`]).
//!
//! Objects are JSON as the API server gave them: most are of kinds that are not this operator's.

pub mod check;
pub mod finding;
mod json;
pub mod query;
pub mod replace;

pub use check::check;
pub use finding::{Finding, Report, Severity, Unread};
pub use query::{Cluster, Kind, Listed, Query, Scope};
pub use replace::{Refused, Replacement, Scaler, Source, Wish, replace};
