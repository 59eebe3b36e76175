//! The end of messages that are in the queue, under lock.

use sqlx::mysql::MySqlConnection;

use super::list::list;
use super::{Error, classify};
use crate::message::State;

const END: &str = include_str!("end.sql");
const LEAVE_QUEUE: &str = include_str!("leave_queue.sql");

/// Out of the queue, with a history row for each: its state, what happened, and that for people.
pub(super) async fn end(
    connection: &mut MySqlConnection,
    seqs: &[i64],
    state: State,
    kind: &str,
    message: &str,
) -> Result<(), Error> {
    if seqs.is_empty() {
        return Ok(());
    }
    let these = list(seqs);
    let end = sqlx::query(END).bind(state.as_str()).bind(kind).bind(message).bind(&these);
    end.execute(&mut *connection).await.map_err(classify)?;
    sqlx::query(LEAVE_QUEUE).bind(these).execute(connection).await.map(drop).map_err(classify)
}
