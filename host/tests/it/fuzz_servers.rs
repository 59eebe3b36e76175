//! What the fuzzers of servers share: plain and hostile statements and mutants of both, each run as a guest's through a
//! session of the store. After each:
//!
//! - another session sees what it saw before: nothing is visible without its acknowledgement;
//! - a statement that succeeded is one over rows, as far as somebody else can tell.
//!
//! `SEMEL_FUZZ_SEED` and a number of statements for each database choose what is run; `make fuzz-sql` runs many.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use semel::message::Usage;
use semel::store::{Bounds, Commit, Savepoint, SqlError, Value};

use crate::store::{Bench, lane};

/// Statements of one transaction.
const RUN: usize = 20;
/// Of the statements made, so many in a hundred must execute: what is only refused proves little.
const EXECUTED: usize = 30;

/// What a server's statements are made of.
#[derive(Clone, Copy)]
pub(crate) struct Dialect {
    pub(crate) plain: &'static [&'static str],
    pub(crate) hostile: &'static [&'static str],
    /// What is put between, before or after words.
    pub(crate) pieces: &'static [&'static str],
    /// A statement with this in it has a parameter.
    pub(crate) parameter: &'static str,
}

/// Somebody who looks on.
pub(crate) trait Onlooker {
    /// Rows of the app, messages that have ended, and tables that nobody should have made.
    async fn visible(&mut self) -> (i64, i64, i64);

    /// Whether a text that the server took is one statement over rows.
    async fn is_over_rows(&mut self, text: &str) -> bool;
}

struct Grammar {
    random: ChaCha8Rng,
    dialect: Dialect,
}

impl Grammar {
    fn pick(&mut self, list: &'static [&'static str]) -> &'static str {
        list.choose(&mut self.random).copied().unwrap_or_default()
    }

    fn statement(&mut self) -> String {
        match self.random.random_range(0..100) {
            0..45 => self.pick(self.dialect.plain).to_owned(),
            45..65 => self.pick(self.dialect.hostile).to_owned(),
            _ => {
                let mut text =
                    if self.random.random() { self.pick(self.dialect.plain) } else { self.pick(self.dialect.hostile) }
                        .to_owned();
                for _ in 0..self.random.random_range(1..4) {
                    text = self.mutant(&text);
                }
                text
            }
        }
    }

    fn mutant(&mut self, text: &str) -> String {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let (one, two) = (self.random.random_range(0..words.len()), self.random.random_range(0..words.len()));
        match self.random.random_range(0..9) {
            0 => words.swap(one, two),
            1 => words[one].push_str(self.dialect.pieces.choose(&mut self.random).copied().unwrap_or_default()),
            2 => words.insert(one, self.pick(self.dialect.pieces).to_owned()),
            3 => return format!("{}{text}", self.pick(self.dialect.pieces)),
            4 => return format!("{text}{}{}", self.pick(self.dialect.pieces), self.pick(self.dialect.hostile)),
            5 => return format!("WITH x AS ({text}) SELECT 1"),
            6 => return format!("({text})"),
            7 => return format!("SELECT * FROM ({text}) AS x"),
            _ => {
                words[one] =
                    words[one].chars().map(|c| if self.random.random() { c.to_ascii_lowercase() } else { c }).collect()
            }
        }
        words.join(" ")
    }
}

#[derive(Debug, Default)]
struct Report {
    tried: usize,
    executed: usize,
    forbidden: usize,
    refused: usize,
    doomed: usize,
    committed: usize,
}

struct Fuzzer<O> {
    bench: Bench,
    grammar: Grammar,
    outside: O,
    report: Report,
}

impl<O: Onlooker> Fuzzer<O> {
    async fn transaction(&mut self) -> Result<(), (String, Vec<String>)> {
        let before = self.outside.visible().await;
        let id = self.bench.enqueue(&self.report.tried.to_string()).await;
        let claim = self.bench.claim_one(lane()).await;
        let mut session = self.bench.store.session();
        session.enter(&claim);
        let mut said = Vec::new();
        for _ in 0..RUN {
            let text = self.grammar.statement();
            said.push(text.clone());
            self.report.tried += 1;
            if session.savepoint(Savepoint::Set("s".into())).await.is_err() {
                break;
            }
            let params =
                if text.contains(self.grammar.dialect.parameter) { vec![Value::Text("x".into())] } else { vec![] };
            let bounds = Bounds { rows: 1000, bytes: 1 << 20, deadline: Instant::now() + Duration::from_secs(2) };
            let done = session.query(text.clone(), params, bounds).await;
            if self.outside.visible().await != before {
                return Err(("it is visible".into(), said));
            }
            match done {
                Ok(_) if !self.outside.is_over_rows(&text).await => {
                    return Err(("it is no statement over rows".into(), said));
                }
                Ok(_) => self.report.executed += 1,
                Err(SqlError::Forbidden(_)) => self.report.forbidden += 1,
                Err(SqlError::Doomed(_) | SqlError::Deadline) => {
                    self.report.doomed += 1;
                    break;
                }
                Err(_) => {
                    self.report.refused += 1;
                    if session.savepoint(Savepoint::RollbackTo("s".into())).await.is_err() {
                        break;
                    }
                }
            }
        }
        if self.grammar.random.random_range(0..3) > 0 {
            session.rollback().await;
            return if self.outside.visible().await == before {
                Ok(())
            } else {
                Err(("after a rollback".into(), said))
            };
        }
        session.leave(None, Usage::default());
        let commit = session.commit().await;
        let completed = self.bench.state(&id).await == semel::message::State::Completed;
        self.report.committed += usize::from(completed);
        let changed = self.outside.visible().await != before;
        if (commit == Commit::Committed) != completed || changed != completed {
            return Err((format!("after {commit:?}, completed is {completed} and changed {changed}"), said));
        }
        Ok(())
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs as many statements as the variable says, 2,000 by default.
pub(crate) async fn fuzz(server: &str, variable: &str, bench: Bench, dialect: Dialect, outside: impl Onlooker) {
    let seed = number("SEMEL_FUZZ_SEED", 1);
    let statements = usize::try_from(number(variable, 2_000)).expect("a number of statements");
    let grammar = Grammar { random: ChaCha8Rng::seed_from_u64(seed), dialect };
    let mut fuzzer = Fuzzer { bench, grammar, outside, report: Report::default() };
    let began = Instant::now();
    while fuzzer.report.tried < statements {
        if let Err((escape, said)) = fuzzer.transaction().await {
            panic!("SEMEL_FUZZ_SEED={seed}: {escape} after {said:#?}");
        }
    }
    let Report { tried, executed, committed, .. } = fuzzer.report;
    let line = format!("fuzz: {server}, SEMEL_FUZZ_SEED={seed}: in {:.1?} {:?}\n", began.elapsed(), fuzzer.report);
    std::io::stderr().write_all(line.as_bytes()).expect("standard error");
    assert!(executed * 100 >= tried * EXECUTED, "too few statements executed to prove anything");
    assert!(committed > 0, "nothing was ever committed");
}
