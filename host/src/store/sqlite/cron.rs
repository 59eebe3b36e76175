//! Schedules on SQLite.

use async_trait::async_trait;
use sqlx::{Executor, Row};

use super::connection::Connection;
use super::{Error, Sqlite, accept, classify};
use crate::clock::Timestamp;
use crate::store::{Enqueued, Fired, Firing, ScheduleRecord, Target, Timetable};

const SCHEDULES: &str = include_str!("schedules.sql");
const FIRE_LOCK: &str = include_str!("fire_lock.sql");
const FIRE: &str = include_str!("fire.sql");

#[async_trait]
impl Timetable for Sqlite {
    async fn schedules(&self) -> Result<Vec<ScheduleRecord>, Error> {
        let rows = self.readers.fetch_all(SCHEDULES).await.map_err(classify)?;
        let record = |row: &sqlx::sqlite::SqliteRow| ScheduleRecord {
            function: row.get(0),
            key: row.get(1),
            reached: Timestamp(row.get(2)),
            last: row.get::<Option<i64>, _>(3).map(Timestamp),
        };
        Ok(rows.iter().map(record).collect())
    }

    async fn fire(&self, firing: Firing) -> Result<Fired, Error> {
        let fired = self.transaction(move |of| fire(of, &firing)).await?;
        if fired == Fired::Accepted {
            self.work.notify_one();
        }
        Ok(fired)
    }
}

fn fire(connection: &Connection, Firing { schedule, slot, event }: &Firing) -> Result<Fired, Error> {
    let ScheduleRecord { function, key, reached, .. } = schedule;
    if connection.optional(FIRE_LOCK, (function, key, reached.0), |_| Ok(()))?.is_none() {
        return Ok(Fired::Elsewhere);
    }
    match accept::enqueue(connection, event, &Target::Function(function.clone()), None)? {
        Enqueued::Accepted(_) => {}
        Enqueued::BacklogFull => return Ok(Fired::BacklogFull),
        _ => return Ok(Fired::Elsewhere),
    }
    connection.execute(FIRE, (function, key, slot.0))?;
    Ok(Fired::Accepted)
}
