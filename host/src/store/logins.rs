//! Logins of apps that a person made, instead of those that a store makes for itself.

use std::collections::BTreeMap;
use std::fmt;

/// By the app's name.
pub type Logins = BTreeMap<String, AppLogins>;

/// The logins of one app: used as they are, never made or changed by Semel.
#[derive(Debug, Clone)]
pub struct AppLogins {
    /// Whose sessions its guests have.
    pub login: Login,
    /// Who owns its tables and runs its migrations. None: somebody whom no host knows, so there are no migrations at deploy.
    pub owner: Option<Login>,
}

/// A role of the database.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Login {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}
