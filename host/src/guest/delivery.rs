//! `delivery`: facts about this attempt, which may differ on the next.

use std::time::Instant;

use super::bindings::semel::function::delivery as wit;
use super::{Times, View};

pub(crate) struct Delivery {
    attempt: u32,
    max_attempts: u32,
    times: Times,
}

impl Delivery {
    pub(crate) fn new(attempt: u32, max_attempts: u32, times: Times) -> Self {
        Self { attempt, max_attempts, times }
    }
}

impl wit::Host for View<'_, Delivery> {
    async fn attempt(&mut self) -> wasmtime::Result<u32> {
        Ok(self.own.attempt)
    }

    async fn max_attempts(&mut self) -> wasmtime::Result<u32> {
        Ok(self.own.max_attempts)
    }

    async fn remaining(&mut self) -> wasmtime::Result<u64> {
        let left = self.transaction.deadline().saturating_duration_since(Instant::now());
        Ok(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    }

    async fn now(&mut self) -> wasmtime::Result<i64> {
        Ok(self.own.times.now().0)
    }
}
