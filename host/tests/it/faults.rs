//! Faults from outside: disks, signals, crowds. Each test shows that its fault fired, and then what
//! `semantics.md` says of it.
//!
//! Disks are mounted in a mount namespace that ends with the host, so nothing is left behind. That takes root, or a
//! system that lets users make namespaces; without either these tests fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use crate::durability::{sync_counter, syncs};
use crate::harness::{self, Done, Function, Semel, Start, built, until};

const LEASE: Duration = Duration::from_millis(1500);

/// With the shortest lease that there is room for.
pub(crate) fn brisk(function: Function, timeout: &str) -> Function {
    function.with(&format!("timeout = \"{timeout}\""), "timeout = \"300ms\"\nlease = \"1500ms\"")
}

pub(crate) fn sleep(millis: u64) -> String {
    json!({ "do": "sleep-loop", "millis": millis }).to_string()
}

/// Words before a host's command line: it starts in a mount namespace of its own, after these mounts.
fn mounting(mounts: &str) -> Vec<String> {
    let namespace = if rustix::process::geteuid().is_root() { "-m" } else { "-Urm" };
    let script = format!("{mounts}\nexec \"$@\"");
    ["unshare", namespace, "sh", "-ec", &script, "sh"].map(str::to_owned).to_vec()
}

/// A host whose database is on a disk of 4 MiB, and a file on that disk which leaves it room for some messages.
struct Cramped {
    semel: Semel,
    disk: std::path::PathBuf,
}

impl Cramped {
    const ROOM: u64 = 512 << 10;

    async fn start() -> Self {
        let through = mounting("mkdir $PLACE/disk\nmount -t tmpfs -o size=4m tmpfs $PLACE/disk");
        let semel = Semel::start_as(Start { through, disk: "disk", ..Start::default() }, &[]).await;
        semel.deploy(brisk(built("counter"), "2s")).await;
        // As the host sees it.
        let seen = format!("/proc/{}/root{}/disk", semel.process(), semel.folder().display());
        let cramped = Self { semel, disk: seen.into() };
        let ballast = vec![0; usize::try_from(cramped.free() - Self::ROOM).expect("a small disk")];
        std::fs::write(cramped.disk.join("ballast"), ballast).expect("a ballast");
        cramped
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.disk).expect("the disk");
        disk.f_bavail * disk.f_frsize
    }

    fn make_room(&self) {
        std::fs::remove_file(self.disk.join("ballast")).expect("the ballast");
    }

    /// Sends with these keys, sixteen at a time, until so many were refused. Returns the accepted ids by key.
    async fn fill(&self, refusals: usize) -> BTreeMap<String, String> {
        let (mut accepted, mut refused) = (BTreeMap::new(), 0);
        for round in 0..200 {
            let keys: Vec<String> = (0..16).map(|n| format!("{round}-{n}")).collect();
            let answers = join_all(keys.iter().map(|key| self.count(key))).await;
            for (key, answer) in keys.into_iter().zip(answers) {
                match answer.status {
                    202 => drop(accepted.insert(key, answer.id())),
                    _ => {
                        answer.problem(503);
                        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
                        refused += 1;
                    }
                }
            }
            if refused >= refusals {
                return accepted;
            }
        }
        panic!("the disk did not get full: {} of it is free", self.free());
    }

    async fn count(&self, key: &str) -> harness::Answer {
        self.semel.post("/count/visits", "x".repeat(4 << 10)).key(key).send().await
    }
}

/// What was accepted has a row, although the disk was full when it was asked for; and when there is room again, all of
/// it is done by the same process.
#[tokio::test]
async fn a_full_disk_is_a_503_and_passes_without_a_restart() {
    let cramped = Cramped::start().await;
    let accepted = cramped.fill(50).await;
    assert!(cramped.free() < 64 << 10, "{} bytes were free", cramped.free());
    assert!(!accepted.is_empty(), "nothing was accepted before the disk was full");
    let semel = &cramped.semel;
    for id in accepted.values() {
        assert_eq!(semel.message(id).await["id"], id.as_str(), "a 202 without a row");
    }
    let process = semel.process();
    cramped.make_room();
    until("a 202", async || (cramped.count("after").await.status == 202).then_some(())).await;

    // Whoever was refused sends the same again; whoever was accepted and does not know it gets the same id.
    let mut ids: BTreeSet<String> = [cramped.count("after").await.id()].into();
    for (key, id) in &accepted {
        assert_eq!(cramped.count(key).await.id(), *id, "{key}");
        ids.insert(id.clone());
    }
    for id in &ids {
        assert_eq!(semel.until_settled(id).await["state"], "completed");
    }
    until("the end of all", async || {
        let open = semel.count("counter", "available").await + semel.count("counter", "running").await;
        (open == 0).then_some(())
    })
    .await;
    let completed = semel.count("counter", "completed").await;
    assert_eq!(semel.sql("SELECT n FROM counters WHERE id = 'visits'").await, json!([[completed]]));
    assert_eq!(completed, ids.len() as u64, "what was refused was not accepted behind the sender's back");
    assert_eq!(semel.process(), process, "it is the process that it was");
}

#[tokio::test]
async fn a_host_on_a_full_disk_is_not_ready_until_there_is_room() {
    let cramped = Cramped::start().await;
    assert_eq!(cramped.semel.get("/readyz").await.status, 200, "there is room");
    cramped.fill(50).await;
    // It is looked at once a second.
    until("a host that is not ready", async || (cramped.semel.get("/readyz").await.status == 503).then_some(())).await;
    cramped.semel.get("/readyz").await.problem(503);
    assert_eq!(cramped.semel.get("/healthz").await.status, 200, "it is alive");
    cramped.make_room();
    until("a host that is ready", async || (cramped.semel.get("/readyz").await.status == 200).then_some(())).await;
}

/// That a host does not start on a database, and what it says.
async fn refused(through: &[String], folder: &Path, clues: &[&str]) {
    let database = format!("sqlite://{}/test.db", folder.display());
    let arguments = ["serve", "--database", &database, "--listen", "127.0.0.1:0"];
    let place = [("PLACE", folder.to_str().expect("a path of text"))];
    let done: Done = harness::run_through(through, folder, &arguments, &place, "").await;
    for clue in clues {
        assert!(done.refusal().contains(clue), "`{clue}` is not in: {}", done.stderr);
    }
}

#[tokio::test]
async fn a_database_that_can_only_be_read_is_refused_and_left_as_it_is() {
    let mut semel = Semel::start(&["counter"]).await;
    semel.call("counter", "visits").await.ok();
    semel.stop().await;
    let file = semel.folder().join("test.db");
    let before = std::fs::read(&file).expect("the file");
    for place in ["$PLACE", "$PLACE/test.db"] {
        // Also root cannot write to these.
        let through = mounting(&format!("mount --bind {place} {place}\nmount -o remount,bind,ro {place}"));
        refused(&through, semel.folder(), &["test.db", "Read-only file system"]).await;
        assert!(std::fs::read(&file).expect("the file") == before, "{place}: it was written to");
    }
    let empty = tempfile::tempdir().expect("a folder");
    let through = mounting("mount --bind $PLACE $PLACE\nmount -o remount,bind,ro $PLACE");
    refused(&through, empty.path(), &["test.db", "Read-only file system"]).await;
    semel.restart().await;
    assert_eq!(semel.call("counter", "visits").await.ok()["count"], 2);
}

/// Neither a later Semel's file nor another program's is changed in one byte.
#[tokio::test]
async fn a_file_that_is_not_this_programs_is_refused_and_left_as_it_is() {
    for mode in [SqliteJournalMode::Delete, SqliteJournalMode::Wal] {
        let own = ["PRAGMA application_id = 1399156076", "CREATE TABLE t (a)", "PRAGMA user_version = 99"];
        let others = ["CREATE TABLE t (a)", "INSERT INTO t VALUES (1)"];
        let named = ["PRAGMA application_id = 252006674"];
        for (statements, clues) in [
            (&own[..], &["version 99", "newer semel"][..]),
            (&others, &["another program"]),
            (&named, &["another program"]),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("test.db");
            let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true).journal_mode(mode);
            let mut file = options.connect().await.expect("a database");
            for statement in statements {
                file.execute(*statement).await.expect(statement);
            }
            file.close().await.expect("an end");
            let before = std::fs::read(&path).expect("the file");
            refused(&[], folder.path(), clues).await;
            assert!(std::fs::read(&path).expect("the file") == before, "{statements:?} in mode {mode:?} was changed");
            let log = std::fs::metadata(folder.path().join("test.db-wal")).map_or(0, |log| log.len());
            assert_eq!(log, 0, "{statements:?} in mode {mode:?}: there is something beside the file");
        }
    }
}

/// A host that does not run for longer than its leases has not lost its work: nobody else could take it (one file, one
/// host). What was in the middle of a run is over its time, which is an end on record; begin-once is never run twice.
#[tokio::test]
async fn a_host_that_stood_still_for_three_leases_does_nothing_twice() {
    let mut semel = Semel::start(&[]).await;
    let patient = built("misbehave").with("max_attempts = 2", "max_attempts = 5");
    semel.deploy(brisk(built("counter"), "2s")).await;
    semel.deploy(brisk(patient.clone(), "1s")).await;
    semel.deploy(brisk(patient.named("once"), "1s").contract("begin-once")).await;
    let slow = sleep(150);
    // More than can run at once, so that there is work for a while.
    let again = join_all((0..24).map(|_| semel.send("misbehave", &slow))).await;
    let once = join_all((0..24).map(|_| semel.send("once", &slow))).await;
    let counted = join_all((0..12).map(|_| semel.send("counter", "visits"))).await.len();
    until("a run of each", async || {
        let starts = [&again, &once].map(|ids| ids.iter().map(|id| semel.starts(id).len()).sum::<usize>());
        let running: i64 = semel.in_file("SELECT COUNT(*) FROM semel_queue WHERE state = 'running'").await;
        (starts.iter().all(|starts| *starts > 0) && running > 0).then_some(())
    })
    .await;
    semel.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", semel.process());
    until("a host that stands still", async || {
        std::fs::read_to_string(&stat).expect("the process").contains(") T ").then_some(())
    })
    .await;
    let running =
        "SELECT group_concat(m.id) FROM semel_queue JOIN semel_messages m USING (seq) WHERE state = 'running'";
    let running: String = semel.in_file::<Option<String>>(running).await.unwrap_or_default();
    let hit = running.split(',').filter(|id| !semel.starts(id).is_empty()).count();
    tokio::time::sleep(LEASE * 3).await;
    semel.signal(Signal::CONT);
    assert!(hit > 0, "it stood still while no guest ran");

    let (mut completed, mut cut) = (Vec::new(), 0);
    for id in &again {
        assert_eq!(semel.until_settled(id).await["state"], "completed");
        let outcomes = semel.outcomes(id).await;
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "completed").count(), 1, "{outcomes:?}");
        cut += outcomes.iter().filter(|outcome| *outcome == "timed-out").count();
        completed.push(id.clone());
    }
    for id in &once {
        let message = semel.until_settled(id).await;
        let outcomes = semel.outcomes(id).await;
        assert!(semel.starts(id).len() <= 1, "{message} {outcomes:?}");
        // A claim that was over before it began is handed out again: it is the last one that counts.
        match (message["state"].as_str().expect("a state"), outcomes.last().expect("an attempt").as_str()) {
            ("completed", "completed") => completed.push(id.clone()),
            ("dead", "timed-out") => cut += 1,
            // Recovery came between claim and run, or between run and commit: nobody knows, and nobody tries again.
            ("in-doubt", _) => {}
            end => panic!("{end:?}: {message}"),
        }
    }
    eprintln!("{hit} runs stood still, {cut} ends by the timeout"); // Who waited for the database may go on.
    completed.sort();
    let rows: Vec<Value> = completed.iter().map(|id| json!([id])).collect();
    assert_eq!(semel.sql("SELECT message_id FROM misbehaviour ORDER BY message_id").await, json!(rows));
    until("the counters", async || (semel.count("counter", "completed").await == counted as u64).then_some(())).await;
    assert_eq!(semel.sql("SELECT SUM(n) FROM counters").await, json!([[counted]]));
}

/// SIGTERM: what runs may end, also if it does so only by its timeout. Nothing new is claimed, nothing new is taken in,
/// and the process ends well.
#[tokio::test]
async fn sigterm_lets_runs_end_and_begins_nothing() {
    let mut semel = Semel::start(&[]).await;
    let timeout = "timeout = \"4s\"\n[flow]\nconcurrency = 2";
    semel.deploy(built("misbehave").with("timeout = \"1s\"\nmemory = \"64MiB\"", timeout)).await;
    let (slow, endless) =
        (semel.send("misbehave", &sleep(2500)).await, semel.send("misbehave", r#"{"do": "loop"}"#).await);
    semel.until_started(&slow, 1).await;
    semel.until_started(&endless, 1).await;
    let mut waiting: Vec<String> = join_all((0..5).map(|_| semel.send("misbehave", r#"{"do": "write"}"#))).await;
    let asked = Instant::now();
    semel.signal(Signal::TERM);
    let (mut refused, url) = (0, format!("{}/fn/misbehave", semel.url()));
    while asked.elapsed() < Duration::from_millis(1500) {
        // A connection of its own each time, as from a new client.
        let answer = reqwest::Client::new().post(&url).body(r#"{"do": "write"}"#).send().await;
        match answer.map(|answer| (answer.status().as_u16(), answer)) {
            Err(_) | Ok((503, _)) => refused += 1,
            Ok((202, answer)) => {
                // Before the signal was looked at: then it is a message like any other.
                assert_eq!(refused, 0, "accepted after a refusal");
                let receipt: Value = answer.json().await.expect("a receipt");
                waiting.push(receipt["id"].as_str().expect("an id").to_owned());
            }
            Ok((status, _)) => panic!("{status} while it stops"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(refused > 0, "it took in everything");
    let status = semel.ended().await;
    assert!(status.success() && asked.elapsed() < Duration::from_secs(33), "{status} after {:?}", asked.elapsed());
    let state = async |id: &str| {
        let of = |table| format!("SELECT x.state FROM semel_messages m JOIN {table} x USING (seq) WHERE id = '{id}'");
        let ended: Option<String> = semel.in_file(&format!("SELECT ({})", of("semel_history"))).await;
        let open: Option<String> = semel.in_file(&format!("SELECT ({})", of("semel_queue"))).await;
        ended.or(open).expect("a message")
    };
    assert_eq!(state(&slow).await, "completed", "what ran was not let end");
    assert_eq!(state(&endless).await, "available", "its end is on record, and it may be tried again");
    for id in &waiting {
        assert_eq!((state(id).await.as_str(), semel.starts(id)), ("available", vec![]), "it was claimed");
    }
    semel.restart().await;
    for id in &waiting {
        assert_eq!(semel.until_settled(id).await["state"], "completed");
        assert_eq!(semel.starts(id), [1]);
    }
    assert_eq!(semel.until_settled(&endless).await["state"], "dead");
    assert_eq!(semel.outcomes(&endless).await, ["timed-out", "timed-out"]);
    assert_eq!(semel.outcomes(&slow).await, ["completed"]);
}

/// Who cannot wait sends SIGTERM again, which changes nothing, and then SIGKILL, which loses nothing.
#[tokio::test]
async fn sigkill_while_it_stops_loses_nothing() {
    let mut semel = Semel::start(&["counter"]).await;
    semel.deploy(built("misbehave").with("timeout = \"1s\"", "timeout = \"5s\"")).await;
    let slow = semel.send("misbehave", &sleep(3000)).await;
    semel.until_started(&slow, 1).await;
    for _ in 0..20 {
        semel.send("counter", "visits").await;
    }
    semel.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(200)).await;
    semel.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(200)).await;
    semel.kill().await; // Fails if it is gone already.
    semel.restart().await;
    assert_eq!(semel.until_settled(&slow).await["state"], "completed");
    assert_eq!(semel.outcomes(&slow).await, ["host-lost", "completed"]);
    until("the counter", async || (semel.count("counter", "completed").await == 20).then_some(())).await;
    assert_eq!(semel.sql("SELECT n FROM counters WHERE id = 'visits'").await, json!([[20]]));
    assert_eq!(semel.sql("SELECT message_id, attempt FROM misbehaviour").await, json!([[slow, 2]]));
}

#[tokio::test]
async fn one_key_fifty_times_at_once_is_one_message() {
    let semel = Semel::start(&["counter"]).await;
    let answers = join_all((0..50).map(|_| semel.post("/count/visits", "").key("the-same").send())).await;
    let ids: BTreeSet<String> = answers.iter().map(harness::Answer::id).collect();
    let new = answers.iter().filter(|answer| answer.json()["duplicate"] == false).count();
    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
    assert_eq!((ids.len(), new), (1, 1), "{ids:?}");
    let id = ids.first().expect("one");
    assert_eq!(semel.until_settled(id).await["state"], "completed");
    assert_eq!(semel.starts(id), [1]);
    assert_eq!(semel.sql("SELECT n FROM counters").await, json!([[1]]));
    assert_eq!(semel.in_file::<i64>("SELECT COUNT(*) FROM semel_messages WHERE function = 'counter'").await, 1);
}

/// Each sync takes a tenth of a lease, and a message waits for many: nothing is taken for lost.
#[tokio::test]
async fn a_slow_disk_makes_nobody_look_lost() {
    let library = tempfile::tempdir().expect("a folder");
    let (preload, log) = (sync_counter(library.path()), library.path().join("syncs"));
    let variables =
        [("LD_PRELOAD", &preload), ("SYNC_LOG", &log)].map(|(name, path)| (name, path.to_str().expect("text")));
    let variables = [&variables[..], &[("SYNC_DELAY", "150000")]].concat();
    let semel = Semel::start_with(&variables, &[]).await;
    semel.deploy(brisk(built("counter"), "2s")).await;
    semel.deploy(brisk(built("pageview"), "2s")).await;
    let before = syncs(&log);
    let began = Instant::now();
    let requests = (0..12).map(|n| semel.post(if n % 2 == 0 { "/count/visits" } else { "/view/home" }, "").send());
    let ids: Vec<String> = join_all(requests).await.iter().map(harness::Answer::id).collect();
    let mut longest = Duration::ZERO;
    for id in &ids {
        assert_eq!(semel.until_settled(id).await["state"], "completed");
        assert_eq!((semel.outcomes(id).await, semel.starts(id)), (vec!["completed".to_owned()], vec![1]));
        longest = longest.max(began.elapsed());
    }
    assert!(
        syncs(&log) >= before + 24 && longest > LEASE,
        "{} syncs in {longest:?} are not slow",
        syncs(&log) - before
    );
    assert_eq!(semel.sql("SELECT n FROM counters").await, json!([[6]]));
    assert_eq!(semel.sql("SELECT views FROM pageviews").await, json!([[6]]));
}
