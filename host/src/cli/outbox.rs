//! `semel outbox`: requests that functions deferred, newest first.

use serde_json::Value;

use super::client::Server;
use super::table;

/// List the requests that functions deferred, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Outbox {
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
        let document = self.server.get(&["v1", "outbox"], &query).await?;
        if self.json {
            return table::json(&document);
        }
        let requests = document["requests"].as_array().cloned().unwrap_or_default();
        let row = |request: &Value| {
            let keys = ["id", "method", "url", "function", "state", "attempt", "available_at"];
            let mut cells: Vec<String> = keys.iter().map(|key| table::cell(&request[key])).collect();
            cells.push(table::error(&request["last_error"]));
            cells
        };
        let rows: Vec<_> = requests.iter().map(row).collect();
        table::print(&["id", "method", "url", "function", "state", "attempt", "due", "last error"], &rows);
        Ok(())
    }
}
