//! Who waits for the end of a message in this process: requests with `Prefer: wait`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::message::Answer;

/// Wakes those who wait for a message. A hint only, unless an answer comes with it: who is woken without one reads the store.
#[derive(Default)]
pub(crate) struct Settled {
    waiting: Mutex<HashMap<String, Arc<Wake>>>,
}

#[derive(Default)]
struct Wake {
    notify: Notify,
    /// What the store has as the answer.
    answer: OnceLock<Answer>,
}

/// A place in the list; given up when it is dropped.
pub(crate) struct Waiting {
    list: Arc<Settled>,
    id: String,
    wake: Arc<Wake>,
}

impl Settled {
    fn list(&self) -> MutexGuard<'_, HashMap<String, Arc<Wake>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on no end of this message is missed that comes about in this process.
    pub(crate) fn watch(self: &Arc<Self>, id: &str) -> Waiting {
        let wake = Arc::clone(self.list().entry(id.to_owned()).or_default());
        Waiting { list: Arc::clone(self), id: id.to_owned(), wake }
    }

    /// Of an answer that is about to be committed, what those will be told who wait for it. None if nobody does.
    pub(crate) fn wanted(&self, id: &str, answer: Option<&Answer>) -> Option<Answer> {
        self.list().contains_key(id).then(|| answer.cloned().unwrap_or_default())
    }

    /// A message came to some end. `answer`: it is completed, and this is committed.
    pub(crate) fn notify(&self, id: &str, answer: Option<Answer>) {
        if let Some(wake) = self.list().get(id) {
            if let Some(answer) = answer {
                let _ = wake.answer.set(answer); // A message is completed once.
            }
            wake.notify.notify_waiters();
            wake.notify.notify_one(); // For one who looks between two waits.
        }
    }
}

impl Waiting {
    pub(crate) async fn woken(&self) {
        self.wake.notify.notified().await;
    }

    /// The answer of the message that was completed here.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.wake.answer.get()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.list.list();
        // This place and the list's own: nobody else waits for the same message.
        if waiting.get(&self.id).is_some_and(|wake| Arc::strong_count(wake) <= 2) {
            waiting.remove(&self.id);
        }
    }
}
