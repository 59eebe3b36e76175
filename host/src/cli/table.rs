//! Plain aligned columns for listings.

use serde_json::Value;

/// Rows under headings; each column as wide as its widest cell.
pub(super) fn print(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out!("{}", padded.join("  ").trim_end());
    };
    line(&headings.iter().map(|heading| heading.to_uppercase()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}

/// A JSON value as a cell: text without quotes and without control characters, nothing for null.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\""),
        other => other.to_string(),
    }
}

/// The document itself, for `--json`.
pub(super) fn json(document: &Value) -> anyhow::Result<()> {
    out!("{}", serde_json::to_string_pretty(document)?);
    Ok(())
}

/// A `last_error` in few words; empty if there is none.
pub(crate) fn error(error: &Value) -> String {
    if error.is_null() {
        return String::new();
    }
    let message: String = cell(&error["message"]).chars().take(60).collect();
    format!("{}: {message}", cell(&error["kind"]))
}
