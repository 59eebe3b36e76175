//! A host for one test: a folder, a fresh database file, `semel serve` as a process, and functions deployed to it.
//!
//! Tests see what a user sees: HTTP, the command line, and a process that can be killed. Two things are seen that a user
//! does not see: the witness file, to which the host writes each start of a guest, and the database file, read beside
//! the host. Waiting is polling; its bound is generous and only fails a test.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use rustix::process::Signal;
use semel::engine::catalog::Upload;
use semel::experiment::host::{HostOptions, HostProcess};
use semel::folder;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::OnceCell;

use crate::cluster::Cluster;
use crate::mariadb::Mariadb;

/// What is not there after this long never will be.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// On which database a test runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum On {
    #[default]
    Sqlite,
    Postgres,
    Mariadb,
}

impl On {
    /// The URL of a fresh database: a file in the folder, or one of the shared server's.
    pub(crate) async fn fresh(self, folder: &Path) -> String {
        match self {
            Self::Sqlite => format!("sqlite://{}", folder.join("test.db").display()),
            Self::Postgres => Cluster::shared().database().await,
            Self::Mariadb => Mariadb::shared().database().await,
        }
    }

    /// Whether any number of hosts may be on one of its databases, each guest with a login.
    pub(crate) fn is_shared(self) -> bool {
        self != Self::Sqlite
    }

    /// Text with names of the engine's tables as SQLite has them, in the words of this database: `semel_queue` is
    /// `semel.queue` on Postgres, and one table of the database on MariaDB.
    pub(crate) fn names(self, sql: &str) -> String {
        match self {
            Self::Sqlite => sql.to_owned(),
            Self::Postgres => sql.replace("semel_", "semel."),
            Self::Mariadb => {
                let mut parts = sql.split("semel_");
                let first = parts.next().unwrap_or_default().to_owned();
                parts.fold(first, |text, part| {
                    let end = part.find(|c: char| !c.is_ascii_alphabetic() && c != '_').unwrap_or(part.len());
                    let (name, rest) = part.split_at(end);
                    if name.is_empty() { format!("{text}semel_{rest}") } else { format!("{text}`{name}`{rest}") }
                })
            }
        }
    }
}

/// Makes of each test that takes an [`On`] one for each database.
macro_rules! on_every_store {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            #[tokio::test]
            async fn sqlite() {
                super::$test($crate::harness::On::Sqlite).await;
            }

            #[tokio::test]
            async fn postgres() {
                super::$test($crate::harness::On::Postgres).await;
            }

            #[tokio::test]
            async fn mariadb() {
                super::$test($crate::harness::On::Mariadb).await;
            }
        }
    )+ };
}
pub(crate) use on_every_store;

/// A running host, and all that belongs to it.
pub(crate) struct Semel {
    pub(crate) on: On,
    host: HostProcess,
    http: reqwest::Client,
    reader: OnceCell<()>,
    panics: bool,
    /// Of all hosts on its database.
    witness: PathBuf,
    folder: tempfile::TempDir,
}

/// How a host is started, where that matters.
#[derive(Default)]
pub(crate) struct Start<'a> {
    pub(crate) on: On,
    /// Environment variables. Whatever it is started through has `PLACE`, the folder of its files, beside them.
    pub(crate) variables: &'a [(&'a str, &'a str)],
    /// Words before its command line, see [`HostOptions::through`].
    pub(crate) through: Vec<String>,
    /// The database's folder in that of its files.
    pub(crate) disk: &'a str,
    /// A database that is there already, instead of a fresh one.
    pub(crate) database: Option<&'a str>,
    /// Where it listens, if it does not see the addresses of this process.
    pub(crate) address: Option<SocketAddr>,
}

impl Semel {
    /// A host with these functions, as `make guests` laid them out.
    pub(crate) async fn start(functions: &[&str]) -> Self {
        Self::start_with(&[], functions).await
    }

    /// The same on a database of that kind.
    pub(crate) async fn start_on(on: On, functions: &[&str]) -> Self {
        Self::start_as(Start { on, ..Start::default() }, functions).await
    }

    /// A host with environment variables.
    pub(crate) async fn start_with(variables: &[(&str, &str)], functions: &[&str]) -> Self {
        Self::start_as(Start { variables, ..Start::default() }, functions).await
    }

    /// A host that is started in some other way.
    pub(crate) async fn start_as(start: Start<'_>, functions: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = match start.database {
            Some(database) => database.to_owned(),
            None => start.on.fresh(&folder.path().join(start.disk)).await,
        };
        let witness = folder.path().join("witness.txt");
        let semel = Self::over(start, database, witness, folder).await;
        for name in functions {
            semel.deploy(built(name)).await;
        }
        semel
    }

    /// One more host on the same database. What it starts is seen by both.
    pub(crate) async fn beside(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let start = Start { on: self.on, ..Start::default() };
        Self::over(start, self.database().to_owned(), self.witness.clone(), folder).await
    }

    async fn over(start: Start<'_>, database: String, witness: PathBuf, folder: tempfile::TempDir) -> Self {
        let mut options = HostOptions::new(database, folder.path()).expect("options");
        options.program = PathBuf::from(PROGRAM);
        options.through = start.through;
        options.address = start.address;
        options = options.variable("SEMEL_WITNESS", &witness).variable("PLACE", folder.path());
        for (name, value) in start.variables {
            options = options.variable(*name, *value);
        }
        let mut headers = HeaderMap::new();
        if start.address.is_some() {
            // Others can reach it, so it asks for a token.
            let token = "a token of the tests, which is long enough".replace(' ', "-");
            std::fs::write(folder.path().join("token"), &token).expect("a token");
            options = options.variable("SEMEL_TOKEN_FILE", folder.path().join("token"));
            headers.insert("authorization", format!("Bearer {token}").parse().expect("a header value"));
        }
        let host = HostProcess::start(options).await.expect("a host");
        // The host closes a connection on which nothing comes: nobody may use one again at that very moment.
        let idle = Duration::from_secs(3);
        let http =
            reqwest::Client::builder().no_proxy().pool_idle_timeout(idle).timeout(PATIENCE).default_headers(headers);
        let http = http.build().expect("an HTTP client");
        Self { on: start.on, host, http, reader: OnceCell::new(), panics: false, witness, folder }
    }

    /// SIGKILL, and the process is gone.
    pub(crate) async fn kill(&mut self) {
        self.host.kill().await.expect("a host that was up");
    }

    /// SIGTERM, and the process has ended well.
    pub(crate) async fn stop(&mut self) {
        let status = self.host.stop().await.expect("a host that drains");
        assert!(status.success(), "the host ended with {status}: {}", self.log());
    }

    /// A signal, and no wait for what it does.
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.host.signal(signal).expect("a host that was up");
    }

    /// The end of a host that was told to stop.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.host.ended().await.expect("a host that drains")
    }

    /// Its process id.
    pub(crate) fn process(&self) -> u32 {
        self.host.process().expect("a host that is up")
    }

    /// Up again on the same file and the same address.
    pub(crate) async fn restart(&mut self) {
        self.host.restart().await.expect("a host that starts again");
    }

    /// The host again, which must be down: on the same file and address, but started with arguments of a test's own. It
    /// ends when the process that is returned is dropped or killed.
    pub(crate) async fn serve(&self, arguments: &[&str]) -> tokio::process::Child {
        let mut command = tokio::process::Command::new(PROGRAM);
        command.args(["serve", "--database", self.database(), "--listen", &self.address()]).args(arguments);
        let log = std::fs::File::options().append(true).open(self.host.log()).expect("the log");
        command.current_dir(self.folder()).stderr(log).kill_on_drop(true);
        let child = command.spawn().expect("the program");
        until("the host", async || self.host.client().is_ready().await.then_some(())).await;
        child
    }

    /// The test makes the host panic, and counts how often.
    pub(crate) fn expect_panics(&mut self) {
        self.panics = true;
    }

    pub(crate) fn address(&self) -> String {
        self.host.address().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(crate) fn database(&self) -> &str {
        self.host.database()
    }

    /// Where this test may leave files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that the host has said.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.host.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A request to the host.
    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        let builder = self.http.request(method, format!("{}{path}", self.url()));
        Request { builder, secret: self.folder().display().to_string() }
    }

    pub(crate) fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Request {
        self.request(Method::POST, path).body(body)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path).send().await
    }

    /// Sends what an HTTP library would not, and reads until the host closes.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.host.address()).await.expect("a connection");
        stream.write_all(request).await.expect("a host that reads");
        stream.shutdown().await.expect("an end of the request");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        read.expect("an answer").expect("an answer to its end");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Deploys, or fails the test. Returns the function's document.
    pub(crate) async fn deploy(&self, function: Function) -> Value {
        let answer = self.try_deploy(function).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    pub(crate) async fn try_deploy(&self, function: Function) -> Answer {
        let Function { name, upload, query } = function;
        let Request { builder, secret } =
            self.request(Method::PUT, &format!("/v1/functions/{name}?{}", query.join("&")));
        Request { builder: builder.multipart(folder::form(upload)), secret }.send().await
    }

    /// Sends a message and does not wait for it. Returns its id.
    pub(crate) async fn send(&self, function: &str, body: &str) -> String {
        let answer = self.post(&format!("/fn/{function}"), body.to_owned()).send().await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.id()
    }

    /// Sends a message and waits until it is settled, however it ends.
    pub(crate) async fn call(&self, function: &str, body: &str) -> Answer {
        self.post(&format!("/fn/{function}"), body.to_owned()).wait(60).send().await
    }

    /// The message document.
    pub(crate) async fn message(&self, id: &str) -> Value {
        self.get(&format!("/v1/messages/{id}")).await.ok()
    }

    pub(crate) async fn state(&self, id: &str) -> String {
        self.message(id).await["state"].as_str().expect("a state").to_owned()
    }

    /// The message document, once nothing more happens to it by itself.
    pub(crate) async fn until_settled(&self, id: &str) -> Value {
        until(&format!("the end of {id}"), async || {
            let message = self.message(id).await;
            (message["state"] != "available" && message["state"] != "running").then_some(message)
        })
        .await
    }

    pub(crate) async fn trace(&self, id: &str) -> Value {
        self.get(&format!("/v1/messages/{id}/trace")).await.ok()
    }

    /// How each attempt ended, in order.
    pub(crate) async fn outcomes(&self, id: &str) -> Vec<String> {
        let trace = self.trace(id).await;
        let attempts = trace["attempts"].as_array().expect("attempts").iter();
        attempts.map(|attempt| attempt["outcome"].as_str().expect("an outcome").to_owned()).collect()
    }

    /// How many messages of a function are in a state.
    pub(crate) async fn count(&self, function: &str, state: &str) -> u64 {
        let counts = self.get("/v1/counts").await.ok();
        counts["functions"][function][state].as_u64().unwrap_or(0)
    }

    /// The attempts at a message whose guest began to run. What was begun together with others in vain does not count.
    pub(crate) fn starts(&self, id: &str) -> Vec<u32> {
        not_in_vain(&self.started(id))
    }

    /// Each start of a message: on which attempt, and whether others had a part in its transaction.
    pub(crate) fn started(&self, id: &str) -> Vec<(u32, bool)> {
        self.witness().remove(id).unwrap_or_default()
    }

    /// The same of all messages, from the witness file.
    pub(crate) fn witness(&self) -> HashMap<String, Vec<(u32, bool)>> {
        let mut starts: HashMap<String, Vec<_>> = HashMap::new();
        for line in std::fs::read_to_string(&self.witness).unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let (Some(id), Some(attempt)) = (words.next(), words.next()) else { panic!("`{line}` is no start") };
            let start = (attempt.parse().expect("a number"), words.next().is_some());
            starts.entry(id.to_owned()).or_default().push(start);
        }
        starts
    }

    pub(crate) async fn until_started(&self, id: &str, times: usize) {
        until(&format!("start {times} of {id}"), async || (self.starts(id).len() >= times).then_some(())).await;
    }

    /// Rows of the app's tables, read by the guest `sqlshell`.
    pub(crate) async fn sql(&self, sql: &str) -> Value {
        self.reader.get_or_init(async || drop(self.deploy(built("sqlshell")).await)).await;
        let answer = self.call("sqlshell", &json!({ "statements": [{ "sql": sql }] }).to_string()).await;
        answer.ok()["results"][0]["rows"].take()
    }

    /// One value from the database, read beside the host (or after it), the engine's tables included, with names as in
    /// [`On::names`].
    pub(crate) async fn in_store<T>(&self, sql: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
        T: for<'r> sqlx::Decode<'r, sqlx::MySql> + sqlx::Type<sqlx::MySql>,
    {
        if self.on == On::Sqlite {
            return self.in_file(sql).await;
        }
        in_server(self.database(), &self.on.names(sql)).await
    }

    /// One value from the database file, read beside the host (or after it), the engine's tables included.
    pub(crate) async fn in_file<T>(&self, sql: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        let options = SqliteConnectOptions::new().filename(self.folder().join("test.db"));
        let mut file = options.read_only(true).connect().await.expect("the database file");
        let value = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut file).await.expect(sql);
        file.close().await.expect("an end");
        value
    }

    /// Changes the database beside the host, with names as in [`On::names`]. Returns how many rows were changed.
    pub(crate) async fn change(&self, sql: &str) -> u64 {
        if self.on == On::Sqlite {
            let options = SqliteConnectOptions::new().filename(self.folder().join("test.db"));
            let mut file = options.connect().await.expect("the database file");
            let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut file).await.expect(sql);
            file.close().await.expect("an end");
            return done.rows_affected();
        }
        change_in_server(self.database(), &self.on.names(sql)).await
    }

    /// Changes the database file, while the host is down.
    pub(crate) async fn in_file_change(&self, sql: &str) {
        let options = SqliteConnectOptions::new().filename(self.folder().join("test.db"));
        let mut file = options.connect().await.expect("the database file");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut file).await.expect(sql);
        file.close().await.expect("an end");
    }

    /// Keeps the host from writing, until it is dropped: at most the five seconds that the host waits.
    pub(crate) async fn hold_file(&self) -> sqlx::SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.folder().join("test.db"));
        let mut file = options.connect().await.expect("the database file");
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut file).await.expect("the write lock");
        file
    }

    /// Runs `semel` against this host.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Done {
        self.cli_with(arguments, "").await
    }

    /// Runs `semel` against this host, with something on its standard input.
    pub(crate) async fn cli_with(&self, arguments: &[&str], input: &str) -> Done {
        run(self.folder(), arguments, &[("SEMEL_SERVER", &self.url())], input).await
    }
}

impl Drop for Semel {
    /// Whatever a test does to a host, the host does not panic.
    fn drop(&mut self) {
        if !std::thread::panicking() && !self.panics {
            let log = self.log();
            assert!(!log.contains("panicked"), "the host panicked:\n{log}");
        }
    }
}

/// A request that is not sent yet.
pub(crate) struct Request {
    builder: reqwest::RequestBuilder,
    secret: String,
}

impl Request {
    pub(crate) fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self { builder: self.builder.body(body), ..self }
    }

    pub(crate) fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a header value");
        Self { builder: self.builder.header(name, value), ..self }
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub(crate) fn wait(self, seconds: u32) -> Self {
        self.header("prefer", format!("wait={seconds}"))
    }

    /// Sends it, and hangs up after a time in which there was no answer.
    pub(crate) async fn give_up(self, after: Duration) {
        let sent = self.builder.timeout(after).send().await;
        assert!(sent.is_err_and(|error| error.is_timeout()), "it was answered at once");
    }

    pub(crate) async fn send(self) -> Answer {
        let response = self.builder.send().await.expect("a host that answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.expect("an answer to its end").to_vec();
        Answer { status, headers, body, secret: self.secret }
    }
}

/// What the host answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Where the database is.
    secret: String,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The JSON of a 200.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text header"))
    }

    /// The message that it is about: from the header, or from the receipt.
    pub(crate) fn id(&self) -> String {
        match self.header("semel-message-id") {
            "" => self.json()["id"].as_str().expect("an id").to_owned(),
            id => id.to_owned(),
        }
    }

    /// What a refusal says. It is a problem document with this status, and gives nothing of the inside away.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], status);
        for inside in [
            "sqlite",
            "SQLite",
            "postgres",
            "Postgres",
            "mysql",
            "MySQL",
            "mariadb",
            "MariaDB",
            "127.0.0.1:",
            "SELECT",
            "INSERT",
            "semel_",
            "panicked",
            &self.secret,
        ] {
            assert!(!self.text().contains(inside), "{inside} in {}", self.text());
        }
        document["detail"].as_str().expect("a detail").to_owned()
    }
}

/// A function to deploy: built by `make guests`, and changed as a test likes.
#[derive(Clone)]
pub(crate) struct Function {
    name: String,
    upload: Upload,
    query: Vec<String>,
}

/// The function as `make guests` laid it out.
pub(crate) fn built(name: &str) -> Function {
    let upload = folder::read(&functions().join(name), None)
        .unwrap_or_else(|error| panic!("the guest {name} is not built, run `make guests` first: {error:#}"));
    Function { name: name.to_owned(), upload, query: Vec::new() }
}

/// A function of a test's own.
pub(crate) fn made(name: &str, manifest: &str, component: Vec<u8>) -> Function {
    let upload = Upload { manifest: manifest.to_owned(), component, ..Upload::default() };
    Function { name: name.to_owned(), upload, query: Vec::new() }
}

/// Where `make guests` puts the functions.
pub(crate) fn functions() -> PathBuf {
    let folder = root().join("target/functions");
    assert!(folder.is_dir(), "there is no {}: run `make guests` first", folder.display());
    folder
}

/// The workspace.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the crate is in the workspace").to_owned()
}

impl Function {
    /// Under another name, in an app whose tables are there already.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.upload.migrations.clear();
        Self { name: name.to_owned(), ..self }
    }

    /// Under another name, with its migrations.
    pub(crate) fn renamed(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// With a part of the manifest replaced.
    pub(crate) fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.upload.manifest.contains(from), "no `{from}` in the manifest of {}", self.name);
        self.upload.manifest = self.upload.manifest.replace(from, to);
        self
    }

    pub(crate) fn component(mut self, component: impl Into<Vec<u8>>) -> Self {
        self.upload.component = component.into();
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.upload.component
    }

    /// With one more migration, or another text for one that it has.
    pub(crate) fn migration(mut self, name: &str, sql: &str) -> Self {
        self.upload.migrations.retain(|(other, _)| other != name);
        self.upload.migrations.push((name.to_owned(), sql.to_owned()));
        self
    }

    pub(crate) fn contract(self, contract: &str) -> Self {
        self.option(&format!("contract={contract}"))
    }

    /// Whatever the guarantee of the running version is.
    pub(crate) fn accept_weaker(self) -> Self {
        self.option("accept_weaker_guarantee=true")
    }

    /// With an option of the deploy, as it stands in the query.
    pub(crate) fn option(mut self, option: &str) -> Self {
        self.query.push(option.to_owned());
        self
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// What it printed, if it did what was asked for.
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.stdout
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.ok()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What it said on standard error, if it refused with exit code 1 and printed nothing.
    pub(crate) fn refusal(&self) -> &str {
        assert_eq!((self.code, self.stdout.as_str()), (1, ""), "{self:?}");
        &self.stderr
    }
}

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_semel");

/// Runs `semel` in a folder, with these variables of its own and none of the developer's.
pub(crate) async fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Done {
    run_through(&[], folder, arguments, variables, input).await
}

/// The same, through something else: see [`HostOptions::through`].
pub(crate) async fn run_through(
    through: &[String],
    folder: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: &str,
) -> Done {
    let mut words = through.iter().map(String::as_str).chain([PROGRAM]);
    let mut command = tokio::process::Command::new(words.next().unwrap_or_default());
    command.args(words).args(arguments).current_dir(folder).kill_on_drop(true);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SEMEL_")) {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that does not read its input has closed the pipe.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("semel {arguments:?} does not end")).expect("output");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let code = output.status.code().expect("an end without a signal");
    let done = Done { code, stdout: text(&output.stdout), stderr: text(&output.stderr) };
    assert!(!done.stderr.contains("panicked") && !done.stdout.contains("panicked"), "{arguments:?}: {done:?}");
    done
}

/// The attempts of these starts, but for those that began together with others and then once more. That may be three times: all
/// together, without a first one that was to blame, and without a second one.
pub(crate) fn not_in_vain(starts: &[(u32, bool)]) -> Vec<u32> {
    for (attempt, _) in starts {
        let together = starts.iter().filter(|start| **start == (*attempt, true)).count();
        assert!(together <= 3, "an attempt began {together} times together with others: {starts:?}");
    }
    let later = |place: usize, attempt: u32| starts[place + 1..].iter().any(|(later, _)| *later == attempt);
    let good = starts.iter().enumerate().filter(|(place, (attempt, together))| !(*together && later(*place, *attempt)));
    good.map(|(_, (attempt, _))| *attempt).collect()
}

/// One value from a server's database.
pub(crate) async fn in_server<T>(database: &str, sql: &str) -> T
where
    T: Send + Unpin,
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    T: for<'r> sqlx::Decode<'r, sqlx::MySql> + sqlx::Type<sqlx::MySql>,
{
    if database.starts_with("postgres") {
        let mut session = sqlx::PgConnection::connect(database).await.expect("a session");
        let value = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut session).await.expect(sql);
        session.close().await.expect("an end");
        return value;
    }
    let mut session = sqlx::MySqlConnection::connect(database).await.expect("a session");
    let value = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut session).await.expect(sql);
    session.close().await.expect("an end");
    value
}

/// Changes a server's database. Returns how many rows were changed.
pub(crate) async fn change_in_server(database: &str, sql: &str) -> u64 {
    if database.starts_with("postgres") {
        let mut session = sqlx::PgConnection::connect(database).await.expect("a session");
        let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut session).await.expect(sql);
        session.close().await.expect("an end");
        return done.rows_affected();
    }
    let mut session = sqlx::MySqlConnection::connect(database).await.expect("a session");
    let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut session).await.expect(sql);
    session.close().await.expect("an end");
    done.rows_affected()
}

/// Looks again and again until there is something to see.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(POLL).await;
    }
}
