//! What runs in this process: the claims whose leases it renews, and a way to ask one of them to end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::SetOnce;

use crate::clock::Timestamp;
use crate::message::{Claim, Outcome};

/// The claims of this host, by message (`seq`) and fence: a message that was cancelled and redriven, or whose lease ended,
/// may be claimed again while its run of before has not ended yet.
#[derive(Default)]
pub(crate) struct Running {
    claims: Mutex<Claims>,
}

type Claims = HashMap<(i64, i64), (Claim, Arc<Stop>)>;

/// Asks one run to end: looked at while the guest computes, or waits. A request, not a promise: what makes sure is the
/// fence.
#[derive(Default)]
pub(crate) struct Stop(SetOnce<Outcome>);

impl Stop {
    /// How the run ends because of it, if it was asked to.
    pub(crate) fn asked(&self) -> Option<&Outcome> {
        self.0.get()
    }

    /// The claim no longer holds. True if the run was asked to end before.
    pub(crate) fn claim_lost(&self) -> bool {
        self.0.set(Outcome::ClaimLost).is_err()
    }

    /// Returns when it is asked to.
    pub(crate) async fn until_asked(&self) {
        self.0.wait().await;
    }
}

/// A claim that runs here, and whose lease is renewed for as long as this lives.
pub(crate) struct Place {
    running: Arc<Running>,
    claim: (i64, i64),
    claimed: (Timestamp, Instant),
    pub(crate) stop: Arc<Stop>,
}

impl Place {
    /// The store's clock now, as far as it can be known without asking it.
    pub(crate) fn now(&self) -> Timestamp {
        let (at, then) = self.claimed;
        at.plus(then.elapsed())
    }
}

impl Running {
    pub(crate) fn enter(self: &Arc<Self>, claim: &Claim) -> Place {
        let stop = Arc::new(Stop::default());
        let key = (claim.seq, claim.fence);
        self.claims().insert(key, (claim.clone(), Arc::clone(&stop)));
        Place { running: Arc::clone(self), claim: key, claimed: (claim.claimed_at, Instant::now()), stop }
    }

    /// A person takes a message back: asks its runs to end, if there are any here. Returns their claims: they may be in a statement.
    pub(crate) fn stop(&self, seq: i64) -> Vec<Claim> {
        let claims = self.claims();
        let its = claims.values().filter(|(claim, _)| claim.seq == seq);
        its.map(|(claim, stop)| {
            let _ = stop.0.set(Outcome::Cancelled); // Asked before, for whatever reason.
            claim.clone()
        })
        .collect()
    }

    /// A claim no longer holds: asks its run to end, if it is not over yet. True if it was asked before.
    pub(crate) fn lose(&self, claim: &Claim) -> bool {
        let claims = self.claims();
        let run = claims.get(&(claim.seq, claim.fence));
        run.is_some_and(|(_, stop)| stop.claim_lost())
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

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.claims().remove(&self.claim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Contract, Token};

    fn claim(fence: i64) -> Claim {
        Claim {
            seq: 1,
            fence,
            token: Token::random(),
            attempt: 1,
            attempts_before: 0,
            function: "f".into(),
            group: None,
            version: 1,
            contract: Contract::FinishOnce,
            lease: std::time::Duration::from_secs(10),
            claimed_at: crate::clock::Timestamp(0),
            host: "test".into(),
        }
    }

    #[test]
    fn the_end_of_an_earlier_claim_leaves_the_later_one_its_place() {
        let running = Arc::new(Running::default());
        let (earlier, later) = (running.enter(&claim(1)), running.enter(&claim(2)));
        assert_eq!(running.count("f"), 2, "both run");
        drop(earlier);
        assert_eq!(running.all().iter().map(|claim| claim.fence).collect::<Vec<_>>(), [2], "its lease is renewed");
        running.stop(1);
        assert_eq!(later.stop.asked(), Some(&Outcome::Cancelled));
    }
}
