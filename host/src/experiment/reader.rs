//! Numbers from guests' tables, which are nobody's business but guests': read by one of them.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::client::Client;

/// Runs the SQL that it is given.
pub(super) const READER: &str = "sqlshell";
const PATIENCE: Duration = Duration::from_secs(10);

/// The one number that a query returns; no row is 0.
pub(super) async fn number(client: &Client, sql: &str, params: &[&str]) -> anyhow::Result<u64> {
    let script = json!({ "statements": [{ "sql": sql, "params": params }] });
    let answer = client.call(READER, &script, PATIENCE).await?;
    found(&answer).with_context(|| format!("cannot find a number in the answer of `{READER}`: {answer}"))
}

/// A 64-bit number may come as text, since JSON's numbers are not all exact.
fn found(answer: &Value) -> Option<u64> {
    match answer.pointer("/results/0/rows")?.as_array()?.first() {
        None => Some(0),
        Some(row) => match row.get(0)? {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_as_number_as_text_and_as_no_row() {
        let answer = |rows: Value| json!({ "results": [{ "columns": ["n"], "rows": rows }] });
        assert_eq!(found(&answer(json!([[10_000]]))), Some(10_000));
        assert_eq!(found(&answer(json!([["10000"]]))), Some(10_000));
        assert_eq!(found(&answer(json!([]))), Some(0));
        assert_eq!(found(&json!({ "error": "no such table" })), None);
    }
}
