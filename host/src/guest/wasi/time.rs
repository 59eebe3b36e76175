//! `wasi:clocks`: the wall clock stands at the time when the message was accepted; the other one moves with what the guest
//! asks of it, by the same steps on every attempt.
//!
//! Sleeping takes real time, and then the clock has moved by as much as was slept: a loop that waits for the clock ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use crate::clock::Timestamp;

/// What each look at the monotonic clock adds, in nanoseconds, and how fine it is.
const STEP: u64 = 1_000;

/// Nanoseconds since the start.
#[derive(Clone, Default)]
pub(super) struct Monotonic(Arc<AtomicU64>);

pub(super) struct Clocks<'a> {
    pub(super) accepted_at: Timestamp,
    pub(super) monotonic: &'a Monotonic,
    pub(super) table: &'a mut ResourceTable,
}

impl HasData for Clocks<'static> {
    type Data<'a> = Clocks<'a>;
}

impl wall_clock::Host for Clocks<'_> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let micros = u64::try_from(self.accepted_at.0).unwrap_or(0);
        let nanoseconds = u32::try_from(micros % 1_000_000 * 1_000)?;
        Ok(wall_clock::Datetime { seconds: micros / 1_000_000, nanoseconds })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000 })
    }
}

impl monotonic_clock::Host for Clocks<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.monotonic.0.fetch_add(STEP, Ordering::Relaxed))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(STEP)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let left = when.saturating_sub(self.monotonic.0.load(Ordering::Relaxed));
        let timer = Timer {
            due: when,
            // None is so far away that no run lives to see it.
            real: tokio::time::Instant::now().checked_add(Duration::from_nanos(left)),
            clock: self.monotonic.clone(),
        };
        let timer = self.table.push(timer)?;
        subscribe(self.table, timer)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let now = self.monotonic.0.load(Ordering::Relaxed);
        self.subscribe_instant(now.saturating_add(duration))
    }
}

/// Ready at its time, to which the clock has moved by then.
struct Timer {
    due: u64,
    real: Option<tokio::time::Instant>,
    clock: Monotonic,
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        match self.real {
            Some(real) => tokio::time::sleep_until(real).await,
            None => std::future::pending().await,
        }
        self.clock.0.fetch_max(self.due, Ordering::Relaxed);
    }
}
