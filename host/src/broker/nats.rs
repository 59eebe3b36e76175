//! A connection to NATS.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::{self, Context, context::ContextBuilder};
use async_nats::{AuthError, Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError};

use super::{Access, CONNECT};

/// The schemes of its URLs.
pub(crate) const SCHEMES: [&str; 2] = ["nats", "tls"];

/// Between two signs of life that a silent server is asked for; without the second it counts as gone.
const PING: Duration = Duration::from_secs(10);

/// A connection. When it is lost, it stays so.
pub(crate) struct Link {
    client: Client,
    /// What the server complained of last.
    complaint: Arc<Mutex<Option<String>>>,
}

impl Link {
    /// JetStream, which answers each request within this time or is said not to.
    pub(crate) fn jetstream(&self, patience: Duration) -> Context {
        ContextBuilder::new().timeout(patience).ack_timeout(patience).build(self.client.clone())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// What the server complained of since this was asked last: it does not say over what.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until what was sent has left.
    pub(crate) async fn flush(&self) {
        let _ = tokio::time::timeout(CONNECT, self.client.flush()).await; // What did not leave is delivered again.
    }
}

/// Connects and logs in. The name is what the broker's own people see.
///
/// # Errors
/// For people: what is wrong, where, and what to do.
pub(crate) async fn connect(access: &Access, name: &str) -> Result<Link, String> {
    let servers = access.urls.iter().map(|url| bare(url).parse::<ServerAddr>());
    let servers: Vec<_> = servers.collect::<Result<_, _>>().map_err(|error| format!("{}: {error}", access.shown()))?;
    let complaint = Arc::new(Mutex::new(None));
    let was_up = Arc::new(AtomicBool::new(false));
    let options = options(access, Arc::clone(&was_up), Arc::clone(&complaint))?.name(name);
    let connected = options.max_reconnects(servers.len()).connect(servers).await;
    was_up.store(true, Ordering::SeqCst);
    match connected {
        Ok(client) => Ok(Link { client, complaint }),
        Err(error) => Err(match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => access.refused(),
            ConnectErrorKind::TimedOut => access.silent(),
            _ => format!("cannot connect to {}: {error}", access.shown()),
        }),
    }
}

/// Whom to speak for is said by [`options`].
fn bare(url: &url::Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("").and_then(|()| url.set_password(None)); // It has a host, so it can be without.
    url.into()
}

fn options(
    access: &Access,
    was_up: Arc<AtomicBool>,
    complaint: Arc<Mutex<Option<String>>>,
) -> Result<ConnectOptions, String> {
    let (user, password) = (access.user(), access.password()?);
    let log_in = move |_| {
        let mut auth = async_nats::Auth::new();
        match &password {
            Some(_) => (auth.username, auth.password) = (Some(user.clone()), password.clone()),
            None if user.is_empty() => {}
            None => auth.token = Some(user.clone()), // nats://TOKEN@HOST
        }
        // The library always tries to mend a connection; this is how it does not succeed.
        let lost = was_up.load(Ordering::SeqCst);
        async move { if lost { Err(AuthError::new("the connection was lost")) } else { Ok(auth) } }
    };
    let options = ConnectOptions::with_auth_callback(log_in)
        .connection_timeout(CONNECT)
        .request_timeout(Some(CONNECT))
        .ping_interval(PING)
        .ignore_discovered_servers()
        .reconnect_delay_callback(|_| Duration::ZERO)
        .event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(text)) = event {
                *complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
            }
            std::future::ready(())
        });
    Ok(match &access.ca_file {
        Some(file) => options.add_root_certificates(file.clone()),
        None => options,
    })
}

/// Makes a stream of these subjects, unless there is one like it.
pub(crate) async fn declare_stream(jetstream: &Context, name: &str, subjects: Vec<String>) -> Result<(), String> {
    let config = jetstream::stream::Config { name: name.to_owned(), subjects, ..Default::default() };
    let declared = jetstream.create_stream(config).await;
    declared.map(drop).map_err(|error| match error.kind() {
        jetstream::context::CreateStreamErrorKind::JetStream(error)
            if error.error_code() == jetstream::ErrorCode::STREAM_NAME_EXIST =>
        {
            format!("the stream \"{name}\" is there with other settings: leave `declare` out, or remove it: {error}")
        }
        _ => format!("cannot declare the stream \"{name}\": {error}"),
    })
}
