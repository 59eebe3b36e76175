//! What may be watched from outside: numbers for Prometheus, and spans for an OpenTelemetry collector.
//!
//! Nothing here decides anything, and nothing waits for it: a collector that is slow or gone costs spans, not messages.

use std::sync::Arc;
use std::time::Duration;

use crate::message::{Claim, Header, Message};

pub(crate) mod metrics;
mod spans;
mod standing;
pub(crate) mod system;

use metrics::Metrics;
pub(crate) use spans::Accepting;
use spans::{AttemptSpan, Spans};
pub(crate) use standing::{Standing, Standings};

/// All that is watched.
pub(crate) struct Watch {
    pub(crate) metrics: Metrics,
    pub(crate) standings: Standings,
    /// None: nobody wants spans.
    spans: Option<Spans>,
}

impl Watch {
    /// Numbers, and spans if there is a collector to send them to.
    ///
    /// # Errors
    /// If nothing can be sent to this URL.
    pub(crate) fn new(otlp: Option<&str>) -> anyhow::Result<Arc<Self>> {
        let spans = otlp.map(Spans::new).transpose()?;
        Ok(Arc::new(Self { metrics: Metrics::new(), standings: Standings::default(), spans }))
    }

    /// A message is being accepted. Where spans are sent and the sender names none, `headers` get the `traceparent` of
    /// a span that ends with what is returned.
    pub(crate) fn accepting(&self, function: &str, headers: &mut Vec<Header>) -> Option<Accepting> {
        self.spans.as_ref()?.accepting(function, headers)
    }

    /// A claimed message is about to run.
    pub(crate) fn attempt(self: &Arc<Self>, claim: &Claim, message: &Message, label: String) -> Attempt {
        self.metrics.begun(&claim.function);
        let span = self.spans.as_ref().map(|spans| spans.attempt(claim, message, label));
        let (function, message, number) = (claim.function.clone(), message.id.clone(), claim.attempt);
        Attempt { watch: Arc::clone(self), function, message, number, span }
    }

    /// Sends what was not sent yet, within this time.
    pub(crate) async fn end(self: Arc<Self>, within: Duration) {
        // On a thread of its own, since it blocks.
        let _ = tokio::task::spawn_blocking(move || self.spans.as_ref().map(|spans| spans.end(within))).await;
    }
}

/// One attempt that is being watched, until it is dropped.
pub(crate) struct Attempt {
    watch: Arc<Watch>,
    function: String,
    message: String,
    number: u32,
    span: Option<AttemptSpan>,
}

impl Attempt {
    /// The guest is done, for better or worse.
    pub(crate) fn ran(&self, time: Duration) {
        self.watch.metrics.ran(&self.function, time);
    }

    /// How it ended: the outcome's name, what is said about it, and the fuel.
    pub(crate) fn ended(&mut self, outcome: &'static str, reason: &str, fuel: Option<u64>) {
        self.watch.metrics.ended(&self.function, outcome);
        tracing::debug!(
            function = self.function,
            message = self.message,
            attempt = self.number,
            outcome,
            %reason,
            "an attempt ended"
        );
        if let Some(span) = self.span.take() {
            span.end(outcome, reason, fuel);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.watch.metrics.over(&self.function);
    }
}
