//! Claims that run in this process and have a session: whom to end when one is cancelled or stands still.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::connection::Engine;
use super::{Error, classify};
use crate::message::Claim;

const CANCEL: &str = "SELECT pg_cancel_backend($1)";
const TERMINATE: &str = "SELECT pg_terminate_backend($1)";
const END: &str = include_str!("resolve_end.sql");

/// `seq` and fence of a claim.
pub(super) type Key = (i64, i64);

pub(super) fn key(claim: &Claim) -> Key {
    (claim.seq, claim.fence)
}

#[derive(Default)]
pub(super) struct Running {
    claims: Mutex<HashMap<Key, Entry>>,
}

/// A session as the server knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backend {
    /// The server's process.
    pub(super) process: i32,
    /// The id of the transaction that it is in.
    pub(super) transaction: i64,
}

#[derive(Default, Clone, Copy)]
struct Entry {
    backend: Option<Backend>,
    /// A person wants it to end.
    stopped: bool,
}

impl Running {
    fn claims(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, key: Key) {
        self.claims().insert(key, Entry::default());
    }

    pub(super) fn has_session(&self, key: Key, backend: Backend) {
        if let Some(entry) = self.claims().get_mut(&key) {
            entry.backend = Some(backend);
        }
    }

    pub(super) fn leave(&self, key: Key) {
        self.claims().remove(&key);
    }

    pub(super) fn backend(&self, key: Key) -> Option<Backend> {
        self.claims().get(&key).and_then(|entry| entry.backend)
    }

    pub(super) fn is_stopped(&self, key: Key) -> bool {
        self.claims().get(&key).is_some_and(|entry| entry.stopped)
    }

    /// No further statement begins. Returns the session that may be in one.
    pub(super) fn stop(&self, key: Key) -> Option<Backend> {
        let mut claims = self.claims();
        let entry = claims.get_mut(&key)?;
        entry.stopped = true;
        entry.backend
    }
}

/// Ends the statement that a session is in, as long as it does not catch that.
pub(super) async fn cancel(engine: &Engine, process: i32) -> Result<bool, Error> {
    signal(engine, CANCEL, process).await
}

/// Ends a session.
pub(super) async fn terminate(engine: &Engine, process: i32) -> Result<bool, Error> {
    signal(engine, TERMINATE, process).await
}

/// Ends a session that this host has lost, if it is still in that transaction: by now its process may be another's.
pub(super) async fn end(engine: &Engine, Backend { process, transaction }: Backend) -> Result<(), Error> {
    engine
        .run(move |connection| {
            Box::pin(async move {
                let end = sqlx::query(END).bind(process).bind(transaction);
                end.execute(connection).await.map(drop).map_err(classify)
            })
        })
        .await
}

async fn signal(engine: &Engine, sql: &'static str, process: i32) -> Result<bool, Error> {
    engine
        .run(move |connection| {
            Box::pin(async move { sqlx::query_scalar(sql).bind(process).fetch_one(connection).await.map_err(classify) })
        })
        .await
}
