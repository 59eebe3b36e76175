//! The first and the last statements of a guest's transaction: it enters its claims, acknowledges them, and commits.
//!
//! Neither is ever kept as a prepared statement: the functions of an app, where it may have any, could put another text under
//! its name, for the next transaction.

use std::time::Duration;

use futures_util::future::try_join3;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::guest_sql::Typed;
use super::number;
use super::queue::logs;
use crate::clock::micros;
use crate::crash::{self, Point};
use crate::message::{Answer, Claim, Usage};
use crate::store::Commit;

const ENTER: &str = include_str!("enter.sql");
const REHEARSE: &str = include_str!("rehearse.sql");
const ACKNOWLEDGE: &str = include_str!("acknowledge.sql");

/// How long the acknowledgement may take: it waits for locks, and an app's deferred triggers run.
const ACKNOWLEDGED: Duration = Duration::from_secs(15);
/// How long COMMIT may take before somebody else is asked what became of it. Shorter than the server lets the session stand
/// still, and no harm if a slow disk takes longer: whoever is asked waits for the end of the transaction.
const COMMITTED: Duration = Duration::from_secs(3);

/// What a transaction is for.
pub(super) enum Entry {
    /// Claims, which share a token.
    Claims(Vec<Claim>),
    /// A claim that nobody holds: the server refuses to commit it.
    Rehearsal(Claim),
}

impl Entry {
    /// Binds the transaction to it. SM001 if one of the claims no longer holds.
    pub(super) async fn enter(&self, client: &Client) -> Result<Row, Error> {
        match self {
            Self::Claims(claims) => {
                let (seqs, fences): (Vec<i64>, Vec<i64>) = claims.iter().map(|claim| (claim.seq, claim.fence)).unzip();
                let token = claims.first().map(|claim| claim.token.0.to_vec());
                let params: [Typed<'_>; 3] =
                    [(&seqs, Type::INT8_ARRAY), (&fences, Type::INT8_ARRAY), (&token, Type::BYTEA)];
                client.query_typed_one(ENTER, &params).await
            }
            Self::Rehearsal(claim) => client.query_typed_one(REHEARSE, &[(&&claim.token.0[..], Type::BYTEA)]).await,
        }
    }
}

/// A claim that has done its part and waits for the commit.
#[derive(Clone)]
pub(super) struct Left {
    pub(super) claim: Claim,
    pub(super) answer: Option<Answer>,
    pub(super) usage: Usage,
}

/// Acknowledges every claim and commits. After [`Commit::Unknown`] nothing more may be said on this line.
pub(super) async fn commit(client: &Client, canary: &str, left: &[Left]) -> Commit {
    match timeout(ACKNOWLEDGED, before_commit(client, canary, left)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return refused(&error),
        Err(_) => {
            tracing::warn!("an acknowledgement has no answer");
            return Commit::Unknown;
        }
    }
    crash::point(Point::Acknowledged);
    match timeout(COMMITTED, crash::during(Point::CommitSent, client.batch_execute("COMMIT"))).await {
        // A COMMIT of a failed transaction says ok as well and undoes it: here the statement before it has succeeded.
        Ok(Ok(())) => Commit::Committed,
        // The server ended the session: whether before or after the commit it does not say.
        Ok(Err(error)) if error.code().is_some_and(|code| !code.code().starts_with("57")) => {
            tracing::error!(%error, "a commit failed");
            Commit::RolledBack
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the answer of a commit was lost");
            Commit::Unknown
        }
        Err(_) => {
            tracing::warn!("a commit has no answer");
            Commit::Unknown
        }
    }
}

/// All that comes before COMMIT, in one go: after the first that fails the server refuses the rest. Releasing the canary fails
/// if the guest has ended the transaction, however it did; and outside of a transaction there is nothing to acknowledge. A guest
/// may have told the server to take the acknowledgement's texts for another encoding. Deferred triggers of the app run before
/// the setting that makes the commit durable, which they could undo.
async fn before_commit(client: &Client, canary: &str, left: &[Left]) -> Result<((), u64, ()), Error> {
    let release = format!("RELEASE {canary}; SET LOCAL client_encoding = 'UTF8'");
    try_join3(
        client.batch_execute(&release),
        acknowledge(client, left),
        client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL synchronous_commit = on"),
    )
    .await
}

/// One statement for all claims, in the order in which they were entered.
async fn acknowledge(client: &Client, left: &[Left]) -> Result<u64, Error> {
    let answer = |left: &Left| left.answer.clone().unwrap_or_default();
    let headers = |left: &Left| serde_json::to_string(&answer(left).headers).unwrap_or_default();
    let fuel = |left: &Left| left.usage.fuel.map(|fuel| i64::try_from(fuel).unwrap_or(i64::MAX));
    let token = left.first().map(|left| left.claim.token.0.to_vec());
    client
        .execute_typed(
            ACKNOWLEDGE,
            &[
                (&column(left, |left| left.claim.seq), Type::INT8_ARRAY),
                (&column(left, |left| left.claim.fence), Type::INT8_ARRAY),
                (&token, Type::BYTEA),
                (&column(left, |left| left.answer.is_some()), Type::BOOL_ARRAY),
                (&column(left, |left| answer(left).content_type), Type::TEXT_ARRAY),
                (&column(left, headers), Type::TEXT_ARRAY),
                (&column(left, |left| answer(left).body), Type::BYTEA_ARRAY),
                (&column(left, |left| left.usage.started_at.map(|at| at.0)), Type::INT8_ARRAY),
                (&column(left, |left| left.usage.ended_at.map(|at| at.0)), Type::INT8_ARRAY),
                (&column(left, fuel), Type::INT8_ARRAY),
                (&column(left, |left| number(left.usage.statements)), Type::INT8_ARRAY),
                (&column(left, |left| micros(left.usage.sql_time)), Type::INT8_ARRAY),
                (&column(left, |left| number(left.usage.published)), Type::INT8_ARRAY),
                (&column(left, |left| logs(&left.usage)), Type::TEXT_ARRAY),
                (&column(left, |left| number(left.usage.logs_dropped)), Type::INT8_ARRAY),
            ],
        )
        .await
}

fn column<T>(left: &[Left], of: impl Fn(&Left) -> T) -> Vec<T> {
    left.iter().map(of).collect()
}

/// Before COMMIT was sent nothing can have happened.
fn refused(error: &Error) -> Commit {
    if matches!(error.code().map(|code| code.code()), Some("SM001" | "SM002")) {
        return Commit::Fenced;
    }
    tracing::warn!(%error, "an acknowledgement failed");
    Commit::RolledBack
}
