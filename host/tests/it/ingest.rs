//! Many messages at once: requests that share a commit, and requests with a message on each line. Each is answered as if it
//! had come alone.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::durability::{sync_counter, syncs};
use crate::harness::{Answer, On, Semel, Start, built, on_every_store, until};

on_every_store!(
    each_line_is_answered_in_order_as_if_it_had_come_alone,
    a_key_in_a_batch_makes_one_message,
    a_backlog_counts_the_lines_before,
    lines_of_a_group_keep_their_order,
    a_batch_of_any_length_is_read_to_its_end,
    what_is_not_a_batch_is_refused_as_a_whole,
    lines_are_answered_while_more_are_on_their_way,
    a_batch_that_breaks_off_leaves_its_whole_lines,
    each_line_answered_with_202_survives_a_kill,
    sixty_four_senders_at_once_each_get_their_own_answer,
    what_comes_during_a_commit_shares_the_next,
    what_the_database_refuses_costs_nobody_else
);

const MOST: usize = 1 << 20;

fn lines(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

pub(crate) async fn send(semel: &Semel, function: &str, body: impl Into<reqwest::Body>) -> Vec<Value> {
    let request = semel.post(&format!("/fn/{function}:batch"), body).header("content-type", "application/x-ndjson");
    answers(&request.send().await)
}

fn answers(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let text = answer.text();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn statuses(answers: &[Value]) -> Vec<u64> {
    answers.iter().map(|answer| answer["status"].as_u64().expect("a status")).collect()
}

fn id(answer: &Value) -> &str {
    answer["id"].as_str().unwrap_or_else(|| panic!("no id in {answer}"))
}

async fn each_line_is_answered_in_order_as_if_it_had_come_alone(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let hour = "1h";
    let body = [
        json!({ "body": "a", "content_type": "text/plain", "key": "k", "group": "g", "delay": hour, "priority": -7,
                "headers": [["X-Own", "1"], ["x-own", "2"], ["Authorization", "secret"], ["semel-path-x", "forged"]] })
        .to_string(),
        json!({ "body_base64": "AP8=", "delay": hour, "headers": { "traceparent": "kept" } }).to_string() + "\r",
        json!({ "delay": hour }).to_string(),
        String::new(),
        "[\"a list\"]".into(),
        "{\"body\": 1}".into(),
        "{\"idempotency_key\": \"x\"}".into(),
        json!({ "body": "a", "body_base64": "YQ==" }).to_string(),
        json!({ "body_base64": "?" }).to_string(),
        json!({ "key": "two words" }).to_string(),
        json!({ "delay": "soon" }).to_string(),
        json!({ "group": "" }).to_string(),
        json!({ "headers": { "no name": "x" } }).to_string(),
        json!({ "headers": { "prefer": "wait=1" } }).to_string(),
        json!({ "content_type": "application/cloudevents+json", "body": "{}" }).to_string(),
        format!("{{\"body\": \"{}\"}}", "x".repeat(MOST)),
        json!({ "headers": (0..200).map(|n| (format!("h{n}"), "")).collect::<Vec<_>>() }).to_string(),
        json!({ "body": "last, and no end of the line", "delay": hour }).to_string(),
    ];
    let answers = send(&semel, "counter", body.join("\n")).await;
    let mut expected = vec![202, 202, 202];
    expected.extend([400; 12]);
    expected.extend([413, 431, 202]);
    assert_eq!(statuses(&answers), expected, "{answers:#?}");
    for (number, answer) in (1_u64..).zip(&answers) {
        if answer["status"] == 202 {
            assert_eq!(*answer, json!({ "status": 202, "id": id(answer), "duplicate": false }));
        } else {
            assert_eq!(answer["line"], number, "{answer}");
            assert!(
                answer["title"].is_string() && answer["detail"].as_str().is_some_and(|why| why.len() > 10),
                "{answer}"
            );
        }
    }
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_messages").await, 4);
    let first = semel.message(id(&answers[0])).await;
    assert_eq!((&first["group"], &first["priority"]), (&json!("g"), &json!(-7)));
    let of = |column: &str, n: usize| format!("SELECT {column} FROM semel_messages WHERE id = '{}'", id(&answers[n]));
    let headers: String = semel.in_store(&of("headers", 0)).await;
    assert_eq!(serde_json::from_str::<Value>(&headers).expect("JSON"), json!([["x-own", "1"], ["x-own", "2"]]));
    assert_eq!(semel.in_store::<Vec<u8>>(&of("body", 1)).await, [0, 255]);
    assert_eq!(semel.in_store::<Vec<u8>>(&of("body", 2)).await, [0_u8; 0]);
    // The same message, sent alone.
    let alone = semel.post("/fn/counter", "a").header("content-type", "text/plain").key("k").send().await;
    assert_eq!(alone.json(), json!({ "id": id(&answers[0]), "state": "available", "duplicate": true }));
}

async fn a_key_in_a_batch_makes_one_message(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let line = |key: &str, body: &str| json!({ "key": key, "body": body });
    let batch = lines(&[line("z", "visits"), line("a", "visits"), line("z", "visits"), line("z", "other")]);
    let first = send(&semel, "counter", batch.clone()).await;
    assert_eq!(statuses(&first), [202, 202, 202, 422]);
    assert_eq!((id(&first[2]), &first[2]["duplicate"]), (id(&first[0]), &json!(true)));
    assert!(first[3]["detail"].as_str().expect("a detail").contains("Idempotency-Key"), "{}", first[3]);
    let again = send(&semel, "counter", batch).await;
    assert_eq!(statuses(&again), [202, 202, 202, 422]);
    let same = |n: usize| (id(&again[n]) == id(&first[n])) && again[n]["duplicate"] == true;
    assert!((0..3).all(same), "{again:#?}");
    for answer in &first[..2] {
        assert_eq!(semel.until_settled(id(answer)).await["state"], "completed");
    }
    assert_eq!(semel.sql("SELECT n FROM counters").await, json!([[2]]));
}

async fn a_backlog_counts_the_lines_before(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(built("counter").with("[limits]", "[flow]\nbacklog = 3\n\n[limits]")).await;
    semel.post("/v1/functions/counter/pause", "").send().await.ok();
    semel.send("counter", "a").await;
    let line = |key: &str| json!({ "body": "a", "key": key });
    let batch = lines(&[line("1"), line("2"), line("3"), line("1"), line("3")]);
    let answers = send(&semel, "counter", batch.clone()).await;
    assert_eq!(statuses(&answers), [202, 202, 429, 202, 429]);
    assert_eq!(id(&answers[3]), id(&answers[0]));
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_keys").await, 2, "the refused one's key is free");
    semel.post("/v1/functions/counter/resume", "").send().await.ok();
    until("room", async || (semel.count("counter", "completed").await == 3).then_some(())).await;
    assert_eq!(statuses(&send(&semel, "counter", batch).await), [202; 5]);
    until("all", async || (semel.count("counter", "completed").await == 4).then_some(())).await;
    let metrics = semel.get("/metrics").await.text();
    assert!(metrics.contains("\nsemel_backlog_refusals_total 2\n"), "{metrics}");
}

async fn lines_of_a_group_keep_their_order(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(built("receipts").with("[limits]", "[flow]\ngroup = \"serial\"\n\n[limits]")).await;
    semel.post("/v1/functions/receipts/pause", "").send().await.ok();
    let batch: Vec<Value> = (0..60).map(|n| json!({ "body": n.to_string(), "group": format!("g{}", n % 3) })).collect();
    let answers = send(&semel, "receipts", lines(&batch)).await;
    assert_eq!(statuses(&answers), [202; 60]);
    assert_eq!(
        semel.in_store::<i64>("SELECT COUNT(*) FROM semel_queue WHERE NOT blocked").await,
        3,
        "one of each group"
    );
    semel.post("/v1/functions/receipts/resume", "").send().await.ok();
    let mut ended = [const { Vec::new() }; 3];
    for (n, answer) in answers.iter().enumerate() {
        ended[n % 3].push(semel.until_settled(id(answer)).await["completed_at"].as_str().expect("a time").to_owned());
    }
    assert!(ended.iter().all(|times| times.is_sorted()), "{ended:?}");
}

async fn a_batch_of_any_length_is_read_to_its_end(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let line = |n: usize| json!({ "body": n.to_string(), "delay": "1h" });
    let many: Vec<Value> = (0..2500).map(line).collect();
    let answers = send(&semel, "counter", lines(&many)).await;
    assert_eq!(statuses(&answers), [202; 2500]);
    for n in [0, 999, 1000, 2499] {
        let sql = format!("SELECT seq FROM semel_messages WHERE id = '{}'", id(&answers[n]));
        let before = format!("SELECT COUNT(*) FROM semel_messages WHERE seq < ({sql})");
        assert_eq!(semel.in_store::<i64>(&before).await, i64::try_from(n).expect("a number"), "{n}");
    }
    assert_eq!(send(&semel, "counter", "").await, [] as [Value; 0], "no line, no answer");
    let large = format!("{}\n", json!({ "body": "x".repeat(MOST / 2), "delay": "1h" })).repeat(8);
    assert_eq!(statuses(&send(&semel, "counter", large).await), [202; 8]);
}

async fn what_is_not_a_batch_is_refused_as_a_whole(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let post = |function: &str| semel.post(&format!("/fn/{function}:batch"), "{}\n");
    let ndjson = |function: &str| post(function).header("content-type", "application/x-ndjson");
    ndjson("nobody").send().await.problem(404);
    assert!(post("counter").send().await.problem(415).contains("application/x-ndjson"));
    post("counter").header("content-type", "application/json").send().await.problem(415);
    assert!(ndjson("counter").wait(5).send().await.problem(400).contains("Prefer: wait"));
    assert!(ndjson("counter").key("k").send().await.problem(400).contains("\"key\""));
    assert!(ndjson("counter").header("semel-group", "g").send().await.problem(400).contains("\"group\""));
    assert_eq!(
        semel.request(Method::GET, "/fn/counter:batch").send().await.problem(405),
        "this path has the methods POST"
    );
    semel.post("/fn/counter:batches", "{}").send().await.problem(404);
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_messages").await, 0);
}

/// A request whose body is sent and whose answer is read bit by bit.
struct Conversation {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
}

impl Conversation {
    async fn begin(semel: &Semel, function: &str) -> Self {
        let (from, mut to) = TcpStream::connect(semel.address()).await.expect("a connection").into_split();
        let head = format!(
            "POST /fn/{function}:batch HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-ndjson\r\n\
             transfer-encoding: chunked\r\n\r\n"
        );
        to.write_all(head.as_bytes()).await.expect("a host that reads");
        Self { from: BufReader::new(from), to }
    }

    async fn say(&mut self, text: &str) {
        let _ = self.to.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await; // It may be killed by now.
    }

    /// The next answer; nothing if there are no more. Chunks hold whole lines.
    async fn hear(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(Duration::from_secs(60), self.from.read_line(&mut line)).await;
            match read.expect("an answer in time") {
                Ok(read) if read > 0 && line.ends_with('\n') => {}
                _ => return None,
            }
            if line.starts_with('{') {
                return Some(serde_json::from_str(&line).expect("JSON"));
            }
        }
    }
}

async fn lines_are_answered_while_more_are_on_their_way(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let mut batch = Conversation::begin(&semel, "counter").await;
    for n in 0..3 {
        batch.say(&lines(&[json!({ "body": n.to_string() })])).await;
        let answer = batch.hear().await.expect("an answer");
        assert_eq!(semel.until_settled(id(&answer)).await["state"], "completed");
    }
    batch.say("{\"bo").await;
    batch.say("dy\": \"in parts\"}\n{}\n").await;
    assert_eq!(
        [batch.hear().await, batch.hear().await].map(|answer| answer.expect("an answer")["status"] == 202),
        [true; 2]
    );
    batch.to.write_all(b"0\r\n\r\n").await.expect("a host that reads");
    assert_eq!(batch.hear().await, None);
}

async fn a_batch_that_breaks_off_leaves_its_whole_lines(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let mut batch = Conversation::begin(&semel, "counter").await;
    batch.say("{\"body\": \"a\"}\n{\"body\": \"b\"}\n").await;
    let answers = [batch.hear().await, batch.hear().await].map(|answer| answer.expect("an answer"));
    batch.say("{\"body\": \"c\"}\n{}").await;
    drop(batch);
    let third = async || semel.in_store::<i64>("SELECT COUNT(*) FROM semel_messages").await;
    until("what was whole", async || (third().await == 3).then_some(())).await;
    for answer in &answers {
        assert_eq!(semel.until_settled(id(answer)).await["state"], "completed");
    }
    assert_eq!(semel.call("counter", "d").await.ok()["count"], 1, "the host goes on");
    assert_eq!(third().await, 4, "what broke off is no line, though it would be one");
}

async fn each_line_answered_with_202_survives_a_kill(on: On) {
    let mut semel = Semel::start_on(on, &["counter"]).await;
    let Conversation { from, to } = Conversation::begin(&semel, "counter").await;
    let (mut hears, mut says) = (from, to);
    let saying = tokio::spawn(async move {
        let some = lines(&[json!({ "body": "visits", "delay": "1h" })]).repeat(50);
        let chunk = format!("{:x}\r\n{some}\r\n", some.len());
        while says.write_all(chunk.as_bytes()).await.is_ok() {}
    });
    let mut sent = Vec::new();
    let mut line = String::new();
    while matches!(hears.read_line(&mut line).await, Ok(1..)) && line.ends_with('\n') {
        if line.starts_with('{') {
            sent.push(serde_json::from_str::<Value>(&line).expect("JSON"));
            if sent.len() == 500 {
                semel.kill().await; // What is on its way is read all the same.
            }
        }
        line.clear();
    }
    saying.await.expect("no panic");
    assert!(sent.len() >= 500 && statuses(&sent).iter().all(|status| *status == 202), "{}", sent.len());
    let ids: Vec<String> = sent.iter().map(|answer| format!("'{}'", id(answer))).collect();
    let found = format!("SELECT COUNT(*) FROM semel_messages WHERE id IN ({})", ids.join(", "));
    assert_eq!(usize::try_from(semel.in_store::<i64>(&found).await), Ok(ids.len()), "accepted and gone");
    semel.restart().await;
    for answer in [&sent[0], &sent[499]] {
        assert_eq!(semel.state(id(answer)).await, "available");
    }
}

/// Each with a body and a key of its own; one in eight uses a key again that stands for something else.
async fn sixty_four_senders_at_once_each_get_their_own_answer(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    semel.post("/fn/counter", "taken").key("taken").send().await.id();
    for round in 0..4 {
        let sent = join_all((0..64).map(|n| {
            let body = format!("{round}-{n}");
            let request = semel.post("/fn/counter", body.clone()).header("semel-delay", "1h");
            request.key(if n % 8 == 0 { "taken" } else { &body }).send()
        }));
        for (n, answer) in sent.await.into_iter().enumerate() {
            if n % 8 == 0 {
                answer.problem(422);
                continue;
            }
            assert_eq!((answer.status, &answer.json()["duplicate"]), (202, &json!(false)));
            let body = format!("SELECT body FROM semel_messages WHERE id = '{}'", answer.id());
            let body: Vec<u8> = semel.in_store(&body).await;
            assert_eq!(String::from_utf8_lossy(&body), format!("{round}-{n}"));
        }
    }
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_messages").await, 4 * 56 + 1);
}

/// The first commit is held up for at most five seconds, and at most every tenth of one another one is begun beside it: so
/// there are at most 52, however slow this machine is.
async fn what_comes_during_a_commit_shares_the_next(on: On) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (library, log) = (sync_counter(folder.path()), folder.path().join("syncs"));
    let variables = [("LD_PRELOAD", library.to_str().expect("a path")), ("SYNC_LOG", log.to_str().expect("a path"))];
    let semel = Semel::start_as(Start { on, variables: &variables, ..Start::default() }, &["counter"]).await;
    let send = || semel.post("/fn/counter", "later").header("semel-delay", "1h").send();
    assert_eq!(send().await.status, 202);
    let commits = async || match on {
        On::Sqlite => i64::try_from(syncs(&log)).expect("a number"),
        On::Postgres => semel.in_store("SELECT COUNT(DISTINCT xmin::text) FROM semel_messages").await,
        // It is read inside of each transaction.
        On::Mariadb => semel.in_store("SELECT COUNT(DISTINCT accepted_at) FROM semel_messages").await,
    };
    let before = commits().await;
    let (mut file, mut session, mut other) = (None, None, None);
    match on {
        On::Sqlite => file = Some(semel.hold_file().await),
        On::Postgres => {
            let mut connection = sqlx::PgConnection::connect(semel.database()).await.expect("a session");
            let hold = sqlx::raw_sql("BEGIN; LOCK TABLE semel.messages IN SHARE MODE");
            hold.execute(&mut connection).await.expect("a lock");
            session = Some(connection);
        }
        On::Mariadb => {
            let mut connection = sqlx::MySqlConnection::connect(semel.database()).await.expect("a session");
            sqlx::raw_sql("LOCK TABLES messages READ").execute(&mut connection).await.expect("a lock");
            other = Some(connection);
        }
    }
    let let_go = async {
        until("two hundred that wait", async || {
            let metrics = semel.get("/metrics").await.text();
            metrics.contains("\nsemel_accepting 200\n").then_some(())
        })
        .await;
        if let Some(file) = file {
            file.close().await.expect("an end");
        }
        if let Some(session) = session {
            session.close().await.expect("an end");
        }
        if let Some(session) = other {
            session.close().await.expect("an end");
        }
    };
    let (answers, ()) = tokio::join!(join_all((0..200).map(|_| send())), let_go);
    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
    let made = commits().await - before;
    eprintln!("{made} commits for 200 messages");
    assert!((1..=60).contains(&made), "{made} commits for 200 messages");
    assert!(semel.get("/metrics").await.text().contains("\nsemel_accepting 0\n"));
}

/// A message that breaks a rule which somebody else has made for the table.
async fn what_the_database_refuses_costs_nobody_else(on: On) {
    let mut semel = Semel::start_on(on, &["counter"]).await;
    semel.kill().await;
    let rule = "CREATE UNIQUE INDEX rule ON semel_messages (content_type) WHERE content_type = 'text/once'";
    match on {
        On::Sqlite => semel.in_file_change(rule).await,
        On::Postgres => {
            let mut session = sqlx::PgConnection::connect(semel.database()).await.expect("a session");
            let rule = rule.replace("semel_", "semel.");
            sqlx::raw_sql(AssertSqlSafe(rule)).execute(&mut session).await.expect("a rule");
        }
        // It has no index of some rows alone; a column that is NULL for the others does the same.
        On::Mariadb => {
            let mut session = sqlx::MySqlConnection::connect(semel.database()).await.expect("a session");
            let rule = "ALTER TABLE messages
                ADD rule VARCHAR(20) AS (IF(content_type = 'text/once', content_type, NULL)), ADD UNIQUE (rule)";
            sqlx::raw_sql(rule).execute(&mut session).await.expect("a rule");
        }
    }
    semel.restart().await;
    let line = |content_type: &str| json!({ "content_type": content_type, "delay": "1h" });
    let (good, once) = (line("text/plain"), line("text/once"));
    let answers = send(&semel, "counter", lines(&[good.clone(), once.clone(), good.clone(), once, good])).await;
    assert_eq!(statuses(&answers), [202, 202, 202, 503, 202], "{answers:#?}");
    assert!(!answers[3].to_string().contains("rule"), "{}", answers[3]);
    let sent = join_all((0..32).map(|n| {
        let content_type = if n == 9 { "text/once" } else { "text/plain" };
        semel.post("/fn/counter", "").header("content-type", content_type).header("semel-delay", "1h").send()
    }));
    for (n, answer) in sent.await.into_iter().enumerate() {
        assert_eq!(answer.status, if n == 9 { 503 } else { 202 }, "{n}: {}", answer.text());
    }
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_messages").await, 4 + 31);
}
