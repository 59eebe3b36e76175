//! The headers of a request: the guest's, without those that are the connection's business, and the host's own.

use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue};

use super::client::NotSent;
use super::grant::Origin;

/// Headers of one request.
const MOST: usize = 100;
/// Bytes of all headers of one request.
const MOST_BYTES: usize = 32 << 10;
/// The header that a receiver knows a repeated call by.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// They say how this connection is used, which the guest does not see, or whom it is for, which the target says.
const OURS: [&str; 9] =
    ["connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// What is sent. `key` where the guest set none itself.
pub(super) fn outgoing(own: HeaderMap, origin: &Origin, key: Option<&str>) -> Result<HeaderMap, NotSent> {
    let bytes: usize = own.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if own.len() > MOST || bytes > MOST_BYTES {
        return Err(NotSent::Invalid(format!(
            "the headers of a request may be {MOST} and have {MOST_BYTES} bytes; these are {} and have {bytes}",
            own.len()
        )));
    }
    let invalid = |what: &str| NotSent::Invalid(format!("{what} is no value of a header"));
    let mut headers = HeaderMap::with_capacity(own.len() + 3);
    headers.insert(HOST, HeaderValue::try_from(origin.authority()).map_err(|_| invalid("the host"))?);
    headers.insert(CONNECTION, HeaderValue::from_static("close")); // One connection is for one call.
    for (name, value) in &own {
        if !is_ours(name) {
            headers.append(name, value.clone());
        }
    }
    if let Some(key) = key
        && !headers.contains_key(IDEMPOTENCY_KEY)
    {
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::try_from(key).map_err(|_| invalid("the idempotency key"))?);
    }
    Ok(headers)
}

fn is_ours(name: &HeaderName) -> bool {
    OURS.contains(&name.as_str()) || name.as_str().starts_with("proxy-")
}
