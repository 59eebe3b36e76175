//! `semel ledger`: outside calls, and how often each happened, as far as anybody can know.

use serde_json::Value;

use super::client::Server;
use super::table::{self, cell};

/// List outside calls, newest first, with how often each happened
#[derive(Debug, clap::Args)]
pub(crate) struct Ledger {
    /// Only calls of which nobody knows whether they happened
    #[arg(long, conflicts_with = "state")]
    unknown: bool,
    /// Only calls with an attempt in this state: intended, done, failed, unknown
    #[arg(long)]
    state: Option<String>,
    /// Of this function
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Of this message
    #[arg(long, value_name = "ID")]
    message: Option<String>,
    /// At most so many, up to 1000
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Ledger {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let state = self.state.or(self.unknown.then(|| "unknown".to_owned()));
        let mut query = vec![("limit", self.limit.to_string())];
        let given = [("state", state), ("function", self.function), ("message", self.message)];
        query.extend(given.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let document = self.server.get(&["v1", "ledger"], &query).await?;
        if self.json {
            return table::json(&document);
        }
        print(&document["calls"], &["message", "function"]);
        Ok(())
    }
}

/// Calls, with some of their members in front.
pub(super) fn print(calls: &Value, before: &[&str]) {
    let row = |call: &Value| {
        let attempts = call["attempts"].as_array().map_or(0, Vec::len);
        let own = ["method", "url", "key", "state"].iter();
        let mut cells: Vec<String> = before.iter().chain(own).map(|name| cell(&call[*name])).collect();
        cells.extend([attempts.to_string(), cell(&call["bounds"]["text"])]);
        cells
    };
    let rows: Vec<_> = calls.as_array().into_iter().flatten().map(row).collect();
    let headings = before.iter().copied().chain(["method", "url", "key", "state", "attempts", "bounds"]);
    table::print(&headings.collect::<Vec<_>>(), &rows);
}
