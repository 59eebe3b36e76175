//! `semel redrive`: another round for messages that were given up.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::Server;
use super::table;

/// Put messages that are dead, in-doubt or cancelled back into the queue, with all their attempts before them
#[derive(Debug, clap::Args)]
pub(crate) struct Redrive {
    /// The messages
    #[arg(value_name = "ID", required_unless_present = "function", conflicts_with_all = ["function", "state", "limit"])]
    ids: Vec<String>,
    /// All of this function
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// All in this state
    #[arg(long, default_value = "dead", value_parser = ["dead", "in-doubt", "cancelled"])]
    state: String,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Also where outside calls may already have happened, and may be made again
    #[arg(long)]
    yes: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Redrive {
    /// Whether every message that was asked for is in the queue again.
    pub(crate) async fn execute(self) -> anyhow::Result<bool> {
        let (mut redriven, mut skipped, mut refused) = (0, 0, Vec::new());
        if let Some(function) = &self.function {
            let filter = json!({ "function": function, "state": self.state, "limit": self.limit, "yes": self.yes });
            let document = self.server.change(Method::POST, &["v1", "redrive"], filter).await?;
            redriven = document["redriven"].as_u64().unwrap_or(0);
            skipped = document["skipped"].as_u64().unwrap_or(0);
        }
        let again = if self.yes { json!({ "yes": true }) } else { Value::Null };
        for id in &self.ids {
            match self.server.change(Method::POST, &["v1", "messages", id, "redrive"], again.clone()).await {
                Ok(_) => redriven += 1,
                Err(error) => refused.push((id, error)),
            }
        }
        if self.json {
            let refused: Vec<Value> =
                refused.iter().map(|(id, error)| json!({ "id": id, "reason": error.to_string() })).collect();
            table::json(&json!({ "redriven": redriven, "skipped": skipped, "refused": refused }))?;
            return Ok(refused.is_empty() && skipped == 0);
        }
        out!("{redriven} redriven");
        if skipped > 0 {
            eprintln!(
                "semel: {skipped} left where they are, since outside calls of theirs may already have happened: `semel \
                 ledger` lists calls, and --yes redrives these messages too"
            );
        }
        for (id, error) in &refused {
            eprintln!("semel: {id}: {error:#}");
        }
        Ok(refused.is_empty() && skipped == 0)
    }
}
