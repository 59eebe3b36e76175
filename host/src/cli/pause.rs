//! `semel pause`: leave messages waiting.

use reqwest::Method;
use serde_json::Value;

use super::client::Server;
use super::table;

/// Leave the messages of a function waiting; they are accepted all the same
#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    /// The function
    name: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Pause {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let path = ["v1", "functions", &self.name, "pause"];
        let document = self.server.change(Method::POST, &path, Value::Null).await?;
        if self.json {
            return table::json(&document);
        }
        out!("{0} is paused; `semel resume {0}` goes on", self.name);
        Ok(())
    }
}
