//! Flow: groups in order, concurrency, rate, priority, and a backlog that is full.

use std::time::Duration;

use semel::clock::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Function, On, Semel, built, on_every_store, until};

on_every_store!(
    messages_of_a_group_run_one_after_another_in_order,
    a_group_keeps_its_order_through_redrive_cancel_kill_and_a_change_of_mind,
    no_more_run_at_once_than_concurrency_says,
    starts_keep_to_the_rate,
    who_is_urgent_goes_first,
    a_full_backlog_is_a_429_and_no_row
);

pub(crate) fn with_flow(function: &str, flow: &str) -> Function {
    built(function).with("[limits]", &format!("[flow]\n{flow}\n\n[limits]"))
}

pub(crate) async fn steer(semel: &Semel, function: &str, what: &str) {
    semel.post(&format!("/v1/functions/{function}/{what}"), "").send().await.ok();
}

async fn send_in(semel: &Semel, group: &str, order: &str) -> String {
    let sent = semel.post("/fn/misbehave", order.to_owned()).header("semel-group", group).send().await;
    assert_eq!(sent.status, 202, "{}", sent.text());
    sent.id()
}

/// When each attempt at a message was claimed and when it ended.
pub(crate) async fn times(semel: &Semel, id: &str) -> Vec<(Timestamp, Timestamp)> {
    let trace = semel.trace(id).await;
    let time = |at: &Value| serde_json::from_value(at.clone()).expect("a time");
    let attempts = trace["attempts"].as_array().expect("attempts").iter();
    attempts.map(|attempt| (time(&attempt["claimed_at"]), time(&attempt["ended_at"]))).collect()
}

/// Attempts at the messages of a group never overlap, and come in the order of acceptance: also past one that fails, waits
/// and fails again.
pub(crate) async fn in_order(semel: &Semel, ids: &[String]) -> bool {
    let mut last = Timestamp::default();
    for id in ids {
        for (claimed, ended) in times(semel, id).await {
            if claimed < last {
                return false;
            }
            last = ended;
        }
    }
    true
}

async fn groups(semel: &Semel) -> Vec<Vec<String>> {
    steer(semel, "misbehave", "pause").await;
    let mut groups = vec![Vec::new(); 3];
    for round in 0..6 {
        for (number, group) in groups.iter_mut().enumerate() {
            let order = if round == number { r#"{"do": "error"}"# } else { r#"{"do": "write"}"# };
            group.push(send_in(semel, &format!("group {number}"), order).await);
        }
    }
    steer(semel, "misbehave", "resume").await;
    for id in groups.iter().flatten() {
        semel.until_settled(id).await;
    }
    groups
}

async fn messages_of_a_group_run_one_after_another_in_order(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(with_flow("misbehave", r#"group = "serial""#)).await;
    for group in groups(&semel).await {
        assert!(in_order(&semel, &group).await, "{group:?}");
    }
    assert_eq!(semel.count("misbehave", "completed").await, 15);
    // Without the word there is no order: whoever fails is overtaken.
    semel.deploy(built("misbehave")).await;
    let mut overtaken = false;
    for group in groups(&semel).await {
        overtaken |= !in_order(&semel, &group).await;
    }
    assert!(overtaken, "the test cannot tell order from chance");
}

async fn a_group_keeps_its_order_through_redrive_cancel_kill_and_a_change_of_mind(on: On) {
    let mut semel = Semel::start_on(on, &[]).await;
    let serial =
        with_flow("misbehave", r#"group = "serial""#).with(r#"timeout = "1s""#, "timeout = \"6s\"\nlease = \"8s\"");
    semel.deploy(serial.clone()).await;
    let write = r#"{"do": "write"}"#;
    let first = send_in(&semel, "g", r#"{"do": "reject"}"#).await;
    assert_eq!(semel.until_settled(&first).await["state"], "dead");
    let long = send_in(&semel, "g", r#"{"do": "sleep-loop", "millis": 1500}"#).await;
    semel.until_started(&long, 1).await;
    let third = send_in(&semel, "g", write).await;
    let fourth = send_in(&semel, "g", write).await;
    let fifth = send_in(&semel, "g", write).await;
    // The first one comes back while the second runs: it is next.
    semel.post(&format!("/v1/messages/{first}/redrive"), "").send().await.ok();
    semel.post(&format!("/v1/messages/{third}/cancel"), "").send().await.ok();
    assert_eq!(semel.starts(&first), [1], "beside the second");
    for id in [&first, &fourth, &fifth] {
        semel.until_settled(id).await;
    }
    let at = |times: Vec<(Timestamp, Timestamp)>| times.last().copied().expect("an attempt");
    let order = [&long, &first, &fourth, &fifth];
    let mut last = Timestamp::default();
    for id in order {
        let (claimed, ended) = at(times(&semel, id).await);
        assert!(claimed >= last, "{order:?}");
        last = ended;
    }
    assert_eq!(semel.starts(&third), [] as [u32; 0]);

    // A host that is killed over the head of a group.
    let head = send_in(&semel, "g", r#"{"do": "sleep-loop", "millis": 2000}"#).await;
    semel.until_started(&head, 1).await;
    let next = send_in(&semel, "g", write).await;
    semel.kill().await;
    semel.restart().await;
    semel.until_settled(&next).await;
    assert_eq!(semel.starts(&head).len(), 2);
    assert!(in_order(&semel, &[head, next]).await);

    // Deployed without order while some wait, and with it again.
    let head = send_in(&semel, "g", r#"{"do": "sleep-loop", "millis": 3000}"#).await;
    semel.until_started(&head, 1).await;
    let free = send_in(&semel, "h", r#"{"do": "sleep-loop", "millis": 1000}"#).await;
    let blocked: i64 = semel.in_store("SELECT COUNT(*) FROM semel_queue WHERE blocked").await;
    assert_eq!(blocked, 0, "another group waits for nobody");
    let behind = send_in(&semel, "g", write).await;
    semel.deploy(built("misbehave")).await;
    let blocked: i64 = semel.in_store("SELECT COUNT(*) FROM semel_queue WHERE blocked").await;
    assert_eq!(blocked, 0, "nobody asks for order");
    for id in [&head, &free, &behind] {
        assert_eq!(semel.until_settled(id).await["state"], "completed");
    }
}

async fn no_more_run_at_once_than_concurrency_says(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    for (most, overlap) in [(1, false), (2, true)] {
        semel.deploy(with_flow("misbehave", &format!("concurrency = {most}"))).await;
        let mut ids = Vec::new();
        for _ in 0..6 {
            ids.push(semel.send("misbehave", r#"{"do": "sleep-loop", "millis": 150}"#).await);
        }
        let mut spans = Vec::new();
        for id in &ids {
            semel.until_settled(id).await;
            spans.extend(times(&semel, id).await);
        }
        let at_once = |at: Timestamp| spans.iter().filter(|(from, to)| *from <= at && at < *to).count();
        let worst = spans.iter().map(|(from, _)| at_once(*from)).max().expect("attempts");
        assert!(worst <= most, "{worst} at once, where {most} may");
        assert!(worst > 1 || !overlap, "two never ran at once: the test shows nothing");
    }
}

async fn starts_keep_to_the_rate(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(with_flow("misbehave", r#"rate = "4/s""#)).await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(semel.send("misbehave", r#"{"do": "write"}"#).await);
    }
    let mut claims = Vec::new();
    for id in &ids {
        semel.until_settled(id).await;
        claims.extend(times(&semel, id).await.into_iter().map(|(claimed, _)| claimed));
    }
    claims.sort();
    // The first may come at once with the one that the pause before it allows; the others every 250 ms. The rate is read a
    // moment before the claim is stamped, which on a busy machine is some milliseconds.
    let span = claims[6].since(claims[0]);
    assert!(span >= Duration::from_millis(1150), "seven starts in {span:?}");
}

async fn who_is_urgent_goes_first(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(with_flow("misbehave", "concurrency = 1")).await;
    steer(&semel, "misbehave", "pause").await;
    let mut ids = Vec::new();
    for priority in [0, -3, 9, 0, 9] {
        let sent = semel.post("/fn/misbehave", r#"{"do": "write"}"#).header("semel-priority", priority.to_string());
        ids.push(sent.send().await.id());
    }
    steer(&semel, "misbehave", "resume").await;
    for id in &ids {
        semel.until_settled(id).await;
    }
    let ran = match on {
        On::Sqlite => semel.sql("SELECT message_id FROM misbehaviour ORDER BY rowid").await,
        On::Postgres => semel.sql("SELECT message_id FROM misbehaviour ORDER BY ctid").await,
        // A table of InnoDB is kept in the order of its key. Commits are told apart by when they ended.
        On::Mariadb => {
            let mut ended = Vec::new();
            for id in &ids {
                ended.push((semel.trace(id).await["attempts"][0]["ended_at"].to_string(), json!([id])));
            }
            ended.sort_by(|one, other| one.0.cmp(&other.0));
            ended.into_iter().map(|(_, id)| id).collect()
        }
    };
    let expected: Vec<Value> = [2, 4, 0, 3, 1].iter().map(|place: &usize| json!([ids[*place]])).collect();
    assert_eq!(ran, json!(expected));
}

async fn a_full_backlog_is_a_429_and_no_row(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(with_flow("counter", "backlog = 3")).await;
    steer(&semel, "counter", "pause").await;
    let first = semel.post("/fn/counter", "a").key("first").send().await;
    semel.send("counter", "a").await;
    semel.send("counter", "a").await;
    let refused = semel.post("/fn/counter", "a").key("fourth").send().await;
    assert!(refused.problem(429).contains("counter"));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(semel.count("counter", "available").await, 3);
    let again = semel.post("/fn/counter", "a").key("first").send().await;
    assert_eq!((again.status, again.id()), (202, first.id()), "what was accepted stays accepted");
    steer(&semel, "counter", "resume").await;
    until("room", async || (semel.count("counter", "completed").await == 3).then_some(())).await;
    let later = semel.post("/fn/counter", "a").key("fourth").wait(30).send().await;
    assert_eq!(later.ok()["count"], 4, "the refused one did not use up its key");
}
