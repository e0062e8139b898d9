//! Trace context of a task: from Temporal's header to the handler, and as a span to a collector (OTLP) where one is named.
//!
//! Temporal's SDKs agree on a header field with a map in JSON, in which their OpenTelemetry interceptors keep the fields of
//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>). Spans carry names and ids, and nothing of arguments, results
//! or messages.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

/// Header field of the SDKs.
pub const HEADER: &str = "_tracer-data";
/// Variables that name a collector, by OpenTelemetry's own rules: that of all signals, and that of traces.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// Time in which the last spans are sent at the end of the process.
const FLUSH_TIME: Duration = Duration::from_secs(2);

/// Where spans go. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<(SdkTracerProvider, SdkTracer)>);

/// What is known of a task when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Activity type.
    pub activity_type: String,
    /// Activity ID.
    pub activity_id: String,
    /// Workflow ID; empty without a Workflow.
    pub workflow_id: String,
    /// Run ID of the Workflow; empty without one.
    pub run_id: String,
    /// Attempt, from 1.
    pub attempt: u32,
}

/// The trace of a task.
#[derive(Debug)]
pub struct Trace {
    context: Context,
    own: bool,
}

impl Traces {
    /// Sends spans to the collector that the environment names; to nobody if it names none.
    ///
    /// # Errors
    /// The variables can't be used.
    pub fn start() -> anyhow::Result<Self> {
        if !ENDPOINTS.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
            return Ok(Self(None));
        }
        let exporter = SpanExporter::builder()
            .with_tonic()
            .build()
            .with_context(|| format!("spans can't be sent; correct or unset {}", ENDPOINTS.join(" and ")))?;
        let mut resource = Resource::builder();
        if std::env::var_os(SERVICE_NAME).is_none() {
            resource = resource.with_service_name("temporal-worker-runtime");
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        let tracer = provider.tracer("temporal-worker-runtime");
        tracing::info!("spans are sent by OTLP");
        Ok(Self(Some((provider, tracer))))
    }

    /// The trace of a task, whose header holds `fields`.
    pub fn begin(&self, fields: &HashMap<String, String>, task_queue: &str, facts: &Facts) -> Trace {
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), fields);
        let Some((_, tracer)) = &self.0 else { return Trace { context: parent, own: false } };
        let text = |key: &'static str, value: &str| KeyValue::new(key, value.to_owned());
        let span = tracer
            .span_builder(format!("RunActivity:{}", facts.activity_type))
            .with_kind(SpanKind::Server)
            .with_attributes([
                text("temporalActivityID", &facts.activity_id),
                text("temporalWorkflowID", &facts.workflow_id),
                text("temporalRunID", &facts.run_id),
                text("temporalTaskQueue", task_queue),
                KeyValue::new("temporalActivityAttempt", i64::from(facts.attempt)),
            ])
            .start_with_context(tracer, &parent);
        Trace { context: parent.with_span(span), own: true }
    }

    /// Sends what is left, for two seconds at most.
    pub async fn flush(self) {
        let Some((provider, _)) = self.0 else { return };
        // It waits for its own thread, which needs this one.
        let sent = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIME)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

impl Trace {
    /// The fields for the handler, in W3C's words; none of a task without a trace.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = HashMap::new();
        TraceContextPropagator::new().inject_context(&self.context, &mut fields);
        let field = |name: &'static str| {
            fields.remove(name).filter(|value: &String| !value.is_empty()).map(|value| (name, value))
        };
        ["traceparent", "tracestate"].into_iter().filter_map(field).collect()
    }

    /// Its id, for logs; empty without a trace.
    pub fn id(&self) -> String {
        let span = self.context.span();
        let context = span.span_context();
        if context.is_valid() { context.trace_id().to_string() } else { String::new() }
    }

    /// Ends the span. `outcome` is a word; `reason` is one too, of a failure.
    pub fn end(self, outcome: &'static str, reason: Option<&'static str>) {
        if !self.own {
            return;
        }
        let span = self.context.span();
        span.set_attribute(KeyValue::new("outcome", outcome));
        if let Some(reason) = reason {
            span.set_status(Status::error(reason));
        }
        span.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn without_a_collector_the_handler_gets_what_came() {
        let fields: HashMap<_, _> = [("traceparent", PARENT), ("tracestate", "a=1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let trace = Traces::default().begin(&fields, "q", &Facts::default());
        let expected = vec![("traceparent", PARENT.to_owned()), ("tracestate", "a=1".to_owned())];
        assert_eq!((trace.fields(), trace.id().as_str()), (expected, "0af7651916cd43dd8448eb211c80319c"));
        let nothing = Traces::default().begin(&HashMap::new(), "q", &Facts::default());
        assert_eq!((nothing.fields(), nothing.id()), (Vec::new(), String::new()));
    }

    #[test]
    fn a_span_is_the_child_of_what_came_and_the_parent_of_the_handler() {
        let provider = SdkTracerProvider::builder().build();
        let traces = Traces(Some((provider.clone(), provider.tracer("test"))));
        let fields = [("traceparent".to_owned(), PARENT.to_owned())].into();
        let told = traces.begin(&fields, "q", &Facts::default()).fields();
        let [(name, value)] = told.as_slice() else { panic!("one field: {told:?}") };
        assert!(*name == "traceparent" && value.starts_with(&PARENT[..36]) && value != PARENT, "{value}");
    }
}
