//! Random histories: the same operations, one after another, on SQLite and on Postgres. Both must answer each of them in the
//! same way, and everything that people and claims can see must be the same after each.
//!
//! `SEMEL_HISTORY_SEED` repeats one history, `SEMEL_HISTORIES` says how many there are. Stale claims, forged tokens and
//! decisions that come too late are part of it; time is not: leases end because they are written to be over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use semel::message::{Answer, Claim, Contract, Event, LogLine, State, Token, Usage, published_event_id};
use semel::store::{
    Accept, Bounds, ClaimRequest, Commit, Deployment, Failure, Key, Lane, MessageFilter, Remember, Retention,
    Savepoint, StateOp, Store, Target,
};

use crate::harness::On;
use crate::store::{Bench, deployment, lane};

const STEPS: usize = 60;
const FUNCTIONS: [&str; 2] = ["f", "g"];
const GROUPS: [&str; 2] = ["g1", "g2"];
const SHORT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(3600);

/// One operation. Numbers stand for "one of those there are by then", see [`pick`].
#[derive(Debug, Clone)]
enum Step {
    Deploy { function: &'static str, serial: bool, backlog: Option<u32> },
    Activate { function: &'static str, version: usize, serial: bool },
    Pause { function: &'static str, paused: bool },
    Remove { function: &'static str },
    Enqueue { list: Vec<Accept> },
    Claim { limits: [u32; 2], limit: u32, suspects: bool, contract: Contract, lease: Duration },
    Begin { claim: usize },
    Heartbeat { claims: [usize; 3] },
    Run { claim: usize, forge: Forge, script: Script },
    Settle { claim: usize, forge: Forge, retry_after: Option<Duration> },
    Resolve { claim: usize },
    Recover,
    Cancel { message: usize },
    Redrive { message: usize },
    RedriveSome { function: &'static str, state: State, limit: u32 },
    ResolveDoubt { message: usize, end: State },
    Sweep,
    Forget { dead: bool },
}

/// What is wrong with a claim.
#[derive(Debug, Clone, Copy)]
enum Forge {
    Nothing,
    Fence,
    Token,
}

/// What a run does before it ends.
#[derive(Debug, Clone)]
struct Script {
    insert: bool,
    undo: bool,
    state: Vec<StateOp>,
    publish: Option<&'static str>,
    answer: bool,
    commit: bool,
}

/// Makes steps. What it makes depends on the seed alone.
struct Generator(ChaCha8Rng);

impl Generator {
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.random_range(0..of.len())]
    }

    /// True once in so many times.
    fn rarely(&mut self, times: u32) -> bool {
        self.0.random_range(0..times) == 0
    }

    /// Mostly one of the last.
    fn recent(&mut self) -> usize {
        if self.rarely(4) { self.0.random_range(0..1000) } else { self.0.random_range(0..3) }
    }

    fn step(&mut self, number: usize) -> Step {
        let function = self.one(&FUNCTIONS);
        match self.0.random_range(0..100) {
            0..28 => self.enqueue(number),
            28..46 => Step::Claim {
                limits: [self.0.random_range(0..4), self.0.random_range(0..4)],
                limit: self.0.random_range(1..5),
                suspects: self.rarely(4),
                contract: self.one(&[Contract::FinishOnce, Contract::FinishOnce, Contract::BeginOnce]),
                lease: self.one(&[SHORT, LONG]),
            },
            46..60 => Step::Run { claim: self.recent(), forge: self.forge(), script: self.script() },
            60..68 => {
                let retry_after = self.one(&[Some(Duration::ZERO), Some(Duration::ZERO), Some(LONG), None]);
                Step::Settle { claim: self.recent(), forge: self.forge(), retry_after }
            }
            68..71 => Step::Begin { claim: self.0.random_range(0..2) },
            71..73 => Step::Heartbeat { claims: [self.recent(), self.recent(), self.recent()] },
            73..75 => Step::Resolve { claim: self.recent() },
            75..80 => Step::Recover,
            80..84 => Step::Cancel { message: self.recent() },
            84..87 => Step::Redrive { message: self.recent() },
            87..89 => {
                let state = self.one(&[State::Dead, State::InDoubt, State::Cancelled, State::Completed]);
                Step::RedriveSome { function, state, limit: self.0.random_range(1..4) }
            }
            89..91 => Step::ResolveDoubt { message: self.recent(), end: self.one(&[State::Completed, State::Dead]) },
            91..95 => {
                let backlog = self.one(&[None, None, Some(4)]);
                Step::Deploy { function, serial: self.rarely(2), backlog }
            }
            95 => Step::Activate { function, version: self.0.random_range(0..1000), serial: self.rarely(2) },
            96 => Step::Pause { function, paused: self.rarely(2) },
            97 => Step::Remove { function },
            98 => Step::Sweep,
            _ => Step::Forget { dead: self.rarely(2) },
        }
    }

    /// Mostly one alone, and up to five in one commit.
    fn enqueue(&mut self, number: usize) -> Step {
        if !self.rarely(3) {
            return Step::Enqueue { list: vec![self.accept(number.to_string())] };
        }
        let mut list: Vec<_> = (0..self.0.random_range(2..6)).map(|n| self.accept(format!("{number}.{n}"))).collect();
        // Whether a window of no time ends within a commit is nobody's concern.
        let ends_at_once = |key: &&mut Key| key.remember == Remember::For(Duration::ZERO);
        let keys = list.iter_mut().filter_map(|accept| accept.key.as_mut());
        keys.filter(ends_at_once).for_each(|key| key.remember = Remember::Forever);
        Step::Enqueue { list }
    }

    fn accept(&mut self, number: String) -> Accept {
        let target = if self.rarely(5) { None } else { Some(self.one(&FUNCTIONS)) };
        let topic = if self.rarely(8) { "nobody's" } else { "topic" };
        let event = Event {
            id: format!("event {number}"),
            topic: target.map_or_else(|| topic.to_owned(), |name| format!("fn/{name}")),
            group: self.one(&[None, Some(GROUPS[0]), Some(GROUPS[0]), Some(GROUPS[1])]).map(str::to_owned),
            content_type: self.rarely(2).then(|| "text/plain".into()),
            headers: vec![("x-number".into(), number.clone())],
            body: number.into_bytes(),
            priority: self.one(&[0, 0, 0, 5, -5]),
            delay: self.one(&[Duration::ZERO, Duration::ZERO, Duration::ZERO, LONG]),
        };
        let key = self.rarely(3).then(|| Key {
            key: format!("key {}", self.0.random_range(0..3)),
            fingerprint: vec![self.one(&[1, 1, 1, 2])],
            remember: self.one(&[
                Remember::Forever,
                Remember::WhileActive,
                Remember::For(LONG),
                Remember::For(Duration::ZERO),
            ]),
        });
        let target = target.map_or(Target::Subscribers, |name| Target::Function(name.into()));
        Accept { event, target, key }
    }

    fn forge(&mut self) -> Forge {
        self.one(&[Forge::Nothing, Forge::Nothing, Forge::Nothing, Forge::Nothing, Forge::Fence, Forge::Token])
    }

    fn script(&mut self) -> Script {
        let state = (0..self.0.random_range(0..3)).map(|_| {
            let key = self.one(&["a", "b", "ab"]).to_owned();
            match self.0.random_range(0..5) {
                0 => StateOp::Get { key },
                1 => StateOp::Set { key, value: vec![self.0.random()] },
                2 => StateOp::Delete { key },
                3 => StateOp::Add { key: "sum".into(), delta: self.one(&[1, -1, i64::MAX]) },
                _ => StateOp::Scan { prefix: "a".into(), after: None, limit: 10 },
            }
        });
        Script {
            state: state.collect(),
            insert: self.rarely(2),
            undo: self.rarely(4),
            publish: if self.rarely(3) { Some(self.one(&["topic", "topic", "nobody's"])) } else { None },
            answer: self.rarely(2),
            commit: !self.rarely(5),
        }
    }
}

/// The one that a number stands for: 0 is the last.
fn pick<T>(of: &[T], number: usize) -> Option<&T> {
    of.len().checked_sub(1).map(|last| &of[last - number % of.len()])
}

/// One database, and what was handed out of it.
struct Side {
    bench: Bench,
    claims: Vec<(Claim, String)>,
    messages: Vec<String>,
    deploys: u32,
}

impl Side {
    async fn new(on: On) -> Self {
        let bench = Bench::open(on).await;
        let mut side = Self { bench, claims: Vec::new(), messages: Vec::new(), deploys: 0 };
        for function in FUNCTIONS {
            side.apply(&Step::Deploy { function, serial: function == "f", backlog: None }).await;
        }
        side
    }

    fn store(&self) -> &dyn Store {
        &*self.bench.store
    }

    fn claim(&self, number: usize, forge: Forge) -> Option<(Claim, &str)> {
        let (claim, message) = pick(&self.claims, number)?;
        let claim = match forge {
            Forge::Nothing => claim.clone(),
            Forge::Fence => Claim { fence: claim.fence + 1, ..claim.clone() },
            Forge::Token => Claim { token: Token::random(), ..claim.clone() },
        };
        Some((claim, message))
    }

    fn message(&self, number: usize) -> &str {
        pick(&self.messages, number).map_or("nothing", |id| id.as_str())
    }

    /// One of those in this state, so that a decision about it is not always in vain; if there is none, any.
    async fn message_in(&self, state: State, number: usize) -> String {
        let filter = MessageFilter { function: None, state: Some(state), before: None, limit: 1000 };
        let mut found = self.bench.store.messages(filter).await.expect("a working store");
        found.sort_by_key(|message| message.seq);
        pick(&found, number).map_or_else(|| self.message(number).to_owned(), |message| message.id.clone())
    }

    /// What came of it, in words that are the same on every database.
    async fn apply(&mut self, step: &Step) -> String {
        let store = Arc::clone(&self.bench.store);
        match step {
            Step::Deploy { .. } | Step::Activate { .. } => self.deploy(step).await,
            Step::Pause { function, paused } => said(store.pause(function, *paused).await),
            Step::Remove { function } => said(store.remove(function).await),
            Step::Enqueue { list } => said(store.enqueue_all(list.as_slice().into()).await),
            Step::Claim { limits, limit, suspects, contract, lease } => {
                let lane = |(name, limit): (&str, &u32)| Lane {
                    function: name.into(),
                    contract: *contract,
                    lease: *lease,
                    limit: *limit,
                    ..lane()
                };
                self.take(FUNCTIONS.into_iter().zip(limits).map(lane).collect(), *limit, *suspects).await
            }
            Step::Begin { claim } => match self.claim(*claim, Forge::Nothing) {
                Some((claim, _)) => said(store.begin(&claim).await),
                None => String::new(),
            },
            Step::Heartbeat { claims } => {
                let claims: Vec<Claim> =
                    claims.iter().filter_map(|number| Some(self.claim(*number, Forge::Nothing)?.0)).collect();
                let lost = store.heartbeat(claims.clone()).await.expect("a working store");
                said(claims.iter().map(|claim| lost.contains(&(claim.seq, claim.fence))).collect::<Vec<_>>())
            }
            Step::Run { claim, forge, script } => match self.claim(*claim, *forge) {
                Some((claim, message)) => run(&*store, &claim, message, script).await,
                None => String::new(),
            },
            Step::Settle { claim, forge, retry_after } => {
                let Some((claim, _)) = self.claim(*claim, *forge) else { return String::new() };
                let end = Failure { kind: "failed", message: "of a history".into(), retry_after: *retry_after };
                said(store.settle(&claim, end, usage()).await)
            }
            Step::Resolve { claim } => match self.claim(*claim, Forge::Nothing) {
                Some((claim, _)) => said(store.resolve(&claim).await),
                None => String::new(),
            },
            Step::Recover => {
                self.bench.end_leases(SHORT * 6).await;
                let now = store.now().await.expect("a clock");
                said(store.recover(now, FUNCTIONS.map(str::to_owned).into()).await)
            }
            Step::Cancel { message } => said(store.cancel(self.message(*message)).await),
            Step::Redrive { message } => said(store.redrive(&self.message_in(State::Dead, *message).await).await),
            Step::RedriveSome { function, state, limit } => {
                let found = store.redrivable(function, *state, 0, *limit).await.expect("a working store");
                let these = found.into_iter().map(|(seq, _)| seq).collect();
                said(store.redrive_some(function, *state, these).await.expect("a working store").len())
            }
            Step::ResolveDoubt { message, end } => {
                said(store.resolve_doubt(&self.message_in(State::InDoubt, *message).await, *end).await)
            }
            Step::Sweep => said(store.sweep(100).await),
            Step::Forget { dead } => {
                let keep = Retention {
                    completed: Duration::ZERO,
                    dead: if *dead { Duration::ZERO } else { LONG },
                    cancelled: LONG,
                };
                said(store.forget(keep, 100).await)
            }
        }
    }

    async fn deploy(&mut self, step: &Step) -> String {
        let of = |function: &str, serial, backlog| {
            let mut deployment = deployment(function);
            (deployment.activation.serial, deployment.activation.backlog) = (serial, backlog);
            if function != "f" {
                deployment.migrations.clear();
            }
            deployment
        };
        match step {
            Step::Deploy { function, serial, backlog } => {
                self.deploys += 1;
                // Now and then the same text as that of the active version.
                let manifest = format!("serial = {serial}, backlog = {backlog:?}, {}", self.deploys / 4);
                said(self.store().deploy(Deployment { manifest, ..of(function, *serial, *backlog) }).await)
            }
            Step::Activate { function, version, serial } => {
                let versions = self.store().versions(function).await.expect("versions");
                // One that was removed is brought back by a deploy, not by a rollback.
                let deployed = self.store().functions().await.expect("functions").iter().any(|f| f.name == *function);
                match pick(&versions, *version).filter(|_| deployed) {
                    Some(to) => said(self.store().activate(to.version, of(function, *serial, None).activation).await),
                    None => String::new(),
                }
            }
            _ => String::new(),
        }
    }

    /// Claims as a host does: nothing of what is paused, and of each function the active version.
    async fn take(&mut self, lanes: Vec<Lane>, limit: u32, suspects: bool) -> String {
        let functions = self.store().functions().await.expect("functions");
        let active = |lane: Lane| {
            let function = functions.iter().find(|function| function.name == lane.function && !function.paused)?;
            Some(Lane { version: function.active.version, ..lane })
        };
        let lanes = lanes.into_iter().filter_map(active).collect();
        let request = ClaimRequest { lanes, limit, suspects, host: "test".into() };
        let claimed = self.store().claim(request).await.expect("a working store");
        let mut words = Vec::new();
        for claimed in claimed {
            let (claim, message) = (claimed.claim, claimed.message);
            words.push(format!(
                "{} {} {} {} {} {:?} {:?} {:?} {:?} {}",
                message.id,
                claim.attempt,
                claim.attempts_before,
                claim.fence,
                claim.version,
                claim.group,
                message.content_type,
                message.headers,
                message.body,
                message.topic
            ));
            self.claims.push((claim, message.id));
        }
        words.join("\n")
    }

    /// Everything that can be seen, but times.
    async fn see(&mut self) -> String {
        let all = MessageFilter { limit: 1000, ..MessageFilter::default() };
        let messages = self.store().messages(all).await.expect("messages");
        let known: BTreeSet<String> = self.messages.iter().cloned().collect();
        self.messages.extend(messages.iter().rev().map(|message| message.id.clone()).filter(|id| !known.contains(id)));
        let mut seen: Vec<String> = messages
            .iter()
            .map(|m| {
                // Of what never ran those of the active version are shown; who is removed has one only on Postgres.
                let ran = m.version.map(|_| (m.contract, m.label.clone()));
                format!(
                    "{} {} {:?} {} {:?} attempt {} of {} before, version {:?} {ran:?}, ended {}, leased {}, {:?}, {:?}",
                    m.id,
                    m.function,
                    m.group,
                    m.priority,
                    m.state,
                    m.attempt,
                    m.attempts_before,
                    m.version,
                    m.completed_at.is_some(),
                    m.lease_until.is_some(),
                    m.last_error,
                    m.answer
                )
            })
            .collect();
        seen.extend(self.store().counts().await.expect("counts").iter().map(said));
        let functions = self.store().functions().await.expect("functions");
        seen.extend(functions.iter().map(|f| format!("{} {} {}", f.name, f.active.version, f.paused)));
        seen.join("\n")
    }

    /// The rest, once at the end.
    async fn see_all(&mut self) -> String {
        let mut seen = vec![self.see().await];
        for id in &self.messages {
            for a in self.store().attempts(id).await.expect("attempts") {
                seen.push(format!(
                    "{id} {} {} {} {} {} {:?} {} {} {:?}",
                    a.attempt, a.fence, a.version, a.host, a.outcome, a.error, a.statements, a.published, a.logs
                ));
            }
            for d in self.store().decisions(id).await.expect("decisions") {
                seen.push(format!("{id} {} {}", d.decision, d.detail));
            }
        }
        let mut depths: Vec<String> = self
            .store()
            .depths()
            .await
            .expect("depths")
            .iter()
            .filter(|depth| depth.messages > 0)
            .map(|d| format!("{} {:?} {} {}", d.function, d.state, d.messages, d.oldest_due.is_some()))
            .collect();
        depths.sort();
        seen.extend(depths);
        for function in FUNCTIONS {
            seen.extend(
                self.store()
                    .versions(function)
                    .await
                    .expect("versions")
                    .iter()
                    .map(|v| format!("{} {} {:?}", v.version, v.manifest, v.previous)),
            );
        }
        seen.push(self.effects().await);
        seen.join("\n")
    }

    /// What the runs have left in the app's table and in the state of their functions.
    async fn effects(&mut self) -> String {
        let mut seen = String::new();
        for function in FUNCTIONS {
            self.deploys += 4;
            self.apply(&Step::Deploy { function, serial: false, backlog: None }).await;
            self.store().pause(function, false).await.expect("a working store");
            let event = Event { id: "last".into(), topic: format!("fn/{function}"), priority: 9, ..Event::default() };
            self.store().enqueue(event, Target::Function(function.into()), None).await.expect("a working store");
            let one = Lane { function: function.into(), limit: 1, ..lane() };
            self.take(vec![one], 1, false).await;
            let Some((claim, _)) = self.claims.last().cloned() else { return "nothing claimed".into() };
            let mut session = self.store().session();
            session.enter(&claim);
            seen += &said(
                session.query("SELECT count(*) FROM scratch".into(), vec![], bounds()).await.map(|rows| rows.rows),
            );
            seen += &said(
                session.state(function.into(), StateOp::Scan { prefix: String::new(), after: None, limit: 100 }).await,
            );
            session.rollback().await;
        }
        seen
    }
}

/// One run. Of one whose claim does not hold only its end counts: one database says so earlier than the other.
async fn run(store: &dyn Store, claim: &Claim, message: &str, script: &Script) -> String {
    // What must be begun and was not is never run; Postgres would not let it in.
    if claim.contract == Contract::BeginOnce && store.begin(claim).await != Ok(true) {
        return "not begun".into();
    }
    let mut session = store.session();
    session.enter(claim);
    let mut words = Vec::new();
    if script.undo {
        words.push(said(session.savepoint(Savepoint::Set("s".into())).await));
    }
    if script.insert {
        let insert = session.query("INSERT INTO scratch VALUES (1)".into(), vec![], bounds()).await;
        words.push(said(insert.map(|rows| rows.changed)));
    }
    for op in &script.state {
        words.push(said(session.state(claim.function.clone(), op.clone()).await));
    }
    if let Some(topic) = script.publish {
        let event = |ordinal: u32| Event {
            id: published_event_id(message, ordinal),
            topic: topic.into(),
            group: (ordinal == 1).then(|| GROUPS[0].into()),
            ..Event::default()
        };
        words.push(said(session.publish(vec![event(0), event(1)]).await));
    }
    if script.undo {
        words.push(said(session.savepoint(Savepoint::RollbackTo("s".into())).await));
    }
    if !script.commit {
        session.rollback().await;
        return "rolled back".into();
    }
    let answer = script.answer.then(|| Answer { body: b"an answer".to_vec(), ..Answer::default() });
    session.leave(answer, usage());
    match session.commit().await {
        Commit::Committed => format!("{} {:?}", words.join(" "), Commit::Committed),
        Commit::Fenced => said(Commit::Fenced),
        other => format!("{} {other:?}", words.join(" ")),
    }
}

fn said(what: impl std::fmt::Debug) -> String {
    format!("{what:?}")
}

fn bounds() -> Bounds {
    Bounds { rows: 100, bytes: 1 << 20, deadline: Instant::now() + Duration::from_secs(10) }
}

fn usage() -> Usage {
    let line = LogLine { at: Default::default(), level: "info", message: "said".into(), fields: vec![] };
    Usage { statements: 3, published: 1, logs: vec![line], ..Usage::default() }
}

/// Steps of every other history that chance seldom makes in this order: what has begun is lost, and a person decides.
fn doubt(number: usize) -> Option<Step> {
    let contract = Contract::BeginOnce;
    Some(match number {
        20 => Step::Claim { limits: [4, 4], limit: 8, suspects: false, contract, lease: SHORT },
        21..24 => Step::Begin { claim: number - 21 },
        24 => Step::Recover,
        25 => Step::ResolveDoubt { message: 0, end: State::Completed },
        _ => return None,
    })
}

/// Returns how often each kind of step was taken, or what was not the same.
async fn history(seed: u64) -> Result<BTreeMap<String, u32>, String> {
    let mut generator = Generator(ChaCha8Rng::seed_from_u64(seed));
    let (mut one, mut two) = tokio::join!(Side::new(On::Sqlite), Side::new(beside(seed)));
    let (mut steps, mut kinds) = (Vec::new(), BTreeMap::new());
    for number in 0..STEPS {
        let step = match doubt(number).filter(|_| seed.is_multiple_of(2)) {
            Some(step) => step,
            None => generator.step(number),
        };
        let (left, right) = tokio::join!(one.apply(&step), two.apply(&step));
        let words = said(&step);
        let kind = words.split([' ', '{']).next().unwrap_or_default().to_owned();
        let ends = ["Committed", "Fenced", "Accepted", "Duplicate", "Done", "true"];
        let end = ends.iter().find(|end| left.contains(*end)).copied().unwrap_or_default();
        *kinds.entry(format!("{kind} {end}")).or_insert(0) += 1;
        steps.push(format!("{words}\n    {left}"));
        differ(seed, &steps, &left, &right)?;
        let (left, right) = tokio::join!(one.see(), two.see());
        differ(seed, &steps, &left, &right)?;
    }
    let (left, right) = tokio::join!(one.see_all(), two.see_all());
    differ(seed, &steps, &left, &right)?;
    Ok(kinds)
}

/// Which server tells the same: one history in two for each of them.
fn beside(seed: u64) -> On {
    if seed % 4 < 2 { On::Postgres } else { On::Mariadb }
}

fn differ(seed: u64, steps: &[String], left: &str, right: &str) -> Result<(), String> {
    if left == right {
        return Ok(());
    }
    let lines = left.lines().zip(right.lines()).filter(|(left, right)| left != right);
    let lines: Vec<String> = lines
        .map(|(left, right)| format!("  Sqlite   {left}\n  {:8} {right}", format!("{:?}", beside(seed))))
        .collect();
    let (some, count) = (lines.join("\n"), (left.lines().count(), right.lines().count()));
    Err(format!("SEMEL_HISTORY_SEED={seed}: after\n{}\nnot the same {count:?}:\n{some}", steps.join("\n")))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_databases_tell_the_same_history() {
    let seeds: Vec<u64> = match number("SEMEL_HISTORY_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SEMEL_HISTORIES").unwrap_or(30)).map(|_| rand::random_range(0..1_000_000)).collect(),
    };
    eprintln!("SEMEL_HISTORY_SEED is one of {seeds:?}");
    let count = seeds.len();
    let mut told = futures_util::stream::iter(seeds.into_iter().map(history)).buffer_unordered(4);
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    while let Some(one) = told.next().await {
        for (kind, times) in one.unwrap_or_else(|why| panic!("{why}")) {
            *kinds.entry(kind).or_default() += times;
        }
    }
    eprintln!("{kinds:?}");
    if count >= 20 {
        for kind in [
            "Run Committed",
            "Run Fenced",
            "Claim",
            "Enqueue Accepted",
            "Enqueue Duplicate",
            "Redrive Done",
            "Cancel Done",
            "ResolveDoubt Done",
            "Recover",
            "Settle true",
            "Remove",
            "Sweep",
            "Forget",
        ] {
            assert!(kinds.keys().any(|found| found.starts_with(kind)), "{kind} never happened: {kinds:?}");
        }
    }
}
