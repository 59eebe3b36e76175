//! WASI 0.2, for components of other languages: what their runtimes want to be there, and nothing that reaches out of
//! the host.
//!
//! Clocks (unless real ones are granted) and randomness are pinned: equal on every attempt at one message. There is no environment and no input; what
//! is written is logged. Files and sockets are refused ([`refused`]), and so is HTTP that is not granted. Made when a
//! component first calls it: most never do.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliCtxView};
use wasmtime_wasi::p2::bindings::{cli, clocks, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};
use wasmtime_wasi_http::p2::bindings::http::{outgoing_handler, types};
use wasmtime_wasi_http::{WasiHttp, WasiHttpCtx, WasiHttpCtxView};
use wasmtime_wasi_io::bindings::wasi::io::{error, poll, streams};

use super::log::Log;
use super::{Settings, State, Times};
use crate::engine::Run;
use crate::engine::limits::{FIELD_BYTES, MOST_RESOURCES, WASI_RANDOM_BYTES};
use crate::manifest::Clock as Granted;
use crate::message::keyed;
use crate::running::Stop;

pub(crate) mod http;
mod io;
mod output;
pub(crate) mod refused;
mod time;

use http::{Caller, Calls};
use io::{Io, Until};
use output::Output;
use time::{Clock, Clocks};

/// What one instance has of WASI.
pub(crate) struct Wasi {
    settings: Arc<Settings>,
    function: String,
    message: String,
    clock: Clock,
    stop: Arc<Stop>,
    log: Log,
    calls: Calls,
    made: Option<Made>,
}

struct Made {
    context: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    outputs: [Output; 2],
}

impl Wasi {
    /// Without a caller, HTTP is refused.
    pub(crate) fn new(run: &Run<'_>, times: Times, log: &Log, caller: Option<Caller>) -> Self {
        let message = run.message;
        Self {
            settings: Arc::clone(run.settings),
            function: message.function.clone(),
            message: message.id.clone(),
            clock: match run.settings.manifest.grants.clock {
                Granted::Pinned => Clock::Pinned(message.accepted_at, Arc::default()),
                Granted::Real => Clock::Real(times),
            },
            stop: Arc::clone(&run.stop),
            log: log.clone(),
            calls: Calls::new(caller),
            made: None,
        }
    }

    /// The run is over: what was written last need not end with a line break, and calls that go on are given up. Says
    /// whether there were calls.
    pub(crate) fn end(&mut self) -> bool {
        if let Some(made) = self.made.take() {
            made.outputs.iter().for_each(Output::end);
        }
        self.calls.any()
    }

    /// Calls that it handed over without being granted any.
    pub(crate) fn refused(&mut self) -> Vec<String> {
        std::mem::take(&mut self.calls.refused)
    }

    fn made(&mut self) -> &mut Made {
        self.parts().0
    }

    /// What is made on first use, and the calls beside it.
    fn parts(&mut self) -> (&mut Made, &mut Calls) {
        let made = self.made.get_or_insert_with(|| {
            let seed = |purpose| keyed(&self.settings.secret, purpose, &[&self.function, &self.message]);
            let outputs = [Output::new(&self.log, "info"), Output::new(&self.log, "warn")];
            let context = WasiCtxBuilder::new()
                .secure_random(ChaCha20Rng::from_seed(seed("semel wasi random")))
                .insecure_random(ChaCha20Rng::from_seed(seed("semel wasi insecure random")))
                .insecure_random_seed(ChaCha20Rng::from_seed(seed("semel wasi insecure seed")).random())
                .max_random_size(WASI_RANDOM_BYTES)
                .stdout(outputs[0].clone())
                .stderr(outputs[1].clone())
                .build();
            let mut table = ResourceTable::new();
            table.set_max_capacity(MOST_RESOURCES);
            let mut http = WasiHttpCtx::new();
            http.set_field_size_limit(FIELD_BYTES);
            Made { context, http, table, outputs }
        });
        (made, &mut self.calls)
    }

    fn cli(&mut self) -> WasiCliCtxView<'_> {
        let made = self.made();
        WasiCliCtxView { ctx: made.context.cli(), table: &mut made.table }
    }

    fn clocks(&mut self) -> Clocks<'_> {
        let clock = self.clock.clone();
        Clocks { clock, table: &mut self.made().table }
    }
}

/// The part of the state that calls other servers.
fn http(state: &mut State) -> WasiHttpCtxView<'_> {
    let deadline = state.transaction.deadline();
    let (made, calls) = state.wasi.parts();
    calls.deadline = deadline;
    WasiHttpCtxView { hooks: calls, table: &mut made.table, ctx: &mut made.http }
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

fn io(state: &mut State) -> Io<'_> {
    let until = Until { deadline: state.transaction.deadline(), stop: Arc::clone(&state.wasi.stop) };
    Io { until, table: &mut state.wasi.made().table }
}

/// Links everything but what is refused.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    error::add_to_linker::<State, Table>(linker, |state| &mut state.wasi.made().table)?;
    poll::add_to_linker::<State, Io<'static>>(linker, io)?;
    streams::add_to_linker::<State, Io<'static>>(linker, io)?;
    clocks::wall_clock::add_to_linker::<State, Clocks<'static>>(linker, |state| state.wasi.clocks())?;
    clocks::monotonic_clock::add_to_linker::<State, Clocks<'static>>(linker, |state| state.wasi.clocks())?;
    random::random::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.made().context.random())?;
    random::insecure::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.made().context.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.made().context.random())?;
    cli::environment::add_to_linker::<State, WasiCli>(linker, |state| state.wasi.cli())?;
    cli::exit::add_to_linker::<State, WasiCli>(linker, |state| state.wasi.cli())?;
    cli::stdin::add_to_linker::<State, WasiCli>(linker, |state| state.wasi.cli())?;
    cli::stdout::add_to_linker::<State, WasiCli>(linker, |state| state.wasi.cli())?;
    cli::stderr::add_to_linker::<State, WasiCli>(linker, |state| state.wasi.cli())?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(linker, |state| state.wasi.cli())?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(linker, |state| state.wasi.cli())?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, |state| state.wasi.cli())?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, |state| state.wasi.cli())?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, |state| state.wasi.cli())?;
    types::add_to_linker::<State, WasiHttp>(linker, &types::LinkOptions::default(), http)?;
    outgoing_handler::add_to_linker::<State, WasiHttp>(linker, http)
}
