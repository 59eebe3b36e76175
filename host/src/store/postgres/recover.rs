//! Recovery on Postgres: what dead hosts left behind, in steps that nobody who hangs can hold up.

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

use super::connection::Engine;
use super::group::Groups;
use super::{Error, classify, ledger};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::store::Recovered;

const FIND: &str = include_str!("recover_find.sql");
const GROUPS: &str = include_str!("recover_groups.sql");
const LOCK: &str = include_str!("recover_lock.sql");
const ATTEMPTS: &str = include_str!("recover_attempts.sql");
const END: &str = include_str!("recover_end.sql");
const FREE: &str = include_str!("recover_free.sql");
const BUCKET: &str = "SELECT semel.bucket($1, $2)";

/// Claims that one transaction frees.
const STEP: i64 = 500;

/// `seq`, function and group of a claim that was lost.
type Lost = (i64, String, Option<String>);

/// Frees what was lost, group by group where somebody hangs.
pub(super) async fn recover(engine: &Engine, as_of: Timestamp) -> Result<Recovered, Error> {
    let mut all = Recovered::default();
    loop {
        let step = engine.transaction(move |of| Box::pin(step(of, as_of))).await?;
        add(&mut all, step.done);
        let progressed = step.done.freed + step.done.dead + step.done.in_doubt > 0;
        for (function, group) in step.left {
            let alone = engine.transaction(move |of| Box::pin(alone(of, as_of, function, group)));
            match alone.await {
                Ok(done) => add(&mut all, done),
                Err(error) => tracing::debug!(%error, "a group is not recovered yet"),
            }
        }
        if !step.full || !progressed {
            return Ok(all);
        }
    }
}

fn add(all: &mut Recovered, done: Recovered) {
    all.freed += done.freed;
    all.dead += done.dead;
    all.in_doubt += done.in_doubt;
}

struct Step {
    done: Recovered,
    /// Groups that somebody has locked.
    left: Vec<(String, String)>,
    /// There may be more.
    full: bool,
}

async fn find(connection: &mut PgConnection, as_of: Timestamp) -> Result<Vec<Lost>, Error> {
    let rows = sqlx::query(FIND).bind(as_of.0).bind(STEP).fetch_all(connection).await.map_err(classify)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

async fn step(connection: &mut PgConnection, as_of: Timestamp) -> Result<Step, Error> {
    let found = find(connection, as_of).await?;
    let full = found.len() as u64 >= STEP.unsigned_abs();
    if found.is_empty() {
        ledger::recover(connection).await?;
        return Ok(Step { done: Recovered::default(), left: Vec::new(), full });
    }
    let mut groups = Groups::default();
    found.iter().for_each(|(_, function, group)| groups.add(function, group.as_deref()));
    let lock = sqlx::query_scalar(GROUPS).bind(groups.functions()).bind(groups.keys());
    let buckets: Vec<i64> = lock.fetch_all(&mut *connection).await.map_err(classify)?;
    let mut left = Vec::new();
    for (function, group) in found.iter().filter_map(|(_, function, group)| Some((function, group.as_ref()?))) {
        let bucket = sqlx::query_scalar(BUCKET).bind(function).bind(group).fetch_one(&mut *connection);
        let bucket: i64 = bucket.await.map_err(classify)?;
        let group = (function.clone(), group.clone());
        if !buckets.contains(&bucket) && !left.contains(&group) {
            left.push(group);
        }
    }
    let seqs = found.iter().map(|(seq, ..)| *seq).collect();
    let done = free(connection, as_of, seqs, &buckets).await?;
    Ok(Step { done, left, full })
}

/// One group, waiting a little for who has it.
async fn alone(
    connection: &mut PgConnection,
    as_of: Timestamp,
    function: String,
    group: String,
) -> Result<Recovered, Error> {
    connection.execute("SET LOCAL lock_timeout = '1s'").await.map_err(classify)?;
    Groups::one(&function, Some(&group)).lock(connection).await?;
    let found = find(connection, as_of).await?;
    let of_group = |lost: &&Lost| lost.1 == function && lost.2.as_ref() == Some(&group);
    let seqs = found.iter().filter(of_group).map(|(seq, ..)| *seq).collect();
    let bucket = sqlx::query_scalar(BUCKET).bind(&function).bind(&group).fetch_one(&mut *connection);
    let bucket = bucket.await.map_err(classify)?;
    free(connection, as_of, seqs, &[bucket]).await
}

/// Of these, what is still lost and whose group's bucket is locked.
async fn free(
    connection: &mut PgConnection,
    as_of: Timestamp,
    seqs: Vec<i64>,
    buckets: &[i64],
) -> Result<Recovered, Error> {
    let lock = sqlx::query(LOCK).bind(as_of.0).bind(seqs).bind(buckets);
    let locked = lock.fetch_all(&mut *connection).await.map_err(classify)?;
    let seqs: Vec<i64> = locked.iter().map(|row| row.get(0)).collect();
    let mut groups = Groups::default();
    locked.iter().for_each(|row| groups.add(row.get(1), row.get(2)));
    let lost = sqlx::query(ATTEMPTS).bind(&seqs).execute(&mut *connection).await.map_err(classify)?.rows_affected();
    if lost > 0 {
        crash::point(Point::RecoverFound);
    }
    let ended = sqlx::query(END).bind(&seqs).fetch_all(&mut *connection).await.map_err(classify)?;
    let freed = sqlx::query(FREE).bind(&seqs).execute(&mut *connection).await.map_err(classify)?;
    groups.order(connection).await?;
    ledger::recover(connection).await?;
    let dead = ended.iter().filter(|row| row.get::<&str, _>(0) == "dead").count() as u64;
    let in_doubt = ended.len() as u64 - dead;
    Ok(Recovered { freed: freed.rows_affected(), dead, in_doubt, suspects: false })
}
