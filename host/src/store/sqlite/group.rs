//! The order of groups on SQLite: where a function asks for it, only the first message of a group is not `blocked`.
//!
//! Kept by whoever changes the queue, in the same transaction, so that a claim looks at one column and never at the rest
//! of a group.

use super::connection::Connection;
use super::{Error, classify};
use crate::message::Claim;

const BLOCK: &str = include_str!("group_block.sql");
const UNBLOCK: &str = include_str!("group_unblock.sql");

/// Puts a group in order after one of its messages ended, came back, or is about to leave (`leaving`).
pub(super) async fn order(
    connection: &mut Connection,
    function: &str,
    group: &str,
    leaving: Option<i64>,
) -> Result<(), Error> {
    for statement in [BLOCK, UNBLOCK] {
        let order = sqlx::query(statement).bind(function).bind(group).bind(leaving);
        order.execute(&mut connection.sql).await.map_err(classify)?;
    }
    Ok(())
}

/// The same for the group of a claim, if it has one.
pub(super) async fn after(connection: &mut Connection, claim: &Claim, leaving: Option<i64>) -> Result<(), Error> {
    match &claim.group {
        Some(group) => order(connection, &claim.function, group, leaving).await,
        None => Ok(()),
    }
}
