//! Recovery: what dead hosts left behind, in steps that nobody who hangs can hold up.

use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::connection::Engine;
use super::group::Groups;
use super::list::list;
use super::{Error, classify, ended, ledger};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::message::State;
use crate::store::Recovered;

const FIND: &str = include_str!("recover_find.sql");
const GROUPS: &str = include_str!("recover_groups.sql");
const LOCK: &str = include_str!("recover_lock.sql");
const ATTEMPTS: &str = include_str!("recover_attempts.sql");
const FREE: &str = include_str!("recover_free.sql");
const BUCKETS: &str = include_str!("group_buckets.sql");

const USED_UP: &str = "its last attempt ended without a record (its host was lost), and there are no more";
const BEGUN: &str = "it had begun when its host was lost; whether it finished its outside effects is unknown";

/// Claims that one transaction frees.
const STEP: i64 = 500;

/// Seconds that one waits for a group which somebody has locked.
const PATIENCE: u32 = 1;

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
            let alone = engine.transaction_within(PATIENCE, move |of| Box::pin(alone(of, as_of, function, group)));
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

async fn find(connection: &mut MySqlConnection, as_of: Timestamp) -> Result<Vec<Lost>, Error> {
    let rows = sqlx::query(FIND).bind(as_of.0).bind(STEP).fetch_all(connection).await.map_err(classify)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

async fn step(connection: &mut MySqlConnection, as_of: Timestamp) -> Result<Step, Error> {
    let found = find(connection, as_of).await?;
    let full = found.len() as u64 >= STEP.unsigned_abs();
    if found.is_empty() {
        ledger::recover(connection).await?;
        return Ok(Step { done: Recovered::default(), left: Vec::new(), full });
    }
    let mut groups = Groups::default();
    found.iter().for_each(|(_, function, group)| groups.add(function, group.as_deref()));
    let lock = sqlx::query_scalar(GROUPS).bind(list(groups.all())).fetch_all(&mut *connection);
    let locked: Vec<i64> = lock.await.map_err(classify)?;
    let find = sqlx::query_scalar(BUCKETS).bind(list(groups.all())).fetch_all(&mut *connection);
    let buckets: Vec<i64> = find.await.map_err(classify)?;
    let mut left: Vec<(String, String)> = Vec::new();
    for (group, _) in groups.all().iter().zip(&buckets).filter(|(_, bucket)| !locked.contains(bucket)) {
        let group = (group.function.clone(), group.key.clone());
        if !left.contains(&group) {
            left.push(group);
        }
    }
    let is_left = |function: &String, group: &String| left.iter().any(|(f, g)| f == function && g == group);
    let free_now =
        found.iter().filter(|(_, function, group)| group.as_ref().is_none_or(|group| !is_left(function, group)));
    let seqs = free_now.map(|(seq, ..)| *seq).collect();
    let done = free(connection, as_of, seqs).await?;
    Ok(Step { done, left, full })
}

/// One group, waiting a little for who has it.
async fn alone(
    connection: &mut MySqlConnection,
    as_of: Timestamp,
    function: String,
    group: String,
) -> Result<Recovered, Error> {
    Groups::one(&function, Some(&group)).lock(connection).await?;
    let found = find(connection, as_of).await?;
    let of_group = |lost: &&Lost| lost.1 == function && lost.2.as_ref() == Some(&group);
    let seqs = found.iter().filter(of_group).map(|(seq, ..)| *seq).collect();
    free(connection, as_of, seqs).await
}

/// Of these, what is still lost; their groups are locked.
async fn free(connection: &mut MySqlConnection, as_of: Timestamp, seqs: Vec<i64>) -> Result<Recovered, Error> {
    let locked =
        sqlx::query(LOCK).bind(list(seqs)).bind(as_of.0).fetch_all(&mut *connection).await.map_err(classify)?;
    let mut groups = Groups::default();
    let (mut freed, mut dead, mut in_doubt) = (Vec::new(), Vec::new(), Vec::new());
    for row in &locked {
        groups.add(row.get("function"), row.get("group_key"));
        let ends = match (row.get("begun"), row.get("used_up")) {
            (true, _) => &mut in_doubt,
            (_, true) => &mut dead,
            _ => &mut freed,
        };
        ends.push(row.get::<i64, _>("seq"));
    }
    if !locked.is_empty() {
        let all = list(locked.iter().map(|row| row.get::<i64, _>("seq")));
        sqlx::query(ATTEMPTS).bind(all).execute(&mut *connection).await.map_err(classify)?;
        crash::point(Point::RecoverFound);
        ended::end(connection, &dead, State::Dead, "host-lost", USED_UP).await?;
        ended::end(connection, &in_doubt, State::InDoubt, "host-lost", BEGUN).await?;
        sqlx::query(FREE).bind(list(&freed)).execute(&mut *connection).await.map_err(classify)?;
        groups.order(connection).await?;
    }
    ledger::recover(connection).await?;
    let count = |seqs: &Vec<i64>| seqs.len() as u64;
    Ok(Recovered { freed: count(&freed), dead: count(&dead), in_doubt: count(&in_doubt), suspects: false })
}
