//! Running a component once: a fresh instance, bounded in fuel, time and memory.
//!
//! Before it: [`crate::worker`] holds a claim. After it: [`crate::settle`] decides what the outcome means. The session
//! is lent to the instance and handed back; nothing is dropped half-way: a deadline traps the guest or interrupts the
//! statement, and is then awaited.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, block_in_place};
use wasmtime::component::{Component, Linker};
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::calls::LedgerClient;
use crate::crash::{self, Point};
use crate::guest::bindings::MessageHandlerPre;
use crate::guest::bindings::semel::function::types;
use crate::guest::log::cut;
use crate::guest::transaction::{TimedOut, Verdict};
use crate::guest::{self, Settings, State, Times};
use crate::message::{Answer, Claim, Message, Outcome, Usage};
use crate::running::Stop;
use crate::store::Session;

pub mod catalog;
pub mod compiler;
mod artifact;
pub mod label;
pub(crate) mod limits;
mod routes;
pub(crate) mod memory;
mod sandbox;
mod threads;
mod witness;

use artifact::Cache;
use compiler::{Bounds, Compiler};
use limits::{ANSWER_BYTES, HOSTCALL_BYTES, MOST_HANDLES, REASON_BYTES};
use memory::{Budget, Limiter, Share};
use threads::Threads;
use witness::Start;

/// How often deadlines are looked at while WebAssembly runs.
const TICK: Duration = Duration::from_millis(10);

/// Compiles and runs components.
pub struct Engine {
    wasm: wasmtime::Engine,
    linker: Linker<State>,
    compiler: Compiler,
    cache: Option<Cache>,
    budget: Budget,
    threads: Threads,
}

/// What an engine may use of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Bytes that all runs together may hold.
    pub memory: u64,
    /// What compiling one component may use.
    pub compile: Bounds,
}

impl Default for Resources {
    fn default() -> Self {
        Self { memory: 1 << 30, compile: Bounds { seconds: 60, memory: 1 << 30 } }
    }
}

/// What one run needs.
pub(crate) struct Run<'a> {
    pub(crate) settings: &'a Arc<Settings>,
    pub(crate) handler: &'a MessageHandlerPre<State>,
    pub(crate) message: &'a Message,
    pub(crate) claim: &'a Claim,
    pub(crate) stop: Arc<Stop>,
    pub(crate) session: Box<dyn Session>,
    /// Who calls the servers that it is granted; without, every call is refused.
    pub(crate) outside: Option<&'a Arc<LedgerClient>>,
    /// Other messages have a part in its transaction.
    pub(crate) shares: bool,
}

/// How it ended.
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    pub(crate) usage: Usage,
    /// Outside calls that it wanted to make and that were refused for want of a grant.
    pub(crate) calls: Vec<String>,
    pub(crate) session: Box<dyn Session>,
}

impl Engine {
    /// One engine per process. It keeps no artifacts.
    ///
    /// # Errors
    /// If this machine cannot run WebAssembly, or the resources are not enough for one run.
    pub fn new(resources: Resources) -> anyhow::Result<Self> {
        let wasm = sandbox::engine()?;
        let mut linker = Linker::new(&wasm);
        guest::add_to_linker(&mut linker)?;
        tick(&wasm)?;
        let threads = Threads::start()?;
        let (compiler, budget) = (Compiler::new(resources.compile), Budget::new(resources.memory)?);
        Ok(Self { wasm, linker, compiler, cache: None, budget, threads })
    }

    /// Keeps artifacts in a folder from now on, so that a later start need not compile again.
    ///
    /// # Errors
    /// If the folder cannot be made, or others than this user may write to it.
    pub fn keep_artifacts(&mut self, folder: &Path, secret: &[u8; 32]) -> anyhow::Result<()> {
        self.cache = Some(Cache::open(folder, secret, &self.wasm)?);
        Ok(())
    }

    /// Makes a component ready to run, and checks it against the world: unknown imports and missing exports show here.
    ///
    /// # Errors
    /// Says what the bytes are instead of a component, or which import or export is wrong.
    pub(crate) async fn prepare(&self, bytes: &[u8]) -> Result<catalog::Compiled, String> {
        check_kind(bytes)?;
        let component = self.component(bytes).await?;
        let label = label::label(&self.wasm, &component)?;
        let linked = guest::wasi::refused::link(&self.linker, &self.wasm, &component)
            .and_then(|linker| linker.instantiate_pre(&component))
            .map_err(|e| format!("cannot be linked: {}", root(&e)))?;
        let handler = MessageHandlerPre::new(linked)
            .map_err(|e| format!("must export semel:function/handler@0.1.0: {}", root(&e)))?;
        Ok(catalog::Compiled { handler, label })
    }

    /// From the cache, or compiled.
    async fn component(&self, bytes: &[u8]) -> Result<Component, String> {
        let digest = block_in_place(|| hex::encode(Sha256::digest(bytes)));
        if let Some(component) = block_in_place(|| self.cached(&digest)) {
            return Ok(component);
        }
        let began = Instant::now();
        let artifact = self.compiler.compile(bytes).await?;
        block_in_place(|| {
            let component = artifact.load(&self.wasm).map_err(|e| format!("cannot be loaded: {}", root(&e)))?;
            if let Some(cache) = &self.cache {
                tracing::info!(digest, took = ?began.elapsed(), "compiled a component");
                cache.keep(&digest, &artifact);
            }
            Ok(component)
        })
    }

    fn cached(&self, digest: &str) -> Option<Component> {
        let artifact = self.cache.as_ref()?.find(digest)?;
        let loaded = artifact.load(&self.wasm);
        loaded.inspect_err(|error| tracing::warn!(%error, "an artifact of the cache does not load")).ok()
    }

    /// What a component imports, without running it; checks all that a deploy checks.
    ///
    /// # Errors
    /// As a deploy would say.
    pub async fn inspect(&self, bytes: &[u8]) -> Result<label::Label, String> {
        self.prepare(bytes).await.map(|compiled| compiled.label)
    }

    /// Begins a run on the guests' threads, in a task of its own: a panic ends it and nothing else.
    pub(crate) fn spawn<T: Send + 'static>(&self, run: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.threads.spawn(run)
    }

    /// Where that is.
    pub(crate) fn threads(&self) -> &Handle {
        self.threads.handle()
    }

    /// Waits until there is memory for a run of a message.
    pub(crate) async fn enter(&self, message: &Message) -> Share {
        self.budget.enter(message.body.len()).await
    }

    /// The same without waiting, if there is memory now and nobody waits for it.
    pub(crate) fn enter_now(&self, message: &Message) -> Option<Share> {
        self.budget.enter_now(message.body.len())
    }

    /// Waits for memory, and runs one message.
    pub(crate) async fn invoke(&self, run: Run<'_>, started_at: crate::clock::Timestamp) -> Ran {
        let asked = Instant::now();
        let share = self.enter(run.message).await;
        self.invoke_within(run, share, started_at.plus(asked.elapsed())).await
    }

    /// Runs one message in a fresh instance.
    pub(crate) async fn invoke_within(&self, run: Run<'_>, share: Share, started_at: crate::clock::Timestamp) -> Ran {
        let Run { settings, handler, message, claim, outside, shares, .. } = run;
        let stop = Arc::clone(&run.stop);
        let started = Instant::now();
        let times = Times { started, started_at, deadline: started + settings.manifest.timeout() };
        let limiter = Limiter::new(settings.manifest.limits.memory.0, share);
        let state = State::new(run, times, limiter);
        let mut store = Store::new(&self.wasm, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.set_max_component_handles(MOST_HANDLES);
        store.set_epoch_deadline(1);
        let asked = Arc::clone(&stop);
        store.epoch_deadline_callback(move |context| {
            if let Some(outcome) = asked.asked() {
                return Err(Stopped(outcome.clone()).into());
            }
            let late = Instant::now() >= context.data().transaction.deadline();
            if late { Err(TimedOut.into()) } else { Ok(UpdateDeadline::Yield(1)) }
        });
        let most_fuel = settings.manifest.limits.fuel.unwrap_or(u64::MAX);
        let fueled = store.set_fuel(most_fuel);
        let returned = match fueled {
            Ok(()) => call(handler, &mut store, message, Start { attempt: claim.attempt, shares }).await,
            Err(error) => Err(error),
        };
        let fuel = most_fuel.saturating_sub(store.get_fuel().unwrap_or(most_fuel));
        let mut state = store.into_data();
        // What it deferred is a part of what it did.
        let deferred = if let Ok(Ok(_)) = &returned { state.transaction.settle().await } else { Ok(()) };
        let returned = deferred.and(returned);
        if let (true, Some(outside)) = (state.wasi.end(), outside) {
            outside.give_up(&message.id, claim.fence, "the run ended before the call did").await;
        }
        let outcome = match (outcome(returned, &state), stop.asked()) {
            // It was interrupted while it waited, or in a statement, which ends the transaction with some databases.
            (Outcome::TimedOut | Outcome::Doomed(_), Some(asked)) => asked.clone(),
            (outcome, _) => outcome,
        };
        let (logs, logs_dropped) = state.log.take(&settings.manifest.name);
        let metered = !matches!(outcome, Outcome::TimedOut | Outcome::Cancelled | Outcome::ClaimLost);
        let usage = Usage {
            started_at: Some(started_at),
            ended_at: Some(times.now()),
            fuel: metered.then_some(fuel),
            statements: state.transaction.statements,
            sql_time: state.transaction.sql_time,
            published: state.outbox.published + state.requests.deferred,
            logs,
            logs_dropped,
        };
        let calls = state.wasi.refused();
        Ran { outcome, usage, calls, session: state.transaction.into_session() }
    }
}

type Returned = Result<Option<types::Response>, types::HandlerError>;

async fn call(
    handler: &MessageHandlerPre<State>,
    store: &mut Store<State>,
    message: &Message,
    start: Start,
) -> wasmtime::Result<Returned> {
    witness::saw(&message.id, start)?;
    crash::point(Point::RunInstantiating);
    let instance = handler.instantiate_async(&mut *store).await?;
    crash::point(Point::RunStarted);
    let message = types::Message {
        id: message.id.clone(),
        topic: message.topic.clone(),
        group: message.group.clone(),
        content_type: message.content_type.clone(),
        headers: message.headers.clone(),
        accepted_at: message.accepted_at.0,
        body: message.body.clone(),
    };
    instance.semel_function_handler().call_handle(store, &message).await
}

/// What the end of a run means. What the transaction says weighs more than what the guest says.
fn outcome(returned: wasmtime::Result<Returned>, state: &State) -> Outcome {
    let returned = match returned {
        Ok(returned) => returned,
        Err(error) => return stopped(&error, state),
    };
    match state.transaction.verdict() {
        Verdict::Forbidden(reason) => return Outcome::SqlForbidden(reason),
        Verdict::Doomed(reason) => return Outcome::Doomed(reason),
        Verdict::Fenced => return Outcome::ClaimLost,
        Verdict::Failed(reason) if returned.is_ok() => return Outcome::Failed { reason, delay: None },
        Verdict::Failed(_) | Verdict::Sound => {}
    }
    match returned {
        Ok(Some(response)) if size(&response) > ANSWER_BYTES => Outcome::Failed {
            reason: format!("the answer has {} bytes; at most {ANSWER_BYTES} are allowed", size(&response)),
            delay: None,
        },
        Ok(response) => Outcome::Completed(response.map(|response| Answer {
            content_type: response.content_type,
            headers: response.headers,
            body: response.body,
        })),
        Err(types::HandlerError::Reject(reason)) => Outcome::Refused(cut(reason, REASON_BYTES)),
        Err(types::HandlerError::Retry(retry)) => {
            Outcome::Failed { reason: cut(retry.reason, REASON_BYTES), delay: retry.delay.map(Duration::from_millis) }
        }
    }
}

/// Of the body and the headers.
fn size(response: &types::Response) -> usize {
    let content_type = response.content_type.as_ref().map_or(0, String::len);
    content_type
        + response.body.len()
        + response.headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum::<usize>()
}

fn stopped(error: &wasmtime::Error, state: &State) -> Outcome {
    let trap = error.downcast_ref::<Trap>();
    if error.is::<TimedOut>() || trap == Some(&Trap::Interrupt) {
        Outcome::TimedOut
    } else if let Some(Stopped(outcome)) = error.downcast_ref() {
        outcome.clone()
    } else if trap == Some(&Trap::OutOfFuel) {
        Outcome::OutOfFuel
    } else if let Some(refusal) = state.limiter.refusal() {
        Outcome::OutOfMemory(refusal.into())
    } else if error.is::<witness::Failed>() {
        Outcome::HostFailed(error.to_string())
    } else {
        // A guest that panics over a refusal of the host: the refusal is what there is to know.
        match state.transaction.verdict() {
            Verdict::Forbidden(reason) => Outcome::SqlForbidden(reason),
            Verdict::Doomed(reason) => Outcome::Doomed(reason),
            Verdict::Fenced => Outcome::ClaimLost,
            Verdict::Failed(_) | Verdict::Sound => Outcome::Trapped(trapped(error)),
        }
    }
}

/// Ends a run that was asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped(Outcome);

/// wasmtime calls the bound on what is handed over "fuel", as it does the guest's instructions.
fn trapped(error: &wasmtime::Error) -> String {
    let reason = root(error);
    if reason.contains("hostcalls") {
        return format!("more than {} MiB were handed to the host in one call", HOSTCALL_BYTES >> 20);
    }
    reason
}

/// The innermost cause: without wasmtime's backtrace, which names nothing that a user knows.
fn root(error: &wasmtime::Error) -> String {
    cut(error.root_cause().to_string(), REASON_BYTES)
}

/// A clear word for what people upload by mistake.
fn check_kind(bytes: &[u8]) -> Result<(), String> {
    let what = match bytes {
        [] => "empty",
        [0x7f, b'E', b'L', b'F', ..] => "an ELF file (a native program, or a compiled artifact)",
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            "a core WebAssembly module; build the function with `semel build`, or run `wasm-tools component new` on it"
        }
        [0, b'a', b's', b'm', _, 0, 1, 0, ..] => return Ok(()),
        [0, b'a', b's', b'm', ..] => "cut off, or WebAssembly of an unknown version",
        _ => "not WebAssembly",
    };
    Err(format!("the component is {what}"))
}

/// Moves the epoch on, for as long as the engine lives.
fn tick(wasm: &wasmtime::Engine) -> anyhow::Result<()> {
    let engine = wasm.weak();
    std::thread::Builder::new().name("semel-epoch".into()).spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    })?;
    Ok(())
}
