//! A connection to RabbitMQ.

use std::io;
use std::ops::Deref;
use std::sync::Mutex;

use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::tcp::AsyncTcpStream;
use lapin::types::{FieldTable, ShortString};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, ExchangeKind};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::wire::{Wire, Wires, trust};
use super::{Access, CONNECT, decoded};

/// The schemes of its URLs.
pub(crate) const SCHEMES: [&str; 2] = ["amqp", "amqps"];
/// Seconds after which a silent broker, or a silent host, counts as gone; half of it between two signs of life.
const HEARTBEAT: u16 = 20;

/// What the broker says when it refuses; from AMQP 0-9-1.
pub(crate) mod code {
    pub(crate) const CONTENT_TOO_LARGE: u16 = 311;
    pub(crate) const ACCESS_REFUSED: u16 = 403;
    pub(crate) const NOT_FOUND: u16 = 404;
    pub(crate) const PRECONDITION_FAILED: u16 = 406;
    pub(crate) const FRAME_ERROR: u16 = 501;
    pub(crate) const SYNTAX_ERROR: u16 = 502;
}

/// A connection. When this is dropped, so are its bytes, whatever waits to be sent.
pub(crate) struct Link {
    connection: Connection,
    _line: oneshot::Sender<()>,
}

impl Deref for Link {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// Connects and logs in. The name is what the broker's own people see.
///
/// # Errors
/// For people: what is wrong, where, and what to do.
pub(crate) async fn connect(access: &Access, name: &str) -> Result<Link, String> {
    let uri = uri(access)?;
    let trust = match uri.scheme {
        AMQPScheme::AMQP => None,
        AMQPScheme::AMQPS => Some(trust(access.ca_file.as_deref())?),
    };
    let (line, held) = oneshot::channel();
    let held = Mutex::new(Some(held));
    let wire = async move |uri: AMQPUri, _: Runtime<_>| {
        // A second time would be to mend a connection.
        let held = held.lock().ok().and_then(|mut held| held.take()).ok_or(io::ErrorKind::ConnectionAborted);
        let AMQPAuthority { host, port, .. } = &uri.authority;
        let wire = timeout(CONNECT, Wire::connect(host, *port, trust.as_ref(), held.map_err(io::Error::from)?)).await;
        Ok(AsyncTcpStream::Plain(wire.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?))
    };
    let runtime = Runtime::new(RuntimeParts::new(Tokio::current(), Wires(Tokio::current())));
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    match timeout(CONNECT, Connection::connector(uri, runtime, wire, properties)).await {
        Ok(Ok(connection)) => Ok(Link { connection, _line: line }),
        Ok(Err(error)) if code_of(&error) == Some(code::ACCESS_REFUSED) => Err(access.refused()),
        Ok(Err(error)) => Err(format!("cannot connect to {}: {}", access.shown(), said(&error))),
        Err(_) => Err(access.silent()),
    }
}

fn uri(access: &Access) -> Result<AMQPUri, String> {
    let url = access.urls.first().ok_or("no url")?;
    let scheme = if url.scheme() == SCHEMES[1] { AMQPScheme::AMQPS } else { AMQPScheme::AMQP };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let vhost = match url.path() {
        "" | "/" => "/".to_owned(),
        path => decoded(&path[1..]),
    };
    Ok(AMQPUri {
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: access.user(), password: access.password()?.unwrap_or_default() },
            host: decoded(host),
            port: url.port().unwrap_or(scheme.default_port()),
        },
        scheme,
        vhost,
        query: AMQPQueryString { heartbeat: Some(HEARTBEAT), ..AMQPQueryString::default() },
    })
}

/// What the broker answered, if it is that.
pub(crate) fn code_of(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// For people.
pub(crate) fn said(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => format!("the broker says {}", error.get_message()),
        ErrorKind::IOError(error) => error.to_string(),
        ErrorKind::MissingHeartbeatError => "the broker gives no sign of life".into(),
        _ => error.to_string(),
    }
}

/// As AMQP has names.
pub(crate) fn short(what: &str, text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text).map_err(|_| format!("{what} has {} bytes; RabbitMQ takes 255", text.len()))
}

/// Makes a durable queue, unless there is one like it.
pub(crate) async fn declare_queue(channel: &Channel, queue: &str) -> Result<(), String> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(short("the name of the queue", queue)?, options, FieldTable::default()).await;
    declared.map(drop).map_err(|error| other_settings("queue", queue, &error))
}

/// Makes a durable exchange of the kind `topic`, unless there is one like it.
pub(crate) async fn declare_exchange(channel: &Channel, exchange: &str) -> Result<(), String> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let name = short("the name of the exchange", exchange)?;
    let declared = channel.exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default()).await;
    declared.map_err(|error| other_settings("exchange", exchange, &error))
}

fn other_settings(what: &str, name: &str, error: &lapin::Error) -> String {
    let said = said(error);
    match code_of(error) {
        Some(code::PRECONDITION_FAILED) => {
            format!("the {what} \"{name}\" is there with other settings: leave `declare` out, or remove it: {said}")
        }
        _ => format!("cannot declare the {what} \"{name}\": {said}"),
    }
}
