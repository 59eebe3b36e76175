//! Housekeeping while the host runs: messages of removed functions, and what has been kept long enough.
//!
//! In small steps, so that nobody waits for it; any number of hosts may do it at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::store::{self, Retention, Store};

/// Messages in one step, which is one commit.
const STEP: u32 = 200;
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two steps when there is more to do: others go first.
const BREATH: Duration = Duration::from_millis(20);
/// Between two looks for what has been kept long enough, at most.
const FORGET: Duration = Duration::from_secs(60);

/// Keeps house until `stop` says so.
pub(crate) async fn keep(store: Arc<dyn Store>, retention: Retention, mut stop: watch::Receiver<bool>) {
    let mut forget_next = Instant::now();
    while !*stop.borrow() {
        let mut more = full(store.sweep(STEP).await);
        if Instant::now() >= forget_next {
            let forgot_all = !full(store.forget(retention, STEP).await);
            more |= !forgot_all;
            if forgot_all {
                forget_next = Instant::now() + retention.shortest().min(FORGET);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(if more { BREATH } else { PAUSE }) => {}
            _ = stop.changed() => {}
        }
    }
}

/// Whether a step did as much as it may, so that there is more to do.
fn full(step: Result<u64, store::Error>) -> bool {
    let done = step.unwrap_or_else(|error| {
        tracing::error!(%error, "cannot clear away what is over");
        0
    });
    done >= u64::from(STEP)
}
