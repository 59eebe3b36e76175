//! A session that messages of one commit hand on: their instances are made side by side, but each waits for its turn at the
//! transaction, in the order of the messages.
//!
//! Where it can be told how many calls a message makes, its turn ends when the last of them was sent: what the next message
//! asks then travels behind it. If the message asks for more after all, or anything fails, all of them have run for nothing.

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::message::{Answer, Claim, Event, Usage};
use crate::store::{
    Answered, Bounds, Column, Commit, Error, Published, Rows, Savepoint, Session, SqlError, StateOp, StateReply, Value,
    Wanted,
};

/// Where the session is.
pub(super) enum Held {
    /// With the message before, which sends it when its part is done.
    Before(oneshot::Receiver<Box<dyn Session>>),
    Here(Box<dyn Session>),
    /// The message before ended badly.
    Lost,
}

impl Held {
    /// Waits for the session; from then on it works for this claim.
    pub(super) async fn take(self, claim: &Claim) -> Option<Box<dyn Session>> {
        match self {
            Self::Before(coming) => {
                let mut session = coming.await.ok()?;
                session.enter(claim);
                Some(session)
            }
            Self::Here(session) => Some(session),
            Self::Lost => None,
        }
    }
}

/// Whom the session goes to.
pub(super) type Next = oneshot::Sender<Box<dyn Session>>;

/// What a run of such a message is lent. Dropping it gives back what it holds.
pub(super) struct Turn {
    claim: Claim,
    held: Held,
    /// Calls that it has made, and those that it is expected to make.
    calls: u32,
    expected: Option<u32>,
    /// None once the session was handed on.
    next: Option<Next>,
    back: Option<oneshot::Sender<Returned>>,
}

/// What is left of a turn.
pub(super) struct Returned {
    pub(super) held: Held,
    /// None if the session was handed on.
    pub(super) next: Option<Next>,
    pub(super) calls: u32,
    /// More of them than were expected.
    pub(super) too_many: bool,
}

impl Turn {
    /// For one message, and where what it was lent comes back to.
    pub(super) fn lend(
        claim: &Claim,
        held: Held,
        next: Next,
        expected: Option<u32>,
    ) -> (Box<dyn Session>, oneshot::Receiver<Returned>) {
        let (back, returned) = oneshot::channel();
        (
            Box::new(Self { claim: claim.clone(), held, calls: 0, expected, next: Some(next), back: Some(back) }),
            returned,
        )
    }

    /// The session, for one more call.
    fn session(&mut self) -> Result<&mut Box<dyn Session>, SqlError> {
        self.calls = self.calls.saturating_add(1);
        match &mut self.held {
            Held::Here(session) => Ok(session),
            Held::Before(_) | Held::Lost => Err(SqlError::Doomed("the transaction is not open".into())),
        }
    }

    /// Whether the next call is expected to be the last one, and the one after it need not wait for its answer.
    fn is_last(&self) -> bool {
        matches!(self.held, Held::Here(_)) && self.expected == Some(self.calls.saturating_add(1))
    }

    fn hand_on(&mut self) {
        if let (Held::Here(session), Some(next)) = (std::mem::replace(&mut self.held, Held::Lost), self.next.take()) {
            let _ = next.send(session); // Nobody comes next: then the session waits for the commit.
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(back) = self.back.take() {
            let (held, next) = (std::mem::replace(&mut self.held, Held::Lost), self.next.take());
            let too_many = self.expected.is_some_and(|expected| expected < self.calls);
            let _ = back.send(Returned { held, next, calls: self.calls, too_many }); // Nobody asks for it: then it is over.
        }
    }
}

#[async_trait]
impl Session for Turn {
    fn enter(&mut self, _: &Claim) {}

    /// Waits for the message before. If that ended badly, nobody needs to hear of it: every call after this says so.
    async fn open(&mut self) -> Result<(), Error> {
        let held = std::mem::replace(&mut self.held, Held::Lost);
        let Some(mut session) = held.take(&self.claim).await else { return Ok(()) };
        let opened = session.open().await;
        self.held = Held::Here(session);
        opened
    }

    async fn query(&mut self, sql: String, params: Vec<Value>, bounds: Bounds) -> Result<Rows, SqlError> {
        if self.is_last() {
            return self.send(sql, params, bounds, Wanted::Rows).await?.await;
        }
        self.session()?.query(sql, params, bounds).await
    }

    async fn send(
        &mut self,
        sql: String,
        params: Vec<Value>,
        bounds: Bounds,
        wanted: Wanted,
    ) -> Result<Answered, SqlError> {
        let last = self.is_last();
        let sent = self.session()?.send(sql, params, bounds, wanted).await;
        if last && sent.is_ok() {
            self.hand_on();
        }
        sent
    }

    async fn open_cursor(
        &mut self,
        sql: String,
        params: Vec<Value>,
        bounds: Bounds,
    ) -> Result<(u32, Vec<Column>), SqlError> {
        self.session()?.open_cursor(sql, params, bounds).await
    }

    async fn fetch(&mut self, cursor: u32, bounds: Bounds) -> Result<Vec<Vec<Value>>, SqlError> {
        self.session()?.fetch(cursor, bounds).await
    }

    async fn close_cursor(&mut self, cursor: u32) {
        if let Held::Here(session) = &mut self.held {
            session.close_cursor(cursor).await;
        }
    }

    async fn savepoint(&mut self, step: Savepoint) -> Result<(), SqlError> {
        self.session()?.savepoint(step).await
    }

    async fn state(&mut self, namespace: String, op: StateOp) -> Result<StateReply, SqlError> {
        self.session()?.state(namespace, op).await
    }

    async fn publish(&mut self, events: Vec<Event>) -> Result<Published, SqlError> {
        self.session()?.publish(events).await
    }

    /// Left and settled is the session itself, by whoever lent it.
    fn leave(&mut self, _: Option<Answer>, _: Usage) {}

    async fn commit(self: Box<Self>) -> Commit {
        Commit::RolledBack
    }

    async fn rollback(self: Box<Self>) {}
}
