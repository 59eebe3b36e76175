//! From a name to addresses: asked once per call, and every address of the answer is checked.

use std::io;
use std::net::IpAddr;

use async_trait::async_trait;
use url::Host;

use super::client::NotSent;
use super::grant::{Grants, Origin};

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Who knows the addresses of names.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// The addresses of a name, best first.
    ///
    /// # Errors
    /// If there are none, or nobody could be asked.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The machine's own.
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((name, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// The addresses of a server, each of which may be connected to. One that may not refuses all: a name that has both is
/// either a mistake or an attack.
pub(super) async fn addresses(
    resolver: &dyn Resolver,
    origin: &Origin,
    grants: &Grants,
) -> Result<Vec<IpAddr>, NotSent> {
    let mut found = match origin.host() {
        Host::Ipv4(address) => vec![IpAddr::V4(*address)],
        Host::Ipv6(address) => vec![IpAddr::V6(*address)],
        Host::Domain(name) => {
            resolver.resolve(name).await.map_err(|error| NotSent::Unresolved(format!("{name}: {error}")))?
        }
    };
    for address in found.iter().filter(|_| !grants.may_lead_inside()) {
        let refused = |what| NotSent::Refused(format!("{} has the address {address}, which is {what}", origin.host()));
        origin.admits(*address).map_err(refused)?;
    }
    if found.is_empty() {
        return Err(NotSent::Unresolved(format!("{} has no address", origin.host())));
    }
    found.truncate(MOST_ADDRESSES);
    Ok(found)
}
