//! `semel bench`: what the sandbox costs, and how fast a queue is drained.

use std::path::PathBuf;

use super::table;
use crate::bench;

/// Measure the cost of the sandbox and the rate at which a queue is drained
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Messages to drain
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// Where `make guests` put the functions; `counter` is measured
    #[arg(long, value_name = "DIR", default_value = "target/functions")]
    functions: PathBuf,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let figures = bench::run(&self.functions, self.messages).await?;
        if self.json {
            return table::json(&figures);
        }
        for (name, value) in figures["figures"].as_object().into_iter().flatten() {
            out!("{name:<28} {value}");
        }
        Ok(())
    }
}
