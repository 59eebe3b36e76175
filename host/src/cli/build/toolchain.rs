//! Finds a way to compile for WebAssembly on this machine.
//!
//! What is here already comes before what has to be fetched: the target of the user's own toolchain; Debian's compiler
//! with the sources of the standard library; then `rustup target add`; then Debian's packages. [`next`] decides, over
//! facts alone; the rest of this file finds the facts and does what was decided.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

/// What guests are compiled for: no WASI, so that a component imports what it says and nothing else.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's recent compiler, where the one of the release is too old.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_FILES: [&str; 3] = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/lib/rustlib/src/rust/library/Cargo.lock"];

/// `rustup` waits long for a server that it cannot reach.
const RUSTUP_PATIENCE: Duration = Duration::from_secs(30);

/// What is known about this machine.
#[derive(Debug, Clone)]
struct Facts {
    /// The compiler that cargo uses has the target's standard library.
    target_installed: bool,
    /// Debian's compiler and the library sources are installed.
    debian_compiler: bool,
    /// A linker for WebAssembly.
    linker: Option<PathBuf>,
    rustup: Fetch,
    apt: Fetch,
}

/// A way to fetch what is missing.
#[derive(Debug, Clone, PartialEq)]
enum Fetch {
    Absent,
    Untried,
    /// Tried, and this is what it said.
    Refused(String),
}

#[derive(Debug, PartialEq)]
enum Step {
    Cargo,
    /// Debian's compiler, building the standard library from its sources.
    DebianCargo {
        linker: PathBuf,
    },
    AddTarget,
    /// Debian's packages, and these in addition.
    InstallPackages(&'static [&'static str]),
    GiveUp,
}

fn next(facts: &Facts) -> Step {
    match facts {
        Facts { target_installed: true, .. } => Step::Cargo,
        Facts { debian_compiler: true, linker: Some(linker), .. } => Step::DebianCargo { linker: linker.clone() },
        Facts { rustup: Fetch::Untried, .. } => Step::AddTarget,
        Facts { apt: Fetch::Untried, linker: Some(_), .. } => Step::InstallPackages(&[]),
        Facts { apt: Fetch::Untried, linker: None, .. } => Step::InstallPackages(&["lld"]),
        _ => Step::GiveUp,
    }
}

/// `cargo build` for the target, with a toolchain that can do it; installs what is missing.
pub(super) async fn cargo(workspace: &Path) -> Result<Command> {
    let (mut rustup, mut apt) = (untried_if_found("rustup"), untried_if_found("apt-get"));
    loop {
        let facts = probe(workspace, rustup.clone(), apt.clone()).await?;
        match next(&facts) {
            Step::Cargo => return Ok(plain_cargo()),
            Step::DebianCargo { linker } => return Ok(debian_cargo(&linker)),
            Step::AddTarget => rustup = add_target(workspace).await,
            Step::InstallPackages(more) => apt = install_packages(more).await,
            Step::GiveUp => bail!(advice(&facts)),
        }
    }
}

async fn probe(workspace: &Path, rustup: Fetch, apt: Fetch) -> Result<Facts> {
    let mut rustc = Command::new("rustc");
    let output = rustc.args(["--print", "sysroot"]).current_dir(workspace).output().await;
    let output = output.context("cannot run rustc; install Rust from https://rustup.rs")?;
    let reason = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "rustc does not work in {}: {}", workspace.display(), reason.trim_end());
    let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("lib/rustlib");
    Ok(Facts {
        target_installed: libraries.join(TARGET).join("lib").is_dir(),
        debian_compiler: DEBIAN_FILES.iter().all(|file| Path::new(file).is_file()),
        linker: rust_lld(&libraries).or_else(|| find("wasm-ld")),
        rustup,
        apt,
    })
}

/// The linker that the toolchain ships, in the folder of the machine that it runs on.
fn rust_lld(libraries: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(libraries).ok()?.flatten();
    folders.map(|folder| folder.path().join("bin/rust-lld")).find(|linker| linker.is_file())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn untried_if_found(program: &str) -> Fetch {
    if find(program).is_some() { Fetch::Untried } else { Fetch::Absent }
}

fn plain_cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--target", TARGET]);
    cargo
}

fn debian_cargo(linker: &Path) -> Command {
    let mut cargo = Command::new("/usr/bin/cargo");
    cargo.args(["build", "--target", TARGET, "-Zbuild-std=std,panic_abort"]);
    cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    // A toolchain or a wrapper that was chosen for the host is not for this compiler; empty also overrules files.
    cargo.env_remove("RUSTUP_TOOLCHAIN").env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
    cargo
}

async fn add_target(workspace: &Path) -> Fetch {
    tracing::info!("rustup target add {TARGET}");
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(workspace).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(RUSTUP_PATIENCE, rustup.output()).await {
        Ok(Ok(output)) if output.status.success() => Fetch::Refused("rustup added it, but rustc has it not".into()),
        Ok(Ok(output)) => Fetch::Refused(error_line(&output.stderr)),
        Ok(Err(error)) => Fetch::Refused(error.to_string()),
        Err(_) => Fetch::Refused(format!("no answer within {RUSTUP_PATIENCE:?}")),
    }
}

async fn install_packages(more: &[&str]) -> Fetch {
    // `--no-remove`: these packages are in conflict with others (Debian's own rustup), which are the user's to keep.
    let install = ["install", "--yes", "--no-remove", "--no-install-recommends"];
    let install: Vec<_> = install.iter().chain(&DEBIAN_PACKAGES).chain(more).copied().collect();
    for arguments in [vec!["update"], install] {
        let mut apt = as_root("apt-get");
        tracing::info!("apt-get {}", arguments.join(" "));
        let failed = match apt.args(&arguments).stdin(Stdio::null()).status().await {
            Ok(status) if status.success() => continue,
            Ok(status) => format!("apt-get {}: {status}", arguments.join(" ")),
            Err(error) => format!("{}: {error}", apt.as_std().get_program().display()),
        };
        // An update that fails is no reason to stop: the lists may be good enough.
        if arguments != ["update"] {
            return Fetch::Refused(failed);
        }
    }
    Fetch::Refused("the packages are installed, but hold no compiler that can be used".into())
}

fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", program]);
    sudo
}

/// The line of rustup's output that says what was wrong, and the last cause of it.
fn error_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let error = text.lines().find_map(|line| line.strip_prefix("error: "));
    error.or(text.lines().last()).unwrap_or("it said nothing").to_owned()
}

/// What a person can do, and why it was not done here.
fn advice(facts: &Facts) -> String {
    let tried = |name: &str, fetch: &Fetch| match fetch {
        Fetch::Refused(reason) => format!("\n  {name} was tried: {reason}"),
        Fetch::Absent => format!("\n  {name} is not installed"),
        Fetch::Untried => String::new(),
    };
    format!(
        "Rust's standard library for {TARGET} is missing, and no way was found to get it.{}{}\n\
         Run one of these and try again:\n  rustup target add {TARGET}\n  sudo apt-get install {} lld   (Debian)",
        tried("rustup", &facts.rustup),
        tried("apt-get", &facts.apt),
        DEBIAN_PACKAGES.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare_debian() -> Facts {
        Facts {
            target_installed: false,
            debian_compiler: false,
            linker: Some("rust-lld".into()),
            rustup: Fetch::Untried,
            apt: Fetch::Untried,
        }
    }

    fn refused() -> Fetch {
        Fetch::Refused("no route to host".into())
    }

    #[test]
    fn what_is_here_is_used_and_nothing_is_fetched() {
        let facts = Facts { target_installed: true, debian_compiler: true, ..bare_debian() };
        assert_eq!(next(&facts), Step::Cargo);
        let facts = Facts { debian_compiler: true, ..bare_debian() };
        assert_eq!(next(&facts), Step::DebianCargo { linker: "rust-lld".into() });
    }

    #[test]
    fn rustup_is_asked_before_the_packages_of_the_system() {
        assert_eq!(next(&bare_debian()), Step::AddTarget);
        for rustup in [refused(), Fetch::Absent] {
            let facts = Facts { rustup, ..bare_debian() };
            assert_eq!(next(&facts), Step::InstallPackages(&[]));
        }
    }

    #[test]
    fn a_linker_is_installed_where_the_toolchain_has_none() {
        let facts = Facts { linker: None, rustup: Fetch::Absent, ..bare_debian() };
        assert_eq!(next(&facts), Step::InstallPackages(&["lld"]));
        let facts = Facts { debian_compiler: true, ..facts };
        assert_eq!(next(&facts), Step::InstallPackages(&["lld"]));
    }

    #[test]
    fn nothing_is_tried_twice_and_the_end_says_what_to_run() {
        let facts = Facts { rustup: refused(), apt: Fetch::Absent, ..bare_debian() };
        assert_eq!(next(&facts), Step::GiveUp);
        let advice = advice(&facts);
        assert!(advice.contains("rustup was tried: no route to host"), "{advice}");
        assert!(advice.contains("apt-get is not installed"), "{advice}");
        assert!(advice.contains("rustup target add wasm32-unknown-unknown"), "{advice}");
        assert!(advice.contains("sudo apt-get install rustc-web cargo-web rust-web-src"), "{advice}");
    }

    #[test]
    fn the_reason_of_rustup_is_its_error_line() {
        let stderr =
            b"info: downloading component rust-std\nerror: component download failed\n\nCaused by:\n    0: tcp";
        assert_eq!(error_line(stderr), "component download failed");
    }
}
