//! Who waits for the end of a message in this process: requests with `Prefer: wait`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Wakes those who wait for a message. A hint only: who is woken reads the store.
#[derive(Default)]
pub(crate) struct Settled {
    waiting: Mutex<HashMap<String, Arc<Notify>>>,
}

/// A place in the list; given up when it is dropped.
pub(crate) struct Waiting {
    list: Arc<Settled>,
    id: String,
    wake: Arc<Notify>,
}

impl Settled {
    /// From here on no end of this message is missed.
    pub(crate) fn watch(self: &Arc<Self>, id: &str) -> Waiting {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let wake = Arc::clone(waiting.entry(id.to_owned()).or_default());
        Waiting { list: Arc::clone(self), id: id.to_owned(), wake }
    }

    /// A message came to some end.
    pub(crate) fn notify(&self, id: &str) {
        if let Some(wake) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            wake.notify_waiters();
            wake.notify_one(); // For one who looks between two waits.
        }
    }
}

impl Waiting {
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.list.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // This place and the list's own: nobody else waits for the same message.
        if waiting.get(&self.id).is_some_and(|wake| Arc::strong_count(wake) <= 2) {
            waiting.remove(&self.id);
        }
    }
}
