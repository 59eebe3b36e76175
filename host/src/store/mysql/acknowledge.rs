//! The first and the last statements of a guest's transaction: it enters its claims, acknowledges them, and commits.

use std::time::Duration;

use serde::Serialize;
use sqlx::Executor;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Error};
use tokio::time::timeout;

use super::api::{Bodies, text};
use super::group::Groups;
use super::list::list;
use super::queue::logs;
use super::{errors, number};
use crate::clock::micros;
use crate::crash::{self, Point};
use crate::message::{Answer, Claim, Usage};
use crate::store::Commit;

const ENTER: &str = include_str!("enter.sql");
const REHEARSE: &str = include_str!("rehearse.sql");
const ACKNOWLEDGE: &str = include_str!("acknowledge.sql");

/// How long the acknowledgement may take: it waits for locks.
const ACKNOWLEDGED: Duration = Duration::from_secs(15);
/// How long COMMIT may take before somebody else is asked what became of it. Shorter than the server lets the session stand
/// still, and no harm if a slow disk takes longer: whoever is asked waits for the end of the transaction.
const COMMITTED: Duration = Duration::from_secs(3);

/// What a transaction is for.
#[derive(Clone)]
pub(super) enum Entry {
    /// Claims, which share a token.
    Claims(Vec<Claim>),
    /// A claim that nobody holds: no acknowledgement finds it.
    Rehearsal(Claim),
}

impl Entry {
    /// Looks whether it holds. SM001 if one of the claims no longer does.
    pub(super) async fn enter(&self, connection: &mut MySqlConnection, engine: &str) -> Result<(), Error> {
        match self {
            Self::Claims(claims) => {
                let token = claims.first().map(|claim| claim.token.0.to_vec());
                let enter = sqlx::query(text(ENTER, engine)).bind(list(claims.iter().map(Held::of))).bind(token);
                enter.execute(connection).await.map(drop)
            }
            Self::Rehearsal(claim) => {
                let enter = sqlx::query(text(REHEARSE, engine)).bind(&claim.token.0[..]);
                enter.execute(connection).await.map(drop)
            }
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

/// Acknowledges every claim and commits. After [`Commit::Unknown`] nothing more may be said on this connection.
pub(super) async fn commit(
    connection: &mut MySqlConnection,
    engine: &str,
    canary: &str,
    left: &[Left],
    published: &Groups,
) -> Commit {
    match timeout(ACKNOWLEDGED, before_commit(connection, engine, canary, left, published)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return refused(&error),
        Err(_) => {
            tracing::warn!("an acknowledgement has no answer");
            return Commit::Unknown;
        }
    }
    crash::point(Point::Acknowledged);
    match timeout(COMMITTED, crash::during(Point::CommitSent, connection.execute("COMMIT"))).await {
        Ok(Ok(_)) => Commit::Committed,
        Ok(Err(error)) if errors::undoes(&error) => {
            tracing::error!(%error, "a commit failed");
            Commit::RolledBack
        }
        // Any other error may have come after the commit.
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

/// Releasing the canary fails if the transaction ended, however it did: what came after that is not what is acknowledged. One
/// statement for all claims, in the order of their numbers, which is that of their locks.
async fn before_commit(
    connection: &mut MySqlConnection,
    engine: &str,
    canary: &str,
    left: &[Left],
    published: &Groups,
) -> Result<(), Error> {
    connection.execute(AssertSqlSafe(format!("RELEASE SAVEPOINT {canary}"))).await?;
    let (mut bodies, mut groups) = (Bodies::default(), Groups::default());
    let mut sorted: Vec<&Left> = left.iter().collect();
    sorted.sort_by_key(|left| left.claim.seq);
    let done = list(sorted.into_iter().map(|left| Done::of(left, &mut bodies)));
    left.iter().for_each(|left| groups.add(&left.claim.function, left.claim.group.as_deref()));
    published.all().iter().for_each(|group| groups.add(&group.function, Some(&group.key)));
    let acknowledge = sqlx::query(text(ACKNOWLEDGE, engine))
        .bind(done)
        .bind(left.first().map(|left| left.claim.token.0.to_vec()))
        .bind(bodies.0)
        .bind((!groups.all().is_empty()).then(|| list(groups.all())));
    acknowledge.execute(connection).await.map(drop)
}

/// A claim, as the procedures want it.
#[derive(Serialize)]
struct Held {
    s: i64,
    f: i64,
}

impl Held {
    fn of(claim: &Claim) -> Self {
        Self { s: claim.seq, f: claim.fence }
    }
}

/// What is acknowledged of a claim.
#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    claim: Held,
    answered: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    headers: String,
    place: usize,
    length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel: Option<i64>,
    statements: i64,
    sql_micros: i64,
    published: i64,
    logs: String,
    logs_dropped: i64,
}

impl Done {
    fn of(left: &Left, bodies: &mut Bodies) -> Self {
        let Left { claim, answer, usage } = left;
        let Answer { content_type, headers, body } = answer.clone().unwrap_or_default();
        let (place, length) = bodies.add(&body);
        Self {
            claim: Held::of(claim),
            answered: u8::from(answer.is_some()),
            content_type,
            headers: serde_json::to_string(&headers).unwrap_or_else(|_| "[]".into()),
            place,
            length,
            started_at: usage.started_at.map(|at| at.0),
            ended_at: usage.ended_at.map(|at| at.0),
            fuel: usage.fuel.map(|fuel| i64::try_from(fuel).unwrap_or(i64::MAX)),
            statements: number(usage.statements),
            sql_micros: micros(usage.sql_time),
            published: number(usage.published),
            logs: logs(usage),
            logs_dropped: number(usage.logs_dropped),
        }
    }
}

/// Before COMMIT was sent nothing can have happened.
fn refused(error: &Error) -> Commit {
    if matches!(errors::sqlstate(error).as_deref(), Some("SM001" | "SM002")) {
        return Commit::Fenced;
    }
    tracing::warn!(%error, "an acknowledgement failed");
    Commit::RolledBack
}
