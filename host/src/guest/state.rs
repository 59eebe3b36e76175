//! `state`: bytes by key, in the transaction of the current message. Each function has a namespace of its own.

use super::View;
use super::bindings::semel::function::state as wit;
use crate::engine::limits::{KEY_BYTES, MOST_ENTRIES, VALUE_BYTES, WRITTEN_BYTES};
use crate::store::{StateOp, StateReply};

pub(crate) struct Keyspace {
    namespace: String,
    /// Bytes of the values that were set.
    written: usize,
}

impl Keyspace {
    pub(crate) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), written: 0 }
    }
}

fn check(key: &str) -> Result<(), wit::Error> {
    if key.is_empty() || key.len() > KEY_BYTES || key.contains('\0') { Err(wit::Error::InvalidKey) } else { Ok(()) }
}

impl View<'_, Keyspace> {
    async fn ask(&mut self, key: &str, op: StateOp) -> wasmtime::Result<Result<StateReply, wit::Error>> {
        if let Err(error) = check(key) {
            return Ok(Err(error));
        }
        let namespace = self.own.namespace.clone();
        Ok(self.transaction.state(&namespace, op).await?.ok_or(wit::Error::Failed))
    }
}

impl wit::Host for View<'_, Keyspace> {
    async fn get(&mut self, key: String, lock: bool) -> wasmtime::Result<Result<Option<Vec<u8>>, wit::Error>> {
        let _ = lock; // The embedded database has one writer: whoever is in holds the lock.
        Ok(self.ask(&key.clone(), StateOp::Get { key }).await?.map(|reply| match reply {
            StateReply::Value(value) => value,
            _ => None,
        }))
    }

    async fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), wit::Error>> {
        let most = VALUE_BYTES.min(WRITTEN_BYTES - self.own.written);
        if value.len() > most {
            return Ok(Err(wit::Error::TooLarge(most as u64)));
        }
        self.own.written += value.len();
        Ok(self.ask(&key.clone(), StateOp::Set { key, value }).await?.map(|_| ()))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<bool, wit::Error>> {
        Ok(self
            .ask(&key.clone(), StateOp::Delete { key })
            .await?
            .map(|reply| matches!(reply, StateReply::Deleted(true))))
    }

    async fn add(&mut self, key: String, delta: i64) -> wasmtime::Result<Result<i64, wit::Error>> {
        Ok(self.ask(&key.clone(), StateOp::Add { key, delta }).await?.and_then(|reply| match reply {
            StateReply::Sum(sum) => Ok(sum),
            _ => Err(wit::Error::NotACounter),
        }))
    }

    async fn scan(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<wit::Entry>, wit::Error>> {
        if prefix.len().max(after.as_ref().map_or(0, String::len)) > KEY_BYTES {
            return Ok(Err(wit::Error::InvalidKey));
        }
        let op = StateOp::Scan { prefix, after, limit: limit.min(MOST_ENTRIES) };
        Ok(self.ask("scan", op).await?.map(|reply| match reply {
            StateReply::Entries(entries) => entries.into_iter().map(|(key, value)| wit::Entry { key, value }).collect(),
            _ => Vec::new(),
        }))
    }
}
