//! `wasi:clocks`: the wall clock stands at the time when the message was accepted; the other one moves with what the guest
//! asks of it, by the same steps on every attempt.
//!
//! Sleeping takes real time, and then the clock has moved by as much as was slept: a loop that waits for the clock ends.
//! With `[grants] clock = "real"` both show what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use crate::clock::Timestamp;
use crate::guest::Times;

/// What each look at the pinned clock adds, in nanoseconds, and how fine it is.
const STEP: u64 = 1_000;

/// What a run sees of time.
#[derive(Clone)]
pub(super) enum Clock {
    /// The time of acceptance, and nanoseconds that move as they are asked for.
    Pinned(Timestamp, Arc<AtomicU64>),
    /// `[grants] clock = "real"`: the store's clock, and the time since the start.
    Real(Times),
}

impl Clock {
    fn wall(&self) -> Timestamp {
        match self {
            Self::Pinned(accepted_at, _) => *accepted_at,
            Self::Real(times) => times.now(),
        }
    }

    /// Nanoseconds since the start, moved on by a look at it.
    fn look(&self) -> u64 {
        match self {
            Self::Pinned(_, nanos) => nanos.fetch_add(STEP, Ordering::Relaxed),
            Self::Real(_) => self.elapsed(),
        }
    }

    fn elapsed(&self) -> u64 {
        match self {
            Self::Pinned(_, nanos) => nanos.load(Ordering::Relaxed),
            Self::Real(times) => u64::try_from(times.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// So much time has been slept.
    fn move_to(&self, due: u64) {
        if let Self::Pinned(_, nanos) = self {
            nanos.fetch_max(due, Ordering::Relaxed);
        }
    }
}

pub(super) struct Clocks<'a> {
    pub(super) clock: Clock,
    pub(super) table: &'a mut ResourceTable,
}

impl HasData for Clocks<'static> {
    type Data<'a> = Clocks<'a>;
}

impl wall_clock::Host for Clocks<'_> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let micros = u64::try_from(self.clock.wall().0).unwrap_or(0);
        let nanoseconds = u32::try_from(micros % 1_000_000 * 1_000)?;
        Ok(wall_clock::Datetime { seconds: micros / 1_000_000, nanoseconds })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000 })
    }
}

impl monotonic_clock::Host for Clocks<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.clock.look())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(STEP)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let left = when.saturating_sub(self.clock.elapsed());
        let timer = Timer {
            due: when,
            // None is so far away that no run lives to see it.
            real: tokio::time::Instant::now().checked_add(Duration::from_nanos(left)),
            clock: self.clock.clone(),
        };
        let timer = self.table.push(timer)?;
        subscribe(self.table, timer)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.subscribe_instant(self.clock.elapsed().saturating_add(duration))
    }
}

/// Ready at its time, to which the clock has moved by then.
struct Timer {
    due: u64,
    real: Option<tokio::time::Instant>,
    clock: Clock,
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        match self.real {
            Some(real) => tokio::time::sleep_until(real).await,
            None => std::future::pending().await,
        }
        self.clock.move_to(self.due);
    }
}
