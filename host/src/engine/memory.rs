//! What all runs together may hold: one budget for the process, from which each run takes and to which it gives back.
//!
//! A run takes [`RUN_BYTES`] before it begins, and waits until they are there and a quarter of all is left beside them: what
//! runs already grows into that. What an instance grows by is taken when it grows, and refused if it is not there: waiting
//! would hold the database. A [`Share`] gives everything back when it is dropped, however the run ends: by returning, by a
//! trap, by a panic, or by its future being dropped.

use std::sync::Arc;

use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore};
use wasmtime::ResourceLimiter;

use super::limits::{LARGEST_TABLE, MOST_INSTANCES, RUN_BYTES};

/// What is counted at once, in bytes.
const UNIT: u64 = 4 << 10;
/// What one element of a table takes, in bytes.
const ELEMENT: usize = 8;

/// What is left for all runs.
pub(super) struct Budget {
    units: Arc<Semaphore>,
    /// So many there are in all.
    all: u32,
    instances: Arc<Semaphore>,
    /// One waits for units at a time, and is told when some were given back. Who waited in the semaphore itself would keep them
    /// from those that grow.
    door: Mutex<()>,
    freed: Arc<Notify>,
}

/// What one run holds.
pub(crate) struct Share {
    units: Arc<Semaphore>,
    /// Until it is dropped.
    held: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
    /// Bytes that the instance has taken, of which `held` are the whole units.
    grown: u64,
    _instance: OwnedSemaphorePermit,
}

impl Budget {
    /// # Errors
    /// If so few bytes are not enough for one run.
    pub(super) fn new(bytes: u64) -> anyhow::Result<Self> {
        let least = RUN_BYTES + (8 << 20);
        anyhow::ensure!(bytes >= least, "[limits] memory must be at least {}MiB, enough for one run", least >> 20);
        let all = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
        Ok(Self {
            units: Arc::new(Semaphore::new(all as usize)),
            all,
            instances: Arc::new(Semaphore::new(MOST_INSTANCES as usize)),
            door: Mutex::new(()),
            freed: Arc::default(),
        })
    }

    /// Waits until there is room for a run of a message of so many bytes.
    pub(super) async fn enter(&self, message: usize) -> Share {
        let instance = Arc::clone(&self.instances).acquire_owned().await.expect("never closed");
        let _first = self.door.lock().await;
        loop {
            if let Some(held) = self.take(message) {
                return self.share(held, instance);
            }
            self.freed.notified().await;
        }
    }

    /// The same without waiting. None if there is no room, or others wait for it.
    pub(super) fn enter_now(&self, message: usize) -> Option<Share> {
        let instance = Arc::clone(&self.instances).try_acquire_owned().ok()?;
        let _first = self.door.try_lock().ok()?;
        Some(self.share(self.take(message)?, instance))
    }

    fn take(&self, message: usize) -> Option<OwnedSemaphorePermit> {
        // Twice: as it was claimed, and as it is handed over. One that is larger than everything runs alone.
        let taken = units(RUN_BYTES + 2 * message as u64).min(self.all);
        let enough = taken.saturating_add(self.all / 4).min(self.all) as usize;
        if self.units.available_permits() < enough {
            return None;
        }
        Arc::clone(&self.units).try_acquire_many_owned(taken).ok()
    }

    fn share(&self, held: OwnedSemaphorePermit, instance: OwnedSemaphorePermit) -> Share {
        let (units, freed) = (Arc::clone(&self.units), Arc::clone(&self.freed));
        Share { units, held: Some(held), freed, grown: 0, _instance: instance }
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl Share {
    /// Takes more, if it is there.
    fn grow(&mut self, bytes: usize) -> bool {
        let grown = self.grown.saturating_add(bytes as u64);
        let more = Arc::clone(&self.units).try_acquire_many_owned(units(grown) - units(self.grown));
        let (Ok(more), Some(held)) = (more, &mut self.held) else { return false };
        held.merge(more);
        self.grown = grown;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        drop(self.held.take());
        self.freed.notify_one();
    }
}

/// Counts what an instance takes, and remembers a refusal: the trap that follows it is "out of memory".
pub(crate) struct Limiter {
    /// In all memories of the instance together, in bytes.
    most: usize,
    taken: usize,
    share: Share,
    refused: Option<&'static str>,
}

impl Limiter {
    pub(crate) fn new(memory: u64, share: Share) -> Self {
        Self { most: usize::try_from(memory).unwrap_or(usize::MAX), taken: 0, share, refused: None }
    }

    /// Why the guest did not get what it wanted the last time it wanted too much.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        self.refused
    }

    fn refuse(&mut self, why: &'static str) -> bool {
        self.refused = Some(why);
        false
    }

    fn share_grows(&mut self, bytes: usize) -> bool {
        self.share.grow(bytes)
            || self.refuse(
                "the memory of all functions together ([limits] memory in semel.toml) was used up; this function had \
                 not reached its own limit",
            )
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        if self.taken.saturating_add(more) > self.most {
            return Ok(self.refuse("the memory limit of the manifest ([limits] memory) was reached"));
        }
        let granted = self.share_grows(more);
        if granted {
            self.taken += more;
        }
        Ok(granted)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > LARGEST_TABLE {
            return Ok(self.refuse("a table is larger than this host allows"));
        }
        Ok(self.share_grows(desired.saturating_sub(current) * ELEMENT))
    }
}
