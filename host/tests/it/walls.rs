//! The walls around guest SQL, each by itself: every statement goes to a real session as a guest's would.

use std::sync::Arc;
use std::time::{Duration, Instant};

use semel::message::{Contract, Event};
use semel::store::{self, Activation, Bounds, Deployment, Rows, Session, SqlError, Store, Target, Value};

struct App {
    store: Arc<dyn Store>,
    _folder: tempfile::TempDir,
}

impl App {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = store::open(&format!("sqlite://{}/test.db", folder.path().display())).await.expect("a store");
        let tables = "CREATE TABLE own (id INTEGER PRIMARY KEY, value TEXT UNIQUE); INSERT INTO own VALUES (1, 'one')";
        let deployment = Deployment {
            activation: Activation {
                function: "f".into(),
                app: "app".into(),
                topics: vec![],
                serial: false,
                backlog: None,
                schedules: vec![],
            },
            manifest: "name = \"f\"".into(),
            contract: Contract::FinishOnce,
            label: "transactional".into(),
            digest: "digest".into(),
            component: vec![],
            migrations: vec![("0001.sql".into(), tables.into())],
        };
        store.deploy(deployment).await.expect("a deploy");
        Self { store, _folder: folder }
    }

    /// How one statement ends in a transaction of its own, which is rolled back.
    async fn run(&self, sql: &str, params: Vec<Value>) -> Result<Rows, SqlError> {
        let mut session = self.store.session();
        let done = session.query(sql.into(), params, bounds()).await;
        session.rollback().await;
        done
    }

    async fn values(&self) -> Vec<Vec<Value>> {
        self.run("SELECT value FROM own ORDER BY id", vec![]).await.expect("a query").rows
    }
}

fn bounds() -> Bounds {
    Bounds { rows: 100, bytes: 1 << 20, deadline: Instant::now() + Duration::from_secs(10) }
}

async fn query(session: &mut Box<dyn Session>, sql: &str) -> Result<Rows, SqlError> {
    session.query(sql.into(), vec![], bounds()).await
}

#[tokio::test]
async fn statements_over_the_apps_rows_pass() {
    let app = App::new().await;
    for sql in [
        "SELECT * FROM own",
        "select count(*) from own",
        "-- a comment\nSELECT 1;",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10) SELECT sum(i) FROM n",
        "WITH c AS (SELECT * FROM own) SELECT count(*) FROM c",
        "INSERT INTO own VALUES (2, 'two') ON CONFLICT (id) DO UPDATE SET value = excluded.value",
        "INSERT INTO own (value) VALUES ('x') RETURNING id",
        "UPDATE own SET value = upper(value)",
        "DELETE FROM own",
        "REPLACE INTO own VALUES (1, 'other')",
        "VALUES (1), (2)",
        "SELECT json_extract('{\"a\":1}', '$.a'), datetime('now'), random()",
        "SELECT value FROM json_each('[1,2]')",
        "SELECT 'COMMIT; semel_queue'",
    ] {
        assert!(app.run(sql, vec![]).await.is_ok(), "{sql}: {:?}", app.run(sql, vec![]).await);
    }
}

/// Walls: first word, one statement, authorizer. Nothing of a refused statement has run.
#[tokio::test]
async fn what_is_not_a_guests_business_is_forbidden() {
    let app = App::new().await;
    for sql in [
        "COMMIT",
        "END",
        "ROLLBACK",
        "BEGIN",
        "/**/COMMIT",
        "SAVEPOINT x",
        "RELEASE x",
        "VACUUM INTO '/tmp/x'",
        "SELECT 1; COMMIT",
        "INSERT INTO own VALUES (3, 'three'); COMMIT",
        "SELECT 1;;SELECT 2",
        "PRAGMA synchronous = OFF",
        "SELECT * FROM pragma_table_info('own')",
        "ATTACH ':memory:' AS other",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "DROP TABLE own",
        "ALTER TABLE own ADD COLUMN b",
        "CREATE TRIGGER t AFTER INSERT ON own BEGIN SELECT 1; END",
        "ANALYZE",
        "REINDEX",
        "EXPLAIN SELECT 1",
        "SELECT * FROM semel_queue",
        "SELECT count(*) FROM semel_messages",
        "SELECT secret FROM semel_store",
        "SELECT * FROM SEMEL_keys",
        "SELECT * FROM \"semel_state\"",
        "SELECT * FROM main.semel_queue",
        "SELECT EXISTS (SELECT 1 FROM semel_queue)",
        "WITH q AS (SELECT * FROM semel_queue) SELECT * FROM q",
        "INSERT INTO semel_state VALUES ('a', 'b', 'c')",
        "UPDATE semel_queue SET state = 'available'",
        "DELETE FROM semel_history",
        "INSERT INTO own SELECT seq, id FROM semel_messages",
        "UPDATE own SET value = (SELECT hex(token_hash) FROM semel_queue)",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM sqlite_schema",
        "WITH c(secret) AS (SELECT x'00') SELECT hex(secret) FROM c FULL JOIN semel_store USING (secret)",
        "WITH c(key) AS (SELECT 'a') SELECT count(*) FROM c JOIN semel_keys USING (key)",
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('simple')",
        "",
    ] {
        let refused = app.run(sql, vec![]).await;
        assert!(matches!(refused, Err(SqlError::Forbidden(_))), "{sql}: {refused:?}");
    }
    assert_eq!(app.values().await, [[Value::Text("one".into())]]);
}

/// Wall: the autocommit check after each statement. These end the host's transaction without asking the authorizer;
/// what a guest sends afterwards would commit by itself.
#[tokio::test]
async fn a_statement_that_ends_the_transaction_is_the_last_one() {
    for ending in [
        "INSERT OR ROLLBACK INTO own VALUES (1, 'again')",
        "UPDATE OR ROLLBACK own SET value = 'two' WHERE id = 1",
        "INSERT INTO own VALUES (4, 'two') ON CONFLICT (id) DO NOTHING",
    ] {
        let app = App::new().await;
        let mut session = app.store.session();
        query(&mut session, "INSERT INTO own VALUES (2, 'two')").await.expect("an insert");
        let ended = query(&mut session, ending).await;
        if ending.contains("OR ROLLBACK") {
            assert!(matches!(ended, Err(SqlError::Doomed(_))), "{ending}: {ended:?}");
            let next = query(&mut session, "INSERT INTO own VALUES (3, 'three')").await;
            assert!(matches!(next, Err(SqlError::Doomed(_))), "{next:?}");
        } else {
            assert!(
                matches!(ended, Err(SqlError::Database(_))),
                "an ordinary conflict undoes one statement: {ended:?}"
            );
            assert_eq!(query(&mut session, "SELECT * FROM own").await.expect("a query").rows.len(), 2);
        }
        session.rollback().await;
        assert_eq!(app.values().await, [[Value::Text("one".into())]], "{ending}");
    }
}

/// Wall: no statement cache. The engine has prepared this text before, so a cache would not ask the authorizer.
#[tokio::test]
async fn the_engines_own_text_is_not_served_from_a_cache() {
    let app = App::new().await;
    let text = include_str!("../../src/store/sqlite/enqueue_queue.sql");
    let event = Event { id: "one".into(), ..Event::default() };
    app.store.enqueue(event, Target::Function("f".into()), None).await.expect("a working store");
    let numbers = [99, 0, 0, 0].map(Value::Int64).to_vec();
    assert!(matches!(app.run(text, numbers).await, Err(SqlError::Forbidden(_))));
}

/// A deadline interrupts inside a statement, and the next guest finds a working connection.
#[tokio::test]
async fn an_endless_statement_ends_at_its_deadline() {
    let app = App::new().await;
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let writing = format!("INSERT INTO own (value) {endless}");
    for sql in [endless, &writing] {
        let mut session = app.store.session();
        let soon = Bounds { deadline: Instant::now() + Duration::from_millis(100), ..bounds() };
        let ended = tokio::time::timeout(Duration::from_secs(20), session.query(sql.into(), vec![], soon)).await;
        assert_eq!(ended.expect("nothing interrupts the statement"), Err(SqlError::Deadline), "{sql}");
        session.rollback().await;
        assert_eq!(app.values().await.len(), 1);
    }
}

#[tokio::test]
async fn answers_are_bounded() {
    let app = App::new().await;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 101) SELECT i FROM n";
    assert_eq!(app.run(many, vec![]).await, Err(SqlError::TooManyRows));
    assert_eq!(app.run("SELECT zeroblob(1200000)", vec![]).await, Err(SqlError::TooManyBytes));
    assert!(app.run("SELECT zeroblob(50000000)", vec![]).await.is_err());
}

#[tokio::test]
async fn parameters_are_numbered_and_all_used() {
    let app = App::new().await;
    let swapped = app.run("SELECT $2, $1, $2", vec![Value::Int64(1), Value::Text("b".into())]).await.expect("a query");
    assert_eq!(swapped.rows, [[Value::Text("b".into()), Value::Int64(1), Value::Text("b".into())]]);
    for (sql, count) in [("SELECT $1", 0), ("SELECT $1", 2), ("SELECT :a", 1), ("SELECT @a", 1), ("SELECT $0", 1)] {
        let refused = app.run(sql, vec![Value::Null; count]).await;
        assert!(matches!(refused, Err(SqlError::Parameter(_))), "{sql} with {count}: {refused:?}");
    }
    let nul = app.run("SELECT $1", vec![Value::Text("a\0b".into())]).await;
    assert!(matches!(nul, Err(SqlError::Parameter(_))));
}

/// The conversion table of `store/sqlite/values.rs`, there and back.
#[tokio::test]
async fn values_come_back_as_what_sqlite_stores() {
    let app = App::new().await;
    let text = |text: &str| Value::Text(text.into());
    for (given, back) in [
        (Value::Null, Value::Null),
        (Value::Boolean(true), Value::Int64(1)),
        (Value::Int32(-7), Value::Int64(-7)),
        (Value::Int64(i64::MIN), Value::Int64(i64::MIN)),
        (Value::Float64(0.1), Value::Float64(0.1)),
        (Value::Float64(f64::INFINITY), Value::Float64(f64::INFINITY)),
        (Value::Decimal("1.2345678901234567890".into()), text("1.2345678901234567890")),
        (text("ünïcode 🦀"), text("ünïcode 🦀")),
        (text(""), text("")),
        (Value::Bytes(vec![0, 255, 0]), Value::Bytes(vec![0, 255, 0])),
        (Value::Bytes(vec![]), Value::Bytes(vec![])),
        (Value::Json("{\"a\":1}".into()), text("{\"a\":1}")),
        (Value::Date(19_000), text("2022-01-08")),
        (Value::Time(1), text("00:00:00.000001")),
        (Value::Timestamptz(0), text("1970-01-01 00:00:00.000000Z")),
        (Value::Interval { months: 1, days: 2, micros: 3_000_000 }, text("P1M2DT3.000000S")),
        (Value::Int64Array(vec![Some(1), None]), text("[1,null]")),
        (Value::TextArray(vec![Some("a".into())]), text("[\"a\"]")),
    ] {
        assert_eq!(app.run("SELECT $1", vec![given.clone()]).await.expect("a query").rows, [[back]], "{given:?}");
    }
    assert!(matches!(app.run("SELECT $1", vec![Value::Float64(f64::NAN)]).await, Err(SqlError::Parameter(_))));
}

#[tokio::test]
async fn errors_have_the_sqlstate_of_other_databases() {
    let app = App::new().await;
    for (sql, sqlstate) in [
        ("INSERT INTO own VALUES (1, 'x')", "23505"),
        ("INSERT INTO own VALUES (2, 'one')", "23505"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT unknown FROM own", "42703"),
        ("SELECT FROM WHERE", "42601"),
        ("SELECT abs(-9223372036854775808)", "22003"),
    ] {
        match app.run(sql, vec![]).await {
            Err(SqlError::Database(error)) => assert_eq!(error.sqlstate, sqlstate, "{sql}: {}", error.message),
            other => panic!("{sql}: {other:?}"),
        }
    }
}
