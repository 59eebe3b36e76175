//! The databases of servers: which kind the URL names.

use super::ground::Ground;

mod mysql;
mod postgres;

/// Makes a database of our own on somebody's server.
pub(super) async fn make(url: &str) -> anyhow::Result<Box<dyn Ground>> {
    let scheme = url.split(':').next().unwrap_or_default();
    Ok(match scheme {
        "mysql" | "mariadb" => Box::new(mysql::Server::make(url).await?),
        _ => Box::new(postgres::Server::make(url).await?),
    })
}
