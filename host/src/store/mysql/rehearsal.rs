//! Rehearsals: the engine announces one, a guest's transaction enters it (`guest.rs`), and whoever has no claim is acknowledged
//! nothing. See 0003_api.sql.

use super::connection::Engine;
use super::{Error, classify};
use crate::message::Claim;

const BEGIN: &str = include_str!("rehearsal_begin.sql");
const END: &str = include_str!("rehearsal_end.sql");

/// Lets a transaction of the claim's app enter with the claim's token.
pub(super) async fn announce(engine: &Engine, claim: &Claim) -> Result<(), Error> {
    let (hash, function, version) = (claim.token.hash(), claim.function.clone(), claim.version);
    let begin = engine.run(move |connection| {
        Box::pin(async move {
            let begin = sqlx::query(BEGIN).bind(hash).bind(function).bind(version);
            begin.execute(connection).await.map(drop).map_err(classify)
        })
    });
    begin.await
}

/// Nobody works with this token any more.
pub(super) async fn withdraw(engine: &Engine, claim: &Claim) {
    let hash = claim.token.hash();
    let end = engine.run(move |connection| {
        Box::pin(async move { sqlx::query(END).bind(hash).execute(connection).await.map(drop).map_err(classify) })
    });
    if let Err(error) = end.await {
        tracing::warn!(%error, "a rehearsal stays announced for a while, with a token that nobody knows");
    }
}
