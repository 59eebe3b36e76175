//! `semel bench`: how fast Semel is beside what its database can do at all.
//!
//! The figures go to standard output, one line on what is being measured to standard error. A target that is not reached is
//! said; exit code 1 is a count that was not right, and then there is no figure.

use std::io::stdout;
use std::path::PathBuf;

use super::table;
use crate::bench::{self, Options, PASSED, Part, WAITING};

/// Measure Semel beside its database without Semel
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// A server, with a login that may make databases: one is made and dropped; or a file that is not there yet [default: a
    /// file in the folder for temporary ones]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Messages that wait when a drain begins
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure only these
    #[arg(long, value_name = "NAME,…", value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Measure also what takes minutes: a claim while very many wait, a drain after very many have passed
    #[arg(long)]
    long: bool,
    /// How many wait for that
    #[arg(long, value_name = "N", default_value_t = WAITING, value_parser = clap::value_parser!(u32).range(1_000..))]
    waiting: u32,
    /// How many have passed for that
    #[arg(long, value_name = "N", default_value_t = PASSED, value_parser = clap::value_parser!(u32).range(1..))]
    passed: u32,
    /// Repeats which message is for which counter [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where `make guests` put the functions; `counter` is measured
    #[arg(long, value_name = "DIR", default_value = "target/functions")]
    functions: PathBuf,
    /// Where a page and the JSON document go
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let options = Options {
            database: self.database,
            messages: self.messages,
            rounds: self.rounds,
            parts: if self.only.is_empty() { Part::all(self.long) } else { self.only },
            waiting: self.waiting,
            passed: self.passed,
            seed: self.seed.unwrap_or_else(|| rand::random::<u32>().into()),
            functions: self.functions,
        };
        let findings = bench::run(&options, &|line| eprintln!("{line}")).await?;
        if let Some(folder) = &self.out {
            findings.write(folder)?;
        }
        if self.json {
            return table::json(&findings.document());
        }
        findings.print(&mut stdout().lock())?;
        if let Some(folder) = self.out {
            out!("The page: {}", folder.join("index.html").display());
        }
        Ok(())
    }
}
