//! The command line: what it prints, what it says on standard error, and its exit codes (0 done, 1 failed, 2 usage).

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use crate::harness::{self, Done, On, Semel, functions, on_every_store};
use crate::steering::MESSAGE;

on_every_store!(
    a_message_is_sent_and_answered,
    many_messages_are_sent_and_each_is_answered,
    what_cannot_be_done_is_said_on_standard_error_with_exit_code_1,
    listings_are_tables_for_people_and_json_for_scripts
);

/// A port on which nobody listens.
const NOBODY: &str = "http://127.0.0.1:1";

async fn a_message_is_sent_and_answered(on: On) {
    let semel = Semel::start_on(on, &["counter", "misbehave", "receipts"]).await;
    let waited = semel.cli(&["send", "counter", "visits", "--wait", "30s"]).await;
    assert_eq!(waited.ok(), "{\"counter\":\"visits\",\"count\":1}\n");

    let first = semel.cli(&["send", "counter", "visits", "--key", "k"]).await.json();
    let again = semel.cli(&["send", "counter", "visits", "--key", "k"]).await.json();
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(first["id"], again["id"]);

    let body = "from a file, as it is\n";
    std::fs::write(semel.folder().join("body.txt"), body).expect("a file");
    for (argument, input) in [("@body.txt", ""), ("-", body), (body, "")] {
        let sent = semel.cli_with(&["send", "receipts", argument, "--wait", "30s"], input).await;
        assert_eq!(sent.code, 0, "{sent:?}");
    }
    assert_eq!(semel.sql("SELECT DISTINCT body FROM receipts").await, json!([[body]]));
    assert_eq!(semel.count("receipts", "completed").await, 3);

    let options =
        ["send", "counter", "later", "--delay", "1h", "--priority", "-7", "--group", "g", "--header", "X-Own: kept"];
    let later = semel.cli(&options).await.json();
    let message = semel.message(later["id"].as_str().expect("an id")).await;
    assert_eq!(
        (&message["state"], &message["priority"], &message["group"]),
        (&json!("available"), &json!(-7), &json!("g"))
    );
    let headers: String = semel.in_store("SELECT headers FROM semel_messages ORDER BY seq DESC LIMIT 1").await;
    assert!(headers.contains(r#"["x-own","kept"]"#), "{headers}");
}

async fn many_messages_are_sent_and_each_is_answered(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let lines = "{\"body\": \"visits\"}\n{\"body\": \"visits\", \"key\": \"k\"}\n";
    std::fs::write(semel.folder().join("lines"), lines).expect("a file");
    let first = semel.cli(&["send", "counter", "--batch", "lines"]).await;
    let again = semel.cli_with(&["send", "counter", "--batch", "-"], lines).await;
    let answers = |done: &Done| -> Vec<Value> {
        done.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    assert_eq!((first.code, again.code), (0, 0), "{first:?} {again:?}");
    let (first, again) = (answers(&first), answers(&again));
    assert_eq!((first.len(), again.len()), (2, 2));
    assert_eq!((&first[1]["id"], &again[1]["duplicate"]), (&again[1]["id"], &json!(true)));
    let bad = semel.cli_with(&["send", "counter", "--batch", "-"], &format!("nothing\n{lines}")).await;
    assert_eq!((bad.code, answers(&bad).len(), &answers(&bad)[0]["status"]), (1, 3, &json!(400)), "{bad:?}");
    let nobody = semel.cli_with(&["send", "nobody", "--batch", "-"], lines).await;
    assert!(nobody.refusal().contains("no function \"nobody\" is deployed"), "{nobody:?}");
    assert!(semel.cli(&["send", "counter", "--batch", "missing"]).await.refusal().contains("cannot read missing"));
}

async fn what_cannot_be_done_is_said_on_standard_error_with_exit_code_1(on: On) {
    let semel = Semel::start_on(on, &["misbehave"]).await;
    let server = semel.url();
    let slow = semel
        .cli(&["send", "misbehave", r#"{"do": "sleep-loop", "millis": 1}"#, "--delay", "1h", "--wait", "1s"])
        .await;
    assert_eq!((slow.code, slow.stdout.contains("\"id\"")), (1, true), "not answered in time: {slow:?}");
    for (arguments, clues) in [
        (&["send", "misbehave", r#"{"do": "error"}"#, "--wait", "30s"][..], ["502", "failed: asked to fail"]),
        (&["send", "misbehave", r#"{"do": "reject"}"#, "--wait", "30s"], ["422", "refused: asked to reject"]),
        (&["send", "nobody", "x"], ["404", "no function \"nobody\" is deployed"]),
        (&["send", "misbehave", "x", "--key", "two words"], ["400", "Idempotency-Key"]),
        (&["send", "misbehave", "@missing.txt"], ["cannot read", "missing.txt"]),
        (&["send", "misbehave", "x", "--header", "no colon"], ["no colon", "NAME:VALUE"]),
        (&["send", "misbehave", "x", "--delay", "soon"], ["400", "Semel-Delay"]),
        (&["functions", "nobody"], ["404", "nobody"]),
        (&["messages", "--state", "lost"], ["400", "lost"]),
        (&["trace", "nothing"], ["404", "nothing"]),
        (&["inspect", "nobody"], ["404", "nobody"]),
        (&["inspect", "missing.wasm"], ["cannot read", "missing.wasm"]),
        (&["deploy", "missing"], ["cannot read", "missing"]),
    ] {
        let done = semel.cli(arguments).await;
        for clue in clues {
            assert!(done.refusal().contains(clue), "{arguments:?}: {clue} is not in {}", done.stderr);
        }
    }
    std::fs::write(semel.folder().join("mine.wasm"), b"\0asm\x01\0\0\0").expect("a file");
    for command in ["deploy", "inspect"] {
        let done = harness::run(semel.folder(), &[command, "mine.wasm"], &[("SEMEL_SERVER", &server)], "").await;
        assert!(done.refusal().contains("semel build"), "{done:?}");
    }
}

#[tokio::test]
async fn without_a_host_the_error_says_how_to_start_one() {
    let folder = tempfile::tempdir().expect("a folder");
    for command in ["functions", "messages", "doctor", "trace x", "send counter x", "inspect counter"] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let done = harness::run(folder.path(), &arguments, &[("SEMEL_SERVER", NOBODY)], "").await;
        assert!(done.refusal().contains(NOBODY) && done.stderr.contains("semel serve"), "{command}: {done:?}");
        let flag = [&arguments[..], &["--server", NOBODY]].concat();
        let done = harness::run(folder.path(), &flag, &[], "").await;
        assert!(done.refusal().contains(NOBODY), "{command}: {done:?}");
    }
}

#[tokio::test]
async fn wrong_usage_ends_with_exit_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    for line in [
        "",
        "frobnicate",
        "send",
        "send a b c",
        "messages --limit many",
        "functions --colour",
        "deploy x --contract exactly-once",
        "send a b --wait soon",
        "send a b --batch c",
        "send a --batch c --key k",
        "send a b --priority high",
        "completions tcsh",
        "functions --server nowhere",
        "serve --listen here",
        "bench --messages 0",
    ] {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let done = harness::run(folder.path(), &arguments, &[], "").await;
        assert_eq!((done.code, done.stdout.as_str()), (2, ""), "{line}: {done:?}");
        assert!(done.stderr.contains("Usage") || done.stderr.contains("--help"), "{line}: {done:?}");
    }
}

async fn listings_are_tables_for_people_and_json_for_scripts(on: On) {
    let semel = Semel::start_on(on, &["counter", "misbehave"]).await;
    let good = semel.call("counter", "visits").await.id();
    let bad = semel.call("misbehave", r#"{"do": "write-then-trap"}"#).await.id();

    let functions = semel.cli(&["functions"]).await;
    assert_eq!(functions.ok().lines().count(), 3, "{functions:?}");
    assert!(functions.stdout.starts_with("NAME") && functions.stdout.contains("/count/{counter}"), "{functions:?}");
    let functions = semel.cli(&["functions", "--json"]).await.json();
    has_fields(&functions["functions"][0], &["name", "version", "contract", "label", "routes", "topics", "limits"]);
    let mut one = semel.cli(&["functions", "counter", "--json"]).await.json();
    has_fields(&one["versions"].take()[0], &["version", "active", "digest", "contract", "label", "deployed_at"]);
    let mut listed = functions["functions"][0].clone();
    listed["versions"] = json!(null);
    assert_eq!(one, listed);
    assert!(semel.cli(&["functions", "counter"]).await.ok().contains("counter, version 1"));

    let messages = semel.cli(&["messages"]).await;
    assert_eq!(messages.ok().lines().count(), 3, "{messages:?}");
    assert!(messages.stdout.contains(&bad) && messages.stdout.contains("trapped: "), "{messages:?}");
    let list =
        semel.cli(&["messages", "--function", "misbehave", "--state", "dead", "--limit", "5", "--json"]).await.json();
    assert_eq!(list["messages"].as_array().expect("messages").len(), 1);
    has_fields(&list["messages"][0], &MESSAGE);
    has_fields(&list["messages"][0]["last_error"], &["kind", "message"]);

    let trace = semel.cli(&["trace", &bad]).await;
    for clue in [bad.as_str(), "dead", "trapped", "finish-once", "EFFECT", "exactly 1"] {
        assert!(trace.ok().contains(clue), "{clue} is not in {}", trace.stdout);
    }
    let trace = semel.cli(&["trace", &good, "--json"]).await.json();
    has_fields(&trace, &["message", "attempts", "guarantees"]);
    has_fields(&trace["message"], &MESSAGE);
    let fields = ["attempt", "host", "claimed_at", "started_at", "ended_at", "outcome", "error", "fuel", "statements"];
    has_fields(&trace["attempts"][0], &fields);
    has_fields(&trace["attempts"][0], &["sql_micros", "published", "logs", "logs_dropped"]);
    assert_eq!(trace["attempts"][0]["outcome"], "completed");
}

fn has_fields(document: &Value, fields: &[&str]) {
    for field in fields {
        assert!(document.get(field).is_some(), "{field} is missing in {document}");
    }
}

/// A file is inspected where there is no host at all.
#[tokio::test]
async fn a_component_is_inspected_as_a_file_and_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = functions().join("pageview/pageview.wasm").display().to_string();
    let alone =
        harness::run(folder.path(), &["inspect", &file, "--json"], &[("SEMEL_SERVER", NOBODY)], "").await.json();
    assert_eq!((&alone["contract"], &alone["label"]), (&json!("begin-once"), &json!("transactional")));
    assert_eq!(alone["guarantees"][0]["happens"], "0 or 1, and known");
    let shown = harness::run(folder.path(), &["inspect", &file], &[], "").await;
    for clue in ["begin-once", "semel:function/transaction@0.1.0", "transactional", "0 or 1, and known"] {
        assert!(shown.ok().contains(clue), "{clue} is not in {}", shown.stdout);
    }
    let semel = Semel::start(&["pageview"]).await;
    let deployed = semel.cli(&["inspect", "pageview", "--json"]).await.json();
    for same in ["contract", "label", "imports", "guarantees"] {
        assert_eq!(deployed[same], alone[same], "{same}");
    }
    assert!(semel.cli(&["inspect", "pageview"]).await.ok().contains("timeout_ms 2000"));
}

#[tokio::test]
async fn a_folder_is_deployed_and_a_file_alone_as_well() {
    let semel = Semel::start(&[]).await;
    let folder = functions().join("counter").display().to_string();
    let deployed = semel.cli(&["deploy", &folder]).await;
    assert!(deployed.ok().starts_with("deployed counter, version 1\n"), "{deployed:?}");
    assert!(deployed.stdout.contains("exactly 1 once the message is completed"), "{deployed:?}");
    let again = semel.cli(&["deploy", &folder, "--json"]).await.json();
    assert_eq!((&again["name"], &again["version"]), (&json!("counter"), &json!(1)));
    let weaker = semel.cli(&["deploy", &folder, "--contract", "begin-once"]).await;
    assert!(weaker.refusal().contains("--accept-weaker-guarantee"), "{weaker:?}");
    let accepted = ["deploy", &folder, "--contract", "begin-once", "--accept-weaker-guarantee", "--json"];
    assert_eq!(semel.cli(&accepted).await.json()["contract"], "begin-once");
    let file = functions().join("misbehave/misbehave.wasm").display().to_string();
    semel.cli(&["deploy", &file, "--name", "other"]).await.ok();
    assert_eq!(semel.cli(&["send", "other", r#"{"do": "ok"}"#, "--wait", "30s"]).await.code, 0);
}

#[tokio::test]
async fn doctor_says_that_all_is_well() {
    let semel = Semel::start(&["counter"]).await;
    let said = semel.cli(&["doctor"]).await;
    for clue in ["WHAT TO DO", "journal mode", "wal", "integrity", "synchronous", "full", "1 deployed, 1 ready"] {
        assert!(said.ok().contains(clue), "{clue} is not in {}", said.stdout);
    }
    let document = semel.cli(&["doctor", "--json"]).await.json();
    assert_eq!(document["well"], true);
    let facts = document["facts"].as_array().expect("facts");
    for fact in facts {
        has_fields(fact, &["about", "name", "value", "verdict", "advice"]);
        assert_eq!((&fact["verdict"], &fact["advice"]), (&json!("ok"), &Value::Null), "{fact}");
    }
    let walls = facts.iter().filter(|fact| fact["about"] == "wall").map(|fact| &fact["value"]);
    assert!(walls.clone().count() >= 10 && walls.clone().all(|value| value == "stands"), "{facts:?}");
    for name in ["open files", "swap", "kernel", "memory", "store clock", "free on its disk", "write-ahead log"] {
        assert!(facts.iter().any(|fact| fact["name"] == name), "{name} is not in {facts:?}");
    }
    assert_eq!(semel.call("counter", "visits").await.ok()["count"], 1, "looking at the walls leaves nothing behind");
}

/// What is not well is said, with what to do about it, and the exit code is 1.
#[tokio::test]
async fn doctor_says_what_is_not_well() {
    let mut semel = Semel::start(&[]).await;
    semel.stop().await;
    std::fs::write(semel.folder().join("semel.toml"), "[limits]\nconnections = 1048576\n").expect("a file");
    let _host = semel.serve(&[]).await;
    let options = SqliteConnectOptions::new().filename(semel.folder().join("test.db"));
    let mut file = options.connect().await.expect("the database file");
    file.execute("PRAGMA user_version = 99").await.expect("another version");
    file.close().await.expect("an end");
    let said = semel.cli(&["doctor"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    let row = |name: &str| said.stdout.lines().find(|line| line.contains(name)).expect("a row").to_owned();
    assert!(row("schema version").contains("99") && row("schema version").contains("restore"), "{}", said.stdout);
    assert!(row("open files").contains("attention") && row("open files").contains("ulimit -Hn"), "{}", said.stdout);
    let document = semel.cli(&["doctor", "--json"]).await;
    let document: Value = serde_json::from_str(&document.stdout).expect("JSON");
    assert_eq!(document["well"], false);
}

#[tokio::test]
async fn help_version_and_completions_need_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let semel = async |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        harness::run(folder.path(), &arguments, &[], "").await
    };
    let help = semel("--help").await;
    let commands =
        "serve build deploy inspect functions send messages trace doctor migrate experiment bench completions";
    for command in commands.split(' ') {
        assert!(help.ok().contains(command), "{command} is not in {}", help.stdout);
        let own = semel(&format!("{command} --help")).await;
        assert!(own.ok().contains("Usage: semel"), "{own:?}");
    }
    assert!(semel("--version").await.ok().starts_with("semel 0."));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(semel(&format!("completions {shell}")).await.ok().contains("accept-weaker-guarantee"), "{shell}");
    }
}
