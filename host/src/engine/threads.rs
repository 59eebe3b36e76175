//! Where guests compute: on threads of their own. A task that computes for long keeps its runtime from looking at sockets
//! and clocks, and what the host waits for (answers of the database, requests, the next heartbeat) must not come late
//! because of a guest.

use std::num::NonZeroUsize;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// As many as the machine has cores, and one. A statement may run on the thread of whoever asked for it and keep it to its
/// deadline; where it does, one guest at a time is in the database, so there is a thread for all the others.
pub(super) struct Threads {
    handle: Handle,
    /// Until it is dropped.
    runtime: Option<Runtime>,
}

impl Threads {
    pub(super) fn start() -> std::io::Result<Self> {
        // Clocks are looked at after each slice of a guest, not after dozens of them.
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let mut threads = Builder::new_multi_thread();
        let runtime =
            threads.worker_threads(cores + 1).thread_name("semel-guest").event_interval(1).enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn spawn<T: Send + 'static>(&self, run: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn(run)
    }
}

impl Drop for Threads {
    /// Without waiting for what still runs, which a task of the host must not.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
