//! The acknowledgement and the commit: the last statements of a guest's transaction.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};
use tokio::time::timeout;

use super::connection::Engine;
use super::guest::ENTER;
use super::queue::bind_usage;
use super::running::{Backend, Running, key};
use super::{Error, classify};
use crate::crash::{self, Point};
use crate::message::{Answer, Claim, Usage};
use crate::store::Commit;

const ACKNOWLEDGE: &str = include_str!("acknowledge.sql");

/// How long all acknowledgements together may take: they wait for locks, and an app's deferred triggers run.
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
    let mut order: Vec<&Left> = left.iter().collect();
    order.sort_by_key(|left| left.claim.seq);
    for Left { claim, answer, usage } in order {
        let given = answer.clone().unwrap_or_default();
        let acknowledge = sqlx::query(ACKNOWLEDGE)
            .bind(claim.seq)
            .bind(claim.fence)
            .bind(claim.token.0.to_vec())
            .bind(answer.is_some())
            .bind(given.content_type)
            .bind(serde_json::to_string(&given.headers).unwrap_or_default())
            .bind(given.body)
            .bind(usage.started_at.map(|at| at.0))
            .bind(usage.ended_at.map(|at| at.0));
        bind_usage(acknowledge, usage).execute(&mut *sql).await?;
    }
    sql.execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
    sql.execute("SET LOCAL synchronous_commit = on").await.map(drop)
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
    for Left { claim, .. } in left {
        let enter = sqlx::query(ENTER).bind(claim.seq).bind(claim.fence).bind(claim.token.0.to_vec());
        let row = enter.fetch_one(&mut *sql).await?;
        let process = i32::try_from(row.get::<i64, _>(1)).unwrap_or_default();
        running.has_session(key(claim), Backend { process, transaction: row.get(0) });
    }
    Ok(())
}
