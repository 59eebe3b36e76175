//! Wake-ups: what this host commits wakes its own workers at once. There is nothing by which one host could wake another, so
//! everybody looks from time to time without any.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

#[derive(Default)]
pub(super) struct Wake {
    work: Arc<Hint>,
    deployed: Hint,
}

/// There may be something to see, for whoever waits in this process.
#[derive(Default)]
pub(super) struct Hint {
    here: Notify,
}

impl Hint {
    pub(super) fn all(&self) {
        self.here.notify_one();
    }

    /// Returns when there may be something, or after `longest`.
    async fn wait(&self, longest: Duration) {
        let _ = timeout(longest, self.here.notified()).await; // Either way there may be something.
    }
}

impl Wake {
    /// There may be something to claim.
    pub(super) fn all(&self) {
        self.work.all();
    }

    /// What is deployed has changed; with it, there may be something to claim.
    pub(super) fn all_deployed(&self) {
        self.deployed.all();
        self.work.all();
    }

    /// What a session needs to say that there may be something to claim.
    pub(super) fn hint(&self) -> Arc<Hint> {
        Arc::clone(&self.work)
    }

    pub(super) async fn wait(&self, longest: Duration) {
        self.work.wait(longest).await;
    }

    /// Returns when what is deployed may have changed, or after `longest`.
    pub(super) async fn deployed(&self, longest: Duration) {
        self.deployed.wait(longest).await;
    }
}
