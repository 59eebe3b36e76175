//! Claims: messages whose time has come, and those of each function as far as its limits let them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::list::list;
use super::{Error, classify, number, unsigned};
use crate::clock::{Timestamp, micros};
use crate::crash::{self, Point};
use crate::message::{Claim, Claimed, Message, Token};
use crate::store::{ClaimRequest, Lane};

const PROMOTE_LOOK: &str = include_str!("promote_look.sql");
const PROMOTE_FIND: &str = include_str!("promote_find.sql");
const PROMOTE: &str = include_str!("promote.sql");
const LANES: &str = include_str!("lanes.sql");
const CLAIM_FIND: &str = include_str!("claim_find.sql");
const CLAIM: &str = include_str!("claim.sql");
const CLAIMED: &str = include_str!("claimed.sql");
const RATE_READ: &str = include_str!("rate_read.sql");
const RATE_WRITE: &str = include_str!("rate_write.sql");

/// Between two looks for messages whose time has come, however often is claimed.
const PROMOTE_EVERY: Duration = Duration::from_millis(20);

/// When this host looked last.
#[derive(Default)]
pub(super) struct Promoted(Mutex<Option<Instant>>);

impl Promoted {
    pub(super) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= PROMOTE_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

pub(super) async fn is_to_promote(connection: &mut MySqlConnection) -> Result<bool, Error> {
    sqlx::query_scalar(PROMOTE_LOOK).fetch_one(connection).await.map_err(classify)
}

pub(super) async fn promote(connection: &mut MySqlConnection) -> Result<(), Error> {
    let find = sqlx::query_scalar(PROMOTE_FIND).fetch_all(&mut *connection);
    let found: Vec<i64> = find.await.map_err(classify)?;
    if found.is_empty() {
        return Ok(());
    }
    sqlx::query(PROMOTE).bind(list(found)).execute(connection).await.map(drop).map_err(classify)
}

pub(super) async fn claim(connection: &mut MySqlConnection, request: &ClaimRequest) -> Result<Vec<Claimed>, Error> {
    let limited: Vec<&str> =
        request.lanes.iter().filter(|lane| is_limited(lane)).map(|lane| lane.function.as_str()).collect();
    let mut places = Vec::new();
    if !limited.is_empty() {
        let read = sqlx::query(RATE_READ).bind(list(limited)).fetch_all(&mut *connection).await.map_err(classify)?;
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
            let write = sqlx::query(RATE_WRITE).bind(next.0).bind(name);
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
    connection: &mut MySqlConnection,
    request: &ClaimRequest,
    lanes: &[(&Lane, u32)],
) -> Result<Vec<Claimed>, Error> {
    let token = Token::random();
    let mut claimed = Vec::new();
    let mut left = request.limit;
    for (place, running) in open_lanes(connection, request, lanes).await? {
        let (lane, room) = lanes[place];
        let others = lane.concurrency.map_or(u32::MAX, |most| most.saturating_sub(running));
        let most = left.min(room).min(others);
        let these = claim_lane(connection, request, lane, most, &token).await?;
        left = left.saturating_sub(u32::try_from(these.len()).unwrap_or(u32::MAX));
        claimed.extend(these);
    }
    Ok(claimed)
}

/// A lane as the statement wants it.
#[derive(Serialize)]
struct LaneOf<'a> {
    f: &'a str,
    version: i64,
    counts: u8,
}

/// Those from which there is something to claim, and how many of each run where there is a limit on that.
async fn open_lanes(
    connection: &mut MySqlConnection,
    request: &ClaimRequest,
    lanes: &[(&Lane, u32)],
) -> Result<Vec<(usize, u32)>, Error> {
    let each = lanes.iter().map(|(lane, _)| LaneOf {
        f: &lane.function,
        version: lane.version,
        counts: u8::from(lane.concurrency.is_some()),
    });
    let look = sqlx::query(LANES).bind(list(each)).bind(request.suspects).fetch_all(connection);
    let rows = look.await.map_err(classify)?;
    let open = |row: &MySqlRow| {
        let place = usize::try_from(row.get::<i64, _>("place")).unwrap_or(0).saturating_sub(1);
        (place, row.get::<Option<i64>, _>("running").map_or(0, unsigned))
    };
    Ok(rows.iter().map(open).filter(|(place, _)| *place < lanes.len()).collect())
}

/// In the order of acceptance.
async fn claim_lane(
    connection: &mut MySqlConnection,
    request: &ClaimRequest,
    lane: &Lane,
    most: u32,
    token: &Token,
) -> Result<Vec<Claimed>, Error> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let find = sqlx::query_scalar(CLAIM_FIND).bind(&lane.function).bind(request.suspects).bind(number(most));
    let mut seqs: Vec<i64> = find.fetch_all(&mut *connection).await.map_err(classify)?;
    if seqs.is_empty() {
        return Ok(Vec::new());
    }
    seqs.sort_unstable();
    let these = list(seqs);
    let claim = sqlx::query(CLAIM)
        .bind(&these)
        .bind(token.hash())
        .bind(&request.host)
        .bind(lane.version)
        .bind(lane.contract.as_str())
        .bind(number(lane.max_attempts))
        .bind(micros(lane.lease));
    claim.execute(&mut *connection).await.map_err(classify)?;
    let rows = sqlx::query(CLAIMED).bind(these).fetch_all(connection).await.map_err(classify)?;
    rows.iter().map(|row| claimed_of(row, lane, token, &request.host)).collect()
}

fn claimed_of(row: &MySqlRow, lane: &Lane, token: &Token, host: &str) -> Result<Claimed, Error> {
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
