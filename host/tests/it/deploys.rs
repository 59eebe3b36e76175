//! Deploys: what is checked, and that a refused one changes nothing while the old version keeps serving.

use serde_json::json;

use crate::harness::{Function, On, Semel, built, on_every_store};

on_every_store!(
    what_is_no_component_is_refused_by_its_name,
    what_it_may_not_import_is_named,
    a_manifest_that_is_not_right_is_refused_with_its_line_and_key,
    a_route_belongs_to_one_function,
    a_migration_is_applied_once,
    the_same_deploy_is_the_same_version_also_after_a_restart,
    another_contract_needs_a_word_of_the_deployer,
    an_upload_that_is_none_is_refused
);

/// A component that imports one interface, empty, and exports nothing: written out byte by byte, so that it can name
/// anything. (component-model, Binary.md: preamble, section 7 with one instance type, section 10 with one import)
fn importing(name: &str) -> Vec<u8> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("a short name");
    let mut import = vec![1, 0, length(name.as_bytes())];
    import.extend(name.as_bytes());
    import.extend([5, 0]);
    let mut component = b"\0asm\x0d\0\x01\0\x07\x03\x01\x42\0\x0a".to_vec();
    component.push(length(&import));
    component.extend(import);
    component
}

/// A host on which version 1 of `counter` serves, and a check that nothing has changed.
struct Serving(Semel);

impl Serving {
    async fn start(on: On) -> Self {
        Self(Semel::start_on(on, &["counter"]).await)
    }

    /// That a deploy is refused with 422 for a reason that names all of `clues`.
    async fn refuses(&self, function: Function, clues: &[&str]) {
        let reason = self.0.try_deploy(function).await.problem(422);
        for clue in clues {
            assert!(reason.contains(clue), "`{clue}` is not in: {reason}");
        }
    }

    /// That all refusals before this left nothing behind.
    async fn serves_unchanged(self) {
        let Self(semel) = self;
        let functions = semel.get("/v1/functions").await.ok();
        assert_eq!(functions["functions"].as_array().expect("functions").len(), 1);
        assert_eq!(functions["functions"][0]["version"], 1);
        assert_eq!(semel.call("counter", "visits").await.ok()["count"], 1);
        for of_people in ["semel_components", "semel_versions"] {
            let count = format!("SELECT COUNT(*) FROM {of_people} WHERE digest <> 'built-in'");
            assert_eq!(semel.in_store::<i64>(&count).await, 1);
        }
        assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_app_migrations").await, 1);
        let app = match semel.on {
            On::Sqlite => {
                "SELECT COUNT(*) FROM sqlite_schema WHERE tbl_name NOT LIKE 'semel%' AND tbl_name NOT LIKE 'sqlite%'"
            }
            On::Mariadb => &format!(
                "SELECT COUNT(*) FROM (
                     SELECT table_name AS name FROM information_schema.tables WHERE table_schema = '{0}_app'
                     UNION ALL SELECT index_name FROM information_schema.statistics WHERE table_schema = '{0}_app'
                 ) AS found",
                crate::servers::name_of(semel.database())
            ),
            On::Postgres => {
                "SELECT COUNT(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
                 WHERE relkind IN ('r', 'i') AND nspname !~ '^(semel|pg_|information_schema)'"
            }
        };
        assert_eq!(semel.in_store::<i64>(app).await, 2, "the table of counters and the index of its key");
    }
}

async fn what_is_no_component_is_refused_by_its_name(on: On) {
    let serving = Serving::start(on).await;
    let whole = built("counter").bytes().to_vec();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    for (bytes, clue) in [
        (vec![], "empty"),
        (b"\x7fELF\x02\x01\x01\0".to_vec(), "ELF"),
        (b"\0asm\x01\0\0\0".to_vec(), "core WebAssembly module"),
        (b"\0asm\x01\0\0\0".to_vec(), "semel build"),
        (b"\0as".to_vec(), "not WebAssembly"),
        (b"\0asm\x0d\0".to_vec(), "cut off"),
        (whole[..whole.len() / 2].to_vec(), "not a valid component"),
        (whole[..whole.len() - 1].to_vec(), "not a valid component"),
        (damaged, "not a valid component"),
        (b"(component)".to_vec(), "not WebAssembly"),
        (b"fn main() {}".to_vec(), "not WebAssembly"),
    ] {
        for function in [built("counter"), built("misbehave")] {
            serving.refuses(function.component(bytes.clone()), &[clue]).await;
        }
    }
    serving.serves_unchanged().await;
}

async fn what_it_may_not_import_is_named(on: On) {
    let serving = Serving::start(on).await;
    for import in [
        "wasi:http/outgoing-handler@0.3.0",
        "wasi:cli/environment@0.3.0",
        "evil:thing/x@1.0.0",
        "semel:function/transaction@0.2.0",
        "semel:function/transaction@0.1.0-rc.1",
        "semel:functions/transaction@0.1.0",
        "semel:function/sql@0.1.0",
    ] {
        serving.refuses(built("counter").component(importing(import)), &[import, "not known"]).await;
    }
    for known in ["semel:function/log@0.1.0", "semel:function/log@0.1.9", "semel:function/deferred-http@0.1.0"] {
        let no_handler = built("counter").component(importing(known));
        serving.refuses(no_handler, &["must export semel:function/handler@0.1.0"]).await;
    }
    serving.serves_unchanged().await;
}

async fn a_manifest_that_is_not_right_is_refused_with_its_line_and_key(on: On) {
    let serving = Serving::start(on).await;
    let line = "timeout = \"2s\"";
    for (to, clues) in [
        ("timeuot = \"2s\"", ["line 9", "timeuot"]),
        ("timeout = \"2 seconds\"", ["line 9", "2 seconds"]),
        ("timeout = 2", ["line 9", "string"]),
        ("timeout = \"0ms\"", ["line 9", "10ms"]),
        ("timeout = \"20s\"", ["line 9", "lease"]),
        ("timeout = \"2s\"\nlease = \"1s\"", ["line 10", "lease"]),
        ("memory = \"64 parsecs\"", ["line 9", "64MiB"]),
        ("memory = \"1KiB\"", ["memory", "64KiB"]),
        ("memory = \"100GiB\"", ["memory", "256MiB"]),
        ("fuel = -1", ["line 9", "fuel"]),
        ("[retry]\nmax_attempts = 0", ["line 10", "max_attempts"]),
        ("[retry]\nbackoff = { jitter = 2.0 }", ["line 10", "jitter"]),
        ("[flow]\nconcurrency = 0", ["line 10", "concurrency"]),
        ("[flow]\nrate = \"100 a day\"", ["rate", "100/s"]),
        ("[grants]\nhttp = [\"https://example.com/path\"]", ["http", "without a path"]),
        ("[grants]\nclock = \"fast\"", ["line 10", "fast"]),
        ("[[trigger.cron]]\nschedule = \"0 3 * *\"", ["line 10", "0 3 * *"]),
        ("[flow]\nbatch = \"sometimes\"", ["batch", "sometimes"]),
        ("[retry]\nbackoff = { initial = \"1h\", max = \"1s\" }", ["line 10", "initial"]),
        ("[[limits]]", ["line 9", "limits"]),
        ("[idempotency]\npolicy = \"sometimes\"", ["line 10", "sometimes"]),
        ("timeout = ", ["line 9", "function.toml"]),
    ] {
        serving.refuses(built("counter").with(line, to), &clues).await;
    }
    for (name, clue) in [("contract = \"exactly-once\"", "exactly-once"), ("contrakt = \"finish-once\"", "contrakt")] {
        serving.refuses(built("counter").with("contract = \"finish-once\"", name), &["line 3", clue]).await;
    }
    serving.refuses(built("counter").named("Counter"), &["Counter", "lower-case"]).await;
    serving.refuses(built("counter").named("..%2Fcounter"), &["../counter", "lower-case"]).await;
    serving.serves_unchanged().await;
}

async fn a_route_belongs_to_one_function(on: On) {
    let serving = Serving::start(on).await;
    let with_route = |path: &str| {
        let trigger = format!("[trigger]\nhttp = [{{ path = \"{path}\" }}]\n\n[limits]");
        built("misbehave").with("[limits]", &trigger)
    };
    serving.refuses(with_route("/count/{counter}"), &["/count/{counter}", "function counter"]).await;
    serving.refuses(with_route("/count/{other}"), &["/count/"]).await;
    for (path, clue) in [
        ("/fn/misbehave", "belongs to Semel"),
        ("/v1/x", "belongs to Semel"),
        ("/healthz", "belongs to Semel"),
        ("/metrics", "belongs to Semel"),
        ("relative", "must begin with /"),
        ("/a/{b", "/a/{b"),
        ("/", "must"),
    ] {
        serving.refuses(with_route(path), &[clue]).await;
    }
    serving.serves_unchanged().await;
}

/// What SQLite keeps apps from doing; on a server the app's own login has no such rights.
#[tokio::test]
async fn a_migration_may_make_tables_and_nothing_else() {
    let serving = Serving::start(On::Sqlite).await;
    for (sql, clue) in [
        ("CREATE TRIGGER t AFTER INSERT ON counters BEGIN DELETE FROM counters; END", "triggers"),
        ("CREATE VIEW v AS SELECT * FROM counters", "views"),
        ("PRAGMA synchronous = OFF", "PRAGMA"),
        ("CREATE TABLE ok (a); COMMIT; CREATE TABLE after (a)", "transactions"),
        ("CREATE TABLE ok (a); ROLLBACK", "transactions"),
        ("ATTACH ':memory:' AS other", "may only make"),
        ("CREATE TABLE semel_mine (a)", "not the app's"),
        ("INSERT INTO counters (id, n) SELECT id, seq FROM semel_messages", "not the app's"),
        ("CREATE TABLE hold (a REFERENCES semel_queue (host))", "not the app's"),
        (
            "CREATE TABLE t AS WITH c(secret) AS (SELECT x'00') SELECT secret FROM c FULL JOIN semel_store USING (secret)",
            "not the app's",
        ),
        ("DROP TABLE semel_queue", "not the app's"),
        ("CREATE VIRTUAL TABLE t USING fts5(a)", "may only make"),
        ("CREATE TABLE fine (a); INSERT INTO nowhere VALUES (1)", "nowhere"),
        ("CREATE TABLE fine (a); CREATE TABLE counters (a)", "counters"),
        ("CREATE TABLE fine (a); CREATE TABEL", "syntax"),
    ] {
        let next = built("counter").migration("0002_next.sql", sql);
        let reason = serving.0.try_deploy(next).await;
        assert_eq!(reason.status, 422, "{sql}: {}", reason.text());
        for part in ["migration 0002_next.sql", clue] {
            assert!(reason.text().contains(part), "{sql}: {part} is not in {}", reason.text());
        }
    }
    let changed =
        built("counter").migration("0001_counters.sql", "CREATE TABLE counters (id TEXT PRIMARY KEY, n BIGINT)");
    serving.refuses(changed, &["0001_counters.sql", "another text"]).await;
    serving.serves_unchanged().await;
}

async fn a_migration_is_applied_once(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    semel.call("counter", "visits").await.ok();
    let sql = "ALTER TABLE counters ADD COLUMN note TEXT;\nCREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT);\n\
               CREATE INDEX notes_text ON notes (text);\nUPDATE counters SET note = 'migrated';";
    let next = built("counter").migration("0002_notes.sql", sql);
    assert_eq!(semel.deploy(next.clone()).await["version"], 1, "component and manifest are the same");
    assert_eq!(semel.deploy(next).await["version"], 1);
    assert_eq!(semel.call("counter", "visits").await.ok()["count"], 2);
    assert_eq!(semel.sql("SELECT id, n, note FROM counters").await, json!([["visits", 2, "migrated"]]));
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_app_migrations WHERE function = 'counter'").await, 2);
}

/// All functions of a file see the same tables, so two apps in one would see each other's.
#[tokio::test]
async fn a_file_holds_one_app() {
    let semel = Semel::start(&["counter"]).await;
    let other = built("counter").named("other").with("[trigger]", "app = \"shop\"\n\n[trigger]").with("/count/", "/c/");
    let refused = semel.try_deploy(other).await.problem(422);
    assert!(refused.contains("shop") && refused.contains("one"), "{refused}");
    assert_eq!(semel.call("counter", "still").await.status, 200);
}

async fn the_same_deploy_is_the_same_version_also_after_a_restart(on: On) {
    let mut semel = Semel::start_on(on, &["counter"]).await;
    let first = semel.get("/v1/functions").await.ok()["functions"][0].take();
    let mut again = semel.deploy(built("counter")).await;
    assert_eq!(again.as_object_mut().and_then(|document| document.remove("warnings")), Some(json!([])));
    assert_eq!(again, first);
    assert_eq!(first["version"], 1);
    let other = semel.deploy(built("counter").with("timeout = \"2s\"", "timeout = \"3s\"")).await;
    assert_eq!((&other["version"], &other["limits"]["timeout_ms"]), (&json!(2), &json!(3000)));
    assert_eq!(other["digest"], first["digest"]);
    assert_eq!(semel.deploy(built("counter")).await["version"], 3, "what was replaced is a new version");
    semel.call("counter", "visits").await.ok();
    semel.kill().await;
    semel.restart().await;
    assert_eq!(semel.get("/v1/functions/counter").await.ok()["version"], 3);
    assert_eq!(semel.call("counter", "visits").await.ok()["count"], 2, "compiled again from the database");
}

async fn another_contract_needs_a_word_of_the_deployer(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let weaker = built("counter").contract("begin-once");
    let reason = semel.try_deploy(weaker.clone()).await.problem(422);
    assert!(reason.contains("--accept-weaker-guarantee"), "{reason}");
    assert_eq!(semel.get("/v1/functions/counter").await.ok()["contract"], "finish-once");
    let deployed = semel.deploy(weaker.option("accept_weaker_guarantee=true")).await;
    assert_eq!((&deployed["version"], &deployed["contract"]), (&json!(2), &json!("begin-once")));
    assert_eq!(deployed["guarantees"][0]["happens"], "0 or 1, and known");
    let id = semel.post("/fn/counter", "visits").wait(30).send().await.id();
    let message = semel.message(&id).await;
    assert_eq!((&message["version"], &message["contract"]), (&json!(2), &json!("begin-once")));
}

async fn an_upload_that_is_none_is_refused(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    let put = || semel.request(reqwest::Method::PUT, "/v1/functions/counter");
    assert!(put().send().await.problem(400).contains("multipart"));
    let form = |parts: &[(&str, &str)]| {
        let mut body = String::new();
        for (name, text) in parts {
            body += &format!("--cut\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
        }
        body + "--cut--\r\n"
    };
    let send = |body: String| put().header("content-type", "multipart/form-data; boundary=cut").body(body).send();
    for (parts, clue) in [
        (&[][..], "manifest"),
        (&[("manifest", "name = \"counter\"")], "component"),
        (&[("component", "")], "manifest"),
        (&[("manifesto", "")], "manifesto"),
        (&[("manifest", "name = \"counter\""), ("component", ""), ("migration", "")], "file name"),
    ] {
        let answer = send(form(parts)).await;
        assert!(answer.problem(400).contains(clue), "{parts:?}: {}", answer.text());
    }
    let cut = form(&[("manifest", "name = \"counter\"")]).replace("--cut--", "--cu");
    assert!(send(cut).await.problem(400).contains("upload"));
    let option = semel.try_deploy(built("counter").option("contract=exactly-once")).await.problem(400);
    assert!(option.contains("exactly-once"), "{option}");
    assert!(semel.try_deploy(built("counter").option("force=true")).await.problem(400).contains("force"));
    assert_eq!(semel.get("/v1/functions").await.ok(), json!({ "functions": [] }));
}
