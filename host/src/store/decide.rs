//! What becomes of events that are to be accepted, once it is known whom they are for and what their keys stand for. Pure.

use std::collections::HashMap;

use super::{Accept, Enqueued, Key, Target};
use crate::message::{Event, State, message_id};

/// Whom events are for.
pub(super) struct Targets {
    /// Functions that are deployed, and how many more messages each may have.
    pub(super) room: HashMap<String, Option<i64>>,
    /// By topic.
    pub(super) subscribers: HashMap<String, Vec<String>>,
}

/// A key in the scope of its function.
pub(super) type Scoped = (String, String);

/// What a key stands for.
pub(super) struct Standing {
    pub(super) fingerprint: Vec<u8>,
    pub(super) message: String,
    pub(super) ended_as: Option<State>,
}

impl Standing {
    fn answer(&self, key: &Key) -> Enqueued {
        if self.fingerprint != key.fingerprint {
            return Enqueued::KeyReused;
        }
        Enqueued::Duplicate { id: self.message.clone(), ended_as: self.ended_as }
    }
}

/// What is to become of each event.
#[derive(Default)]
pub(super) struct Decided<'e> {
    pub(super) answers: Vec<Enqueued>,
    /// Of each message its event and its function, in order.
    pub(super) messages: Vec<(&'e Event, String)>,
    /// Keys that were taken for messages that find no room.
    pub(super) unused: Vec<Scoped>,
}

/// The keys that count, each with the first event that has it.
pub(super) fn wanted<'e>(list: &'e [Accept], targets: &Targets) -> HashMap<Scoped, (&'e Key, &'e Event)> {
    let mut wanted = HashMap::new();
    for Accept { event, target, key } in list {
        let scope = match target {
            Target::Function(name) => targets.room.contains_key(name).then_some(name),
            Target::Inbox(source) => targets.subscribers.contains_key(&event.topic).then_some(source),
            Target::Subscribers => None,
        };
        if let (Some(scope), Some(key)) = (scope, key) {
            wanted.entry((scope.clone(), key.key.clone())).or_insert((key, event));
        }
    }
    wanted
}

/// One after another: each counts for those after it, against the backlog and by its key.
pub(super) fn decide(list: &[Accept], mut targets: Targets, mut known: HashMap<Scoped, Standing>) -> Decided<'_> {
    let mut decided = Decided::default();
    for Accept { event, target, key } in list {
        let answer = match target {
            Target::Subscribers => match targets.subscribers.get(&event.topic) {
                Some(functions) => {
                    // No backlog keeps them out, but they count.
                    for name in functions {
                        targets.room.entry(name.clone()).and_modify(take_one);
                    }
                    Enqueued::Accepted(functions.iter().map(|name| decided.insert(event, name)).collect())
                }
                None => Enqueued::NoTarget,
            },
            Target::Function(name) => match targets.room.get_mut(name) {
                Some(room) => decided.single(event, name, key.as_ref(), room, &mut known),
                None => Enqueued::NoTarget,
            },
            Target::Inbox(source) => match targets.subscribers.get(&event.topic) {
                Some(functions) => {
                    decided.received(event, source, key.as_ref(), functions, &mut targets.room, &mut known)
                }
                None => Enqueued::NoTarget,
            },
        };
        decided.answers.push(answer);
    }
    decided
}

fn take_one(room: &mut Option<i64>) {
    *room = room.map(|room| room - 1);
}

impl<'e> Decided<'e> {
    fn single(
        &mut self,
        event: &'e Event,
        name: &str,
        key: Option<&Key>,
        room: &mut Option<i64>,
        known: &mut HashMap<Scoped, Standing>,
    ) -> Enqueued {
        let key = key.map(|key| ((name.to_owned(), key.key.clone()), key));
        if let Some((scoped, key)) = &key
            && let Some(standing) = known.get(scoped)
        {
            return standing.answer(key);
        }
        if room.is_some_and(|room| room <= 0) {
            self.unused.extend(key.map(|(scoped, _)| scoped));
            return Enqueued::BacklogFull;
        }
        take_one(room);
        let message = self.insert(event, name);
        if let Some((scoped, key)) = key {
            let fingerprint = key.fingerprint.clone();
            known.insert(scoped, Standing { fingerprint, message: message.clone(), ended_as: None });
        }
        Enqueued::Accepted(vec![message])
    }

    fn received(
        &mut self,
        event: &'e Event,
        source: &str,
        key: Option<&Key>,
        functions: &[String],
        room: &mut HashMap<String, Option<i64>>,
        known: &mut HashMap<Scoped, Standing>,
    ) -> Enqueued {
        let key = key.map(|key| ((source.to_owned(), key.key.clone()), key));
        if let Some((scoped, key)) = &key
            && let Some(standing) = known.get(scoped)
        {
            return standing.answer(key);
        }
        if functions.iter().any(|name| room.get(name).is_some_and(|room| room.is_some_and(|room| room <= 0))) {
            self.unused.extend(key.map(|(scoped, _)| scoped));
            return Enqueued::BacklogFull;
        }
        for name in functions {
            room.entry(name.clone()).and_modify(take_one);
        }
        if let Some((scoped, key)) = key {
            let (fingerprint, message) = (key.fingerprint.clone(), message_id(&event.id, source));
            known.insert(scoped, Standing { fingerprint, message, ended_as: None });
        }
        Enqueued::Accepted(functions.iter().map(|name| self.insert(event, name)).collect())
    }

    /// Returns the message's id.
    fn insert(&mut self, event: &'e Event, function: &str) -> String {
        self.messages.push((event, function.to_owned()));
        message_id(&event.id, function)
    }
}
