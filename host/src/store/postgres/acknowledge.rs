//! The acknowledgement and the commit: the last statements of a guest's transaction.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};
use tokio::time::timeout;

use super::accept::Query;
use super::connection::Engine;
use super::queue::logs;
use super::running::{Backend, Running, key};
use super::{Error, classify, number};
use crate::clock::micros;
use crate::crash::{self, Point};
use crate::message::{Answer, Claim, Usage};
use crate::store::Commit;

const ENTER: &str = include_str!("enter.sql");
const ACKNOWLEDGE: &str = include_str!("acknowledge.sql");

/// How long the acknowledgement may take: it waits for locks, and an app's deferred triggers run.
const ACKNOWLEDGED: Duration = Duration::from_secs(15);
/// How long COMMIT may take before somebody else is asked what became of it. Shorter than the server lets the session stand
/// still, and no harm if a slow disk takes longer: whoever is asked waits for the end of the transaction.
const COMMITTED: Duration = Duration::from_secs(3);

/// A claim that has done its part and waits for the commit.
#[derive(Clone)]
pub(super) struct Left {
    pub(super) claim: Claim,
    pub(super) answer: Option<Answer>,
    pub(super) usage: Usage,
}

/// Acknowledges every claim and commits. Deferred triggers of the app run before the setting that makes the commit durable,
/// which they could undo. After [`Commit::Unknown`] nothing more may be said on this connection.
pub(super) async fn commit(sql: &mut PgConnection, left: &[Left]) -> Commit {
    match timeout(ACKNOWLEDGED, before_commit(sql, left)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return refused(&error),
        Err(_) => {
            tracing::warn!("an acknowledgement has no answer");
            return Commit::Unknown;
        }
    }
    crash::point(Point::Acknowledged);
    match timeout(COMMITTED, crash::during(Point::CommitSent, sql.execute("COMMIT"))).await {
        // A COMMIT of a failed transaction says ok as well and undoes it: here the statement before it has succeeded.
        Ok(Ok(_)) => Commit::Committed,
        // The server ended the session: whether before or after the commit it does not say.
        Ok(Err(sqlx::Error::Database(error))) if !error.code().is_some_and(|code| code.starts_with("57")) => {
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

async fn before_commit(sql: &mut PgConnection, left: &[Left]) -> Result<(), sqlx::Error> {
    acknowledgement(left).execute(&mut *sql).await?;
    sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL synchronous_commit = on").execute(sql).await.map(drop)
}

/// One statement for all claims, in the order in which they were entered.
fn acknowledgement(left: &[Left]) -> Query<'static> {
    let answer = |left: &Left| left.answer.clone().unwrap_or_default();
    let headers = |left: &Left| serde_json::to_string(&answer(left).headers).unwrap_or_default();
    let fuel = |left: &Left| left.usage.fuel.map(|fuel| i64::try_from(fuel).unwrap_or(i64::MAX));
    sqlx::query(ACKNOWLEDGE)
        .persistent(false)
        .bind(column(left, |left| left.claim.seq))
        .bind(column(left, |left| left.claim.fence))
        .bind(left.first().map(|left| left.claim.token.0.to_vec()))
        .bind(column(left, |left| left.answer.is_some()))
        .bind(column(left, |left| answer(left).content_type))
        .bind(column(left, headers))
        .bind(column(left, |left| answer(left).body))
        .bind(column(left, |left| left.usage.started_at.map(|at| at.0)))
        .bind(column(left, |left| left.usage.ended_at.map(|at| at.0)))
        .bind(column(left, fuel))
        .bind(column(left, |left| number(left.usage.statements)))
        .bind(column(left, |left| micros(left.usage.sql_time)))
        .bind(column(left, |left| number(left.usage.published)))
        .bind(column(left, |left| logs(&left.usage)))
        .bind(column(left, |left| number(left.usage.logs_dropped)))
}

fn column<T>(left: &[Left], of: impl Fn(&Left) -> T) -> Vec<T> {
    left.iter().map(of).collect()
}

/// Before COMMIT was sent nothing can have happened.
fn refused(error: &sqlx::Error) -> Commit {
    if is_fenced(error) {
        return Commit::Fenced;
    }
    tracing::warn!(%error, "an acknowledgement failed");
    Commit::RolledBack
}

/// Whether it says that a claim no longer holds.
pub(super) fn is_fenced(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("SM001" | "SM002"))
}

/// In a session of the engine, where no guest was in.
pub(super) async fn alone(engine: &Engine, running: Arc<Running>, left: Vec<Left>) -> Commit {
    let alone = engine.run_if(
        |committed| *committed != Commit::Unknown,
        move |sql| {
            Box::pin(async move {
                sql.execute("BEGIN").await.map_err(classify)?;
                let committed = match enter(sql, &running, &left).await {
                    Ok(()) => commit(sql, &left).await,
                    Err(error) => refused(&error),
                };
                if !matches!(committed, Commit::Committed | Commit::Unknown) {
                    sql.execute("ROLLBACK").await.map_err(classify)?;
                }
                Ok(committed)
            })
        },
    );
    match alone.await {
        Ok(committed) => committed,
        Err(error) => {
            tracing::warn!(%error, "an acknowledgement has no answer");
            if matches!(error, Error::Refused(_)) { Commit::RolledBack } else { Commit::Unknown }
        }
    }
}

async fn enter(sql: &mut PgConnection, running: &Running, left: &[Left]) -> Result<(), sqlx::Error> {
    let claims: Vec<&Claim> = left.iter().map(|left| &left.claim).collect();
    let row = entering(&claims).fetch_one(sql).await?;
    let process = i32::try_from(row.get::<i64, _>(1)).unwrap_or_default();
    let backend = Backend { process, transaction: row.get(0) };
    claims.into_iter().for_each(|claim| running.has_session(key(claim), backend));
    Ok(())
}

/// Binds a transaction to claims, which share a token. As the acknowledgement it is never kept as a prepared statement: the
/// functions of an app, where it may have any, could put another text under its name, for the next transaction.
pub(super) fn entering(claims: &[&Claim]) -> Query<'static> {
    let (seqs, fences): (Vec<i64>, Vec<i64>) = claims.iter().map(|claim| (claim.seq, claim.fence)).unzip();
    sqlx::query(ENTER)
        .persistent(false)
        .bind(seqs)
        .bind(fences)
        .bind(claims.first().map(|claim| claim.token.0.to_vec()))
}
