//! From a request to an answer.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes};
use operator_core::border::{self, Border};
use operator_core::push_token::{Grant, Refusal};
use tokio::time::{Instant, timeout};

use super::answer::{Answer, Problem, deployment, scale};
use super::limit::Limit;
use super::metrics::{Metrics, Outcome};
use super::relay::{RELAYED, Relay};
use super::{Backend, Fleet, Leader};

/// Deadline of one call, with a relay in it.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most bytes of a body: the `scale` of a Deployment has some 500.
const MOST_BODY: usize = 64 * 1024;

/// The endpoint, whatever it is called through.
pub struct Endpoint<B> {
    backend: Arc<B>,
    relay: Relay,
    limit: Limit,
    metrics: Metrics,
}

/// A call of the Kubernetes API that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Kubernetes namespace of the fleet.
    pub namespace: String,
    /// Name of the fleet.
    pub name: String,
    /// What is asked.
    pub verb: Verb,
}

/// What a call asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// The Deployment: the server's provider looks whether it exists.
    ReadDeployment,
    /// Its scale.
    ReadScale,
    /// Another scale: a hint.
    WriteScale,
}

type Failed = (Outcome, Problem);

impl<B: Backend> Endpoint<B> {
    /// An endpoint.
    pub fn new(backend: Arc<B>, relay: Relay, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { backend, relay, limit: Limit::default(), metrics })
    }

    /// Answers a request, within the deadline.
    pub async fn answer<R>(&self, request: Request<R>) -> Answer
    where
        R: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
    {
        let (outcome, answer) = match timeout(DEADLINE, self.serve(request)).await {
            Ok(Ok(answered)) => answered,
            Ok(Err((outcome, problem))) => {
                tracing::debug!(?outcome, code = problem.code.as_u16(), "push call refused");
                (outcome, problem.answer())
            }
            Err(_) => (Outcome::Unavailable, Problem::unavailable("the call was not served in time").answer()),
        };
        self.metrics.count(outcome);
        answer
    }

    async fn serve<R>(&self, request: Request<R>) -> Result<(Outcome, Answer), Failed>
    where
        R: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
    {
        let (head, body) = request.into_parts();
        let call = Call::of(&head.method, head.uri.path()).map_err(|problem| (Outcome::Invalid, problem))?;
        let fleet = self.admit(&call, &head.headers).await?;
        discard(&head.headers, body).await.map_err(|problem| (Outcome::Invalid, problem))?;
        let read = match call.verb {
            Verb::ReadDeployment => deployment(&call.namespace, &call.name, &fleet),
            Verb::ReadScale => scale(&call.namespace, &call.name, &fleet),
            Verb::WriteScale => return self.hint(&call, &fleet, &head.headers).await,
        };
        Ok((Outcome::Read, read))
    }

    /// The fleet that a call is about, if the caller's token is good for it. What a caller without a good token is told
    /// does not depend on which fleets there are.
    async fn admit(&self, call: &Call, headers: &HeaderMap) -> Result<Fleet, Failed> {
        let token = bearer(headers).ok_or_else(|| refused(&Refusal::Malformed))?;
        let key = self.backend.key().await.map_err(|error| {
            tracing::warn!(error, "the key of push tokens can't be had");
            (Outcome::Unavailable, Problem::unavailable("the key of tokens can't be read at the moment"))
        })?;
        let grant = key.authenticate(token).map_err(|refusal| refused(&refusal))?;
        let fleet = self.backend.fleet(&call.namespace, &call.name);
        let fleet = fleet.ok_or_else(|| refused(&Refusal::OtherFleet))?;
        let serial = fleet.serial.clone().map_err(|invalid| forbidden(invalid.to_string()));
        if border::stands(Border::PushFleet) && grant.fleet_uid != fleet.uid {
            return Err(refused(&Refusal::OtherFleet));
        }
        let wanted = Grant { fleet_uid: fleet.uid.clone(), serial: serial? };
        grant.permits(&wanted).map_err(|refusal| refused(&refusal))?;
        if !self.limit.take(&fleet.uid, Instant::now()) {
            let problem =
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "too many calls of this fleet");
            return Err((Outcome::Limited, problem));
        }
        Ok(fleet)
    }

    async fn hint(&self, call: &Call, fleet: &Fleet, headers: &HeaderMap) -> Result<(Outcome, Answer), Failed> {
        let nobody = |message: &str| Err((Outcome::Unavailable, Problem::unavailable(message)));
        match self.backend.leader() {
            Leader::Here => {
                self.backend.hint(&fleet.uid);
                Ok((Outcome::Accepted, scale(&call.namespace, &call.name, fleet)))
            }
            // Two that take each other for the leader would send it to and fro.
            Leader::At(_) if headers.contains_key(RELAYED) => nobody("this replica does not lead any more"),
            Leader::At(leader) => {
                let Some(authorization) = headers.get(AUTHORIZATION) else { return Err(refused(&Refusal::Malformed)) };
                let relayed = self.relay.forward(leader, &call.path(), authorization).await;
                relayed.map(|answer| (Outcome::Relayed, answer)).or_else(|error| {
                    tracing::info!(%leader, error = format!("{error:#}"), "push call not relayed");
                    nobody("the replica that leads can't be reached")
                })
            }
            Leader::Nobody => nobody("no replica leads at the moment"),
        }
    }
}

impl Call {
    /// The call that a request is.
    ///
    /// # Errors
    /// [`Problem`]: what is asked is not served.
    pub fn of(method: &Method, path: &str) -> Result<Self, Problem> {
        let unknown = || {
            Problem::new(
                StatusCode::NOT_FOUND,
                "NotFound",
                "the push endpoint serves /apis/apps/v1/namespaces/NAMESPACE/deployments/NAME and its /scale alone",
            )
        };
        let rest = path.strip_prefix("/apis/apps/v1/namespaces/").ok_or_else(unknown)?;
        let parts: Vec<_> = rest.split('/').collect();
        let (namespace, name, is_scale) = match parts[..] {
            [namespace, "deployments", name] => (namespace, name, false),
            [namespace, "deployments", name, "scale"] => (namespace, name, true),
            _ => return Err(unknown()),
        };
        let verb = match (method.as_str(), is_scale) {
            ("GET", false) => Verb::ReadDeployment,
            ("GET", true) => Verb::ReadScale,
            ("PUT" | "PATCH", true) => Verb::WriteScale,
            _ => {
                let message = "the push endpoint serves GET, and PUT and PATCH of a scale";
                return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message));
            }
        };
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), verb })
    }

    fn path(&self) -> String {
        format!("/apis/apps/v1/namespaces/{}/deployments/{}/scale", self.namespace, self.name)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION).map(HeaderValue::to_str)?.ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn refused(refusal: &Refusal) -> Failed {
    if refusal.is_unauthenticated() {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized", refusal.to_string());
        return (Outcome::Refused, problem);
    }
    forbidden(refusal.to_string())
}

fn forbidden(message: String) -> Failed {
    (Outcome::Refused, Problem::new(StatusCode::FORBIDDEN, "Forbidden", message))
}

/// Takes a body off the connection, so that another request can follow. Nothing of it is looked at.
async fn discard<R>(headers: &HeaderMap, body: R) -> Result<(), Problem>
where
    R: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
{
    let said = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let too_large = || {
        let message = format!("the body has more than {MOST_BODY} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    };
    if said.is_some_and(|said| said > MOST_BODY) {
        return Err(too_large());
    }
    Limited::new(body, MOST_BODY).collect().await.map(|_| ()).map_err(|_| too_large())
}
