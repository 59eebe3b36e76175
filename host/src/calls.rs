//! Outside calls that are in the ledger before their first byte leaves: by functions while they run, and by the relay.

use std::sync::Arc;

use crate::crash::{self, Point};
use crate::outside::{Called, Client};
use crate::store::{self, CallEnd, Intent, Ledger};

/// What it takes to call other servers: who calls, and who writes it down.
pub(crate) struct LedgerClient {
    pub(crate) client: Client,
    pub(crate) ledger: Arc<dyn Ledger>,
}

impl LedgerClient {
    /// Makes a call that is in the ledger before it begins, and its end after it.
    ///
    /// # Errors
    /// If the claim no longer holds, or the ledger is not available: then the call was not made.
    pub(crate) async fn record(
        &self,
        intent: Intent,
        call: impl Future<Output = Called>,
    ) -> Result<Called, store::Error> {
        let intended = self.ledger.intend(intent).await?;
        crash::point(Point::CallIntended);
        let called = call.await;
        if matches!(called, Called::Answered(_)) {
            crash::point(Point::CallAnswered);
        }
        let end = match &called {
            Called::Answered(answer) => CallEnd::Done(answer.status.as_u16()),
            Called::NotSent(why) => CallEnd::Failed(why.to_string()),
            Called::Unknown(why) => CallEnd::Unknown(why.to_string()),
        };
        if let Err(error) = self.ledger.finish(intended, end).await {
            tracing::warn!(%error, "the end of an outside call is not in the ledger, where it stays unknown");
        }
        Ok(called)
    }

    /// A claim's run is over: of calls that it did not wait for nobody knows what became.
    pub(crate) async fn give_up(&self, message: &str, fence: i64, why: &str) {
        if let Err(error) = self.ledger.abandon(message, fence, why).await {
            tracing::warn!(%error, message, "outside calls stay intended in the ledger");
        }
    }
}
