//! The way in for what sources receive: each message once, in the commit that puts it into the queue.
//!
//! Before it: [`crate::source`] received. After it: [`crate::store`] has it for every function and sink that subscribes to the
//! source's topic. What cannot be handed over as it is becomes a dead letter, with the reason, and is out of the others' way.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use crate::bell::Bell;
use crate::message::{Event, Header};
use crate::source::{Delivery, Intake};
use crate::store::{Accept, Enqueued, Error, Key, Remember, Store, Target};
use crate::watch::Watch;

/// Between two tries, while nothing can be taken.
const PAUSE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// Longest id that is kept as it is, in bytes.
const ID: usize = 255;
/// Longest group, in bytes: as over HTTP.
const GROUP: usize = 255;
/// All headers together, in bytes: as over HTTP.
const HEADERS: usize = 64 << 10;
/// Says why a message is a dead letter.
pub(crate) const WHY: &str = "semel-dead-letter";

pub(crate) struct Inbox {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) stop: watch::Receiver<bool>,
    /// The source's in the queue, and its name.
    pub(crate) function: String,
    pub(crate) name: String,
    pub(crate) topic: String,
    /// The deduplication window.
    pub(crate) window: Duration,
    /// Bytes of a body.
    pub(crate) largest: usize,
}

/// What is still to be done with a delivery.
#[derive(Clone)]
struct Pending {
    accept: Accept,
    delivery: Delivery,
}

#[async_trait]
impl Intake for Inbox {
    async fn take(&self, deliveries: Vec<Delivery>) -> bool {
        let mut pending: Vec<_> = deliveries.into_iter().map(|delivery| self.pending(delivery)).collect();
        let (mut stop, mut pause) = (self.stop.clone(), PAUSE[0]);
        while !pending.is_empty() {
            let before = pending.len();
            let trouble;
            (pending, trouble) = self.step(pending).await;
            if pending.len() < before {
                self.bell.ring();
                pause = PAUSE[0];
            }
            if pending.is_empty() {
                self.stands(None);
                break;
            }
            if let Some(trouble) = trouble {
                self.stands(Some(trouble));
                if *stop.borrow() {
                    return false;
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.changed() => {}
                }
                pause = (pause * 2).min(PAUSE[1]);
            }
        }
        true
    }

    fn stands(&self, trouble: Option<String>) {
        self.watch.standings.set(&self.function, trouble);
    }
}

impl Inbox {
    fn pending(&self, delivery: Delivery) -> Pending {
        let why = self.check(&delivery).err();
        Pending { accept: why.map_or_else(|| self.event(&delivery), |why| self.letter(&delivery, &why)), delivery }
    }

    /// Hands over what it can. Returns what is left, and why that has to wait.
    async fn step(&self, pending: Vec<Pending>) -> (Vec<Pending>, Option<String>) {
        let list: Vec<_> = pending.iter().map(|one| one.accept.clone()).collect();
        match self.store.enqueue_all(list.into()).await {
            Ok(answers) => {
                let mut trouble = None;
                let left = pending.into_iter().zip(answers).filter_map(|(mut one, answer)| {
                    match answer {
                        Enqueued::Accepted(_) | Enqueued::Duplicate { .. } => return None,
                        Enqueued::NoTarget => {
                            let why = "no function and no sink subscribes to the topic";
                            trouble = Some(format!("{why} \"{}\": what comes in waits at the broker", self.topic));
                        }
                        Enqueued::BacklogFull => {
                            trouble = Some(format!("a backlog behind the topic \"{}\" is full", self.topic));
                        }
                        Enqueued::KeyReused => {
                            let why = format!("its id {} was used for another message before", one.delivery.id);
                            one.accept = self.letter(&one.delivery, &why);
                        }
                    }
                    Some(one)
                });
                (left.collect(), trouble)
            }
            // The database takes the others: this one it never will.
            Err(error @ (Error::Busy(_) | Error::Unavailable(_))) => (pending, Some(unavailable(&error))),
            Err(error) if pending.len() == 1 && matches!(pending[0].accept.target, Target::Inbox(_)) => {
                tracing::error!(%error, source = self.name, "the database does not take a message");
                let left = pending.into_iter().map(|one| {
                    let accept = self.letter(&one.delivery, "the database does not take it");
                    Pending { accept, ..one }
                });
                (left.collect(), None)
            }
            Err(error) if pending.len() == 1 => (pending, Some(unavailable(&error))),
            Err(_) => {
                // Which of them it is, each shows by itself; in order, so none comes before those it follows.
                let (mut left, mut trouble) = (Vec::new(), None);
                for one in pending {
                    if left.is_empty() {
                        (left, trouble) = Box::pin(self.step(vec![one])).await;
                    } else {
                        left.push(one);
                    }
                }
                (left, trouble)
            }
        }
    }

    fn check(&self, delivery: &Delivery) -> Result<(), String> {
        let Delivery { group, content_type, headers, body, .. } = delivery;
        if body.len() > self.largest {
            return Err(format!("the body has {} bytes; [limits] body allows {}", body.len(), self.largest));
        }
        if group.as_ref().is_some_and(|group| group.is_empty() || group.len() > GROUP) {
            return Err(format!("a group has 1 to {GROUP} bytes"));
        }
        let size: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > HEADERS {
            return Err(format!("the headers have {size} bytes; {HEADERS} are allowed"));
        }
        let texts = headers.iter().flat_map(|(name, value)| [name, value]).chain(group).chain(content_type);
        if texts.into_iter().any(|text| text.contains('\0')) {
            return Err("a header holds a NUL character".into());
        }
        Ok(())
    }

    fn event(&self, delivery: &Delivery) -> Accept {
        let Delivery { id, group, content_type, headers, body } = delivery;
        let mut headers: Vec<Header> =
            headers.iter().filter(|(name, _)| !name.starts_with("semel-")).cloned().collect();
        headers.push(("semel-source".into(), self.name.clone()));
        headers.push(("semel-source-id".into(), shown(id)));
        let key = Key { key: kept(id), fingerprint: fingerprint(delivery), remember: Remember::For(self.window) };
        let event = Event {
            id: Uuid::now_v7().simple().to_string(),
            topic: self.topic.clone(),
            group: group.clone(),
            content_type: content_type.clone(),
            headers,
            body: body.clone(),
            ..Event::default()
        };
        Accept { event, target: Target::Inbox(self.function.clone()), key: Some(key) }
    }

    /// As [`crate::relay`] takes it: what was delivered again is the same letter.
    fn letter(&self, delivery: &Delivery, why: &str) -> Accept {
        let text = |text: &str| text.replace('\0', "\u{fffd}");
        let mut headers: Vec<Header> = delivery.headers.iter().map(|(name, value)| (text(name), text(value))).collect();
        headers.push(("semel-source-id".into(), shown(&delivery.id)));
        headers.push((WHY.into(), why.to_owned()));
        let fingerprint = fingerprint(delivery);
        let key = format!("letter {} {}", hex::encode(&fingerprint[..16]), kept(&delivery.id));
        let event = Event {
            id: Uuid::now_v7().simple().to_string(),
            topic: self.function.clone(),
            content_type: delivery.content_type.as_deref().map(text),
            headers,
            body: delivery.body.clone(),
            ..Event::default()
        };
        let key = Key { key, fingerprint, remember: Remember::For(self.window) };
        Accept { event, target: Target::Function(self.function.clone()), key: Some(key) }
    }
}

fn unavailable(error: &Error) -> String {
    tracing::error!(%error, "what a source received cannot be taken");
    "the database takes nothing now".into()
}

/// An id as a key: itself, or its SHA-256 if it is too long or no text.
fn kept(id: &str) -> String {
    if id.len() <= ID && !id.contains('\0') { id.to_owned() } else { hex::encode(Sha256::digest(id)) }
}

fn shown(id: &str) -> String {
    id.chars().filter(|c| !c.is_control()).take(ID).collect()
}

/// What "the same message" means: what it says, and for whom.
fn fingerprint(Delivery { group, content_type, body, .. }: &Delivery) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in
        [group.as_deref().unwrap_or_default().as_bytes(), content_type.as_deref().unwrap_or_default().as_bytes(), body]
    {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}
