//! Doing what a settlement says: the commit of a run, or the record of one that did not commit.
//!
//! Before it: [`crate::settle`] decided. Both who run messages do it in the same way: [`crate::worker`] and
//! [`crate::relay`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crash::{self, Point};
use crate::message::{Claim, Outcome, Usage};
use crate::settle::{Policy, settle};
use crate::store::{Commit, Failure, Known, Session, Store};
use crate::watch::Watch;

/// Between two questions about an unknown commit.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub(crate) struct Settler {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) watch: Arc<Watch>,
}

impl Settler {
    /// Commits what the session has left: done, or a failure that says so. Unknown becomes known only by asking the store.
    /// Returns how the attempt ended.
    pub(crate) async fn commit(
        &self,
        claim: &Claim,
        session: Box<dyn Session>,
        policy: &Policy,
        usage: Usage,
    ) -> &'static str {
        match self.commit_all(&[claim], session).await {
            Known::Committed => "completed",
            Known::Fenced => {
                tracing::warn!(
                    function = claim.function,
                    seq = claim.seq,
                    "a commit was refused: the claim was taken over"
                );
                self.record(claim, "lost-lease", "the claim was taken over before the commit".into(), None, usage)
                    .await;
                "lost-lease"
            }
            Known::RolledBack => {
                let outcome = Outcome::Doomed("the database did not take the commit".into());
                let settlement = settle(&outcome, claim.attempts_counted(), policy, rand::random());
                self.record(claim, outcome.as_str(), outcome.reason(), settlement.retry_after(), usage).await;
                outcome.as_str()
            }
        }
    }

    /// Commits what the session has left: what all these claims did, or nothing of it.
    pub(crate) async fn commit_all(&self, claims: &[&Claim], session: Box<dyn Session>) -> Known {
        crash::point(Point::RunReturned);
        let began = Instant::now();
        let commit = session.commit().await;
        if commit == Commit::Committed {
            crash::point(Point::Committed);
        }
        self.watch.metrics.committed(began.elapsed());
        if let Some(known) = commit.known() {
            return known;
        }
        let mut known = Known::Committed;
        for claim in claims {
            match self.resolve(claim).await {
                Known::Committed => {}
                other => known = other, // As for all of them.
            }
        }
        known
    }

    /// Asks until it is known. The claim is renewed meanwhile, so nobody else begins.
    async fn resolve(&self, claim: &Claim) -> Known {
        loop {
            match self.store.resolve(claim).await {
                Ok(known) => {
                    let outcome = self.watch.metrics.resolved(&claim.function, known);
                    tracing::warn!(seq = claim.seq, outcome, "what became of an unknown commit is known");
                    return known;
                }
                Err(error) => tracing::error!(%error, "cannot find out what became of a commit"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Records the end of a run that did not commit: another attempt after this time, or none.
    pub(crate) async fn record(
        &self,
        claim: &Claim,
        kind: &'static str,
        message: String,
        retry_after: Option<Duration>,
        usage: Usage,
    ) {
        let end = Failure { kind, message, retry_after };
        match self.store.settle(claim, end, usage).await {
            Ok(true) => {}
            Ok(false) => tracing::debug!(seq = claim.seq, kind, "somebody else holds the message by now"),
            Err(error) => tracing::error!(%error, kind, "the end of a run could not be recorded; its lease will end"),
        }
    }
}
