//! The HTTP/2 channel under core's client, on which polls end soon enough to be waited for.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::FutureExt as _;
use prost::Message as _;
use temporalio_client::callback_based::{CallbackBasedGrpcService, GrpcRequest, GrpcSuccessResponse};
use temporalio_common::protos::temporal::api::enums::v1::TaskQueueKind;
use temporalio_common::protos::temporal::api::workflowservice::v1::PollWorkflowTaskQueueRequest;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Extensions, Request, Status};

use crate::cordon::Cordon;
use crate::lifecycle::{Lifecycle, Stage};

/// Deadline of a poll. A server answers a poll that found no task one second before its deadline, so that nothing can
/// be handed out to a poll that has ended; below ten seconds it logs a warning for each poll. Core's own deadline is
/// 70 s, which no drain can wait for.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(11);

const POLL_ACTIVITIES: &str = "PollActivityTaskQueue";
const POLL_WORKFLOWS: &str = "PollWorkflowTaskQueue";

/// Longest message, in bytes: what core sets for its own channels.
const MAX_MESSAGE: usize = 128 * 1024 * 1024;

/// Which polls may begin.
///
/// Slots alone can't say it: core takes the slot of its next poll before the one that it waits for has ended, and would
/// begin one more poll after a gate was closed.
#[derive(Clone, Debug, Default)]
pub struct Polls {
    /// In a drain, polls for activities begin no more.
    pub lifecycle: Lifecycle,
    /// Behind a cordon, none but sticky ones do.
    pub cordon: Cordon,
}

impl Polls {
    fn may_begin(&self, rpc: &str, proto: &Bytes) -> bool {
        match rpc {
            POLL_ACTIVITIES => self.lifecycle.stage() < Stage::Draining && !self.cordon.is_on(),
            POLL_WORKFLOWS => !self.cordon.is_on() || is_sticky(proto),
            _ => true,
        }
    }
}

fn is_sticky(poll: &Bytes) -> bool {
    let poll = PollWorkflowTaskQueueRequest::decode(poll.clone()).unwrap_or_default();
    poll.task_queue.is_some_and(|queue| queue.kind() == TaskQueueKind::Sticky)
}

/// All calls of a client go over `channel`; polls with [`POLL_TIMEOUT`], and only those that may begin: the others are
/// answered here, as by a server that has no task.
pub fn over(channel: Channel, polls: Polls) -> CallbackBasedGrpcService {
    let callback = move |request: GrpcRequest| {
        let (channel, may_begin) = (channel.clone(), polls.may_begin(&request.rpc, &request.proto));
        async move { if may_begin { call(channel, request).await } else { Ok(no_task()) } }.boxed()
    };
    CallbackBasedGrpcService { callback: Arc::new(callback) }
}

fn no_task() -> GrpcSuccessResponse {
    GrpcSuccessResponse { headers: HeaderMap::new(), proto: Vec::new() }
}

async fn call(channel: Channel, request: GrpcRequest) -> Result<GrpcSuccessResponse, Status> {
    let GrpcRequest { service, rpc, headers, proto } = request;
    let path = PathAndQuery::try_from(format!("/{service}/{rpc}"))
        .map_err(|error| Status::internal(format!("{service}/{rpc} is no path: {error}")))?;
    let mut request = Request::from_parts(MetadataMap::from_headers(headers), Extensions::default(), proto);
    if [POLL_ACTIVITIES, POLL_WORKFLOWS].contains(&rpc.as_str()) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
    use tokio::time::Instant;

    use super::*;
    use crate::cordon::Until;

    fn poll(kind: TaskQueueKind) -> Bytes {
        let task_queue = Some(TaskQueue { kind: kind.into(), ..TaskQueue::default() });
        PollWorkflowTaskQueueRequest { task_queue, ..Default::default() }.encode_to_vec().into()
    }

    fn begins(polls: &Polls) -> [bool; 4] {
        let begins = |rpc, proto| polls.may_begin(rpc, &proto);
        [
            begins(POLL_ACTIVITIES, Bytes::new()),
            begins(POLL_WORKFLOWS, poll(TaskQueueKind::Normal)),
            begins(POLL_WORKFLOWS, poll(TaskQueueKind::Sticky)),
            begins("RespondActivityTaskCompleted", Bytes::new()),
        ]
    }

    #[test]
    fn a_cordon_lets_only_sticky_polls_begin_and_a_drain_only_those_for_workflows() {
        let polls = Polls::default();
        assert_eq!(begins(&polls), [true; 4]);
        let instant = Instant::now() + Duration::from_secs(60);
        polls.cordon.set(Some(Until { instant, wall: jiff::Timestamp::UNIX_EPOCH }));
        assert_eq!(begins(&polls), [false, false, true, true]);
        polls.cordon.set(None);
        assert_eq!(begins(&polls), [true; 4]);
        polls.lifecycle.reach(Stage::Draining);
        assert_eq!(begins(&polls), [false, true, true, true]);
    }
}
