//! The HTTP/2 channel under core's client, on which polls end soon enough to be waited for.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use temporalio_client::callback_based::{CallbackBasedGrpcService, GrpcRequest, GrpcSuccessResponse};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Extensions, Request, Status};

/// Deadline of a poll. A server answers a poll that found no task one second before its deadline, so that nothing can
/// be handed out to a poll that has ended; below ten seconds it logs a warning for each poll. Core's own deadline is
/// 70 s, which no drain can wait for.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(11);

const POLLS: [&str; 2] = ["PollActivityTaskQueue", "PollWorkflowTaskQueue"];

/// Longest message, in bytes: what core sets for its own channels.
const MAX_MESSAGE: usize = 128 * 1024 * 1024;

/// All calls of a client go over `channel`; polls with [`POLL_TIMEOUT`].
pub fn over(channel: Channel) -> CallbackBasedGrpcService {
    CallbackBasedGrpcService { callback: Arc::new(move |request| Box::pin(call(channel.clone(), request))) }
}

async fn call(channel: Channel, request: GrpcRequest) -> Result<GrpcSuccessResponse, Status> {
    let GrpcRequest { service, rpc, headers, proto } = request;
    let path = PathAndQuery::try_from(format!("/{service}/{rpc}"))
        .map_err(|error| Status::internal(format!("{service}/{rpc} is no path: {error}")))?;
    let mut request = Request::from_parts(MetadataMap::from_headers(headers), Extensions::default(), proto);
    if POLLS.contains(&rpc.as_str()) {
        request.set_timeout(POLL_TIMEOUT);
    }
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let (headers, proto, _) = grpc.unary(request, path, Raw).await.map_err(as_unavailable)?.into_parts();
    Ok(GrpcSuccessResponse { headers: headers.into_headers(), proto: proto.into() })
}

/// A status that the server did not send, but the connection made, as one that core tries again after: core tells them
/// apart by their cause, which does not pass through here. `Cancelled` without a cause would make it drop a result.
fn as_unavailable(status: Status) -> Status {
    if status.source().is_some() { Status::unavailable(status.message()) } else { status }
}

/// Messages as they are: core has encoded them, and decodes them.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
