//! Every way out of guest SQL on SQLite that is known, tried by a guest in a real host (`prison.rs`).

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::Start;
use crate::prison::End::{Completed, Doomed, Failed, Forbidden, TimedOut};
use crate::prison::Prison;

/// What the vectors need: a table whose conflicts end the transaction, one that counts, one that depends, one with an
/// engine's column name.
const TABLES: &str = "
    CREATE TABLE ending (id INTEGER PRIMARY KEY ON CONFLICT ROLLBACK, value TEXT);
    INSERT INTO ending VALUES (1, 'one');
    CREATE TABLE counting (id INTEGER PRIMARY KEY AUTOINCREMENT, secret BLOB, key TEXT, name TEXT);
    CREATE TABLE depending (id INTEGER REFERENCES ending ON DELETE CASCADE);";

#[tokio::test]
async fn transaction_control_and_second_statements_are_forbidden() {
    let prison = Prison::start(Start::default(), TABLES).await;
    let control = ["COMMIT", "END", "ROLLBACK", "BEGIN", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s", "/**/ COMMIT"];
    prison.each("transaction control", Forbidden, &control).await;
    let second =
        ["SELECT 1; COMMIT", "INSERT INTO scratch (id) VALUES (99); COMMIT", "SELECT 1;;;COMMIT", "SELECT 1; SELECT 2"];
    prison.each("a second statement", Forbidden, &second).await;
    let host = include_str!("../../src/store/sqlite/enqueue_queue.sql");
    let params = json!([99, 0, 0, 0]);
    prison.run("sqlshell", "the host's exact text", &[json!({ "sql": host, "params": params })], Forbidden).await;
    prison.each("VACUUM INTO", Forbidden, &["VACUUM INTO 'stolen.db'"]).await;
    assert!(!prison.semel.folder().join("stolen.db").exists());
    prison.end().await;
}

/// No authorizer is asked about these. What the guest sends afterwards would be committed by itself.
#[tokio::test]
async fn conflicts_that_end_the_transaction_end_the_run() {
    let prison = Prison::start(Start::default(), TABLES).await;
    let write = json!({ "sql": "INSERT INTO scratch (id) VALUES (1000)" });
    for sql in [
        "INSERT OR ROLLBACK INTO scratch (id) SELECT max(id) FROM scratch",
        "UPDATE OR ROLLBACK scratch SET id = id + 1 WHERE id + 1 IN (SELECT id FROM scratch)",
        "INSERT INTO ending VALUES (1, 'again')",
    ] {
        let twice = json!({ "sql": "INSERT INTO scratch (id) VALUES (999)" });
        let statements = [twice, write.clone(), json!({ "sql": sql }), write.clone(), json!({ "sql": "SELECT 1" })];
        prison.run("sqlshell", "ROLLBACK on conflict", &statements, Doomed).await;
    }
    let raise = ["SELECT RAISE(ROLLBACK, 'x')", "INSERT INTO scratch (id) VALUES (RAISE(ROLLBACK, 'x'))"];
    prison.each("RAISE", Failed, &raise).await;
    prison.end().await;
}

#[tokio::test]
async fn tables_of_the_engine_are_forbidden_however_they_are_named() {
    let prison = Prison::start(Start::default(), TABLES).await;
    let using_and_natural = [
        "WITH c(secret) AS (SELECT x'00') SELECT count(*) FROM c JOIN semel_store USING (secret)",
        "WITH c(key) AS (SELECT 'key-of-another') SELECT count(*) FROM c NATURAL JOIN semel_keys",
        "SELECT count(*) FROM counting JOIN semel_store USING (secret)",
        "WITH c(name) AS (SELECT 'semel_store') SELECT count(*) FROM c JOIN sqlite_schema USING (name)",
        "WITH c(name) AS (SELECT 'own') SELECT count(*) FROM c JOIN sqlite_sequence USING (name)",
    ];
    prison.each("USING and NATURAL", Forbidden, &using_and_natural).await;
    let full_join = [
        "WITH c(secret) AS (SELECT x'00') SELECT hex(secret) FROM c FULL JOIN semel_store USING (secret)",
        "WITH c(body) AS (SELECT NULL) SELECT body FROM c NATURAL FULL JOIN 'semel_messages'",
        "WITH c(sql) AS (SELECT NULL) SELECT sql FROM c FULL JOIN [sqlite_master] USING (sql)",
        "SELECT key FROM counting RIGHT JOIN `semel_keys` USING (key)",
    ];
    prison.each("FULL JOIN", Forbidden, &full_join).await;
    let plain_reads = [
        "SELECT * FROM semel_messages",
        "SELECT count(*) FROM \"semel_queue\"",
        "SELECT EXISTS (SELECT 1 FROM main.semel_state)",
        "WITH q AS (SELECT * FROM semel_queue) SELECT 1 FROM q",
        "SELECT * FROM (SELECT token_hash FROM semel_queue)",
        "SELECT 1 WHERE 1 IN semel_queue",
        "SELECT * FROM sqlite_schema",
        "SELECT * FROM sqlite_temp_master",
        "SELECT * FROM sqlite_sequence",
    ];
    prison.each("plain reads", Forbidden, &plain_reads).await;
    let plain_writes = [
        "INSERT INTO semel_state VALUES ('a', 'b', 'c')",
        "UPDATE semel_queue SET state = 'available'",
        "DELETE FROM semel_history",
        "REPLACE INTO semel_store VALUES (1, 1, x'00', 0)",
        "INSERT INTO scratch (value) SELECT id FROM semel_messages",
        "UPDATE scratch SET value = (SELECT hex(secret) FROM semel_store)",
        "INSERT INTO scratch (id) VALUES (1) ON CONFLICT DO UPDATE SET value = (SELECT id FROM semel_messages)",
        "DELETE FROM scratch RETURNING (SELECT hex(secret) FROM semel_store)",
        "UPDATE sqlite_sequence SET seq = 0",
    ];
    prison.each("plain writes", Forbidden, &plain_writes).await;
    prison.end().await;
}

#[tokio::test]
async fn what_is_no_plain_statement_is_forbidden() {
    let prison = Prison::start(Start::default(), TABLES).await;
    let files_and_settings = [
        "ATTACH 'other.db' AS other",
        "DETACH main",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = ON",
        "SELECT * FROM pragma_table_list",
        "SELECT * FROM pragma_journal_mode('delete')",
    ];
    prison.each("files and settings", Forbidden, &files_and_settings).await;
    let definitions = [
        "ANALYZE",
        "REINDEX",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "CREATE INDEX i ON scratch (value)",
        "CREATE VIEW v AS SELECT * FROM semel_store",
        "CREATE TRIGGER t AFTER INSERT ON scratch BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE v USING fts5(a)",
        "ALTER TABLE scratch ADD COLUMN b",
        "DROP TABLE scratch",
        "EXPLAIN SELECT 1",
    ];
    prison.each("definitions", Forbidden, &definitions).await;
    let functions_that_do_more_than_compute = [
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT fts5(NULL)",
        "SELECT sqlite_source_id()",
        "SELECT json_patch('{}', '{}')",
    ];
    prison.each("functions that do more than compute", Forbidden, &functions_that_do_more_than_compute).await;
    prison
        .each(
            "virtual tables",
            Failed,
            &["SELECT * FROM dbstat", "SELECT * FROM fts3tokenize('simple', 'x')", "SELECT * FROM fts4aux"],
        )
        .await;
    prison.end().await;
}

/// Deadlines hold inside of statements, and whoever comes next finds a working database at once.
#[tokio::test]
async fn endless_statements_end_at_their_deadline() {
    let prison = Prison::start(Start::default(), TABLES).await;
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT";
    let many = (0..60).map(|_| "(SELECT 1 UNION SELECT 2)").collect::<Vec<_>>().join(", ");
    let doubled: String = (1..60).fold("WITH t0(x) AS (SELECT 1)".into(), |text, number| {
        let last = number - 1;
        format!("{text}, t{number}(x) AS (SELECT a.x FROM t{last} a, t{last} b)")
    });
    for sql in [
        format!("{endless} count(*) FROM n"),
        format!("INSERT INTO scratch (value) {endless} i FROM n WHERE i < 0"),
        format!("UPDATE scratch SET value = ({endless} count(*) FROM n)"),
        format!("SELECT count(*) FROM {many}"),
        format!("{doubled} SELECT count(*) FROM t59"),
    ] {
        // While it holds the writer, a message of somebody else waits for it, and not longer.
        let other =
            json!({ "statements": [{ "sql": "INSERT INTO scratch (value) VALUES (NULL), (NULL)" }] }).to_string();
        let statements = [json!({ "sql": sql })];
        let attack = prison.run("hasty", "endless", &statements, TimedOut);
        let (_, other) = tokio::join!(attack, prison.semel.call("sqlshell", &other));
        assert_eq!(other.status, 200, "{sql}: {}", other.text());
        assert_eq!(prison.semel.outcomes(&other.id()).await, ["completed"], "{sql}");
    }
    prison.end().await;
}

/// Nothing interrupts a function. With SQLite's own, each of these would hold the database for minutes.
#[tokio::test]
async fn slow_functions_are_bounded() {
    let prison = Prison::start(Start::default(), TABLES).await;
    let (text, half) = ("printf('%.*c', 1300000, 'a')", "printf('%.*c', 650000, 'a') || 'b'");
    let set = "replace(printf('%.*c', 650000, 'x'), 'x', 'b') || 'a'";
    let paths = vec!["'$[600000]'"; 126].join(", ");
    let list = "'[' || replace(printf('%.*c', 640000, 'x'), 'x', '1,') || '1]'";
    let bounded = [
        format!("SELECT instr({text}, {half})"),
        format!("SELECT length(replace({text}, {half}, 'x'))"),
        format!("SELECT length(trim({text}, {set}))"),
        format!("SELECT length(ltrim({text}, {set})), length(rtrim({text}, {set}))"),
        format!("SELECT length(unhex({text}, {half}))"),
        format!("SELECT {text} LIKE '%' || printf('%.*c', 250, 'a') || 'b'"),
        format!("SELECT {text} GLOB '*[' || printf('%.*c', 240, 'b') || ']c'"),
        format!("SELECT json_extract({list}, {paths})"),
    ];
    let refused = [
        format!("SELECT {text} || {text}"),
        "SELECT length(zeroblob(50000000))".into(),
        format!("SELECT {text} LIKE printf('%.*c', 300, 'a')"),
        format!("SELECT json_extract({list}, {paths}, '$[1]', '$[1]')"),
    ];
    let texts = |texts: &[String]| texts.to_vec();
    for sql in texts(&bounded) {
        prison.each("slow functions", Completed, &[&sql]).await;
    }
    for sql in texts(&refused) {
        prison.each("long values", Failed, &[&sql]).await;
    }
    prison.end().await;
}

/// The memory of SQLite is bounded; who asks for more loses the run, and the host goes on.
#[tokio::test]
async fn memory_is_bounded() {
    let prison = Prison::start(Start::default(), TABLES).await;
    let numbers =
        |count: u32| format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})");
    // Indented to 900 MB in one instruction.
    let deep = "replace(printf('%.*c', 30, 'x'), 'x', '[') || '1' || replace(printf('%.*c', 30, 'x'), 'x', ']')";
    for (sql, reason) in [
        (
            format!("{} SELECT length(json_group_array(i)) FROM n", numbers(20_000_000)),
            "the statement takes more memory than it may",
        ),
        (format!("{} SELECT json_group_array(printf('%.*c', 1000000, 'a')) FROM n", numbers(1000)), "memory"),
        (format!("SELECT json_pretty({deep}, printf('%.*c', 1000000, ' '))"), "out of memory"),
    ] {
        let told = prison.run("sqlshell", "memory", &[json!({ "sql": sql })], Doomed).await;
        assert!(told.contains(reason), "{sql}: {told}");
        prison.each("memory", Completed, &["SELECT count(*) FROM scratch"]).await;
    }
    prison.end().await;
}

/// What an app needs is not in the walls' way.
#[tokio::test]
async fn plain_statements_complete() {
    let prison = Prison::start(Start::default(), TABLES).await;
    prison.each("plain", Completed, &[
            "INSERT INTO counting (name) VALUES ('a'), ('b') RETURNING id",
            "INSERT INTO counting (name) SELECT name FROM counting",
            "INSERT INTO depending SELECT id FROM ending",
            "DELETE FROM ending",
            "DELETE FROM depending",
            "INSERT INTO ending VALUES (5, 'x') ON CONFLICT (id) DO UPDATE SET value = excluded.value",
            "REPLACE INTO ending VALUES (5, 'y')",
            "UPDATE ending SET value = upper(value) FROM counting WHERE counting.id = ending.id",
            "SELECT a.id, rank() OVER (ORDER BY a.name) FROM counting a LEFT JOIN counting b USING (id) ORDER BY 2",
            "SELECT name, group_concat(id) FROM counting GROUP BY name HAVING count(*) > 0",
            "SELECT value FROM json_each('[1, 2]') UNION SELECT key FROM json_tree('{\"a\": 1}') EXCEPT SELECT 1",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10) SELECT sum(i) FROM n",
            "SELECT datetime('now'), random(), trim('  a '), replace('abc', 'b', 'x'), '{\"a\": 1}' ->> '$.a'",
            "SELECT * FROM counting WHERE name LIKE 'a%' OR id IN (SELECT id FROM ending) OR EXISTS (SELECT 1 FROM depending)",
        ]).await;
    // A pattern that is bound makes SQLite plan again.
    let like = json!({ "sql": "SELECT * FROM counting WHERE name LIKE $1", "params": ["a%"] });
    prison.run("sqlshell", "LIKE", &[like], Completed).await;
    prison.end().await;
}

/// Reads first and writes then, many at once: the lock is taken when the transaction begins, so nobody is turned away.
#[tokio::test]
async fn a_transaction_that_reads_first_may_write() {
    let prison = Prison::start(Start::default(), TABLES).await;
    let statements =
        [json!({ "sql": "SELECT count(*) FROM scratch" }), json!({ "sql": "SELECT count(*) FROM counting" })];
    join_all((0..20).map(|_| prison.run("sqlshell", "read, then write", &statements, Completed))).await;
    prison.end().await;
}
