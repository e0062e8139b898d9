//! Trace context: from the header of an activity to its handler, and as a span to a collector.

mod runtime_support;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;
use runtime_support::{Activity, SOON, Server, Worker, exec, json_payload, wait_for};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

/// Takes spans as a collector does (OTLP over gRPC).
#[derive(Clone, Default)]
struct Collector {
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    /// Its address.
    async fn listen(&self) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let collector = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(collector.clone().serve(stream));
            }
        });
        Ok(format!("http://{address}"))
    }

    async fn serve(self, stream: TcpStream) -> Result<()> {
        let mut connection = h2::server::handshake(stream).await?;
        while let Some(request) = connection.accept().await {
            let (request, mut respond) = request?;
            let (mut body, mut bytes) = (request.into_body(), Vec::new());
            // The connection has to go on for the body to come.
            let read = async {
                while let Some(chunk) = body.data().await {
                    let chunk = chunk?;
                    bytes.extend_from_slice(&chunk);
                    body.flow_control().release_capacity(chunk.len())?;
                }
                anyhow::Ok(())
            };
            tokio::select! {
                read = read => read?,
                _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => return Ok(()),
            }
            self.bodies.lock().push(bytes);
            let response = http::Response::builder().header("content-type", "application/grpc").body(())?;
            let mut stream = respond.send_response(response, false)?;
            // An empty message, and the status.
            stream.send_data(vec![0_u8; 5].into(), false)?;
            stream.send_trailers([("grpc-status".parse()?, "0".parse()?)].into_iter().collect())?;
        }
        Ok(())
    }

    fn spans(&self) -> Result<Vec<Span>> {
        let bodies = self.bodies.lock();
        let mut spans = Vec::new();
        for body in bodies.iter() {
            // A byte for the compression and four for the length stand before the message.
            let request = ExportTraceServiceRequest::decode(body.get(5..).context("a message")?)?;
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            spans.extend(scopes.flat_map(|scope| scope.spans));
        }
        Ok(spans)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tells_its_trace() -> Value {
    exec(&["sh", "-c", r#"printf '["%s", "%s"]' "$TRACEPARENT" "$TRACESTATE""#])
}

fn traced() -> Activity<'static> {
    let header = vec![("_tracer-data", json_payload(&json!({"traceparent": traceparent(), "tracestate": "a=1"})))];
    Activity { header, input: vec![json_payload(&json!("canary-7f3"))], ..Activity::default() }
}

#[tokio::test]
async fn a_handler_gets_the_trace_context_of_its_activity() -> Result<()> {
    let server = Server::start().await?;
    let _worker = Worker::ready(&server, tells_its_trace(), json!({})).await?;
    assert_eq!(server.run(traced()).await?.result(), json!([traceparent(), "a=1"]));
    assert_eq!(server.run(Activity::default()).await?.result(), json!(["", ""]), "without a trace there is none");
    let unreadable = vec![("_tracer-data", json_payload(&json!([1, 2])))];
    let ended = server.run(Activity { header: unreadable, ..Activity::default() }).await?;
    assert_eq!(ended.result(), json!(["", ""]), "no task fails for it");
    Ok(())
}

#[tokio::test]
async fn a_collector_gets_a_span_a_task_and_no_payload() -> Result<()> {
    let (server, collector) = (Server::start().await?, Collector::default());
    let endpoint = collector.listen().await?;
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let mut worker = Worker::start(
        &server.temporal.host_port(),
        &tells_its_trace(),
        &json!({"drainTimeoutMs": 2000}),
        &environment,
    )?;
    worker.wait_ready().await;
    let result = server.run(traced()).await?.result();
    let told = result[0].as_str().context("a trace")?.to_owned();
    worker.terminate()?;
    worker.exit(SOON).await?;
    let spans = wait_for("the span", SOON, async || collector.spans().ok().filter(|spans| !spans.is_empty())).await;
    let [span] = spans.as_slice() else { panic!("one span: {spans:?}") };
    assert_eq!(
        (hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str(), span.name.as_str()),
        (TRACE, PARENT, "RunActivity:Work")
    );
    assert_eq!(told, format!("00-{TRACE}-{}-01", hex(&span.span_id)), "the handler is the child of the span");
    let sent = collector.bodies.lock().concat();
    assert!(!sent.windows(6).any(|window| window == b"canary"), "an argument is in a span");
    Ok(())
}
