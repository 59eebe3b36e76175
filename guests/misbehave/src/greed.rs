//! Asking the host for more than anybody needs, and going on when it refuses.

use std::mem::{ManuallyDrop, forget};

use super::semel::function::outbox;
use super::semel::function::transaction;
use super::semel::function::types::{HandlerError, Message, Response};
use super::{log, outgoing, retry};

const MILLION: usize = 1_000_000;
/// 27,000 million rows to look at.
pub(crate) const SLOW_SQL: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
                                   SELECT count(*) FROM n a, n b, n c WHERE a.i + b.i > c.i";

/// Opens cursors and forgets them, so that the host keeps what it keeps for each.
pub(crate) fn cursors<T>() -> Result<T, HandlerError> {
    let opened = (0..MILLION).filter(|_| transaction::open_cursor("SELECT 1", &[]).map(forget).is_ok()).count();
    retry(&format!("{opened} cursors were opened"))
}

pub(crate) fn statements<T>() -> Result<T, HandlerError> {
    let done = (0..MILLION).filter(|_| transaction::execute("SELECT 1", &[]).is_ok()).count();
    retry(&format!("{done} statements were run"))
}

pub(crate) fn publishes<T>(message: &Message) -> Result<T, HandlerError> {
    let event = outgoing(message);
    let published = (0..MILLION / 10).filter(|_| outbox::publish(&event).is_ok()).count();
    retry(&format!("{published} messages were published"))
}

pub(crate) fn log_lines() {
    let line = "all work and no play ".repeat(50);
    for _ in 0..5_000 {
        log::write(log::Level::Info, &line, &[]);
    }
}

/// One text of 16 MiB, and sixty-four fields that all point to it: to the host that is 1 GiB.
pub(crate) fn huge_string() {
    let text = ManuallyDrop::new("x".repeat(16 << 20));
    let field = || {
        // SAFETY: none of these is ever written to or dropped, and the text outlives them.
        let same = unsafe { String::from_raw_parts(text.as_ptr().cast_mut(), text.len(), text.len()) };
        (String::new(), same)
    };
    let fields = ManuallyDrop::new((0..64).map(|_| field()).collect::<Vec<_>>());
    log::write(log::Level::Info, "1 GiB follows", &fields);
}

pub(crate) fn huge_answer() -> Response {
    Response { content_type: None, headers: Vec::new(), body: vec![0; 100_000_000] }
}
