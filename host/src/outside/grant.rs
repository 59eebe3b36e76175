//! Grants: the servers that a deployment may call, each by scheme, host and port, all three exactly.
//!
//! A target is read by the rules of URLs first, so that what is compared is what is connected to: `0x7f.1`, `2130706433`
//! and `127.0.0.1.` are all 127.0.0.1 before anybody looks. A name stands for addresses out in the world only; inside
//! addresses are granted by writing them, and `localhost` by its name.

use std::fmt;
use std::net::IpAddr;

use http::uri::PathAndQuery;
use url::{Host, Url};

use super::address::refusal;

/// A server: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    secure: bool,
    /// A name is in lower case, in ASCII, and without the dot at its end.
    host: Host,
    port: u16,
}

/// What a deployment may call: `[grants] http`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    servers: Vec<Origin>,
    /// Names may stand for addresses inside.
    inside: bool,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The server.
    pub origin: Origin,
    /// What is asked of it, byte for byte.
    pub path: PathAndQuery,
}

impl Origin {
    /// One entry of `[grants] http`.
    ///
    /// # Errors
    /// Says what is wrong with it, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("\"{text}\": {why}; write for example https://api.example.com"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse("it has no scheme");
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return refuse("a grant is for a whole server, without a path");
        }
        let origin = match Self::read(scheme, authority) {
            Ok(origin) => origin,
            Err(why) => return refuse(why),
        };
        match &origin.host {
            Host::Domain(name) if name.contains('*') => refuse("each server is granted by its own name"),
            Host::Domain(_) => Ok(origin),
            Host::Ipv4(address) if !authority.starts_with(&address.to_string()) => {
                refuse("an address is written in its usual form")
            }
            Host::Ipv4(address) if address.is_unspecified() || address.is_multicast() || address.is_broadcast() => {
                refuse("this is no address of a server")
            }
            Host::Ipv6(address) if address.is_unspecified() || address.is_multicast() => {
                refuse("this is no address of a server")
            }
            Host::Ipv4(_) | Host::Ipv6(_) => Ok(origin),
        }
    }

    /// Scheme and authority by the rules of URLs.
    fn read(scheme: &str, authority: &str) -> Result<Self, &'static str> {
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err("only http and https are known"),
        };
        // The rules skip some of these and stop at others: what is read would not be what is written.
        if authority.contains(|c: char| c.is_whitespace() || c.is_control() || "/\\?#".contains(c)) {
            return Err("the host contains what no host contains");
        }
        if authority.contains('@') {
            return Err("names and passwords in URLs are refused");
        }
        let url = Url::parse(&format!("{scheme}://{authority}/")).map_err(|_| "it is not a URL")?;
        let host = match url.host().ok_or("it has no host")?.to_owned() {
            Host::Domain(name) => Host::Domain(name.strip_suffix('.').unwrap_or(&name).to_owned()),
            address => address,
        };
        if matches!(&host, Host::Domain(name) if name.is_empty() || name.ends_with('.')) {
            return Err("it has no host");
        }
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or("it has no port")?;
        Ok(Self { secure, host, port })
    }

    /// Whether a connection to this server may go to this address.
    ///
    /// # Errors
    /// Says what the address is.
    pub fn admits(&self, address: IpAddr) -> Result<(), &'static str> {
        match &self.host {
            Host::Ipv4(own) if IpAddr::V4(*own) == address => Ok(()), // The grant names it.
            Host::Ipv6(own) if IpAddr::V6(*own) == address => Ok(()),
            Host::Ipv4(_) | Host::Ipv6(_) => Err("another one than was asked for"),
            Host::Domain(name) if name == "localhost" => match address.is_loopback() {
                true => Ok(()),
                false => Err("not loopback"),
            },
            Host::Domain(_) => refusal(address).map_or(Ok(()), Err),
        }
    }

    /// Whether it is called over TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host, as a name or an address.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, also where it is the usual one.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as in the header `Host`.
    #[must_use]
    pub fn authority(&self) -> String {
        let usual = if self.secure { 443 } else { 80 };
        if self.port == usual { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.secure { "s" } else { "" }, self.authority())
    }
}

impl Grants {
    /// Reads `[grants] http`.
    ///
    /// # Errors
    /// Names the first entry that is no server.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a String>) -> Result<Self, String> {
        entries
            .into_iter()
            .map(|entry| Origin::parse(entry))
            .collect::<Result<_, _>>()
            .map(|servers| Self { servers, inside: false })
    }

    /// One server alone.
    #[must_use]
    pub fn of(origin: Origin) -> Self {
        Self { servers: vec![origin], inside: false }
    }

    /// One server that whoever runs the host has named: its name may stand for any address.
    #[must_use]
    pub fn trusting(origin: Origin) -> Self {
        Self { servers: vec![origin], inside: true }
    }

    /// Whether names may stand for addresses inside.
    pub(super) fn may_lead_inside(&self) -> bool {
        self.inside
    }

    /// Whether nothing is granted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Whether this server may be called.
    #[must_use]
    pub fn allow(&self, origin: &Origin) -> bool {
        self.servers.contains(origin)
    }
}

impl Target {
    /// From the parts in which `wasi:http` has it. The path may be empty.
    ///
    /// # Errors
    /// Says what is wrong with it, without repeating it.
    pub fn new(scheme: &str, authority: &str, path: &str) -> Result<Self, &'static str> {
        let origin = Origin::read(scheme, authority)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { origin, path: path.parse().map_err(|_| "the path contains what no path contains")? })
    }

    /// From an absolute URL.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or("it has no scheme")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        Self::new(scheme, authority, path)
    }

    /// For people and the ledger: without the query, where secrets are.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}{}", self.origin, self.path.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(entries: &[&str]) -> Grants {
        Grants::parse(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>()).expect("grants")
    }

    #[test]
    fn a_grant_is_a_server() {
        for (entry, shown) in [
            ("https://api.example.com", "https://api.example.com"),
            ("https://api.example.com/", "https://api.example.com"),
            ("https://API.Example.COM.:443", "https://api.example.com"),
            ("https://api.example.com:8443", "https://api.example.com:8443"),
            ("http://10.0.0.7:8080", "http://10.0.0.7:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://localhost", "http://localhost"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
        ] {
            assert_eq!(Origin::parse(entry).expect(entry).to_string(), shown);
        }
        for entry in [
            "",
            "api.example.com",
            "ftp://api.example.com",
            "file:///etc/passwd",
            "https://",
            "https://.",
            "https://api.example.com/v1",
            "https://api.example.com?x",
            "https://api.example.com#x",
            "https://user@api.example.com",
            "https://user:password@api.example.com",
            "https://*.example.com",
            "https://api.example.com:0",
            "https://api.example.com:99999",
            "https://api example.com",
            "https://api.example.com\\x",
            "http://2130706433",
            "http://0x7f.1",
            "http://0177.0.0.1",
            "http://127.1",
            "http://0.0.0.0",
            "http://[::]",
            "http://224.0.0.1",
            "http://[ff02::1]",
            "http://255.255.255.255",
            "http://[fe80::1%25eth0]",
        ] {
            let refused = Origin::parse(entry).expect_err(entry);
            assert!(refused.contains("https://api.example.com"), "says what to write: {refused}");
        }
    }

    #[test]
    fn a_target_is_compared_as_it_will_be_called() {
        let granted =
            grants(&["https://api.example.com", "http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost"]);
        for url in [
            "https://api.example.com/v1?x=1#y",
            "HTTPS://API.EXAMPLE.COM:443",
            "https://api.example.com./",
            "https://api%2eexample.com/", // A host is decoded before it is used, so this is the same server.
            "https://ａｐｉ.example.com/",
            "http://127.0.0.1:8080/",
            "http://0x7f000001:8080/",
            "http://2130706433:8080/",
            "http://[0:0:0:0:0:0:0:1]:8080/",
            "http://LOCALHOST:80/",
        ] {
            let target = Target::parse(url).expect(url);
            assert!(granted.allow(&target.origin), "{url} is {}", target.origin);
        }
        for url in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://example.com/",
            "https://evil.api.example.com/",
            "https://api.example.com.evil.example/",
            "https://apí.example.com/",
            "http://127.0.0.1/",
            "http://127.0.0.2:8080/",
            "http://127.1:8081/",
            "http://[::ffff:127.0.0.1]:8080/",
            "http://[::127.0.0.1]:8080/",
            "http://[::ffff:7f00:1]:8080/",
            "http://169.254.169.254/latest/meta-data/",
            "http://0xa9fea9fe/",
            "http://2852039166/",
            "http://0251.0376.0251.0376/",
            "http://169.254.43518/",
            "http://①⑥⑨.254.169.254/",
            "http://0/",
            "http://[::]:8080/",
            "http://localhost:8080/",
            "http://localhost.localdomain/",
            "http://api.localhost/",
        ] {
            let target = Target::parse(url).expect(url);
            assert!(!granted.allow(&target.origin), "{url} is {}", target.origin);
        }
    }

    #[test]
    fn a_target_that_can_be_read_in_two_ways_is_none() {
        for (authority, path) in [
            ("api.example.com@127.0.0.1", "/"),
            ("user:password@api.example.com", "/"),
            ("api.example.com\\@127.0.0.1", "/"),
            ("127.0.0.1/x@api.example.com", "/"),
            ("127.0.0.1#@api.example.com", "/"),
            ("127.0.0.1?@api.example.com", "/"),
            ("api.example\n.com", "/"),
            ("api.example.com\t", "/"),
            (" api.example.com", "/"),
            ("api.example.com:80:80", "/"),
            ("api.example.com:99999", "/"),
            ("[::1", "/"),
            ("[::1]x", "/"),
            ("[::1%lo]", "/"),
            ("1.2.3.4.5", "/"),
            ("256.1.1.1", "/"),
            ("0x100000000", "/"),
            ("127.0.0.1%00.example.com", "/"),
            ("", "/"),
            (".", "/"),
            ("api.example.com..", "/"),
            ("api.example.com", "/a b"),
            ("api.example.com", "/a\r\nHost: evil"),
            ("api.example.com", "/\u{0}"),
        ] {
            assert!(Target::new("https", authority, path).is_err(), "{authority:?} {path:?}");
        }
        for scheme in ["ftp", "file", "gopher", "", "javascript", "https:", "http://127.0.0.1/?"] {
            assert!(Target::new(scheme, "api.example.com", "/").is_err(), "{scheme}");
        }
    }

    #[test]
    fn the_path_goes_out_as_it_came_and_the_query_is_shown_to_nobody() {
        let target = Target::parse("https://api.example.com/a/../%2e/b?token=secret").expect("a target");
        assert_eq!(target.path.as_str(), "/a/../%2e/b?token=secret");
        assert_eq!(target.shown(), "https://api.example.com/a/../%2e/b");
        assert_eq!(Target::parse("https://api.example.com?x").expect("a target").path.as_str(), "/?x");
    }

    #[test]
    fn a_name_is_for_the_world_and_an_address_for_itself() {
        let admits = |grant: &str, address: &str| {
            Origin::parse(grant).expect(grant).admits(address.parse().expect(address)).is_ok()
        };
        assert!(admits("https://api.example.com", "1.1.1.1"));
        assert!(admits("https://api.example.com", "2606:4700::1111"));
        for inside in ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "::ffff:1.1.1.1", "fd00::1", "64:ff9b::1"] {
            assert!(!admits("https://api.example.com", inside), "{inside}");
        }
        assert!(admits("http://10.0.0.7:8080", "10.0.0.7"));
        assert!(!admits("http://10.0.0.7:8080", "10.0.0.8"));
        assert!(!admits("http://10.0.0.7:8080", "::ffff:10.0.0.7"));
        assert!(admits("http://[::1]", "::1"));
        assert!(admits("http://localhost", "127.0.0.1") && admits("http://localhost", "::1"));
        assert!(!admits("http://localhost", "10.0.0.7") && !admits("http://localhost", "1.1.1.1"));
    }
}
