//! What can go wrong at the store, sorted by what the caller does about it.

/// An error of a store. Texts are for operators: they reach logs, never guests or HTTP clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The same call may succeed later: a full disk, a lost connection. Nothing was done; only where the answer of
    /// a server's COMMIT was lost it may have been, and the same call again finds that out (by its key, by its fence).
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Somebody else holds a lock for too long, or was faster; nothing was done. The same call may succeed later, and another
    /// one now.
    #[error("the database is busy: {0}")]
    Busy(String),
    /// The caller asked for something that cannot be; nothing was done.
    #[error("{0}")]
    Refused(String),
    /// The claim that asked no longer holds; nothing was done.
    #[error("the claim no longer holds")]
    Fenced,
    /// The database is not what it should be: another schema, a damaged file, a bug.
    #[error("the database is not usable: {0}")]
    Broken(String),
}

/// Why a guest's call on its transaction did not succeed. The texts go to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlError {
    /// The database refused the statement; the transaction counts as failed.
    Database(Box<DatabaseError>),
    /// Nothing in this attempt can be saved.
    Doomed(String),
    /// A parameter cannot be converted; nothing was sent.
    Parameter(String),
    /// The statement is not allowed; nothing was sent.
    Forbidden(String),
    /// The answer has more rows than allowed.
    TooManyRows,
    /// The answer has more bytes than allowed.
    TooManyBytes,
    /// The hard timeout passed while the statement ran; it was interrupted.
    Deadline,
    /// No savepoint has this name.
    NoSavepoint,
}

/// What the database says of a statement it refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseError {
    /// Five characters.
    pub sqlstate: String,
    /// For people.
    pub message: String,
    /// The constraint that was violated.
    pub constraint: Option<String>,
    /// Its table.
    pub table: Option<String>,
    /// Its column.
    pub column: Option<String>,
    /// Character (from 1) in the SQL text.
    pub position: Option<u32>,
}
