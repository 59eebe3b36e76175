//! Versions: each deploy is kept, one is active, and what that means for messages that wait or run.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Function, On, Semel, built, functions, on_every_store, until};

on_every_store!(
    a_rollback_leads_to_the_version_before_and_no_further,
    what_was_active_is_active_after_a_restart,
    a_run_ends_on_the_version_that_began_it,
    a_rollback_passes_the_gate_of_a_deploy,
    migrations_that_a_rollback_does_not_undo_are_named,
    a_paused_function_accepts_and_does_not_run,
    removing_a_function_buries_what_waits_and_lets_run_what_runs,
    a_restart_undoes_neither_a_rollback_nor_a_removal
);

/// `misbehave` that may take its time.
fn slow() -> Function {
    built("misbehave").with(r#"timeout = "1s""#, "timeout = \"20s\"\nlease = \"30s\"")
}

/// The second version of `counter` differs in its timeout.
fn second_counter() -> Function {
    built("counter").with(r#"timeout = "2s""#, r#"timeout = "3s""#)
}

async fn steer(semel: &Semel, function: &str, what: &str, body: Value) -> Answer {
    semel.post(&format!("/v1/functions/{function}/{what}"), body.to_string()).send().await
}

/// The version that ran a message which is sent now.
async fn version_that_runs(semel: &Semel) -> Value {
    let id = semel.call("counter", "who").await.id();
    semel.trace(&id).await["attempts"][0]["version"].take()
}

async fn a_rollback_leads_to_the_version_before_and_no_further(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    assert_eq!(steer(&semel, "counter", "rollback", json!({})).await.problem(409), first(1));
    semel.deploy(second_counter()).await;
    assert_eq!(version_that_runs(&semel).await, 2);
    let back = steer(&semel, "counter", "rollback", json!({})).await.ok();
    assert_eq!((&back["version"], &back["limits"]["timeout_ms"]), (&json!(1), &json!(2000)));
    assert_eq!(version_that_runs(&semel).await, 1);
    assert_eq!(steer(&semel, "counter", "rollback", json!({})).await.problem(409), first(1));
    let forth = semel.cli(&["rollback", "counter", "--to", "2"]).await;
    assert_eq!(forth.ok().trim(), "counter is at version 2 again");
    assert_eq!(version_that_runs(&semel).await, 2);
    // The next deploy is a version of its own, and a rollback from it leads to what was active before it.
    steer(&semel, "counter", "rollback", json!({ "to": 1 })).await.ok();
    assert_eq!(semel.deploy(built("counter").with(r#"timeout = "2s""#, r#"timeout = "4s""#)).await["version"], 3);
    assert_eq!(steer(&semel, "counter", "rollback", json!({})).await.ok()["version"], 1);

    let listed = semel.get("/v1/functions/counter").await.ok();
    let versions = listed["versions"].as_array().expect("versions");
    let shown: Vec<_> = versions.iter().map(|version| (&version["version"], &version["active"])).collect();
    assert_eq!(shown, [(&json!(3), &json!(false)), (&json!(2), &json!(false)), (&json!(1), &json!(true))]);
    for (function, body, status) in [
        ("nobody", json!({}), 404),
        ("counter", json!({ "to": 9 }), 409),
        ("counter", json!({ "to": "one" }), 400),
        ("counter", json!({ "too": 1 }), 400),
        ("counter", json!([]), 400),
    ] {
        steer(&semel, function, "rollback", body).await.problem(status);
    }
}

fn first(version: u32) -> String {
    format!("version {version} of counter is the first one: there is none before it")
}

async fn what_was_active_is_active_after_a_restart(on: On) {
    let mut semel = Semel::start_on(on, &["counter"]).await;
    semel.deploy(second_counter()).await;
    steer(&semel, "counter", "rollback", json!({})).await.ok();
    semel.kill().await;
    semel.restart().await;
    assert_eq!(version_that_runs(&semel).await, 1);
}

async fn a_run_ends_on_the_version_that_began_it(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(slow()).await;
    let id = semel.send("misbehave", r#"{"do": "sleep-loop", "millis": 1500}"#).await;
    semel.until_started(&id, 1).await;
    semel.deploy(slow().with("64MiB", "65MiB")).await;
    steer(&semel, "misbehave", "rollback", json!({})).await.ok();
    semel.deploy(slow().with("64MiB", "66MiB")).await;
    assert_eq!(semel.until_settled(&id).await["state"], "completed");
    assert_eq!(semel.trace(&id).await["attempts"][0]["version"], 1);
}

async fn a_rollback_passes_the_gate_of_a_deploy(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(built("counter").contract("begin-once")).await;
    semel.deploy(built("counter").accept_weaker()).await;
    let refused = steer(&semel, "counter", "rollback", json!({})).await.problem(422);
    assert!(refused.contains("--accept-weaker-guarantee"), "{refused}");
    assert_eq!(version_that_runs(&semel).await, 2);
    steer(&semel, "counter", "rollback", json!({ "accept_weaker_guarantee": true })).await.ok();
    assert_eq!(version_that_runs(&semel).await, 1);
}

/// Said when it is deployed, and again when somebody goes back.
async fn migrations_that_a_rollback_does_not_undo_are_named(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let more = second_counter().migration("0002_more.sql", "CREATE TABLE more (id INTEGER)");
    let deployed = semel.deploy(more.clone()).await;
    assert_eq!(deployed["warnings"], json!(["migration 0002_more.sql was applied; a rollback does not undo it"]));
    let back = steer(&semel, "counter", "rollback", json!({})).await.ok();
    assert_eq!(back["warnings"], json!(["migration 0002_more.sql of a later version stays applied"]));
    assert_eq!(semel.deploy(more).await["warnings"], json!([]), "it is applied already");
    assert_eq!(semel.sql("SELECT COUNT(*) FROM more").await, json!([[0]]));
}

async fn a_paused_function_accepts_and_does_not_run(on: On) {
    let mut semel = Semel::start_on(on, &["counter", "receipts"]).await;
    assert_eq!(semel.cli(&["pause", "counter"]).await.ok().trim(), "counter is paused; `semel resume counter` goes on");
    let id = semel.send("counter", "a").await;
    semel.kill().await;
    semel.restart().await;
    semel.deploy(second_counter()).await;
    assert_eq!(semel.call("receipts", "others go on").await.status, 200);
    assert_eq!(semel.state(&id).await, "available");
    assert_eq!(semel.starts(&id), [] as [u32; 0]);
    assert_eq!(semel.get("/v1/functions/counter").await.ok()["paused"], true);
    assert_eq!(semel.cli(&["resume", "counter"]).await.ok().trim(), "counter goes on");
    assert_eq!(semel.until_settled(&id).await["state"], "completed");
    steer(&semel, "nobody", "pause", json!({})).await.problem(404);
    steer(&semel, "nobody", "resume", json!({})).await.problem(404);
}

async fn removing_a_function_buries_what_waits_and_lets_run_what_runs(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    semel.deploy(slow()).await;
    let running = semel.send("misbehave", r#"{"do": "sleep-loop", "millis": 1000}"#).await;
    semel.until_started(&running, 1).await;
    let failing = semel.send("misbehave", r#"{"do": "loop"}"#).await;
    semel.until_started(&failing, 1).await;
    steer(&semel, "misbehave", "pause", json!({})).await.ok();
    let order = r#"{"do": "write"}"#;
    let waiting = semel.send("misbehave", order).await;
    let delayed = semel.post("/fn/misbehave", order).header("semel-delay", "1h").send().await.id();

    let removed = semel.cli(&["remove", "misbehave"]).await;
    assert_eq!(removed.ok().trim(), "misbehave is removed; 2 waiting messages are dead");
    semel.post("/fn/misbehave", order).send().await.problem(404);
    semel.get("/v1/functions/misbehave").await.problem(404);
    assert_eq!(semel.request(reqwest::Method::DELETE, "/v1/functions/misbehave").send().await.status, 404);
    for id in [&waiting, &delayed] {
        let message = semel.message(id).await;
        assert_eq!((&message["state"], &message["last_error"]["kind"]), (&json!("dead"), &json!("removed")));
    }
    let early = semel.post(&format!("/v1/messages/{waiting}/redrive"), "").send().await;
    assert!(early.problem(409).contains("not deployed"), "{}", early.text());
    assert_eq!(semel.until_settled(&running).await["state"], "completed");
    // Its first attempt times out, and there is nobody to make a second one.
    assert_eq!(semel.until_settled(&failing).await["last_error"]["kind"], "removed");
    assert_eq!(semel.outcomes(&failing).await, ["timed-out"]);

    assert_eq!(semel.deploy(built("misbehave")).await["version"], 2, "versions count on");
    assert_eq!(semel.cli(&["redrive", &waiting, &delayed]).await.ok().trim(), "2 redriven");
    for id in [&waiting, &delayed] {
        assert_eq!(semel.until_settled(id).await["state"], "completed");
    }
    assert_eq!(semel.count("counter", "dead").await, 0);
}

/// What a kill leaves of a removal is done by the next host.
#[tokio::test]
async fn a_removal_is_finished_by_whoever_comes_next() {
    let mut semel = Semel::start(&["misbehave"]).await;
    steer(&semel, "misbehave", "pause", json!({})).await.ok();
    let id = semel.send("misbehave", r#"{"do": "write"}"#).await;
    semel.kill().await;
    semel.in_file_change("UPDATE semel_functions SET removed = 1, paused = 0").await;
    semel.restart().await;
    assert_eq!(semel.until_settled(&id).await["last_error"]["kind"], "removed");
    until("the function's row to go", async || {
        let rows: i64 = semel.in_file("SELECT COUNT(*) FROM semel_functions").await;
        (rows == 0).then_some(())
    })
    .await;
}

/// One file holds the tables of one app, also when somebody goes back to a version of another app.
#[tokio::test]
async fn a_rollback_brings_no_second_app_into_the_file() {
    let semel = Semel::start(&["counter"]).await;
    let other = |name: &str| built(name).named(name).with("contract =", "app = \"other\"\ncontract =");
    semel.deploy(other("counter")).await;
    semel.deploy(other("misbehave")).await;
    let refused = steer(&semel, "counter", "rollback", json!({})).await.problem(422);
    assert!(refused.contains("holds the app \"other\""), "{refused}");
    assert_eq!(semel.get("/v1/functions/counter").await.ok()["app"], "other");
}

/// What the file says and what the host knows must not part, whoever stops listening.
#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_half_done() {
    let semel = Semel::start(&["counter", "misbehave"]).await;
    let hold = semel.hold_file().await;
    let gone = Duration::from_millis(300);
    let remove = semel.request(reqwest::Method::DELETE, "/v1/functions/counter").give_up(gone);
    let pause = semel.post("/v1/functions/misbehave/pause", "").give_up(gone);
    tokio::join!(remove, pause);
    drop(hold);
    until("the removal", async || (semel.get("/v1/functions/counter").await.status == 404).then_some(())).await;
    until("the pause", async || (semel.get("/v1/functions/misbehave").await.ok()["paused"] == true).then_some(()))
        .await;
}

/// A folder that is the same as when it was deployed says nothing against what a person has decided since.
async fn a_restart_undoes_neither_a_rollback_nor_a_removal(on: On) {
    let mut semel = Semel::start_on(on, &["counter"]).await;
    semel.kill().await;
    let (from, to) = (functions().join("counter"), semel.folder().join("functions/counter"));
    std::fs::create_dir_all(to.join("migrations")).expect("a folder");
    std::fs::copy(from.join("counter.wasm"), to.join("counter.wasm")).expect("the component");
    let manifest = std::fs::read_to_string(from.join("function.toml")).expect("the manifest");
    std::fs::write(to.join("function.toml"), manifest.replace(r#""2s""#, r#""3s""#)).expect("a second version");
    for (number, status, version) in [(0, 200, json!(2)), (1, 200, json!(1)), (2, 404, Value::Null)] {
        let mut host = semel.serve(&["--functions", "functions"]).await;
        let shown = semel.get("/v1/functions/counter").await;
        assert_eq!((shown.status, &shown.json()["version"]), (status, &version), "start {number}");
        match number {
            0 => assert_eq!(steer(&semel, "counter", "rollback", json!({})).await.ok()["version"], 1),
            1 => drop(semel.request(reqwest::Method::DELETE, "/v1/functions/counter").send().await.ok()),
            _ => {}
        }
        host.kill().await.expect("an end");
    }
}
