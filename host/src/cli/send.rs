//! `semel send`: a message from the command line.

use std::io::{Read, Write};

use anyhow::{Context as _, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::client::{Server, refusal};

/// Send a message to a function
#[derive(Debug, clap::Args)]
pub(crate) struct Send {
    /// The function
    name: String,
    /// The body: text, @FILE, or - for standard input
    #[arg(conflicts_with = "batch")]
    body: Option<String>,
    /// Many messages: a file, or - for standard input, with a JSON object on each line (body or body_base64, content_type,
    /// key, group, delay, priority, headers). Prints an answer for each
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "group", "delay", "priority", "wait", "headers"])]
    batch: Option<String>,
    /// Idempotency key: sending again with the same key changes nothing
    #[arg(long)]
    key: Option<String>,
    /// Group key
    #[arg(long)]
    group: Option<String>,
    /// Due so much later, for example 5s
    #[arg(long)]
    delay: Option<String>,
    /// Higher goes first
    #[arg(long, allow_hyphen_values = true)]
    priority: Option<i32>,
    /// Wait so long for the answer, for example 10s
    #[arg(long, value_name = "TIME", value_parser = crate::manifest::parse_span)]
    wait: Option<std::time::Duration>,
    /// A header of the message, NAME:VALUE
    #[arg(long = "header", value_name = "N:V")]
    headers: Vec<String>,
    #[command(flatten)]
    server: Server,
}

impl Send {
    /// Whether the message was accepted, and with `--wait`, whether it did not fail.
    pub(crate) async fn execute(self) -> anyhow::Result<bool> {
        if let Some(file) = &self.batch {
            return send_batch(&self.server, &self.name, file).await;
        }
        let body = read_body(self.body.as_deref().unwrap_or_default())?;
        let mut request = self.server.request(Method::POST, &["fn", &self.name])?.body(body);
        let own = [
            ("idempotency-key", self.key),
            ("semel-group", self.group),
            ("semel-delay", self.delay),
            ("semel-priority", self.priority.map(|priority| priority.to_string())),
            ("prefer", self.wait.map(|wait| format!("wait={}", wait.as_secs().max(1)))),
        ];
        for (name, value) in own {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        for header in &self.headers {
            let (name, value) =
                header.split_once(':').with_context(|| format!("--header {header}: write NAME:VALUE"))?;
            request = request.header(name.trim(), value.trim());
        }
        let response = self.server.send(request).await?;
        let status = response.status();
        let body = response.bytes().await.context("the answer broke off")?;
        if !status.is_success() {
            bail!("{}", refusal(status, &body));
        }
        let mut out = std::io::stdout().lock();
        out.write_all(&body)?;
        if !body.ends_with(b"\n") {
            writeln!(out)?;
        }
        Ok(self.wait.is_none() || status == StatusCode::OK)
    }
}

/// Whether every line was accepted. The answers are printed as they come.
async fn send_batch(server: &Server, name: &str, file: &str) -> anyhow::Result<bool> {
    let lines = read_body(&if file == "-" { file.to_owned() } else { format!("@{file}") })?;
    let request = server.request(Method::POST, &["fn", &format!("{name}:batch")])?;
    let mut response = server.send(request.header("content-type", "application/x-ndjson").body(lines)).await?;
    let status = response.status();
    if status != StatusCode::OK {
        bail!("{}", refusal(status, &response.bytes().await.context("the answer broke off")?));
    }
    let (mut all, mut line) = (true, Vec::new());
    let mut out = std::io::stdout().lock();
    while let Some(chunk) =
        response.chunk().await.context("the answers broke off; lines without one may be accepted")?
    {
        out.write_all(&chunk)?;
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.ends_with(b"\n") {
                let answer: Value = serde_json::from_slice(&line).context("an answer is not JSON")?;
                all &= answer["status"] == 202;
                line.clear();
            }
        }
    }
    Ok(all)
}

fn read_body(given: &str) -> anyhow::Result<Vec<u8>> {
    match given.strip_prefix('@') {
        Some(file) => std::fs::read(file).with_context(|| format!("cannot read {file}")),
        None if given == "-" => {
            let mut body = Vec::new();
            std::io::stdin().read_to_end(&mut body).context("cannot read standard input")?;
            Ok(body)
        }
        None => Ok(given.as_bytes().to_vec()),
    }
}
