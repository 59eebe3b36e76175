//! One cell: a host is started and harmed at its moment, lives again, and everything is counted when nothing is left to do.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::armed::{armed, last_fired};
use super::super::client::Client;
use super::super::host::HostProcess;
use super::super::proxy::Proxy;
use super::super::receiver::Manner;
use super::cells::{Cell, Harm, commit_after};
use super::measure::{self, Seen};
use super::stage::{LEASE, Stage};
use super::{FUNCTION, batch};
use crate::crash::Point;
use crate::message::Contract;
use crate::relay;
use crate::store;

/// One is hit; the others wait behind it and must not notice. Nobody waits behind a message that is done.
const MESSAGES: usize = 3;
/// A fault that has not fired by then does not fire.
const FIRES_WITHIN: Duration = Duration::from_secs(60);
/// Longer than any cell takes that does not hang.
const LONGEST: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(10);

/// What came of a cell.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) cell: Cell,
    /// That what was to be done to the host was done, at that moment.
    pub(super) fired: bool,
    /// What became of the messages, the one that was hit first; empty if there was trouble.
    pub(super) messages: Vec<Seen>,
    /// Why it could not be carried out to the end.
    pub(super) trouble: Option<String>,
    pub(super) took: Duration,
}

impl Outcome {
    /// The message that was hit.
    pub(super) fn hit(&self) -> Option<&Seen> {
        self.messages.first()
    }

    /// For people who wait.
    pub(super) fn line(&self) -> String {
        let Cell { point, harm, contract, batch, .. } = self.cell;
        let batch = if batch { ", in a batch" } else { "" };
        let end = match (&self.trouble, self.hit()) {
            (Some(trouble), _) => trouble.clone(),
            (None, Some(hit)) => format!("{}, {:?}", hit.state, hit.counts),
            (None, None) => "nothing".to_owned(),
        };
        let (point, harm, contract) = (point.name(), harm.says(), contract.as_str());
        format!("{point}, {harm}, {contract}{batch}: {end} ({:.1} s)", self.took.as_secs_f64())
    }
}

/// Tries a cell, whatever comes of it.
pub(super) async fn run(stage: &mut Stage, cell: Cell) -> Outcome {
    let (began, mut fired) = (Instant::now(), false);
    let tried = timeout(LONGEST, attempt(stage, cell, &mut fired)).await;
    let tried = tried.unwrap_or_else(|_| Err(anyhow::anyhow!("it does not come to an end")));
    let (messages, trouble) = match tried {
        Ok(messages) => (messages, None),
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    };
    Outcome { cell, fired, messages, trouble, took: began.elapsed() }
}

async fn attempt(stage: &mut Stage, cell: Cell, fired: &mut bool) -> anyhow::Result<Vec<Seen>> {
    let Cell { shared, point, harm, contract, .. } = cell;
    let ground = if shared { "shared" } else { "file" };
    let of = if cell.batch { "batch" } else { contract.as_str() };
    let name = format!("{ground}-{}-{harm:?}-{of}", point.name()).to_lowercase();
    let database = stage.database(&name, contract).await?;
    let mut trial = Trial::start(stage, cell, name, database).await?;
    let (client, orders) = (trial.host.client().clone(), orders(stage, cell));
    let sending = tokio::spawn(async move {
        if cell.batch { batch::send_together(client, orders).await } else { send(&client, FUNCTION, orders).await }
    });
    trial.harm().await?;
    *fired = true;
    let ids = sending.await.context("the sender failed")??;
    stage.until_settled(trial.host.client()).await?;
    let (function, mut seen) = (if cell.batch { batch::FUNCTION } else { FUNCTION }, Vec::new());
    for id in ids {
        seen.push(measure::look(trial.host.client(), &stage.receiver, function, id).await?);
    }
    trial.host.kill().await?;
    if cell.batch {
        batch::check(&trial.witness(), harm, &seen)?;
        seen.swap(0, batch::HIT);
    } else {
        // Usually the first one: the one that shows it most.
        seen.sort_by_key(|message| Reverse((message.state != "completed", message.attempts.len())));
    }
    Ok(seen)
}

/// What the messages are told to do. Only the first one fails, or is not answered, where that is what is tried.
fn orders(stage: &Stage, cell: Cell) -> Vec<serde_json::Value> {
    if cell.batch {
        return batch::orders(cell.point, cell.harm);
    }
    let order = |manner, fail| json!({ "call": stage.receiver.url(manner), "fail": fail });
    let (first, others) = match cell.harm {
        Harm::Overtaken => (order(Manner::LaterLate, 0), order(Manner::LaterLate, 0)),
        Harm::Unanswered => (order(Manner::FirstUnanswered, 0), order(Manner::Prompt, 0)),
        // What else the message led to has ended by then.
        _ if cell.is_of_relay() => (order(Manner::Late, 0), order(Manner::Late, 0)),
        // It runs until leases are renewed.
        _ if cell.point == Point::RenewDue => (order(Manner::Late, 0), order(Manner::Prompt, 0)),
        _ => (order(Manner::Prompt, u32::from(cell.point == Point::RolledBack)), order(Manner::Prompt, 0)),
    };
    let mut orders = vec![others; if cell.is_of_relay() { 1 } else { MESSAGES }];
    orders[0] = first;
    orders
}

/// Sends the messages one after another, each until it is accepted.
pub(super) async fn send(
    client: &Client,
    function: &str,
    orders: Vec<serde_json::Value>,
) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    for order in orders {
        let key = Uuid::now_v7().to_string();
        ids.push(client.send(&format!("/fn/{function}"), &key, order.to_string().as_bytes()).await?.id);
    }
    Ok(ids)
}

struct Trial<'a> {
    stage: &'a Stage,
    cell: Cell,
    name: String,
    database: String,
    host: HostProcess,
    /// Takes over where hosts share a database.
    second: Option<HostProcess>,
    proxy: Option<Proxy>,
    fired: PathBuf,
}

impl<'a> Trial<'a> {
    async fn start(stage: &'a Stage, cell: Cell, name: String, database: String) -> anyhow::Result<Self> {
        let fired = stage.file(&format!("{name}.fired"));
        // Of an earlier run.
        for file in [&fired, &witness(stage, &name)] {
            if file.exists() {
                std::fs::remove_file(file)?;
            }
        }
        let needs_proxy = cell.harm.of_network().is_some() || cell.harm == Harm::Overtaken;
        let proxy = if needs_proxy { Some(Proxy::start(&database).await?) } else { None };
        let first = match (cell.point, cell.harm) {
            (_, Harm::Unanswered | Harm::Trap) => None,
            // Somebody must have died for recovery to find something.
            (Point::RecoverFound, _) => Some((Point::RunWritten, "kill".to_owned())),
            (point, harm) if cell.batch => Some((point, format!("{}:{}", action(harm), batch::times(point)))),
            (point, harm) => Some((point, action(harm).to_owned())),
        };
        let mut variables = first.map_or_else(Vec::new, |(point, action)| armed(point, &action, &fired));
        if cell.batch {
            variables.push(("SEMEL_WITNESS".to_owned(), witness(stage, &name).into()));
        }
        let url = proxy.as_ref().map_or(database.as_str(), Proxy::url);
        let host = stage.host(&name, url, cell.contract, variables).await?;
        Ok(Self { stage, cell, name, database, host, second: None, proxy, fired })
    }

    async fn harm(&mut self) -> anyhow::Result<()> {
        let Cell { point, harm, .. } = self.cell;
        if point == Point::RecoverFound {
            self.died(Point::RunWritten).await?;
            self.start_again(armed(point, action(harm), &self.fired)).await?;
        }
        match harm {
            Harm::Kill | Harm::Power => {
                self.died(point).await?;
                self.start_again(Vec::new()).await?;
            }
            Harm::Stop => {
                self.frozen(point).await?;
                self.start_second().await?;
                let lease = if self.cell.is_of_relay() { relay::LEASE } else { LEASE };
                sleep(lease * 2).await;
                self.host.signal(Signal::CONT)?;
            }
            Harm::DatabaseKill => {
                self.frozen(point).await?;
                self.stage.kill_database().await?;
                self.host.signal(Signal::CONT)?;
            }
            Harm::CutBefore | Harm::CutAfter => self.cut().await?,
            Harm::Overtaken => self.overtaken().await?,
            Harm::Unanswered | Harm::Trap => {}
        }
        Ok(())
    }

    /// The commit that comes next is lost, or its answer.
    async fn cut(&mut self) -> anyhow::Result<()> {
        self.frozen(self.cell.point).await?;
        let proxy = self.proxy.as_ref().context("there is no line to cut")?;
        let of = commit_after(self.cell.point).context("no commit comes after this point")?;
        proxy.next(of, self.cell.harm.of_network().context("this is nothing that a network does")?, 1);
        self.host.signal(Signal::CONT)?;
        let cut = async {
            while proxy.fired().all() == 0 {
                sleep(POLL).await;
            }
        };
        timeout(FIRES_WITHIN, cut).await.context("the line was not cut")
    }

    /// The acknowledgement is on its way while another host takes the message over, and arrives while that one runs it.
    async fn overtaken(&mut self) -> anyhow::Result<()> {
        self.frozen(self.cell.point).await?;
        let held = self.proxy.as_ref().context("there is no line to hold")?.hold_acknowledgement();
        self.host.signal(Signal::CONT)?;
        timeout(FIRES_WITHIN, held).await.context("no acknowledgement was sent")??;
        self.host.signal(Signal::STOP)?;
        self.start_second().await?;
        let first = self.host.id().context("the host has not said who it is")?;
        let taken = async {
            loop {
                let held = store::held(&self.database).await?;
                let others = held.iter().filter(|held| held.host != first).count();
                // A begin-once message that has begun is nobody's any more.
                if others == held.len() && (others > 0 || self.cell.contract == Contract::BeginOnce) {
                    return anyhow::Ok(());
                }
                sleep(POLL).await;
            }
        };
        timeout(FIRES_WITHIN, taken).await.context("nobody has taken over")??;
        self.host.signal(Signal::CONT)?;
        self.proxy.iter().for_each(Proxy::restore);
        Ok(())
    }

    /// What the first host has started, in a batch.
    fn witness(&self) -> PathBuf {
        witness(self.stage, &self.name)
    }

    async fn start_second(&mut self) -> anyhow::Result<()> {
        if self.cell.shared {
            let name = format!("{}-second", self.name);
            self.second = Some(self.stage.host(&name, &self.database, self.cell.contract, Vec::new()).await?);
        }
        Ok(())
    }

    /// Starts the host again, and does not insist that it lives: what it is armed with may be faster.
    async fn start_again(&mut self, mut variables: Vec<(String, OsString)>) -> anyhow::Result<()> {
        let armed = !variables.is_empty();
        variables.extend(self.stage.variables(self.cell.contract));
        self.host.set_variables(variables);
        let (fired, point) = (self.fired.clone(), self.cell.point);
        tokio::select! {
            up = self.host.restart() => match up {
                Err(error) if !armed || last_fired(&fired) != Some(point) => Err(error),
                _ => Ok(()),
            },
            () = async { while !armed || last_fired(&fired) != Some(point) { sleep(POLL).await } } => Ok(()),
        }
    }

    /// The host has ended itself at this point.
    async fn died(&mut self, point: Point) -> anyhow::Result<()> {
        if self.host.process().is_some() {
            let status = self.host.ended().await.with_context(|| format!("{} did not fire", point.name()))?;
            ensure!(status.signal() == Some(9), "the host did not die by SIGKILL, but ended: {status}");
        }
        ensure!(last_fired(&self.fired) == Some(point), "the host died, but not at {}", point.name());
        Ok(())
    }

    /// The host stands still at this point.
    async fn frozen(&self, point: Point) -> anyhow::Result<()> {
        let frozen = async {
            while !self.host.is_stopped() || last_fired(&self.fired) != Some(point) {
                sleep(POLL).await;
            }
        };
        timeout(FIRES_WITHIN, frozen).await.with_context(|| format!("{} did not fire", point.name()))
    }
}

fn witness(stage: &Stage, name: &str) -> PathBuf {
    stage.file(&format!("{name}.witness"))
}

/// What a host does to itself, so that this can be done to it.
fn action(harm: Harm) -> &'static str {
    match harm {
        Harm::Kill => "kill",
        Harm::Power => "power",
        _ => "stop",
    }
}
