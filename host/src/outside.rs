//! Outside calls: HTTP requests that a function makes while it runs, and that nobody can take back.
//!
//! The way of one call, and the file where each step is:
//!
//! 1. its **target** is read by the rules of URLs, and looked up in the **grants** of the deployment (`grant.rs`)
//! 2. its name is **resolved**, once (`resolve.rs`), and every address of the answer is checked (`address.rs`)
//! 3. a **connection** to one of these very addresses is made, with TLS for `https` (`connection.rs`)
//! 4. the **request** is sent and the **answer** read, within [`Limits`] (`client.rs`, `headers.rs`)
//!
//! How it ended is one of three, see [`Called`], and which one is decided in one place. Nothing here knows messages,
//! stores or guests: whoever calls writes the ledger before and after.

mod address;
mod client;
mod connection;
mod grant;
mod headers;
mod resolve;

pub use address::refusal;
pub use client::{Answer, BodyFailed, Called, Client, Limits, Lost, NotSent, Request};
pub use connection::Trust;
pub use grant::{Grants, Origin, Target};
pub use resolve::{Resolver, SystemResolver};
