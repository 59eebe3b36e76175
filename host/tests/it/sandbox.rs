//! What a component asks of the host without end: each ends only its own run, with its own outcome, and the next
//! message runs.

use serde_json::json;

use crate::compiling::configured;
use crate::harness::{Function, Semel, built, made};
use crate::hostile::{component, with_declarations};

/// One attempt of half a second.
fn once(name: &str, component: Vec<u8>) -> Function {
    let manifest = format!(
        "name = \"{name}\"\n[limits]\nmemory = \"128MiB\"\ntimeout = \"500ms\"\nstatements = 5000\n[retry]\nmax_attempts = 1\n\
         [grants]\ntopics = [\"receipts\"]"
    );
    made(name, &manifest, component)
}

/// The most memory that the host has had, in KiB.
fn peak(semel: &Semel) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", semel.process())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Name, text, further declarations, body, outcome, and what its reason has to say.
const CASES: [(&str, &str, &str, &str, &str, &str); 21] = [
    ("recursion", "", "(func $deep (call $deep))", "(call $deep) (i32.const 0)", "trapped", "stack"),
    ("start", "", "(func $first unreachable) (start $first)", "(i32.const 0)", "trapped", "unreachable"),
    ("handles", "", "", "(loop (drop (call $thing (i32.const 7))) (br 0)) (i32.const 0)", "trapped", "handle"),
    (
        "one-GiB",
        "",
        "",
        "(call $log (i32.const 2) (i32.const 0) (i32.const 0x40000000) (i32.const 0) (i32.const 0)) (i32.const 0)",
        "trapped",
        "out of bounds",
    ),
    (
        "long-line",
        "",
        "",
        "(drop (memory.grow (i32.const 512)))
         (call $log (i32.const 2) (i32.const 0) (i32.const 0x1000000) (i32.const 0) (i32.const 0)) (i32.const 0)",
        "trapped",
        "more than 4 MiB",
    ),
    (
        "many-fields",
        "",
        "",
        "(drop (memory.grow (i32.const 512)))
         (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0x100000) (i32.const 0x100000)) (i32.const 0)",
        "trapped",
        "more than 4 MiB",
    ),
    (
        "answer",
        "",
        "",
        "(drop (memory.grow (i32.const 1600)))
         (i32.store8 (i32.const 8) (i32.const 1)) (i32.store (i32.const 36) (i32.const 100000000)) (i32.const 0)",
        "trapped",
        "more than 4 MiB",
    ),
    (
        "large-answer",
        "",
        "",
        "(drop (memory.grow (i32.const 64)))
         (i32.store8 (i32.const 8) (i32.const 1)) (i32.store (i32.const 36) (i32.const 3000000)) (i32.const 0)",
        "failed",
        "the answer has 3000000 bytes",
    ),
    (
        "reason",
        "",
        "",
        "(drop (memory.grow (i32.const 64)))
         (memory.fill (i32.const 300000) (i32.const 120) (i32.const 3000000))
         (i32.store8 (i32.const 0) (i32.const 1)) (i32.store8 (i32.const 8) (i32.const 1))
         (i32.store (i32.const 16) (i32.const 300000)) (i32.store (i32.const 20) (i32.const 3000000)) (i32.const 0)",
        "refused",
        "xxx",
    ),
    (
        "memory",
        "",
        "",
        "(loop (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable)) (br 0)) (i32.const 0)",
        "out-of-memory",
        "of the manifest",
    ),
    (
        "tables",
        "",
        "(table $t 1 funcref)",
        "(loop (if (i32.eq (table.grow $t (ref.null func) (i32.const 999)) (i32.const -1)) (then unreachable)) (br 0))
         (i32.const 0)",
        "out-of-memory",
        "table",
    ),
    (
        "label",
        "",
        "",
        "(call $key (i32.const 1024) (i32.const 2000) (i32.const 4096)) (i32.const 0)",
        "trapped",
        "idempotency key has 2000 bytes",
    ),
    (
        "logs",
        "",
        "",
        "(loop (call $log (i32.const 2) (i32.const 1024) (i32.const 9) (i32.const 0) (i32.const 0)) (br 0)) (i32.const 0)",
        "timed-out",
        "",
    ),
    (
        "publishes",
        "receipts",
        "",
        "(loop (call $publish (i32.const 1024) (i32.const 8)  (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0)  (i32.const 0) (i32.const 0)  (i32.const 0) (i32.const 9)
            (i32.const 0) (i64.const 0)  (i32.const 4096)) (br 0)) (i32.const 0)",
        "timed-out",
        "",
    ),
    (
        "savepoints",
        "again",
        "",
        "(loop (call $savepoint (i32.const 1024) (i32.const 5) (i32.const 4096)) (br 0)) (i32.const 0)",
        "timed-out",
        "",
    ),
    (
        "cursors",
        "SELECT 1",
        "(global $n (mut i32) (i32.const 17))",
        "(loop (call $open (i32.const 1024) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const 4096))
            (global.set $n (i32.sub (global.get $n) (i32.const 1))) (br_if 0 (global.get $n))) (i32.const 0)",
        "failed",
        "too many open cursors",
    ),
    (
        "endless-cursors",
        "SELECT 1",
        "",
        "(loop (call $open (i32.const 1024) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const 4096)) (br 0))
         (i32.const 0)",
        "timed-out",
        "",
    ),
    // From here on the component looks at the error that it is given, and refuses its message if it is the right one.
    (
        "parameters",
        "SELECT 1",
        "",
        "(drop (memory.grow (i32.const 64)))
         (call $execute (i32.const 1024) (i32.const 8) (i32.const 0x50000) (i32.const 10001) (i32.const 4096))
         (if (i32.ne (i32.load8_u (i32.const 4104)) (i32.const 3)) (then unreachable))
         (i32.store8 (i32.const 0) (i32.const 1)) (i32.store8 (i32.const 8) (i32.const 1)) (i32.const 0)",
        "refused",
        "",
    ),
    (
        "published-bytes",
        "receipts",
        "(global $n (mut i32) (i32.const 17))",
        "(drop (memory.grow (i32.const 64)))
         (loop
            (if (i32.eq (i32.load8_u (i32.const 4096)) (i32.const 1)) (then unreachable))
            (call $publish (i32.const 1024) (i32.const 8)  (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 0)  (i32.const 0) (i32.const 0)
                (i32.const 0x50000) (i32.const 0x100000)  (i32.const 0) (i64.const 0)  (i32.const 4096))
            (global.set $n (i32.sub (global.get $n) (i32.const 1))) (br_if 0 (global.get $n)))
         (if (i32.ne (i32.load8_u (i32.const 4104)) (i32.const 2)) (then unreachable))
         (i32.store8 (i32.const 0) (i32.const 1)) (i32.store8 (i32.const 8) (i32.const 1)) (i32.const 0)",
        "refused",
        "",
    ),
    (
        "written-bytes",
        "key",
        "(global $n (mut i32) (i32.const 17))",
        "(drop (memory.grow (i32.const 64)))
         (loop
            (if (i32.eq (i32.load8_u (i32.const 4096)) (i32.const 1)) (then unreachable))
            (call $set (i32.const 1024) (i32.const 3) (i32.const 0x50000) (i32.const 0x100000) (i32.const 4096))
            (global.set $n (i32.sub (global.get $n) (i32.const 1))) (br_if 0 (global.get $n)))
         (if (i32.ne (i32.load8_u (i32.const 4104)) (i32.const 1)) (then unreachable))
         (i32.store8 (i32.const 0) (i32.const 1)) (i32.store8 (i32.const 8) (i32.const 1)) (i32.const 0)",
        "refused",
        "",
    ),
    (
        "long-key",
        "",
        "",
        "(memory.fill (i32.const 1024) (i32.const 120) (i32.const 600))
         (call $set (i32.const 1024) (i32.const 513) (i32.const 1024) (i32.const 1) (i32.const 4096))
         (if (i32.ne (i32.load8_u (i32.const 4096)) (i32.const 1)) (then unreachable))
         (if (i32.ne (i32.load8_u (i32.const 4104)) (i32.const 0)) (then unreachable))
         (i32.store8 (i32.const 0) (i32.const 1)) (i32.store8 (i32.const 8) (i32.const 1)) (i32.const 0)",
        "refused",
        "",
    ),
];

#[tokio::test]
async fn what_has_no_end_ends_its_own_run_alone() {
    let semel = Semel::start(&["counter", "receipts"]).await;
    for (count, (name, text, declarations, body, outcome, clue)) in (1..).zip(CASES) {
        let name = name.to_lowercase();
        let function = once(&name, with_declarations(text, declarations, body));
        // It has to get as far as its limit, also on a machine that has other things to do.
        let function = if name == "publishes" { function.with("500ms", "3s") } else { function };
        semel.deploy(function).await;
        let id = semel.call(&name, "").await.id();
        let trace = semel.trace(&id).await;
        let attempt = &trace["attempts"][0];
        assert_eq!(attempt["outcome"], outcome, "{name}: {attempt:#}");
        let said = attempt["error"].to_string();
        assert!(said.contains(clue) && said.len() < 5 << 10, "{name}: {said}");
        match name.as_str() {
            "logs" => {
                assert_eq!(attempt["logs"].as_array().expect("lines").len(), 1000);
                assert!(attempt["logs_dropped"].as_u64().expect("a number") > 1000, "{attempt:#}");
            }
            "publishes" => assert_eq!(attempt["published"], 1000),
            "savepoints" => assert_eq!(attempt["statements"], 1000),
            _ => {}
        }
        assert_eq!(semel.call("counter", "visits").await.ok()["count"], count, "after {name}");
    }
    assert_eq!(semel.in_file::<i64>("SELECT COUNT(*) FROM semel_messages WHERE function = 'receipts'").await, 0);
    let peak = peak(&semel) >> 10;
    println!("the host took {peak} MiB at most");
    assert!(peak < 300, "the host took {peak} MiB");
}

/// A function whose instance grows by 40 MiB, or ends, and then does something.
fn growing(name: &str, limits: &str, then: &str) -> Function {
    let body =
        format!("(if (i32.eq (memory.grow (i32.const 640)) (i32.const -1)) (then unreachable)) {then} (i32.const 0)");
    let manifest =
        format!("name = \"{name}\"\n[retry]\nbackoff = {{ initial = \"100ms\", max = \"200ms\" }}\n{limits}");
    made(name, &manifest, component("", &body))
}

/// There is room for one run and its 40 MiB. What comes second may begin, is refused them, says so, and is tried again.
#[tokio::test]
async fn all_runs_together_hold_no_more_than_the_host_allows() {
    let mut semel = Semel::start(&[]).await;
    configured(&mut semel, "memory = \"100MiB\"").await;
    semel.deploy(growing("hog", "max_attempts = 1\n[limits]\ntimeout = \"2s\"", "(loop (br 0))")).await;
    semel.deploy(growing("modest", "max_attempts = 100", "")).await;
    let hog = semel.send("hog", "").await;
    semel.until_started(&hog, 1).await;
    let modest = semel.call("modest", "").await;
    assert_eq!(modest.status, 200, "{}", modest.text());
    let trace = semel.trace(&modest.id()).await;
    let attempts = trace["attempts"].as_array().expect("attempts");
    let (last, before) = attempts.split_last().expect("attempts");
    assert_eq!(last["outcome"], "completed");
    assert!(!before.is_empty(), "it was never refused: {trace:#}");
    for attempt in before {
        assert_eq!(attempt["outcome"], "out-of-memory", "{trace:#}");
        assert!(attempt["error"].to_string().contains("semel.toml"), "{trace:#}");
    }
    assert_eq!(semel.outcomes(&hog).await, ["timed-out"]);
    // Many at once: there is room for four to begin, the others wait; one of them can grow, the others try again.
    let runs = (0..20).map(|_| semel.call("modest", ""));
    for ended in futures_util::future::join_all(runs).await {
        assert_eq!(ended.status, 200, "{}", ended.text());
    }
}

/// A defect in a host function is that run's end. Half of the memory is held by it if anything leaks; the function runs
/// one at a time, so that a claim that leaks would keep it from running again.
#[tokio::test]
async fn a_panic_in_the_host_ends_one_run() {
    let mut semel = Semel::start_with(&[("SEMEL_PANIC", "panic now")], &["counter"]).await;
    semel.expect_panics();
    configured(&mut semel, "memory = \"80MiB\"").await;
    let sql = "INSERT INTO counters (id, n) VALUES ('defect', 1)";
    let body = format!(
        "(call $execute (i32.const 1033) (i32.const {}) (i32.const 0) (i32.const 0) (i32.const 4096))
         (call $log (i32.const 2) (i32.const 1024) (i32.const 9) (i32.const 0) (i32.const 0)) (i32.const 0)",
        sql.len()
    );
    let text = format!("panic now{sql}");
    let manifest =
        "name = \"defect\"\n[retry]\nmax_attempts = 2\nbackoff = { initial = \"10ms\" }\n[flow]\nconcurrency = 1";
    semel.deploy(made("defect", manifest, component(&text, &body))).await;
    for count in 1..=5 {
        let ended = semel.call("defect", "").await;
        assert!(ended.problem(502).starts_with("host-failed: "), "{}", ended.text());
        assert_eq!(semel.outcomes(&ended.id()).await, ["host-failed"; 2]);
        assert_eq!(semel.call("counter", "visits").await.ok()["count"], count);
    }
    assert_eq!(semel.sql("SELECT COUNT(*) FROM counters").await, json!([[1]]), "what a panic left behind");
    assert_eq!(semel.count("defect", "running").await, 0);
    assert_eq!(semel.log().matches("panicked").count(), 10, "{}", semel.log());
    semel.stop().await;
}

/// The host's bounds stand above what a manifest asks for.
#[tokio::test]
async fn a_manifest_cannot_ask_for_more_than_the_host_allows() {
    let semel = Semel::start(&["counter"]).await;
    for (asked, clue) in [
        ("statements = 4_000_000_000", "1000000"),
        ("rows = 4_000_000_000", "1000000"),
        ("memory = \"1GiB\"", "256MiB"),
    ] {
        let greedy = built("counter").with("timeout = \"2s\"", &format!("timeout = \"2s\"\n{asked}"));
        let reason = semel.try_deploy(greedy).await.problem(422);
        assert!(reason.contains(clue) && reason.contains("this host allows at most"), "{reason}");
    }
}
