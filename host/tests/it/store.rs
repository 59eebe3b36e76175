//! What a store promises, asked of it directly: the claims that no request can forge are forged here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use semel::message::{Claim, Claimed, Contract, Event, State, Token, Usage, message_id};
use semel::store::{
    self, Accept, Activation, Bounds, ClaimRequest, Commit, Decided, Deployment, Enqueued, Error, Failure, Key, Known,
    Lane, Recovered, Remember, Rows, SqlError, Store, Target, Value,
};

use sqlx::Connection as _;

use crate::harness::{On, change_in_server, in_server, on_every_store};
use crate::servers::of_app;

on_every_store!(
    effects_and_acknowledgement_are_one_commit,
    another_fence_commits_nothing,
    another_token_commits_nothing,
    a_zombie_commits_nothing_even_before_the_next_claim,
    a_heartbeat_keeps_a_claim_and_tells_who_lost_it,
    what_a_killed_host_held_is_freed_until_it_is_dead,
    a_suspect_is_claimed_only_as_one,
    a_begin_once_message_begins_once_and_is_in_doubt_when_its_host_is_lost,
    a_key_makes_one_message_until_it_expires,
    a_list_is_accepted_in_one_commit_and_in_order,
    after_a_decision_no_earlier_claim_can_commit,
    a_begin_after_the_lease_renews_it,
    a_resolved_doubt_is_nobodys_commit,
    an_event_fans_out_to_every_subscriber_and_to_nobody_else,
    a_transaction_that_is_dropped_leaves_nothing_and_blocks_nobody,
    a_commit_that_acknowledges_nothing_commits_nothing,
    a_message_is_claimed_in_the_order_of_priority_and_acceptance
);

/// A store in a folder of its own, with one function `f` deployed whose app has a table `scratch`.
pub(crate) struct Bench {
    pub(crate) store: Arc<dyn Store>,
    url: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new(on: On) -> Self {
        let bench = Self::open(on).await;
        bench.store.deploy(deployment("f")).await.expect("a deploy");
        bench
    }

    /// With nothing deployed.
    pub(crate) async fn open(on: On) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = on.fresh(folder.path()).await;
        Self::over(url, folder).await
    }

    /// With what is in a database already.
    pub(crate) async fn over(url: String, folder: tempfile::TempDir) -> Self {
        let store = store::open(&url).await.expect("a store");
        Self { store, url, folder }
    }

    /// What a new host finds after this one was killed. On a server nobody can tell before the leases are over, so they
    /// are over.
    pub(crate) async fn restart(mut self) -> Self {
        if self.on().is_shared() {
            self.end_leases(Duration::MAX).await;
        }
        drop(self.store);
        // The writer's thread ends after its handle; until then the file is held.
        let until = Instant::now() + Duration::from_secs(20);
        self.store = loop {
            match store::open(&self.url).await {
                Ok(store) => break store,
                Err(error) if Instant::now() > until => panic!("cannot open the store again: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        self
    }

    /// Leases that would end within this time are over.
    pub(crate) async fn end_leases(&self, within: Duration) {
        let now = self.store.now().await.expect("a clock");
        let until = now.plus(within.min(Duration::from_secs(1 << 30))).0;
        let sql = format!("UPDATE semel_queue SET lease_until = 0 WHERE state = 'running' AND lease_until <= {until}");
        if self.on().is_shared() {
            change_in_server(&self.url, &self.on().names(&sql)).await;
        } else {
            let mut file = sqlx::SqliteConnection::connect(&self.url).await.expect("the database file");
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut file).await.expect("leases that are over");
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Closed; what is left can be opened again by [`Bench::over`].
    pub(crate) fn close(self) -> (String, tempfile::TempDir) {
        (self.url, self.folder)
    }

    fn on(&self) -> On {
        match self.url.split(':').next() {
            Some("sqlite") => On::Sqlite,
            Some("postgres") => On::Postgres,
            _ => On::Mariadb,
        }
    }

    pub(crate) async fn enqueue(&self, id: &str) -> String {
        let event = Event { id: id.into(), topic: "fn/f".into(), body: b"body".to_vec(), ..Event::default() };
        match self.store.enqueue(event, Target::Function("f".into()), None).await.expect("a working store") {
            Enqueued::Accepted(ids) => ids[0].clone(),
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// Of the version that is active: of another one nothing can be claimed where hosts share a database.
    pub(crate) async fn claim(&self, mut lane: Lane, suspects: bool) -> Vec<Claimed> {
        let functions = self.store.functions().await.expect("a working store");
        let active = functions.iter().find(|function| function.name == lane.function);
        lane.version = active.map_or(lane.version, |function| function.active.version);
        let request = ClaimRequest { lanes: vec![lane], limit: 10, suspects, host: "test".into() };
        self.store.claim(request).await.expect("a working store")
    }

    pub(crate) async fn claim_one(&self, lane: Lane) -> Claim {
        let mut claimed = self.claim(lane, false).await;
        assert_eq!(claimed.len(), 1);
        claimed.remove(0).claim
    }

    pub(crate) async fn recover(&self) -> Result<Recovered, store::Error> {
        let as_of = self.store.now().await?;
        self.store.recover(as_of, vec!["f".into()]).await
    }

    pub(crate) async fn state(&self, id: &str) -> State {
        self.store.message(id).await.expect("a working store").expect("the message").state
    }

    /// How a commit ends that wrote a row and acknowledges by this claim.
    pub(crate) async fn write_and_commit(&self, claim: &Claim) -> Commit {
        let mut session = self.store.session();
        session.enter(claim);
        let insert = session.query("INSERT INTO scratch VALUES (1)".into(), vec![], bounds()).await;
        assert!(matches!(insert, Ok(_) | Err(SqlError::Doomed(_))), "{insert:?}"); // A server says so here already.
        session.leave(None, Usage::default());
        session.commit().await
    }

    pub(crate) async fn rows(&self) -> i64 {
        if self.on().is_shared() {
            return in_server(&self.url, &format!("SELECT count(*) FROM {}", of_app(&self.url, "scratch"))).await;
        }
        match self.query("SELECT count(*) FROM scratch").await.expect("a count").rows[0][0] {
            Value::Int64(count) => count,
            ref other => panic!("a count is a number: {other:?}"),
        }
    }

    async fn query(&self, sql: &str) -> Result<Rows, SqlError> {
        let mut session = self.store.session();
        let rows = session.query(sql.into(), vec![], bounds()).await;
        session.rollback().await;
        rows
    }
}

pub(crate) fn deployment(function: &str) -> Deployment {
    Deployment {
        activation: Activation {
            function: function.into(),
            app: "app".into(),
            topics: vec!["topic".into()],
            serial: false,
            backlog: None,
            schedules: vec![],
        },
        manifest: format!("name = \"{function}\""),
        contract: Contract::FinishOnce,
        label: "transactional".into(),
        digest: "digest".into(),
        component: b"component".to_vec(),
        migrations: vec![("0001_scratch.sql".into(), "CREATE TABLE scratch (id INTEGER)".into())],
    }
}

pub(crate) fn lane() -> Lane {
    Lane {
        function: "f".into(),
        version: 1,
        contract: Contract::FinishOnce,
        max_attempts: 3,
        lease: Duration::from_secs(10),
        limit: 10,
        concurrency: None,
        rate: None,
    }
}

pub(crate) fn bounds() -> Bounds {
    Bounds { rows: 100, bytes: 1 << 20, deadline: Instant::now() + Duration::from_secs(10) }
}

async fn effects_and_acknowledgement_are_one_commit(on: On) {
    let bench = Bench::new(on).await;
    let id = bench.enqueue("one").await;
    let claim = bench.claim_one(lane()).await;
    assert_eq!((claim.attempt, claim.fence), (1, 1));
    assert_eq!(bench.write_and_commit(&claim).await, Commit::Committed);
    assert_eq!(bench.state(&id).await, State::Completed);
    assert_eq!(bench.rows().await, 1);
    assert_eq!(bench.write_and_commit(&claim).await, Commit::Fenced, "a claim acknowledges once");
    assert_eq!(bench.rows().await, 1);
}

/// Wall: the fence predicate of the acknowledgement. Token and state are right, only the fence is not.
async fn another_fence_commits_nothing(on: On) {
    let bench = Bench::new(on).await;
    let id = bench.enqueue("one").await;
    let claim = bench.claim_one(lane()).await;
    for fence in [claim.fence - 1, claim.fence + 1] {
        assert_eq!(bench.write_and_commit(&Claim { fence, ..claim.clone() }).await, Commit::Fenced);
    }
    assert_eq!((bench.rows().await, bench.state(&id).await), (0, State::Running));
}

/// Wall: the token predicate of the acknowledgement. Fence and state are right, only the token is not.
async fn another_token_commits_nothing(on: On) {
    let bench = Bench::new(on).await;
    let id = bench.enqueue("one").await;
    let claim = bench.claim_one(lane()).await;
    let forged = Claim { token: Token::random(), ..claim };
    assert_eq!(bench.write_and_commit(&forged).await, Commit::Fenced);
    assert_eq!((bench.rows().await, bench.state(&id).await), (0, State::Running));
}

/// Wall: the state predicate of the acknowledgement. The lease ended and nobody has claimed again, so fence and token
/// are still those of the zombie.
async fn a_zombie_commits_nothing_even_before_the_next_claim(on: On) {
    let bench = Bench::new(on).await;
    let id = bench.enqueue("one").await;
    let claim = bench.claim_one(Lane { lease: Duration::from_millis(20), ..lane() }).await;
    tokio::time::sleep(Duration::from_millis(40)).await;
    let recovered = bench.recover().await.expect("recovery");
    assert_eq!(recovered, Recovered { freed: 1, dead: 0, in_doubt: 0, suspects: true });
    assert_eq!(bench.write_and_commit(&claim).await, Commit::Fenced);
    assert_eq!((bench.rows().await, bench.state(&id).await), (0, State::Available));
    assert_eq!(bench.store.resolve(&claim).await.expect("an answer"), Known::Fenced);
}

async fn a_heartbeat_keeps_a_claim_and_tells_who_lost_it(on: On) {
    let bench = Bench::new(on).await;
    bench.enqueue("one").await;
    let short = Lane { lease: Duration::from_millis(300), ..lane() };
    let claim = bench.claim_one(short).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(bench.store.heartbeat(vec![claim.clone()]).await.expect("a heartbeat"), vec![]);
        assert_eq!(bench.recover().await.expect("recovery").freed, 0, "a live claim is never freed");
    }
    let forged = Claim { fence: claim.fence + 1, ..claim.clone() };
    assert_eq!(bench.store.heartbeat(vec![forged]).await.expect("a heartbeat"), vec![(claim.seq, claim.fence + 1)]);
}

/// A restarted host goes on where the killed one was, on SQLite long before any lease ends, and its attempts are counted.
async fn what_a_killed_host_held_is_freed_until_it_is_dead(on: On) {
    let mut bench = Bench::new(on).await;
    let id = bench.enqueue("one").await;
    for attempt in 1..=3 {
        let mut claimed = bench.claim(lane(), attempt > 1).await;
        assert_eq!(claimed.len(), 1, "attempt {attempt}");
        assert_eq!(claimed.remove(0).claim.attempt, attempt);
        bench = bench.restart().await;
        bench.recover().await.expect("recovery");
    }
    let record = bench.store.message(&id).await.expect("a working store").expect("the message");
    assert_eq!((record.state, record.attempt), (State::Dead, 3));
    assert_eq!(record.last_error.expect("a reason").0, "host-lost");
    let outcomes: Vec<_> = bench.store.attempts(&id).await.expect("attempts").into_iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes, ["host-lost"; 3]);
}

async fn a_suspect_is_claimed_only_as_one(on: On) {
    let bench = Bench::new(on).await;
    let id = bench.enqueue("suspect").await;
    bench.claim_one(lane()).await;
    let bench = bench.restart().await;
    bench.recover().await.expect("recovery");
    bench.enqueue("innocent").await;
    let others = bench.claim(lane(), false).await;
    assert_eq!(others.len(), 1, "only the message that was never lost");
    assert_ne!(others[0].message.id, id);
    let suspects = bench.claim(lane(), true).await;
    assert_eq!(suspects.iter().map(|claimed| &claimed.message.id).collect::<Vec<_>>(), [&id]);
    // Its end is on record now, so it is no suspect any more.
    let end = Failure { kind: "failed", message: "test".into(), retry_after: Some(Duration::ZERO) };
    assert!(bench.store.settle(&suspects[0].claim, end, Usage::default()).await.expect("a working store"));
    assert_eq!(bench.claim(lane(), false).await.len(), 1);
}

async fn a_begin_once_message_begins_once_and_is_in_doubt_when_its_host_is_lost(on: On) {
    let bench = Bench::new(on).await;
    let begun = bench.enqueue("begun").await;
    let claim = bench.claim_one(Lane { contract: Contract::BeginOnce, ..lane() }).await;
    let waiting = bench.enqueue("claimed, not begun").await;
    bench.claim_one(Lane { contract: Contract::BeginOnce, ..lane() }).await;
    assert!(!bench.store.begin(&Claim { fence: claim.fence + 1, ..claim.clone() }).await.expect("an answer"));
    assert!(!bench.store.begin(&Claim { token: Token::random(), ..claim.clone() }).await.expect("an answer"));
    assert!(bench.store.begin(&claim).await.expect("an answer"));
    assert!(!bench.store.begin(&claim).await.expect("an answer"), "begun twice");
    let bench = bench.restart().await;
    let recovered = bench.recover().await.expect("recovery");
    assert_eq!((recovered.freed, recovered.dead, recovered.in_doubt), (1, 0, 1));
    assert_eq!(bench.state(&begun).await, State::InDoubt);
    assert_eq!(bench.state(&waiting).await, State::Available);
    assert_eq!(bench.write_and_commit(&claim).await, Commit::Fenced, "an in-doubt message has no effects");
    assert_eq!(bench.rows().await, 0);
}

async fn a_key_makes_one_message_until_it_expires(on: On) {
    let bench = Bench::new(on).await;
    let send = |id: &str, fingerprint: &[u8], remember: Remember| {
        let event = Event { id: id.into(), topic: "fn/f".into(), ..Event::default() };
        let key = Key { key: "key".into(), fingerprint: fingerprint.to_vec(), remember };
        let store = Arc::clone(&bench.store);
        async move { store.enqueue(event, Target::Function("f".into()), Some(key)).await.expect("a working store") }
    };
    let known = |ids: &[String]| Enqueued::Duplicate { id: ids[0].clone(), ended_as: None };
    let short = Remember::For(Duration::from_secs(2));
    let Enqueued::Accepted(ids) = send("one", b"same", short).await else { panic!("not accepted") };
    assert_eq!(send("two", b"same", short).await, known(&ids));
    assert_eq!(send("three", b"other", short).await, Enqueued::KeyReused);
    tokio::time::sleep(Duration::from_millis(2050)).await;
    let Enqueued::Accepted(later) = send("four", b"other", Remember::Forever).await else {
        panic!("the window is over")
    };
    assert_ne!(later, ids);
    assert_eq!(send("five", b"other", Remember::Forever).await, known(&later));
    let counts = bench.store.counts().await.expect("counts");
    assert_eq!(counts[0].available, 2, "one message per accepted send");
}

async fn a_list_is_accepted_in_one_commit_and_in_order(on: On) {
    let bench = Bench::new(on).await;
    let accept = |id: &str, function: &str, key: Option<(&str, u8)>| Accept {
        event: Event { id: id.into(), topic: format!("fn/{function}"), ..Event::default() },
        target: Target::Function(function.into()),
        key: key.map(|(key, print)| Key { key: key.into(), fingerprint: vec![print], remember: Remember::Forever }),
    };
    let send = async |list: Vec<Accept>| bench.store.enqueue_all(list.into()).await;
    let made = |event: &str| message_id(event, "f");
    let new = |event: &str| Enqueued::Accepted(vec![made(event)]);
    let known = |event: &str| Enqueued::Duplicate { id: made(event), ended_as: None };
    let first = vec![
        accept("a", "f", Some(("z", 1))),
        accept("b", "nobody", Some(("y", 1))),
        accept("c", "f", Some(("a", 1))),
        accept("d", "f", Some(("z", 1))),
        accept("e", "f", Some(("z", 2))),
        accept("f", "f", None),
    ];
    let answers = [new("a"), Enqueued::NoTarget, new("c"), known("a"), Enqueued::KeyReused, new("f")];
    assert_eq!(send(first).await, Ok(answers.into()));
    let second = vec![accept("g", "f", Some(("a", 1))), accept("h", "f", Some(("b", 1)))];
    assert_eq!(send(second).await, Ok(vec![known("c"), new("h")]));
    assert_eq!(send(Vec::new()).await, Ok(Vec::new()));
    let again = vec![accept("i", "f", Some(("c", 1))), accept("a", "f", None), accept("k", "f", None)];
    assert!(matches!(send(again).await, Err(Error::Broken(_))), "the event `a` was there before");
    assert_eq!(send(vec![accept("l", "f", Some(("c", 2)))]).await, Ok(vec![new("l")]), "nothing was left of the key");
    let claimed = bench.claim(lane(), false).await;
    let order: Vec<String> = claimed.into_iter().map(|claimed| claimed.message.id).collect();
    assert_eq!(order, ["a", "c", "f", "h", "l"].map(made));
}

async fn after_a_decision_no_earlier_claim_can_commit(on: On) {
    let bench = Bench::new(on).await;
    let id = bench.enqueue("one").await;
    let cancelled = bench.claim_one(lane()).await;
    assert_eq!(bench.store.cancel(&id).await, Ok(Decided::Done));
    assert_eq!(bench.write_and_commit(&cancelled).await, Commit::Fenced);
    assert_eq!(bench.store.resolve(&cancelled).await, Ok(Known::Fenced));
    assert_eq!(bench.store.cancel(&id).await, Ok(Decided::Refused(State::Cancelled)));
    assert_eq!(bench.store.redrive(&id).await, Ok(Decided::Done));
    let again = bench.claim_one(lane()).await;
    assert!(again.fence > cancelled.fence && again.attempt > cancelled.attempt);
    assert_eq!((again.attempts_before, again.attempts_counted()), (1, 1));
    assert_eq!(bench.write_and_commit(&cancelled).await, Commit::Fenced);
    assert_eq!(bench.rows().await, 0);
    assert_eq!(bench.write_and_commit(&again).await, Commit::Committed);
}

/// After a standstill, or on a slow disk: what begins late is nobody's doubt while it runs.
async fn a_begin_after_the_lease_renews_it(on: On) {
    let bench = Bench::new(on).await;
    let id = bench.enqueue("one").await;
    let late = Lane { contract: Contract::BeginOnce, lease: Duration::from_millis(500), ..lane() };
    let claim = bench.claim_one(late).await;
    tokio::time::sleep(Duration::from_millis(520)).await;
    let as_of = bench.store.now().await.expect("a clock");
    assert_eq!(bench.store.begin(&claim).await, Ok(true));
    let recovered = bench.store.recover(as_of, vec![]).await.expect("recovery");
    assert_eq!((recovered.freed, recovered.in_doubt), (0, 0), "it looked before the begin, and came after it");
    assert_eq!(bench.write_and_commit(&claim).await, Commit::Committed);
    assert_eq!(bench.state(&id).await, State::Completed);
}

/// Whoever held it and lost the answer to its commit must not read a person's word as its own success.
async fn a_resolved_doubt_is_nobodys_commit(on: On) {
    let bench = Bench::new(on).await;
    let id = bench.enqueue("one").await;
    let begun = bench.claim_one(Lane { contract: Contract::BeginOnce, ..lane() }).await;
    assert_eq!(bench.store.begin(&begun).await, Ok(true));
    let bench = bench.restart().await;
    bench.recover().await.expect("recovery");
    assert_eq!(bench.store.resolve_doubt(&id, State::Completed).await, Ok(Decided::Done));
    assert_eq!(bench.state(&id).await, State::Completed);
    assert_eq!(bench.store.resolve(&begun).await, Ok(Known::Fenced));
    assert_eq!(bench.store.redrive(&id).await, Ok(Decided::Refused(State::Completed)));
}

async fn an_event_fans_out_to_every_subscriber_and_to_nobody_else(on: On) {
    let bench = Bench::new(on).await;
    bench.store.deploy(Deployment { migrations: vec![], ..deployment("g") }).await.expect("a second subscriber");
    let mut other = Deployment { migrations: vec![], ..deployment("h") };
    other.activation.topics = vec!["other".into()];
    bench.store.deploy(other).await.expect("no subscriber");
    let event = |topic: &str| Event { id: format!("event {topic}"), topic: topic.into(), ..Event::default() };
    let sent = bench.store.enqueue(event("topic"), Target::Subscribers, None).await.expect("a working store");
    let Enqueued::Accepted(ids) = sent else { panic!("not accepted: {sent:?}") };
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1], "a message per function");
    let nobody = bench.store.enqueue(event("nobody's"), Target::Subscribers, None).await.expect("a working store");
    assert_eq!(nobody, Enqueued::NoTarget);
}

async fn a_transaction_that_is_dropped_leaves_nothing_and_blocks_nobody(on: On) {
    let bench = Bench::new(on).await;
    bench.enqueue("one").await;
    let claim = bench.claim_one(lane()).await;
    let mut session = bench.store.session();
    session.enter(&claim);
    session.query("INSERT INTO scratch VALUES (1)".into(), vec![], bounds()).await.expect("an insert");
    drop(session);
    assert_eq!(bench.rows().await, 0);
    assert_eq!(bench.write_and_commit(&claim).await, Commit::Committed);
    assert_eq!(bench.rows().await, 1);
}

async fn a_commit_that_acknowledges_nothing_commits_nothing(on: On) {
    let bench = Bench::new(on).await;
    bench.enqueue("one").await;
    let mut session = bench.store.session();
    session.enter(&bench.claim_one(lane()).await);
    session.query("INSERT INTO scratch VALUES (1)".into(), vec![], bounds()).await.expect("an insert");
    assert_eq!(session.commit().await, Commit::RolledBack);
    assert_eq!(bench.rows().await, 0);
}

async fn a_message_is_claimed_in_the_order_of_priority_and_acceptance(on: On) {
    let bench = Bench::new(on).await;
    for (id, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
        let event = Event { id: id.into(), topic: "fn/f".into(), priority, body: id.into(), ..Event::default() };
        bench.store.enqueue(event, Target::Function("f".into()), None).await.expect("a working store");
    }
    let mut order = Vec::new();
    for _ in 0..4 {
        let claimed = bench.claim(Lane { limit: 1, ..lane() }, false).await;
        order.push(String::from_utf8(claimed[0].message.body.clone()).expect("text"));
    }
    assert_eq!(order, ["b", "d", "a", "c"]);
}
