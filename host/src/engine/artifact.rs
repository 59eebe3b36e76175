//! Artifacts: the native code of components, and the folder in which a host keeps what it compiled.
//!
//! Loading an artifact runs whatever is in it, so it is only ever bytes that this program's own compiler made: fresh
//! from the child, or from a file with a MAC under a key that only this installation has. The file is read once, and
//! the bytes that were checked are the bytes that are loaded. Anything wrong with a file is a warning, and the component
//! is compiled again.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};
use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::OFlags;
use rustix::process::geteuid;
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::sandbox;

/// Bytes that the files of the folder may have together; those that were not used for longest go first.
const MOST_BYTES: u64 = 2 << 30;
/// How the name of a file ends that is not whole yet.
const UNFINISHED: &str = ".tmp";
/// Bytes of a MAC, with which each file begins.
const MAC: usize = 32;

/// Native code that this program compiled.
pub(super) struct Artifact(Vec<u8>);

impl Artifact {
    /// Of what the compiler wrote.
    pub(super) fn compiled(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Loads it.
    ///
    /// # Errors
    /// If it was compiled for another engine.
    #[expect(unsafe_code, reason = "an artifact is native code")]
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes come from this program's own compiler: there is no other way to make an `Artifact` than
        // from its output, or from a file with a MAC of this installation over it.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}

/// The folder with a file per component.
pub(super) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
    fingerprint: Vec<u8>,
}

impl Cache {
    /// Opens the folder, and makes it if it is not there.
    ///
    /// # Errors
    /// If others than this user could write to it.
    pub(super) fn open(folder: &Path, secret: &[u8; 32], engine: &Engine) -> anyhow::Result<Self> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make the cache {}", folder.display()));
            }
            _ => {}
        }
        let found = fs::symlink_metadata(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let advice = "it holds native code: name a folder of this user alone with `cache`, or remove this one";
        ensure!(found.is_dir(), "the cache {} is no folder; {advice}", folder.display());
        ensure!(found.uid() == geteuid().as_raw(), "the cache {} belongs to another user; {advice}", folder.display());
        ensure!(found.mode() & 0o022 == 0, "others may write to the cache {}; {advice}", folder.display());
        let mut key = mac(secret);
        key.update(b"semel artifact cache");
        let key = key.finalize().into_bytes().into();
        let cache = Self { folder: folder.to_owned(), key, fingerprint: sandbox::fingerprint(engine) };
        for unfinished in cache.files()?.iter().filter(|file| file.path.extension().is_some()) {
            fs::remove_file(&unfinished.path)
                .with_context(|| format!("cannot remove {}", unfinished.path.display()))?;
        }
        Ok(cache)
    }

    /// The artifact of a component, if there is one that is right.
    pub(super) fn find(&self, digest: &str) -> Option<Artifact> {
        let path = self.folder.join(digest);
        match self.read(&path, digest) {
            Ok(artifact) => artifact,
            Err(error) => {
                tracing::warn!(file = %path.display(), error = format!("{error:#}"), "an artifact is not used");
                None
            }
        }
    }

    fn read(&self, path: &Path, digest: &str) -> anyhow::Result<Option<Artifact>> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = match File::options().read(true).custom_flags(flags).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.context("it cannot be opened")?,
        };
        let found = file.metadata()?;
        ensure!(found.is_file(), "it is no file");
        ensure!(found.uid() == geteuid().as_raw(), "it belongs to another user");
        ensure!(found.mode() & 0o022 == 0, "others may write to it");
        ensure!(found.len() <= MOST_BYTES, "it is too large");
        let mut tag = [0; MAC];
        let mut bytes = Vec::new();
        file.read_exact(&mut tag).and_then(|()| file.read_to_end(&mut bytes)).context("it cannot be read")?;
        if self.mac(digest, &bytes).verify_slice(&tag).is_err() {
            bail!("it was changed, or made by another installation, version or configuration");
        }
        let _ = file.set_modified(SystemTime::now()); // Only for the order in which files go.
        Ok(Some(Artifact(bytes)))
    }

    /// Keeps an artifact for the next start. If that fails, the next start compiles.
    pub(super) fn keep(&self, digest: &str, artifact: &Artifact) {
        if let Err(error) = self.write(digest, artifact).and_then(|()| self.tidy()) {
            let folder = self.folder.display();
            tracing::warn!(%folder, error = format!("{error:#}"), "an artifact cannot be kept; the next start compiles");
        }
    }

    /// A reader sees the whole file or none.
    fn write(&self, digest: &str, artifact: &Artifact) -> anyhow::Result<()> {
        let unfinished = self.folder.join(format!("{:016x}{UNFINISHED}", rand::random::<u64>()));
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let tag = self.mac(digest, &artifact.0).finalize().into_bytes();
        let written = file.write_all(&tag).and_then(|()| file.write_all(&artifact.0)).and_then(|()| file.sync_all());
        let written = written.and_then(|()| fs::rename(&unfinished, self.folder.join(digest)));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished); // Or at the next start.
        }
        Ok(written?)
    }

    /// Removes what was not used for longest, until the rest is small enough.
    fn tidy(&self) -> anyhow::Result<()> {
        let mut files = self.files()?;
        files.sort_by_key(|file| std::cmp::Reverse(file.used));
        let mut held = 0;
        for file in files {
            held += file.bytes;
            if held > MOST_BYTES {
                fs::remove_file(&file.path)?;
            }
        }
        Ok(())
    }

    /// Its own files: somebody may have named a folder in which there are others.
    fn files(&self) -> anyhow::Result<Vec<Kept>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).context("the cache cannot be read")? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (stem, digits) = name.strip_suffix(UNFINISHED).map_or((name.as_str(), 64), |stem| (stem, 16));
            if stem.len() == digits && stem.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let found = entry.metadata()?;
                files.push(Kept { path: entry.path(), bytes: found.len(), used: found.modified()? });
            }
        }
        Ok(files)
    }

    /// Over all that decides what the artifact is.
    fn mac(&self, digest: &str, artifact: &[u8]) -> Hmac<Sha256> {
        let mut mac = mac(&self.key);
        for part in [self.fingerprint.as_slice(), digest.as_bytes(), artifact] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

fn mac(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = [0; 64]; // HMAC pads a shorter key with zeros to one block of the hash.
    block[..32].copy_from_slice(key);
    <Hmac<Sha256> as KeyInit>::new(&block.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    /// What another secret, another component or another configuration stands behind is not used.
    #[test]
    fn an_artifact_is_used_for_what_it_was_made_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = sandbox::compiler().expect("an engine");
        let artifact = Artifact::compiled(engine.precompile_component(COMPONENT).expect("an artifact"));
        let open = |secret, engine| Cache::open(folder.path(), &[secret; 32], engine).expect("a cache");
        let digest = "0".repeat(64);
        open(1, &engine).keep(&digest, &artifact);
        let found = open(1, &engine).find(&digest).expect("the artifact");
        found.load(&engine).expect("a component");
        assert!(open(2, &engine).find(&digest).is_none(), "another secret");
        let other = Engine::new(wasmtime::Config::new().epoch_interruption(true)).expect("an engine");
        assert!(open(1, &other).find(&digest).is_none(), "another configuration");
        let renamed = "1".repeat(64);
        fs::rename(folder.path().join(&digest), folder.path().join(&renamed)).expect("another name");
        assert!(open(1, &engine).find(&renamed).is_none(), "another component");
    }

    #[test]
    fn files_of_others_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["notes.tmp", "0123456789abcdef.tmp", "0123456789abcdeg.tmp", "0123456789abcdef"] {
            fs::write(folder.path().join(name), name).expect("a file");
        }
        let engine = sandbox::compiler().expect("an engine");
        let cache = Cache::open(folder.path(), &[1; 32], &engine).expect("a cache");
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 3, "one was half an artifact");
        assert!(cache.files().expect("files").is_empty());
    }
}
