//! The end of a guest's transaction on SQLite: what it did, its answers and its acknowledgements, in one commit.

use super::connection::Connection;
use super::queue::record_attempt;
use super::{Error, group};
use crate::crash::{self, Point};
use crate::message::{Answer, Claim, Usage};
use crate::store::Commit;

const COMPLETE: &str = include_str!("complete.sql");
const ACKNOWLEDGE: &str = include_str!("acknowledge.sql");

/// A claim that has done its part and waits for the commit.
pub(super) struct Left {
    pub(super) claim: Claim,
    pub(super) answer: Option<Answer>,
    pub(super) usage: Usage,
}

/// Acknowledges and commits: the only place where a guest's effects become visible.
pub(super) fn commit(connection: &mut Connection, left: &[Left]) -> Commit {
    connection.take_over();
    if left.is_empty() || !connection.is_in_transaction() {
        return Commit::RolledBack;
    }
    match complete(connection, left) {
        Ok(true) => {}
        Ok(false) => return Commit::Fenced,
        Err(error) => {
            tracing::error!(%error, "an acknowledgement failed");
            return Commit::RolledBack;
        }
    }
    crash::point(Point::Acknowledged);
    match crash::beside(Point::CommitSent, || connection.execute("COMMIT", ())) {
        Ok(_) => Commit::Committed,
        Err(error) => {
            tracing::error!(%error, "a commit failed");
            // Still open: SQLite took nothing and the caller's end of the turn undoes it. Otherwise nobody knows yet.
            if connection.is_in_transaction() { Commit::RolledBack } else { Commit::Unknown }
        }
    }
}

/// False as soon as one claim no longer holds. The acknowledgements are the last statements before COMMIT.
fn complete(connection: &mut Connection, left: &[Left]) -> Result<bool, Error> {
    let now = connection.clock.now();
    for Left { claim, answer, usage } in left {
        let given = answer.as_ref();
        let content_type = given.and_then(|answer| answer.content_type.as_deref());
        let headers = super::json(given.map_or(&[], |answer| answer.headers.as_slice()));
        let body = given.map_or(&[][..], |answer| &answer.body);
        connection.execute(COMPLETE, (claim.seq, now.0, answer.is_some(), content_type, headers, body))?;
        record_attempt(connection, claim, "completed", None, usage)?;
        group::after(connection, claim, Some(claim.seq))?;
    }
    // Claims that were made together have one token.
    let mut claims: Vec<&Claim> = left.iter().map(|left| &left.claim).collect();
    while let Some(token) = claims.first().map(|claim| &claim.token) {
        let (together, others): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| claim.token == *token);
        if !acknowledge(connection, &together)? {
            return Ok(false);
        }
        claims = others;
    }
    Ok(true)
}

/// Takes messages out of the queue that were claimed with one token. False if one of the claims no longer holds.
pub(super) fn acknowledge(connection: &Connection, claims: &[&Claim]) -> Result<bool, Error> {
    let Some(first) = claims.first() else { return Ok(true) };
    let these: Vec<(i64, i64)> = claims.iter().map(|claim| (claim.seq, claim.fence)).collect();
    Ok(connection.execute(ACKNOWLEDGE, (super::json(&these), first.token.hash()))? == claims.len())
}
