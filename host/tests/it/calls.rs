//! What the interfaces of `wit/` promise a guest, asked by `sqlshell` from inside a component.

use serde_json::{Value, json};

use crate::harness::{On, Semel, on_every_store};

on_every_store!(
    a_failed_transaction_goes_on_only_after_rollback_to,
    a_deferred_statement_that_fails_cannot_be_hidden,
    deferred_statements_are_many_and_keep_their_order,
    a_batch_names_the_statement_that_failed_and_runs_none_after_it,
);

/// The results of a script that goes on after errors and ends with ok. Their commit is not asked about.
async fn results(semel: &Semel, steps: Value) -> Vec<Value> {
    let answer = semel.call("sqlshell", &json!({ "statements": steps, "swallow": true }).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["results"].as_array().expect("a list of results").clone()
}

/// How a script ends that is not completed.
async fn end(semel: &Semel, steps: Value) -> String {
    let answer = semel.call("sqlshell", &json!({ "statements": steps, "swallow": true }).to_string()).await;
    answer.problem(502)
}

async fn a_failed_transaction_goes_on_only_after_rollback_to(on: On) {
    let semel = Semel::start_on(on, &["sqlshell"]).await;
    let got = results(
        &semel,
        json!([
            { "sql": "INSERT INTO scratch VALUES (1, 'kept')" },
            { "savepoint": "s" },
            { "sql": "INSERT INTO scratch VALUES (2, 'undone')" },
            { "sql": "INSERT INTO scratch VALUES (1, 'again')" },
            { "sql": "SELECT 1" },
            { "savepoint": "t" },
            { "release": "s" },
            { "rollback_to": "nobody's" },
            { "rollback_to": "s" },
            { "sql": "SELECT value FROM scratch" },
            { "release": "s" },
            { "rollback_to": "s" },
        ]),
    )
    .await;
    let kinds: Vec<&str> = got.iter().map(|result| result["error"]["kind"].as_str().unwrap_or("ok")).collect();
    let expected =
        ["ok", "ok", "ok", "database", "failed", "failed", "failed", "no-savepoint", "ok", "ok", "ok", "no-savepoint"];
    assert_eq!(kinds, expected);
    assert_eq!(got[3]["error"]["sqlstate"], "23505");
    assert_eq!(got[9]["rows"], json!([["kept"]]));
    assert_eq!(semel.sql("SELECT value FROM scratch").await, json!([["kept"]]));
}

#[tokio::test]
async fn a_savepoint_hides_an_older_one_of_its_name() {
    let semel = Semel::start(&["sqlshell"]).await;
    let insert = |id: u32| json!({ "sql": format!("INSERT INTO scratch VALUES ({id}, NULL)") });
    let steps = json!([
        { "savepoint": "s; COMMIT" }, insert(1), { "savepoint": "s; COMMIT" }, insert(2),
        { "rollback_to": "s; COMMIT" }, insert(3), { "release": "s; COMMIT" }, { "rollback_to": "s; COMMIT" }, insert(4),
    ]);
    let got = results(&semel, steps).await;
    assert!(got.iter().all(|result| result["error"].is_null()), "{got:?}");
    assert_eq!(semel.sql("SELECT id FROM scratch").await, json!([[4]]));
}

async fn a_deferred_statement_that_fails_cannot_be_hidden(on: On) {
    let semel = Semel::start_on(on, &["sqlshell"]).await;
    let fine = json!([
        { "sql": "INSERT INTO scratch VALUES (1, 'a')", "deferred": true },
        { "sql": "SELECT value FROM scratch" },
    ]);
    assert_eq!(results(&semel, fine).await[1]["rows"], json!([["a"]]), "order is kept");
    let fails = json!([
        { "savepoint": "s" },
        { "sql": "INSERT INTO scratch VALUES (1, 'b')", "deferred": true },
        { "rollback_to": "s" },
    ]);
    let reason = end(&semel, fails).await;
    let word = if on == On::Mariadb { "duplicate" } else { "unique" };
    assert!(reason.starts_with("failed: "), "{reason}");
    assert!(reason.to_lowercase().contains(word), "{reason}");
    let seen_later = json!([
        { "sql": "INSERT INTO scratch VALUES (1, 'b')", "deferred": true },
        { "sql": "INSERT INTO scratch VALUES (2, 'c')", "deferred": true },
        { "batch": [{ "sql": "INSERT INTO scratch VALUES (3, 'd')" }] },
        { "sql": "SELECT value FROM scratch" },
    ]);
    let reason = end(&semel, seen_later).await;
    assert!(reason.starts_with("failed: ") && reason.to_lowercase().contains(word), "of the first: {reason}");
    assert_eq!(semel.sql("SELECT value FROM scratch").await, json!([["a"]]));
}

/// More than may be under way at once, one of them with more rows than a network holds.
async fn deferred_statements_are_many_and_keep_their_order(on: On) {
    let semel = Semel::start_on(on, &["sqlshell"]).await;
    let long =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 90000) SELECT i, 'a text' FROM n";
    let mut steps = vec![json!({ "sql": "INSERT INTO scratch VALUES (1, '')", "deferred": true })];
    for place in 0..150 {
        let sql = match place {
            75 if on.is_shared() => long.to_owned(),
            _ => format!("UPDATE scratch SET value = value || '{}' WHERE id = $1", place % 10),
        };
        let params = if sql == long { json!([]) } else { json!([1]) };
        steps.push(json!({ "sql": sql, "params": params, "deferred": true }));
    }
    steps.push(json!({ "sql": "SELECT value FROM scratch" }));
    let expected: String =
        (0..150).filter(|place| *place != 75 || on == On::Sqlite).map(|place| (place % 10).to_string()).collect();
    let got = results(&semel, json!(steps)).await;
    assert_eq!(got.last().expect("a result")["rows"], json!([[expected]]));
}

async fn a_batch_names_the_statement_that_failed_and_runs_none_after_it(on: On) {
    let semel = Semel::start_on(on, &["sqlshell"]).await;
    let statement = |sql: &str| json!({ "sql": sql });
    let whole = json!([{ "batch": [
        statement("INSERT INTO scratch VALUES (1, 'a'), (2, 'b')"),
        statement("UPDATE scratch SET value = upper(value)"),
        statement("SELECT * FROM scratch"),
    ] }]);
    assert_eq!(results(&semel, whole).await[0]["changed"], json!([2, 2, 0]));
    let broken = json!([
        { "savepoint": "s" },
        { "batch": [
            statement("DELETE FROM scratch"), statement("DELETE FROM nowhere"), statement("INSERT INTO scratch VALUES (9, 'z')"),
        ] },
        { "rollback_to": "s" },
    ]);
    let got = results(&semel, broken).await;
    assert!(got[1]["error"]["message"].as_str().is_some_and(|text| text.starts_with("statement 1 ")), "{got:?}");
    assert_eq!(semel.sql("SELECT value FROM scratch ORDER BY id").await, json!([["A"], ["B"]]));
}

#[tokio::test]
async fn a_cursor_returns_every_row_once_whatever_the_size_of_its_pages() {
    let semel = Semel::start(&["sqlshell"]).await;
    let count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25) SELECT i FROM n";
    let expected: Vec<Value> = (1..=25).map(|i| json!([i])).collect();
    for page in [1, 7, 25, 1000] {
        let got = results(&semel, json!([{ "sql": count, "cursor": page }])).await;
        assert_eq!(got[0]["rows"], json!(expected), "pages of {page}");
    }
    // Rows that a cursor has not fetched yet do not stand in the way of the commit.
    let got =
        results(&semel, json!([{ "sql": "INSERT INTO scratch (value) VALUES ('x') RETURNING id", "cursor": 1 }])).await;
    assert_eq!(got[0]["rows"], json!([[1]]));
}

#[tokio::test]
async fn state_is_committed_with_the_message_or_not_at_all() {
    let semel = Semel::start(&["sqlshell"]).await;
    let got = results(
        &semel,
        json!([
            { "state_set": ["a/1", "one"] }, { "state_set": ["a/2", "two"] }, { "state_set": ["b", "three"] },
            { "state_add": ["n", 5] }, { "state_add": ["n", -7] }, { "state_scan": ["a/", 10] },
            { "state_delete": "a/2" }, { "state_delete": "a/2" }, { "state_get": "a/2" }, { "state_add": ["b", 1] },
            { "state_set": ["", "no key"] },
        ]),
    )
    .await;
    assert_eq!(got[4]["value"], -2);
    assert_eq!(got[5]["entries"], json!([["a/1", "one"], ["a/2", "two"]]));
    assert_eq!((&got[6]["deleted"], &got[7]["deleted"], &got[8]["value"]), (&json!(true), &json!(false), &json!(null)));
    assert_eq!((&got[9]["error"]["kind"], &got[10]["error"]["kind"]), (&json!("not-a-counter"), &json!("invalid-key")));
    let lost = json!({ "statements": [{ "state_set": ["a/1", "lost"] }], "end": "reject" }).to_string();
    semel.call("sqlshell", &lost).await.problem(422);
    assert_eq!(
        results(&semel, json!([{ "state_get": "a/1" }, { "state_get": "n" }])).await,
        [json!({ "value": "one" }), json!({ "value": "-2" }),]
    );
}

#[tokio::test]
async fn what_is_pinned_is_equal_on_every_attempt_and_differs_between_messages() {
    let semel = Semel::start(&["sqlshell"]).await;
    let script = json!({ "statements": [{ "pinned": "mail" }], "end": "retry" }).to_string();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let failed = semel.call("sqlshell", &script).await;
        let trace = semel.trace(&failed.id()).await;
        let line = |attempt: usize| trace["attempts"][attempt]["logs"][0]["message"].clone();
        assert!(line(0).is_string(), "{trace}");
        assert_eq!(line(0), line(1), "the second attempt saw something else");
        seen.push(line(0));
    }
    assert_ne!(seen[0], seen[1], "two messages saw the same");
    let facts: Value = serde_json::from_str(seen[0].as_str().expect("a line")).expect("JSON");
    assert_eq!(facts["key"].as_str().map(str::len), Some(32));
    assert_ne!(facts["random"][0], facts["random"][1], "calls continue the stream");
    assert_eq!((&facts["function"], &facts["guarantee"]), (&json!("sqlshell"), &json!("GuaranteeLevel::ExactlyOnce")));
}

#[tokio::test]
async fn what_is_deferred_is_for_servers_that_are_granted() {
    let semel = Semel::start(&["sqlshell"]).await;
    let got = results(&semel, json!([{ "deferred_http": "http://127.0.0.1:9/" }])).await;
    assert_eq!(got[0]["error"]["kind"], "forbidden");
    assert!(got[0]["error"]["message"].as_str().is_some_and(|text| text.contains("not granted")));
}
