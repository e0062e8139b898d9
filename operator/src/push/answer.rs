//! Objects of the Kubernetes API, as answers.

use axum::body::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::Fleet;

/// What is answered.
pub type Answer = Response<Full<Bytes>>;

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Code of the answer.
    pub code: StatusCode,
    /// Kubernetes' word for it.
    pub reason: &'static str,
    /// For people; never holds the token.
    pub message: String,
}

impl Problem {
    /// A problem.
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    /// The endpoint can't serve the call now; clients of Kubernetes try again by themselves.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// As a `Status`.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16()});
        let mut answer = object(self.code, &status);
        match self.code {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // Who has no token holds no connection.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        answer
    }
}

/// The `scale` of a fleet.
#[must_use]
pub fn scale(namespace: &str, name: &str, fleet: &Fleet) -> Answer {
    let replicas = fleet.replicas;
    let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata(namespace, name, fleet),
        "spec": {"replicas": replicas}, "status": {"replicas": replicas}});
    object(StatusCode::OK, &scale)
}

/// The Deployment that a fleet is to the server, without pods to be made of it.
#[must_use]
pub fn deployment(namespace: &str, name: &str, fleet: &Fleet) -> Answer {
    let replicas = fleet.replicas;
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": metadata(namespace, name, fleet),
        "spec": {"replicas": replicas, "selector": {}, "template": {"metadata": {}, "spec": {"containers": []}}},
        "status": {"replicas": replicas}});
    object(StatusCode::OK, &deployment)
}

fn metadata(namespace: &str, name: &str, fleet: &Fleet) -> Value {
    json!({"name": name, "namespace": namespace, "uid": fleet.uid})
}

fn object(code: StatusCode, object: &Value) -> Answer {
    json_answer(code, Bytes::from(object.to_string()))
}

/// An answer that holds JSON.
#[must_use]
pub fn json_answer(code: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
