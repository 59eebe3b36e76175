//! Spans for an OpenTelemetry collector, by OTLP over HTTP with JSON: one per attempt, which links back to the span of
//! the request by the message's `traceparent` (W3C Trace Context).
//!
//! They are sent in batches by a thread of the SDK's. What does not fit into its queue is dropped and counted.

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, Span};

use crate::message::{Claim, Header, Message};

/// How often what has gathered is sent, and how long the collector may take over it.
const EVERY: Duration = Duration::from_secs(1);
const COLLECTOR_TIME: Duration = Duration::from_secs(5);
/// Spans that may wait to be sent; more are dropped.
const MOST_WAITING: usize = 4096;
const TRACEPARENT: &str = "traceparent";

pub(super) struct Spans {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The acceptance of a message; ends when it is dropped.
pub(crate) struct Accepting {
    _span: Span,
}

/// The span of an attempt; ends when it is dropped.
pub(super) struct AttemptSpan(Span);

impl Spans {
    pub(super) fn new(collector: &str) -> anyhow::Result<Self> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{}/v1/traces", collector.trim_end_matches('/')))
            .with_protocol(Protocol::HttpJson)
            .with_timeout(COLLECTOR_TIME)
            .build()
            .context("cannot send spans to [telemetry] otlp")?;
        let batches = BatchConfigBuilder::default().with_max_queue_size(MOST_WAITING).with_scheduled_delay(EVERY);
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches.build()).build();
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name("semel").with_attribute(version).build();
        let provider = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build();
        let tracer = provider.tracer("semel");
        Ok(Self { provider, tracer })
    }

    /// See [`super::Watch::accepting`].
    pub(super) fn accepting(&self, function: &str, headers: &mut Vec<Header>) -> Option<Accepting> {
        if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT)) {
            return None;
        }
        let function = KeyValue::new("semel.function", function.to_owned());
        let builder = SpanBuilder::from_name("accept").with_kind(SpanKind::Producer).with_attributes([function]);
        let span = self.tracer.build_with_context(builder, &Context::new());
        let own = span.span_context();
        let flags = own.trace_flags().to_u8();
        headers.push((TRACEPARENT.into(), format!("00-{}-{}-{flags:02x}", own.trace_id(), own.span_id())));
        Some(Accepting { _span: span })
    }

    pub(super) fn attempt(&self, claim: &Claim, message: &Message, label: String) -> AttemptSpan {
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(&message.headers));
        let request = parent.span().span_context().clone();
        let attributes = [
            KeyValue::new("semel.function", claim.function.clone()),
            KeyValue::new("semel.version", claim.version),
            KeyValue::new("semel.message.id", message.id.clone()),
            KeyValue::new("semel.attempt", i64::from(claim.attempt)),
            KeyValue::new("semel.contract", claim.contract.as_str()),
            KeyValue::new("semel.label", label),
        ];
        let builder = SpanBuilder::from_name(format!("attempt {}", claim.function))
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .with_links(link(request));
        AttemptSpan(self.tracer.build_with_context(builder, &parent))
    }

    pub(super) fn end(&self, within: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(within) {
            tracing::warn!(%error, "not all spans were sent");
        }
    }
}

fn link(request: SpanContext) -> Vec<Link> {
    if request.is_valid() { vec![Link::with_context(request)] } else { Vec::new() }
}

impl AttemptSpan {
    pub(super) fn end(mut self, outcome: &'static str, reason: &str, fuel: Option<u64>) {
        self.0.set_attribute(KeyValue::new("semel.outcome", outcome));
        if let Some(fuel) = fuel {
            self.0.set_attribute(KeyValue::new("semel.fuel", i64::try_from(fuel).unwrap_or(i64::MAX)));
        }
        self.0.set_status(if outcome == "completed" { Status::Ok } else { Status::error(reason.to_owned()) });
        self.0.end();
    }
}

/// A message's headers as the propagator reads them.
struct Headers<'a>(&'a [Header]);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}
