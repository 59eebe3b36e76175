//! Dead letters of a source: what it received and could not hand over. Whoever redrives one has it handed over once more.

use async_trait::async_trait;

use super::{Carried, Way};
use crate::inbox::WHY;
use crate::message::{Claimed, Event, Message, Outcome, published_event_id};

/// How they leave.
pub(crate) struct Letters {
    /// The source's in the queue.
    pub(crate) function: String,
    /// Where it hands over.
    pub(crate) topic: String,
    /// Bytes of a body.
    pub(crate) largest: usize,
}

#[async_trait]
impl Way for Letters {
    fn function(&self) -> &str {
        &self.function
    }

    fn room(&self) -> (usize, usize) {
        (1, 1)
    }

    async fn carry(&self, load: &[Claimed]) -> Vec<Carried> {
        load.iter().map(|one| self.hand_over(one.claim.attempts_before > 0, &one.message)).collect()
    }
}

impl Letters {
    /// The first time it is only filed.
    fn hand_over(&self, redriven: bool, message: &Message) -> Carried {
        let why = message.headers.iter().find(|(name, _)| name == WHY).map_or("unknown", |(_, why)| why.as_str());
        if !redriven {
            return Carried::new(Outcome::Refused(why.to_owned()));
        }
        if message.body.len() > self.largest {
            let why = format!("the body has {} bytes; [limits] body allows {}", message.body.len(), self.largest);
            return Carried::new(Outcome::Refused(why));
        }
        let event = Event {
            id: published_event_id(&message.id, 0),
            topic: self.topic.clone(),
            group: message.group.clone(),
            content_type: message.content_type.clone(),
            headers: message.headers.iter().filter(|(name, _)| name != WHY).cloned().collect(),
            body: message.body.clone(),
            ..Event::default()
        };
        Carried { publishes: Some(event), needed: true, ..Carried::new(Outcome::Completed(None)) }
    }
}
