//! Between SQLite and its files: a VFS that hands everything on to the system's own, and says what it changes.
//!
//! All of a change happens with the disk locked, and so does every read: whoever comes after the loss of power sees nothing
//! of what it did. Locks and shared memory are no business of the disk. Files are never mapped: of these methods there is
//! no third version.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::ptr;

use libsqlite3_sys as ffi;

use super::unsynced::Before;
use super::{Error, disk};

/// How SQLite calls it.
pub(super) const NAME: &CStr = c"semel-power";

/// Written when a database is open, before a commit, or as the commit.
const JOURNAL: c_int = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;

/// As SQLite wants it, and what is ours behind it.
#[repr(C)]
struct Vfs {
    base: ffi::sqlite3_vfs,
    /// The system's own.
    real: *mut ffi::sqlite3_vfs,
}

/// As SQLite wants it, and what is ours behind it. Behind that is the file of the system's own VFS.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// Made by `open`, ended by `close`.
    own: *mut Own,
}

struct Own {
    path: PathBuf,
    /// SQLite's own rule for a new journal: with its first sync its folder is synced as well.
    syncs_folder: bool,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes it known to SQLite; by default: for every database that is opened after this.
#[expect(unsafe_code, reason = "SQLite's C interface")]
pub(super) fn register(by_default: bool) -> Result<(), Error> {
    // SAFETY: what is registered lives for ever, and so does what it was copied from.
    let code = unsafe {
        if !ffi::sqlite3_vfs_find(NAME.as_ptr()).is_null() {
            return Ok(());
        }
        let real = ffi::sqlite3_vfs_find(ptr::null());
        if real.is_null() {
            return Err(Error::Broken("this SQLite has no way to files".into()));
        }
        let base = ffi::sqlite3_vfs {
            szOsFile: (*real).szOsFile + c_int::try_from(size_of::<File>()).unwrap_or(c_int::MAX),
            pNext: ptr::null_mut(),
            zName: NAME.as_ptr(),
            xOpen: Some(open),
            xDelete: Some(delete),
            ..*real
        };
        ffi::sqlite3_vfs_register(Box::into_raw(Box::new(Vfs { base, real })).cast(), by_default.into())
    };
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(Error::Broken(format!("this SQLite takes no disk that can lose power (code {code})"))),
    }
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    answer: *mut c_int,
) -> c_int {
    let mut disk = disk();
    // SAFETY: `vfs` was registered above, and `file` has as many bytes as it asked for: enough for our part and the real one.
    unsafe {
        let real = (*vfs.cast::<Vfs>()).real;
        let Some(open) = (*real).xOpen else { return ffi::SQLITE_CANTOPEN };
        if name.is_null() || flags & (ffi::SQLITE_OPEN_MAIN_DB | JOURNAL) == 0 {
            return open(real, name, file, flags, answer); // It ends with the process anyway.
        }
        let path = path(name);
        let made = !path.exists();
        (*file).pMethods = ptr::null();
        match open(real, name, behind(file), flags, answer) {
            ffi::SQLITE_OK => {}
            code => return code, // The system's own leaves nothing open then.
        }
        disk.opened(&path, made);
        let own = Box::into_raw(Box::new(Own { path, syncs_folder: made && flags & JOURNAL != 0 }));
        file.cast::<File>().write(File { base: ffi::sqlite3_file { pMethods: &raw const METHODS }, own });
    }
    ffi::SQLITE_OK
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    let mut disk = disk();
    // SAFETY: `vfs` was registered above, and `name` is a text that lives until this returns.
    unsafe {
        let real = (*vfs.cast::<Vfs>()).real;
        let path = path(name);
        let (Some(delete), Ok(())) = ((*real).xDelete, disk.removes(&path)) else { return ffi::SQLITE_IOERR_DELETE };
        let code = delete(real, name, sync_folder);
        if code == ffi::SQLITE_OK && sync_folder != 0 {
            disk.folder_synced(&path);
        }
        code
    }
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: `open` made this file and its own part, and SQLite closes it once.
    unsafe {
        drop(Box::from_raw((*file.cast::<File>()).own));
        let real = behind(file);
        (*(*real).pMethods).xClose.map_or(ffi::SQLITE_IOERR_CLOSE, |close| close(real))
    }
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, amount: c_int, offset: i64) -> c_int {
    let _disk = disk();
    // SAFETY: `open` made this file; `to` has room for `amount` bytes.
    unsafe {
        let real = behind(file);
        (*(*real).pMethods).xRead.map_or(ffi::SQLITE_IOERR_READ, |read| read(real, to, amount, offset))
    }
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, amount: c_int, offset: i64) -> c_int {
    let mut disk = disk();
    // SAFETY: `open` made this file, which SQLite has to itself here; `from` has `amount` bytes.
    unsafe {
        let real = behind(file);
        match before(real, offset, amount.into()) {
            Ok(before) => disk.changes(&(*(*file.cast::<File>()).own).path, before),
            Err(code) => return code,
        }
        (*(*real).pMethods).xWrite.map_or(ffi::SQLITE_IOERR_WRITE, |write| write(real, from, amount, offset))
    }
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    let mut disk = disk();
    // SAFETY: `open` made this file, which SQLite has to itself here.
    unsafe {
        let real = behind(file);
        match before(real, length, i64::MAX) {
            Ok(before) => disk.changes(&(*(*file.cast::<File>()).own).path, before),
            Err(code) => return code,
        }
        (*(*real).pMethods).xTruncate.map_or(ffi::SQLITE_IOERR_TRUNCATE, |truncate| truncate(real, length))
    }
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let mut disk = disk();
    // SAFETY: `open` made this file and its own part, which SQLite has to itself here.
    unsafe {
        let real = behind(file);
        let code = (*(*real).pMethods).xSync.map_or(ffi::SQLITE_IOERR_FSYNC, |sync| sync(real, flags));
        if code == ffi::SQLITE_OK {
            let own = &mut *(*file.cast::<File>()).own;
            disk.synced(&own.path);
            if std::mem::take(&mut own.syncs_folder) {
                disk.folder_synced(&own.path);
            }
        }
        code
    }
}

/// What there is of so many bytes from there on.
#[expect(unsafe_code, reason = "SQLite's C interface")]
unsafe fn before(real: *mut ffi::sqlite3_file, offset: i64, amount: i64) -> Result<Before, c_int> {
    let mut length = 0;
    // SAFETY: the caller has this open file to itself; what is read has room for it.
    unsafe {
        let methods = &*(*real).pMethods;
        let (Some(size), Some(read)) = (methods.xFileSize, methods.xRead) else { return Err(ffi::SQLITE_IOERR) };
        match size(real, &raw mut length) {
            ffi::SQLITE_OK => {}
            code => return Err(code),
        }
        let from = offset.min(length);
        let there = c_int::try_from((length - from).min(amount)).map_err(|_| ffi::SQLITE_FULL)?;
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(0)];
        let code = if there > 0 { read(real, bytes.as_mut_ptr().cast(), there, from) } else { ffi::SQLITE_OK };
        match (code, usize::try_from(length), usize::try_from(from)) {
            (ffi::SQLITE_OK, Ok(length), Ok(offset)) => Ok(Before { length, offset, bytes }),
            (ffi::SQLITE_OK, ..) => Err(ffi::SQLITE_FULL),
            (code, ..) => Err(code),
        }
    }
}

/// The system's own file.
#[expect(unsafe_code, reason = "SQLite's C interface")]
unsafe fn behind(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: SQLite gave as many bytes as both together take.
    unsafe { file.cast::<File>().add(1).cast() }
}

#[expect(unsafe_code, reason = "SQLite's C interface")]
unsafe fn path(name: *const c_char) -> PathBuf {
    // SAFETY: SQLite gives texts with a NUL at their end.
    unsafe { OsStr::from_bytes(CStr::from_ptr(name).to_bytes()) }.into()
}

/// Methods that are no business of the disk: handed on as they are.
macro_rules! handed_on {
    ($($name:ident is $method:ident($($argument:ident: $kind:ty),*) $(-> $answer:ty)?, or $else:expr;)*) => {$(
        #[expect(unsafe_code, reason = "called by SQLite's C code")]
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $argument: $kind)*) $(-> $answer)? {
            // SAFETY: `open` made this file; the arguments are for the system's own method.
            unsafe {
                let real = behind(file);
                (*(*real).pMethods).$method.map_or($else, |method| method(real $(, $argument)*))
            }
        }
    )*};
}

handed_on! {
    file_size is xFileSize(length: *mut i64) -> c_int, or ffi::SQLITE_IOERR_FSTAT;
    lock is xLock(level: c_int) -> c_int, or ffi::SQLITE_IOERR_LOCK;
    unlock is xUnlock(level: c_int) -> c_int, or ffi::SQLITE_IOERR_UNLOCK;
    check_reserved_lock is xCheckReservedLock(answer: *mut c_int) -> c_int, or ffi::SQLITE_IOERR_CHECKRESERVEDLOCK;
    file_control is xFileControl(what: c_int, with: *mut c_void) -> c_int, or ffi::SQLITE_NOTFOUND;
    sector_size is xSectorSize() -> c_int, or 0;
    device_characteristics is xDeviceCharacteristics() -> c_int, or 0;
    shm_map is xShmMap(region: c_int, size: c_int, grow: c_int, at: *mut *mut c_void) -> c_int, or ffi::SQLITE_IOERR_SHMMAP;
    shm_lock is xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int, or ffi::SQLITE_IOERR_SHMLOCK;
    shm_barrier is xShmBarrier(), or ();
    shm_unmap is xShmUnmap(delete: c_int) -> c_int, or ffi::SQLITE_IOERR;
}
