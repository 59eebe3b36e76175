//! `semel migrate`: brings a database up to date without serving it.

use std::path::PathBuf;

use super::table::{self, cell};
use crate::config::{Config, Settings};
use crate::store::{self, Migration};

/// Bring a database up to date: schema, logins and schemas of apps, walls
///
/// `semel serve` and deploys do the same by themselves, but for what takes a superuser. Harmless to repeat.
#[derive(Debug, clap::Args)]
pub(crate) struct Migrate {
    /// Configuration file [default: semel.toml, if it exists]
    #[arg(long, env = "SEMEL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The database [default: as semel serve]
    #[arg(long, env = "SEMEL_DATABASE", value_name = "URL")]
    database: Option<String>,
    /// The same database with a superuser's login, which closes what only a superuser can
    #[arg(long, env = "SEMEL_SUPERUSER", hide_env_values = true, value_name = "URL")]
    superuser: Option<String>,
    /// An app to prepare before anything of it is deployed; may be repeated
    #[arg(long = "app", value_name = "NAME")]
    apps: Vec<String>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

impl Migrate {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let settings = Settings { database: self.database, ..Settings::default() };
        let config = Config::load(settings, self.config.as_deref())?;
        let wanted = Migration { logins: config.apps, apps: self.apps, superuser: self.superuser };
        let facts = store::migrate(&config.database, wanted).await?;
        let document = serde_json::json!({ "facts": facts });
        if self.json {
            return table::json(&document);
        }
        let row = |fact: &serde_json::Value| ["about", "name", "value", "advice"].map(|key| cell(&fact[key])).to_vec();
        let rows: Vec<_> =
            document["facts"].as_array().map(Vec::as_slice).unwrap_or_default().iter().map(row).collect();
        table::print(&["about", "what", "is", "what to do"], &rows);
        Ok(())
    }
}
