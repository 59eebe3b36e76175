//! `[apps.NAME]`: database logins that somebody else made for an app.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::store::{AppLogins, Login, Logins};

/// One section; passwords stand in files of their own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// The login whose sessions the app's functions have.
    pub login: String,
    /// A file with its password.
    pub password_file: PathBuf,
    /// The login that owns the app's schema and runs its migrations.
    pub owner: Option<String>,
    /// A file with its password.
    pub owner_password_file: Option<PathBuf>,
}

/// Reads the passwords.
pub(super) fn logins(apps: &BTreeMap<String, App>) -> anyhow::Result<Logins> {
    let read = |(app, section): (&String, &App)| {
        let login = login(&section.login, &section.password_file)?;
        let owner = match (&section.owner, &section.owner_password_file) {
            (Some(owner), Some(file)) => Some(self::login(owner, file)?),
            (None, None) => None,
            _ => bail!("[apps.{app}] owner and owner_password_file go together"),
        };
        Ok((app.clone(), AppLogins { login, owner }))
    };
    apps.iter().map(read).collect()
}

fn login(name: &str, file: &Path) -> anyhow::Result<Login> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read the password of {name} in {}", file.display()))?;
    Ok(Login { name: name.to_owned(), password: text.trim_end_matches(['\r', '\n']).to_owned() })
}
