//! The order of groups on SQLite: where a function asks for it, only the first message of a group is not `blocked`.
//!
//! Kept by whoever changes the queue, in the same transaction, so that a claim looks at one column and never at the rest
//! of a group.

use super::Error;
use super::connection::Connection;
use crate::message::Claim;

const BLOCK: &str = include_str!("group_block.sql");
const UNBLOCK: &str = include_str!("group_unblock.sql");

/// Puts a group in order after one of its messages ended, came back, or is about to leave (`leaving`).
pub(super) fn order(connection: &Connection, function: &str, group: &str, leaving: Option<i64>) -> Result<(), Error> {
    for statement in [BLOCK, UNBLOCK] {
        connection.execute(statement, (function, group, leaving))?;
    }
    Ok(())
}

/// The same for the group of a claim, if it has one.
pub(super) fn after(connection: &Connection, claim: &Claim, leaving: Option<i64>) -> Result<(), Error> {
    match &claim.group {
        Some(group) => order(connection, &claim.function, group, leaving),
        None => Ok(()),
    }
}
