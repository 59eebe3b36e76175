//! `semel rollback`: back to an earlier version.

use reqwest::Method;
use serde_json::json;

use super::client::Server;
use super::{inspect, table};

/// Make an earlier version of a function the active one
#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    /// The function
    name: String,
    /// The version [default: the one that was active before]
    #[arg(long, value_name = "VERSION")]
    to: Option<i64>,
    /// Go back to a version that gives a weaker guarantee
    #[arg(long)]
    accept_weaker_guarantee: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Rollback {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let body = json!({ "to": self.to, "accept_weaker_guarantee": self.accept_weaker_guarantee });
        let path = ["v1", "functions", &self.name, "rollback"];
        let document = self.server.change(Method::POST, &path, body).await?;
        if self.json {
            return table::json(&document);
        }
        out!("{} is at version {} again", self.name, document["version"]);
        inspect::print_warnings(&document);
        Ok(())
    }
}
