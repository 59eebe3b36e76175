//! `semel resume`: go on with them.

use reqwest::Method;
use serde_json::Value;

use super::client::Server;
use super::table;

/// Go on with the messages of a paused function
#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// The function
    name: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Resume {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let path = ["v1", "functions", &self.name, "resume"];
        let document = self.server.change(Method::POST, &path, Value::Null).await?;
        if self.json {
            return table::json(&document);
        }
        out!("{} goes on", self.name);
        Ok(())
    }
}
