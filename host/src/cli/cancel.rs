//! `semel cancel`: take a message back.

use reqwest::Method;
use serde_json::Value;

use super::client::Server;
use super::table;

/// Cancel a message that waits or runs; what its run did is undone
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// The message
    id: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Cancel {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let path = ["v1", "messages", &self.id, "cancel"];
        let document = self.server.change(Method::POST, &path, Value::Null).await?;
        if self.json {
            return table::json(&document);
        }
        out!("{} is cancelled", self.id);
        Ok(())
    }
}
