//! `semel deploy`: a folder with function.toml, or a component alone.

use std::path::PathBuf;

use anyhow::Context as _;
use reqwest::Method;

use super::client::Server;
use super::{inspect, table};
use crate::folder;
use crate::message::Contract;

/// Deploy a function to a running host
#[derive(Debug, clap::Args)]
pub(crate) struct Deploy {
    /// A folder with function.toml, or a .wasm component
    path: PathBuf,
    /// Deploy under this name instead of the manifest's
    #[arg(long)]
    name: Option<String>,
    /// The contract, instead of the manifest's
    #[arg(long, value_enum)]
    contract: Option<Contract>,
    /// Replace a version that gives a stronger guarantee
    #[arg(long)]
    accept_weaker_guarantee: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Deploy {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let upload = folder::read(&self.path, self.name.as_deref())?;
        let named = crate::manifest::Manifest::parse(&upload.manifest).map_err(anyhow::Error::msg)?.name;
        let name = self.name.unwrap_or(named);
        let mut request = self.server.request(Method::PUT, &["v1", "functions", &name])?;
        request = request.multipart(folder::form(upload));
        let mut query = vec![];
        if let Some(contract) = self.contract {
            query.push(("contract", contract.as_str()));
        }
        if self.accept_weaker_guarantee {
            query.push(("accept_weaker_guarantee", "true"));
        }
        let (client, request) = request.build_split();
        let mut request = request?;
        if !query.is_empty() {
            request.url_mut().query_pairs_mut().extend_pairs(query);
        }
        let response = self.server.send(reqwest::RequestBuilder::from_parts(client, request)).await?;
        let document = self.server.json(response).await.with_context(|| format!("{name} was not deployed"))?;
        if self.json {
            return table::json(&document);
        }
        out!("deployed {name}, version {}", document["version"]);
        inspect::print(&document);
        inspect::print_warnings(&document);
        Ok(())
    }
}
