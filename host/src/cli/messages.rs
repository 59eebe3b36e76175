//! `semel messages`: where messages stand, newest first.

use super::client::Server;
use super::table;

/// List messages, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Messages {
    /// Of this function
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// In this state: available, running, completed, dead, in-doubt, cancelled
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

impl Messages {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.function.map(|function| ("function", function)));
        query.extend(self.state.map(|state| ("state", state)));
        let document = self.server.get(&["v1", "messages"], &query).await?;
        if self.json {
            return table::json(&document);
        }
        let messages = document["messages"].as_array().cloned().unwrap_or_default();
        let row = |message: &serde_json::Value| {
            let keys = ["id", "function", "state", "attempt", "created_at"];
            let mut cells: Vec<String> = keys.iter().map(|key| table::cell(&message[key])).collect();
            cells.push(table::error(&message["last_error"]));
            cells
        };
        let rows: Vec<_> = messages.iter().map(row).collect();
        table::print(&["id", "function", "state", "attempt", "created", "last error"], &rows);
        Ok(())
    }
}
