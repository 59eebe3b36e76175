//! `semel check`: a message, run twice and rolled back.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::Server;
use super::table;
use crate::logging::printable;

/// Run a message twice without any effect, and say what differed and which outside calls it wanted to make
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The function
    name: String,
    /// The id of a message, or a body
    message: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Check {
    /// Whether both runs did the same.
    pub(crate) async fn execute(self) -> anyhow::Result<bool> {
        let is_id = self.message.len() == 32 && self.message.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = if is_id { "message" } else { "body" };
        let path = ["v1", "functions", &self.name, "check"];
        let document = self.server.change(Method::POST, &path, json!({ (key): self.message })).await?;
        let same = document["same"] == true;
        if self.json {
            table::json(&document)?;
            return Ok(same);
        }
        let text = |value: &Value| printable(value.as_str().unwrap_or_default()).to_string();
        for (number, run) in document["runs"].as_array().into_iter().flatten().enumerate() {
            let statements = run["steps"].as_array().map_or(0, Vec::len);
            let fuel = run["fuel"].as_u64().map_or_else(|| "not known".to_owned(), |fuel| fuel.to_string());
            out!(
                "run {}: {}, {statements} statements, fuel {fuel} {}",
                number + 1,
                text(&run["outcome"]),
                text(&run["reason"])
            );
        }
        for call in document["calls"].as_array().into_iter().flatten() {
            out!("wanted to call {}", text(call));
        }
        for found in document["differences"].as_array().into_iter().flatten() {
            out!(
                "differs: {}\n  first:  {}\n  second: {}",
                text(&found["what"]),
                text(&found["first"]),
                text(&found["second"])
            );
        }
        out!(
            "{}",
            if same {
                "both runs did the same; nothing of them is left"
            } else {
                "the runs differ; nothing of them is left"
            }
        );
        Ok(same)
    }
}
