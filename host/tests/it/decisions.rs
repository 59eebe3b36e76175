//! What people decide about messages: redrive, resolve, cancel. Each is in the trace.

use serde_json::{Value, json};

use crate::harness::{Answer, Function, On, Semel, built, on_every_store};

on_every_store!(
    a_redriven_message_has_all_its_attempts_again,
    many_are_redriven_by_function_and_state,
    a_doubt_is_resolved_by_a_person_and_by_nobody_else,
    what_waits_can_be_cancelled,
    what_runs_can_be_cancelled_and_leaves_nothing
);

/// `misbehave` that may take its time, but not so long that nobody can wait for the end of its lease.
fn slow() -> Function {
    slower("6s", "8s")
}

fn slower(timeout: &str, lease: &str) -> Function {
    built("misbehave").with(r#"timeout = "1s""#, &format!("timeout = \"{timeout}\"\nlease = \"{lease}\""))
}

async fn decide(semel: &Semel, id: &str, what: &str, body: &str) -> Answer {
    semel.post(&format!("/v1/messages/{id}/{what}"), body.to_owned()).send().await
}

/// What was decided, without the times.
async fn decisions(semel: &Semel, id: &str) -> Vec<(String, String)> {
    let trace = semel.trace(id).await;
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let decisions = trace["decisions"].as_array().expect("decisions").iter();
    decisions.map(|decision| (text(&decision["decision"]), text(&decision["detail"]))).collect()
}

fn decided(what: &str, detail: &str) -> (String, String) {
    (what.into(), detail.into())
}

async fn a_redriven_message_has_all_its_attempts_again(on: On) {
    let semel = Semel::start_on(on, &["misbehave"]).await;
    let id = semel.call("misbehave", r#"{"do": "error"}"#).await.id();
    assert_eq!(semel.outcomes(&id).await, ["failed"; 2]);
    semel.post("/v1/functions/misbehave/pause", "").send().await.ok(); // Nobody is faster than the answer.
    let message = decide(&semel, &id, "redrive", "").await.ok();
    assert_eq!((&message["attempt"], &message["max_attempts"]), (&json!(2), &json!(4)));
    semel.post("/v1/functions/misbehave/resume", "").send().await.ok();
    let message = semel.until_settled(&id).await;
    assert_eq!(
        (&message["state"], &message["attempt"], &message["max_attempts"]),
        (&json!("dead"), &json!(4), &json!(4))
    );
    assert_eq!(semel.outcomes(&id).await, ["failed"; 4]);
    assert_eq!(semel.starts(&id), [1, 2, 3, 4]);
    assert_eq!(decisions(&semel, &id).await, [decided("redriven", "was dead")]);
    let shown = semel.cli(&["trace", &id]).await;
    assert!(shown.ok().contains("redriven by a person; it was dead"), "{}", shown.stdout);
}

async fn many_are_redriven_by_function_and_state(on: On) {
    let semel = Semel::start_on(on, &["misbehave", "counter"]).await;
    for _ in 0..5 {
        semel.call("misbehave", r#"{"do": "reject"}"#).await.problem(422);
    }
    let done = semel.call("misbehave", r#"{"do": "write"}"#).await.id();
    semel.post("/v1/functions/misbehave/pause", "").send().await.ok();
    let some = semel.cli(&["redrive", "--function", "misbehave", "--limit", "2"]).await;
    assert_eq!(some.ok().trim(), "2 redriven");
    assert_eq!((semel.count("misbehave", "available").await, semel.count("misbehave", "dead").await), (2, 3));
    let rest = semel.post("/v1/redrive", json!({ "function": "misbehave", "state": "dead" }).to_string()).send().await;
    assert_eq!(rest.ok(), json!({ "redriven": 3, "skipped": 0 }));
    assert_eq!(semel.count("misbehave", "available").await, 5);
    let none =
        semel.post("/v1/redrive", json!({ "function": "counter", "state": "in-doubt" }).to_string()).send().await;
    assert_eq!(none.ok(), json!({ "redriven": 0, "skipped": 0 }));
    for (body, status) in [
        (json!({ "function": "nobody", "state": "dead" }), 404),
        (json!({ "function": "misbehave", "state": "completed" }), 400),
        (json!({ "state": "dead" }), 400),
        (json!({ "function": "misbehave", "state": "dead", "limit": -1 }), 400),
    ] {
        semel.post("/v1/redrive", body.to_string()).send().await.problem(status);
    }
    assert!(decide(&semel, &done, "redrive", "").await.problem(409).contains("the message is completed"));
    decide(&semel, "nothing", "redrive", "").await.problem(404);
    let mixed = semel.cli(&["redrive", &done, "nothing"]).await;
    assert_eq!((mixed.code, mixed.stdout.trim()), (1, "0 redriven"));
}

async fn a_doubt_is_resolved_by_a_person_and_by_nobody_else(on: On) {
    let mut semel = Semel::start_on(on, &[]).await;
    semel.deploy(slower("20s", "22s").contract("begin-once")).await; // None ends before the host does.
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(semel.send("misbehave", r#"{"do": "sleep-loop", "millis": 30000}"#).await);
    }
    for id in &ids {
        semel.until_started(id, 1).await;
    }
    semel.kill().await;
    semel.restart().await;
    for id in &ids {
        let message = semel.until_settled(id).await;
        assert_eq!(message["state"], "in-doubt", "{message}");
    }
    let done = semel.cli(&["resolve", &ids[0], "--as", "completed"]).await;
    assert_eq!(done.ok().trim(), format!("{} is completed", ids[0]));
    let message = decide(&semel, &ids[1], "resolve", r#"{"as": "dead"}"#).await.ok();
    assert_eq!((&message["state"], &message["last_error"]["kind"]), (&json!("dead"), &json!("resolved")));
    assert_eq!(decisions(&semel, &ids[0]).await, [decided("resolved", "was in-doubt, is completed")]);
    assert!(decide(&semel, &ids[1], "resolve", r#"{"as": "completed"}"#).await.problem(409).contains("is dead"));
    for wrong in [r#"{"as": "running"}"#, "{}", "", "resolved"] {
        decide(&semel, &ids[2], "resolve", wrong).await.problem(400);
    }
    // A person may also say: once more.
    semel.deploy(built("misbehave").accept_weaker()).await;
    decide(&semel, &ids[2], "redrive", "").await.ok();
    assert_eq!(semel.until_settled(&ids[2]).await["last_error"]["kind"], "timed-out", "30 s in a timeout of 1 s");
    assert_eq!(decisions(&semel, &ids[2]).await, [decided("redriven", "was in-doubt")]);
}

async fn what_waits_can_be_cancelled(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let id = semel.post("/fn/counter", "a").header("semel-delay", "1h").send().await.id();
    assert_eq!(semel.cli(&["cancel", &id]).await.ok().trim(), format!("{id} is cancelled"));
    assert_eq!(semel.message(&id).await["state"], "cancelled");
    assert_eq!(decisions(&semel, &id).await, [decided("cancelled", "was available")]);
    assert!(decide(&semel, &id, "cancel", "").await.problem(409).contains("is cancelled"));
    decide(&semel, "nothing", "cancel", "").await.problem(404);
    // And redriven: then it is due at once.
    decide(&semel, &id, "redrive", "").await.ok();
    assert_eq!(semel.until_settled(&id).await["state"], "completed");
}

async fn what_runs_can_be_cancelled_and_leaves_nothing(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    semel.deploy(slow()).await;
    for order in [r#"{"do": "sleep-loop", "millis": 60000}"#, r#"{"do": "loop"}"#] {
        let id = semel.send("misbehave", order).await;
        semel.until_started(&id, 1).await;
        let waits = semel.post(&format!("/fn/misbehave?{}", id.len()), order).send().await.id(); // Behind it, or beside it.
        assert_eq!(decide(&semel, &id, "cancel", "").await.ok()["state"], "cancelled", "{order}");
        assert_eq!(semel.call("counter", "next").await.status, 200);
        assert_eq!(semel.outcomes(&id).await, ["cancelled"], "{order}");
        assert_eq!(decisions(&semel, &id).await, [decided("cancelled", "was running")]);
        decide(&semel, &waits, "cancel", "").await.ok();
        assert_eq!(semel.message(&id).await["attempt"], 1);
    }
    assert_eq!(semel.sql("SELECT COUNT(*) FROM misbehaviour").await, json!([[0]]));
    // In a statement that never ends, on the connection that the decision needs.
    let id = semel.send("misbehave", r#"{"do": "endless-sql"}"#).await;
    semel.until_started(&id, 1).await;
    assert_eq!(decide(&semel, &id, "cancel", "").await.ok()["state"], "cancelled");
    assert_eq!(semel.call("counter", "next").await.status, 200);
    assert_eq!(semel.outcomes(&id).await, ["cancelled"]);
    let done = semel.call("counter", "done").await.id();
    assert!(decide(&semel, &done, "cancel", "").await.problem(409).contains("is completed"));
}
