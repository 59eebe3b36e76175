//! The `semel` program: parse, log to standard error, run.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = semel::cli::Cli::parse();
    semel::logging::start();
    cli.execute().await
}
