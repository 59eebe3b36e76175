//! The queue's operations on SQLite. Each is one transaction on the writer; each `.sql` file is named like its step.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::params;

use super::acknowledge::acknowledge;
use super::connection::Connection;
use super::session::SqliteSession;
use super::{Error, Sqlite, accept, group};
use crate::clock::{Timestamp, micros};
use crate::crash::{self, Point};
use crate::message::{Claim, Claimed, Message, Token, Usage};
use crate::store::{Accept, ClaimRequest, Enqueued, Failure, Known, Lane, LogRecord, Queue, Recovered, Session};

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

    async fn enqueue_all(&self, list: Arc<[Accept]>) -> Result<Vec<Enqueued>, Error> {
        let enqueue = self.transaction(move |to| {
            let accept = |Accept { event, target, key }: &Accept| accept::enqueue(to, event, target, key.clone());
            list.iter().map(accept).collect::<Result<Vec<_>, _>>()
        });
        let answers = enqueue.await?;
        if answers.iter().any(Enqueued::is_accepted) {
            crash::point(Point::AcceptCommitted);
            self.work.notify_one();
        }
        Ok(answers)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, Error> {
        let epoch = self.epoch;
        self.transaction(move |from| claim(from, &request, epoch)).await
    }

    async fn begin(&self, claim: &Claim) -> Result<bool, Error> {
        let claim = claim.clone();
        self.transaction(move |of| begin(of, &claim)).await
    }

    async fn heartbeat(&self, claims: Vec<Claim>) -> Result<Vec<(i64, i64)>, Error> {
        self.transaction(move |of| heartbeat(of, &claims)).await
    }

    async fn recover(&self, as_of: Timestamp, functions: Vec<String>) -> Result<Recovered, Error> {
        let epoch = self.epoch;
        let recovered = self.transaction(move |of| recover(of, epoch, as_of, &functions)).await?;
        if recovered.suspects {
            self.work.notify_one();
        }
        Ok(recovered)
    }

    async fn settle(&self, claim: &Claim, end: Failure, usage: Usage) -> Result<bool, Error> {
        let claim = claim.clone();
        self.transaction(move |of| settle(of, &claim, &end, &usage)).await
    }

    async fn resolve(&self, claim: &Claim) -> Result<Known, Error> {
        let (seq, fence) = (claim.seq, claim.fence);
        self.writer
            .run(move |connection| {
                let found: Option<(String, i64)> =
                    connection.optional(RESOLVE, [seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(match found {
                    Some((state, found)) if found == fence && state == "completed" => Known::Committed,
                    Some((state, found)) if found == fence && state == "running" => Known::RolledBack,
                    _ => Known::Fenced,
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

fn claim(connection: &Connection, request: &ClaimRequest, epoch: i64) -> Result<Vec<Claimed>, Error> {
    let now = connection.clock.now();
    connection.execute(PROMOTE, [now.0])?;
    let token = Token::random();
    let mut claimed = Vec::new();
    for lane in &request.lanes {
        let room = request.limit.saturating_sub(count(&claimed)).min(lane.limit);
        if room == 0 {
            continue;
        }
        let Some(rate) = lane.rate else {
            claim_lane(connection, request, lane, Call { epoch, token: &token, room, now }, &mut claimed)?;
            continue;
        };
        let read = connection.optional(RATE_READ, [&lane.function], |row| row.get(0))?;
        let next = Timestamp(read.unwrap_or_default());
        // Nothing else may start while a suspect waits, so it waits for no rate. It counts all the same.
        let room = if request.suspects { room } else { room.min(rate.room(next, now)) };
        let before = count(&claimed);
        if room == 0 {
            continue;
        }
        claim_lane(connection, request, lane, Call { epoch, token: &token, room, now }, &mut claimed)?;
        let next = rate.after(next, now, count(&claimed) - before);
        connection.execute(RATE_WRITE, (&lane.function, next.0))?;
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

/// What a claim finds out about a row: seq, fence, attempt, attempts before.
type Found = (i64, i64, u32, u32);

fn claim_lane(
    connection: &Connection,
    request: &ClaimRequest,
    lane: &Lane,
    call: Call<'_>,
    claimed: &mut Vec<Claimed>,
) -> Result<(), Error> {
    let now = call.now;
    let claim = params![
        call.token.hash(),
        call.epoch,
        request.host,
        lane.version,
        lane.contract.as_str(),
        lane.max_attempts,
        now.0,
        micros(lane.lease),
        lane.function,
        request.suspects,
        call.room,
    ];
    let mut found: Vec<Found> =
        connection.all(CLAIM, claim, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    found.sort_unstable(); // RETURNING promises no order.
    for (seq, fence, attempt, attempts_before) in found {
        let message = message(connection, seq)?;
        let claim = Claim {
            seq,
            fence,
            token: call.token.clone(),
            attempt,
            attempts_before,
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

fn message(connection: &Connection, seq: i64) -> Result<Message, Error> {
    let (mut message, headers) = connection.one(CLAIMED_MESSAGE, [seq], |row| {
        let message = Message {
            id: row.get(0)?,
            event: row.get(8)?,
            function: row.get(1)?,
            topic: row.get(2)?,
            group: row.get(3)?,
            content_type: row.get(4)?,
            headers: Vec::new(),
            body: row.get(6)?,
            accepted_at: Timestamp(row.get(7)?),
        };
        Ok((message, row.get::<_, String>(5)?))
    })?;
    message.headers =
        serde_json::from_str(&headers).map_err(|e| Error::Broken(format!("headers of message {seq}: {e}")))?;
    Ok(message)
}

fn begin(connection: &Connection, claim: &Claim) -> Result<bool, Error> {
    let now = connection.clock.now();
    let begin = (claim.seq, claim.fence, claim.token.hash(), now.0, micros(claim.lease));
    let begun = connection.execute(BEGIN, begin)? == 1;
    crash::point(Point::BeginBeforeCommit);
    Ok(begun)
}

fn heartbeat(connection: &Connection, claims: &[Claim]) -> Result<Vec<(i64, i64)>, Error> {
    let now = connection.clock.now();
    let mut lost = Vec::new();
    for claim in claims {
        let until = now.plus(claim.lease);
        if connection.execute(HEARTBEAT, (claim.seq, claim.fence, claim.token.hash(), until.0))? != 1 {
            lost.push((claim.seq, claim.fence));
        }
    }
    Ok(lost)
}

fn recover(connection: &Connection, epoch: i64, as_of: Timestamp, functions: &[String]) -> Result<Recovered, Error> {
    let lost = (epoch, as_of.0);
    let groups: Vec<(String, String)> = connection.all(RECOVER_GROUPS, lost, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let [attempts, end, remove, free] = RECOVER;
    if connection.execute(attempts, lost)? > 0 {
        crash::point(Point::RecoverFound);
    }
    let ended: Vec<String> = connection.all(end, lost, |row| row.get(0))?;
    connection.execute(remove, lost)?;
    let freed = connection.execute(free, lost)? as u64;
    for (function, group) in groups {
        group::order(connection, &function, &group, None)?;
    }
    let suspects = connection.one(SUSPECTS, [super::json(functions)], |row| row.get(0))?;
    let dead = ended.iter().filter(|state| *state == "dead").count() as u64;
    Ok(Recovered { freed, dead, in_doubt: ended.len() as u64 - dead, suspects })
}

fn settle(connection: &Connection, claim: &Claim, end: &Failure, usage: &Usage) -> Result<bool, Error> {
    let now = connection.clock.now();
    record_attempt(connection, claim, end.kind, Some(&end.message), usage)?;
    let settle = |sql, at: Timestamp| {
        connection.execute(sql, (claim.seq, claim.fence, claim.token.hash(), at.0, end.kind, &end.message))
    };
    if let Some(after) = end.retry_after {
        let settled = settle(RETRY, now.plus(after))? == 1;
        group::after(connection, claim, None)?;
        return Ok(settled);
    }
    if settle(BURY, now)? == 0 {
        return Ok(false);
    }
    group::after(connection, claim, Some(claim.seq))?;
    acknowledge(connection, &[claim])
}

pub(super) fn record_attempt(
    connection: &Connection,
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
    let attempt = params![
        claim.seq,
        claim.fence,
        claim.attempt,
        claim.function,
        claim.version,
        claim.host,
        claim.claimed_at.0,
        usage.started_at.map(|at| at.0),
        ended.0,
        outcome,
        error,
        usage.fuel.map(|fuel| i64::try_from(fuel).unwrap_or(i64::MAX)),
        usage.statements,
        micros(usage.sql_time),
        usage.published,
        super::json(&logs),
        usage.logs_dropped,
    ];
    connection.execute(ATTEMPT, attempt).map(drop)
}
