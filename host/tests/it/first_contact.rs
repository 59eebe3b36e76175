//! The first thing that a host says to a Postgres, and what it says when there is none, or not the right one.

use semel::message::Usage;
use semel::store::{Commit, Value};

use crate::cluster::Cluster;
use crate::harness::run;
use crate::store::{Bench, bounds, deployment, lane};

/// How `semel migrate` is refused with this database, by exit code 1 and words.
async fn refused(url: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    run(folder.path(), &["migrate", "--database", url], &[], "").await.refusal().to_owned()
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_named_with_the_way_out_and_without_the_password() {
    let url = Cluster::shared().database().await;
    let name = url.rsplit('/').next().expect("a name");
    let port = Cluster::shared().port();
    let mut superuser = Cluster::shared().superuser("postgres").await;
    let latin = format!("CREATE DATABASE {name}_latin OWNER {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    sqlx::query(sqlx::AssertSqlSafe(latin)).execute(&mut superuser).await.expect("a database");
    let nobodys = "postgres://u:secret@127.0.0.1:9/x".to_owned();
    for (wrong, clues) in [
        (url.replacen(&format!(":{name}@"), ":secret@", 1), ["refuses this login", "PASSWORD"]),
        (format!("{url}_nobody"), ["does not exist", "CREATE DATABASE"]),
        (format!("{url}_latin"), ["LATIN1", "ENCODING 'UTF8'"]),
        (
            format!("{}/postgres", url.rsplit_once('/').expect("a path").0),
            ["permission denied", "must own the database"],
        ),
        (format!("{url}?sslmode=require"), ["no encrypted connection", "sslmode"]),
        (nobodys, ["127.0.0.1:9", "refused"]),
    ] {
        let said = refused(&wrong).await;
        for clue in clues {
            assert!(said.contains(clue), "no \"{clue}\" in: {said}");
        }
        assert!(!said.contains("secret") && !said.contains(&format!(":{port}/")), "{said}");
    }
}

/// Between machines a database is spoken to in secret, and it proves who it is where the URL asks for that.
#[tokio::test]
async fn a_database_is_spoken_to_in_secret() {
    let cluster = Cluster::start(&["ssl=on", "ssl_cert_file=../server.crt", "ssl_key_file=../server.key"]);
    let url = cluster.database().await;
    let trusting = format!("{url}?sslmode=verify-full&sslrootcert={}", cluster.certificate().display());
    let folder = tempfile::tempdir().expect("a folder");
    for url in [format!("{url}?sslmode=require"), trusting.clone()] {
        run(folder.path(), &["migrate", "--database", &url], &[], "").await.ok();
    }
    let said = refused(&format!("{url}?sslmode=verify-full")).await;
    assert!(said.contains("no encrypted connection") && said.contains("sslrootcert"), "{said}");
    // That it is secret indeed, and not only not refused: the server lets nobody in otherwise.
    cluster.only_encrypted().await;
    assert!(refused(&format!("{url}?sslmode=disable")).await.contains("no pg_hba.conf entry"));
    run(folder.path(), &["migrate", "--database", &trusting], &[], "").await.ok();
    // So is what guests say, by a driver of their own.
    for (url, id) in [(trusting, "one"), (format!("{url}?sslmode=require"), "two"), (url, "three")] {
        let bench = Bench::over(url, tempfile::tempdir().expect("a folder")).await;
        bench.store.deploy(deployment("f")).await.expect("a deploy");
        bench.enqueue(id).await;
        let claim = bench.claim_one(lane()).await;
        let mut session = bench.store.session();
        session.enter(&claim);
        let secret = "SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()";
        let rows = session.query(secret.into(), vec![], bounds()).await.expect("an answer").rows;
        assert_eq!(rows, [[Value::Boolean(true)]]);
        session.leave(None, Usage::default());
        assert_eq!(session.commit().await, Commit::Committed);
    }
}
