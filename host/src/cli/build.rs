//! `semel build`: from the crate of a guest to a folder that `semel deploy` takes.
//!
//! One call of cargo builds all given guests of a workspace as core modules; each is encoded as a component and laid
//! out with its manifest and its migrations. What is already there and equal is not touched, so that building twice
//! changes nothing, and a reader never sees half a file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use wit_component::ComponentEncoder;

use crate::manifest::Manifest;

mod toolchain;

/// Build guests and lay out a deployable folder for each.
#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// Folders of guests: each a Rust crate with a function.toml beside its Cargo.toml.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Folder that gets a folder per function, as `semel deploy` takes it.
    #[arg(long, default_value = "target/functions", value_name = "DIR")]
    out: PathBuf,
}

impl Build {
    pub(crate) async fn execute(self) -> Result<()> {
        let mut names = BTreeSet::new();
        let mut workspaces: BTreeMap<PathBuf, Vec<Guest>> = BTreeMap::new();
        for path in &self.paths {
            let guest = Guest::find(path).await.with_context(|| format!("cannot build {}", path.display()))?;
            ensure!(names.insert(guest.name.clone()), "two of the given functions have the name {}", guest.name);
            workspaces.entry(guest.workspace.clone()).or_default().push(guest);
        }
        for (workspace, guests) in &workspaces {
            let modules = compile(workspace, guests).await?;
            for guest in guests {
                let folder = self.out.join(&guest.name);
                let lay_out = || format!("cannot lay out {} in {}", guest.name, folder.display());
                let size = guest.lay_out(&modules, &folder).with_context(lay_out)?;
                out!("{} ({} kB)", folder.display(), size.div_ceil(1000));
            }
        }
        Ok(())
    }
}

/// One guest, as its manifest and cargo describe it.
struct Guest {
    name: String,
    folder: PathBuf,
    /// File name of the component, from the manifest.
    component: String,
    /// What cargo calls the crate.
    package: String,
    /// File name of the core module that cargo makes.
    module: String,
    workspace: PathBuf,
    target: PathBuf,
}

/// The part of `cargo metadata` that is used here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    crate_types: Vec<String>,
}

impl Guest {
    async fn find(path: &Path) -> Result<Self> {
        let folder = fs::canonicalize(path).context("there is no such folder")?;
        ensure!(folder.is_dir(), "this is not a folder; give the folder that holds function.toml and Cargo.toml");
        let text = fs::read_to_string(folder.join("function.toml"))
            .context("the folder has no readable function.toml; write one, `name = \"…\"` is enough")?;
        let manifest = Manifest::parse(&text).map_err(anyhow::Error::msg)?;
        let component = manifest.component.unwrap_or_else(|| format!("{}.wasm", manifest.name));
        let plain = Path::new(&component).file_name() == Some(OsStr::new(&component));
        ensure!(plain, "function.toml: component = \"{component}\" must be the name of a file, without a folder");

        let crate_file = folder.join("Cargo.toml");
        let missing = "the folder has no Cargo.toml, and only Rust crates are built here; \
                       a component that was built elsewhere needs only `semel deploy`";
        ensure!(crate_file.is_file(), missing);
        let Metadata { packages, workspace_root, target_directory } = metadata(&folder).await?;
        let Some(package) = packages.into_iter().find(|package| package.manifest_path == crate_file) else {
            bail!("the Cargo.toml describes no package; give the folder of a guest, not of a workspace");
        };
        let is_cdylib = |target: &&Target| target.crate_types.iter().any(|kind| kind == "cdylib");
        let Some(library) = package.targets.iter().find(is_cdylib) else {
            bail!("the crate is no guest yet; add to its Cargo.toml: [lib] crate-type = [\"cdylib\"]");
        };
        Ok(Self {
            module: format!("{}.wasm", library.name.replace('-', "_")),
            name: manifest.name,
            component,
            package: package.id,
            workspace: workspace_root,
            target: target_directory,
            folder,
        })
    }

    /// Returns the size of the component.
    fn lay_out(&self, modules: &Path, folder: &Path) -> Result<usize> {
        let module = modules.join(&self.module);
        let module = fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
        let component = encode(&module).context("the module is no component: does it call wit_bindgen::generate!?")?;
        copy_migrations(&self.folder.join("migrations"), &folder.join("migrations"))?;
        let manifest = self.folder.join("function.toml");
        write(&folder.join("function.toml"), &fs::read(&manifest)?)?;
        write(&folder.join(&self.component), &component)?;
        Ok(component.len())
    }
}

async fn metadata(folder: &Path) -> Result<Metadata> {
    let mut cargo = tokio::process::Command::new("cargo");
    cargo.args(["metadata", "--no-deps", "--format-version=1"]).current_dir(folder);
    let output = cargo.output().await.context("cannot run cargo; install Rust from https://rustup.rs")?;
    let reason = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo cannot read the crate: {}", reason.trim_end());
    serde_json::from_slice(&output.stdout).context("cargo metadata answered something unknown")
}

/// Builds guests of one workspace and returns the folder of their core modules.
async fn compile(workspace: &Path, guests: &[Guest]) -> Result<PathBuf> {
    let profile = if defines_profile_guest(workspace)? { "guest" } else { "release" };
    let mut cargo = toolchain::cargo(workspace).await?;
    cargo.arg("--profile").arg(profile).current_dir(workspace);
    for guest in guests {
        cargo.arg("--package").arg(&guest.package);
    }
    let status =
        cargo.status().await.with_context(|| format!("cannot run {}", cargo.as_std().get_program().display()))?;
    ensure!(status.success(), "the guests in {} do not build; cargo says above why", workspace.display());
    let target = guests.first().map(|guest| guest.target.clone()).unwrap_or_default();
    Ok(target.join(toolchain::TARGET).join(profile))
}

fn defines_profile_guest(workspace: &Path) -> Result<bool> {
    let path = workspace.join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: toml::Table = toml::from_str(&text).with_context(|| format!("{} is no TOML", path.display()))?;
    Ok(manifest.get("profile").and_then(|profile| profile.get("guest")).is_some())
}

fn encode(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default().validate(true).module(module)?.encode()
}

/// Makes `to` hold the `.sql` files of `from` and no others.
fn copy_migrations(from: &Path, to: &Path) -> Result<()> {
    let wanted = migrations(from)?;
    for name in migrations(to)?.difference(&wanted) {
        fs::remove_file(to.join(name)).with_context(|| format!("cannot remove {}", to.join(name).display()))?;
    }
    for name in &wanted {
        let text = fs::read(from.join(name)).with_context(|| format!("cannot read {}", from.join(name).display()))?;
        write(&to.join(name), &text)?;
    }
    Ok(())
}

fn migrations(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    if !folder.is_dir() {
        return Ok(BTreeSet::new());
    }
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let name = PathBuf::from(entry?.file_name());
        if name.extension() == Some(OsStr::new("sql")) {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Replaces a file in one step, or leaves it alone if it is equal already.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    let context = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(context)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}.new", std::process::id()));
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, path)).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_holds_what_the_guest_holds_and_nothing_older() {
        let folder = std::env::temp_dir().join(format!("semel-build-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        write(&from.join("0001_a.sql"), b"a").unwrap();
        write(&from.join("notes.txt"), b"not a migration").unwrap();
        write(&to.join("0002_renamed.sql"), b"old").unwrap();
        copy_migrations(&from, &to).unwrap();
        let names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["0001_a.sql"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_equal_is_not_written() {
        let path = std::env::temp_dir().join(format!("semel-build-{}.txt", std::process::id()));
        write(&path, b"one").unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        write(&path, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_module_without_an_interface_is_no_component() {
        assert!(encode(b"\0asm").is_err());
    }
}
