//! Lines to the server for guests' sessions, by a driver that does not wait for an answer before it sends what comes next.
//!
//! Answers come in the order in which was asked. Whoever asks may go away: the statement runs all the same, and its answer
//! is skipped. A line ends when it is dropped or closed, whatever it is in the middle of.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::{timeout, timeout_at};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

use super::connection::Engine;
use super::encryption::{Certificates, Encryption};
use super::{Error, errors, running};
use crate::store::{Login, SqlError};

/// How long a new line may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long after a signal the next, stronger one comes.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a statement of the host's own may take.
pub(super) const SHORT: Duration = Duration::from_secs(10);

/// Where the server is, and how it is spoken to: what the URL says, as the engine's driver understands it.
pub(super) struct Server {
    pub(super) options: PgConnectOptions,
    password: String,
    encryption: Option<Encryption>,
}

/// To both sides, encrypted or not.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

impl Server {
    pub(super) fn new(options: PgConnectOptions) -> Result<Self, Error> {
        // What the engine's driver keeps to itself it writes into a URL, which has no place for every user or host.
        let url = options.clone().username("nobody").host("localhost").to_url_lossy();
        let password = url.password().map(|password| percent_decode_str(password).decode_utf8_lossy().into_owned());
        let file = |key: &str| match url.query_pairs().find(|(name, _)| name == key) {
            None => Ok(None),
            Some((_, given)) => match given.strip_prefix("file: ") {
                None => Ok(Some(given.into_owned().into_bytes())),
                Some(path) => std::fs::read(path).map(Some).map_err(|error| {
                    Error::Refused(format!("no encrypted connection to Postgres: {key} of the URL: {path}: {error}"))
                }),
            },
        };
        let certificates = Certificates { roots: file("sslrootcert")?, own: file("sslcert")?, key: file("sslkey")? };
        let encryption = Encryption::new(options.get_ssl_mode(), &certificates)?;
        // As the engine's driver has it for itself.
        let options = options.options([("DateStyle", "ISO, MDY"), ("TimeZone", "UTC"), ("extra_float_digits", "2")]);
        Ok(Self { options, password: password.unwrap_or_default(), encryption })
    }

    /// The settings of a session for an app, with a login or else the engine's.
    fn config(&self, app: &str, login: Option<&Login>) -> Config {
        let options = self.options.clone().options([("search_path", format!("\"{app}\""))]);
        let user = self.options.get_username();
        let mut config = Config::new();
        config
            .user(login.map_or(user, |login| &login.name))
            .password(login.map_or(&self.password, |login| &login.password))
            .dbname(self.options.get_database().unwrap_or(user))
            .application_name(self.options.get_application_name().unwrap_or("semel"))
            .options(options.get_options().unwrap_or_default())
            .ssl_mode(SslMode::Disable); // What it is given is encrypted already, where it is to be.
        config
    }

    async fn wire(&self) -> io::Result<Box<dyn Wire>> {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        let folder = self.options.get_socket().map(|path| path.display().to_string());
        if let Some(folder) = folder.or_else(|| host.starts_with('/').then(|| host.to_owned())) {
            return self.encrypted(UnixStream::connect(format!("{folder}/.s.PGSQL.{port}")).await?, host).await;
        }
        let host = host.trim_matches(['[', ']']); // An address of IPv6, as a URL has it.
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        self.encrypted(stream, host).await
    }

    async fn encrypted(&self, socket: impl Wire + 'static, host: &str) -> io::Result<Box<dyn Wire>> {
        let Some(encryption) = &self.encryption else { return Ok(Box::new(socket)) };
        Ok(match encryption.wrap(socket, host).await? {
            Ok(secret) => Box::new(secret),
            Err(plain) => Box::new(plain),
        })
    }

    /// A line for a session of an app.
    pub(super) async fn line(&self, engine: &Engine, app: &str, login: Option<&Login>) -> Result<Line, Error> {
        let connect = async {
            let wire = self.wire().await.map_err(|error| Error::Unavailable(error.to_string()))?;
            let (client, speaking) =
                self.config(app, login).connect_raw(wire, NoTls).await.map_err(|error| errors::at_login(&error))?;
            // Where it is used: so nobody else is woken for what is said.
            let speaks = tokio::spawn(async move {
                if let Err(error) = speaking.await {
                    tracing::debug!(%error, "a line to the database has ended");
                }
            });
            Ok(Line { client, process: 0, speaks: speaks.abort_handle(), engine: engine.clone() })
        };
        let late = |_| Error::Unavailable("a session takes too long to open".into());
        timeout(CONNECT, connect).await.map_err(late)?
    }
}

pub(super) struct Line {
    pub(super) client: Client,
    /// The server's process, once it has said that.
    pub(super) process: i32,
    speaks: AbortHandle,
    engine: Engine,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.close();
    }
}

impl Line {
    /// Nothing more is said on it, or heard.
    pub(super) fn close(&self) {
        self.speaks.abort();
    }

    /// Waits for something until a deadline; then the server is told to cancel it, then to end the session, and if that does
    /// not help either (nobody answers), the line is closed.
    pub(super) async fn watched<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        let mut work = pin!(work);
        if let Ok(done) = timeout_at(deadline.into(), &mut work).await {
            return done;
        }
        for terminate in [false, true] {
            let (engine, process) = (self.engine.clone(), self.process);
            tokio::spawn(async move {
                let told = if terminate {
                    running::terminate(&engine, process).await
                } else {
                    running::cancel(&engine, process).await
                };
                if let Err(error) = told {
                    tracing::warn!(%error, "a statement beyond its deadline could not be ended");
                }
            });
            if timeout(PATIENCE, &mut work).await.is_ok() {
                return Err(SqlError::Deadline);
            }
        }
        self.close();
        Err(SqlError::Deadline)
    }

    /// After a statement of which not all was read: the server stops sending, and what it sent is thrown away.
    pub(super) async fn skip_the_rest(&self) {
        if running::cancel(&self.engine, self.process).await.is_ok() {
            // Twice: the cancellation may come late, and meet the question.
            for _ in 0..2 {
                match timeout(SHORT, self.client.batch_execute("")).await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) if error.as_db_error().is_some() => {}
                    _ => break,
                }
            }
        }
        self.close();
    }
}

/// Begins something that was asked on a line: it is sent, and the answer may be waited for later.
pub(super) fn sent<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> futures_util::future::BoxFuture<'static, T> {
    use std::task::{Context, Poll, Waker};
    let mut work: futures_util::future::BoxFuture<'static, T> = Box::pin(work);
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Box::pin(std::future::ready(done)),
        Poll::Pending => work,
    }
}

/// A line that several may wait on.
pub(super) type Shared = Arc<Line>;
