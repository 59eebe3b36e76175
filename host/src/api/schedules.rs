//! Where the schedules of functions stand, for people.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Api;
use crate::cron::by_key;
use crate::engine::catalog::Function;
use crate::store;

/// Adds to the documents of these functions when each schedule fires next, by the store's clock, and which slot it fired last.
pub(super) async fn stand(api: &Api, functions: &[Arc<Function>], documents: &mut [Value]) -> Result<(), store::Error> {
    if functions.iter().all(|function| function.manifest().trigger.cron.is_empty()) {
        return Ok(());
    }
    let now = api.store.now().await?;
    let records = by_key(api.store.schedules().await?);
    for (function, document) in functions.iter().zip(documents) {
        let manifest = function.manifest();
        for (place, cron) in manifest.trigger.cron.iter().enumerate() {
            let record = records.get(&(manifest.name.clone(), cron.key()));
            document["cron"][place]["next"] = json!(cron.next(now));
            document["cron"][place]["last"] = json!(record.and_then(|record| record.last));
        }
    }
    Ok(())
}
