//! WASI 0.2, for components of other languages: what their runtimes want to be there, and nothing that reaches out of
//! the host.
//!
//! Clocks and randomness are pinned: equal on every attempt at one message. There is no environment and no input; what
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
use super::{Settings, State};
use crate::clock::Timestamp;
use crate::engine::limits::{FIELD_BYTES, MOST_RESOURCES, WASI_RANDOM_BYTES};
use crate::message::{Message, keyed};

pub(crate) mod http;
mod io;
mod output;
pub(crate) mod refused;
mod time;

use http::{Caller, Calls};
use io::Io;
use output::Output;
use time::{Clocks, Monotonic};

/// What one instance has of WASI.
pub(crate) struct Wasi {
    settings: Arc<Settings>,
    function: String,
    message: String,
    accepted_at: Timestamp,
    log: Log,
    calls: Calls,
    made: Option<Made>,
}

struct Made {
    context: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    monotonic: Monotonic,
    outputs: [Output; 2],
}

impl Wasi {
    /// Without a caller, HTTP is refused.
    pub(crate) fn new(settings: &Arc<Settings>, message: &Message, log: &Log, caller: Option<Caller>) -> Self {
        Self {
            settings: Arc::clone(settings),
            function: message.function.clone(),
            message: message.id.clone(),
            accepted_at: message.accepted_at,
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
            Made { context, http, table, monotonic: Monotonic::default(), outputs }
        });
        (made, &mut self.calls)
    }

    fn cli(&mut self) -> WasiCliCtxView<'_> {
        let made = self.made();
        WasiCliCtxView { ctx: made.context.cli(), table: &mut made.table }
    }

    fn clocks(&mut self) -> Clocks<'_> {
        let accepted_at = self.accepted_at;
        let made = self.made();
        Clocks { accepted_at, monotonic: &made.monotonic, table: &mut made.table }
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
    Io { deadline: state.transaction.deadline(), table: &mut state.wasi.made().table }
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
