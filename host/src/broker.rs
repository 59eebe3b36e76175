//! What the sink and the source of one kind of broker share: where it is, how it is reached, and what to tell people of it.
//!
//! A connection is never mended: when it is lost, everything that was on its way over it is lost with it, and a new one is
//! made. So nothing leaves late that has been given up before.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use url::Url;

pub(crate) mod nats;
pub(crate) mod rabbitmq;
mod wire;

/// Longest time to connect, and to be let in.
const CONNECT: Duration = Duration::from_secs(5);
/// In a template: the event's topic.
const TOPIC: &str = "{topic}";

/// The URL of a broker, which may hold a password: it is not shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl From<&str> for Address {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(..)")
    }
}

/// Where a broker is, as whom to speak to it, and whose certificates to believe.
#[derive(Clone)]
pub(crate) struct Access {
    /// At least one; more if any of several will do.
    urls: Vec<Url>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl Access {
    /// # Errors
    /// If the URL is none of these schemes, or a file cannot be read. No text holds the URL.
    pub(crate) fn new(
        Address(url): &Address,
        password_file: Option<&Path>,
        ca_file: Option<&Path>,
        schemes: [&str; 2],
    ) -> anyhow::Result<Self> {
        let [plain, encrypted] = schemes;
        let read = |one: &str| {
            let url = Url::parse(one.trim()).ok().filter(|url| url.host_str().is_some_and(|host| !host.is_empty()));
            url.filter(|url| schemes.contains(&url.scheme()))
        };
        let urls: Option<Vec<_>> = url.split(',').map(read).collect();
        let urls = urls.with_context(|| format!("url is no {plain}://USER@HOST:PORT and no {encrypted}:// one"))?;
        if password_file.is_some() && urls.iter().any(|url| url.password().is_some()) {
            bail!("the password is in the url, and in password_file: leave it out of the url");
        }
        if let Some(file) = ca_file {
            std::fs::metadata(file).with_context(|| format!("cannot read ca_file {}", file.display()))?;
        }
        let access = Self { urls, password_file: password_file.map(Into::into), ca_file: ca_file.map(Into::into) };
        access.password().map_err(anyhow::Error::msg)?;
        Ok(access)
    }

    /// For people: without user and password.
    fn shown(&self) -> String {
        let shown = |url: &Url| {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
        };
        self.urls.iter().map(shown).collect::<Vec<_>>().join(",")
    }

    /// Empty if there is none.
    fn user(&self) -> String {
        decoded(self.urls.first().map(Url::username).unwrap_or_default())
    }

    /// As it is now: a file may have been changed.
    fn password(&self) -> Result<Option<String>, String> {
        let Some(file) = &self.password_file else {
            return Ok(self.urls.first().and_then(Url::password).map(decoded));
        };
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| format!("cannot read password_file {}: {error}", file.display()))?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    fn refused(&self) -> String {
        let user = self.user();
        format!("{} does not let the user \"{user}\" in: check user and password", self.shown())
    }

    fn silent(&self) -> String {
        format!("{} does not answer", self.shown())
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Where an event of this topic goes.
pub(crate) fn fill(template: &str, topic: &str) -> String {
    template.replace(TOPIC, topic)
}

/// The template that is the topic itself.
pub(crate) fn topic() -> String {
    TOPIC.to_owned()
}

/// Bytes as a header: themselves if they are text, else in base64.
pub(crate) fn text(bytes: &[u8]) -> String {
    use base64::Engine as _;
    let text = std::str::from_utf8(bytes).map(str::to_owned);
    text.unwrap_or_else(|_| base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let new = |url: &str| Access::new(&url.into(), None, None, ["amqp", "amqps"]);
        let access = new("amqp://me:s%40cret@broker.example:5673/shop").expect("a URL");
        assert_eq!(access.shown(), "amqp://broker.example:5673/shop");
        assert_eq!((access.user(), access.password()), ("me".into(), Ok(Some("s@cret".into()))));
        assert!(!format!("{:?}{}", Address::from("amqp://me:secret@x"), access.refused()).contains("cret"));
        for wrong in ["", "amqp://", "http://me:secret@broker", "me:secret@broker", "amqp://me:secret@broker:port"] {
            let said = format!("{:#}", new(wrong).err().expect("no URL"));
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
