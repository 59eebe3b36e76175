//! What the engine does for each message, or every second, costs the same however many messages there are: no statement of
//! the store walks over a whole table, except those that people ask for.

use std::time::Duration;

use semel::message::{Event, Usage};
use semel::store::{
    CallEnd, ClaimRequest, Commit, Deployment, Failure, Intent, Key, Lane, Remember, Retention, Target,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

use crate::harness::{On, root, until};
use crate::mariadb::Mariadb;
use crate::servers::name_of;
use crate::store::{Bench, deployment, lane};

/// Listings for people, and fragments of them; and what is done once, when a store is opened.
const SELDOM: [&str; 8] = [
    "counts.sql",
    "depths.sql",
    "ledger_forget_orphans.sql",
    "ledger_page.sql",
    "message.sql",
    "message_from.sql",
    "messages.sql",
    "messages_ended.sql",
];
/// Tables that grow with messages, and the parts of them that stay small.
const LARGE: [&str; 6] =
    ["semel_messages", "semel_queue", "semel_history", "semel_attempts", "semel_keys", "semel_calls"];
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
    let bench = Bench::new(On::Sqlite).await;
    bench.store.abandon("m", 1, "so that there is a ledger").await.expect("a statement");
    let open = async |name: &str| {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(bench.folder.path().join(name));
        options.read_only(true).connect().await.expect("the database file")
    };
    let (mut queue, mut ledger) = (open("test.db").await, open("test.db.ledger").await);
    let (mut wide, mut seen) = (Vec::new(), 0);
    for entry in std::fs::read_dir(root().join("host/src/store/sqlite")).expect("the statements") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if !name.ends_with(".sql") || SELDOM.contains(&name.as_str()) {
            continue;
        }
        let sql = std::fs::read_to_string(root().join("host/src/store/sqlite").join(&name)).expect("a statement");
        let code: String = sql.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect();
        for statement in code.split(";\n").filter(|statement| !statement.trim().is_empty()) {
            let file = if name.starts_with("ledger_") { &mut ledger } else { &mut queue };
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"))).fetch_all(file).await;
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

/// So many messages, of each kind that there is, that no operation below has to do with.
const OTHERS: i64 = 10_000;
/// How often each operation is done.
const ROUNDS: i64 = 20;

/// Messages that wait, are delayed, wait behind one of their group, run (a few: as many as hosts can run), and have ended,
/// with their attempts and keys.
const FILL: &str = "
    INSERT INTO semel.messages (id, event, function, topic, group_key, headers, body, priority, accepted_at, due_at)
        SELECT 'other ' || n, 'e', CASE WHEN n % 2 = 0 THEN 'f' ELSE 'g' END, 't', 'group ' || n % 10, '[]', '', 0, 0, 0
        FROM generate_series(1, 50000) AS n;
    INSERT INTO semel.queue (seq, function, group_key, state, priority, available_at, due, blocked, attempt, fence, lease_until)
        SELECT seq, function, group_key, CASE WHEN seq % 4 = 3 AND seq < 100 THEN 'running' ELSE 'available' END, -1,
               CASE WHEN seq % 4 = 0 THEN 0 ELSE semel.now() + 3600000000 END, seq % 4 = 0, seq % 4 = 1, 0, 0,
               semel.now() + 3600000000
        FROM semel.messages WHERE seq <= 40000;
    INSERT INTO semel.history (seq, function, state, attempt, fence, available_at, ended_at)
        SELECT seq, function, CASE WHEN seq % 2 = 0 THEN 'completed' ELSE 'dead' END, 1, 1, 0, semel.now()
        FROM semel.messages WHERE seq > 40000;
    INSERT INTO semel.attempts (seq, fence, attempt, function, version, host, claimed_at, outcome)
        SELECT seq, 1, 1, function, 1, 'h', 0, 'completed' FROM semel.history;
    INSERT INTO semel.keys (function, key, fingerprint, message, expires_at)
        SELECT function, id, '', id, semel.now() + 3600000000 FROM semel.messages WHERE seq > 40000;
    INSERT INTO semel.calls (message, function, fence, attempt, ordinal, method, url, key, state, intended_at)
        SELECT id, function, 1, 1, 0, 'POST', '', '', CASE WHEN seq % 2 = 0 THEN 'done' ELSE 'unknown' END, 0
        FROM semel.messages WHERE seq > 30000;
    ANALYZE";

/// Rows and index entries of each large table that sessions of the past have read.
const READ: &str = "
    SELECT t.relname::text, (t.seq_tup_read + sum(i.idx_tup_read))::bigint
    FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i USING (relid)
    WHERE t.schemaname = 'semel' AND t.relname IN ('messages', 'queue', 'history', 'attempts', 'keys', 'calls')
    GROUP BY t.relid, t.relname, t.seq_tup_read ORDER BY 1";

/// On Postgres most statements run inside of functions, and plans come and go with statistics: so what is counted is what
/// the operations have really read, beside a queue and a history of many.
#[tokio::test]
async fn no_operation_on_postgres_reads_what_it_has_nothing_to_do_with() {
    let bench = Bench::new(On::Postgres).await;
    let mut serial = Deployment { migrations: vec![], ..deployment("g") };
    serial.activation.serial = true;
    bench.store.deploy(serial).await.expect("a deploy");
    // One that has nothing in the queue any more, which its row outlives.
    let removed = Deployment { migrations: vec![], ..deployment("h") };
    bench.store.deploy(removed).await.expect("a deploy");
    bench.store.remove("h").await.expect("a removal");
    let url = bench.url().to_owned();
    let mut session = sqlx::PgConnection::connect(&url).await.expect("a session");
    sqlx::raw_sql(FILL).execute(&mut session).await.expect("many others");
    // What this session has read counts before the rounds, not whenever it is told next.
    sqlx::raw_sql("SELECT pg_stat_force_next_flush()").execute(&mut session).await.expect("statistics");
    let bench = reopened(bench, &mut session).await;
    let before: Vec<(String, i64)> = sqlx::query_as(READ).fetch_all(&mut session).await.expect("statistics");
    for round in 0..ROUNDS {
        everything(&bench, round).await;
    }
    let bench = reopened(bench, &mut session).await;
    let after: Vec<(String, i64)> = sqlx::query_as(READ).fetch_all(&mut session).await.expect("statistics");
    drop(bench);
    assert_eq!(after.len(), 6, "{after:?}");
    little_was_read(&before, &after);
}

/// Between two looks at the statistics.
fn little_was_read(before: &[(String, i64)], after: &[(String, i64)]) {
    let mut total = 0;
    for ((table, before), (_, after)) in before.iter().zip(after) {
        let read = after - before;
        eprintln!("{table}: {read} read in {ROUNDS} rounds");
        assert!(read < OTHERS / 2, "{table}: {read} read, of about {OTHERS} others of each kind");
        total += read;
    }
    assert!(total > 100 * ROUNDS / 2, "{total} read in all: nothing was counted");
}

/// The same as `FILL` on MariaDB, statement by statement.
const FILL_MARIADB: [&str; 7] = [
    "INSERT INTO messages (id, event, `function`, topic, group_key, headers, body, priority, accepted_at, due_at)
        SELECT CONCAT('other ', seq), 'e', IF(seq % 2 = 0, 'f', 'g'), 't', CONCAT('group ', seq % 10), '[]', '', 0, 0, 0
        FROM seq_1_to_50000",
    "INSERT INTO queue (seq, `function`, group_key, state, urgency, available_at, due, blocked, attempt, fence, lease_until)
        SELECT seq, `function`, group_key, IF(seq % 4 = 3 AND seq < 100, 'running', 'available'), 1,
               IF(seq % 4 = 0, 0, UNIX_TIMESTAMP() * 1000000 + 3600000000), seq % 4 = 0, seq % 4 = 1, 0, 0,
               UNIX_TIMESTAMP() * 1000000 + 3600000000
        FROM messages WHERE seq <= 40000",
    "INSERT INTO history (seq, `function`, state, attempt, fence, available_at, ended_at)
        SELECT seq, `function`, IF(seq % 2 = 0, 'completed', 'dead'), 1, 1, 0, UNIX_TIMESTAMP() * 1000000
        FROM messages WHERE seq > 40000",
    "INSERT INTO attempts (seq, fence, attempt, `function`, version, host, claimed_at, outcome, logs)
        SELECT seq, 1, 1, `function`, 1, 'h', 0, 'completed', '[]' FROM history",
    "INSERT INTO `keys` (`function`, `key`, fingerprint, message, expires_at)
        SELECT `function`, id, '', id, UNIX_TIMESTAMP() * 1000000 + 3600000000 FROM messages WHERE seq > 40000",
    "INSERT INTO calls (message, `function`, fence, attempt, ordinal, method, url, `key`, state, intended_at)
        SELECT id, `function`, 1, 1, 0, 'POST', '', '', IF(seq % 2 = 0, 'done', 'unknown'), 0
        FROM messages WHERE seq > 30000",
    "ANALYZE TABLE messages, queue, history, attempts, `keys`, calls",
];

/// Rows of each large table that were read, procedures included.
const READ_MARIADB: &str = "
    SELECT t.table_name, CAST(COALESCE(s.rows_read, 0) AS SIGNED) FROM information_schema.tables t
    LEFT JOIN information_schema.table_statistics s ON s.table_schema = t.table_schema AND s.table_name = t.table_name
    WHERE t.table_schema = DATABASE() AND t.table_name IN ('messages', 'queue', 'history', 'attempts', 'keys', 'calls')
    ORDER BY 1";

#[tokio::test]
async fn no_operation_on_mariadb_reads_what_it_has_nothing_to_do_with() {
    let server = Mariadb::start(&["userstat=1", "innodb_flush_method=nosync"]);
    let bench = Bench::over(server.database().await, tempfile::tempdir().expect("a folder")).await;
    bench.store.deploy(deployment("f")).await.expect("a deploy");
    let mut serial = Deployment { migrations: vec![], ..deployment("g") };
    serial.activation.serial = true;
    bench.store.deploy(serial).await.expect("a deploy");
    let removed = Deployment { migrations: vec![], ..deployment("h") };
    bench.store.deploy(removed).await.expect("a deploy");
    bench.store.remove("h").await.expect("a removal");
    let mut session = server.superuser(name_of(bench.url())).await;
    for sql in FILL_MARIADB {
        sqlx::raw_sql(sql).execute(&mut session).await.expect(sql);
    }
    let before: Vec<(String, i64)> = sqlx::query_as(READ_MARIADB).fetch_all(&mut session).await.expect("statistics");
    for round in 0..ROUNDS {
        everything(&bench, round).await;
    }
    let after: Vec<(String, i64)> = sqlx::query_as(READ_MARIADB).fetch_all(&mut session).await.expect("statistics");
    assert_eq!(after.len(), 6, "{after:?}");
    little_was_read(&before, &after);
}

/// Statistics are complete when the sessions have ended.
async fn reopened(bench: Bench, session: &mut sqlx::PgConnection) -> Bench {
    let (url, folder) = bench.close();
    until("the end of the sessions", async || {
        let others = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        let others: i64 = sqlx::query_scalar(others).fetch_one(&mut *session).await.expect("a count");
        (others == 0).then_some(())
    })
    .await;
    Bench::over(url, folder).await
}

/// What hosts do for messages, and every second.
async fn everything(bench: &Bench, round: i64) {
    let store = &bench.store;
    let end = |retry_after| Failure { kind: "failed", message: "test".into(), retry_after };
    // Those of `f`, which asks for no order, are of a group that is long.
    for (number, function, group) in
        [(0, "f", "group 0"), (1, "f", "group 0"), (2, "f", "group 0"), (3, "g", "own"), (4, "g", "own")]
    {
        let event = Event {
            id: format!("{round} {number}"),
            topic: format!("fn/{function}"),
            group: Some(group.into()),
            priority: 1,
            ..Event::default()
        };
        let key = Key { key: event.id.clone(), fingerprint: vec![], remember: Remember::WhileActive };
        store.enqueue(event, Target::Function(function.into()), Some(key)).await.expect("an acceptance");
    }
    let lanes = ["f", "g"].map(|function| Lane { function: function.into(), limit: 3, ..lane() }).into();
    let request = ClaimRequest { lanes, limit: 10, suspects: false, host: "test".into() };
    let claimed = store.claim(request).await.expect("a claim");
    let claims: Vec<_> = claimed.into_iter().map(|claimed| (claimed.claim, claimed.message.id)).collect();
    assert_eq!(claims.len(), 4, "three of f, and the first of the group");
    let intent = Intent {
        message: claims[0].1.clone(),
        function: "f".into(),
        fence: claims[0].0.fence,
        attempt: 1,
        ordinal: 0,
        method: "POST".into(),
        url: String::new(),
        key: String::new(),
    };
    let call = store.intend(intent.clone()).await.expect("a row");
    store.intend(Intent { ordinal: 1, ..intent.clone() }).await.expect("a row");
    store.finish(call, CallEnd::Done(200)).await.expect("an end");
    store.abandon(&intent.message, intent.fence, "test").await.expect("an end");
    store.called(&[intent.message]).await.expect("an answer");
    store.begin(&claims[0].0).await.expect("a begin");
    store.heartbeat(claims.iter().map(|(claim, _)| claim.clone()).collect()).await.expect("a heartbeat");
    assert_eq!(bench.write_and_commit(&claims[0].0).await, Commit::Committed);
    store.settle(&claims[1].0, end(None), Usage::default()).await.expect("an end");
    store.settle(&claims[2].0, end(Some(Duration::from_secs(3600))), Usage::default()).await.expect("a retry");
    store.resolve(&claims[3].0).await.expect("an answer");
    assert_eq!(bench.write_and_commit(&claims[3].0).await, Commit::Committed);
    store.cancel(&claims[2].1).await.expect("a decision");
    store.redrive(&claims[1].1).await.expect("a decision");
    store.cancel(&claims[1].1).await.expect("a decision");
    bench.recover().await.expect("recovery");
    store.sweep(100).await.expect("a sweep");
    let day = Duration::from_secs(86_400);
    store.forget(Retention { completed: day, dead: day, cancelled: day }, 100).await.expect("a step");
}
