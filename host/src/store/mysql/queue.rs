//! The queue's operations. The order of statements in each is that of 0001_engine.sql.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::accept;
use super::group::Groups;
use super::list::list;
use super::running::{self, key};
use super::session::MysqlSession;
use super::{Error, Mysql, claim, classify, ended, number, recover};
use crate::clock::{Timestamp, micros};
use crate::crash::{self, Point};
use crate::message::{Claim, Claimed, LogLine, State, Usage};
use crate::store::{Accept, ClaimRequest, Enqueued, Failure, Known, LogRecord, Queue, Recovered, Session};

const BEGIN: &str = include_str!("begin.sql");
const HEARTBEAT_FIND: &str = include_str!("heartbeat_find.sql");
const HEARTBEAT: &str = include_str!("heartbeat.sql");
const HEARTBEAT_LOST: &str = include_str!("heartbeat_lost.sql");
const SUSPECTS: &str = include_str!("suspects.sql");
const HOLD: &str = include_str!("hold.sql");
const RETRY: &str = include_str!("retry.sql");
const ATTEMPT: &str = include_str!("attempt.sql");
const RESOLVE_WAIT: &str = include_str!("resolve_wait.sql");
const RESOLVE: &str = include_str!("resolve.sql");

/// Seconds that one look at an unknown commit waits for its session to let go of the message.
const PATIENCE: u32 = 2;

/// How often the session of an unknown commit is ended before somebody is told to ask again.
const RESOLVE_ROUNDS: u32 = 3;

#[async_trait]
impl Queue for Mysql {
    async fn now(&self) -> Result<Timestamp, Error> {
        self.engine.run(|connection| Box::pin(accept::now(connection))).await
    }

    async fn enqueue_all(&self, list: Arc<[Accept]>) -> Result<Vec<Enqueued>, Error> {
        let largest = self.server.largest_body();
        if list.iter().any(|accept| accept.event.body.len() > largest) {
            return Err(Error::Refused(format!(
                "a body is larger than {largest} bytes, which is all that this server takes: see max_allowed_packet"
            )));
        }
        let accepted = |answers: &Vec<Enqueued>| answers.iter().any(Enqueued::is_accepted);
        let enqueue = self
            .engine
            .transaction_if(accepted, move |to| Box::pin(async move { accept::enqueue_all(to, &list).await }));
        let answers = enqueue.await?;
        if accepted(&answers) {
            crash::point(Point::AcceptCommitted);
            self.wake.all();
        }
        Ok(answers)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, Error> {
        if self.promoted.is_due() && self.engine.run(|on| Box::pin(claim::is_to_promote(on))).await? {
            self.engine.transaction(|of| Box::pin(claim::promote(of))).await?;
        }
        self.engine.transaction(move |from| Box::pin(async move { claim::claim(from, &request).await })).await
    }

    async fn begin(&self, claim: &Claim) -> Result<bool, Error> {
        let claim = claim.clone();
        let begin = self.engine.run(move |connection| {
            Box::pin(async move {
                let begin = holds(sqlx::query(BEGIN).bind(micros(claim.lease)), &claim);
                crash::point(Point::BeginBeforeCommit); // The statement commits by itself.
                begin.execute(connection).await.map_err(classify)
            })
        });
        Ok(begin.await?.rows_affected() == 1)
    }

    async fn heartbeat(&self, claims: Vec<Claim>) -> Result<Vec<(i64, i64)>, Error> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        self.engine.transaction(move |of| Box::pin(async move { heartbeat(of, &claims).await })).await
    }

    async fn recover(&self, as_of: Timestamp, functions: Vec<String>) -> Result<Recovered, Error> {
        let mut recovered = recover::recover(&self.engine, as_of).await?;
        let suspects = self.engine.run(move |connection| {
            Box::pin(async move {
                sqlx::query_scalar(SUSPECTS).bind(list(functions)).fetch_one(connection).await.map_err(classify)
            })
        });
        recovered.suspects = suspects.await?;
        if recovered.suspects {
            self.wake.all();
        }
        Ok(recovered)
    }

    async fn settle(&self, claim: &Claim, end: Failure, usage: Usage) -> Result<bool, Error> {
        let claim = claim.clone();
        self.engine.transaction(move |of| Box::pin(async move { settle(of, &claim, &end, &usage).await })).await
    }

    async fn resolve(&self, claim: &Claim) -> Result<Known, Error> {
        for _ in 0..RESOLVE_ROUNDS {
            let (seq, fence) = (claim.seq, claim.fence);
            let resolve = self.engine.transaction_within(PATIENCE, move |of| Box::pin(resolve(of, seq, fence)));
            match resolve.await {
                Err(Error::Busy(_)) => {}
                known => {
                    self.running.leave(key(claim));
                    return known;
                }
            }
            if let Some(backend) = self.running.backend(key(claim)) {
                running::terminate(&self.engine, backend).await?;
            }
        }
        Err(Error::Unavailable("the session of a commit does not end".into()))
    }

    fn interrupt(&self, claim: &Claim) {
        let Some(backend) = self.running.stop(key(claim)) else { return };
        let (engine, running, key) = (self.engine.clone(), Arc::clone(&self.running), key(claim));
        self.engine.spawn(async move {
            let _ = running::cancel(&engine, backend).await; // A wish: the fence makes sure.
            tokio::time::sleep(Duration::from_secs(1)).await;
            if running.backend(key) == Some(backend) {
                let _ = running::terminate(&engine, backend).await; // As above.
            }
        });
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(MysqlSession::new(self, false))
    }

    fn rehearsal(&self) -> Box<dyn Session> {
        Box::new(MysqlSession::new(self, true))
    }

    async fn wait(&self, longest: Duration) {
        self.wake.wait(longest).await;
    }
}

/// A statement with its parameters.
type Query<'q> = sqlx::query::Query<'q, sqlx::MySql, sqlx::mysql::MySqlArguments>;

/// Of a statement, the parameters that say which claim must still hold.
fn holds<'q>(statement: Query<'q>, claim: &Claim) -> Query<'q> {
    statement.bind(claim.seq).bind(claim.fence).bind(claim.token.hash())
}

/// A claim as the statements want it.
#[derive(Serialize)]
struct Beat {
    seq: i64,
    fence: i64,
    token: String,
    lease: i64,
}

async fn heartbeat(connection: &mut MySqlConnection, claims: &[Claim]) -> Result<Vec<(i64, i64)>, Error> {
    let beats = list(claims.iter().map(|claim| Beat {
        seq: claim.seq,
        fence: claim.fence,
        token: hex::encode(claim.token.hash()),
        lease: micros(claim.lease),
    }));
    let find = sqlx::query_scalar(HEARTBEAT_FIND).bind(&beats).fetch_all(&mut *connection);
    let held: Vec<i64> = find.await.map_err(classify)?;
    if !held.is_empty() {
        let beat = sqlx::query(HEARTBEAT).bind(list(held)).bind(&beats);
        beat.execute(&mut *connection).await.map_err(classify)?;
    }
    sqlx::query_as(HEARTBEAT_LOST).bind(beats).fetch_all(connection).await.map_err(classify)
}

/// Kept in any case: an attempt that no longer holds its message is recorded all the same.
async fn settle(connection: &mut MySqlConnection, claim: &Claim, end: &Failure, usage: &Usage) -> Result<bool, Error> {
    let groups = Groups::one(&claim.function, claim.group.as_deref());
    groups.lock(connection).await?;
    let hold = holds(sqlx::query(HOLD), claim).fetch_optional(&mut *connection);
    let is_held = hold.await.map_err(classify)?.is_some();
    match end.retry_after {
        Some(after) if is_held => retry(connection, claim, end, micros(after)).await?,
        None if is_held => ended::end(connection, &[claim.seq], State::Dead, end.kind, &end.message).await?,
        _ => {}
    }
    record_attempt(connection, claim, end, usage).await?;
    groups.order(connection).await?;
    Ok(is_held)
}

async fn retry(connection: &mut MySqlConnection, claim: &Claim, end: &Failure, after: i64) -> Result<(), Error> {
    let retry = sqlx::query(RETRY).bind(after).bind(after <= 0).bind(end.kind).bind(&end.message).bind(claim.seq);
    retry.execute(connection).await.map(drop).map_err(classify)
}

async fn record_attempt(
    connection: &mut MySqlConnection,
    claim: &Claim,
    end: &Failure,
    usage: &Usage,
) -> Result<(), Error> {
    let attempt = sqlx::query(ATTEMPT)
        .bind(claim.seq)
        .bind(claim.fence)
        .bind(number(claim.attempt))
        .bind(&claim.function)
        .bind(claim.version)
        .bind(&claim.host)
        .bind(claim.claimed_at.0)
        .bind(usage.started_at.map(|at| at.0))
        .bind(usage.ended_at.map(|at| at.0))
        .bind(end.kind)
        .bind(&end.message);
    bind_usage(attempt, usage).execute(connection).await.map(drop).map_err(classify)
}

/// Fuel, statements, time in them, published, logs, logs dropped.
fn bind_usage<'q>(query: Query<'q>, usage: &Usage) -> Query<'q> {
    query
        .bind(usage.fuel.map(|fuel| i64::try_from(fuel).unwrap_or(i64::MAX)))
        .bind(number(usage.statements))
        .bind(micros(usage.sql_time))
        .bind(number(usage.published))
        .bind(logs(usage))
        .bind(number(usage.logs_dropped))
}

/// The lines of a log, as the table has them.
pub(super) fn logs(usage: &Usage) -> String {
    let line = |line: &LogLine| LogRecord {
        at: line.at,
        level: line.level.into(),
        message: line.message.clone(),
        fields: line.fields.clone(),
    };
    let lines: Vec<LogRecord> = usage.logs.iter().map(line).collect();
    serde_json::to_string(&lines).unwrap_or_else(|_| "[]".into())
}

/// Busy if the old session does not let go of the message in time.
async fn resolve(connection: &mut MySqlConnection, seq: i64, fence: i64) -> Result<Known, Error> {
    sqlx::query(RESOLVE_WAIT).bind(seq).execute(&mut *connection).await.map_err(classify)?;
    let found = sqlx::query(RESOLVE).bind(seq).bind(seq).fetch_optional(connection).await.map_err(classify)?;
    Ok(match found.map(|row| (row.get::<String, _>(0), row.get::<i64, _>(1))) {
        Some((state, found)) if found == fence && state == "completed" => Known::Committed,
        Some((state, found)) if found == fence && state == "running" => Known::RolledBack,
        _ => Known::Fenced,
    })
}
