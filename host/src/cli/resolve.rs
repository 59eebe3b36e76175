//! `semel resolve`: say how a message in doubt ended.

use reqwest::Method;
use serde_json::json;

use super::client::Server;
use super::table;

/// Settle a message in doubt: you know how it ended
#[derive(Debug, clap::Args)]
pub(crate) struct Resolve {
    /// The message
    id: String,
    /// How it ended: completed or dead
    #[arg(long = "as", value_name = "STATE", value_parser = ["completed", "dead"])]
    end: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Resolve {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let path = ["v1", "messages", &self.id, "resolve"];
        let document = self.server.change(Method::POST, &path, json!({ "as": self.end })).await?;
        if self.json {
            return table::json(&document);
        }
        out!("{} is {}", self.id, self.end);
        Ok(())
    }
}
