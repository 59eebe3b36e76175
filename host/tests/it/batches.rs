//! Messages that share a commit: that they do, who may not, and that nobody pays for another one of them.
//!
//! Nothing here is told from time. The host counts its commits, the database says what was committed at once, and the
//! witness of starts says who had others beside it in its transaction. As many as wait share the first commit of a
//! function, up to eight, once a message before them has shown what one takes.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::deferred::{OK, keys, mailer};
use crate::flow::{in_order, steer, times, with_flow};
use crate::harness::{Function, On, Semel, built, in_server, not_in_vain, on_every_store, until};
use crate::outside::{Server, Then};
use crate::servers::{Holder, as_superuser, name_of, of_app, on_every_server};

on_every_store!(
    what_waits_shares_one_commit_and_a_lone_message_has_its_own,
    who_asks_nothing_of_the_database_shares_a_commit_and_logs_are_each_ones_own,
    whoever_ends_badly_takes_nobody_along,
    whoever_is_cancelled_takes_nobody_along,
    whose_claim_is_lost_commits_nothing_and_the_others_once,
    who_may_begin_once_or_calls_others_or_was_told_not_to_shares_with_nobody,
    messages_of_a_group_keep_their_order_and_those_of_several_share,
    every_effect_of_a_batch_is_there_once,
    what_is_deferred_in_a_batch_is_sent_once,
    everybody_who_waits_gets_the_answer_to_their_own_message,
    limits_on_concurrency_and_rate_hold_for_batches
);

on_every_server!(two_batches_that_want_the_same_rows_in_opposite_orders_count_each_once);

pub(crate) const TOGETHER: (u32, bool) = (1, true);
pub(crate) const ALONE: (u32, bool) = (1, false);
/// As many as share the first commit.
const EIGHT: usize = 8;
/// In the middle of them.
const BAD: usize = 3;
pub(crate) const WRITE: &str = r#"{"do": "write"}"#;

/// `misbehave` under another name, which uses the tables that are there. One attempt, and time enough for a slow machine.
pub(crate) fn misbehave(name: &str) -> Function {
    let manifest =
        [("name = \"misbehave\"", format!("name = \"{name}\"")), ("max_attempts = 2", "max_attempts = 1".into())];
    let function = manifest.iter().fold(built("misbehave").named(name), |function, (from, to)| function.with(from, to));
    function.with(r#"timeout = "1s""#, "timeout = \"30s\"\nlease = \"40s\"")
}

/// One message alone, by which the host knows what one takes.
pub(crate) async fn warm_up(semel: &Semel, function: &str, order: &str) {
    let answer = semel.call(function, order).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Messages that wait until all of them are there.
pub(crate) async fn waiting(semel: &Semel, function: &str, orders: &[String]) -> Vec<String> {
    steer(semel, function, "pause").await;
    let mut ids = Vec::new();
    for order in orders {
        ids.push(semel.send(function, order).await);
    }
    steer(semel, function, "resume").await;
    ids
}

fn eight(order: &str) -> Vec<String> {
    vec![order.to_owned(); EIGHT]
}

async fn all_settled(semel: &Semel, ids: &[String]) -> Vec<Value> {
    let mut messages = Vec::new();
    for id in ids {
        messages.push(semel.until_settled(id).await);
    }
    messages
}

/// Commits of what messages did, by the host's own count.
async fn commits(semel: &Semel) -> u64 {
    let metrics = semel.get("/metrics").await.text();
    let count = metrics.lines().find_map(|line| line.strip_prefix("semel_commit_seconds_count "));
    count.expect("a count of commits").parse().expect("a number")
}

/// Completed on the first attempt, which is the only one on record, and which began in vain a few times at most.
#[track_caller]
fn unharmed(message: &Value, outcomes: &[String], started: &[(u32, bool)]) {
    assert_eq!((&message["state"], &message["attempt"]), (&json!("completed"), &json!(1)), "{message}");
    assert_eq!(outcomes, ["completed"], "{message}");
    assert_eq!(not_in_vain(started), [1], "{message}");
}

/// That all but the one in the middle are unharmed, and that those before it had really begun beside it.
async fn neighbours_unharmed(semel: &Semel, ids: &[String]) {
    let messages = all_settled(semel, ids).await;
    for (place, (id, message)) in ids.iter().zip(&messages).enumerate() {
        if place != BAD {
            unharmed(message, &semel.outcomes(id).await, &semel.started(id));
        }
        if place < BAD {
            let started = semel.started(id);
            assert!(
                [[TOGETHER, TOGETHER], [TOGETHER, ALONE]].contains(&started[..].try_into().unwrap_or_default()),
                "{started:?}"
            );
        }
    }
    assert_eq!(semel.started(&ids[BAD])[0], TOGETHER, "it was no batch that was harmed");
}

async fn what_waits_shares_one_commit_and_a_lone_message_has_its_own(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    warm_up(&semel, "counter", "a").await;
    let before = commits(&semel).await;
    let ids = waiting(&semel, "counter", &eight("a")).await;
    for (id, message) in ids.iter().zip(all_settled(&semel, &ids).await) {
        unharmed(&message, &semel.outcomes(id).await, &semel.started(id));
        assert_eq!(semel.started(id), [TOGETHER]);
    }
    assert_eq!(commits(&semel).await - before, 1, "of all eight");
    // What the database says of it: one transaction, or one moment.
    let of_commit = if on == On::Postgres { "xmin::text" } else { "ended_at" };
    let count = format!("SELECT COUNT(DISTINCT {of_commit}) FROM semel_history WHERE function = 'counter'");
    assert_eq!(semel.in_store::<i64>(&count).await, 2, "the one before, and all eight");
    // Nobody else comes, and it does not wait for anybody.
    let lone = semel.call("counter", "a").await;
    assert_eq!(lone.json()["count"], 10);
    assert_eq!(semel.started(&lone.id()), [ALONE]);
    assert_eq!(commits(&semel).await - before, 2);
}

async fn who_asks_nothing_of_the_database_shares_a_commit_and_logs_are_each_ones_own(on: On) {
    let semel = Semel::start_on(on, &["misbehave"]).await;
    warm_up(&semel, "misbehave", WRITE).await;
    let before = commits(&semel).await;
    let orders: Vec<String> =
        (0..EIGHT).map(|n| if n % 2 == 0 { r#"{"do": "log"}"# } else { WRITE }.to_owned()).collect();
    let ids = waiting(&semel, "misbehave", &orders).await;
    all_settled(&semel, &ids).await;
    for (place, id) in ids.iter().enumerate() {
        assert_eq!(semel.started(id), [TOGETHER], "{place}");
        let logs = semel.trace(id).await["attempts"][0]["logs"].take();
        let said = logs.as_array().expect("lines").iter().map(|line| line["fields"][0][1].clone()).collect::<Vec<_>>();
        assert_eq!(said, vec![json!(id); if place % 2 == 0 { 4 } else { 0 }]);
    }
    assert_eq!(commits(&semel).await - before, 1);
    assert_eq!(semel.sql("SELECT COUNT(*) FROM misbehaviour").await, json!([[1 + EIGHT / 2]]));
}

async fn whoever_ends_badly_takes_nobody_along(on: On) {
    let semel = Semel::start_on(on, &["misbehave"]).await;
    let mut good = 0;
    for (name, order, outcome) in [
        ("panic", "panic", "trapped"),
        ("write-then-trap", "write-then-trap", "trapped"),
        ("error", "error", "failed"),
        ("reject", "reject", "refused"),
        ("swallow", "swallow", "failed"),
        ("commit", "commit", "sql-forbidden"),
        ("allocate", "allocate", "out-of-memory"),
        ("thirsty", "loop", "out-of-fuel"),
        ("late", "loop", "timed-out"),
    ] {
        let function = misbehave(name);
        semel
            .deploy(match name {
                "thirsty" => function.with("[limits]", "[limits]\nfuel = 4_000_000"),
                "late" => function.with(r#"timeout = "30s""#, r#"timeout = "2s""#),
                _ => function,
            })
            .await;
        warm_up(&semel, name, WRITE).await;
        let mut orders = eight(WRITE);
        orders[BAD] = json!({ "do": order }).to_string();
        let ids = waiting(&semel, name, &orders).await;
        neighbours_unharmed(&semel, &ids).await;
        let bad = semel.message(&ids[BAD]).await;
        assert_eq!((&bad["state"], &bad["last_error"]["kind"]), (&json!("dead"), &json!(outcome)), "{name}");
        assert_eq!(semel.outcomes(&ids[BAD]).await, [outcome], "{name}");
        assert_eq!(semel.started(&ids[BAD]), [TOGETHER, ALONE], "{name}");
        good += EIGHT;
    }
    let rows = "SELECT COUNT(*), COUNT(DISTINCT message_id) FROM misbehaviour WHERE what = 'write'";
    assert_eq!(semel.sql(rows).await, json!([[good, good]]));
    assert_eq!(semel.sql("SELECT COUNT(*) FROM misbehaviour").await, json!([[good]]), "and nothing of a bad one");
}

async fn whoever_is_cancelled_takes_nobody_along(on: On) {
    let semel = Semel::start_on(on, &["misbehave"]).await;
    semel.deploy(misbehave("slow")).await;
    warm_up(&semel, "slow", WRITE).await;
    let mut orders = eight(WRITE);
    orders[BAD] = r#"{"do": "sleep-loop", "millis": 60000}"#.to_owned();
    let ids = waiting(&semel, "slow", &orders).await;
    semel.until_started(&ids[BAD], 1).await;
    let cancelled = semel.post(&format!("/v1/messages/{}/cancel", ids[BAD]), "").send().await.ok();
    assert_eq!(cancelled["state"], "cancelled");
    neighbours_unharmed(&semel, &ids).await;
    assert_eq!(semel.outcomes(&ids[BAD]).await, ["cancelled"]);
    assert_eq!(semel.sql("SELECT COUNT(*) FROM misbehaviour").await, json!([[EIGHT]]), "seven, and the one before");
}

/// Somebody else has taken a message over while the batch runs: the fence of one is the fence of all.
async fn whose_claim_is_lost_commits_nothing_and_the_others_once(on: On) {
    let semel = Semel::start_on(on, &["misbehave"]).await;
    semel.deploy(misbehave("slow").with("max_attempts = 1", "max_attempts = 3")).await;
    warm_up(&semel, "slow", WRITE).await;
    let mut orders = eight(WRITE);
    // Before it has written anything: SQLite has one writer.
    orders[0] = r#"{"do": "sleep-loop", "millis": 1500}"#.to_owned();
    let ids = waiting(&semel, "slow", &orders).await;
    semel.until_started(&ids[0], 1).await;
    // By a host that has died already.
    let stolen = format!(
        "UPDATE semel_queue SET fence = fence + 1, lease_until = 0
         WHERE seq = (SELECT seq FROM semel_messages WHERE id = '{}') AND state = 'running'",
        ids[BAD]
    );
    assert_eq!(semel.change(&stolen).await, 1, "the batch was faster");
    let messages = all_settled(&semel, &ids).await;
    let started = semel.started(&ids[0]);
    assert!(started[0] == TOGETHER && started.len() > 1, "no commit was refused: {started:?}");
    for (place, (id, message)) in ids.iter().zip(&messages).enumerate() {
        let outcomes = semel.outcomes(id).await;
        if place == BAD {
            assert_eq!((&message["state"], &message["attempt"]), (&json!("completed"), &json!(2)), "{message}");
            assert_eq!(outcomes.iter().filter(|outcome| *outcome == "completed").count(), 1, "{outcomes:?}");
        } else {
            unharmed(message, &outcomes, &semel.started(id));
        }
    }
    let rows = semel.sql("SELECT COUNT(*), COUNT(DISTINCT message_id) FROM misbehaviour").await;
    assert_eq!(rows, json!([[EIGHT + 1, EIGHT + 1]]));
}

async fn who_may_begin_once_or_calls_others_or_was_told_not_to_shares_with_nobody(on: On) {
    let semel = Semel::start_on(on, &["receipts"]).await;
    semel.deploy(built("misbehave").contract("begin-once")).await;
    let effects = semel.deploy(built("effects")).await;
    assert_eq!(effects["label"], "external", "{effects}");
    semel.deploy(with_flow("counter", r#"batch = "off""#)).await;
    for (function, order) in [("misbehave", WRITE), ("effects", r#"{"count": "nobody"}"#), ("counter", "a")] {
        warm_up(&semel, function, order).await;
        let before = commits(&semel).await;
        let ids = waiting(&semel, function, &eight(order)).await;
        for (id, message) in ids.iter().zip(all_settled(&semel, &ids).await) {
            assert_eq!(message["state"], "completed");
            assert!(semel.started(id).iter().all(|(_, together)| !together), "{function}: {:?}", semel.started(id));
        }
        assert!(commits(&semel).await - before >= EIGHT as u64, "{function}");
    }
}

async fn messages_of_a_group_keep_their_order_and_those_of_several_share(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(with_flow("misbehave", r#"group = "serial""#).with(r#"timeout = "1s""#, r#"timeout = "5s""#)).await;
    warm_up(&semel, "misbehave", WRITE).await;
    steer(&semel, "misbehave", "pause").await;
    let mut groups = vec![Vec::new(); 4];
    for _ in 0..3 {
        for (number, group) in groups.iter_mut().enumerate() {
            let sent = semel.post("/fn/misbehave", WRITE).header("semel-group", format!("group {number}")).send().await;
            group.push(sent.id());
        }
    }
    steer(&semel, "misbehave", "resume").await;
    for group in &groups {
        for message in all_settled(&semel, group).await {
            assert_eq!((&message["state"], &message["attempt"]), (&json!("completed"), &json!(1)));
        }
        assert!(in_order(&semel, group).await, "{group:?}");
        assert_eq!(semel.started(&group[0]), [TOGETHER], "the first of each group shared a commit");
    }
    assert_eq!(semel.sql("SELECT COUNT(*) FROM misbehaviour").await, json!([[13]]));
}

/// Rows, state, what is published and the answer, of a batch in which one message traps when it has done all of it.
async fn every_effect_of_a_batch_is_there_once(on: On) {
    let semel = Semel::start_on(on, &["receipts"]).await;
    let again = "[retry]\nbackoff = { initial = \"50ms\" }\n\n[grants]";
    semel.deploy(built("effects").with(r#"http = ["https://example.com"]"#, "").with("[grants]", again)).await;
    warm_up(&semel, "effects", r#"{"count": "nobody"}"#).await;
    let mut orders = eight("{}");
    orders[BAD] = r#"{"trap": 1}"#.to_owned();
    let ids = waiting(&semel, "effects", &orders).await;
    neighbours_unharmed(&semel, &ids).await;
    assert_eq!(semel.outcomes(&ids[BAD]).await, ["trapped", "completed"]);
    until("the receipts", async || (semel.count("receipts", "completed").await >= EIGHT as u64).then_some(())).await;
    for (place, id) in ids.iter().enumerate() {
        let answer = semel.message(id).await["response"]["body"].take();
        let answer: Value = serde_json::from_str(answer.as_str().expect("an answer")).expect("JSON");
        assert_eq!(answer["attempt"], if place == BAD { 2 } else { 1 });
        let effects = semel.call("effects", &json!({ "count": id }).to_string()).await.ok();
        assert_eq!(effects, json!({ "before": 1, "after": 1, "state": 1, "receipts": 1 }), "{place}");
    }
    assert_eq!(semel.count("receipts", "completed").await, EIGHT as u64);
}

async fn what_is_deferred_in_a_batch_is_sent_once(on: On) {
    let (semel, server) = (Semel::start_on(on, &[]).await, Server::start(Then::Say(OK)).await);
    semel.deploy(mailer(&server)).await;
    let order = |n: usize| json!({ "to": format!("{n}"), "service": format!("http://{}/", server.address), "fail": u32::from(n == BAD) });
    let orders: Vec<String> = (0..EIGHT).map(|n| order(n).to_string()).collect();
    warm_up(&semel, "mailer", &order(EIGHT).to_string()).await;
    let ids = waiting(&semel, "mailer", &orders).await;
    neighbours_unharmed(&semel, &ids).await;
    assert_eq!(semel.outcomes(&ids[BAD]).await, ["failed", "completed"]);
    let all = (EIGHT + 1) as u64;
    until("the requests", async || (semel.count("deferred-http", "completed").await >= all).then_some(())).await;
    let keys: BTreeSet<String> = keys(&server).into_iter().collect();
    let sent: BTreeSet<String> = server
        .requests
        .lock()
        .expect("a lock")
        .iter()
        .map(|request| request.lines().last().expect("a body").to_owned())
        .collect();
    assert_eq!((keys.len(), sent.len()), (EIGHT + 1, EIGHT + 1), "one for each: {sent:?}");
    assert_eq!(server.requests.lock().expect("a lock").len(), EIGHT + 1, "and no more");
}

async fn everybody_who_waits_gets_the_answer_to_their_own_message(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    warm_up(&semel, "counter", "a").await;
    steer(&semel, "counter", "pause").await;
    let ask = async |n: usize| semel.call("counter", &format!("counter {n}")).await;
    let resume = async {
        until("all of them", async || (semel.count("counter", "available").await == EIGHT as u64).then_some(())).await;
        steer(&semel, "counter", "resume").await;
    };
    let (answers, ()) = tokio::join!(join_all((0..EIGHT).map(ask)), resume);
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.json(), json!({ "counter": format!("counter {n}"), "count": 1 }));
        assert_eq!(semel.started(&answer.id()), [TOGETHER]);
    }
}

async fn limits_on_concurrency_and_rate_hold_for_batches(on: On) {
    let semel = Semel::start_on(on, &["misbehave"]).await;
    let flow = |name: &str, flow: &str| misbehave(name).with("[limits]", &format!("[flow]\n{flow}\n\n[limits]"));
    semel.deploy(flow("three", "concurrency = 3")).await;
    semel.deploy(flow("often", r#"rate = "4/s""#)).await;
    let mut spans = BTreeMap::new();
    for name in ["three", "often"] {
        warm_up(&semel, name, WRITE).await;
        let ids = waiting(&semel, name, &eight(WRITE)).await;
        let mut of_all = Vec::new();
        for (id, message) in ids.iter().zip(all_settled(&semel, &ids).await) {
            assert_eq!((&message["state"], &message["attempt"]), (&json!("completed"), &json!(1)));
            of_all.extend(times(&semel, id).await);
        }
        of_all.sort();
        spans.insert(name, of_all);
        assert!(name != "three" || ids[..3].iter().all(|id| semel.started(id) == [TOGETHER]), "no batch");
    }
    let three = &spans["three"];
    let at_once = |at| three.iter().filter(|(from, to)| *from <= at && at < *to).count();
    assert_eq!(three.iter().map(|(from, _)| at_once(*from)).max(), Some(3), "as many as may, and no more");
    // The first may come at once with the one that the pause before it allows; the others every 250 ms, as in `flow.rs`.
    let often = &spans["often"];
    let span = often[EIGHT - 1].0.since(often[0].0);
    assert!(span.as_millis() >= 1400, "eight starts in {span:?}");
}

/// Two hosts have each a batch that wants the same rows, in opposite orders. The test holds two rows in the middle until both
/// stand before one of them: then each has what the other wants.
async fn two_batches_that_want_the_same_rows_in_opposite_orders_count_each_once(on: On) {
    let mut one = Semel::start_on(on, &[]).await;
    one.deploy(built("counter").with(r#"timeout = "2s""#, "timeout = \"30s\"\nlease = \"40s\"")).await;
    let mut two = one.beside().await;
    let stand_still = |host: &mut Semel| host.signal(rustix::process::Signal::STOP);
    let go_on = |host: &mut Semel| host.signal(rustix::process::Signal::CONT);
    // Each host runs one alone, while the other cannot.
    stand_still(&mut two);
    warm_up(&one, "counter", "0").await;
    go_on(&mut two);
    stand_still(&mut one);
    warm_up(&two, "counter", "1").await;
    go_on(&mut one);
    for n in 2..EIGHT {
        warm_up(&one, "counter", &n.to_string()).await;
    }
    steer(&one, "counter", "pause").await;
    let paused = async || (two.get("/v1/functions/counter").await.ok()["paused"] == true).then_some(());
    until("the pause", paused).await;

    let url = as_superuser(on, one.database());
    let table = of_app(one.database(), "counters");
    let hold = format!("SELECT id FROM {table} WHERE id IN ('3', '4') FOR UPDATE");
    let holder = Holder::of(&url, &hold).await;
    let (blocked, deadlocks) = match on {
        On::Postgres => (
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                .into(),
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
        ),
        _ => (
            format!(
                // Not innodb_trx, of which the server shows what was so a while ago to whoever looks often.
                "SELECT COUNT(*) FROM information_schema.processlist
                 WHERE db LIKE '{}\\_%' AND state = 'Updating' AND time_ms > 200",
                name_of(one.database())
            ),
            "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status
             WHERE variable_name = 'INNODB_DEADLOCKS'",
        ),
    };
    let before: i64 = in_server(&url, deadlocks).await;
    let stand_before_a_row = async |batches: i64| {
        until("batches to stand before a row", async || {
            let count: i64 = in_server(&url, &blocked).await;
            (count == batches).then_some(())
        })
        .await;
    };
    // Each host takes its half while the other stands still: one that is at work claims the next batch as well.
    let mut ids = Vec::new();
    stand_still(&mut two);
    for n in 0..EIGHT {
        ids.push(one.send("counter", &n.to_string()).await);
    }
    steer(&one, "counter", "resume").await;
    stand_before_a_row(1).await;
    stand_still(&mut one);
    go_on(&mut two);
    steer(&two, "counter", "pause").await;
    for n in (0..EIGHT).rev() {
        ids.push(two.send("counter", &n.to_string()).await);
    }
    steer(&two, "counter", "resume").await;
    stand_before_a_row(2).await;
    go_on(&mut one);
    holder.end().await;

    for (id, message) in ids.iter().zip(all_settled(&one, &ids).await) {
        unharmed(&message, &one.outcomes(id).await, &one.started(id));
    }
    let expected: Vec<Value> = (0..EIGHT).map(|n| json!([n.to_string(), 3])).collect();
    assert_eq!(one.sql("SELECT id, n FROM counters ORDER BY id").await, json!(expected));
    until("the deadlock", async || {
        let count: i64 = in_server(&url, deadlocks).await;
        (count > before).then_some(())
    })
    .await;
    let of_one = async |half: &[String]| one.trace(&half[0]).await["attempts"][0]["host"].clone();
    assert_ne!(of_one(&ids[..EIGHT]).await, of_one(&ids[EIGHT..]).await, "it took two hosts");
}
