//! Where guests compute: on threads of their own. A task that computes for long keeps its runtime from looking at sockets
//! and clocks, and what the host waits for (answers of the database, requests, the next heartbeat) must not come late
//! because of a guest.

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// As many as the machine has cores.
pub(super) struct Threads {
    handle: Handle,
    /// Until it is dropped.
    runtime: Option<Runtime>,
}

impl Threads {
    pub(super) fn start() -> std::io::Result<Self> {
        // Clocks are looked at after each slice of a guest, not after dozens of them.
        let runtime = Builder::new_multi_thread().thread_name("semel-guest").event_interval(1).enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
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
