//! `semel serve`: the host.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Settings};
use crate::manifest::UNSAFE_LEASES;
use crate::{crash, host};

/// Run a host: accept messages, run functions
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Configuration file [default: semel.toml, if it exists]
    #[arg(long, env = "SEMEL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Accept messages, but leave running them to others
    #[arg(long)]
    no_workers: bool,
}

impl Serve {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        if let Some(point) = crash::arm().map_err(anyhow::Error::msg)? {
            tracing::warn!(point, "a crash point is armed: this host will end itself, or stand still");
        }
        let config = Config::load(self.settings, self.config.as_deref())?;
        if *UNSAFE_LEASES {
            tracing::warn!(
                "SEMEL_EXPERIMENT_UNSAFE_LEASES: runs may outlive their leases here. For experiments, and for nothing else"
            );
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        host::serve(config, !self.no_workers, stop).await
    }
}
