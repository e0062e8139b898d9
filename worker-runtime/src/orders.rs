//! `/cordon` and `/uncordon`: orders of the operator, and what came of them.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use operator_core::contract::{CORDON_PATH, METRIC_CORDONED, METRIC_OPEN_POLLS, RuntimeLimits, UNCORDON_PATH};
use operator_core::cordon::{Receiver, Refusal, SignedOrder, Verb};
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, Opts};
use tokio::time::Instant;

use crate::cordon::{Cordon, Until};
use crate::metrics::Metrics;

/// Longest order, in bytes.
const LONGEST_BODY: usize = 4096;

/// Takes the orders of this process.
#[derive(Clone)]
pub struct Orders(Arc<Desk>);

struct Desk {
    pod_uid: Option<String>,
    limits: Option<PathBuf>,
    cordon: Cordon,
    /// Issue of the last order that was accepted. Orders are taken one at a time.
    last: Mutex<Option<Timestamp>>,
    outcomes: IntCounterVec,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
enum Rejection {
    #[error("POD_UID is not set, so this process takes no orders; set it by the downward API (metadata.uid)")]
    TakesNone,
    #[error("the body is not an order: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Orders {
    /// Takes orders for the pod with `pod_uid`; without one it takes none. The keys that count are read from the `limits`
    /// file at each order.
    ///
    /// # Errors
    /// Two metrics share a name; a bug.
    pub fn new(
        pod_uid: Option<String>,
        limits: Option<PathBuf>,
        cordon: Cordon,
        metrics: &Metrics,
    ) -> Result<Self, prometheus::Error> {
        let outcomes = IntCounterVec::new(
            Opts::new("temporal_worker_runtime_orders_total", "Orders of an operator, by what came of them."),
            &["verb", "outcome"],
        )?;
        if pod_uid.is_some() {
            metrics.register(Box::new(outcomes.clone()))?;
            metrics.register(Box::new(Gauges::new(cordon.clone())?))?;
        }
        Ok(Self(Arc::new(Desk { pod_uid, limits, cordon, last: Mutex::default(), outcomes })))
    }

    /// The paths, for the probes' port.
    pub fn routes(self) -> Router {
        Router::new()
            .route(CORDON_PATH, get(status).post(async |desk, body| obey(desk, Verb::Cordon, body).await))
            .route(UNCORDON_PATH, post(async |desk, body| obey(desk, Verb::Uncordon, body).await))
            .layer(DefaultBodyLimit::max(LONGEST_BODY))
            .with_state(self.0)
    }
}

async fn status(State(desk): State<Arc<Desk>>) -> Response {
    Json(desk.cordon.status()).into_response()
}

async fn obey(State(desk): State<Arc<Desk>>, verb: Verb, body: Bytes) -> Response {
    let result = desk.take(verb, &body).await;
    let outcome = result.as_ref().map_or_else(Rejection::label, |()| "accepted");
    desk.outcomes.with_label_values(&[verb.as_str(), outcome]).inc();
    match result {
        Ok(()) => Json(desk.cordon.status()).into_response(),
        Err(rejection) => {
            tracing::warn!(verb = verb.as_str(), outcome, "order refused: {rejection}");
            (rejection.status(), format!("{rejection}\n")).into_response()
        }
    }
}

impl Desk {
    async fn take(&self, verb: Verb, body: &[u8]) -> Result<(), Rejection> {
        let pod_uid = self.pod_uid.as_deref().ok_or(Rejection::TakesNone)?;
        let signed: SignedOrder = serde_json::from_slice(body)?;
        let keys = self.keys().await;
        let mut last = self.last.lock();
        let now = Timestamp::now();
        let left = Receiver { pod_uid, keys: &keys, last: *last, now }.check(verb, &signed)?;
        *last = Some(signed.order.issued_at);
        self.cordon.set(match verb {
            Verb::Cordon => {
                Some(Until { instant: Instant::now() + left, wall: now.saturating_add(left).unwrap_or(now) })
            }
            Verb::Uncordon => None,
        });
        Ok(())
    }

    /// The keys that count now: a file that can't be read has none.
    async fn keys(&self) -> Vec<String> {
        let Some(path) = &self.limits else { return Vec::new() };
        let text = tokio::fs::read(path).await.unwrap_or_default();
        serde_json::from_slice::<RuntimeLimits>(&text).map(|limits| limits.order_keys).unwrap_or_default()
    }
}

impl Rejection {
    fn label(&self) -> &'static str {
        match self {
            Self::TakesNone => "takes_none",
            Self::Malformed(_) => "malformed",
            Self::Refused(refusal) => refusal.as_str(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::TakesNone => StatusCode::SERVICE_UNAVAILABLE,
            Self::Malformed(_) | Self::Refused(Refusal::OtherVerb(_) | Refusal::Lifetime) => StatusCode::BAD_REQUEST,
            Self::Refused(Refusal::NoKey | Refusal::NotSigned) => StatusCode::UNAUTHORIZED,
            Self::Refused(Refusal::Foreign(_)) => StatusCode::FORBIDDEN,
            Self::Refused(Refusal::Replayed(_)) => StatusCode::CONFLICT,
            Self::Refused(Refusal::OutOfTime { .. }) => StatusCode::GONE,
        }
    }
}

/// The gauges of the cordon, read when somebody asks for them.
struct Gauges {
    cordon: Cordon,
    cordoned: IntGauge,
    open_polls: IntGauge,
}

impl Gauges {
    fn new(cordon: Cordon) -> Result<Self, prometheus::Error> {
        let cordoned = IntGauge::new(METRIC_CORDONED, "1 while the Worker takes no new task, by an order.")?;
        let open_polls = IntGauge::new(METRIC_OPEN_POLLS, "Open polls that may still bring a task.")?;
        Ok(Self { cordon, cordoned, open_polls })
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.cordoned.desc(), self.open_polls.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = self.cordon.status();
        self.cordoned.set(status.cordoned.into());
        self.open_polls.set(i64::try_from(status.open_polls).unwrap_or(i64::MAX));
        [self.cordoned.collect(), self.open_polls.collect()].concat()
    }
}

#[cfg(test)]
mod tests;
