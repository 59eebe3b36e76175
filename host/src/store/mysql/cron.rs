//! Schedules: the row of one is locked while it is fired.

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Executor, Row};

use super::{Error, Mysql, accept, classify};
use crate::clock::Timestamp;
use crate::store::{Accept, Enqueued, Fired, Firing, ScheduleRecord, Target, Timetable};

const SCHEDULES: &str = include_str!("schedules.sql");
const FIRE_LOCK: &str = include_str!("fire_lock.sql");
const FIRE: &str = include_str!("fire.sql");

#[async_trait]
impl Timetable for Mysql {
    async fn schedules(&self) -> Result<Vec<ScheduleRecord>, Error> {
        let rows = self.readers.fetch_all(SCHEDULES).await.map_err(classify)?;
        let record = |row: &MySqlRow| ScheduleRecord {
            function: row.get(0),
            key: row.get(1),
            reached: Timestamp(row.get(2)),
            last: row.get::<Option<i64>, _>(3).map(Timestamp),
        };
        Ok(rows.iter().map(record).collect())
    }

    async fn fire(&self, firing: Firing) -> Result<Fired, Error> {
        let accepted = |fired: &Fired| *fired == Fired::Accepted;
        let fire = self.engine.transaction_if(accepted, move |of| Box::pin(async move { fire(of, firing).await }));
        let fired = fire.await?;
        if accepted(&fired) {
            self.wake.all();
        }
        Ok(fired)
    }
}

async fn fire(connection: &mut MySqlConnection, Firing { schedule, slot, event }: Firing) -> Result<Fired, Error> {
    let ScheduleRecord { function, key, reached, .. } = schedule;
    let lock = sqlx::query(FIRE_LOCK).bind(&function).bind(&key).bind(reached.0);
    if lock.fetch_optional(&mut *connection).await.map_err(classify)?.is_none() {
        return Ok(Fired::Elsewhere);
    }
    let accept = Accept { event, target: Target::Function(function.clone()), key: None };
    match accept::enqueue_all(connection, &[accept]).await?.first() {
        Some(Enqueued::Accepted(_)) => {}
        Some(Enqueued::BacklogFull) => return Ok(Fired::BacklogFull),
        _ => return Ok(Fired::Elsewhere),
    }
    let fire = sqlx::query(FIRE).bind(slot.0).bind(slot.0).bind(function).bind(key);
    fire.execute(connection).await.map_err(classify)?;
    Ok(Fired::Accepted)
}
