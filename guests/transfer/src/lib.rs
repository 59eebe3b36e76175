//! Moves money: two accounts, a record, a receipt and an answer, all in one commit or none at all.
//!
//! The receipt goes through the outbox: it leaves with the commit, so nobody hears of a transfer that
//! was rolled back.
//!
//! What can never work (no such account, not enough money) is rejected, and whatever was written
//! before is undone by the host. What is bad luck (a deadlock) is retried by the host.

use exports::semel::function::handler::Guest;
use semel::function::outbox::{self, Outgoing};
use semel::function::transaction::{self, Value};
use semel::function::types::{HandlerError, Message, Response, Retry};
use serde::Deserialize;
use serde_json::json;

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Transfer);

#[derive(Deserialize)]
struct Transfer {
    from: String,
    to: String,
    amount: i64,
}

impl Guest for Transfer {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        let transfer = Transfer::parse(&message.body)?;
        transfer.pay(&message.id)?;
        transfer.publish_receipt(&message.id)?;
        let Transfer { from, to, .. } = &transfer;
        let balances = json!({ from: balance_of(from)?, to: balance_of(to)? });
        Ok(Some(Response {
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            body: json!({ "id": message.id, "balances": balances }).to_string().into_bytes(),
        }))
    }
}

impl Transfer {
    fn parse(body: &[u8]) -> Result<Self, HandlerError> {
        let transfer: Self = serde_json::from_slice(body)
            .or_else(|error| reject(format!(r#"the body must be {{"from", "to", "amount"}}: {error}"#)))?;
        match &transfer {
            Self { amount: ..=0, .. } => reject("the amount must be positive"),
            Self { from, to, .. } if from == to => reject("an account cannot pay itself"),
            _ => Ok(transfer),
        }
    }

    fn pay(&self, id: &str) -> Result<(), HandlerError> {
        let Self { from, to, amount } = self;
        let paid = transaction::execute(
            "UPDATE accounts SET balance = balance - $1 WHERE id = $2 AND balance >= $3",
            &[Value::Int64(*amount), text(from), Value::Int64(*amount)],
        )?;
        if paid == 0 {
            let balance = balance_of(from)?;
            return reject(format!("{from} has {balance}, which is less than {amount}"));
        }
        let received = transaction::execute(
            "UPDATE accounts SET balance = balance + $1 WHERE id = $2",
            &[Value::Int64(*amount), text(to)],
        )?;
        if received == 0 {
            return reject(format!("there is no account {to}"));
        }
        transaction::execute(
            "INSERT INTO transfers (id, from_account, to_account, amount) VALUES ($1, $2, $3, $4)",
            &[text(id), text(from), text(to), Value::Int64(*amount)],
        )?;
        Ok(())
    }

    fn publish_receipt(&self, id: &str) -> Result<(), HandlerError> {
        let Self { from, to, amount } = self;
        outbox::publish(&Outgoing {
            topic: "receipts".to_owned(),
            group: Some(from.clone()),
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            body: json!({ "transfer": id, "from": from, "to": to, "amount": amount }).to_string().into_bytes(),
            delay: None,
        })
        .map_err(|error| HandlerError::Retry(Retry { reason: error.to_string(), delay: None }))?;
        Ok(())
    }
}

fn balance_of(account: &str) -> Result<i64, HandlerError> {
    let found = transaction::query("SELECT balance FROM accounts WHERE id = $1", &[text(account)])?;
    match found.rows.first().map(Vec::as_slice) {
        Some([Value::Int64(balance)]) => Ok(*balance),
        _ => reject(format!("there is no account {account}")),
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn reject<T>(reason: impl Into<String>) -> Result<T, HandlerError> {
    Err(HandlerError::Reject(reason.into()))
}

impl From<transaction::Error> for HandlerError {
    fn from(error: transaction::Error) -> Self {
        let reason = match error {
            transaction::Error::Parameter(reason) => return Self::Reject(reason),
            transaction::Error::Database(refused) => refused.message,
            other => other.to_string(),
        };
        Self::Retry(Retry { reason, delay: None })
    }
}
