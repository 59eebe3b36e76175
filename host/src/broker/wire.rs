//! The bytes of a connection to RabbitMQ, encrypted or not, in the shape that its library wants them.
//!
//! The library brings TLS of its own, with forty crates for client certificates in formats that nobody here uses; and a
//! connection that it has given up may still send what it holds. Both end here.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::Reactor;
use futures_util::{FutureExt as _, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Bytes to and from a broker, until who holds the other end of the line drops it.
pub(super) struct Wire {
    bytes: Box<dyn Bytes>,
    line: Option<oneshot::Receiver<()>>,
}

/// Encrypted or not.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl Bytes for TcpStream {}
impl Bytes for TlsStream<TcpStream> {}

impl Wire {
    /// Connects; with TLS where there is somebody to trust.
    pub(super) async fn connect(
        host: &str,
        port: u16,
        trust: Option<&TlsConnector>,
        line: oneshot::Receiver<()>,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let bytes: Box<dyn Bytes> = match trust {
            None => Box::new(stream),
            Some(trust) => {
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                Box::new(trust.connect(name, stream).await?)
            }
        };
        Ok(Self { bytes, line: Some(line) })
    }

    fn bytes(&mut self) -> Pin<&mut dyn Bytes> {
        Pin::new(self.bytes.as_mut())
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.line.as_mut().is_some_and(|line| line.poll_unpin(context).is_ready()) {
            self.line = None;
        }
        if self.line.is_some() { Ok(()) } else { Err(io::ErrorKind::ConnectionAborted.into()) }
    }
}

impl futures_io::AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.bytes().poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl futures_io::AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        self.bytes().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes().poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes().poll_shutdown(cx)
    }
}

/// Those whom the file names, else those whom this machine trusts.
pub(super) fn trust(ca_file: Option<&Path>) -> Result<TlsConnector, String> {
    let roots = match ca_file {
        None => rustls_native_certs::load_native_certs().certs,
        Some(file) => CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .map_err(|error| format!("cannot read ca_file {}: {error}", file.display()))?,
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Tokio, with wires for connections.
#[derive(Debug, Clone)]
pub(super) struct Wires(pub(super) Tokio);

impl Reactor for Wires {
    type TcpStream = Wire;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Nobody has a socket to bring.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static> {
        Err::<Wire, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    /// Connections are made by [`Wire::connect`] alone.
    fn tcp_connect_addr(&self, _: SocketAddr) -> impl Future<Output = io::Result<Wire>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
