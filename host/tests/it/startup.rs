//! How a host starts, and hosts that refuse to: each says what is wrong, where, and what to do, with exit code 1.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use crate::harness::{self, Done, Semel, built, root};

const ANYWHERE: [&str; 2] = ["--listen", "127.0.0.1:0"];

async fn serve(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Done {
    harness::run(folder, &[&["serve"], arguments].concat(), variables, "").await
}

/// That a host with these arguments does not start, and that the reason names all of `clues`.
async fn refuses(folder: &Path, arguments: &[&str], clues: &[&str]) {
    let done = serve(folder, arguments, &[]).await;
    for clue in clues {
        assert!(done.refusal().contains(clue), "{arguments:?}: `{clue}` is not in: {}", done.stderr);
    }
}

async fn refuses_database(folder: &Path, url: &str, clues: &[&str]) {
    refuses(folder, &[&["--database", url][..], &ANYWHERE].concat(), clues).await;
}

#[tokio::test]
async fn a_second_host_on_the_same_file_is_told_who_holds_it() {
    let mut semel = Semel::start(&["counter"]).await;
    refuses_database(semel.folder(), semel.database(), &["test.db", "held by another host", "process "]).await;
    assert_eq!(semel.call("counter", "visits").await.ok()["count"], 1, "the first one goes on");
    semel.kill().await;
    semel.restart().await;
    assert_eq!(semel.call("counter", "visits").await.ok()["count"], 2, "the file of a killed host is free");
}

#[tokio::test]
async fn a_database_that_cannot_be_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let url = |name: &str| format!("sqlite://{}", path(name).display());
    std::fs::write(path("text.db"), "This is a letter, and not a database.\n".repeat(100)).expect("a file");
    std::fs::create_dir(path("folder.db")).expect("a folder");
    refuses_database(folder.path(), &url("text.db"), &["text.db", "must be a SQLite database of Semel"]).await;
    refuses_database(folder.path(), &url("folder.db"), &["folder.db", "must be a SQLite database of Semel"]).await;
    refuses_database(folder.path(), &url("nowhere/test.db"), &["nowhere/test.db", "must exist"]).await;
    refuses_database(folder.path(), "sqlite:///proc/semel.db", &["/proc/semel.db", "must exist"]).await;
    refuses_database(folder.path(), "oracle://user:hunter2@host/db", &["oracle", "sqlite://PATH"]).await;
    refuses_database(folder.path(), "test.db", &["is no URL", "sqlite://PATH"]).await;
    let done = serve(folder.path(), &["--database", "oracle://user:hunter2@host/db"], &[]).await;
    assert!(!done.stderr.contains("hunter2"), "{done:?}");
    let text = std::fs::read_to_string(path("text.db")).expect("the file");
    assert!(text.starts_with("This is a letter"), "what is not ours is left as it is");
}

/// Somebody else's database is not Semel's to migrate, and neither is that of a later Semel.
#[tokio::test]
async fn a_newer_schema_is_refused() {
    let mut semel = Semel::start(&[]).await;
    semel.kill().await;
    let options = SqliteConnectOptions::new().filename(semel.folder().join("test.db"));
    let mut file = options.connect().await.expect("the database file");
    file.execute("PRAGMA user_version = 99").await.expect("a newer version");
    file.close().await.expect("an end");
    refuses_database(semel.folder(), semel.database(), &["version 99", "newer semel"]).await;
}

#[tokio::test]
async fn a_configuration_that_is_not_right_is_refused_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    for (text, clues) in [
        ("\nlistne = \"127.0.0.1:0\"", ["line 2", "listne"]),
        ("listen = \"here\"", ["line 1", "here"]),
        ("[limits]\nbody = \"large\"", ["line 2", "512KiB"]),
        ("[limits]\nbodies = \"1MiB\"", ["line 2", "bodies"]),
        ("listen = 7700", ["line 1", "listen"]),
        ("[sinks.mail]\nurl = \"amqp://\"", ["line 1", "sinks"]),
        ("token_file = \"missing\"", ["token", "missing"]),
        ("listen = ", ["line 1", "semel.toml"]),
    ] {
        std::fs::write(folder.path().join("semel.toml"), text).expect("a file");
        refuses(folder.path(), &[], &clues).await;
        refuses(folder.path(), &["--config", "semel.toml"], &clues).await;
    }
    refuses(folder.path(), &["--config", "elsewhere.toml"], &["elsewhere.toml"]).await;
    assert!(!folder.path().join("semel.db").exists(), "nothing is made before everything is checked");
}

#[tokio::test]
async fn a_host_that_others_can_reach_needs_a_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7700"] {
        refuses(folder.path(), &["--listen", address], &[address, "token_file", "127.0.0.1"]).await;
    }
    for token in ["", "short", "not visible\tat all, but long"] {
        std::fs::write(&file, token).expect("a file");
        let arguments = ["--listen", "0.0.0.0:0", "--token-file", "token"];
        let done = serve(folder.path(), &arguments, &[]).await;
        assert!(done.refusal().contains("at least 16 visible"), "{done:?}");
        assert!(token.is_empty() || !done.stderr.contains(token), "a token is nobody's to read: {done:?}");
    }
}

#[tokio::test]
async fn functions_that_are_deployed_at_the_start_must_be_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let function = folder.path().join("functions/bad");
    std::fs::create_dir_all(&function).expect("a folder");
    std::fs::write(function.join("function.toml"), "name = \"bad\"\ncolour = \"red\"\n").expect("a file");
    let arguments = [&["--functions", "functions", "--database", "sqlite://a.db"][..], &ANYWHERE].concat();
    refuses(folder.path(), &arguments, &["functions/bad", "line 2", "colour"]).await;
    std::fs::write(function.join("function.toml"), "name = \"bad\"\n").expect("a file");
    refuses(folder.path(), &arguments, &["functions/bad/bad.wasm"]).await;
    let missing = [&["--functions", "nowhere", "--database", "sqlite://a.db"][..], &ANYWHERE].concat();
    refuses(folder.path(), &missing, &["nowhere"]).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let semel = Semel::start(&[]).await;
    let address = semel.address();
    let arguments = ["--listen", &address, "--database", "sqlite://other.db"];
    refuses(semel.folder(), &arguments, &[&address, "cannot listen"]).await;
}

/// What `semel.example.toml` shows is what a host takes, all of it.
#[tokio::test]
async fn the_example_configuration_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let example = std::fs::read_to_string(root().join("semel.example.toml")).expect("the example");
    std::fs::write(folder.path().join("semel.toml"), example.replace("#! functions", "functions")).expect("a file");
    let arguments = ["--listen", "127.0.0.1:0", "--database", "sqlite://a.db"];
    // It is read to its end: the folder of functions, the last thing looked at, is missing here.
    refuses(folder.path(), &arguments, &["target/functions"]).await;
}

/// It accepts, and leaves the running to others.
#[tokio::test]
async fn a_host_without_workers_runs_nothing() {
    let mut semel = Semel::start(&["counter"]).await;
    semel.stop().await;
    let mut idle = semel.serve(&["--no-workers"]).await;
    let id = semel.send("counter", "visits").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((semel.state(&id).await.as_str(), semel.starts(&id)), ("available", vec![]));
    idle.kill().await.expect("a process");
    semel.restart().await;
    assert_eq!(semel.until_settled(&id).await["state"], "completed");
}

#[tokio::test]
async fn limits_of_the_configuration_are_kept() {
    let mut semel = Semel::start(&["counter"]).await;
    semel.stop().await;
    std::fs::write(semel.folder().join("semel.toml"), "[limits]\nbody = \"1KiB\"\nupload = \"2KiB\"\n")
        .expect("a file");
    let _host = semel.serve(&[]).await;
    assert_eq!(semel.post("/fn/counter", "x".repeat(1 << 10)).send().await.status, 202);
    assert!(semel.post("/fn/counter", "x".repeat((1 << 10) + 1)).send().await.problem(413).contains("1024"));
    semel.try_deploy(built("counter")).await.problem(413);
}

/// Flags before variables before the file before defaults; seen by which address is refused.
#[tokio::test]
async fn flags_come_before_variables_before_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("semel.toml"), "listen = \"192.0.2.1:1\"\n").expect("a file");
    let variable = [("SEMEL_LISTEN", "192.0.2.2:2")];
    assert!(serve(folder.path(), &[], &[]).await.refusal().contains("192.0.2.1:1"));
    assert!(serve(folder.path(), &[], &variable).await.refusal().contains("192.0.2.2:2"));
    assert!(serve(folder.path(), &["--listen", "192.0.2.3:3"], &variable).await.refusal().contains("192.0.2.3:3"));
}

/// A link to a file that is not there yet is a second name for one file, not a second file.
#[tokio::test]
async fn a_file_has_one_host_whatever_links_lead_to_it() {
    let semel = Semel::start(&[]).await;
    let path = semel.database().trim_start_matches("sqlite://").to_owned();
    let link = semel.folder().join("link.db");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    refuses_database(semel.folder(), &format!("sqlite://{}", link.display()), &["held by another host"]).await;
    let (real, dangling) = (semel.folder().join("real.db"), semel.folder().join("dangling.db"));
    std::os::unix::fs::symlink(&real, &dangling).expect("a link");
    let first = semel::store::open(&format!("sqlite://{}", dangling.display())).await.expect("a new store");
    refuses_database(semel.folder(), &format!("sqlite://{}", real.display()), &["held by another host"]).await;
    drop(first);
}
