//! What a loss of power undoes: for every file what it was before each change that is not synced, and for folders the same.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Changes that are not synced.
pub(super) struct Unsynced {
    /// Of files, oldest first. Each file that was opened is here.
    files: BTreeMap<PathBuf, Vec<Before>>,
    /// Of what is in folders, oldest first.
    entries: Vec<(PathBuf, Entry)>,
}

/// A part of a file as it was before it was changed.
pub(super) struct Before {
    /// Of the whole file, in bytes.
    pub(super) length: usize,
    pub(super) offset: usize,
    /// Those that were there: fewer than were written where the file became longer.
    pub(super) bytes: Vec<u8>,
}

enum Entry {
    Made,
    /// With what was synced of it.
    Removed(Vec<u8>),
}

impl Unsynced {
    pub(super) const fn new() -> Self {
        Self { files: BTreeMap::new(), entries: Vec::new() }
    }

    /// A file is open, and may have been made for that.
    pub(super) fn opened(&mut self, path: &Path, made: bool) {
        self.files.entry(path.to_owned()).or_default();
        if made {
            self.entries.push((path.to_owned(), Entry::Made));
        }
    }

    /// A file is about to be changed.
    pub(super) fn changes(&mut self, path: &Path, before: Before) {
        self.files.entry(path.to_owned()).or_default().push(before);
    }

    /// A file is synced; not that it is there.
    pub(super) fn synced(&mut self, path: &Path) {
        self.files.entry(path.to_owned()).or_default().clear();
    }

    /// The folder of a file is synced: which files it has.
    pub(super) fn folder_synced(&mut self, file: &Path) {
        self.entries.retain(|(path, _)| path.parent() != file.parent());
    }

    /// A file is about to be removed.
    pub(super) fn removes(&mut self, path: &Path) -> io::Result<()> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            bytes => bytes?,
        };
        let changes = self.files.remove(path).unwrap_or_default();
        self.entries.push((path.to_owned(), Entry::Removed(undone(bytes, &changes))));
        Ok(())
    }

    /// The power is lost: only what was synced is there. The shared memory of a database, which looks like a file, is gone.
    pub(super) fn undo(&mut self) -> io::Result<()> {
        for (path, changes) in std::mem::take(&mut self.files) {
            if !changes.is_empty() {
                fs::write(&path, undone(fs::read(&path)?, &changes))?;
            }
            remove(&shared_memory(path))?;
        }
        for (path, entry) in std::mem::take(&mut self.entries).into_iter().rev() {
            match entry {
                Entry::Made => remove(&path)?,
                Entry::Removed(bytes) => fs::write(path, bytes)?,
            }
        }
        Ok(())
    }
}

/// What the file was before these changes.
fn undone(mut file: Vec<u8>, changes: &[Before]) -> Vec<u8> {
    for Before { length, offset, bytes } in changes.iter().rev() {
        let end = offset + bytes.len();
        file.resize(end.max(*length), 0);
        file[*offset..end].copy_from_slice(bytes);
        file.truncate(*length);
    }
    file
}

fn shared_memory(database: PathBuf) -> PathBuf {
    let mut name = OsString::from(database);
    name.push("-shm");
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// A file as a program sees it, and as a disk would have it.
    #[test]
    fn a_file_is_again_what_it_was_when_it_was_synced() {
        let seed = rand::random();
        eprintln!("seed {seed}");
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..2_000 {
            let (mut file, mut synced, mut changes): (Vec<u8>, Vec<u8>, Vec<Before>) = Default::default();
            for _ in 0..random.random_range(0..20) {
                let length = file.len();
                let offset = random.random_range(0..=length + 3); // Also behind its end.
                let amount = random.random_range(0..20);
                match random.random_range(0..4) {
                    0 => {
                        synced.clone_from(&file);
                        changes.clear();
                    }
                    1 => {
                        let bytes = file.get(offset..).unwrap_or_default().to_vec();
                        changes.push(Before { length, offset: offset.min(length), bytes });
                        file.truncate(offset);
                    }
                    _ => {
                        let there = offset.min(length)..(offset + amount).min(length);
                        changes.push(Before { length, offset: there.start, bytes: file[there].to_vec() });
                        file.resize(length.max(offset + amount), 0);
                        file[offset..offset + amount].fill(random.random());
                    }
                }
            }
            assert_eq!(undone(file, &changes), synced);
        }
    }

    #[test]
    fn a_folder_has_again_the_files_that_it_had_when_it_was_synced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| folder.path().join(name);
        let read = |name: &str| fs::read_to_string(file(name)).ok();
        let mut disk = Unsynced::new();
        let write = |disk: &mut Unsynced, name: &str, text: &str| {
            let bytes = fs::read(file(name)).unwrap_or_default();
            disk.opened(&file(name), !file(name).exists());
            disk.changes(&file(name), Before { length: bytes.len(), offset: 0, bytes });
            fs::write(file(name), text).expect("a file");
        };
        let delete = |disk: &mut Unsynced, name: &str| {
            disk.removes(&file(name)).expect("a file");
            fs::remove_file(file(name)).expect("a file");
        };
        fs::write(file("removed"), "as it was").expect("a file");
        fs::write(file("replaced"), "the old").expect("a file");
        write(&mut disk, "made", "synced, and its folder is not");
        disk.synced(&file("made"));
        write(&mut disk, "removed", "not synced");
        delete(&mut disk, "removed");
        delete(&mut disk, "replaced");
        write(&mut disk, "replaced", "the new");
        write(&mut disk, "brief", "");
        delete(&mut disk, "brief");
        fs::write(file("made-shm"), "").expect("a file");
        disk.undo().expect("a loss of power");
        let found = ["made", "removed", "replaced", "brief", "made-shm"].map(read);
        assert_eq!(found, [None, Some("as it was".into()), Some("the old".into()), None, None]);

        write(&mut disk, "made", "twice synced");
        disk.synced(&file("made"));
        delete(&mut disk, "removed");
        disk.folder_synced(&file("made"));
        write(&mut disk, "made", "not synced");
        disk.undo().expect("a loss of power");
        assert_eq!(["made", "removed"].map(read), [Some("twice synced".into()), None]);
    }
}
