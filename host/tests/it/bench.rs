//! `semel bench`: that everything it is asked for is measured and counted, on both databases. How fast anything was is no
//! business of a test.

use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::Executor as _;

use crate::cluster::Cluster;
use crate::harness::{self, On, functions, on_every_store};
use crate::mariadb::Mariadb;
use crate::servers::name_of;

on_every_store!(everything_is_measured_once_and_counted);

const FIGURES: &str = "floor_single floor_batched drain_batched drain_single floor_hot_single floor_hot_batched hot_batched \
                       hot_single floor_insert floor_insert_parallel ingest calls commit_us latency_p50_us latency_p99_us \
                       latency_half_load_p50_us latency_half_load_p99_us sandbox_us rss_idle_mb rss_load_mb drain_clean \
                       drain_poisoned drain_fresh drain_after_many claim_1k_us claim_many_us";
const RATIOS: &str = "drain_batched_vs_floor_single drain_batched_vs_floor_batched drain_single_vs_floor_single \
                      hot_batched_vs_floor_single ingest_vs_floor_single latency_p50_vs_commit latency_p99_vs_p50 \
                      poison_vs_clean claim_many_vs_1k drain_many_vs_fresh";

async fn everything_is_measured_once_and_counted(on: On) {
    let folder = tempfile::tempdir().expect("a folder");
    let functions = functions().display().to_string();
    let url = database(on, folder.path()).await;
    let out = folder.path().join("out").display().to_string();
    let mut arguments: Vec<&str> =
        "bench --messages 200 --rounds 1 --long --waiting 2000 --passed 2000 --json".split(' ').collect();
    arguments.extend(["--seed", "7", "--functions", &functions, "--database", &url, "--out", &out]);
    let found = harness::run(folder.path(), &arguments, &[], "").await.json();

    assert_eq!(found["verified"], true);
    assert_eq!((&found["seed"], &found["messages"], &found["rounds"]), (&7.into(), &200.into(), &1.into()));
    for (kind, names) in [("figures", FIGURES), ("ratios", RATIOS)] {
        for name in names.split_whitespace() {
            let value = found[kind][name].as_f64().unwrap_or_else(|| panic!("{name} is not in {found:#}"));
            assert!(value > 0.0 && value.is_finite(), "{name} is {value}");
        }
    }
    assert_eq!(found["figures"]["poison_second_attempts"], 0.0, "a neighbour was tried again");
    for absent in ["claim_1m_vs_1k", "drain_5m_vs_fresh"] {
        assert_eq!(found["ratios"][absent], Value::Null, "{absent} was not measured");
    }
    for target in found["targets"].as_array().expect("targets") {
        let name = target["name"].as_str().expect("a name");
        assert!(target["reached"].is_boolean() && target["target"].is_string(), "{target}");
        assert!(found["figures"][name].is_number() || found["ratios"][name].is_number(), "{name} has no figure");
    }
    let kind = format!("{on:?}").to_lowercase();
    assert_eq!(found["database"]["kind"], kind);
    assert!(found["database"]["version"].is_string() && found["machine"]["memory_bytes"].is_number());

    let page = std::fs::read_to_string(format!("{out}/index.html")).expect("a page");
    assert!(page.contains("drain_batched_vs_floor_single") && page.contains("measured apart"), "{page}");
    nothing_is_left(on, folder.path(), &url).await;
}

/// A file that is not there yet, or a server whose login may make databases.
async fn database(on: On, folder: &std::path::Path) -> String {
    let url = on.fresh(folder).await;
    if on == On::Postgres {
        let login = url.rsplit('/').next().expect("a database's name").to_owned();
        let mut superuser = Cluster::shared().superuser("postgres").await;
        superuser.execute(AssertSqlSafe(format!("ALTER ROLE {login} CREATEDB"))).await.expect("a right");
    }
    url
}

async fn nothing_is_left(on: On, folder: &std::path::Path, url: &str) {
    if on == On::Mariadb {
        let login = name_of(url);
        let databases =
            format!("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE '{login}\\_%'");
        let users = format!("SELECT COUNT(*) FROM mysql.user WHERE user LIKE '{login}\\_bench%'");
        let mut superuser = Mariadb::shared().superuser("mysql").await;
        for count in [databases, users] {
            let left: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut superuser).await.expect("a count");
            assert_eq!(left, 0, "databases and users of apps");
        }
        return;
    }
    if on == On::Sqlite {
        let left = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").file_name());
        let left: Vec<_> = left.filter(|name| name != "out").collect();
        assert!(left.is_empty(), "{left:?}");
        return;
    }
    let login = url.rsplit('/').next().expect("a database's name");
    let mut superuser = Cluster::shared().superuser("postgres").await;
    let owned = "SELECT count(*) FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE r.rolname = $1";
    let owned: i64 = sqlx::query_scalar(owned).bind(login).fetch_one(&mut superuser).await.expect("a count");
    assert_eq!(owned, 1, "only its own is left");
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname LIKE '%semel_bench_%'";
    let roles: i64 = sqlx::query_scalar(roles).fetch_one(&mut superuser).await.expect("a count");
    assert_eq!(roles, 0, "roles of apps");
}

#[tokio::test]
async fn what_cannot_be_measured_is_said_without_a_figure() {
    let folder = tempfile::tempdir().expect("a folder");
    let functions = functions().display().to_string();
    std::fs::write(folder.path().join("mine.db"), "somebody's").expect("a file");
    let mine = format!("sqlite://{}", folder.path().join("mine.db").display());
    let not_allowed = On::Postgres.fresh(folder.path()).await;
    for (arguments, clue) in [
        (["--functions", "missing", "--database", "sqlite://new.db"], "make guests"),
        (["--functions", &functions, "--database", &mine], "is there already"),
        (["--functions", &functions, "--database", "oracle://u:secret@host/db"], "sqlite://PATH, postgres://"),
        (["--functions", &functions, "--database", "postgres://u:secret@127.0.0.1:1/db"], "cannot reach"),
        (["--functions", &functions, "--database", &not_allowed], "CREATEDB"),
    ] {
        let line = [&["bench", "--messages", "10", "--rounds", "1", "--json"], &arguments[..]].concat();
        let done = harness::run(folder.path(), &line, &[], "").await;
        assert_eq!((done.code, done.stdout.as_str()), (1, ""), "{arguments:?}: {done:?}");
        assert!(done.stderr.contains(clue) && !done.stderr.contains("secret"), "{arguments:?}: {}", done.stderr);
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("mine.db")).expect("the file"), "somebody's");
}
