//! The command line: one verb, one file, one struct, one `execute`.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::logging::printable;

/// A line on standard output. Whoever does not read on (`| head`) has what they wanted: then the program ends.
macro_rules! out {
    () => { $crate::cli::line(format_args!("")) };
    ($($line:tt)*) => { $crate::cli::line(format_args!($($line)*)) };
}

mod bench;
mod build;
mod cancel;
mod check;
mod client;
mod compile;
mod deploy;
mod doctor;
mod experiment;
mod functions;
mod inspect;
mod ledger;
mod messages;
mod migrate;
mod outbox;
mod pause;
mod redrive;
mod remove;
mod resolve;
mod resume;
mod rollback;
mod send;
mod serve;
mod table;
mod trace;

/// Functions whose effects happen once
#[derive(Debug, Parser)]
#[command(name = "semel", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Build(build::Build),
    Deploy(deploy::Deploy),
    Check(check::Check),
    Inspect(inspect::Inspect),
    Functions(functions::Functions),
    Rollback(rollback::Rollback),
    Pause(pause::Pause),
    Resume(resume::Resume),
    Remove(remove::Remove),
    Send(send::Send),
    Messages(messages::Messages),
    Trace(trace::Trace),
    Outbox(outbox::Outbox),
    Redrive(redrive::Redrive),
    Resolve(resolve::Resolve),
    Cancel(cancel::Cancel),
    Ledger(ledger::Ledger),
    Doctor(doctor::Doctor),
    Migrate(migrate::Migrate),
    Experiment(experiment::Experiment),
    Bench(bench::Bench),
    #[command(hide = true)]
    Compile(compile::Compile),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

fn line(line: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

impl Cli {
    /// Runs the command. The exit code is 0 if it is done and 1 if what was asked for failed (usage errors are 2, and
    /// end in the parser).
    pub async fn execute(self) -> ExitCode {
        match self.command.execute().await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("semel: {}", printable(&format!("{error:#}")));
                ExitCode::FAILURE
            }
        }
    }
}

impl Command {
    /// Whether what was asked for was done.
    async fn execute(self) -> anyhow::Result<bool> {
        match self {
            Self::Serve(command) => command.execute().await.map(|()| true),
            Self::Build(command) => command.execute().await.map(|()| true),
            Self::Deploy(command) => command.execute().await.map(|()| true),
            Self::Check(command) => command.execute().await,
            Self::Inspect(command) => command.execute().await.map(|()| true),
            Self::Functions(command) => command.execute().await.map(|()| true),
            Self::Rollback(command) => command.execute().await.map(|()| true),
            Self::Pause(command) => command.execute().await.map(|()| true),
            Self::Resume(command) => command.execute().await.map(|()| true),
            Self::Remove(command) => command.execute().await.map(|()| true),
            Self::Send(command) => command.execute().await,
            Self::Messages(command) => command.execute().await.map(|()| true),
            Self::Trace(command) => command.execute().await.map(|()| true),
            Self::Outbox(command) => command.execute().await.map(|()| true),
            Self::Redrive(command) => command.execute().await,
            Self::Resolve(command) => command.execute().await.map(|()| true),
            Self::Cancel(command) => command.execute().await.map(|()| true),
            Self::Ledger(command) => command.execute().await.map(|()| true),
            Self::Doctor(command) => command.execute().await,
            Self::Migrate(command) => command.execute().await.map(|()| true),
            Self::Experiment(command) => command.execute().await,
            Self::Bench(command) => command.execute().await.map(|()| true),
            Self::Compile(command) => command.execute().map(|()| true),
            Self::Completions { shell } => {
                clap_complete::generate(shell, &mut Cli::command(), "semel", &mut std::io::stdout());
                Ok(true)
            }
        }
    }
}
