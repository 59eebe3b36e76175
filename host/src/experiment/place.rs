//! Where an experiment does its work: a folder, held by a lock, and what earlier runs left in it.
//!
//! Two runs in one folder would delete each other's database.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The folder `run` in the output folder of an experiment, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    _lock: File,
}

impl Place {
    /// Takes the folder, makes it if need be, and removes databases and witness files of earlier runs.
    pub(crate) fn take(out: &Path) -> anyhow::Result<Self> {
        let folder = std::path::absolute(out.join("run")).context("cannot tell where the output goes")?;
        let made = fs::create_dir_all(&folder).and_then(|()| File::create(folder.join("lock")));
        let lock = made.with_context(|| format!("cannot write to {}", folder.display()))?;
        if lock.try_lock().is_err() {
            bail!("another experiment is at work in {}: give this one another --out", folder.display());
        }
        remove_leftovers(&folder)?;
        Ok(Self { folder, _lock: lock })
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The URL of a fresh database file in it.
    pub(crate) fn database(&self, name: &str) -> String {
        Self::url(&self.folder.join(format!("{name}.db")))
    }

    /// The URL of a database file.
    pub(super) fn url(file: &Path) -> String {
        format!("sqlite://{}", file.display())
    }

    /// An empty witness file in it.
    pub(super) fn witness(&self) -> anyhow::Result<PathBuf> {
        let path = self.witness_file();
        File::create(&path).context("cannot make the witness file")?;
        Ok(path)
    }

    /// A copy of a function's folder in it, with other tables in its manifest.
    pub(super) fn variant(&self, function: &Path, tables: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
        let name = function.file_name().context("the folder of a function has a name")?;
        let folder = self.folder.join(name);
        copy(function, &folder).with_context(|| format!("cannot copy {}", function.display()))?;
        let file = folder.join("function.toml");
        let mut manifest: toml::Table = fs::read_to_string(&file)?.parse().context("a manifest is not right")?;
        for (table, text) in tables {
            manifest.insert((*table).to_owned(), toml::Value::Table(text.parse()?));
        }
        fs::write(&file, manifest.to_string())?;
        Ok(folder)
    }

    /// A function in it by another's component, with `lines` in its manifest. It uses the other's tables, and has none of its own.
    pub(crate) fn function(&self, name: &str, function: &Path, lines: &str) -> anyhow::Result<PathBuf> {
        let of = function.file_name().and_then(|name| name.to_str()).context("the folder of a function has a name")?;
        let component = std::path::absolute(function.join(format!("{of}.wasm")))?;
        let component = toml::Value::String(component.display().to_string());
        let folder = self.folder.join(name);
        let manifest = format!("name = \"{name}\"\ncomponent = {component}\n{lines}\n");
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("function.toml"), manifest));
        written.with_context(|| format!("cannot write to {}", folder.display()))?;
        Ok(folder)
    }

    /// The path of the witness file. All hosts of a run may write to it: each line is one write at its end.
    pub(super) fn witness_file(&self) -> PathBuf {
        self.folder.join("witness.txt")
    }
}

/// Only what an earlier run made itself: the folder's name was the user's choice.
fn remove_leftovers(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).context("cannot read the folder of the run")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if [".db", ".db-wal", ".db-shm", ".db.lock", ".db.ledger", ".db.ledger-wal", ".db.ledger-shm"]
            .iter()
            .any(|ending| name.ends_with(ending))
        {
            let path = entry.path();
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to)?;
        } else {
            fs::copy(&path, &to)?;
        }
    }
    Ok(())
}

/// That the functions that an experiment needs have been built.
pub(crate) fn check_built(functions: &Path, needed: &[&str]) -> anyhow::Result<()> {
    match needed.iter().find(|name| !functions.join(name).is_dir()) {
        None => Ok(()),
        Some(missing) => {
            let place = functions.display();
            bail!("there is no function `{missing}` in {place}: `make guests` builds it, --functions says where")
        }
    }
}
