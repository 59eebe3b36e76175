//! One stream of batches per function: while one runs, the next is claimed already, and the one before is committed.
//!
//! Two batches never run at once: they would wait for each other's rows, in circles. One that only commits holds its rows and
//! waits for none of another's; nor does one that has run wait for the one before it, whose commit may need the database that
//! this one holds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{self, MutexGuard, Semaphore, SemaphorePermit};

/// Batches of a function that run or are committed at once.
const UNDER_WAY: usize = 2;

#[derive(Default)]
pub(super) struct Streams(Mutex<HashMap<String, Arc<Stream>>>);

pub(super) struct Stream {
    /// A batch is claimed and does not run yet.
    waits: AtomicBool,
    under_way: Semaphore,
    run: sync::Mutex<()>,
}

impl Default for Stream {
    fn default() -> Self {
        Self { waits: AtomicBool::default(), under_way: Semaphore::new(UNDER_WAY), run: sync::Mutex::default() }
    }
}

impl Streams {
    pub(super) fn of(&self, function: &str) -> Arc<Stream> {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = streams.get(function) {
            return Arc::clone(stream);
        }
        Arc::clone(streams.entry(function.to_owned()).or_default())
    }
}

impl Stream {
    /// Whether a batch may be claimed.
    pub(super) fn has_room(&self) -> bool {
        !self.waits.load(Ordering::SeqCst)
    }

    /// A batch was claimed.
    pub(super) fn claimed(self: Arc<Self>) -> Batched {
        self.waits.store(true, Ordering::SeqCst);
        Batched(self)
    }
}

/// A batch on its way.
pub(super) struct Batched(Arc<Stream>);

impl Batched {
    /// Waits for its place among those that run or are committed.
    pub(super) async fn begin(&self) -> SemaphorePermit<'_> {
        self.0.under_way.acquire().await.expect("never closed")
    }

    /// Waits until the batch before has run; from then on the next may be claimed.
    pub(super) async fn run(&self) -> MutexGuard<'_, ()> {
        let turn = self.0.run.lock().await;
        self.0.waits.store(false, Ordering::SeqCst);
        turn
    }

    /// The same for one that came to nothing, whose messages run alone.
    pub(super) async fn run_again(&self) -> MutexGuard<'_, ()> {
        self.0.run.lock().await
    }
}
