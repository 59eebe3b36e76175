//! The queue's operations on SQLite. Each is one transaction on the writer; each `.sql` file is named like its step.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;

use super::connection::Connection;
use super::session::{ACKNOWLEDGE, SqliteSession};
use super::{Error, Sqlite, accept, classify, group};
use crate::clock::{Timestamp, micros};
use crate::crash::{self, Point};
use crate::message::{Claim, Claimed, Event, Message, Token, Usage};
use crate::store::{ClaimRequest, Enqueued, Failure, Key, Known, Lane, LogRecord, Queue, Recovered, Session, Target};

const PROMOTE: &str = include_str!("promote.sql");
const CLAIM: &str = include_str!("claim.sql");
const CLAIMED_MESSAGE: &str = include_str!("claimed_message.sql");
const RATE_READ: &str = include_str!("rate_read.sql");
const RATE_WRITE: &str = include_str!("rate_write.sql");
const BEGIN: &str = include_str!("begin.sql");
const HEARTBEAT: &str = include_str!("heartbeat.sql");
const RECOVER: [&str; 4] = [
    include_str!("recover_attempts.sql"),
    include_str!("recover_end.sql"),
    include_str!("recover_remove.sql"),
    include_str!("recover_free.sql"),
];
const RECOVER_GROUPS: &str = include_str!("recover_groups.sql");
const SUSPECTS: &str = include_str!("suspects.sql");
const RETRY: &str = include_str!("retry.sql");
const BURY: &str = include_str!("bury.sql");
const ATTEMPT: &str = include_str!("attempt.sql");
const RESOLVE: &str = include_str!("resolve.sql");

#[async_trait]
impl Queue for Sqlite {
    async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.clock.now())
    }

    async fn enqueue(&self, event: Event, target: Target, key: Option<Key>) -> Result<Enqueued, Error> {
        let enqueue =
            self.transaction(move |to| Box::pin(async move { accept::enqueue(to, &event, &target, key).await }));
        let enqueued = enqueue.await?;
        if matches!(enqueued, Enqueued::Accepted(_)) {
            crash::point(Point::AcceptCommitted);
            self.work.notify_one();
        }
        Ok(enqueued)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, Error> {
        let epoch = self.epoch;
        self.transaction(move |from| Box::pin(async move { claim(from, &request, epoch).await })).await
    }

    async fn begin(&self, claim: &Claim) -> Result<bool, Error> {
        let claim = claim.clone();
        self.transaction(move |of| Box::pin(async move { begin(of, &claim).await })).await
    }

    async fn heartbeat(&self, claims: Vec<Claim>) -> Result<Vec<(i64, i64)>, Error> {
        self.transaction(move |of| Box::pin(async move { heartbeat(of, &claims).await })).await
    }

    async fn recover(&self, as_of: Timestamp, functions: Vec<String>) -> Result<Recovered, Error> {
        let epoch = self.epoch;
        let recover = self.transaction(move |of| Box::pin(async move { recover(of, epoch, as_of, &functions).await }));
        let recovered = recover.await?;
        if recovered.suspects {
            self.work.notify_one();
        }
        Ok(recovered)
    }

    async fn settle(&self, claim: &Claim, end: Failure, usage: Usage) -> Result<bool, Error> {
        let claim = claim.clone();
        self.transaction(move |of| Box::pin(async move { settle(of, &claim, &end, &usage).await })).await
    }

    async fn resolve(&self, claim: &Claim) -> Result<Known, Error> {
        let (seq, fence) = (claim.seq, claim.fence);
        self.writer
            .run(move |connection| {
                Box::pin(async move {
                    let row =
                        sqlx::query(RESOLVE).bind(seq).fetch_optional(&mut connection.sql).await.map_err(classify)?;
                    Ok(match row.map(|row| (row.get::<String, _>(0), row.get::<i64, _>(1))) {
                        Some((state, found)) if found == fence && state == "completed" => Known::Committed,
                        Some((state, found)) if found == fence && state == "running" => Known::RolledBack,
                        _ => Known::Fenced,
                    })
                })
            })
            .await
    }

    fn interrupt(&self, claim: &Claim) {
        self.writer.walls.interrupt((claim.seq, claim.fence));
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(SqliteSession::new(self.writer.clone(), self.work.clone(), false))
    }

    fn rehearsal(&self) -> Box<dyn Session> {
        Box::new(SqliteSession::new(self.writer.clone(), self.work.clone(), true))
    }

    async fn wait(&self, longest: Duration) {
        let _ = tokio::time::timeout(longest, self.work.notified()).await; // Either way there may be something.
    }
}

async fn claim(connection: &mut Connection, request: &ClaimRequest, epoch: i64) -> Result<Vec<Claimed>, Error> {
    let now = connection.clock.now();
    sqlx::query(PROMOTE).bind(now.0).execute(&mut connection.sql).await.map_err(classify)?;
    let token = Token::random();
    let mut claimed = Vec::new();
    for lane in &request.lanes {
        let room = request.limit.saturating_sub(count(&claimed)).min(lane.limit);
        if room == 0 {
            continue;
        }
        let Some(rate) = lane.rate else {
            claim_lane(connection, request, lane, Call { epoch, token: &token, room, now }, &mut claimed).await?;
            continue;
        };
        let read = sqlx::query_scalar(RATE_READ).bind(&lane.function).fetch_optional(&mut connection.sql);
        let next = Timestamp(read.await.map_err(classify)?.unwrap_or_default());
        // Nothing else may start while a suspect waits, so it waits for no rate. It counts all the same.
        let room = if request.suspects { room } else { room.min(rate.room(next, now)) };
        let before = count(&claimed);
        if room == 0 {
            continue;
        }
        claim_lane(connection, request, lane, Call { epoch, token: &token, room, now }, &mut claimed).await?;
        let next = rate.after(next, now, count(&claimed) - before);
        let write = sqlx::query(RATE_WRITE).bind(&lane.function).bind(next.0);
        write.execute(&mut connection.sql).await.map_err(classify)?;
    }
    if !claimed.is_empty() {
        crash::point(Point::ClaimBeforeCommit);
    }
    Ok(claimed)
}

fn count(claimed: &[Claimed]) -> u32 {
    u32::try_from(claimed.len()).unwrap_or(u32::MAX)
}

struct Call<'a> {
    epoch: i64,
    token: &'a Token,
    room: u32,
    now: Timestamp,
}

async fn claim_lane(
    connection: &mut Connection,
    request: &ClaimRequest,
    lane: &Lane,
    call: Call<'_>,
    claimed: &mut Vec<Claimed>,
) -> Result<(), Error> {
    let now = call.now;
    let claim = sqlx::query(CLAIM)
        .bind(call.token.hash())
        .bind(call.epoch)
        .bind(&request.host)
        .bind(lane.version)
        .bind(lane.contract.as_str())
        .bind(lane.max_attempts)
        .bind(now.0)
        .bind(micros(lane.lease))
        .bind(&lane.function)
        .bind(request.suspects)
        .bind(call.room);
    let mut rows = claim.fetch_all(&mut connection.sql).await.map_err(classify)?;
    rows.sort_by_key(|row| row.get::<i64, _>(0)); // RETURNING promises no order.
    for row in rows {
        let message = message(connection, row.get(0)).await?;
        let claim = Claim {
            seq: row.get(0),
            fence: row.get(1),
            token: call.token.clone(),
            attempt: row.get(2),
            attempts_before: row.get(3),
            function: lane.function.clone(),
            group: message.group.clone(),
            version: lane.version,
            contract: lane.contract,
            lease: lane.lease,
            claimed_at: now,
            host: request.host.clone(),
        };
        claimed.push(Claimed { claim, message });
    }
    Ok(())
}

async fn message(connection: &mut Connection, seq: i64) -> Result<Message, Error> {
    let row = sqlx::query(CLAIMED_MESSAGE).bind(seq).fetch_one(&mut connection.sql).await.map_err(classify)?;
    Ok(Message {
        id: row.get(0),
        function: row.get(1),
        topic: row.get(2),
        group: row.get(3),
        content_type: row.get(4),
        headers: serde_json::from_str(row.get(5))
            .map_err(|e| Error::Broken(format!("headers of message {seq}: {e}")))?,
        body: row.get(6),
        accepted_at: Timestamp(row.get(7)),
    })
}

async fn begin(connection: &mut Connection, claim: &Claim) -> Result<bool, Error> {
    let now = connection.clock.now();
    let begin = sqlx::query(BEGIN).bind(claim.seq).bind(claim.fence).bind(claim.token.hash());
    let begin = begin.bind(now.0).bind(micros(claim.lease));
    let begun = begin.execute(&mut connection.sql).await.map_err(classify)?.rows_affected() == 1;
    crash::point(Point::BeginBeforeCommit);
    Ok(begun)
}

async fn heartbeat(connection: &mut Connection, claims: &[Claim]) -> Result<Vec<(i64, i64)>, Error> {
    let now = connection.clock.now();
    let mut lost = Vec::new();
    for claim in claims {
        let until = now.plus(claim.lease);
        let beat = sqlx::query(HEARTBEAT).bind(claim.seq).bind(claim.fence).bind(claim.token.hash()).bind(until.0);
        if beat.execute(&mut connection.sql).await.map_err(classify)?.rows_affected() != 1 {
            lost.push((claim.seq, claim.fence));
        }
    }
    Ok(lost)
}

async fn recover(
    connection: &mut Connection,
    epoch: i64,
    as_of: Timestamp,
    functions: &[String],
) -> Result<Recovered, Error> {
    let groups = sqlx::query(RECOVER_GROUPS).bind(epoch).bind(as_of.0).fetch_all(&mut connection.sql);
    let groups = groups.await.map_err(classify)?;
    let sql = &mut connection.sql;
    let [attempts, end, remove, free] = RECOVER.map(|text| sqlx::query(text).bind(epoch).bind(as_of.0));
    let lost = attempts.execute(&mut *sql).await.map_err(classify)?.rows_affected();
    if lost > 0 {
        crash::point(Point::RecoverFound);
    }
    let ended = end.fetch_all(&mut *sql).await.map_err(classify)?;
    remove.execute(&mut *sql).await.map_err(classify)?;
    let freed = free.execute(sql).await.map_err(classify)?;
    for row in groups {
        group::order(connection, row.get(0), row.get(1), None).await?;
    }
    let names = serde_json::to_string(functions).unwrap_or_else(|_| "[]".into());
    let suspects = sqlx::query_scalar(SUSPECTS).bind(names).fetch_one(&mut connection.sql).await.map_err(classify)?;
    let dead = ended.iter().filter(|row| row.get::<&str, _>(0) == "dead").count() as u64;
    Ok(Recovered { freed: freed.rows_affected(), dead, in_doubt: ended.len() as u64 - dead, suspects })
}

async fn settle(connection: &mut Connection, claim: &Claim, end: &Failure, usage: &Usage) -> Result<bool, Error> {
    let now = connection.clock.now();
    record_attempt(connection, claim, end.kind, Some(&end.message), usage).await?;
    let holds = |sql| sqlx::query(sql).bind(claim.seq).bind(claim.fence).bind(claim.token.hash());
    if let Some(after) = end.retry_after {
        let due = now.plus(after);
        let retry = holds(RETRY).bind(due.0).bind(end.kind).bind(&end.message);
        let settled = retry.execute(&mut connection.sql).await.map_err(classify)?;
        group::after(connection, claim, None).await?;
        return Ok(settled.rows_affected() == 1);
    }
    let bury = holds(BURY).bind(now.0).bind(end.kind).bind(&end.message);
    if bury.execute(&mut connection.sql).await.map_err(classify)?.rows_affected() == 0 {
        return Ok(false);
    }
    group::after(connection, claim, Some(claim.seq)).await?;
    Ok(holds(ACKNOWLEDGE).execute(&mut connection.sql).await.map_err(classify)?.rows_affected() == 1)
}

pub(super) async fn record_attempt(
    connection: &mut Connection,
    claim: &Claim,
    outcome: &str,
    error: Option<&str>,
    usage: &Usage,
) -> Result<(), Error> {
    let logs: Vec<LogRecord> = usage
        .logs
        .iter()
        .map(|line| LogRecord {
            at: line.at,
            level: line.level.into(),
            message: line.message.clone(),
            fields: line.fields.clone(),
        })
        .collect();
    let ended = usage.ended_at.unwrap_or_else(|| connection.clock.now());
    let attempt = sqlx::query(ATTEMPT)
        .bind(claim.seq)
        .bind(claim.fence)
        .bind(claim.attempt)
        .bind(&claim.function)
        .bind(claim.version)
        .bind(&claim.host)
        .bind(claim.claimed_at.0)
        .bind(usage.started_at.map(|at| at.0))
        .bind(ended.0)
        .bind(outcome)
        .bind(error)
        .bind(usage.fuel.map(|fuel| i64::try_from(fuel).unwrap_or(i64::MAX)))
        .bind(usage.statements)
        .bind(micros(usage.sql_time))
        .bind(usage.published)
        .bind(serde_json::to_string(&logs).unwrap_or_else(|_| "[]".into()))
        .bind(usage.logs_dropped);
    attempt.execute(&mut connection.sql).await.map_err(classify)?;
    Ok(())
}
