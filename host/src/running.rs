//! What runs in this process: the claims whose leases it renews, and a way to ask one of them to end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::message::Claim;

/// The claims of this host, by place in the order of acceptance.
#[derive(Default)]
pub(crate) struct Running {
    claims: Mutex<HashMap<i64, (Claim, Arc<Stop>)>>,
}

/// Asks one run to end: looked at while the guest computes. A request, not a promise: what makes sure is the fence.
#[derive(Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A claim that runs here, and whose lease is renewed for as long as this lives.
pub(crate) struct Place {
    running: Arc<Running>,
    seq: i64,
    pub(crate) stop: Arc<Stop>,
}

impl Running {
    pub(crate) fn enter(self: &Arc<Self>, claim: &Claim) -> Place {
        let stop = Arc::new(Stop::default());
        self.claims().insert(claim.seq, (claim.clone(), Arc::clone(&stop)));
        Place { running: Arc::clone(self), seq: claim.seq, stop }
    }

    /// Asks the run of a message to end, if it runs here.
    pub(crate) fn stop(&self, seq: i64) {
        if let Some((_, stop)) = self.claims().get(&seq) {
            stop.0.store(true, Ordering::Relaxed);
        }
    }

    /// All claims that are held now.
    pub(crate) fn all(&self) -> Vec<Claim> {
        self.claims().values().map(|(claim, _)| claim.clone()).collect()
    }

    /// How many messages of a function run here.
    pub(crate) fn count(&self, function: &str) -> u32 {
        let count = self.claims().values().filter(|(claim, _)| claim.function == function).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<i64, (Claim, Arc<Stop>)>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.claims().remove(&self.seq);
    }
}
