//! The essay's list, carried out: on a host of its own, since most of it ends the host.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::json;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::armed::{armed, last_fired};
use super::super::client::{Client, Message};
use super::super::host::{HostOptions, HostProcess};
use super::super::place::Place;
use super::super::reader::{self, READER};
use super::super::witness::Witness;
use super::essay::{ALL, ATTEMPTS, Death, End, Fault, Line, Row};
use super::{MISBEHAVE, Options};
use crate::crash::Point;
use crate::message::Contract;

/// Waits as long as it is told, and leaves a row.
pub(super) const WAITS: &str = "effort";
pub(super) const CONTRACTS: [Contract; 2] = [Contract::FinishOnce, Contract::BeginOnce];
/// How long a message that is to lose its host would run: longer than any host takes to die.
const RUNS: Duration = Duration::from_secs(50);
/// How long a message runs before it writes: its sender has the answer by then, or asks again.
const UNTIL_ANSWERED: Duration = Duration::from_millis(300);
/// A loss of power that has not come by then does not come.
const FIRES_WITHIN: Duration = Duration::from_secs(30);
/// What `misbehave` logs, and what makes a host function panic.
const LOGGED: &str = "asked to log";
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two signals to a process that has not ended, and two requests to one that is to need memory.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Large requests at the same time.
const FEWEST_BODIES: usize = 16;
const MOST_BODIES: usize = 256;

/// A message on its way.
struct Sent {
    line: Line,
    contract: Contract,
    id: String,
    fired: bool,
}

/// Every line under both contracts, and where its message ended.
pub(super) async fn all(options: &Options, place: &Place) -> anyhow::Result<Vec<Row>> {
    let witness = witness(place);
    File::create(&witness).context("cannot make the witness file")?;
    let mut host = start(options, place).await?;
    install(&host, options, place).await?;
    let mut sent = Vec::new();
    for line in ALL {
        if let Fault::Run { order, .. } = line.fault {
            let body = json!({ "do": order, "millis": 60_000 }).to_string();
            sent.extend(send(host.client(), line, MISBEHAVE, &body).await?);
        }
    }
    until_settled(&mut host).await?;
    for line in ALL {
        if let Fault::Power(point) = line.fault {
            for contract in CONTRACTS {
                sent.push(lose_power(&mut host, place, line, point, contract).await?);
            }
        }
        if let Fault::Process(death) = line.fault {
            let body = json!({ "millis": RUNS.as_millis() as u64, "slow_attempts": 1 }).to_string();
            let mut both = send(host.client(), line, WAITS, &body).await?;
            until_started(&witness, &both).await?;
            let status = inflict(&mut host, death).await?;
            both.iter_mut().for_each(|sent| sent.fired = status.signal() == Some(signal(death).as_raw()));
            host.restart().await?;
            until_settled(&mut host).await?;
            sent.extend(both);
        }
    }
    let rows = look(host.client(), &Witness::read(&witness)?, sent).await;
    host.kill().await?;
    rows
}

fn witness(place: &Place) -> PathBuf {
    place.folder().join("witness-of-deaths.txt")
}

/// What the host always has in its environment.
fn variables(place: &Place) -> Vec<(String, OsString)> {
    vec![("SEMEL_WITNESS".to_owned(), witness(place).into()), ("SEMEL_PANIC".to_owned(), LOGGED.into())]
}

async fn start(options: &Options, place: &Place) -> anyhow::Result<HostProcess> {
    let mut host = HostOptions::new(place.database("deaths"), place.folder().join("deaths"))?;
    if let Some(program) = &options.program {
        host.program.clone_from(program);
    }
    host.variables = variables(place);
    HostProcess::start(host).await
}

fn name(function: &str, contract: Contract) -> String {
    format!("{function}-{}", contract.as_str())
}

/// Both functions under each contract.
async fn install(host: &HostProcess, options: &Options, place: &Place) -> anyhow::Result<()> {
    let client = host.client();
    for function in [READER, MISBEHAVE, WAITS] {
        client.deploy(&options.functions.join(function), None).await?;
    }
    for contract in CONTRACTS {
        let retry = "backoff = { initial = \"20ms\" }";
        let short =
            format!("[limits]\ntimeout = \"1s\"\nmemory = \"24MiB\"\n[retry]\nmax_attempts = {ATTEMPTS}\n{retry}");
        let long = format!("[limits]\ntimeout = \"60s\"\nlease = \"120s\"\n[retry]\n{retry}");
        for (function, lines) in [(MISBEHAVE, short), (WAITS, long)] {
            let folder: PathBuf =
                place.function(&name(function, contract), &options.functions.join(function), &lines)?;
            client.deploy(&folder, Some(contract.as_str())).await?;
        }
    }
    Ok(())
}

/// To the function under each contract.
async fn send(client: &Client, line: Line, function: &str, body: &str) -> anyhow::Result<Vec<Sent>> {
    let mut sent = Vec::new();
    for contract in CONTRACTS {
        let id = send_one(client, &name(function, contract), body).await?;
        sent.push(Sent { line, contract, id, fired: true });
    }
    Ok(sent)
}

async fn send_one(client: &Client, function: &str, body: &str) -> anyhow::Result<String> {
    Ok(client.send(&format!("/fn/{function}"), &Uuid::now_v7().to_string(), body.as_bytes()).await?.id)
}

async fn until_settled(host: &mut HostProcess) -> anyhow::Result<()> {
    let began = Instant::now();
    while host.client().open().await? > 0 {
        host.check_alive()?;
        ensure!(began.elapsed() < PATIENCE, "messages are not settled; the host's log is {}", host.log().display());
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn until_started(witness: &std::path::Path, sent: &[Sent]) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let seen = Witness::read(witness)?;
        if sent.iter().all(|sent| seen.starts(&sent.id) > 0) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "messages do not start");
        sleep(LOOK_EVERY).await;
    }
}

/// One message whose host loses power at that point, and is there again.
async fn lose_power(
    host: &mut HostProcess,
    place: &Place,
    line: Line,
    point: Point,
    contract: Contract,
) -> anyhow::Result<Sent> {
    let file = place.folder().join(format!("power-{}-{}.fired", point.name(), contract.as_str()));
    host.kill().await?;
    host.set_variables([variables(place), armed(point, "power", &file)].concat());
    host.restart().await?;
    let sending = tokio::spawn({
        let (client, function) = (host.client().clone(), name(WAITS, contract));
        let body = json!({ "millis": UNTIL_ANSWERED.as_millis() as u64, "slow_attempts": 1 }).to_string();
        async move { send_one(&client, &function, &body).await }
    });
    let ended = timeout(FIRES_WITHIN, host.ended()).await;
    let killed = matches!(ended, Ok(Ok(status)) if status.signal() == Some(Signal::KILL.as_raw()));
    let fired = killed && last_fired(&file) == Some(point);
    host.set_variables(variables(place));
    host.restart().await?;
    let id = sending.await.context("the sender failed")??;
    until_settled(host).await?;
    Ok(Sent { line, contract, id, fired })
}

fn signal(death: Death) -> Signal {
    match death {
        // Who is refused memory that he cannot do without aborts himself.
        Death::Abort | Death::Memory => Signal::ABORT,
        Death::Segfault => Signal::SEGV,
        Death::Kill => Signal::KILL,
    }
}

/// Returns when the process has ended.
async fn inflict(host: &mut HostProcess, death: Death) -> anyhow::Result<ExitStatus> {
    host.check_alive()?;
    let process = host.process().and_then(|id| Pid::from_raw(id.cast_signed())).context("the host is down")?;
    let client = host.client().clone();
    let mut bodies = FEWEST_BODIES;
    let again = async {
        if death == Death::Memory {
            let none = Rlimit { current: Some(0), maximum: Some(0) };
            let _ = prlimit(Some(process), Resource::As, none); // If it is not heard, the verdict says so.
        }
        loop {
            match death {
                Death::Memory => {
                    need_memory(&client, bodies).await;
                    bodies = MOST_BODIES.min(bodies * 2);
                }
                // The first SIGSEGV meets a handler that looks whose fault it is; then the system's own is back.
                _ => drop(kill_process(process, signal(death))),
            }
            sleep(AGAIN_AFTER).await;
        }
    };
    tokio::select! {
        status = host.ended() => status,
        () = again => unreachable!("it goes on until the process has ended"),
    }
}

/// So many bodies that need to be kept, all at once. Few of them may find room in memory that the host has already.
async fn need_memory(client: &Client, bodies: usize) {
    let body = vec![b'x'; 900_000];
    let path = format!("/fn/{}", name(MISBEHAVE, Contract::FinishOnce));
    let key = Uuid::now_v7().to_string();
    let tries = std::iter::repeat_with(|| client.try_send(&path, &key, &body));
    futures_util::future::join_all(tries.take(bodies)).await;
}

async fn look(client: &Client, witness: &Witness, sent: Vec<Sent>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for Sent { line, contract, id, fired } in sent {
        let is_run = matches!(line.fault, Fault::Run { .. });
        let (function, table) = if is_run { (MISBEHAVE, "misbehaviour") } else { (WAITS, "efforts") };
        let messages = client.messages(&name(function, contract)).await?;
        let state = messages.into_iter().find(|message| message.id == id).map_or("lost".to_owned(), state);
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE message_id = $1");
        let effects = reader::number(client, &sql, &[&id]).await?;
        rows.push(Row { line, contract, fired, end: End { state, starts: witness.starts(&id), effects } });
    }
    rows.sort_by_key(|row| ALL.iter().position(|line| *line == row.line));
    Ok(rows)
}

fn state(message: Message) -> String {
    let reason = message.last_error.as_ref().and_then(|error| error["kind"].as_str()).unwrap_or("no reason");
    if message.state == "dead" { format!("dead: {reason}") } else { message.state }
}
