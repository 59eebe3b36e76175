//! Claims that run in this process and have a session: whom to end when one is cancelled or stands still.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::{AssertSqlSafe, Executor};

use super::connection::Engine;
use super::{Error, classify, errors};
use crate::message::Claim;

/// There is no such session (any more).
const NO_SESSION: u16 = 1094;
/// This login may not end other logins' sessions.
const NOT_OURS: [u16; 2] = [1095, 1227];

/// `seq` and fence of a claim.
pub(super) type Key = (i64, i64);

pub(super) fn key(claim: &Claim) -> Key {
    (claim.seq, claim.fence)
}

#[derive(Default)]
pub(super) struct Running {
    claims: Mutex<HashMap<Key, Entry>>,
}

/// A session as the server knows it: its number, which no other one has as long as the server is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) process: u64,
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

/// Ends the statement that a session is in.
pub(super) async fn cancel(engine: &Engine, backend: Backend) -> Result<(), Error> {
    kill(engine, format!("KILL QUERY {}", backend.process)).await
}

/// Ends a session, if it is still there.
pub(super) async fn terminate(engine: &Engine, backend: Backend) -> Result<(), Error> {
    kill(engine, format!("KILL CONNECTION {}", backend.process)).await
}

async fn kill(engine: &Engine, kill: String) -> Result<(), Error> {
    let kill = engine.run(|connection| {
        Box::pin(async move {
            match connection.execute(AssertSqlSafe(kill)).await {
                Err(error) if errors::code(&error).is_some_and(|code| NOT_OURS.contains(&code)) => {
                    tracing::warn!(
                        "the engine's login may not end sessions of guests (CONNECTION ADMIN): they end by themselves when \
                         they stand still"
                    );
                    Ok(())
                }
                Err(error) if errors::code(&error) != Some(NO_SESSION) => Err(classify(error)),
                _ => Ok(()),
            }
        })
    });
    kill.await
}
