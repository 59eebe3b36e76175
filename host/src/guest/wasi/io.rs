//! `wasi:io`: the only interface of WASI whose calls wait. They wait until the run must be over or is asked to end, and not
//! longer: while a call of the host goes on, neither fuel nor the epoch ends anything.
//!
//! What they do is wasmtime's; the bound is ours.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep_until;
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};
use wasmtime_wasi_io::bindings::wasi::io::poll::{self, HostPollable};
use wasmtime_wasi_io::bindings::wasi::io::streams::{self, HostInputStream, HostOutputStream};

use crate::guest::transaction::TimedOut;
use crate::running::Stop;

pub(super) struct Io<'a> {
    pub(super) until: Until,
    pub(super) table: &'a mut ResourceTable,
}

type Input = Resource<DynInputStream>;
type Output = Resource<DynOutputStream>;

impl HasData for Io<'static> {
    type Data<'a> = Io<'a>;
}

/// How long a call may wait.
pub(super) struct Until {
    pub(super) deadline: Instant,
    pub(super) stop: Arc<Stop>,
}

impl Until {
    /// Of whoever is asked to end, the engine says how.
    async fn wait<T>(&self, call: impl Future<Output = T>) -> Result<T, TimedOut> {
        tokio::select! {
            biased;
            done = call => Ok(done),
            () = self.stop.until_asked() => Err(TimedOut),
            () = sleep_until(self.deadline.into()) => Err(TimedOut),
        }
    }

    /// The same for a call on a stream.
    async fn stream<T>(&self, call: impl Future<Output = StreamResult<T>>) -> StreamResult<T> {
        self.wait(call).await.unwrap_or_else(|late| Err(StreamError::Trap(late.into())))
    }
}

impl poll::Host for Io<'_> {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        self.until.wait(self.table.poll(pollables)).await?
    }
}

impl HostPollable for Io<'_> {
    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.table.ready(pollable).await
    }

    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.until.wait(self.table.block(pollable)).await?
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        HostPollable::drop(self.table, pollable)
    }
}

impl streams::Host for Io<'_> {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        self.table.convert_stream_error(error)
    }
}

impl HostInputStream for Io<'_> {
    fn read(&mut self, stream: Input, len: u64) -> StreamResult<Vec<u8>> {
        HostInputStream::read(self.table, stream, len)
    }

    async fn blocking_read(&mut self, stream: Input, len: u64) -> StreamResult<Vec<u8>> {
        self.until.stream(self.table.blocking_read(stream, len)).await
    }

    fn skip(&mut self, stream: Input, len: u64) -> StreamResult<u64> {
        HostInputStream::skip(self.table, stream, len)
    }

    async fn blocking_skip(&mut self, stream: Input, len: u64) -> StreamResult<u64> {
        self.until.stream(self.table.blocking_skip(stream, len)).await
    }

    fn subscribe(&mut self, stream: Input) -> wasmtime::Result<Resource<DynPollable>> {
        HostInputStream::subscribe(self.table, stream)
    }

    async fn drop(&mut self, stream: Input) -> wasmtime::Result<()> {
        HostInputStream::drop(self.table, stream).await
    }
}

impl HostOutputStream for Io<'_> {
    fn check_write(&mut self, stream: Output) -> StreamResult<u64> {
        HostOutputStream::check_write(self.table, stream)
    }

    fn write(&mut self, stream: Output, contents: Vec<u8>) -> StreamResult<()> {
        HostOutputStream::write(self.table, stream, contents)
    }

    async fn blocking_write_and_flush(&mut self, stream: Output, contents: Vec<u8>) -> StreamResult<()> {
        self.until.stream(self.table.blocking_write_and_flush(stream, contents)).await
    }

    fn flush(&mut self, stream: Output) -> StreamResult<()> {
        HostOutputStream::flush(self.table, stream)
    }

    async fn blocking_flush(&mut self, stream: Output) -> StreamResult<()> {
        self.until.stream(self.table.blocking_flush(stream)).await
    }

    fn subscribe(&mut self, stream: Output) -> wasmtime::Result<Resource<DynPollable>> {
        HostOutputStream::subscribe(self.table, stream)
    }

    fn write_zeroes(&mut self, stream: Output, len: u64) -> StreamResult<()> {
        HostOutputStream::write_zeroes(self.table, stream, len)
    }

    async fn blocking_write_zeroes_and_flush(&mut self, stream: Output, len: u64) -> StreamResult<()> {
        self.until.stream(self.table.blocking_write_zeroes_and_flush(stream, len)).await
    }

    fn splice(&mut self, to: Output, from: Input, len: u64) -> StreamResult<u64> {
        HostOutputStream::splice(self.table, to, from, len)
    }

    async fn blocking_splice(&mut self, to: Output, from: Input, len: u64) -> StreamResult<u64> {
        self.until.stream(self.table.blocking_splice(to, from, len)).await
    }

    async fn drop(&mut self, stream: Output) -> wasmtime::Result<()> {
        HostOutputStream::drop(self.table, stream).await
    }
}
