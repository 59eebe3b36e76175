//! Misbehaviour in bulk: does a function that does what it should not take anything with it but its own run?
//!
//! Method: a host gets `counter` and `misbehave`, whose messages have one attempt and 100 ms. After a warm-up of every
//! kind of misbehaviour, its resident memory, open files and the median latency of `counter` are taken. Then come the
//! messages, in a random order, with messages to `counter` between them. When all are settled the same is measured
//! again. A second host that gets none of it is measured in turn with the first, call by call, so that what the
//! machine does meanwhile is not taken for something that the host does. How to read it: each kind has ends that it
//! may come to; one run under another end, or one row that a failed run left, is a failure, and so is more than 10 %.
//!
//! Then a third host gets each line of the essay's list of failures under both contracts, also those that end the process. What
//! ends the run alone is known, and the message is dead with the reason. What ends the process leaves a finish-once message to be
//! finished by the next one, with its effect there once, and a begin-once message in doubt. Where its machine loses power, all is
//! lost that was not synced, and nothing else.

use std::path::{Path, PathBuf};

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use self::vitals::Vitals;
use super::client::Message;
use super::host::{HostOptions, HostProcess};
use super::place::{Place, check_built};
use super::reader::{self, READER};
use super::witness::Witness;
use super::{Environment, Notify, Report};

pub mod kinds;
mod load;
mod vitals;
mod essay;
mod deaths;
mod verdict;
mod findings;

const COUNTER: &str = "counter";
const MISBEHAVE: &str = "misbehave";
/// `misbehave` with less fuel than its endless loop takes.
const THIRSTY: &str = "thirsty";
/// Takes what is published, were it ever published.
const RECEIPTS: &str = "receipts";
/// One to warm up for so many that count: what a host keeps for later is kept by then.
const WARM_UP: u64 = 2;

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's binary, if it is not the running program.
    pub program: Option<PathBuf>,
    /// Repeats the order of the messages.
    pub seed: u64,
    /// Where the report goes, and what the run leaves behind.
    pub out: PathBuf,
    /// Messages that misbehave, spread evenly over the kinds; rounded up to as many of each.
    pub messages: u64,
    /// Where `make guests` put the functions.
    pub functions: PathBuf,
    /// Senders at work at the same time.
    pub clients: usize,
    /// Calls of `counter` whose latency is measured, before and after, on each of the two hosts.
    pub samples: usize,
}

impl Options {
    /// How many messages of each kind.
    fn of_each_kind(&self) -> u64 {
        self.messages.div_ceil(kinds::ALL.len() as u64)
    }

    /// And before anything is measured.
    fn to_warm_up(&self) -> u64 {
        self.of_each_kind().div_ceil(WARM_UP)
    }
}

/// Everything that a verdict and a report are made of.
struct Evidence {
    /// How many runs of each kind came to which end.
    tallies: Vec<load::Tally>,
    /// Messages to `counter`, in between and to measure.
    counted: Counted,
    /// Messages that are still available or running.
    open: u64,
    /// Runs of messages that misbehave which the witness saw, but for those in vain beside others in one transaction.
    starts: u64,
    /// Messages that were started more often than once in vain and once alone on one attempt.
    repeated: u64,
    /// Rows of failed runs, and messages that they published.
    left: u64,
    start: Vitals,
    before: Pair,
    after: Pair,
    /// The essay's list, under both contracts.
    essay: Vec<essay::Row>,
}

/// `counter` as it was asked, and as it counted.
struct Counted {
    asked: u64,
    count: u64,
}

/// The host that is put to the test, and the one beside it.
#[derive(Debug, Clone, Copy)]
struct Pair {
    tested: Vitals,
    beside: Vitals,
}

/// Runs the experiment. The report is the caller's to write and print.
///
/// # Errors
/// If the experiment could not be carried out. A broken promise is not an error, but a verdict.
pub async fn run(options: &Options, notify: Notify<'_>) -> anyhow::Result<Report> {
    check_built(&options.functions, &[COUNTER, MISBEHAVE, RECEIPTS, READER, deaths::WAITS])?;
    let place = Place::take(&options.out)?;
    let environment = Environment::observe(options.seed, &place.database("tested"));
    let witness = place.witness()?;
    let mut tested = start(options, &place, "tested", Some(&witness)).await?;
    let mut beside = start(options, &place, "beside", None).await?;
    install(&tested, options, &place).await?;
    install(&beside, options, &place).await?;
    let at_start = Vitals::of(&tested)?;

    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    notify("warming up");
    let mut warm = load::Load::new(options.to_warm_up(), &mut random);
    warm.run(&mut tested, options.clients, notify).await?;
    vitals::latencies([&tested, &beside], options.samples / 4).await?;
    let before = vitals::measure(&tested, &beside, options.samples).await?;

    let mut load = load::Load::new(options.of_each_kind(), &mut random);
    load.run(&mut tested, options.clients, notify).await?;
    let after = vitals::measure(&tested, &beside, options.samples).await?;
    tested.check_alive()?;

    let mut evidence = look(&tested, &witness, [&warm, &load], (at_start, before, after)).await?;
    tested.kill().await?;
    beside.kill().await?;
    notify("the essay's list");
    evidence.essay = deaths::all(options, &place).await?;
    Ok(findings::report(options, &evidence, environment.finished()))
}

async fn start(options: &Options, place: &Place, name: &str, witness: Option<&Path>) -> anyhow::Result<HostProcess> {
    let mut host = HostOptions::new(place.database(name), place.folder().join(name))?;
    if let Some(program) = &options.program {
        host.program.clone_from(program);
    }
    if let Some(witness) = witness {
        host = host.variable("SEMEL_WITNESS", witness);
    }
    HostProcess::start(host).await
}

/// The functions, and `misbehave` twice more as this experiment wants it: with 100 ms, and with little fuel.
async fn install(host: &HostProcess, options: &Options, place: &Place) -> anyhow::Result<()> {
    for name in [COUNTER, RECEIPTS, READER, MISBEHAVE] {
        host.client().deploy(&options.functions.join(name), None).await?;
    }
    for (name, limits) in [(MISBEHAVE, "timeout = \"100ms\""), (THIRSTY, "timeout = \"2s\"\nfuel = 5_000_000")] {
        let lines = format!(
            "[limits]\n{limits}\nmemory = \"24MiB\"\n[retry]\nmax_attempts = 1\n[grants]\ntopics = [\"receipts\"]"
        );
        let folder = place.function(name, &options.functions.join(MISBEHAVE), &lines)?;
        host.client().deploy(&folder, None).await?;
    }
    Ok(())
}

/// What is to be seen when all is over.
async fn look(
    host: &HostProcess,
    witness: &Path,
    loads: [&load::Load; 2],
    (start, before, after): (Vitals, Pair, Pair),
) -> anyhow::Result<Evidence> {
    let client = host.client();
    // Before the reader runs: then every other start in the file is of a message that was sent here.
    let witness = Witness::read(witness)?;
    let mut messages = client.messages(MISBEHAVE).await?;
    messages.extend(client.messages(THIRSTY).await?);
    let is_open = |message: &&Message| ["available", "running"].contains(&message.state.as_str());
    let left = reader::number(client, "SELECT COUNT(*) FROM misbehaviour", &[]).await?;
    let published = client.counts(RECEIPTS).await?;
    Ok(Evidence {
        tallies: load::tally(loads, &messages),
        counted: Counted {
            asked: client.messages(COUNTER).await?.len() as u64,
            count: reader::number(client, "SELECT SUM(n) FROM counters", &[]).await?,
        },
        open: messages.iter().filter(is_open).count() as u64,
        starts: messages.iter().map(|message| witness.starts(&message.id)).sum(),
        repeated: messages.iter().filter(|message| witness.repeats_an_attempt(&message.id)).count() as u64,
        left: left + published.open() + published.settled(),
        start,
        before,
        after,
        essay: Vec::new(),
    })
}
