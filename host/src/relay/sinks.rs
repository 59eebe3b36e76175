//! Events for sinks: each goes to its sink with the others that were claimed beside it.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Carried, Way};
use crate::message::{Claimed, Message, Outcome};
use crate::sink::{Outgoing, Sent, Sink};

/// How they leave.
pub(crate) struct Events {
    /// The sink's in the queue.
    pub(crate) function: String,
    pub(crate) sink: Arc<dyn Sink>,
}

#[async_trait]
impl Way for Events {
    fn function(&self) -> &str {
        &self.function
    }

    fn room(&self) -> (usize, usize) {
        self.sink.room()
    }

    async fn carry(&self, load: &[Claimed]) -> Vec<Carried> {
        let events: Vec<_> = load.iter().map(|one| outgoing(&one.message)).collect();
        let mut sent = self.sink.send(&events).await.into_iter();
        let carried: Vec<_> = events.iter().map(|_| sent.next().map_or_else(forgotten, carried)).collect();
        let taken = events.iter().zip(&carried).filter(|(_, one)| matches!(one.outcome, Outcome::Completed(_)));
        let taken = taken.map(|(event, _)| event.id.as_str()).collect::<Vec<_>>();
        if !taken.is_empty() {
            tracing::info!(sink = self.function, "Published messages: [{}]", taken.join(" "));
        }
        carried
    }
}

fn outgoing(message: &Message) -> Outgoing {
    Outgoing {
        id: message.event.clone(),
        topic: message.topic.clone(),
        group: message.group.clone(),
        time: message.accepted_at,
        content_type: message.content_type.clone(),
        headers: message.headers.clone(),
        body: message.body.clone(),
    }
}

fn carried(sent: Sent) -> Carried {
    let closed = matches!(sent, Sent::Closed(_));
    let outcome = match sent {
        Sent::Taken => Outcome::Completed(None),
        Sent::Again { reason, after } => Outcome::Failed { reason, delay: after },
        Sent::Closed(reason) => Outcome::Failed { reason, delay: None },
        Sent::Never(reason) => Outcome::Refused(reason),
    };
    Carried { closed, ..Carried::new(outcome) }
}

fn forgotten() -> Carried {
    carried(Sent::Again { reason: "the sink said nothing about it".into(), after: None })
}
