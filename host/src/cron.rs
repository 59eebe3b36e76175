//! Schedules: what is due by the store's clock becomes a message, once, whichever of the hosts is faster.
//!
//! Before it: a function with `[trigger] cron` was deployed, with which each of its schedules begins. After it:
//! [`crate::store`] has the message, in the commit that says how far the schedule has come. So a slot is fired by one host, once,
//! also if that host dies at that very moment, and whatever version of the function is active.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::engine::catalog::{Catalog, Function};
use crate::manifest::Cron;
use crate::message::Event;
use crate::store::{Error, Fired, Firing, ScheduleRecord, Store};

mod due;

use due::{Due, due};

/// Longest time between two looks at the clock while there is a schedule: other hosts may have deployed one, there may be room in
/// a backlog again, and a server's clock can be set.
const LOOK: Duration = Duration::from_secs(5);
/// After a look that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// The slot for which a message was made.
const TIME: &str = "semel-cron-time";

/// Fires what is due until `stop` says so.
pub(crate) async fn keep(store: Arc<dyn Store>, catalog: Arc<Catalog>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let next = look(&*store, &catalog).await.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot fire schedules; what is due stays due");
            Instant::now() + AGAIN
        });
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = catalog.altered() => {}
            _ = stop.changed() => {}
        }
    }
}

/// Fires what is due now. Returns when there may be something again.
async fn look(store: &dyn Store, catalog: &Catalog) -> Result<Instant, Error> {
    let mut functions = catalog.all();
    functions.retain(|function| !function.manifest().trigger.cron.is_empty());
    if functions.is_empty() {
        return Ok(Instant::now() + LOOK);
    }
    let (now, looked) = (store.now().await?, Instant::now());
    let mut records = by_key(store.schedules().await?);
    let mut longest = LOOK;
    for (function, cron) in each(&functions) {
        let record = records.remove(&(function.to_owned(), cron.key()));
        match fire(store, cron, record, now).await {
            Err(error @ Error::Unavailable(_)) => return Err(error),
            Err(error) => {
                tracing::error!(function, schedule = cron.schedule(), %error, "not fired; it is tried again");
                longest = longest.min(AGAIN);
            }
            Ok(()) => {}
        }
        longest = longest.min(cron.next(now).map_or(LOOK, |next| next.since(now)));
    }
    Ok(looked + longest)
}

fn each(functions: &[Arc<Function>]) -> impl Iterator<Item = (&str, &Cron)> {
    let manifests = functions.iter().map(|function| function.manifest());
    manifests.flat_map(|manifest| manifest.trigger.cron.iter().map(|cron| (manifest.name.as_str(), cron)))
}

/// By function and key.
pub(crate) fn by_key(records: Vec<ScheduleRecord>) -> HashMap<(String, String), ScheduleRecord> {
    records.into_iter().map(|record| ((record.function.clone(), record.key.clone()), record)).collect()
}

/// One slot after another, each in a commit of its own, until somebody else is found to do the same.
async fn fire(store: &dyn Store, cron: &Cron, record: Option<ScheduleRecord>, now: Timestamp) -> Result<(), Error> {
    let Some(mut record) = record else { return Ok(()) }; // Another host has deployed something else since.
    let (function, schedule) = (record.function.clone(), cron.schedule());
    let Due { slots, mut lost } = due(cron, record.reached, now);
    let most = slots.len();
    for slot in slots {
        let event = event(&function, cron, slot);
        match store.fire(Firing { schedule: record.clone(), slot, event }).await? {
            Fired::Accepted => tracing::debug!(function, schedule, %slot, "fired"),
            Fired::Elsewhere => return Ok(()),
            Fired::BacklogFull => {
                tracing::warn!(function, schedule, %slot, "not fired: the function's backlog is full; it is tried again");
                return Ok(());
            }
        }
        record.reached = slot;
        if std::mem::take(&mut lost) {
            tracing::warn!(
                function,
                schedule,
                "more slots were missed than are caught up with: the newest {most} are fired"
            );
        }
    }
    Ok(())
}

fn event(function: &str, cron: &Cron, slot: Timestamp) -> Event {
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(cron.body()).is_ok();
    Event {
        id: uuid::Uuid::now_v7().simple().to_string(),
        topic: format!("fn/{function}"),
        content_type: Some(if is_json { "application/json" } else { "text/plain" }.into()),
        headers: vec![(TIME.into(), slot.to_string())],
        body: cron.body().into(),
        ..Event::default()
    }
}
