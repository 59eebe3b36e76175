//! What client commands share: which host they talk to, and how they say that it refused.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{RequestBuilder, Response, Url};
use serde_json::Value;

/// The host that a command talks to
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Server {
    /// The host to talk to
    #[arg(long, env = "SEMEL_SERVER", value_name = "URL", default_value = "http://127.0.0.1:7700")]
    server: Url,
    /// Bearer token, if the host asks for one
    #[arg(long, env = "SEMEL_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Server {
    /// A request to a path of the host, whose parts may hold anything.
    pub(crate) fn request(&self, method: reqwest::Method, parts: &[&str]) -> anyhow::Result<RequestBuilder> {
        let mut url = self.server.clone();
        url.path_segments_mut()
            .ok()
            .context("--server must be a URL such as http://127.0.0.1:7700")?
            .clear()
            .extend(parts);
        let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).no_proxy().build()?;
        let request = client.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    /// `GET`, and its JSON.
    pub(crate) async fn get(&self, parts: &[&str], query: &[(&str, String)]) -> anyhow::Result<Value> {
        let mut request = self.request(reqwest::Method::GET, parts)?.build()?;
        if !query.is_empty() {
            request.url_mut().query_pairs_mut().extend_pairs(query);
        }
        let response = reqwest::Client::builder().no_proxy().build()?.execute(request).await;
        self.json(response.map_err(|e| self.unreachable(e))?).await
    }

    /// `POST` or `DELETE`, with a JSON document if there is one, and the JSON of the answer.
    pub(crate) async fn change(&self, method: reqwest::Method, parts: &[&str], body: Value) -> anyhow::Result<Value> {
        let request = self.request(method, parts)?;
        let request = if body.is_null() { request } else { request.json(&body) };
        self.json(self.send(request).await?).await
    }

    /// Sends a request, whatever its answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        request.send().await.map_err(|e| self.unreachable(e))
    }

    /// The JSON of a success; what the host said otherwise.
    pub(crate) async fn json(&self, response: Response) -> anyhow::Result<Value> {
        let status = response.status();
        let body = response.bytes().await.context("the answer broke off")?;
        if status.is_success() {
            return serde_json::from_slice(&body).context("the answer is not JSON; is this a Semel host?");
        }
        bail!("{}", refusal(status, &body))
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let hint =
            format!("no host answers at {}; start one with `semel serve`, or name another with --server", self.server);
        anyhow::Error::new(error.without_url()).context(hint)
    }
}

/// The detail of a problem document, or the body as it is.
pub(crate) fn refusal(status: reqwest::StatusCode, body: &[u8]) -> String {
    let detail =
        serde_json::from_slice::<Value>(body).ok().and_then(|problem| Some(problem["detail"].as_str()?.to_owned()));
    let detail = detail.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    format!("the host refused ({status}): {detail}")
}
