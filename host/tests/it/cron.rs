//! Schedules: each slot becomes one message, whoever runs, dies, deploys or goes back meanwhile. What is compared are the
//! slots that messages were made for, never how late they were.

use std::time::Duration;

use reqwest::Method;
use semel::clock::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Function, On, Semel, built, on_every_store, until};

on_every_store!(
    each_slot_is_fired_once_whatever_is_deployed_meanwhile,
    a_host_that_is_killed_and_started_again_loses_no_slot,
    what_was_missed_is_skipped_or_caught_up_with,
    another_schedule_begins_with_its_deploy_and_ends_with_it,
    a_pause_holds_back_the_run_and_a_removal_the_slot,
    a_full_backlog_takes_no_slot,
    people_see_when_it_fires,
    a_schedule_that_is_not_right_is_refused_with_its_line_and_key
);

/// A counter that is also called by the clock.
fn counter(cron: &str) -> Function {
    let route = r#"http = [{ path = "/count/{counter}", methods = ["GET", "POST"] }]"#;
    built("counter").with(route, &format!("cron = [{cron}]"))
}

fn every_second(body: &str) -> String {
    format!(r#"{{ schedule = "* * * * * *", body = "{body}" }}"#)
}

/// A slot, and what else the message says.
#[derive(Debug, PartialEq, Eq)]
struct Fired {
    slot: Timestamp,
    accepted: Timestamp,
    body: String,
}

/// What was fired for a function, in the order of acceptance.
async fn fired(semel: &Semel, function: &str) -> Vec<Fired> {
    let text = match semel.on {
        On::Sqlite => {
            "json_group_array(json_array(json(headers), accepted_at, CAST(body AS TEXT), topic, content_type) ORDER BY seq)"
        }
        On::Mariadb => {
            "concat('[', coalesce(group_concat(json_array(json_extract(headers, '$'), accepted_at, convert(body USING utf8mb4),
             topic, content_type) ORDER BY seq), ''), ']')"
        }
        On::Postgres => {
            "coalesce(json_agg(json_build_array(headers::json, accepted_at, convert_from(body, 'UTF8'), topic, content_type)
             ORDER BY seq), '[]')::text"
        }
    };
    let find =
        format!("SELECT {text} FROM semel_messages WHERE function = '{function}' AND headers LIKE '%semel-cron%'");
    let found: Value = serde_json::from_str(&semel.in_store::<String>(&find).await).expect("JSON");
    let found = found.as_array().expect("messages").iter().map(|message| {
        assert_eq!(message[3], format!("fn/{function}"));
        assert_eq!(message[0][0][0], "semel-cron-time");
        let body = message[2].as_str().expect("text").to_owned();
        let is_json = serde_json::from_str::<Value>(&body).is_ok();
        assert_eq!(message[4], if is_json { "application/json" } else { "text/plain" });
        let slot = serde_json::from_value(message[0][0][1].clone()).expect("a time");
        Fired { slot, accepted: Timestamp(message[1].as_i64().expect("a time")), body }
    });
    found.collect()
}

/// Waits until so many slots were fired.
async fn until_fired(semel: &Semel, function: &str, count: usize) -> Vec<Fired> {
    until(&format!("{count} slots of {function}"), async || {
        let found = fired(semel, function).await;
        (found.len() >= count).then_some(found)
    })
    .await
}

/// Each is the one before it and so many seconds.
#[track_caller]
fn contiguous(fired: &[Fired], seconds: u64) {
    for pair in fired.windows(2) {
        assert_eq!(pair[1].slot, pair[0].slot.plus(Duration::from_secs(seconds)), "in {fired:?}");
    }
}

/// That what a counter counted is what was fired, each once.
async fn counted(semel: &Semel, function: &str, counter: &str) {
    semel.request(Method::DELETE, "/v1/functions/clock").send().await; // If there is one: it would go on.
    semel.deploy(built("counter").named(function)).await; // Without a schedule.
    let fired = fired(semel, function).await.into_iter().filter(|fired| fired.body == counter).count();
    until("all to be settled", async || {
        (semel.count(function, "available").await + semel.count(function, "running").await == 0).then_some(())
    })
    .await;
    let rows = semel.sql(&format!("SELECT n FROM counters WHERE id = '{counter}'")).await;
    assert_eq!(rows[0][0], json!(fired), "{rows}");
}

async fn each_slot_is_fired_once_whatever_is_deployed_meanwhile(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    let first = counter(&every_second("ticks"));
    let second = first.clone().with("timeout = \"2s\"", "timeout = \"3s\"");
    semel.deploy(first.clone()).await;
    for count in 1..6 {
        until_fired(&semel, "counter", count).await;
        semel.deploy(if count % 2 == 0 { first.clone() } else { second.clone() }).await;
        let missed = first.clone().with("\"ticks\"", "\"ticks\", missed = \"catch-up\"");
        semel.deploy(missed).await;
    }
    let all = until_fired(&semel, "counter", 7).await;
    contiguous(&all, 1);
    counted(&semel, "counter", "ticks").await;
}

async fn a_host_that_is_killed_and_started_again_loses_no_slot(on: On) {
    let catch_up = r#"{ schedule = "* * * * * *", body = "late", missed = "catch-up" }"#;
    let mut semel = Semel::start_on(on, &[]).await;
    semel.deploy(counter(&every_second("soon")).renamed("clock")).await;
    semel.deploy(counter(catch_up)).await;
    for round in 1..4 {
        until_fired(&semel, "clock", round).await;
        semel.kill().await;
        tokio::time::sleep(Duration::from_millis(700 * round as u64)).await;
        semel.restart().await;
    }
    for function in ["clock", "counter"] {
        let before = fired(&semel, function).await.len();
        contiguous(&until_fired(&semel, function, before + 2).await, 1);
    }
    counted(&semel, "counter", "late").await;
}

/// The clock is not set: what a schedule has come to is.
async fn what_was_missed_is_skipped_or_caught_up_with(on: On) {
    let mut semel = Semel::start_on(on, &[]).await;
    semel.deploy(counter(&every_second("skip"))).await;
    let minutely = r#"{ schedule = "0 * * * * *", timezone = "Asia/Kathmandu", body = "{}", missed = "catch-up" }"#;
    semel.deploy(counter(minutely).renamed("minutely")).await;
    let hundreds = r#"{ schedule = "* * * * * *", body = "many", missed = "catch-up" }"#;
    semel.deploy(counter(hundreds).renamed("hundreds")).await;
    until_fired(&semel, "counter", 2).await;
    semel.kill().await;
    let mut before = [0; 3];
    for (before, function) in before.iter_mut().zip(["counter", "minutely", "hundreds"]) {
        *before = fired(&semel, function).await.len();
    }
    assert_eq!(semel.change("UPDATE semel_cron SET reached = reached - 1800 * 1000000").await, 3, "half an hour ago");
    semel.restart().await;

    let after = until_fired(&semel, "counter", before[0] + 2).await.split_off(before[0]);
    contiguous(&after, 1);
    let late = after[0].accepted.since(after[0].slot);
    assert!(late < Duration::from_secs(600), "the first slot is {late:?} old");

    let after = until_fired(&semel, "minutely", before[1] + 30).await.split_off(before[1]);
    contiguous(&after, 60);
    assert!((30..=35).contains(&after.len()), "{after:?}");

    let after = until_fired(&semel, "hundreds", before[2] + 102).await.split_off(before[2]);
    contiguous(&after, 1);
    let caught_up = after.iter().filter(|fired| fired.accepted.since(fired.slot) > Duration::from_secs(600)).count();
    assert_eq!(caught_up, 0, "only the newest hundred");
    assert!(semel.log().contains("more slots were missed than are caught up with"), "{}", semel.log());
}

async fn another_schedule_begins_with_its_deploy_and_ends_with_it(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(counter(&every_second("one"))).await;
    until_fired(&semel, "counter", 2).await;
    // The next second and an hour of the past: a schedule that is new has none.
    let hourly = r#"{ schedule = "0 0-23 * * *", body = "hour", missed = "catch-up" }"#;
    semel.deploy(counter(&format!("{}, {hourly}", every_second("two")))).await;
    let of = async |body: &str| fired(&semel, "counter").await.into_iter().filter(|fired| fired.body == body).collect();
    let more = async |body: &str| {
        let before: Vec<Fired> = of(body).await;
        until("more", async || {
            let now: Vec<Fired> = of(body).await;
            (now.len() >= before.len() + 2).then_some(now)
        })
        .await
    };
    let one: Vec<Fired> = of("one").await;
    contiguous(&more("two").await, 1);
    assert_eq!(of("one").await, one, "what is not deployed fires no more");
    assert!(of("hour").await.len() < 2);
    let two: Vec<Fired> = of("two").await;
    let answer = semel.post("/v1/functions/counter/rollback", "").send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let again = more("one").await;
    contiguous(&again[one.len()..], 1);
    assert!(again[one.len()].slot > two[two.len() - 1].slot, "it begins again with the rollback");
    let both = fired(&semel, "counter").await;
    let mut slots: Vec<_> = both.iter().filter(|fired| fired.body != "hour").map(|fired| fired.slot).collect();
    let count = slots.len();
    slots.dedup();
    assert!(slots.is_sorted() && slots.len() == count, "one schedule at a time: {both:?}");
}

async fn a_pause_holds_back_the_run_and_a_removal_the_slot(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(counter(&every_second("ticks"))).await;
    semel.deploy(counter(&every_second("clock")).renamed("clock")).await;
    until_fired(&semel, "counter", 1).await;
    let steer = async |what: &str| semel.post(&format!("/v1/functions/counter/{what}"), "").send().await.ok();
    steer("pause").await;
    let before = fired(&semel, "counter").await.len();
    contiguous(&until_fired(&semel, "counter", before + 3).await, 1);
    assert!(semel.count("counter", "available").await >= 2, "what is fired in a pause waits");
    steer("resume").await;
    until("what waited", async || (semel.count("counter", "completed").await >= 3).then_some(())).await;

    let removed = semel.request(Method::DELETE, "/v1/functions/counter").send().await;
    assert_eq!(removed.status, 200, "{}", removed.text());
    let (last, clock) = (fired(&semel, "counter").await, fired(&semel, "clock").await.len());
    until_fired(&semel, "clock", clock + 3).await;
    assert_eq!(fired(&semel, "counter").await, last, "a function that is removed is called no more");
    semel.deploy(counter(&every_second("ticks"))).await;
    let again = until_fired(&semel, "counter", last.len() + 2).await;
    contiguous(&again[last.len()..], 1);
    contiguous(&again[..last.len()], 1);
    assert!(
        again[last.len()].slot > last[last.len() - 1].slot.plus(Duration::from_secs(1)),
        "the time between is past"
    );
}

async fn a_full_backlog_takes_no_slot(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    let catch_up = r#"{ schedule = "* * * * * *", body = "ticks", missed = "catch-up" }"#;
    semel.deploy(counter(catch_up).with("[limits]", "[flow]\nbacklog = 2\n[limits]")).await;
    semel.post("/v1/functions/counter/pause", "").send().await.ok();
    until("a full backlog", async || semel.log().contains("backlog is full").then_some(())).await;
    until("two that wait", async || (semel.count("counter", "available").await == 2).then_some(())).await;
    let before = fired(&semel, "counter").await.len();
    semel.post("/v1/functions/counter/resume", "").send().await.ok();
    contiguous(&until_fired(&semel, "counter", before + 3).await, 1);
}

async fn people_see_when_it_fires(on: On) {
    let semel = Semel::start_on(on, &["receipts"]).await;
    let nightly = r#"{ schedule = "0 3 * * *", timezone = "Europe/Berlin", body = "{}", missed = "catch-up" }"#;
    let deployed = semel.deploy(counter(&format!("{nightly}, {}", every_second("ticks")))).await;
    assert_eq!(deployed["cron"][0]["schedule"], "0 3 * * *");
    let now: Timestamp = until_fired(&semel, "counter", 1).await[0].slot;
    let one = semel.get("/v1/functions/counter").await.ok();
    let all = semel.get("/v1/functions").await.ok();
    let time = |value: &Value| serde_json::from_value::<Timestamp>(value.clone()).expect("a time");
    for document in [&one, &all["functions"][0]] {
        let [night, second] = [&document["cron"][0], &document["cron"][1]];
        assert_eq!((&night["timezone"], &night["missed"]), (&json!("Europe/Berlin"), &json!("catch-up")));
        assert_eq!(
            (&second["timezone"], &second["missed"], &second["body"]),
            (&json!("UTC"), &json!("skip"), &json!("ticks"))
        );
        assert!(night["last"].is_null());
        let next = night["next"].as_str().expect("a time");
        assert!(
            next.ends_with("T01:00:00.000000Z") || next.ends_with("T02:00:00.000000Z"),
            "03:00 in Berlin, not {next}"
        );
        assert!(time(&second["last"]) >= now && time(&second["next"]) > time(&second["last"]), "{second}");
    }
    assert_eq!(all["functions"][1]["cron"], json!([]));
    let listed = semel.cli(&["functions"]).await;
    assert!(listed.stdout.contains("NEXT") && listed.stdout.contains(".000000Z"), "{}", listed.stdout);
    let shown = semel.cli(&["functions", "counter"]).await;
    for clue in ["SCHEDULE", "0 3 * * *", "Europe/Berlin", "catch-up", "* * * * * *"] {
        assert!(shown.stdout.contains(clue), "no {clue} in {}", shown.stdout);
    }
}

async fn a_schedule_that_is_not_right_is_refused_with_its_line_and_key(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    let large = format!(r#"{{ schedule = "@daily", body = "{}" }}"#, "x".repeat((1 << 20) + 1));
    let many = vec![every_second("x"); 101].join(", ");
    for (cron, clues) in [
        (r#"{ schedule = "every day" }"#, ["line 6", "every day", "0 3 * * *"]),
        (r#"{ schedule = "61 * * * *" }"#, ["line 6", "schedule", "61"]),
        (r#"{ schedule = "0 3 * * *", timezone = "Europe/Atlantis" }"#, ["line 6", "timezone", "Europe/Atlantis"]),
        (r#"{ schedule = "0 0 30 2 *" }"#, ["line 6", "schedule", "never fires"]),
        (r#"{ schedule = "0 3 * * *", missed = "maybe" }"#, ["line 6", "missed", "maybe"]),
        (r#"{ schedule = "0 3 * * *", tz = "UTC" }"#, ["line 6", "tz", "timezone"]),
        (r#"{ body = "x" }"#, ["line 6", "cron", "schedule"]),
        (r#"{ schedule = "@daily" }, { schedule = "@daily", missed = "catch-up" }"#, ["cron", "@daily", "twice"]),
        (&large, ["line 6", "body", "1048576"]),
        (&many, ["cron", "at most", "100"]),
    ] {
        let reason = semel.try_deploy(counter(cron)).await.problem(422);
        for clue in clues {
            assert!(reason.contains(clue), "`{clue}` is not in: {}", &reason[..reason.len().min(500)]);
        }
    }
    assert_eq!(semel.get("/v1/functions").await.ok()["functions"], json!([]));
}

/// Any number of hosts fires as one.
#[tokio::test]
async fn two_hosts_fire_each_slot_once() {
    let one = Semel::start_on(On::Postgres, &[]).await;
    let mut two = one.beside().await;
    let three = one.beside().await;
    one.deploy(counter(&every_second("ticks"))).await;
    until_fired(&one, "counter", 3).await;
    two.kill().await;
    three.deploy(counter(&every_second("ticks")).with("timeout = \"2s\"", "timeout = \"3s\"")).await;
    contiguous(&until_fired(&one, "counter", 6).await, 1);
    counted(&one, "counter", "ticks").await;
}
