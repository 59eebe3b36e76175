//! Loss of power, for experiments: a disk that forgets what was not synced.
//!
//! Of what a program wrote and did not sync, a machine without power may keep nothing. So does this one: `files.rs` stands
//! between SQLite and the files of all its databases, and `unsynced.rs` remembers what was there before each change, until
//! the change is synced. Nobody has this in his way but a host with a crash point that is armed with `power`.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Error;
use crate::crash;
use unsynced::Unsynced;

mod files;
mod unsynced;

static DISK: Mutex<Unsynced> = Mutex::new(Unsynced::new());

fn disk() -> MutexGuard<'static, Unsynced> {
    DISK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts all databases that this process opens from here on, the ledger's too, on the disk that can lose power.
pub(super) fn arm() -> Result<(), Error> {
    files::register(true)?;
    crash::on_loss_of_power(lose);
    Ok(())
}

/// Whoever comes to the disk after this waits, until there is nobody left.
fn lose() -> io::Result<()> {
    let mut disk = disk();
    let undone = disk.undo();
    std::mem::forget(disk);
    undone
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
    use sqlx::{ConnectOptions as _, Executor as _, Row as _};

    use super::*;

    /// Rows that are left after a loss of power: in a copy of the files, since SQLite has what they were in its memory.
    async fn left(folder: &Path) -> i64 {
        disk().undo().expect("a loss of power");
        let copy = folder.join("copy");
        std::fs::create_dir(&copy).expect("a folder");
        for ending in ["", "-wal", "-journal"] {
            let name = format!("test.db{ending}");
            if folder.join(&name).exists() {
                std::fs::copy(folder.join(&name), copy.join(&name)).expect("a copy");
            }
        }
        let options = SqliteConnectOptions::new().filename(copy.join("test.db"));
        let mut after = options.connect().await.expect("a database after the loss of power");
        let whole: String = after.fetch_one("PRAGMA integrity_check").await.expect("a check").get(0);
        assert_eq!(whole, "ok");
        after.fetch_one("SELECT count(*) FROM t").await.expect("a count").get(0)
    }

    /// A database with an empty table that is there for good, on the disk that can lose power.
    async fn database(folder: &Path, mode: SqliteJournalMode, synchronous: SqliteSynchronous) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(folder.join("test.db")).create_if_missing(true);
        let mut before = options.clone().journal_mode(mode).connect().await.expect("a database");
        before.execute("CREATE TABLE t (a)").await.expect("a table");
        sqlx::Connection::close(before).await.expect("an end");
        let options = options.vfs(files::NAME.to_str().expect("a name")).synchronous(synchronous);
        options.connect().await.expect("a database on that disk")
    }

    /// One test: there is one disk.
    #[tokio::test]
    async fn what_is_synced_survives_and_nothing_else() {
        use {SqliteJournalMode as Mode, SqliteSynchronous as Sync};
        files::register(false).expect("a disk that can lose power");
        let (insert, checkpoint) = ("INSERT INTO t VALUES (randomblob(20000))", "PRAGMA wal_checkpoint(FULL)");
        for (mode, synchronous, statements, kept) in [
            (Mode::Wal, Sync::Full, &[insert, insert, "BEGIN", insert][..], 2),
            (Mode::Wal, Sync::Full, &["PRAGMA cache_size = 1", "BEGIN", insert, insert, insert], 0),
            (Mode::Wal, Sync::Normal, &[insert, insert], 0),
            (Mode::Wal, Sync::Normal, &[insert, checkpoint, insert], 1),
            (Mode::Wal, Sync::Off, &[insert, checkpoint], 0),
            (Mode::Delete, Sync::Extra, &[insert, insert, "BEGIN", insert], 2),
            // The commit is that the journal is gone, which is not synced: the last one is rolled back.
            (Mode::Delete, Sync::Full, &[insert, insert], 1),
        ] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let mut connection = database(folder.path(), mode, synchronous).await;
            for statement in statements {
                connection.execute(*statement).await.expect("a statement");
            }
            assert_eq!(left(folder.path()).await, kept, "{mode:?}, {synchronous:?}: {statements:?}");
            let _ = sqlx::Connection::close(connection).await; // Whatever it makes of such files.
            *disk() = Unsynced::new();
        }
    }
}
