//! `semel trace`: the story of one message.

use serde_json::Value;

use super::client::Server;
use super::ledger;
use super::table::{self, cell};

/// Show the story of one message: its attempts, what each used and said, and what is guaranteed
#[derive(Debug, clap::Args)]
pub(crate) struct Trace {
    /// The message
    id: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Trace {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let document = self.server.get(&["v1", "messages", &self.id, "trace"], &[]).await?;
        if self.json {
            return table::json(&document);
        }
        let message = &document["message"];
        out!("message   {}", cell(&message["id"]));
        out!(
            "function  {}, {}, label {}",
            cell(&message["function"]),
            cell(&message["contract"]),
            cell(&message["label"])
        );
        out!("state     {}", cell(&message["state"]));
        out!("accepted  {}", cell(&message["created_at"]));
        if !message["completed_at"].is_null() {
            out!("ended     {}", cell(&message["completed_at"]));
        }
        if !message["last_error"].is_null() {
            out!("error     {}: {}", cell(&message["last_error"]["kind"]), cell(&message["last_error"]["message"]));
        }
        out!();
        let attempts = document["attempts"].as_array().cloned().unwrap_or_default();
        let keys = [
            "attempt",
            "outcome",
            "claimed_at",
            "started_at",
            "ended_at",
            "fuel",
            "statements",
            "published",
            "version",
            "host",
        ];
        let rows: Vec<Vec<String>> =
            attempts.iter().map(|attempt| keys.iter().map(|key| cell(&attempt[key])).collect()).collect();
        table::print(&keys.map(|key| key.trim_end_matches("_at")), &rows);
        for attempt in &attempts {
            print_details(attempt);
        }
        if document["calls"].as_array().is_some_and(|calls| !calls.is_empty()) {
            out!("\noutside calls, over all attempts");
            ledger::print(&document["calls"], &[]);
            if document["more_calls"] == true {
                out!("and more: semel ledger --message {}", cell(&message["id"]));
            }
        }
        for decision in document["decisions"].as_array().into_iter().flatten() {
            out!(
                "\n{} {} by a person; it {}",
                cell(&decision["at"]),
                cell(&decision["decision"]),
                cell(&decision["detail"])
            );
        }
        out!();
        let rows = document["guarantees"].as_array().cloned().unwrap_or_default();
        let rows: Vec<_> = rows.iter().map(|row| vec![cell(&row["effect"]), cell(&row["happens"])]).collect();
        table::print(&["effect", "happens"], &rows);
        Ok(())
    }
}

fn print_details(attempt: &Value) {
    if !attempt["error"].is_null() {
        out!("\nattempt {}: {}", attempt["attempt"], cell(&attempt["error"]));
    }
    for call in attempt["calls"].as_array().into_iter().flatten() {
        let known = if call["status"].is_null() { &call["detail"] } else { &call["status"] };
        out!(
            "attempt {} called {} {}: {} {}",
            attempt["attempt"],
            cell(&call["method"]),
            cell(&call["url"]),
            cell(&call["state"]),
            cell(known)
        );
    }
    for line in attempt["logs"].as_array().into_iter().flatten() {
        let fields: Vec<String> = line["fields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|field| format!(" {}={}", cell(&field[0]), cell(&field[1])))
            .collect();
        out!(
            "attempt {} {} {:<5} {}{}",
            attempt["attempt"],
            cell(&line["at"]),
            cell(&line["level"]),
            cell(&line["message"]),
            fields.concat()
        );
    }
    if attempt["logs_dropped"].as_u64().is_some_and(|dropped| dropped > 0) {
        out!("attempt {}: {} lines more were not kept", attempt["attempt"], attempt["logs_dropped"]);
    }
}
