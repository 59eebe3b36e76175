//! HTTP as an outsider uses it: deploy, send until accepted, ask how things stand.
//!
//! Experiments and integration tests see a host through this alone. The one rule it keeps is the sender's half of
//! the promise: a message is sent again under the *same* idempotency key until a 2xx was read to its end, however
//! often the host dies in between. What the host refuses for good (4xx) is an error at once.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::clock::Timestamp;

mod counts;

pub use counts::Counts;

/// How long a sender puts up with a host that does not accept before it calls that a failure.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
const PAGE: usize = 1000;

/// A sender and observer of one host, which may be down at any moment. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    /// Of what it sends.
    group: Option<String>,
}

/// A message the host has answered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The message's id.
    pub id: String,
    /// The host knew the key already: an earlier try was committed, and its answer was lost.
    pub duplicate: bool,
    /// Tries before the one that was answered.
    pub retries: u64,
}

/// How one try to send ended.
#[derive(Debug)]
pub enum Answer {
    /// Committed; `retries` is 0.
    Accepted(Accepted),
    /// No connection, a torn answer, 5xx or 429: nobody knows whether it is committed, the same key may be sent again.
    TryAgain(anyhow::Error),
    /// Anything else: sending it again would be answered the same.
    Refused(anyhow::Error),
}

/// What an experiment needs of a message document.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    /// The message's id.
    pub id: String,
    /// One of the states of a message, as the host spells it.
    pub state: String,
    /// Claims of it so far.
    pub attempt: u64,
    /// Why the last attempt failed. Whoever is dead must have one.
    #[serde(default)]
    pub last_error: Option<Value>,
    /// The answer of the attempt that completed it. Not in listings.
    #[serde(default)]
    pub response: Option<Value>,
}

/// What an experiment needs of an attempt in a trace.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub attempt: u32,
    /// How it ended, as the host spells it; `running` if it has not.
    pub outcome: String,
    /// Random id of the host that claimed it.
    #[serde(default)]
    pub host: String,
    /// Fuel that it used; none if nobody could tell.
    #[serde(default)]
    pub fuel: Option<u64>,
    /// When the guest's code began to run, by the store's clock.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
}

/// What an experiment needs of a trace.
#[derive(Debug, Clone, Deserialize)]
pub struct Trace {
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
    /// Its outside calls, as the ledger has them.
    #[serde(default)]
    pub calls: Vec<Call>,
}

/// An outside call, over all attempts that made it.
#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    /// How often it happened, as far as anybody can know.
    pub bounds: Bounds,
    /// The last thing that is known of it.
    pub state: String,
}

/// From and to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Bounds {
    /// At least so often.
    pub least: u64,
    /// At most so often.
    pub most: u64,
}

impl Client {
    /// A client of the host at `base`, such as `http://127.0.0.1:7700`.
    ///
    /// # Errors
    /// If `base` is not a URL.
    pub fn new(base: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(1))
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .build()
            .context("cannot make an HTTP client")?;
        let base = Url::parse(base).with_context(|| format!("`{base}` is not the URL of a host"))?;
        Ok(Self { http, base, group: None })
    }

    /// The URL of a path of the host.
    ///
    /// # Errors
    /// If it is not a path.
    pub fn url(&self, path: &str) -> anyhow::Result<Url> {
        self.base.join(path).with_context(|| format!("`{path}` is not a path"))
    }

    /// The same client, whose messages are of this group.
    #[must_use]
    pub fn in_group(&self, group: &str) -> Self {
        Self { group: Some(group.to_owned()), ..self.clone() }
    }

    /// Whether the host is up and ready to accept.
    pub async fn is_ready(&self) -> bool {
        let Ok(url) = self.url("/readyz") else { return false };
        let answer = self.http.get(url).timeout(Duration::from_secs(1)).send().await;
        answer.is_ok_and(|response| response.status() == StatusCode::OK)
    }

    /// Deploys a folder as `make guests` lays it out, under another contract than its manifest's if one is given.
    ///
    /// # Errors
    /// If the folder is not complete, or the host refuses it.
    pub async fn deploy(&self, folder: &Path, contract: Option<&str>) -> anyhow::Result<()> {
        let name = folder.file_name().and_then(|name| name.to_str()).context("the folder of a function has a name")?;
        self.deploy_as(folder, name, contract).await
    }

    /// The same under a name of its own.
    ///
    /// # Errors
    /// As [`Self::deploy`].
    pub async fn deploy_as(&self, folder: &Path, name: &str, contract: Option<&str>) -> anyhow::Result<()> {
        let mut url = self.url(&format!("/v1/functions/{name}"))?;
        if let Some(contract) = contract {
            // Between two contracts each promises something that the other does not.
            url.query_pairs_mut().append_pair("contract", contract).append_pair("accept_weaker_guarantee", "true");
        }
        let response =
            self.http.put(url).multipart(crate::folder::form(crate::folder::read(folder, None)?)).send().await?;
        accepted(response).await.map(drop).with_context(|| format!("cannot deploy {}", folder.display()))
    }

    /// Sends a message until it is accepted.
    ///
    /// # Errors
    /// If the host refuses the message, or does not accept it within a minute.
    pub async fn send(&self, path: &str, key: &str, body: &[u8]) -> anyhow::Result<Accepted> {
        Self::send_to_any(&[self], path, key, body).await
    }

    /// Sends a message to the first of these hosts, and as long as it is not accepted to the others in turn.
    ///
    /// # Errors
    /// If a host refuses the message, or none accepts it within a minute.
    pub async fn send_to_any(hosts: &[&Self], path: &str, key: &str, body: &[u8]) -> anyhow::Result<Accepted> {
        let give_up_at = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        for (retries, host) in (0..).zip(hosts.iter().cycle()) {
            match host.try_send(path, key, body).await {
                Answer::Accepted(accepted) => return Ok(Accepted { retries, ..accepted }),
                Answer::Refused(error) => return Err(error.context(format!("POST {path} was refused"))),
                Answer::TryAgain(error) if Instant::now() >= give_up_at => {
                    return Err(error.context(format!("POST {path} was not accepted within {PATIENCE:?}")));
                }
                Answer::TryAgain(_) => {}
            }
            // Jitter, so that all senders do not come back in one wave when the host is up again.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        bail!("there is no host to send to")
    }

    /// Sends a message once.
    pub async fn try_send(&self, path: &str, key: &str, body: &[u8]) -> Answer {
        let url = match self.url(path) {
            Ok(url) => url,
            Err(error) => return Answer::Refused(error),
        };
        let mut request = self.http.post(url).header("idempotency-key", key).body(body.to_vec());
        if let Some(group) = &self.group {
            request = request.header("semel-group", group);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Answer::TryAgain(error.into()),
        };
        let status = response.status();
        match accepted(response).await {
            Ok(body) => receipt(&body),
            Err(error) if is_passing(status) => Answer::TryAgain(error),
            Err(error) => Answer::Refused(error),
        }
    }

    /// Sends a JSON body to a function and waits for its JSON answer.
    ///
    /// # Errors
    /// If there is none within `wait`, or the function refuses.
    pub async fn call(&self, function: &str, body: &Value, wait: Duration) -> anyhow::Result<Value> {
        let url = self.url(&format!("/fn/{function}"))?;
        let request = self.http.post(url).header("prefer", format!("wait={}", wait.as_secs())).json(body);
        let response = request.send().await.with_context(|| format!("cannot call `{function}`"))?;
        let status = response.status();
        let answer = accepted(response).await.with_context(|| format!("`{function}` did not answer"))?;
        if status != StatusCode::OK {
            bail!("`{function}` did not answer within {wait:?}: {status}");
        }
        serde_json::from_slice(&answer).with_context(|| format!("the answer of `{function}` is not JSON"))
    }

    /// Pauses a function (`pause`), or lets it go on (`resume`).
    ///
    /// # Errors
    /// If the host is down or refuses.
    pub async fn steer(&self, function: &str, what: &str) -> anyhow::Result<()> {
        let url = self.url(&format!("/v1/functions/{function}/{what}"))?;
        accepted(self.http.post(url).send().await?).await.map(drop)
    }

    /// How many messages of a function are in which state.
    ///
    /// # Errors
    /// If the host is down or its answer is none.
    pub async fn counts(&self, function: &str) -> anyhow::Result<Counts> {
        Ok(self.all_counts().await?.get(function).copied().unwrap_or_default())
    }

    /// Messages of all functions that something will still happen to by itself.
    ///
    /// # Errors
    /// If the host is down or its answer is none.
    pub async fn open(&self) -> anyhow::Result<u64> {
        Ok(self.all_counts().await?.values().map(Counts::open).sum())
    }

    async fn all_counts(&self) -> anyhow::Result<HashMap<String, Counts>> {
        #[derive(Deserialize)]
        struct Document {
            functions: HashMap<String, Counts>,
        }
        let document: Document = self.get("/v1/counts", &[]).await?;
        Ok(document.functions)
    }

    /// A message as it stands.
    ///
    /// # Errors
    /// If the host is down, its answer is none, or there is no such message.
    pub async fn message(&self, id: &str) -> anyhow::Result<Message> {
        self.get(&format!("/v1/messages/{id}"), &[]).await
    }

    /// Every attempt at a message.
    ///
    /// # Errors
    /// If the host is down or its answer is none.
    pub async fn attempts(&self, message: &str) -> anyhow::Result<Vec<Attempt>> {
        Ok(self.trace(message).await?.attempts)
    }

    /// The story of a message.
    ///
    /// # Errors
    /// If the host is down or its answer is none.
    pub async fn trace(&self, message: &str) -> anyhow::Result<Trace> {
        self.get(&format!("/v1/messages/{message}/trace"), &[]).await
    }

    /// Every message of a function.
    ///
    /// # Errors
    /// If the host is down or its answer is none.
    pub async fn messages(&self, function: &str) -> anyhow::Result<Vec<Message>> {
        #[derive(Deserialize)]
        struct Page {
            messages: Vec<Message>,
            next: Option<String>,
        }
        let limit = PAGE.to_string();
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let mut query = vec![("function", function), ("limit", limit.as_str())];
            query.extend(after.as_deref().map(|cursor| ("after", cursor)));
            let page: Page = self.get("/v1/messages", &query).await?;
            all.extend(page.messages);
            match page.next {
                // A cursor that stands still would be read for ever.
                Some(next) if after.as_ref() != Some(&next) => after = Some(next),
                _ => return Ok(all),
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<T> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let answer = accepted(self.http.get(url).send().await?).await.with_context(|| format!("GET {path}"))?;
        serde_json::from_slice(&answer).with_context(|| format!("the answer to GET {path} is not what it should be"))
    }
}

/// The body of a 2xx. Of anything else, an error that says what the host said.
async fn accepted(response: Response) -> anyhow::Result<Vec<u8>> {
    let status = response.status();
    let body = response.bytes().await.with_context(|| format!("the answer ({status}) broke off"));
    if status.is_success() {
        return Ok(body?.to_vec());
    }
    let said = body.map(|body| String::from_utf8_lossy(&body).into_owned()).unwrap_or_default();
    bail!("{status}: {}", said.trim());
}

/// A success whose body broke off is among them: whoever has not read the answer does not know it.
fn is_passing(status: StatusCode) -> bool {
    status.is_success()
        || status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn receipt(body: &[u8]) -> Answer {
    #[derive(Deserialize)]
    struct Receipt {
        id: String,
        #[serde(default)]
        duplicate: bool,
    }
    match serde_json::from_slice(body) {
        Ok(Receipt { id, duplicate }) => Answer::Accepted(Accepted { id, duplicate, retries: 0 }),
        Err(error) => Answer::Refused(anyhow::Error::new(error).context("the host accepted without naming an id")),
    }
}
