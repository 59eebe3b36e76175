//! `semel outbox`: what leaves this installation: sinks and sources, and requests or events, newest first.

use serde_json::Value;

use super::client::Server;
use super::table;

/// List sinks and sources, and the requests that functions deferred or the events for a sink, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Outbox {
    /// Events for this sink, instead of requests
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// In this state: available, running, completed, dead, cancelled
    #[arg(long)]
    state: Option<String>,
    /// At most so many, up to 1000
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Outbox {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.state.map(|state| ("state", state)));
        query.extend(self.sink.clone().map(|sink| ("sink", sink)));
        let document = self.server.get(&["v1", "outbox"], &query).await?;
        if self.json {
            return table::json(&document);
        }
        for (list, what) in [("sinks", "sink"), ("sources", "source")] {
            let keys = ["name", "kind", "topics", "waiting", "dead", "trouble", "guarantee"];
            let rows = rows(&document[list], &keys, false);
            if !rows.is_empty() {
                table::print(&[what, "kind", "topics", "waiting", "dead", "trouble", "guarantee"], &rows);
                out!();
            }
        }
        if self.sink.is_some() {
            let keys = ["id", "event", "topic", "group", "state", "attempt", "available_at"];
            let rows = rows(&document["events"], &keys, true);
            table::print(&["id", "event", "topic", "group", "state", "attempt", "due", "last error"], &rows);
        } else {
            let keys = ["id", "method", "url", "function", "state", "attempt", "available_at"];
            let rows = rows(&document["requests"], &keys, true);
            table::print(&["id", "method", "url", "function", "state", "attempt", "due", "last error"], &rows);
        }
        Ok(())
    }
}

fn rows(list: &Value, keys: &[&str], errors: bool) -> Vec<Vec<String>> {
    let row = |one: &Value| {
        let mut cells: Vec<String> = keys.iter().map(|key| table::cell(&one[key])).collect();
        if errors {
            cells.push(table::error(&one["last_error"]));
        }
        cells
    };
    list.as_array().into_iter().flatten().map(row).collect()
}
