//! A session that messages of one commit hand on: their instances are made side by side, but each waits for its turn at the
//! transaction, in the order of the messages.

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::message::{Answer, Claim, Event, Usage};
use crate::store::{
    Bounds, Column, Commit, Error, Published, Rows, Savepoint, Session, SqlError, StateOp, StateReply, Value,
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

/// What a run of such a message is lent. Dropping it gives back what it holds.
pub(super) struct Turn {
    claim: Claim,
    held: Held,
    back: Option<oneshot::Sender<Held>>,
}

impl Turn {
    /// For one message, and where what it was lent comes back to.
    pub(super) fn lend(claim: &Claim, held: Held) -> (Box<dyn Session>, oneshot::Receiver<Held>) {
        let (back, returned) = oneshot::channel();
        (Box::new(Self { claim: claim.clone(), held, back: Some(back) }), returned)
    }

    fn session(&mut self) -> Result<&mut Box<dyn Session>, SqlError> {
        match &mut self.held {
            Held::Here(session) => Ok(session),
            Held::Before(_) | Held::Lost => Err(SqlError::Doomed("the transaction is not open".into())),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(back) = self.back.take() {
            let _ = back.send(std::mem::replace(&mut self.held, Held::Lost)); // Nobody asks for it: then it is over.
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
        self.session()?.query(sql, params, bounds).await
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
        if let Ok(session) = self.session() {
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
