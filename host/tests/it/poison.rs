//! Bad messages among many good ones: each takes nothing with it but itself, also where all of them share commits.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::batches::{ALONE, TOGETHER, warm_up};
use crate::flow::steer;
use crate::harness::{Function, On, Semel, built, not_in_vain, on_every_store, until};

on_every_store!(
    one_poison_message_among_many_costs_no_neighbour_an_attempt,
    good_and_bad_ones_at_random_end_each_as_they_must
);

/// Requests on their way at the same time.
const SENDERS: usize = 32;
/// They are there before: of two that make the same row one has to try again, poison or not.
const COUNTERS: usize = 10;
/// Too long for the name of a counter.
const NAMELESS: usize = 101;

/// How many messages, from the environment, so that `make torture` can do more of it than a test has time for.
fn messages() -> usize {
    std::env::var("POISON").map_or(2000, |count| count.parse().expect("POISON is a number"))
}

/// Sends all of them, and returns their ids in the order of `orders`.
async fn send_all(semel: &Semel, orders: impl Iterator<Item = (&str, String)>) -> Vec<String> {
    let sent = orders.map(async |(function, order)| semel.send(function, &order).await);
    stream::iter(sent).buffered(SENDERS).collect().await
}

/// Returns when nothing waits or runs any more.
async fn until_settled(semel: &Semel, functions: &[&str]) {
    until("the end of all", async || {
        let counts = semel.get("/v1/counts").await.ok();
        let open =
            |function: &&str| ["available", "running"].iter().any(|state| counts["functions"][function][state] != 0);
        (!functions.iter().any(open)).then_some(())
    })
    .await;
}

/// One in the first batch of eight, where it is sure that it has neighbours, and one anywhere.
async fn one_poison_message_among_many_costs_no_neighbour_an_attempt(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(built("counter").with(r#"timeout = "2s""#, "timeout = \"30s\"\nlease = \"40s\"")).await;
    for n in 0..COUNTERS {
        warm_up(&semel, "counter", &n.to_string()).await;
    }
    let (count, anywhere) = (messages(), rand::random_range(8..messages()));
    eprintln!("poison at {anywhere} of {count}");
    let body = |n: usize| if n == 3 || n == anywhere { "x".repeat(NAMELESS) } else { (n % COUNTERS).to_string() };
    steer(&semel, "counter", "pause").await;
    // In this order, for as many as the first batch has.
    let mut ids = Vec::new();
    for n in 0..8 {
        ids.push(semel.send("counter", &body(n)).await);
    }
    ids.extend(send_all(&semel, (8..count).map(|n| ("counter", body(n)))).await);
    steer(&semel, "counter", "resume").await;
    until_settled(&semel, &["counter"]).await;

    for poison in [3, anywhere] {
        let message = semel.message(&ids[poison]).await;
        assert_eq!(
            (&message["state"], &message["last_error"]["kind"]),
            (&json!("dead"), &json!("refused")),
            "{message}"
        );
        assert_eq!(semel.outcomes(&ids[poison]).await, ["refused"]);
    }
    assert_eq!(semel.started(&ids[3]), [TOGETHER, ALONE], "it had no neighbours");
    let good = count - 2 + COUNTERS;
    let number = async |what: &str| {
        let sql = format!("SELECT COUNT(*) FROM {what}");
        usize::try_from(semel.in_store::<i64>(&sql).await).expect("a count")
    };
    let attempts = "semel_attempts WHERE function = 'counter'";
    assert_eq!(number(attempts).await, good + 2, "one attempt is on record of each");
    assert_eq!(number(&format!("{attempts} AND outcome = 'completed' AND attempt = 1")).await, good);
    assert_eq!(number("semel_history WHERE function = 'counter' AND attempt = 1 AND state = 'completed'").await, good);
    let integer = if on == On::Mariadb { "SIGNED" } else { "BIGINT" };
    assert_eq!(semel.sql(&format!("SELECT CAST(SUM(n) AS {integer}) FROM counters")).await, json!([[good]]));
    let witness = semel.witness();
    let again = ids.iter().filter(|id| not_in_vain(&witness[*id]) != [1]).count();
    assert_eq!(again, 0, "messages that began more often than together in vain, and then once");
}

/// What a message is told to do, and how it ends.
struct Order {
    function: &'static str,
    body: String,
    end: &'static str,
}

const KINDS: [(&str, &str); 8] = [
    ("error", "failed"),
    ("reject", "refused"),
    ("panic", "trapped"),
    ("write-then-trap", "trapped"),
    ("write-then-error", "failed"),
    ("swallow", "failed"),
    ("missing", "failed"),
    ("commit", "sql-forbidden"),
];
const FUNCTIONS: [&str; 4] = ["misbehave", "second", "thirsty", "counter"];

impl Order {
    fn any(random: &mut ChaCha8Rng, bad: f64) -> Self {
        let function = FUNCTIONS[random.random_range(0..FUNCTIONS.len())];
        let is_bad = random.random_bool(bad);
        let (kind, outcome) = KINDS[random.random_range(0..KINDS.len())];
        let (body, end) = match (function, is_bad) {
            ("counter", true) => ("x".repeat(NAMELESS), "refused"),
            ("counter", false) => (random.random_range(0..4).to_string(), "completed"),
            ("thirsty", true) => (r#"{"do": "loop"}"#.to_owned(), "out-of-fuel"),
            (_, true) => (json!({ "do": kind }).to_string(), outcome),
            (_, false) => (r#"{"do": "write"}"#.to_owned(), "completed"),
        };
        Self { function, body, end }
    }
}

/// With time enough for a slow machine.
fn patient(function: Function, timeout: &str) -> Function {
    function.with(&format!("timeout = \"{timeout}\""), "timeout = \"30s\"\nlease = \"40s\"")
}

/// Several functions, on a server on two hosts, with some messages in a hundred that end badly in one way or another.
async fn good_and_bad_ones_at_random_end_each_as_they_must(on: On) {
    let seed =
        std::env::var("POISON_SEED").map_or(rand::random(), |seed| seed.parse().expect("POISON_SEED is a number"));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let bad = random.random_range(0.02..0.2);
    eprintln!("POISON_SEED={seed}: {:.0} % are bad", bad * 100.0);
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(patient(built("counter"), "2s")).await;
    for name in &FUNCTIONS[..3] {
        let function = patient(built("misbehave"), "1s").with("name = \"misbehave\"", &format!("name = \"{name}\""));
        let function = if *name == "misbehave" { function } else { function.named(name) };
        let limits = if *name == "thirsty" { "[limits]\nfuel = 4_000_000" } else { "[limits]" };
        semel.deploy(function.with("[limits]", limits)).await;
    }
    let beside = if on.is_shared() { Some(semel.beside().await) } else { None };
    for n in 0..4 {
        warm_up(&semel, "counter", &n.to_string()).await;
    }
    let orders: Vec<Order> = (0..messages() / 5).map(|_| Order::any(&mut random, bad)).collect();
    for function in FUNCTIONS {
        steer(&semel, function, "pause").await;
    }
    let (paused, late) = orders.split_at(orders.len() / 2);
    let mut ids = send_all(&semel, paused.iter().map(|order| (order.function, order.body.clone()))).await;
    for function in FUNCTIONS {
        steer(&semel, function, "resume").await;
    }
    // The others come while those run, to the other host if there is one.
    let door = beside.as_ref().unwrap_or(&semel);
    ids.extend(send_all(door, late.iter().map(|order| (order.function, order.body.clone()))).await);
    until_settled(&semel, &FUNCTIONS).await;

    let witness = semel.witness();
    let (mut written, mut counted, mut hosts) = (BTreeSet::new(), 4, BTreeSet::new());
    for (id, order) in ids.iter().zip(&orders) {
        let trace = semel.trace(id).await;
        let attempts = trace["attempts"].as_array().expect("attempts");
        let ends: Vec<&str> = attempts.iter().filter_map(|attempt| attempt["outcome"].as_str()).collect();
        hosts.extend(attempts.iter().filter_map(|attempt| attempt["host"].as_str().map(str::to_owned)));
        let (state, body) = (semel.state(id).await, &order.body);
        match (order.end, order.function) {
            ("completed", "counter") => {
                // It may have lost to a batch of another host, and paid for that.
                assert_eq!((state.as_str(), ends.last()), ("completed", Some(&"completed")), "{trace}");
                counted += 1;
            }
            ("completed", _) => {
                assert_eq!((state.as_str(), &ends[..]), ("completed", &["completed"][..]), "{body}: {trace}");
                written.insert(id.clone());
            }
            (end, _) => {
                let times = if end == "refused" { 1 } else { 2 };
                assert_eq!((state.as_str(), ends), ("dead", vec![end; times]), "{body}: {trace}");
            }
        }
        assert_eq!(not_in_vain(&witness[id]).len(), attempts.len(), "{body}: {:?}", witness[id]);
    }
    assert!(ids.iter().any(|id| witness[id].contains(&TOGETHER)), "nobody shared a commit");
    assert_eq!(hosts.len(), if on.is_shared() { 2 } else { 1 }, "hosts that had work");
    let rows = semel.sql("SELECT message_id FROM misbehaviour").await;
    let rows: Vec<&str> = rows.as_array().expect("rows").iter().filter_map(|row: &Value| row[0].as_str()).collect();
    assert_eq!(rows.len(), written.len(), "each once");
    assert!(rows.iter().all(|id| written.contains(*id)), "and only those that ended well");
    let counters = semel.sql("SELECT n FROM counters").await;
    let sum: i64 = counters.as_array().expect("rows").iter().filter_map(|row| row[0].as_i64()).sum();
    assert_eq!(sum, counted);
}
