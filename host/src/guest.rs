//! What a component can ask of the host: one file per interface of `wit/`.
//!
//! Before it: [`crate::engine`] made a fresh instance. After it: the engine reads how the run ended from here. Each
//! interface is implemented on its own part of [`State`], so that `log.rs` cannot reach the transaction.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::{HasData, HasSelf, Linker};

use crate::clock::Timestamp;
use crate::engine::Run;
use crate::engine::label::Class;
use crate::engine::memory::Limiter;
use crate::manifest::Manifest;
use crate::outside::Grants;

pub(crate) mod bindings;
pub(crate) mod context;
pub(crate) mod deferred_http;
pub(crate) mod delivery;
pub(crate) mod log;
pub(crate) mod outbox;
pub(crate) mod state;
pub(crate) mod transaction;
mod value;
pub(crate) mod wasi;

use bindings::semel::function as wit;
use wasi::http::Caller;

/// What one deployed version is allowed and called; shared by its instances.
pub(crate) struct Settings {
    pub(crate) manifest: Manifest,
    pub(crate) class: Class,
    pub(crate) secret: [u8; 32],
    /// Servers that it may call.
    pub(crate) calls: Arc<Grants>,
}

impl Settings {
    pub(crate) fn new(manifest: Manifest, class: Class, secret: [u8; 32]) -> Self {
        let calls = Grants::parse(&manifest.grants.http).unwrap_or_default(); // Read when the manifest was checked.
        Self { manifest, class, secret, calls: Arc::new(calls) }
    }
}

/// What one instance owns. Made for one message, thrown away after it.
pub(crate) struct State {
    pub(crate) transaction: transaction::Transaction,
    pub(crate) outbox: outbox::Outbox,
    pub(crate) keyspace: state::Keyspace,
    pub(crate) context: context::Context,
    pub(crate) delivery: delivery::Delivery,
    pub(crate) log: log::Log,
    pub(crate) requests: deferred_http::Requests,
    pub(crate) wasi: wasi::Wasi,
    pub(crate) limiter: Limiter,
}

impl State {
    /// For one attempt at one message, which must end at its deadline (moved by the time spent waiting for the database).
    pub(crate) fn new(run: Run<'_>, times: Times, limiter: Limiter) -> Self {
        let Run { settings, message, claim, outside, .. } = run;
        let log = log::Log::new(times);
        let outside = outside.filter(|_| !settings.calls.is_empty());
        let caller = outside.map(|outside| Caller {
            outside: Arc::clone(outside),
            grants: Arc::clone(&settings.calls),
            secret: settings.secret,
            message: message.id.clone(),
            function: message.function.clone(),
            fence: claim.fence,
            attempt: claim.attempt,
            stop: Arc::clone(&run.stop),
        });
        let wasi = wasi::Wasi::new(&run, times, &log, caller);
        Self {
            transaction: transaction::Transaction::new(run.session, &settings.manifest.limits, times.deadline),
            outbox: outbox::Outbox::new(&message.id, &settings.manifest.grants.topics),
            keyspace: state::Keyspace::new(&message.function),
            context: context::Context::new(settings, message),
            delivery: delivery::Delivery::new(
                claim.attempt,
                claim.attempts_before + settings.manifest.max_attempts(),
                times,
            ),
            wasi,
            log,
            requests: deferred_http::Requests::new(settings, &message.id),
            limiter,
        }
    }
}

/// The instant of the start on both clocks, and when the run must be over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) started: Instant,
    pub(crate) started_at: Timestamp,
    pub(crate) deadline: Instant,
}

impl Times {
    /// The store's clock now, as far as it can be known without asking it.
    pub(crate) fn now(&self) -> Timestamp {
        self.started_at.plus(self.started.elapsed())
    }
}

struct WithTransaction<T>(std::marker::PhantomData<T>);

impl<T: 'static> HasData for WithTransaction<T> {
    type Data<'a> = View<'a, T>;
}

/// One part of the state together with the transaction.
pub(crate) struct View<'a, T> {
    pub(crate) transaction: &'a mut transaction::Transaction,
    pub(crate) own: &'a mut T,
}

/// Links every interface of `semel:function`, and of WASI what is not refused.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wit::types::add_to_linker::<_, HasSelf<transaction::Transaction>>(linker, |state| &mut state.transaction)?;
    wit::transaction::add_to_linker::<_, HasSelf<transaction::Transaction>>(linker, |state| &mut state.transaction)?;
    wit::context::add_to_linker::<_, HasSelf<context::Context>>(linker, |state| &mut state.context)?;
    wit::log::add_to_linker::<_, HasSelf<log::Log>>(linker, |state| &mut state.log)?;
    wit::deferred_http::add_to_linker::<_, WithTransaction<deferred_http::Requests>>(linker, |state| View {
        transaction: &mut state.transaction,
        own: &mut state.requests,
    })?;
    wit::delivery::add_to_linker::<_, WithTransaction<delivery::Delivery>>(linker, |state| View {
        transaction: &mut state.transaction,
        own: &mut state.delivery,
    })?;
    wit::outbox::add_to_linker::<_, WithTransaction<outbox::Outbox>>(linker, |state| View {
        transaction: &mut state.transaction,
        own: &mut state.outbox,
    })?;
    wit::state::add_to_linker::<_, WithTransaction<state::Keyspace>>(linker, |state| View {
        transaction: &mut state.transaction,
        own: &mut state.keyspace,
    })?;
    wasi::add_to_linker(linker)
}
