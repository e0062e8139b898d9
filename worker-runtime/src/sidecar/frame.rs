//! Messages as gRPC frames them: a flag, the length in four bytes, the message (gRPC over HTTP/2, "Length-Prefixed-Message").

use std::io::Read as _;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::read::GzDecoder;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Body as HttpBody;
use tonic::codegen::http::HeaderMap;

use super::budget::{Budget, Share};

/// Longest message, in bytes: what Temporal's SDKs take.
pub const LONGEST: usize = 128 * 1024 * 1024;
/// A message up to this size is copied behind its head, so that both are one frame.
const SMALL: usize = 16 * 1024;
/// Flag and length.
const HEAD: usize = 5;

/// What a unary call sends or gets.
#[derive(Debug, Default)]
pub struct Message {
    /// The message; none when there was no frame, as in an answer with nothing but a status.
    pub bytes: Option<Bytes>,
    /// Whether it came compressed.
    pub compressed: bool,
    /// What followed it.
    pub trailers: Option<HeaderMap>,
    /// Its part of the memory that messages may take.
    pub share: Option<Share>,
}

impl Message {
    /// Reads the one message of a body, once there is room for it and for another of its size.
    ///
    /// # Errors
    /// The body breaks off, or holds something else than one message.
    pub async fn read<B>(mut body: B, encoding: Option<&[u8]>, budget: &Budget) -> Result<Self, Status>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let mut message = Self::default();
        let mut framed = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Status::unavailable(format!("the message broke off: {error}")))?;
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    message.trailers = frame.into_trailers().ok();
                    continue;
                }
            };
            framed.put(data);
            if message.share.is_none() && framed.len() >= HEAD {
                let length = length(&framed)?;
                message.share = Some(budget.share(length.saturating_mul(2)).await);
                framed.reserve((HEAD + length).saturating_sub(framed.len()));
            }
            if message.share.is_some() && framed.len() > HEAD + length(&framed)? {
                return Err(Status::internal("a unary call holds more than one message"));
            }
        }
        if framed.is_empty() {
            return Ok(message);
        }
        if framed.len() < HEAD || framed.len() < HEAD + length(&framed)? {
            return Err(Status::internal("a message is shorter than its length says"));
        }
        message.compressed = framed[0] == 1;
        framed.advance(HEAD);
        let bytes = framed.freeze();
        message.bytes = Some(if message.compressed { decompress(&bytes, encoding)? } else { bytes });
        Ok(message)
    }
}

fn length(framed: &BytesMut) -> Result<usize, Status> {
    let length = usize::try_from((&framed[1..HEAD]).get_u32()).unwrap_or(usize::MAX);
    if framed[0] > 1 {
        return Err(Status::internal(format!("a message begins with flag {}; it is no gRPC message", framed[0])));
    }
    if length > LONGEST {
        return Err(Status::resource_exhausted(format!("a message has {length} bytes, more than {LONGEST}")));
    }
    Ok(length)
}

fn decompress(bytes: &[u8], encoding: Option<&[u8]>) -> Result<Bytes, Status> {
    if encoding != Some(b"gzip") {
        let name = String::from_utf8_lossy(encoding.unwrap_or(b"none")).into_owned();
        return Err(Status::unimplemented(format!("messages with compression {name:?} can't be read; use gzip")));
    }
    let mut message = Vec::new();
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    GzDecoder::new(bytes)
        .take(most + 1)
        .read_to_end(&mut message)
        .map_err(|error| Status::internal(format!("a compressed message can't be read: {error}")))?;
    if message.len() > LONGEST {
        return Err(Status::resource_exhausted(format!("a message has more than {LONGEST} bytes")));
    }
    Ok(message.into())
}

/// A body of one message, and of what follows it. `share` is given back once the message was taken.
pub fn body(message: Bytes, trailers: Option<HeaderMap>, share: Option<Share>) -> Body {
    let mut head = BytesMut::with_capacity(HEAD);
    head.put_u8(0);
    head.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    // One frame for a small message, and no copy of a large one.
    let frames = if message.len() <= SMALL {
        head.put(message);
        [Some(head.freeze()), None]
    } else {
        [Some(head.freeze()), Some(message)]
    };
    let data = frames.into_iter().flatten().map(|data| Ok(Frame::data(data)));
    let end = futures::stream::once(async move {
        drop(share);
        trailers.map(|trailers| Ok::<_, Status>(Frame::trailers(trailers)))
    });
    Body::new(StreamBody::new(futures::stream::iter(data).chain(end.filter_map(std::future::ready))))
}

/// A body without a message.
pub fn end(trailers: Option<HeaderMap>) -> Body {
    Body::new(Empty::new().with_trailers(async move { trailers.map(Ok) }))
}

#[cfg(test)]
mod tests;
