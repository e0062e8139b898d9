//! A codec server: Temporal's UI and CLI have it decrypt the payloads that they show, and encrypt those that they send.
//!
//! `POST /decode` and `POST /encode` take and give `temporal.api.common.v1.Payloads` as JSON. Every request needs a token;
//! a browser's, an origin that was named. What is not encrypted is given back as it is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    AUTHORIZATION, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use operator_core::contract;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use temporalio_common::protos::temporal::api::common::v1::Payload;
use tokio::net::TcpListener;

use crate::codec::CodecError;
use crate::encryption::Encryption;
use crate::files::{Paths, Told};
use crate::metrics::Metrics;

/// Longest request, in bytes: what a page of a history may hold, in base64.
const LONGEST_BODY: usize = 64 << 20;
/// Shortest token: below, it can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// Settings of a codec server.
#[derive(Clone, Debug, clap::Args)]
pub struct CodecServerOptions {
    /// File with `encryption`, in JSON: the keys, as in the limits file of a Worker.
    #[arg(long, value_name = "FILE", env = contract::ENV_LIMITS)]
    pub limits: PathBuf,
    /// Temporal namespace that payloads are encrypted for.
    #[arg(long, env = contract::ENV_NAMESPACE)]
    pub namespace: String,
    /// File with the tokens that may use it, one a line, read anew at each request.
    #[arg(long, value_name = "FILE")]
    pub tokens: PathBuf,
    /// Origin of a Temporal UI that may use it from a browser, such as `https://temporal.example.com`; may be repeated.
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Vec<String>,
    /// Address to listen on. It speaks HTTP: put TLS in front of it.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8888")]
    pub bind_address: SocketAddr,
}

struct Desk {
    encryption: Encryption,
    tokens: PathBuf,
    /// Whether the tokens could not be read at the last request.
    tokenless: AtomicBool,
    origins: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Payloads {
    #[serde(default)]
    payloads: Vec<Text>,
}

/// A payload in the JSON form of protobuf: bytes are base64.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Text {
    #[serde(default)]
    metadata: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    data: String,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("origin {0:?} is not one of --origin; name it there if its pages may see payloads")]
    Origin(String),
    #[error("no token of the file of --tokens; send one as `Authorization: Bearer TOKEN`")]
    Token,
    #[error("the codec server can't read its tokens now; its log says why")]
    NoTokens,
    #[error("use POST /decode or POST /encode")]
    Method,
    #[error("the body is not temporal.api.common.v1.Payloads in JSON: {0}")]
    Body(String),
    #[error("{0}")]
    Codec(#[from] CodecError),
}

/// Serves until it is killed.
///
/// # Errors
/// The keys, the tokens, an origin or the address can't be used; names which, and what to do.
pub async fn serve(options: &CodecServerOptions) -> anyhow::Result<()> {
    let Told { limits, .. } = Paths { config: None, limits: Some(options.limits.clone()) }.read()?;
    ensure!(limits.encryption.is_some(), "file {} has no encryption; name its keys there", options.limits.display());
    tokens(&options.tokens)?;
    for origin in &options.origin {
        let exact = origin.starts_with("http") && !origin.ends_with('/') && HeaderValue::from_str(origin).is_ok();
        ensure!(exact, "--origin is {origin:?}; give scheme, host and port as a browser sends them, without a path");
    }
    let source = (&limits, Some(options.limits.as_path()));
    let encryption = Encryption::passing_plain(&options.namespace, source, &Metrics::new(None)?)?;
    let listener = TcpListener::bind(options.bind_address)
        .await
        .with_context(|| format!("cannot listen on {}; choose another --bind-address", options.bind_address))?;
    tracing::info!(address = %listener.local_addr()?, what = "codec", "listening");
    let desk = Desk {
        encryption: encryption.clone(),
        tokens: options.tokens.clone(),
        tokenless: AtomicBool::default(),
        origins: options.origin.clone(),
    };
    tokio::select! {
        served = axum::serve(listener, router(desk)) => served?,
        () = encryption.keep() => {}
    }
    Ok(())
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route(
            "/decode",
            any(async |State(desk): State<Arc<Desk>>, method, headers, body| {
                desk.answer(&method, &headers, &body, Encryption::open)
            }),
        )
        .route(
            "/encode",
            any(async |State(desk): State<Arc<Desk>>, method, headers, body| {
                desk.answer(&method, &headers, &body, Encryption::seal)
            }),
        )
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(Arc::new(desk))
}

impl Desk {
    fn answer(
        &self,
        method: &Method,
        headers: &HeaderMap,
        body: &Bytes,
        convert: fn(&Encryption, Vec<Payload>) -> Result<Vec<Payload>, CodecError>,
    ) -> Response {
        let origin = match self.origin(headers) {
            Ok(origin) => origin,
            Err(refusal) => return refusal.into_response(),
        };
        let mut response = if method == Method::OPTIONS {
            StatusCode::NO_CONTENT.into_response()
        } else {
            self.convert(method, headers, body, convert).unwrap_or_else(Refusal::into_response)
        };
        if let Some(origin) = origin {
            allow(response.headers_mut(), origin);
        }
        response
    }

    /// The origin of a browser's request, if it is one that may ask.
    fn origin(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Refusal> {
        let Some(origin) = headers.get(ORIGIN) else { return Ok(None) };
        let named = self.origins.iter().any(|known| known.as_bytes() == origin.as_bytes());
        if named {
            Ok(Some(origin.clone()))
        } else {
            Err(Refusal::Origin(String::from_utf8_lossy(origin.as_bytes()).into()))
        }
    }

    fn convert(
        &self,
        method: &Method,
        headers: &HeaderMap,
        body: &Bytes,
        convert: fn(&Encryption, Vec<Payload>) -> Result<Vec<Payload>, CodecError>,
    ) -> Result<Response, Refusal> {
        if method != Method::POST {
            return Err(Refusal::Method);
        }
        self.authorize(headers)?;
        let asked: Payloads = serde_json::from_slice(body).map_err(|error| Refusal::Body(error.to_string()))?;
        let count = asked.payloads.len();
        let payloads = asked.payloads.into_iter().map(Text::payload).collect::<Result<_, _>>()?;
        let payloads = convert(&self.encryption, payloads)?;
        tracing::info!(payloads = count, "converted");
        Ok(Json(Payloads { payloads: payloads.into_iter().map(Text::of).collect() }).into_response())
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Refusal::Token)?;
        // Of what differs, the time says nothing but of the digests.
        let digest_of = |token: &str| digest(&SHA256, token.trim().as_bytes());
        let given = digest_of(given);
        let known = self.known()?;
        known.iter().any(|token| digest_of(token).as_ref() == given.as_ref()).then_some(()).ok_or(Refusal::Token)
    }

    /// The tokens that may ask. The log says once that there are none, and once that there are some again.
    fn known(&self) -> Result<Vec<String>, Refusal> {
        let known = tokens(&self.tokens);
        let tokenless = self.tokenless.swap(known.is_err(), Ordering::Relaxed);
        match &known {
            Err(error) if !tokenless => tracing::error!("every request is refused: {error:#}"),
            Ok(_) if tokenless => tracing::info!("the tokens can be read again"),
            _ => {}
        }
        known.map_err(|_| Refusal::NoTokens)
    }
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(VARY, HeaderValue::from_static("origin"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type, x-namespace"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}

/// The tokens of a file.
fn tokens(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("token file {} can't be read", path.display()))?;
    let tokens: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let long = !tokens.is_empty() && tokens.iter().all(|token| token.len() >= SHORTEST_TOKEN);
    ensure!(
        long,
        "token file {} needs a token a line, each of at least {SHORTEST_TOKEN} characters; make one with `openssl rand -hex 32`",
        path.display()
    );
    Ok(tokens)
}

impl Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::NoTokens => StatusCode::SERVICE_UNAVAILABLE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(_) | Self::Codec(_) => StatusCode::BAD_REQUEST,
        };
        tracing::warn!(status = status.as_u16(), "request refused: {self}");
        (status, format!("{self}\n")).into_response()
    }
}

impl Text {
    fn payload(self) -> Result<Payload, Refusal> {
        let bytes = |text: &str| STANDARD.decode(text).map_err(|error| Refusal::Body(format!("no base64: {error}")));
        let metadata = self.metadata.iter().map(|(name, value)| Ok((name.clone(), bytes(value)?)));
        let metadata = metadata.collect::<Result<_, Refusal>>()?;
        Ok(Payload { metadata, data: bytes(&self.data)?, ..Payload::default() })
    }

    fn of(payload: Payload) -> Self {
        let metadata = payload.metadata.iter().map(|(name, value)| (name.clone(), STANDARD.encode(value)));
        Self { metadata: metadata.collect(), data: STANDARD.encode(&payload.data) }
    }
}
