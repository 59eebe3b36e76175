//! WASI for components of other languages: pinned where it tells something, logged where it writes, refused where it
//! would reach out. The components are a few lines of WebAssembly text each, and print what they find.

use std::time::Duration;

use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::harness::{Function, Semel, made};
use crate::hostile::semel;

const INTERFACES: &str = include_str!("wasi.wit");

/// At 4096 the host's answers go; at 512 a line is put together.
const IMPORTS: &str = r#"
    (import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
    (import "wasi:random/random@0.2.0" "get-random-bytes" (func $random_bytes (param i64 i32)))
    (import "wasi:random/insecure@0.2.0" "get-insecure-random-u64" (func $insecure (result i64)))
    (import "wasi:random/insecure-seed@0.2.0" "insecure-seed" (func $seed (param i32)))
    (import "wasi:clocks/wall-clock@0.2.6" "now" (func $wall (param i32)))
    (import "wasi:clocks/monotonic-clock@0.2.6" "now" (func $now (result i64)))
    (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $after (param i64) (result i32)))
    (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/poll@0.2.6" "poll" (func $poll (param i32 i32 i32)))
    (import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush"
        (func $write (param i32 i32 i32 i32)))
    (import "wasi:io/streams@0.2.6" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
    (import "wasi:cli/stdin@0.2.6" "get-stdin" (func $stdin (result i32)))
    (import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
    (import "wasi:cli/stderr@0.2.6" "get-stderr" (func $stderr (result i32)))
    (import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))
    (import "wasi:cli/environment@0.2.6" "get-environment" (func $environment (param i32)))
    (import "wasi:cli/terminal-stdout@0.2.6" "get-terminal-stdout" (func $terminal (param i32)))
    (import "wasi:filesystem/types@0.2.6" "[resource-drop]descriptor" (func $drop_descriptor (param i32)))
    (import "wasi:filesystem/preopens@0.2.6" "get-directories" (func $directories (param i32)))
    (import "wasi:sockets/instance-network@0.2.6" "instance-network" (func $network (result i32)))
    (import "wasi:sockets/tcp@0.2.6" "[method]tcp-socket.subscribe" (func $socket_ready (param i32) (result i32)))
    (import "wasi:sockets/tcp-create-socket@0.2.6" "create-tcp-socket" (func $socket (param i32 i32)))
    (import "wasi:sockets/ip-name-lookup@0.2.6" "resolve-addresses" (func $resolve (param i32 i32 i32 i32)))
    (memory (export "memory") 4)
    (data (i32.const 480) "0123456789abcdef")
    (data (i32.const 1024) "half a line")
    (global $at (mut i32) (i32.const 512))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
    (func $put (param i32)
        (i32.store8 (global.get $at) (local.get 0)) (global.set $at (i32.add (global.get $at) (i32.const 1))))
    (func $show (param i64) (local i32)
        (loop $next
            (call $put (i32.load8_u offset=480 (i32.wrap_i64 (i64.shr_u (local.get 0) (i64.const 60)))))
            (local.set 0 (i64.shl (local.get 0) (i64.const 4)))
            (local.set 1 (i32.add (local.get 1) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get 1) (i32.const 16))))
        (call $put (i32.const 32)))
    (func $show32 (param i32) (call $show (i64.extend_i32_u (local.get 0))))
    (func $line
        (call $put (i32.const 10))
        (call $write (call $stdout) (i32.const 512) (i32.sub (global.get $at) (i32.const 512)) (i32.const 4096))
        (global.set $at (i32.const 512)))
"#;

/// A function whose handler runs `body`, which leaves the address of its result on the stack; zeros are `ok(none)`. With
/// more imports, more fields of the core module, and more lines of the manifest.
pub(crate) fn function(name: &str, imports: &str, fields: &str, manifest: &str, body: &str) -> Function {
    let handler = r#"(func (export "semel:function/handler@0.1.0#handle")
        (param i32 i32  i32 i32  i32 i32 i32  i32 i32 i32  i32 i32  i64  i32 i32) (result i32)"#;
    let module = format!("(module {imports} {IMPORTS} {fields} {handler} {body}))");
    let mut module = wat::parse_str(&module).unwrap_or_else(|error| panic!("{error}: {module}"));
    let mut resolve = Resolve::default();
    resolve.push_str("semel.wit", &semel()).expect("the interfaces of Semel");
    let mut world = "package test:wasi; world wasi { include semel:function/message-handler@0.1.0;".to_owned();
    for package in INTERFACES.split("\n\n") {
        resolve.push_str("wasi.wit", package).unwrap_or_else(|error| panic!("{error}: {package}"));
        let (_, package) = package.split_once("package ").expect("a name");
        let (name, version) = package.split_once('@').expect("a version");
        let (version, _) = version.split_once(';').expect("an end");
        for interface in package.lines().filter_map(|line| line.strip_prefix("interface ")) {
            let interface = interface.split(' ').next().expect("a name");
            world += &format!(" import {name}/{interface}@{version};");
        }
    }
    let package = resolve.push_str("world.wit", &(world + " }")).expect("a world");
    let world = resolve.select_world(&[package], None).expect("one world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
    let mut encoder = ComponentEncoder::default().validate(true).module(&module).expect("a module of this world");
    let manifest = format!(
        "name = \"{name}\"\n[limits]\ntimeout = \"500ms\"\n[retry]\nmax_attempts = 2\n\
         backoff = {{ initial = \"10ms\" }}\n{manifest}"
    );
    made(name, &manifest, encoder.encode().expect("a component"))
}

/// The lines that an attempt logged, with their levels.
pub(crate) fn lines(attempt: &Value) -> Vec<(String, String)> {
    let text = |line: &Value, key: &str| line[key].as_str().expect("a text").to_owned();
    let lines = attempt["logs"].as_array().expect("lines").iter();
    lines.map(|line| (text(line, "level"), text(line, "message"))).collect()
}

pub(crate) fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().map(|word| u64::from_str_radix(word, 16).expect(word)).collect()
}

/// Each attempt at a message sees the same; another message sees something else.
#[tokio::test]
async fn clocks_and_randomness_are_equal_on_every_attempt() {
    let semel = Semel::start(&[]).await;
    let body = "
        (call $show (call $random)) (call $show (call $random)) (call $show (call $insecure))
        (call $seed (i32.const 4096)) (call $show (i64.load (i32.const 4096))) (call $show (i64.load (i32.const 4104)))
        (call $wall (i32.const 4096)) (call $show (i64.load (i32.const 4096))) (call $show32 (i32.load (i32.const 4104)))
        (call $show (call $now)) (call $show (call $now))
        (call $block (call $after (i64.const 20000000))) (call $show (call $now))
        (call $line)
        (call $write (call $stderr) (i32.const 1024) (i32.const 4) (i32.const 4096))
        (call $write (call $stderr) (i32.const 1028) (i32.const 7) (i32.const 4096))
        unreachable";
    semel.deploy(function("pinned", "", "", "", body)).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let id = semel.send("pinned", "").await;
        let message = semel.until_settled(&id).await;
        let trace = semel.trace(&id).await;
        let attempts: Vec<_> = trace["attempts"].as_array().expect("attempts").iter().map(lines).collect();
        assert_eq!(attempts.len(), 2, "{trace:#}");
        assert_eq!(attempts[0], attempts[1], "the second attempt saw something else");
        let [(level, line), (other, error)] = &attempts[0][..] else { panic!("{:?}", attempts[0]) };
        assert_eq!((level.as_str(), other.as_str(), error.as_str()), ("info", "warn", "half a line"));
        let found = numbers(line);
        let accepted: jiff::Timestamp = message["created_at"].as_str().expect("a time").parse().expect("a time");
        let wall = i128::from(found[5]) * 1_000_000_000 + i128::from(found[6]);
        assert_eq!(wall, accepted.as_nanosecond(), "the time when the message was accepted");
        assert!(found[7] < found[8] && found[9] >= found[8] + 20_000_000, "the clock moves: {found:?}");
        seen.push(found[..5].to_vec());
    }
    assert_ne!(seen[0][0], seen[0][1], "a stream goes on");
    for (one, other) in seen[0].iter().zip(&seen[1]) {
        assert_ne!(one, other, "two messages see the same");
    }
}

/// `[grants] clock = "real"`: the label says that attempts may differ, and they do.
#[tokio::test]
async fn real_clocks_are_granted_and_labelled() {
    let semel = Semel::start(&[]).await;
    let body = "
        (call $wall (i32.const 4096)) (call $show (i64.load (i32.const 4096))) (call $show32 (i32.load (i32.const 4104)))
        (call $show (call $now)) (call $block (call $after (i64.const 20000000))) (call $show (call $now))
        (call $line) unreachable";
    let deployed = semel.deploy(function("real", "", "", "[grants]\nclock = \"real\"", body)).await;
    assert_eq!(deployed["label"], "varying", "{deployed:#}");
    let imports = deployed["imports"].as_array().expect("imports").iter();
    let varying: Vec<_> = imports.filter(|import| import["class"] == "varying").map(|import| &import["name"]).collect();
    assert!(varying.contains(&&json!("wasi:clocks/wall-clock@0.2.6")), "{varying:?}");
    let id = semel.send("real", "").await;
    let message = semel.until_settled(&id).await;
    let trace = semel.trace(&id).await;
    let accepted: jiff::Timestamp = message["created_at"].as_str().expect("a time").parse().expect("a time");
    let mut last = accepted.as_nanosecond();
    for attempt in trace["attempts"].as_array().expect("attempts") {
        let found = numbers(&lines(attempt)[0].1);
        let wall = i128::from(found[0]) * 1_000_000_000 + i128::from(found[1]);
        assert!(wall > last, "it moves on from attempt to attempt: {wall} after {last}");
        assert!(found[3] >= found[2] + 20_000_000, "the clock moves: {found:?}");
        last = wall;
    }
}

/// A component that imports files and sockets, and asks: there is nothing, and every call says no.
#[tokio::test]
async fn there_are_no_files_no_sockets_no_environment_and_no_input() {
    let semel = Semel::start(&[]).await;
    let body = "
        (call $environment (i32.const 4096)) (call $show32 (i32.load (i32.const 4100)))
        (call $terminal (i32.const 4096)) (call $show32 (i32.load8_u (i32.const 4096)))
        (call $read (call $stdin) (i64.const 10) (i32.const 4096))
        (call $show32 (i32.load8_u (i32.const 4096))) (call $show32 (i32.load8_u (i32.const 4100)))
        (call $directories (i32.const 4096)) (call $show32 (i32.load (i32.const 4100)))
        (call $socket (i32.const 0) (i32.const 4096))
        (call $show32 (i32.load8_u (i32.const 4096))) (call $show32 (i32.load8_u (i32.const 4100)))
        (call $resolve (call $network) (i32.const 1024) (i32.const 4) (i32.const 4096))
        (call $show32 (i32.load8_u (i32.const 4096))) (call $show32 (i32.load8_u (i32.const 4100)))
        (call $line) (i32.const 0)";
    let deployed = semel.deploy(function("nothing", "", "", "", body)).await;
    assert_eq!(deployed["label"], "pinned", "{deployed:#}");
    let done = semel.call("nothing", "").await;
    assert_eq!(done.status, 200, "{}", done.text());
    let attempt = semel.trace(&done.id()).await["attempts"][0].take();
    let found = numbers(&lines(&attempt)[0].1);
    let (empty, none, closed, denied) = (0, 0, [1, 1], [1, 1]);
    assert_eq!(found[..2], [empty, none]);
    assert_eq!(found[2..4], closed, "standard input");
    assert_eq!(found[4], empty, "directories");
    assert_eq!((&found[5..7], &found[7..]), (&denied[..], &denied[..]), "access-denied");
}

/// Waiting is bounded like everything else, and nothing that a component does with WASI outlives its run.
#[tokio::test]
async fn wasi_ends_with_its_run() {
    let semel = Semel::start(&[]).await;
    let hour = "3600000000000";
    for (name, body, outcome, reason) in [
        ("blocks", format!("(call $block (call $after (i64.const {hour}))) (i32.const 0)"), "timed-out", ""),
        ("never", "(call $block (call $after (i64.const -1))) (i32.const 0)".into(), "timed-out", ""),
        (
            "polls",
            format!(
                "(i32.store (i32.const 2048) (call $after (i64.const {hour})))
                 (call $poll (i32.const 2048) (i32.const 1) (i32.const 4096)) (i32.const 0)"
            ),
            "timed-out",
            "",
        ),
        ("exits", "(call $exit (i32.const 0)) (i32.const 0)".into(), "trapped", "exit"),
        ("empty-poll", "(call $poll (i32.const 0) (i32.const 0) (i32.const 4096)) (i32.const 0)".into(), "trapped", ""),
        ("random", "(call $random_bytes (i64.const 65537) (i32.const 4096)) (i32.const 0)".into(), "trapped", "65536"),
        ("timers", "(loop (drop (call $after (i64.const 1))) (br 0)) (i32.const 0)".into(), "trapped", "no free keys"),
        ("streams", "(loop (drop (call $stdout)) (br 0)) (i32.const 0)".into(), "trapped", "no free keys"),
        ("lines", "(loop (call $show (i64.const 1)) (call $line) (br 0)) (i32.const 0)".into(), "", ""),
    ] {
        semel.deploy(function(name, "", "", "", &body)).await;
        let began = std::time::Instant::now();
        let id = semel.send(name, "").await;
        semel.until_settled(&id).await;
        assert!(began.elapsed() < Duration::from_secs(20), "{name} hangs");
        let attempt = semel.trace(&id).await["attempts"][0].take();
        if outcome.is_empty() {
            // Each line takes another stream, so the run ends of that or of its time.
            assert_ne!(attempt["outcome"], json!("completed"));
            assert!(attempt["logs"].as_array().expect("lines").len() >= 400, "{attempt:#}");
        } else {
            assert_eq!(attempt["outcome"], outcome, "{name}: {attempt:#}");
            assert!(attempt["error"].to_string().contains(reason), "{name}: {attempt:#}");
        }
    }
}
