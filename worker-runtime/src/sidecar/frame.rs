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
/// Bytes of a longer one that are given on at a time: what HTTP/2 has taken and not sent is no longer counted.
const PIECE: usize = 64 * 1024;
/// Flag and length.
const HEAD: usize = 5;

/// What a unary call sends or gets, as it comes.
#[derive(Debug, Default)]
pub struct Framed {
    bytes: BytesMut,
    /// What followed the message.
    pub trailers: Option<HeaderMap>,
    /// Its part of the memory that messages may take.
    share: Option<Share>,
}

/// The same, read.
#[derive(Debug, Default)]
pub struct Message {
    /// The message; none when there was no frame, as in an answer with nothing but a status.
    pub bytes: Option<Bytes>,
    /// What followed it.
    pub trailers: Option<HeaderMap>,
    /// Its part of the memory that messages may take.
    pub share: Option<Share>,
}

impl Framed {
    /// Reads a body of at most one message, once there is room for it and for another of its size.
    ///
    /// # Errors
    /// The body breaks off, or holds more than one message, or one that is too long.
    pub async fn read<B>(mut body: B, budget: &Budget) -> Result<Self, Status>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let mut framed = Self::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Status::unavailable(format!("the message broke off: {error}")))?;
            match frame.into_data() {
                Ok(data) => framed.take(data, budget).await?,
                Err(frame) => framed.trailers = frame.into_trailers().ok(),
            }
        }
        Ok(framed)
    }

    async fn take(&mut self, data: Bytes, budget: &Budget) -> Result<(), Status> {
        self.bytes.put(data);
        if self.share.is_none() && self.bytes.len() >= HEAD {
            let length = length(&self.bytes)?;
            self.share = Some(budget.share(length.saturating_mul(2)).await);
            self.bytes.reserve((HEAD + length).saturating_sub(self.bytes.len()));
        }
        if self.share.is_some() && self.bytes.len() > HEAD + length(&self.bytes)? {
            return Err(Status::internal("a unary call holds more than one message"));
        }
        Ok(())
    }

    /// The message, which is compressed by `encoding` if it says that it is.
    ///
    /// # Errors
    /// It is not all there, or can't be decompressed.
    pub fn message(self, encoding: Option<&[u8]>) -> Result<Message, Status> {
        let Self { bytes: mut framed, trailers, share } = self;
        if framed.is_empty() {
            return Ok(Message { bytes: None, trailers, share });
        }
        if framed.len() < HEAD || framed.len() < HEAD + length(&framed)? {
            return Err(Status::internal("a message is shorter than its length says"));
        }
        let is_compressed = framed[0] == 1;
        framed.advance(HEAD);
        let bytes = framed.freeze();
        let bytes = if is_compressed { decompress(&bytes, encoding)? } else { bytes };
        Ok(Message { bytes: Some(bytes), trailers, share })
    }

    /// The same as a body.
    pub fn body(self) -> Body {
        if self.bytes.is_empty() {
            return end(self.trailers);
        }
        in_pieces(None, self.bytes.freeze(), self.trailers, self.share)
    }
}

impl Message {
    /// Reads the one message of a body, once there is room for it and for another of its size.
    ///
    /// # Errors
    /// As [`Framed::read`] and [`Framed::message`].
    pub async fn read<B>(body: B, encoding: Option<&[u8]>, budget: &Budget) -> Result<Self, Status>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        Framed::read(body, budget).await?.message(encoding)
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

/// A body of one message, and of what follows it. `share` is given back once all but the last of the message was sent.
pub fn body(message: Bytes, trailers: Option<HeaderMap>, share: Option<Share>) -> Body {
    let mut head = BytesMut::with_capacity(HEAD);
    head.put_u8(0);
    head.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    // One frame for a small message, and no copy of a large one.
    if message.len() <= SMALL {
        head.put(message);
        return in_pieces(None, head.freeze(), trailers, share);
    }
    in_pieces(Some(head.freeze()), message, trailers, share)
}

fn in_pieces(head: Option<Bytes>, mut bytes: Bytes, trailers: Option<HeaderMap>, share: Option<Share>) -> Body {
    let piece = move || (!bytes.is_empty()).then(|| bytes.split_to(bytes.len().min(PIECE)));
    let data = head.into_iter().chain(std::iter::from_fn(piece)).map(|data| Ok(Frame::data(data)));
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
