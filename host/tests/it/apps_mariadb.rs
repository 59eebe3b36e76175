//! Apps on MariaDB: whose login runs them, what keeps them apart, who makes the users, and how migrations go on that each
//! statement of theirs commits.

use semel::store::{self, Deployment, Error, Value};
use serde_json::json;

use crate::harness::{On, Semel, Start, built, in_server, run};
use crate::mariadb::Mariadb;
use crate::servers::{as_superuser, database, name_of};
use crate::store::{Bench, bounds, deployment, lane};

const WHO: &str = "SELECT SUBSTRING_INDEX(USER(), '@', 1)";

/// Rows of a statement that runs as a guest of the bench's function.
async fn as_guest(bench: &Bench, sql: &str) -> Vec<Vec<Value>> {
    bench.enqueue(&format!("{:x}", rand::random::<u64>())).await;
    let claim = bench.claim_one(lane()).await;
    let mut session = bench.store.session();
    session.enter(&claim);
    let rows = session.query(sql.into(), vec![], bounds()).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    session.rollback().await;
    rows.rows
}

fn with_migrations(migrations: &[(&str, &str)]) -> Deployment {
    let migrations = migrations.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    Deployment { migrations, ..deployment("f") }
}

async fn refused(store: &dyn store::Store, deployment: Deployment) -> String {
    match store.deploy(deployment).await {
        Err(Error::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// A function of one app reads, writes, locks and ends nothing of another's, nor of the engine's.
#[tokio::test]
async fn apps_are_walled_off_from_each_other() {
    let semel = Semel::start_on(On::Mariadb, &[]).await;
    semel.deploy(built("sqlshell")).await;
    let keeper = built("sqlshell").with("name = \"sqlshell\"", "name = \"keeper\"\napp = \"shop\"");
    semel.deploy(keeper.renamed("keeper")).await;
    let script = |sql: &str| json!({ "statements": [{ "sql": sql }] }).to_string();
    let name = name_of(semel.database());
    let login = semel.call("keeper", &script(WHO)).await.ok()["results"][0]["rows"][0][0].clone();
    assert_eq!(login, format!("{name}_shop"));
    semel.call("keeper", &script("INSERT INTO scratch (id, value) VALUES (1, 'goods')")).await.ok();
    for sql in [
        format!("SELECT * FROM {name}_shop.scratch"),
        format!("SELECT count(*) FROM {name}_shop.scratch FOR UPDATE"),
        format!("INSERT INTO {name}_shop.scratch (id, value) VALUES (2, 'x')"),
        format!("UPDATE {name}_shop.scratch SET value = 'x'"),
        format!("DELETE FROM {name}_shop.scratch"),
        format!("REPLACE INTO {name}_shop.scratch VALUES (1, 'x')"),
        format!("SELECT * FROM {name}.queue"),
        format!("UPDATE {name}.queue SET fence = fence + 1"),
        "SELECT * FROM mysql.global_priv".to_owned(),
        "SELECT * FROM mysql.user".into(),
        "SELECT LOAD_FILE('/etc/passwd') FROM mysql.proc".into(),
    ] {
        let answer = semel.call("sqlshell", &script(&sql)).await;
        assert_eq!(answer.status, 502, "{sql}: {}", answer.text());
        assert!(answer.text().contains("denied"), "{sql}: {}", answer.text());
    }
    for (sql, rows) in [
        ("SELECT LOAD_FILE('/etc/passwd')", json!([[null]])),
        (
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema LIKE '%shop' OR table_name = 'queue'",
            json!([[0]]),
        ),
        ("SELECT COUNT(DISTINCT user) FROM information_schema.processlist", json!([[1]])),
    ] {
        assert_eq!(semel.call("sqlshell", &script(sql)).await.ok()["results"][0]["rows"], rows, "{sql}");
    }
    let kept = semel.call("keeper", &script("SELECT value FROM scratch")).await.ok();
    assert_eq!(kept["results"][0]["rows"], json!([["goods"]]));
}

/// Where the database's people make the users, they are used as they are.
#[tokio::test]
async fn logins_that_a_person_made_are_used_as_they_are() {
    let url = database(On::Mariadb).await;
    let name = name_of(&url).to_owned();
    let (login, owner, app) =
        (format!("{name}s_shop"), format!("{name}s_owner"), format!("{name}\\_app").replace("semel_", "semel\\_"));
    let server = Mariadb::shared();
    server
        .as_superuser(&[
            &format!("REVOKE CREATE USER ON *.* FROM {name}"),
            &format!("CREATE DATABASE {name}_app"),
            &format!("CREATE USER {login} IDENTIFIED BY 'the login''s'"),
            &format!("CREATE USER {owner} IDENTIFIED BY 'the owner''s'"),
            &format!("GRANT ALL PRIVILEGES ON `{app}`.* TO {owner}"),
        ])
        .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |file: &str, text: &str| {
        std::fs::write(folder.path().join(file), text).expect("a file");
        folder.path().join(file).display().to_string()
    };
    let (password, owner_password) = (file("login", "the login's\n"), file("owner", "the owner's"));
    let section = format!("[apps.app]\nlogin = \"{login}\"\npassword_file = \"{password}\"\n");
    let owned = format!("{section}owner = \"{owner}\"\nowner_password_file = \"{owner_password}\"\n");
    let config = file("with.toml", &owned);
    run(folder.path(), &["migrate", "--config", &config, "--database", &url], &[], "").await.ok();
    let start = Start { on: On::Mariadb, database: Some(&url), ..Start::default() };
    let mut semel = Semel::start_as(start, &[]).await;
    configure(&mut semel, &owned).await;
    semel.deploy(built("sqlshell")).await;
    assert_eq!(semel.sql(WHO).await, json!([[login]]));
    let doctor = semel.cli(&["doctor"]).await.stdout;
    let wall = doctor.lines().find(|line| line.contains("app: login of its own")).unwrap_or_else(|| panic!("{doctor}"));
    assert!(wall.contains("stands"), "{wall}");

    // A host that was not told about it makes no users of its own for that app, and uses none.
    let store = store::open(&url).await.expect("a store");
    let why = refused(&*store, with_migrations(&[])).await;
    assert!(why.contains("[apps.app]") && why.contains(&login), "{why}");
    // Without the owner there are no migrations.
    configure(&mut semel, &section).await;
    semel.deploy(built("sqlshell")).await;
    let more = built("sqlshell").migration("0003.sql", "CREATE TABLE more (id BIGINT)");
    assert!(semel.try_deploy(more).await.problem(422).contains("names no owner"));
}

/// The host again, with this in its configuration.
async fn configure(semel: &mut Semel, text: &str) {
    semel.stop().await;
    std::fs::write(semel.folder().join("semel.toml"), text).expect("a file");
    semel.restart().await;
}

#[tokio::test]
async fn migrate_says_what_it_did_and_refuses_what_it_cannot_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let migrate = async |arguments: &[&str]| run(folder.path(), &[&["migrate"], arguments].concat(), &[], "").await;
    let url = database(On::Mariadb).await;
    let name = name_of(&url);
    for _ in 0..2 {
        let done = migrate(&["--database", &url, "--app", "shop", "--app", "two"]).await;
        for clue in ["schema version", &format!("{name}_shop"), "app two", "shop: login"] {
            assert!(done.ok().contains(clue), "{clue} is not in {}", done.stdout);
        }
    }
    let same = migrate(&["--database", &url.replacen("mysql:", "mariadb:", 1), "--json"]).await.json();
    assert!(same["facts"].as_array().expect("facts").iter().any(|fact| fact["about"] == "wall"), "{same}");
    assert!(migrate(&["--database", &url, "--app", "semel"]).await.refusal().contains("reserved"));
    let long = "a".repeat(60);
    assert!(migrate(&["--database", &url, "--app", &long]).await.refusal().contains("longer than"), "a name");
    let wrong = url.replacen(&format!(":{name}@"), ":wrong@", 1);
    let refused = migrate(&["--database", &wrong]).await;
    assert!(refused.refusal().contains("refuses this login") && !refused.stderr.contains(":wrong"), "{refused:?}");
    let missing = migrate(&["--database", &format!("{url}_missing")]).await;
    assert!(missing.refusal().contains("CREATE DATABASE"), "{missing:?}");
    let nobody = migrate(&["--database", "mysql://u:secret@127.0.0.1:9/x"]).await;
    assert!(nobody.refusal().contains("127.0.0.1:9") && !nobody.stderr.contains("secret"), "{nobody:?}");
}

/// Names of databases are in the names of users and of the apps' databases, whatever they are.
#[tokio::test]
async fn databases_may_have_odd_names() {
    for name in ["a b`c'd\"e", "{password}", "\u{fc}n\u{ef}", "Upper", "a%b", "a_b", "a\\b"] {
        let login = format!("login_{:x}", rand::random::<u32>());
        let quoted = name.replace('`', "``");
        let pattern = quoted.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%");
        let server = Mariadb::shared();
        server
            .as_superuser(&[
                &format!("CREATE USER {login} IDENTIFIED BY 'p'"),
                &format!("CREATE DATABASE `{quoted}`"),
                &format!("GRANT ALL PRIVILEGES ON `{pattern}`.* TO {login} WITH GRANT OPTION"),
                &format!("GRANT ALL PRIVILEGES ON `{pattern}\\_%`.* TO {login} WITH GRANT OPTION"),
                &format!("GRANT CREATE USER, CONNECTION ADMIN, PROCESS ON *.* TO {login}"),
            ])
            .await;
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url = format!("mysql://{login}:p@127.0.0.1:{}/{encoded}", server.port());
        let bench = Bench::over(url, tempfile::tempdir().expect("a folder")).await;
        bench.store.deploy(deployment("f")).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let who = as_guest(&bench, "SELECT SUBSTRING_INDEX(USER(), '@', 1), DATABASE(), COUNT(*) FROM scratch").await;
        assert_eq!(who[0][..2], [text(&format!("{name}_app")), text(&format!("{name}_app"))], "{who:?}");
        let two = with_migrations(&[("0002.sql", "CREATE TABLE two (id BIGINT)")]);
        bench.store.deploy(two).await.expect("a second deploy");
        drop(bench);
        server.as_superuser(&[&format!("DROP DATABASE `{quoted}`"), &format!("DROP DATABASE `{quoted}_app`")]).await;
    }
}

/// The users of a database outlive it, with passwords that nobody knows any more.
#[tokio::test]
async fn a_database_may_come_again_under_its_name() {
    let bench = Bench::new(On::Mariadb).await;
    let url = bench.url().to_owned();
    let name = name_of(&url).to_owned();
    assert_eq!(as_guest(&bench, "SELECT 1").await.len(), 1);
    drop(bench);
    let statements = ["DROP DATABASE", "CREATE DATABASE"].map(|what| format!("{what} {name}"));
    let app = format!("DROP DATABASE {name}_app");
    Mariadb::shared().as_superuser(&[&statements[0], &app, &statements[1]]).await;
    let bench = Bench::over(url, tempfile::tempdir().expect("a folder")).await;
    bench.store.deploy(deployment("f")).await.expect("a deploy");
    assert_eq!(as_guest(&bench, "SELECT 1").await.len(), 1);
}

/// Where one login was for all and then may make users, the apps get theirs.
#[tokio::test]
async fn one_login_for_all_can_become_a_login_for_each() {
    let url = database(On::Mariadb).await;
    let name = name_of(&url).to_owned();
    Mariadb::shared().as_superuser(&[&format!("REVOKE CREATE USER ON *.* FROM {name}")]).await;
    let bench = Bench::over(url, tempfile::tempdir().expect("a folder")).await;
    bench.store.deploy(deployment("f")).await.expect("a deploy");
    assert_eq!(as_guest(&bench, WHO).await, [[text(&name)]]);
    let walls = bench.store.health().await.expect("facts");
    let open =
        walls.iter().find(|fact| fact.about == "wall" && fact.name.contains("login of its own")).expect("a wall");
    assert!(open.value != "stands", "{open:?}");
    Mariadb::shared().as_superuser(&[&format!("GRANT CREATE USER ON *.* TO {name}")]).await;
    let bench = bench.restart().await;
    assert_eq!(as_guest(&bench, WHO).await, [[text(&format!("{name}_app"))]]);
}

/// Two hosts that are given the same folder at the same time apply each migration once.
#[tokio::test]
async fn hosts_that_deploy_at_once_take_turns() {
    let bench = Bench::open(On::Mariadb).await;
    let other = store::open(bench.url()).await.expect("a second host's store");
    let folder = with_migrations(&[
        ("0001.sql", "CREATE TABLE scratch (id INTEGER); INSERT INTO scratch SELECT SLEEP(0.5)"),
        ("0002.sql", "CREATE TABLE second (id INTEGER)"),
    ]);
    let (one, two) = tokio::join!(bench.store.deploy(folder.clone()), other.deploy(folder));
    let (one, two) = (one.expect("a deploy"), two.expect("a deploy"));
    assert_eq!(one.version, two.version);
    let mut applied = [one.migrations, two.migrations].concat();
    applied.sort();
    assert_eq!(applied, ["0001.sql", "0002.sql"]);
    assert_eq!(bench.rows().await, 1);
}

/// What a deploy leaves behind whose migration fails: the statements before the one that did, and no version. The next one goes
/// on there.
#[tokio::test]
async fn migrations_go_on_at_the_statement_that_failed() {
    let bench = Bench::new(On::Mariadb).await;
    let several = "CREATE TABLE two (id INTEGER); -- a comment; and more\nINSERT INTO two VALUES (1);\n\
                   INSERT INTO two SELECT ';' = ';' /* ; */;";
    let begun = "CREATE TABLE three (id INTEGER); INSERT INTO three VALUES (1);";
    for (broken, clue) in [
        ("CREATE TABLE four (", "syntax"),
        ("SELECT * FROM mysql.user", "denied"),
        ("CREATE DATABASE mine", "denied"),
        ("CREATE USER mine", "denied"),
        ("GRANT SELECT ON three TO root", "denied"),
        ("CREATE PROCEDURE p() SELECT 1", "denied"),
        ("CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1", "denied"),
    ] {
        let third = format!("{begun} {broken}");
        let why = refused(&*bench.store, with_migrations(&[("0002.sql", several), ("0003.sql", &third)])).await;
        assert!(why.contains("0003.sql") && why.contains(clue), "{broken}: {why}");
    }
    assert_eq!(as_guest(&bench, "SELECT COUNT(*) FROM two").await, [[Value::Int64(2)]], "applied, once");
    assert_eq!(as_guest(&bench, "SELECT COUNT(*) FROM three").await, [[Value::Int64(1)]], "so far, once");
    assert_eq!(bench.store.versions("f").await.expect("versions").len(), 1, "and there is no new version");
    let others = [("0002.sql", several), ("0003.sql", "CREATE TABLE three (id BIGINT); CREATE TABLE four (id BIGINT)")];
    let why = refused(&*bench.store, with_migrations(&others)).await;
    assert!(why.contains("0003.sql") && why.contains("applied"), "{why}");
    let mended = format!("{begun} CREATE TABLE four (id INTEGER)");
    let mended = Deployment {
        manifest: "name = \"f\"\n".into(),
        ..with_migrations(&[("0002.sql", several), ("0003.sql", &mended)])
    };
    let deployed = bench.store.deploy(mended).await.expect("a deploy");
    assert_eq!((deployed.version, deployed.migrations), (2, vec!["0003.sql".to_owned()]));
    assert_eq!(as_guest(&bench, "SELECT COUNT(*) FROM three").await, [[Value::Int64(1)]], "once");
    let name = name_of(bench.url());
    let locked =
        format!("SELECT JSON_VALUE(priv, '$.account_locked') FROM mysql.global_priv WHERE user = '{name}_app_own'");
    let locked: String = in_server(&as_superuser(On::Mariadb, bench.url()), &locked).await;
    assert_eq!(locked, "1", "the owner has no login but for the moment of a migration");
}

/// What is in a table that is not InnoDB stays there at a rollback.
#[tokio::test]
async fn tables_that_keep_what_is_undone_are_refused() {
    let bench = Bench::new(On::Mariadb).await;
    for (n, engine) in ["MyISAM", "Aria", "MEMORY", "CSV"].into_iter().enumerate() {
        let name = format!("000{}.sql", n + 2);
        let made = format!("CREATE TABLE kept (id INTEGER NOT NULL) ENGINE = {engine}");
        let why = refused(&*bench.store, with_migrations(&[(&name, &made)])).await;
        assert!(why.contains("InnoDB"), "{engine}: {why}");
    }
    let allowed = with_migrations(&[("0009.sql", "CREATE TABLE good (id INTEGER) ENGINE=InnoDB")]);
    bench.store.deploy(allowed).await.expect("a deploy");
}
