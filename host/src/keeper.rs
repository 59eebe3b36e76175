//! Housekeeping while the host runs: messages of removed functions, and what has been kept long enough.
//!
//! In small steps, so that nobody waits for it; any number of hosts may do it at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::store::{self, Retention, Store};

/// Messages in one step, which is one commit.
const STEP: u32 = 200;
/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two steps of a round: others go first.
const BREATH: Duration = Duration::from_millis(20);

/// Keeps house until `stop` says so.
pub(crate) async fn keep(store: Arc<dyn Store>, retention: Retention, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let pause = match step(store.as_ref(), retention).await {
            Ok(true) => BREATH,
            Ok(false) => PAUSE,
            Err(error) => {
                tracing::error!(%error, "cannot clear away what is over");
                PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => {}
        }
    }
}

/// Whether there is more to do.
async fn step(store: &dyn Store, retention: Retention) -> Result<bool, store::Error> {
    let swept = store.sweep(STEP).await?;
    let forgotten = store.forget(retention, STEP).await?;
    Ok(swept >= u64::from(STEP) || forgotten >= u64::from(STEP))
}
