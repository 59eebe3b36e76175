//! Every way out of guest SQL on MariaDB that is known, tried by a guest in a real host (`prison.rs`), in two set-ups: a user for
//! each app; and no right to make users, where guests are the engine's own login and only the gate holds. Privileges protect no
//! transaction there: what is refused by them has committed first.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};

use crate::harness::{On, Start, built};
use crate::mariadb::Mariadb;
use crate::prison::End::{Completed, Failed, Forbidden, TimedOut};
use crate::prison::{End, Prison, once};
use crate::servers::{name_of, of_app};

/// What the vectors need.
const TABLES: &str = "
    ALTER TABLE scratch MODIFY id INTEGER AUTO_INCREMENT;
    CREATE TABLE pair (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
    INSERT INTO pair VALUES (1, 0), (2, 0);";

/// Which walls there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetUp {
    Closed,
    OneLogin,
}

use SetUp::{Closed, OneLogin};

/// Statements, and how each must end in the two set-ups. None: it is open there, `semel doctor` says so.
type Vectors = (&'static str, [Option<End>; 2], &'static [&'static str]);

const fn all(end: End) -> [Option<End>; 2] {
    [Some(end); 2]
}

const fn open_to_one_login(end: End) -> [Option<End>; 2] {
    [Some(end), None]
}

const VECTORS: &[Vectors] = &[
    (
        "transactions",
        all(Forbidden),
        &[
            "COMMIT",
            "COMMIT AND CHAIN",
            "COMMIT RELEASE",
            "BEGIN",
            "BEGIN WORK",
            "START TRANSACTION",
            "ROLLBACK",
            "ROLLBACK AND CHAIN",
            "/*!COMMIT*/",
            "/*M!COMMIT*/",
            "/*!50000 COMMIT */",
            "-- a\nCOMMIT",
            "# a\nCOMMIT",
            "/* a */ COMMIT",
            "XA START 'x'",
            "XA PREPARE 'x'",
        ],
    ),
    ("savepoints", all(Forbidden), &["SAVEPOINT a", "ROLLBACK TO semel_0", "RELEASE SAVEPOINT semel_0"]),
    (
        "refused, and commits anyway",
        all(Forbidden),
        &[
            "ALTER TABLE scratch ADD COLUMN stolen INTEGER",
            "DROP TABLE scratch",
            "DROP DATABASE mysql",
            "TRUNCATE scratch",
            "TRUNCATE TABLE mysql.user",
            "RENAME TABLE scratch TO stolen",
            "CREATE INDEX stolen ON scratch (value)",
            "CREATE TRIGGER stolen BEFORE INSERT ON scratch FOR EACH ROW SET NEW.value = NULL",
            "CREATE EVENT stolen ON SCHEDULE EVERY 1 DAY DO DELETE FROM scratch",
            "CREATE FUNCTION stolen() RETURNS INTEGER RETURN 1",
            "CREATE PROCEDURE stolen() COMMIT",
            "CREATE DATABASE stolen",
            "CREATE USER stolen",
            "CREATE ROLE stolen",
            "CREATE TABLE stolen (a INTEGER)",
            "CREATE TEMPORARY TABLE stolen (a INTEGER)",
            "CREATE VIEW stolen AS SELECT 1",
            "CREATE SEQUENCE stolen",
            "GRANT ALL ON *.* TO CURRENT_USER",
            "REVOKE SELECT ON scratch FROM CURRENT_USER",
            "FLUSH PRIVILEGES",
            "FLUSH TABLES",
            "LOCK TABLES scratch WRITE",
            "UNLOCK TABLES",
            "INSTALL SONAME 'x'",
            "INSTALL PLUGIN x SONAME 'x'",
        ],
    ),
    (
        "care of tables",
        all(Forbidden),
        &[
            "ANALYZE TABLE scratch",
            "CHECK TABLE scratch",
            "OPTIMIZE TABLE scratch",
            "REPAIR TABLE scratch",
            "SET PASSWORD = PASSWORD('stolen')",
            "ALTER USER CURRENT_USER IDENTIFIED BY 'stolen'",
        ],
    ),
    ("procedures", all(Forbidden), &["CALL p()", "CALL ack('x', '[]')", "DO SLEEP(0)", "BEGIN NOT ATOMIC COMMIT; END"]),
    (
        "statements in statements",
        all(Forbidden),
        &["EXECUTE IMMEDIATE 'COMMIT'", "PREPARE p FROM 'COMMIT'", "EXECUTE p", "DEALLOCATE PREPARE p"],
    ),
    ("hidden words", all(Forbidden), &["SELECT 1 /*! INTO OUTFILE '/tmp/semel-stolen' */", "SELECT 1 /*M! + 1 */"]),
    ("files by function", open_to_one_login(Completed), &["SELECT LOAD_FILE('/etc/passwd') IS NULL AND 'nothing'"]),
    ("files from the client", all(Forbidden), &["LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE scratch"]),
    (
        "settings",
        all(Forbidden),
        &[
            "SET autocommit = 1",
            "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'",
            "SET STATEMENT max_statement_time = 0 FOR SELECT 1",
            "SET ROLE NONE",
            "SET NAMES latin1",
            "SET TRANSACTION READ ONLY",
            "SELECT /*+ SET_VAR(max_execution_time = 0) */ 1",
        ],
    ),
    (
        "what is not the app's",
        open_to_one_login(Failed),
        &[
            "SELECT * FROM ENGINE.messages",
            "SELECT HEX(secret) FROM ENGINE.store",
            "UPDATE ENGINE.queue SET state = 'available'",
            "DELETE FROM ENGINE.calls",
            "INSERT INTO ENGINE.state VALUES ('a', 'b', 'c')",
            "INSERT INTO scratch (value) SELECT id FROM ENGINE.messages",
            "SELECT * FROM ENGINE.keys FOR UPDATE",
        ],
    ),
    (
        "what is the server's",
        all(Failed),
        &["SELECT * FROM mysql.user", "SELECT * FROM mysql.global_priv", "DELETE FROM mysql.proc"],
    ),
    (
        "other sessions",
        all(Forbidden),
        &["SHOW PROCESSLIST", "KILL 1", "KILL QUERY 1", "SHOW GRANTS", "SHOW VARIABLES"],
    ),
    (
        "what outlives the transaction",
        all(Forbidden),
        &["SELECT @leak := 1", "SELECT 1 INTO @leak", "SELECT @leak", "HANDLER scratch OPEN", "USE mysql"],
    ),
    (
        "other kinds of statement",
        all(Forbidden),
        &["EXPLAIN DELETE FROM scratch", "ANALYZE DELETE FROM scratch", "DESCRIBE scratch", "SHUTDOWN", "HELP 'a'"],
    ),
    ("one large value", all(Completed), &["SELECT REPEAT('x', 1000000000) IS NULL"]),
    (
        "plain statements",
        all(Completed),
        &[
            "SELECT 1 -- ; COMMIT",
            "SELECT 1 # ; COMMIT",
            "SELECT '/*!COMMIT*/', \"COMMIT\", 'it''s', '\\'; COMMIT'",
            "INSERT INTO pair VALUES (3, 0) ON DUPLICATE KEY UPDATE n = n + 1",
            "REPLACE INTO pair VALUES (4, 0)",
            "UPDATE pair SET n = n + 1 WHERE id = 4",
            "DELETE FROM pair WHERE id = 4",
            "WITH a AS (SELECT 1 AS id) SELECT id FROM a",
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10) SELECT sum(i) FROM n",
            "VALUES (1), (2)",
            "(SELECT 1) UNION (SELECT 2)",
            "SELECT * FROM scratch LOCK IN SHARE MODE",
            "SELECT NOW(), RAND(), UPPER('a'), JSON_OBJECT('a', 1), @@version",
        ],
    ),
];

/// What the gate or the server may refuse, whichever is first.
const REFUSED: &[&str] = &[
    "SELECT 1; COMMIT",
    "SELECT 1; SELECT 2",
    "INSERT INTO scratch (value) VALUES (NULL); COMMIT",
    "SELECT 1 INTO OUTFILE '/tmp/semel-stolen'",
    "SELECT 1 INTO DUMPFILE '/tmp/semel-stolen'",
    "SELECT ?",
];

impl SetUp {
    /// A database, and a host on it.
    async fn prison(self) -> Prison {
        let database = Mariadb::shared().database().await;
        if self == OneLogin {
            let name = name_of(&database);
            Mariadb::shared().as_superuser(&[&format!("REVOKE CREATE USER ON *.* FROM {name}")]).await;
        }
        let start = Start { on: On::Mariadb, database: Some(&database), ..Start::default() };
        Prison::start(start, TABLES).await
    }
}

async fn try_all(set_up: SetUp, prison: &Prison) {
    let engine = name_of(prison.semel.database()).to_owned();
    let attempts =
        VECTORS.iter().filter_map(|(name, ends, statements)| Some((name, ends[set_up as usize]?, statements)));
    let attempts = attempts.flat_map(|(name, end, statements)| statements.iter().map(move |sql| (name, end, *sql)));
    let tried = futures_util::stream::iter(attempts).map(async |(name, end, sql)| {
        let sql = sql.replace("ENGINE", &engine);
        prison.run("sqlshell", name, &[json!({ "sql": sql })], end).await;
    });
    let count = tried.buffer_unordered(8).count().await;
    assert!(count > 80, "only {count} vectors were tried");
    for sql in REFUSED {
        let (outcomes, told) = prison.attempt("sqlshell", &[json!({ "sql": sql })]).await;
        assert!(["sql-forbidden", "failed"].contains(&outcomes.join(" ").as_str()), "{sql}: {outcomes:?}: {told}");
    }
    assert!(!std::path::Path::new("/tmp/semel-stolen").exists());
}

/// The walls of which `semel doctor` says that they are open.
async fn open_walls(prison: &Prison) -> Vec<String> {
    let document: Value = serde_json::from_str(&prison.semel.cli(&["doctor", "--json"]).await.stdout).expect("JSON");
    let facts = document["facts"].as_array().expect("facts").clone();
    let walls: Vec<_> = facts.iter().filter(|fact| fact["about"] == "wall").collect();
    assert!(walls.len() > 3, "{walls:?}");
    for fact in &walls {
        assert_eq!(fact["value"] == "stands", fact["advice"].is_null(), "{fact}");
    }
    let open = walls.iter().filter(|fact| fact["value"] == "is open");
    open.map(|fact| fact["name"].as_str().expect("a name").trim_start_matches("app: ").to_owned()).collect()
}

#[tokio::test]
async fn nothing_gets_out_of_the_gate_with_a_user_for_each_app() {
    let prison = Closed.prison().await;
    try_all(Closed, &prison).await;
    assert_eq!(open_walls(&prison).await, [""; 0]);
    prison.end().await;
}

#[tokio::test]
async fn nothing_gets_out_of_the_transaction_where_guests_are_the_engines_login() {
    let prison = OneLogin.prison().await;
    try_all(OneLogin, &prison).await;
    assert!(open_walls(&prison).await.contains(&"login of its own".to_owned()));
    prison.end().await;
}

/// The server ends a transaction that is a deadlock's victim, and says nothing more: what a guest then writes would be a
/// transaction of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swallowed_deadlock_leaves_nothing() {
    let prison = Closed.prison().await;
    let other = once(built("sqlshell")).named("second").with("name = \"sqlshell\"", "name = \"second\"");
    prison.semel.deploy(other).await;
    let update = |id: u32| json!({ "sql": "UPDATE pair SET n = n + 1 WHERE id = $1", "params": [id] });
    let pause = json!({ "sql": "SELECT SLEEP(0.5)" });
    let mut doomed = 0;
    for _ in 0..5 {
        let (one, two) = ([update(1), pause.clone(), update(2)], [update(2), pause.clone(), update(1)]);
        let (one, two) = tokio::join!(prison.attempt("sqlshell", &one), prison.attempt("second", &two));
        let ends = [one.0.join(" "), two.0.join(" ")];
        assert!(ends.iter().any(|end| end == "completed"), "one of the two goes on: {ends:?}");
        doomed += ends.iter().filter(|end| *end == "doomed").count();
    }
    assert!(doomed > 0, "there was no deadlock");
    prison.end().await;
}

/// It is undone, and its transaction is not: the run has to fail all the same, or half of it would be committed.
#[tokio::test]
async fn a_statement_that_waits_too_long_for_a_lock_fails_the_run() {
    let prison = Closed.prison().await;
    let url = prison.semel.database().to_owned();
    let mut holder = MySqlConnection::connect(&url).await.expect("a session");
    let hold = format!("UPDATE {} SET n = 7 WHERE id = 1", of_app(&url, "pair"));
    sqlx::raw_sql("BEGIN").execute(&mut holder).await.expect("a transaction");
    sqlx::raw_sql(AssertSqlSafe(hold)).execute(&mut holder).await.expect("a row");
    let update = json!({ "sql": "UPDATE pair SET n = n + 1 WHERE id = 1" });
    prison.run("hasty", "a lock", &[update], TimedOut).await;
    holder.close().await.expect("an end");
    prison.end().await;
}

#[tokio::test]
async fn what_does_not_end_is_ended() {
    let prison = Closed.prison().await;
    for sql in [
        "SELECT SLEEP(100)",
        "SELECT BENCHMARK(1000000000000, MD5('a'))",
        "SELECT count(*) FROM seq_1_to_1000000000 a JOIN seq_1_to_1000000000 b ON a.seq % 7 = b.seq % 5",
    ] {
        prison.run("hasty", "time", &[json!({ "sql": sql })], TimedOut).await;
    }
    // Nothing of them goes on in the server.
    let mut superuser = Mariadb::shared().superuser(name_of(prison.semel.database())).await;
    let running =
        "SELECT count(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(100)%' AND id <> CONNECTION_ID()";
    crate::harness::until("the end of all", async || {
        let running: i64 = sqlx::query_scalar(running).fetch_one(&mut superuser).await.expect("a look");
        (running == 0).then_some(())
    })
    .await;
    prison.end().await;
}

#[tokio::test]
async fn a_lock_by_name_does_not_outlive_its_transaction() {
    let prison = Closed.prison().await;
    let lock = json!({ "sql": "SELECT GET_LOCK('semel', 0)" });
    for _ in 0..3 {
        prison.run("sqlshell", "a lock", std::slice::from_ref(&lock), Completed).await;
        let mut superuser = Mariadb::shared().superuser(name_of(prison.semel.database())).await;
        crate::harness::until("a free lock", async || {
            let free: i64 =
                sqlx::query_scalar("SELECT IS_FREE_LOCK('semel')").fetch_one(&mut superuser).await.expect("a look");
            (free == 1).then_some(())
        })
        .await;
    }
    prison.end().await;
}

/// Rows of a table that knows no transactions survive a rollback.
#[tokio::test]
async fn a_table_that_is_not_in_innodb_is_refused_at_deploy() {
    let prison = Closed.prison().await;
    for engine in ["MyISAM", "Aria", "MEMORY"] {
        let sql = format!("CREATE TABLE elsewhere (id INTEGER PRIMARY KEY) ENGINE = {engine}");
        let function = once(built("sqlshell")).migration("0003_elsewhere.sql", &sql);
        let refused = prison.semel.try_deploy(function).await.problem(422);
        assert!(refused.contains("InnoDB") && refused.contains("0003_elsewhere.sql"), "{engine}: {refused}");
    }
    // Made by somebody else, beside Semel.
    let url = prison.semel.database();
    let elsewhere = of_app(url, "elsewhere");
    Mariadb::shared()
        .as_superuser(&[&format!("CREATE TABLE {elsewhere} (id INTEGER PRIMARY KEY) ENGINE = Aria")])
        .await;
    let refused =
        prison.semel.try_deploy(once(built("sqlshell")).migration("0003_more.sql", "CREATE TABLE more (id INTEGER)"));
    let refused = refused.await.problem(422);
    assert!(refused.contains("elsewhere") && refused.contains("InnoDB"), "{refused}");
    Mariadb::shared().as_superuser(&[&format!("DROP TABLE {elsewhere}")]).await;
    prison.end().await;
}

/// A migration commits with each of its statements. One that fails half-way goes on from there, once it is mended.
#[tokio::test]
async fn a_migration_that_failed_half_way_goes_on_where_it_failed() {
    let prison = Closed.prison().await;
    let with = |second: &str| {
        let sql = format!("CREATE TABLE first (id INTEGER PRIMARY KEY);\n{second};");
        once(built("sqlshell")).migration("0003_two.sql", &sql)
    };
    let refused = prison.semel.try_deploy(with("CREATE TABLE wrong (id NOTHING)")).await.problem(422);
    assert!(refused.contains("0003_two.sql"), "{refused}");
    prison.semel.deploy(with("CREATE TABLE second (id INTEGER PRIMARY KEY)")).await;
    prison.each("both are there", Completed, &["SELECT count(*) FROM first, second"]).await;
    prison.end().await;
}
