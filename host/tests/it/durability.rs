//! Wall: `synchronous=FULL`. Every 202 and every acknowledgement is on disk before anybody hears of it, so each has a
//! sync of its own. Counted from outside, by a library that is preloaded into the host (`sync_counter.c`); and a disk that
//! forgets what was not synced shows that these syncs are the right ones.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use semel::experiment::host::{HostOptions, HostProcess};

use crate::harness::{On, Semel, functions};

const MESSAGES: u64 = 20;

/// Syncs so far.
pub(crate) fn syncs(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |file| file.len())
}

/// Compiles the library that counts the syncs of the host into which it is preloaded.
pub(crate) fn sync_counter(folder: &Path) -> PathBuf {
    let library = folder.join("sync_counter.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sync_counter.c");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(compiled.expect("a C compiler: run .ci/setup").success());
    library
}

#[tokio::test]
async fn every_202_and_every_acknowledgement_is_synced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("syncs");
    let database = format!("sqlite://{}/test.db", folder.path().display());
    let options = HostOptions::new(database, folder.path()).expect("options");
    let options = options.variable("LD_PRELOAD", sync_counter(folder.path())).variable("SYNC_LOG", &log);
    let options = HostOptions { program: env!("CARGO_BIN_EXE_semel").into(), ..options };
    let host = HostProcess::start(options).await.expect("a host");
    let client = host.client();
    client.deploy(&functions().join("sqlshell"), None).await.expect("a deploy");
    assert!(syncs(&log) > 0, "the counter is not in place");

    // Accepted and nothing else: due in an hour.
    let script = serde_json::json!({ "statements": [{ "sql": "INSERT INTO scratch (value) VALUES (NULL)" }] });
    let later = reqwest::Client::new();
    for key in 0..MESSAGES {
        let before = syncs(&log);
        let request = later.post(client.url("/fn/sqlshell").expect("a URL")).header("semel-delay", "1h");
        let answer = request.header("idempotency-key", key.to_string()).json(&script).send().await.expect("an answer");
        assert_eq!(answer.status(), 202);
        assert!(syncs(&log) > before, "a 202 without a sync before it");
    }
    // Accept, claim, acknowledge: three commits one after another.
    for _ in 0..MESSAGES {
        let before = syncs(&log);
        client.call("sqlshell", &script, Duration::from_secs(20)).await.expect("an answer");
        assert!(syncs(&log) >= before + 3, "an answer before its acknowledgement was synced");
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_loss_of_power() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fired = folder.path().join("fired");
    let armed = [("SEMEL_CRASH", "committed:power:2"), ("SEMEL_CRASH_FIRED", fired.to_str().expect("a path"))];
    let mut semel = Semel::start_with(&armed, &["counter"]).await;
    let accepted = semel.post("/fn/counter", "a").header("semel-delay", "1h").send().await;
    assert_eq!(accepted.status, 202);
    let answered = semel.call("counter", "a").await;
    assert_eq!((answered.status, &answered.json()["count"]), (200, &1.into()));
    let request = reqwest::Client::new().post(format!("{}/fn/counter", semel.url())).header("prefer", "wait=60");
    let unanswered = tokio::spawn(request.body("a").send());
    let end = semel.ended().await;
    assert_eq!(std::fs::read_to_string(&fired).expect("it fired"), "committed\n", "{end}: {}", semel.log());
    assert!(unanswered.await.expect("a request").is_err(), "nobody answers without power");

    let _unarmed = semel.serve(&[]).await;
    assert_eq!(semel.state(&accepted.id()).await, "available");
    let message = semel.message(&answered.id()).await;
    assert_eq!((&message["state"], &message["attempt"]), (&"completed".into(), &1.into()));
    assert_eq!(semel.call("counter", "a").await.json()["count"], 3, "what was answered, what was committed, and this");
}

/// Who has no disk of his own cannot lose what it forgets.
#[tokio::test]
async fn a_host_whose_disk_is_a_servers_loses_no_power() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut host = HostOptions::new(On::Postgres.fresh(folder.path()).await, folder.path()).expect("options");
    host.program = env!("CARGO_BIN_EXE_semel").into();
    let host = host.variable("SEMEL_CRASH", "committed:power").variable("SEMEL_CRASH_FIRED", "fired");
    let error = format!("{:#}", HostProcess::start(host).await.expect_err("a host that lives without power"));
    assert!(error.contains("the disk is the database server's"), "{error}");
}
