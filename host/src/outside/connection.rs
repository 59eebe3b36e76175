//! A connection to one of the checked addresses, and when the first byte of a request may have left over it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::Host;

use super::client::NotSent;
use super::grant::Origin;
use crate::crash::{self, Point};

/// Whose certificates are believed.
#[derive(Clone)]
pub struct Trust(TlsConnector);

impl Trust {
    /// Those whom this machine trusts. With none of them, every call by https ends before it is sent.
    ///
    /// # Errors
    /// If TLS itself cannot be set up.
    pub fn of_machine() -> anyhow::Result<Self> {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "certificates that this machine trusts cannot be read");
        }
        Self::new(found.certs)
    }

    /// These and no others.
    ///
    /// # Errors
    /// If TLS itself cannot be set up.
    pub fn new(roots: Vec<CertificateDer<'static>>) -> anyhow::Result<Self> {
        let mut store = RootCertStore::empty();
        let (_, skipped) = store.add_parsable_certificates(roots);
        if skipped > 0 {
            tracing::debug!(skipped, "certificates that are trusted cannot be made sense of");
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.enable_early_data = false; // What leaves before the handshake ends could be sent twice.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

/// Connects to the first of these addresses that answers, and shakes hands where there is somebody to trust, for https.
/// No byte of a request leaves here.
pub(super) async fn connect(
    origin: &Origin,
    addresses: &[IpAddr],
    trust: Option<&Trust>,
    until: Instant,
) -> Result<Wire, NotSent> {
    let stream = tcp(addresses, origin.port(), until).await?;
    let _ = stream.set_nodelay(true); // It only makes it faster.
    let Some(trust) = trust else { return Ok(Wire::Plain(stream)) };
    let name = match origin.host() {
        Host::Domain(name) => ServerName::try_from(name.clone()),
        Host::Ipv4(address) => Ok(IpAddr::V4(*address).into()),
        Host::Ipv6(address) => Ok(IpAddr::V6(*address).into()),
    };
    let name = name.map_err(|_| NotSent::Tls("the host is no name that a certificate could have".into()))?;
    match timeout_at(until, trust.0.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Wire::Tls(Box::new(stream))),
        Ok(Err(error)) => Err(NotSent::Tls(error.to_string())),
        Err(_) => Err(NotSent::TooLate),
    }
}

/// Each address gets an equal share of the time that is left.
async fn tcp(addresses: &[IpAddr], port: u16, until: Instant) -> Result<TcpStream, NotSent> {
    let mut last = NotSent::TooLate;
    for (tried, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(1);
        last = match timeout_at(Instant::now() + share, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => NotSent::Unreachable(error.to_string()),
            Err(_) => NotSent::TooLate,
        };
    }
    Err(last)
}

/// Bytes to and from a server.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Set before the first byte of a request is handed to the connection: from then on it may have left.
#[derive(Clone, Default)]
pub(super) struct Began(Arc<AtomicBool>);

impl Began {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A wire that says when the first byte may have left.
pub(super) struct Watched {
    pub(super) wire: Wire,
    pub(super) began: Began,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Watched {
    /// One buffer at a time, which is all that a request of head and body needs.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Also if the write fails: TLS may have sent a part of what it then says it could not send.
        self.began.0.store(true, Ordering::SeqCst);
        let written = match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        if matches!(written, Poll::Ready(Ok(_))) {
            crash::point(Point::CallSent);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
