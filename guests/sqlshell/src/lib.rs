//! Runs the steps it is told to, inside the transaction of the message, and shows what came back.
//!
//! For trying out SQL, and for tests of everything that the host lets a guest do:
//!
//! ```json
//! { "statements": [
//!     { "savepoint": "s" },
//!     { "sql": "INSERT INTO scratch (id, value) VALUES ($1, $2)", "params": [1, "one"], "execute": true },
//!     { "sql": "SELECT id, value FROM scratch" },
//!     { "rollback_to": "s" } ],
//!   "swallow": true, "end": "ok" }
//! ```
//!
//! The answer is `{"results": […]}`, one for each step. At the first error the attempt fails, unless
//! `swallow` says to go on. `value.rs` has the JSON of the values, `step.rs` what the steps are.

mod step;
mod value;

use exports::semel::function::handler::Guest;
use semel::function::types::{HandlerError, Message, Response, Retry};
use serde::Deserialize;
use serde_json::json;
use step::Step;

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Sqlshell);

struct Sqlshell;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    statements: Vec<Step>,
    #[serde(default)]
    swallow: bool,
    #[serde(default)]
    end: End,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum End {
    #[default]
    Ok,
    Trap,
    Retry,
    Reject,
}

impl Guest for Sqlshell {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        let script: Script = serde_json::from_slice(&message.body)
            .map_err(|error| HandlerError::Reject(format!("this is not a script: {error}")))?;
        let mut results = Vec::with_capacity(script.statements.len());
        for step in script.statements {
            results.push(match step.run() {
                Ok(result) => result,
                Err(error) if script.swallow => json!({ "error": error }),
                Err(error) => return retry(error.to_string()),
            });
        }
        match script.end {
            End::Ok => Ok(Some(Response {
                content_type: Some("application/json".to_owned()),
                headers: Vec::new(),
                body: json!({ "results": results }).to_string().into_bytes(),
            })),
            End::Trap => std::process::abort(),
            End::Retry => retry("the script ends with retry".to_owned()),
            End::Reject => Err(HandlerError::Reject("the script ends with reject".to_owned())),
        }
    }
}

fn retry<T>(reason: String) -> Result<T, HandlerError> {
    Err(HandlerError::Retry(Retry { reason, delay: None }))
}
