//! Counts page views under the other contract, `begin-once`: one attempt, and never a second one.
//!
//! Analytics would rather miss a view than count it twice, and nobody waits for it. So the host
//! writes down "begun" before this code runs. If the machine dies now, the message is `in-doubt` and
//! stays so until a person settles it; if the code fails, the view is lost and the message says why.
//!
//! As there is no second attempt, the code itself must cope with what is only bad luck: two first
//! views of one page at the same time. That is what the savepoint is for.

use exports::semel::function::handler::Guest;
use semel::function::transaction::{self, Error, Value};
use semel::function::types::{HandlerError, Message, Response, Retry};

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Pageview);

struct Pageview;

impl Guest for Pageview {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        let page = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("semel-path-page"));
        let page = match page {
            Some((_, page)) if (1..=200).contains(&page.chars().count()) => Value::Text(page.clone()),
            _ => return Err(HandlerError::Reject("name a page, 1 to 200 characters, in the path".to_owned())),
        };
        if count(&page)? == 0 {
            count_first(&page)?;
        }
        Ok(None)
    }
}

/// Counts a view of a page that was viewed before; 0 if it was not.
fn count(page: &Value) -> Result<u64, HandlerError> {
    let sql = "UPDATE pageviews SET views = views + 1 WHERE page = $1";
    Ok(transaction::execute(sql, std::slice::from_ref(page))?)
}

/// Counts the first view of a page, or one more if somebody else was faster.
fn count_first(page: &Value) -> Result<(), HandlerError> {
    let sql = "INSERT INTO pageviews (page, views) VALUES ($1, 1)";
    transaction::savepoint("first")?;
    match transaction::execute(sql, std::slice::from_ref(page)) {
        Ok(_) => Ok(()),
        Err(error @ Error::Database(_)) => {
            transaction::rollback_to("first")?;
            if count(page)? == 0 { Err(error.into()) } else { Ok(()) }
        }
        Err(error) => Err(error.into()),
    }
}

impl From<Error> for HandlerError {
    fn from(error: Error) -> Self {
        let reason = match error {
            Error::Parameter(reason) => return Self::Reject(reason),
            Error::Database(refused) => refused.message,
            other => other.to_string(),
        };
        Self::Retry(Retry { reason, delay: None })
    }
}
