//! The queue's operations on Postgres. The order of statements in each is that of 0001_engine.sql.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Executor, Row};

use super::accept::{self, Query};
use super::group::Groups;
use super::running::{self, Backend, key};
use super::session::PostgresSession;
use super::{Error, Postgres, classify, number, recover, unsigned};
use crate::clock::{Timestamp, micros};
use crate::crash::{self, Point};
use crate::message::{Claim, Claimed, LogLine, Message, Token, Usage};
use crate::store::{Accept, ClaimRequest, Enqueued, Failure, Known, Lane, LogRecord, Queue, Recovered, Session};

const PROMOTE: &str = include_str!("promote.sql");
const CLAIM: &str = include_str!("claim.sql");
const RATE_READ: &str = include_str!("rate_read.sql");
const RATE_WRITE: &str = include_str!("rate_write.sql");
const BEGIN: &str = include_str!("begin.sql");
const HEARTBEAT: &str = include_str!("heartbeat.sql");
const SUSPECTS: &str = include_str!("suspects.sql");
const RETRY: &str = include_str!("retry.sql");
const BURY: &str = include_str!("bury.sql");
const ATTEMPT: &str = include_str!("attempt.sql");
const RESOLVE_WAIT: &str = include_str!("resolve_wait.sql");
const RESOLVE: &str = include_str!("resolve.sql");

/// How often the session of an unknown commit is ended before somebody is told to ask again.
const RESOLVE_ROUNDS: u32 = 3;

/// Between two looks for messages whose time has come, however often is claimed.
const PROMOTE_EVERY: Duration = Duration::from_millis(20);

/// When this host looked last.
#[derive(Default)]
pub(super) struct Promoted(Mutex<Option<Instant>>);

impl Promoted {
    fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= PROMOTE_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[async_trait]
impl Queue for Postgres {
    async fn now(&self) -> Result<Timestamp, Error> {
        self.engine.run(|connection| Box::pin(accept::now(connection))).await
    }

    async fn enqueue_all(&self, list: Arc<[Accept]>) -> Result<Vec<Enqueued>, Error> {
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
        if self.promoted.is_due() {
            let promote = self.engine.run(|connection| {
                Box::pin(async move { connection.execute(PROMOTE).await.map(drop).map_err(classify) })
            });
            promote.await?;
        }
        self.engine.transaction(move |from| Box::pin(async move { claim(from, &request).await })).await
    }

    async fn begin(&self, claim: &Claim) -> Result<bool, Error> {
        let claim = claim.clone();
        let begin = self.engine.run(move |connection| {
            Box::pin(async move {
                let begin = holds(BEGIN, &claim).bind(micros(claim.lease));
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
        self.engine.run(move |connection| Box::pin(async move { heartbeat(connection, &claims).await })).await
    }

    async fn recover(&self, as_of: Timestamp, functions: Vec<String>) -> Result<Recovered, Error> {
        let mut recovered = recover::recover(&self.engine, as_of).await?;
        let suspects = self.engine.run(move |connection| {
            Box::pin(async move {
                sqlx::query_scalar(SUSPECTS).bind(functions).fetch_one(connection).await.map_err(classify)
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
        // A text holds no NUL here, and a guest's reason may.
        let end = Failure { message: end.message.replace('\0', "\u{fffd}"), ..end };
        self.engine.transaction(move |of| Box::pin(async move { settle(of, &claim, &end, &usage).await })).await
    }

    async fn resolve(&self, claim: &Claim) -> Result<Known, Error> {
        for _ in 0..RESOLVE_ROUNDS {
            let (seq, fence) = (claim.seq, claim.fence);
            let resolve = self.engine.transaction(move |of| Box::pin(resolve(of, seq, fence)));
            if let Some(known) = resolve.await? {
                self.running.leave(key(claim));
                return Ok(known);
            }
            if let Some(backend) = self.running.backend(key(claim)) {
                running::end(&self.engine, backend).await?;
            }
        }
        Err(Error::Unavailable("the session of a commit does not end".into()))
    }

    fn interrupt(&self, claim: &Claim) {
        let Some(Backend { process, .. }) = self.running.stop(key(claim)) else { return };
        let (engine, running, key) = (self.engine.clone(), Arc::clone(&self.running), key(claim));
        self.engine.spawn(async move {
            let _ = running::cancel(&engine, process).await; // A wish: the fence makes sure.
            tokio::time::sleep(Duration::from_secs(1)).await;
            if running.backend(key).is_some_and(|backend| backend.process == process) {
                let _ = running::terminate(&engine, process).await; // As above.
            }
        });
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(PostgresSession::new(self, false))
    }

    fn rehearsal(&self) -> Box<dyn Session> {
        Box::new(PostgresSession::new(self, true))
    }

    async fn wait(&self, longest: Duration) {
        self.wake.wait(longest).await;
    }
}

/// A statement on what this very claim holds.
fn holds<'q>(sql: &'static str, claim: &Claim) -> Query<'q> {
    sqlx::query(sql).bind(claim.seq).bind(claim.fence).bind(claim.token.hash())
}

async fn claim(connection: &mut PgConnection, request: &ClaimRequest) -> Result<Vec<Claimed>, Error> {
    let limited: Vec<&str> =
        request.lanes.iter().filter(|lane| is_limited(lane)).map(|lane| lane.function.as_str()).collect();
    let mut places = Vec::new();
    if !limited.is_empty() {
        let read = sqlx::query(RATE_READ).bind(limited).fetch_all(&mut *connection).await.map_err(classify)?;
        places = read.iter().map(|row| (row.get(0), Timestamp(row.get(1)), Timestamp(row.get(2)))).collect();
    }
    let place = |lane: &Lane| places.iter().find(|(name, ..): &&(String, _, _)| *name == lane.function);
    let mut lanes = Vec::new();
    for lane in &request.lanes {
        let room = match (place(lane), lane.rate) {
            (None, _) if is_limited(lane) => 0, // Another host claims from it at this moment.
            // Nothing else may start while a suspect waits, so it waits for no rate. It counts all the same.
            (Some((_, next, now)), Some(rate)) if !request.suspects => lane.limit.min(rate.room(*next, *now)),
            _ => lane.limit,
        };
        if room > 0 {
            lanes.push((lane, room));
        }
    }
    if lanes.is_empty() {
        return Ok(Vec::new());
    }
    let claimed = claim_lanes(connection, request, &lanes).await?;
    for (lane, _) in lanes {
        let started = claimed.iter().filter(|claimed| claimed.claim.function == lane.function).count();
        if let (Some(rate), Some((name, next, now))) = (lane.rate, place(lane))
            && started > 0
        {
            let next = rate.after(*next, *now, u32::try_from(started).unwrap_or(u32::MAX));
            let write = sqlx::query(RATE_WRITE).bind(name).bind(next.0);
            write.execute(&mut *connection).await.map_err(classify)?;
        }
    }
    if !claimed.is_empty() {
        crash::point(Point::ClaimBeforeCommit);
    }
    Ok(claimed)
}

/// Whether it has a limit that holds over all hosts: then its function's row is locked while it is claimed from.
fn is_limited(lane: &Lane) -> bool {
    lane.rate.is_some() || lane.concurrency.is_some()
}

async fn claim_lanes(
    connection: &mut PgConnection,
    request: &ClaimRequest,
    lanes: &[(&Lane, u32)],
) -> Result<Vec<Claimed>, Error> {
    let token = Token::random();
    let each = |get: fn(&Lane) -> i64| lanes.iter().map(|(lane, _)| get(lane)).collect::<Vec<_>>();
    let claim = sqlx::query(CLAIM)
        .bind(token.hash())
        .bind(&request.host)
        .bind(request.suspects)
        .bind(number(request.limit))
        .bind(lanes.iter().map(|(lane, _)| lane.function.as_str()).collect::<Vec<_>>())
        .bind(each(|lane| lane.version))
        .bind(lanes.iter().map(|(lane, _)| lane.contract.as_str()).collect::<Vec<_>>())
        .bind(each(|lane| number(lane.max_attempts)))
        .bind(each(|lane| micros(lane.lease)))
        .bind(lanes.iter().map(|(_, room)| number(*room)).collect::<Vec<_>>())
        .bind(lanes.iter().map(|(lane, _)| lane.concurrency.map(number)).collect::<Vec<_>>());
    let mut rows = claim.fetch_all(connection).await.map_err(classify)?;
    rows.sort_by_key(|row| row.get::<i64, _>("seq")); // RETURNING promises no order.
    let mut claimed = Vec::with_capacity(rows.len());
    // Lane by lane, most urgent first.
    for (lane, _) in lanes {
        for row in rows.iter().filter(|row| row.get::<&str, _>("function") == lane.function) {
            claimed.push(claimed_of(row, lane, &token, &request.host)?);
        }
    }
    Ok(claimed)
}

fn claimed_of(row: &PgRow, lane: &Lane, token: &Token, host: &str) -> Result<Claimed, Error> {
    let seq = row.get("seq");
    let message = Message {
        id: row.get("id"),
        event: row.get("event"),
        function: row.get("function"),
        topic: row.get("topic"),
        group: row.get("group_key"),
        content_type: row.get("content_type"),
        headers: serde_json::from_str(row.get("headers"))
            .map_err(|e| Error::Broken(format!("headers of message {seq}: {e}")))?,
        body: row.get("body"),
        accepted_at: Timestamp(row.get("accepted_at")),
    };
    let claim = Claim {
        seq,
        fence: row.get("fence"),
        token: token.clone(),
        attempt: unsigned(row.get("attempt")),
        attempts_before: unsigned(row.get("attempts_before")),
        function: lane.function.clone(),
        group: message.group.clone(),
        version: lane.version,
        contract: lane.contract,
        lease: lane.lease,
        claimed_at: Timestamp(row.get("claimed_at")),
        host: host.to_owned(),
    };
    Ok(Claimed { claim, message })
}

async fn heartbeat(connection: &mut PgConnection, claims: &[Claim]) -> Result<Vec<(i64, i64)>, Error> {
    let each = |get: fn(&Claim) -> i64| claims.iter().map(get).collect::<Vec<_>>();
    let beat = sqlx::query_as(HEARTBEAT)
        .bind(each(|claim| claim.seq))
        .bind(each(|claim| claim.fence))
        .bind(claims.iter().map(|claim| claim.token.hash()).collect::<Vec<_>>())
        .bind(each(|claim| micros(claim.lease)));
    beat.fetch_all(connection).await.map_err(classify)
}

/// Kept in any case: an attempt that no longer holds its message is recorded all the same.
async fn settle(connection: &mut PgConnection, claim: &Claim, end: &Failure, usage: &Usage) -> Result<bool, Error> {
    let groups = Groups::one(&claim.function, claim.group.as_deref());
    groups.lock(connection).await?;
    let end_it = match end.retry_after {
        Some(after) => holds(RETRY, claim).bind(micros(after)),
        None => holds(BURY, claim),
    };
    let settled = end_it.bind(end.kind).bind(&end.message).execute(&mut *connection).await.map_err(classify)?;
    record_attempt(connection, claim, end, usage).await?;
    groups.order(connection).await?;
    Ok(settled.rows_affected() == 1)
}

async fn record_attempt(
    connection: &mut PgConnection,
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

/// None if the old session does not let go of the message in time.
async fn resolve(connection: &mut PgConnection, seq: i64, fence: i64) -> Result<Option<Known>, Error> {
    connection.execute("SET LOCAL lock_timeout = '2s'").await.map_err(classify)?;
    connection.execute("SAVEPOINT wait").await.map_err(classify)?;
    match sqlx::query(RESOLVE_WAIT).bind(seq).execute(&mut *connection).await {
        Ok(_) => {}
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => {
            connection.execute("ROLLBACK TO wait").await.map_err(classify)?;
            return Ok(None);
        }
        Err(error) => return Err(classify(error)),
    }
    let found = sqlx::query(RESOLVE).bind(seq).fetch_optional(connection).await.map_err(classify)?;
    let known = match found.map(|row| (row.get::<String, _>(0), row.get::<i64, _>(1))) {
        Some((state, found)) if found == fence && state == "completed" => Known::Committed,
        Some((state, found)) if found == fence && state == "running" => Known::RolledBack,
        _ => Known::Fenced,
    };
    Ok(Some(known))
}
