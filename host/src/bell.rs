//! Where a commit says that it may have left something for [`crate::relay`].

use std::sync::Arc;

use tokio::sync::Notify;

/// Heard by each way by itself.
#[derive(Default)]
pub(crate) struct Bell(Vec<Arc<Notify>>);

impl Bell {
    /// One for so many ways.
    pub(crate) fn new(ways: usize) -> Self {
        Self((0..ways).map(|_| Arc::default()).collect())
    }

    /// There may be something for any of them.
    pub(crate) fn ring(&self) {
        self.0.iter().for_each(|way| way.notify_one());
    }

    /// Where each of them hears it.
    pub(crate) fn ways(&self) -> &[Arc<Notify>] {
        &self.0
    }
}
