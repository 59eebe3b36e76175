//! The network of the experiments, on MySQL's protocol and with its real driver: it knows each commit, however it is said,
//! does to it what was ordered, and leaves everything else as it is.

use std::time::Duration;

use semel::experiment::proxy::{Fault, Fired, Of, Proxy};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};

use crate::harness::{On, change_in_server, in_server, until};
use crate::servers::database;

/// How a row is written and committed; each with what tells whose commit it is.
const WAYS: [&[&str]; 4] = [
    &["BEGIN", "INSERT INTO t VALUES (?) /* .ack( */", "SELECT COUNT(*) FROM t, t AS u", "COMMIT"],
    &["START TRANSACTION", "SELECT 1 /* .ack( */", "INSERT INTO t VALUES (?)", "COMMIT AND CHAIN"],
    &[
        "SET autocommit = 0",
        "ROLLBACK",
        "INSERT INTO t VALUES (?) /* .ack( */",
        "SAVEPOINT s",
        "ROLLBACK TO s",
        "commit",
    ],
    &["INSERT INTO t VALUES (?) /* .ack( */"],
];

/// Each statement by the text protocol and as a prepared one, where that can be. Returns whether all of them had an answer.
async fn write(session: &mut MySqlConnection, way: &[&str], row: i64, prepared: bool) -> bool {
    for sql in way {
        let done = if sql.contains('?') {
            sqlx::query(AssertSqlSafe(*sql)).bind(row).execute(&mut *session).await
        } else if prepared && !sql.contains("SAVEPOINT") && !sql.contains(" TO ") {
            session.execute(sqlx::query(AssertSqlSafe(*sql))).await
        } else {
            session.execute(sqlx::raw_sql(AssertSqlSafe(*sql))).await
        };
        if done.is_err() {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn a_commit_meets_its_fault_and_nothing_else_does() {
    let url = database(On::Mariadb).await;
    let proxy = Proxy::start(&url).await.expect("a proxy");
    change_in_server(&url, "CREATE TABLE t (n BIGINT)").await;
    let rows = async |row: i64| in_server::<i64>(&url, &format!("SELECT COUNT(*) FROM t WHERE n = {row}")).await;
    let (mut row, mut expected) = (0, Fired::default());
    for (way, prepared) in WAYS.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        for fault in [None, Some(Fault::Before), Some(Fault::After), Some(Fault::BlackHole), None] {
            row += 1;
            let mut session = MySqlConnection::connect(proxy.url()).await.expect("a session");
            let Some(fault) = fault else {
                // What others commit is not meant.
                proxy.next(Of::Enqueue, Fault::Before, 1);
                assert!(write(&mut session, way, row, prepared).await, "{way:?}");
                assert_eq!((rows(row).await, proxy.fired()), (1, expected), "{way:?}");
                continue;
            };
            proxy.next(Of::Acknowledgement, fault, 1);
            let writing = write(&mut session, way, row, prepared);
            let there = match fault {
                Fault::Before => {
                    expected.before += 1;
                    assert!(!writing.await, "{way:?} {fault:?}");
                    0
                }
                Fault::After => {
                    expected.after += 1;
                    assert!(!writing.await, "{way:?} {fault:?}");
                    1
                }
                Fault::BlackHole => {
                    expected.black_holes += 1;
                    let waited = tokio::time::timeout(Duration::from_millis(200), writing).await;
                    assert!(waited.is_err() && rows(row).await == 0, "{way:?} {fault:?}");
                    proxy.cut();
                    0
                }
            };
            assert_eq!(proxy.fired(), expected, "{way:?} {fault:?}");
            until("the end of the transaction", async || {
                // To whoever looks more often the server shows what it showed before.
                tokio::time::sleep(Duration::from_millis(150)).await;
                let open: i64 = in_server(&url, "SELECT COUNT(*) FROM information_schema.innodb_trx").await;
                (open == 0).then_some(())
            })
            .await;
            assert_eq!(rows(row).await, there, "{way:?} {fault:?}");
        }
    }
    assert_eq!(expected.all(), 8 * 3);
}

/// An answer of several packets and results, and one that is longer than a packet can be.
#[tokio::test]
async fn what_is_no_commit_passes_as_it_is() {
    let url = database(On::Mariadb).await;
    let proxy = Proxy::start(&url).await.expect("a proxy");
    let mut session = MySqlConnection::connect(proxy.url()).await.expect("a session");
    let numbers = "SELECT seq FROM seq_1_to_50000";
    let rows: Vec<(u64,)> = sqlx::query_as(numbers).fetch_all(&mut session).await.expect("rows");
    assert_eq!(rows.len(), 50_000);
    change_in_server(&url, "CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END").await;
    session.execute(sqlx::raw_sql("CALL p()")).await.expect("two results");
    let long: String =
        sqlx::query_scalar("SELECT REPEAT('x', 16777215)").fetch_one(&mut session).await.expect("a text");
    assert_eq!(long.len(), 16_777_215);
    let held = proxy.hold_acknowledgement();
    let writing = tokio::time::timeout(Duration::from_millis(200), session.execute("SELECT 1 /* .ack( */"));
    assert!(writing.await.is_err(), "it stands still");
    held.await.expect("an acknowledgement");
    proxy.cut();
    assert!(session.ping().await.is_err());
    let mut session = MySqlConnection::connect(proxy.url()).await.expect("a session");
    assert!(write(&mut session, &["SELECT 1 /* .ack( */"], 0, true).await, "it is held once");
}
