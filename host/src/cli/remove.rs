//! `semel remove`: take a function away.

use reqwest::Method;
use serde_json::Value;

use super::client::Server;
use super::table;

/// Remove a function; what waits for it is dead, until it is deployed again and redriven
#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// The function
    name: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Remove {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let document = self.server.change(Method::DELETE, &["v1", "functions", &self.name], Value::Null).await?;
        if self.json {
            return table::json(&document);
        }
        out!("{} is removed; {} waiting messages are dead", self.name, document["dead"]);
        Ok(())
    }
}
