//! The HTTP/2 channel under core's client, on which polls end soon enough to be waited for.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::FutureExt as _;
use operator_core::contract::GrpcCompression;
use prost::Message as _;
use temporalio_client::callback_based::{CallbackBasedGrpcService, GrpcRequest, GrpcSuccessResponse};
use temporalio_common::protos::temporal::api::enums::v1::TaskQueueKind;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    PollActivityTaskQueueRequest, PollWorkflowTaskQueueRequest,
};
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Extensions, Request, Status};

use crate::cordon::Cordon;
use crate::lifecycle::{Lifecycle, Stage};
use crate::roll::Roll;

/// Deadline of a poll. A server answers a poll that found no task one second before its deadline, so that nothing can
/// be handed out to a poll that has ended; below ten seconds it logs a warning for each poll. Core's own deadline is
/// 70 s, which no drain can wait for.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(11);

const POLL_ACTIVITIES: &str = "PollActivityTaskQueue";
const POLL_WORKFLOWS: &str = "PollWorkflowTaskQueue";

/// Largest window of HTTP/2, in bytes (RFC 9113 section 6.9.1).
pub const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// Longest message, in bytes: what core sets for its own channels.
const MAX_MESSAGE: usize = 128 * 1024 * 1024;

/// What decides about the calls of the process. Cheap to clone.
///
/// Slots alone can't say which polls may begin: core takes the slot of its next poll before the one that it waits for has
/// ended, and would begin one more poll after a gate was closed.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    /// In a drain, polls for activities begin no more.
    pub lifecycle: Lifecycle,
    /// Behind a cordon, none but sticky ones do.
    pub cordon: Cordon,
    /// Those for activities of a Worker that is replaced do not either.
    pub roll: Roll,
    /// Whether calls are compressed.
    pub gzip: Arc<AtomicBool>,
    /// Bytes of an answer that the connection takes before they are read; what is usual for none.
    pub window: Option<u32>,
}

/// A poll that core is about to begin.
struct Poll {
    /// Core's key of the Worker.
    worker: String,
    for_activities: bool,
    sticky: bool,
}

impl Poll {
    fn of(rpc: &str, proto: &Bytes) -> Option<Self> {
        match rpc {
            POLL_ACTIVITIES => {
                let poll = PollActivityTaskQueueRequest::decode(proto.clone()).unwrap_or_default();
                Some(Self { worker: poll.worker_instance_key, for_activities: true, sticky: false })
            }
            POLL_WORKFLOWS => {
                let poll = PollWorkflowTaskQueueRequest::decode(proto.clone()).unwrap_or_default();
                let sticky = poll.task_queue.is_some_and(|queue| queue.kind() == TaskQueueKind::Sticky);
                Some(Self { worker: poll.worker_instance_key, for_activities: false, sticky })
            }
            _ => None,
        }
    }
}

impl Wire {
    /// Says how calls are compressed from now on.
    pub fn set_compression(&self, compression: GrpcCompression) {
        self.gzip.store(compression == GrpcCompression::Gzip, Ordering::Relaxed);
    }

    fn may_begin(&self, poll: &Poll) -> bool {
        // Polls for Workflows go on until their Worker ends: no gate holds them, so that they would be refused without end.
        let ends = || self.lifecycle.stage() >= Stage::Draining || !self.roll.may_poll(&poll.worker);
        !(poll.for_activities && ends()) && (poll.sticky || !self.cordon.is_on())
    }
}

/// All calls of a client go over `channel`; polls with [`POLL_TIMEOUT`], and only those that may begin: the others are
/// answered here, as by a server that has no task.
pub fn over(channel: Channel, wire: Wire) -> CallbackBasedGrpcService {
    let callback = move |request: GrpcRequest| {
        let (channel, wire) = (channel.clone(), wire.clone());
        async move {
            let gzip = wire.gzip.load(Ordering::Relaxed);
            let Some(poll) = Poll::of(&request.rpc, &request.proto) else {
                return call(channel, request, gzip, None).await;
            };
            if !wire.may_begin(&poll) {
                return Ok(no_task());
            }
            wire.roll.beat(&poll.worker, Instant::now());
            let answer = call(channel, request, gzip, Some(POLL_TIMEOUT)).await;
            wire.roll.beat(&poll.worker, Instant::now());
            answer
        }
        .boxed()
    };
    CallbackBasedGrpcService { callback: Arc::new(callback) }
}

fn no_task() -> GrpcSuccessResponse {
    GrpcSuccessResponse { headers: HeaderMap::new(), proto: Vec::new() }
}

async fn call(
    channel: Channel,
    request: GrpcRequest,
    gzip: bool,
    timeout: Option<Duration>,
) -> Result<GrpcSuccessResponse, Status> {
    let GrpcRequest { service, rpc, headers, proto } = request;
    let path = PathAndQuery::try_from(format!("/{service}/{rpc}"))
        .map_err(|error| Status::internal(format!("{service}/{rpc} is no path: {error}")))?;
    let mut request = Request::from_parts(MetadataMap::from_headers(headers), Extensions::default(), proto);
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
    if gzip {
        grpc = grpc.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    }
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let (headers, proto, _) = grpc.unary(request, path, Raw).await.map_err(as_unavailable)?.into_parts();
    let mut headers = headers.into_headers();
    // It is no longer compressed.
    headers.remove("grpc-encoding");
    Ok(GrpcSuccessResponse { headers, proto: proto.into() })
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

    use super::*;
    use crate::cordon::Until;
    use crate::room::Room;
    use crate::slots::Gate;
    use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;

    fn poll(kind: TaskQueueKind) -> Bytes {
        let task_queue = Some(TaskQueue { kind: kind.into(), ..TaskQueue::default() });
        PollWorkflowTaskQueueRequest { task_queue, ..Default::default() }.encode_to_vec().into()
    }

    fn begins(wire: &Wire) -> [bool; 3] {
        let begins = |rpc, proto| wire.may_begin(&Poll::of(rpc, &proto).unwrap());
        [
            begins(POLL_ACTIVITIES, Bytes::new()),
            begins(POLL_WORKFLOWS, poll(TaskQueueKind::Normal)),
            begins(POLL_WORKFLOWS, poll(TaskQueueKind::Sticky)),
        ]
    }

    #[test]
    fn a_cordon_lets_only_sticky_polls_begin_and_a_drain_only_those_for_workflows() {
        let wire = Wire::default();
        assert_eq!(begins(&wire), [true; 3]);
        let instant = Instant::now() + Duration::from_secs(60);
        wire.cordon.set(Some(Until { instant, wall: jiff::Timestamp::UNIX_EPOCH }));
        assert_eq!(begins(&wire), [false, false, true]);
        wire.cordon.set(None);
        assert_eq!(begins(&wire), [true; 3]);
        wire.lifecycle.reach(Stage::Draining);
        assert_eq!(begins(&wire), [false, true, true]);
        assert!(Poll::of("RespondActivityTaskCompleted", &Bytes::new()).is_none());
    }

    #[test]
    fn a_worker_that_is_replaced_begins_no_poll_for_activities() {
        let wire = Wire::default();
        let gate = Gate::new(Room::new(1, None), Cordon::default());
        let _entry = wire.roll.enter("old".to_owned(), "q", gate.clone(), None);
        let begins = |worker: &str| {
            let request = PollActivityTaskQueueRequest { worker_instance_key: worker.to_owned(), ..Default::default() };
            wire.may_begin(&Poll::of(POLL_ACTIVITIES, &request.encode_to_vec().into()).unwrap())
        };
        let begins_for_workflows = |worker: &str| {
            let request = PollWorkflowTaskQueueRequest { worker_instance_key: worker.to_owned(), ..Default::default() };
            wire.may_begin(&Poll::of(POLL_WORKFLOWS, &request.encode_to_vec().into()).unwrap())
        };
        assert!(begins("old") && begins("new"));
        gate.shut();
        assert!(!begins("old") && begins("new"));
        assert!(begins_for_workflows("old"), "its Workflows go on, and core would ask again and again");
    }
}
