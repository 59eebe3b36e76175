//! What the engine does for each message, or every second, costs the same however many messages there are: no statement of
//! the store walks over a whole table, except those that people ask for.

use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};

use crate::harness::root;
use crate::store::Bench;

/// Listings for people, and fragments of them.
const FOR_PEOPLE: [&str; 6] =
    ["counts.sql", "depths.sql", "message.sql", "message_from.sql", "messages.sql", "messages_ended.sql"];
/// Tables that grow with messages, and the parts of them that stay small.
const LARGE: [&str; 5] = ["semel_messages", "semel_queue", "semel_history", "semel_attempts", "semel_keys"];
const SMALL: [&str; 3] = ["semel_queue_running", "semel_queue_suspect", "semel_queue_delayed"];

/// Whether one line of a plan reads more rows than it needs.
fn is_wide(step: &str) -> bool {
    let large = LARGE.iter().any(|table| step.contains(table)) || step.starts_with("SCAN q ");
    let whole = step.starts_with("SCAN ") && !SMALL.iter().any(|index| step.contains(index));
    // All that ended in one state.
    let state = step.contains("semel_history_ended (state=?)");
    large && (whole || state)
}

#[tokio::test]
async fn no_statement_of_the_engine_walks_over_a_whole_table() {
    let bench = Bench::new().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(bench.folder.path().join("test.db"));
    let mut file = options.read_only(true).connect().await.expect("the database file");
    let (mut wide, mut seen) = (Vec::new(), 0);
    for entry in std::fs::read_dir(root().join("host/src/store/sqlite")).expect("the statements") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if !name.ends_with(".sql") || FOR_PEOPLE.contains(&name.as_str()) {
            continue;
        }
        let sql = std::fs::read_to_string(root().join("host/src/store/sqlite").join(&name)).expect("a statement");
        let code: String = sql.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect();
        for statement in code.split(";\n").filter(|statement| !statement.trim().is_empty()) {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"))).fetch_all(&mut file).await;
            for step in plan.unwrap_or_else(|error| panic!("{name}: {error}")) {
                let step: String = step.get("detail");
                seen += 1;
                if is_wide(&step) {
                    wide.push(format!("{name}: {step}"));
                }
            }
        }
    }
    assert!(seen > 50, "{seen} steps: the plans were not read");
    assert!(wide.is_empty(), "\n{}\n", wide.join("\n"));
}
