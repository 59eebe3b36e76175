//! Compiling a component, in a process of its own: what the compiler does with bytes from strangers is not bounded, so
//! the process is, in time and memory, and it can reach nothing.
//!
//! The process is this program again (`semel compile`, not for people): the component on its standard input, the
//! artifact on its standard output, or a reason on its standard error. The host itself never parses a component.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, nice, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::artifact::Artifact;
use super::{limits, sandbox};
use crate::guest::log::cut;

/// Compilations at once.
const AT_ONCE: usize = 2;
/// Largest artifact, in bytes.
const LARGEST_ARTIFACT: u64 = 512 << 20;
/// How much longer than its processor time a compilation may take by the clock.
const SLACK: u32 = 2;

/// What one compilation may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct Bounds {
    /// Processor time, in seconds; by the clock it may be twice that.
    #[arg(long)]
    pub seconds: u64,
    /// Memory, in bytes.
    #[arg(long)]
    pub memory: u64,
}

/// Starts compilations.
pub(super) struct Compiler {
    bounds: Bounds,
    places: Semaphore,
}

/// How a compilation ended.
struct Ended {
    status: ExitStatus,
    artifact: Vec<u8>,
    said: String,
}

impl Compiler {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, places: Semaphore::new(AT_ONCE) }
    }

    /// Compiles a component.
    ///
    /// # Errors
    /// Says why it is no valid component, or which bound it went over.
    pub(super) async fn compile(&self, component: &[u8]) -> Result<Artifact, String> {
        let _place = self.places.acquire().await.expect("never closed");
        let patience = Duration::from_secs(self.bounds.seconds) * SLACK;
        let ended = match tokio::time::timeout(patience, run(self.bounds, component)).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => return Err(format!("the compiler could not be started or asked: {error}")),
            Err(_) => return Err(too_long(self.bounds)), // The process was killed when its handle was dropped.
        };
        if ended.status.success() {
            return Ok(Artifact::compiled(ended.artifact));
        }
        Err(why(&ended, self.bounds))
    }
}

fn too_long(bounds: Bounds) -> String {
    let seconds = bounds.seconds;
    format!("the component takes too long to compile: this host allows {seconds} s ([limits] compile_time)")
}

/// What a failed compilation means to whoever sent the component.
fn why(ended: &Ended, bounds: Bounds) -> String {
    let signal = ended.status.signal().and_then(Signal::from_named_raw);
    let said = ended.said.trim();
    let out_of_memory = ["memory allocation of", "annot allocate memory"].iter().any(|text| said.contains(text));
    match ended.status.code() {
        _ if out_of_memory => format!(
            "the component takes too much memory to compile: this host allows {} MiB ([limits] compile_memory)",
            bounds.memory >> 20
        ),
        Some(1) => cut(said.trim_start_matches("semel: ").to_owned(), limits::REASON_BYTES),
        None if signal == Some(Signal::XCPU) => too_long(bounds),
        _ if said.contains("overflowed its stack") => "the component is nested too deeply to be compiled".into(),
        _ => {
            let said = cut(said.to_owned(), limits::REASON_BYTES);
            tracing::warn!(status = %ended.status, said, "the compiler failed");
            format!("the compiler failed on this component ({})", ended.status)
        }
    }
}

async fn run(bounds: Bounds, component: &[u8]) -> std::io::Result<Ended> {
    let mut command = Command::new(program()?);
    command.arg0("semel").arg("compile");
    command.args(["--seconds", &bounds.seconds.to_string(), "--memory", &bounds.memory.to_string()]);
    command.env_clear().current_dir("/").kill_on_drop(true);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let gone = || std::io::Error::other("a pipe is missing");
    let mut input = child.stdin.take().ok_or_else(gone)?;
    let output = child.stdout.take().ok_or_else(gone)?;
    let errors = child.stderr.take().ok_or_else(gone)?;
    let give = async move {
        let _ = input.write_all(component).await; // One that ended early says why on its standard error.
    };
    let (mut artifact, mut said) = (Vec::new(), Vec::new());
    let ((), read, heard) =
        tokio::join!(give, async { output.take(LARGEST_ARTIFACT).read_to_end(&mut artifact).await }, async {
            errors.take(64 << 10).read_to_end(&mut said).await
        },);
    let status = child.wait().await?;
    read.and(heard)?;
    Ok(Ended { status, artifact, said: String::from_utf8_lossy(&said).into_owned() })
}

/// This program, even if its file has been replaced since it started.
fn program() -> std::io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { std::env::current_exe() }
}

/// The other side: compiles what is on standard input, within the bounds, which hold before anything is read.
///
/// # Errors
/// If it is no valid component, or the bounds cannot be set.
pub fn compile_here(bounds: Bounds) -> anyhow::Result<()> {
    confine(bounds)?;
    let mut component = Vec::new();
    std::io::stdin().read_to_end(&mut component)?;
    let artifact = sandbox::compiler()?.precompile_component(&component);
    let artifact = artifact.map_err(|error| match error.downcast_ref::<std::io::Error>() {
        Some(error) => anyhow::anyhow!("{error}"),
        None => anyhow::anyhow!("not a valid component: {}", error.root_cause()),
    })?;
    std::io::stdout().write_all(&artifact)?;
    Ok(())
}

/// Gives up what compiling does not need. No file can be opened or grow after this; what is open stays open.
fn confine(bounds: Bounds) -> std::io::Result<()> {
    let at_most = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Core, at_most(0))?;
    setrlimit(Resource::Fsize, at_most(0))?;
    setrlimit(Resource::Nofile, at_most(0))?;
    setrlimit(Resource::As, at_most(bounds.memory))?;
    // The signal at the lower one can be told from a kill.
    setrlimit(Resource::Cpu, Rlimit { current: Some(bounds.seconds), maximum: Some(bounds.seconds + 1) })?;
    nice(10)?;
    Ok(())
}
