//! `/openapi.json` matches the host: each of its methods is answered, and with what it says; what it does not have is
//! refused. (Each route of the host is in it: a test of `api.rs`.)

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Semel, built};

const METHODS: [&str; 7] = ["get", "post", "put", "delete", "patch", "options", "trace"];
struct Document(Value);

impl Document {
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.trim_start_matches('#')).expect("a reference to something"),
            None => value,
        }
    }

    /// That an answer is one of those of an operation.
    fn check(&self, operation: &Value, answer: &Answer, what: &str) {
        let status = answer.status.to_string();
        let described = self.resolve(&operation["responses"][&status]);
        assert!(!described.is_null(), "{what}: {status} is not described: {}", answer.text());
        let sent = answer.header("content-type").split(';').next().unwrap_or_default().to_owned();
        let content = &described["content"];
        let schema = if content["*/*"].is_null() { &content[&sent] } else { &content["*/*"] };
        assert!(!schema.is_null(), "{what}: {status} has the type {sent}");
        if sent.ends_with("json") {
            self.valid(&schema["schema"], &answer.json(), &format!("{what}: {status}"));
        }
    }

    /// The part of JSON Schema that the document uses for answers.
    fn valid(&self, schema: &Value, value: &Value, at: &str) {
        let schema = self.resolve(schema);
        if let Some(any) = schema["anyOf"].as_array() {
            let fitting = any.iter().filter(|one| self.resolve(one)["type"] != "null" || value.is_null());
            return if value.is_null() {
                drop(fitting)
            } else {
                self.valid(fitting.clone().next().expect(at), value, at)
            };
        }
        if let Some(list) = schema["enum"].as_array() {
            assert!(list.contains(value), "{at}: {value} is not in {list:?}");
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        match &schema["type"] {
            Value::Null => {}
            Value::Array(kinds) => assert!(kinds.contains(&json!(kind)), "{at}: {value} is no {kinds:?}"),
            one => assert_eq!(one, kind, "{at}: {value}"),
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(value.get(name).is_some(), "{at}: {name} is missing in {value}");
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            let known = &schema["properties"][name];
            let rest = &schema["additionalProperties"];
            let anything = schema["properties"].is_null() && rest.is_null();
            assert!(anything || !known.is_null() || rest.is_object(), "{at}: {name} is not described");
            self.valid(if known.is_null() { rest } else { known }, value, &format!("{at} {name}"));
        }
        for value in value.as_array().into_iter().flatten() {
            self.valid(&schema["items"], value, &format!("{at} []"));
        }
    }
}

#[tokio::test]
async fn each_path_has_the_methods_and_answers_that_the_document_says() {
    let semel = Semel::start(&["counter", "transfer"]).await;
    semel.deploy(built("misbehave").with("[limits]", "[trigger]\ncron = [{ schedule = \"@yearly\" }]\n[limits]")).await;
    let ended = semel.call("counter", "visits").await.id();
    let failed = semel.call("misbehave", r#"{"do": "error"}"#).await.id();
    semel.call("misbehave", r#"{"do": "log"}"#).await;
    let document = Document(semel.get("/openapi.json").await.ok());
    let paths = document.0["paths"].as_object().expect("paths");
    assert!(paths.len() >= 20 + 2, "{:?}", paths.keys());
    for (path, methods) in paths {
        for method in METHODS {
            for (name, id) in [("counter", &ended), ("misbehave", &failed), ("nobody", &"nothing".to_owned())] {
                if method == "delete" && name != "nobody" {
                    continue; // The others are needed for the rest.
                }
                let what = format!("{method} {path} {name}");
                let concrete = path.replace("{name}", name).replace("{id}", id).replace("{counter}", "a%2Fb");
                let request =
                    semel.request(Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method"), &concrete);
                let answer = request.send().await;
                if !methods[method].is_null() {
                    assert_ne!(answer.status, 405, "{what}");
                    document.check(&methods[method], &answer, &what);
                } else {
                    answer.problem(405);
                    let allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
                    let described = METHODS.iter().filter(|method| !methods[**method].is_null());
                    for method in described {
                        assert!(allowed.contains(&&*method.to_uppercase()), "{what}: {allowed:?}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn refusals_are_as_the_document_says() {
    let semel = Semel::start(&["counter", "misbehave"]).await;
    let document = Document(semel.get("/openapi.json").await.ok());
    let send = &document.0["paths"]["/fn/{name}"]["post"];
    let list = &document.0["paths"]["/v1/messages"]["get"];
    let ledger = &document.0["paths"]["/v1/ledger"]["get"];
    let deploy = &document.0["paths"]["/v1/functions/{name}"]["put"];
    for (request, operation, status) in [
        (semel.post("/fn/counter", "a").key("k"), send, 202),
        (semel.post("/fn/counter", "b").key("k"), send, 422),
        (semel.post("/fn/counter", "b").wait(30), send, 200),
        (semel.post("/fn/misbehave", r#"{"do": "reject"}"#).wait(30), send, 422),
        (semel.post("/fn/misbehave", r#"{"do": "panic"}"#).wait(30), send, 502),
        (semel.post("/fn/counter", "b").header("semel-delay", "soon"), send, 400),
        (semel.post("/fn/%00", "b"), send, 404),
        (semel.post("/fn/%C3%28", "b"), send, 400),
        (semel.post("/fn/counter", vec![0; 2 << 20]), send, 413),
        (semel.post("/fn/counter", "{}").header("content-type", "application/cloudevents+xml"), send, 415),
        (semel.request(Method::GET, "/v1/messages?limit=0"), list, 200),
        (semel.request(Method::GET, "/v1/messages?limit=4294967295&function=%00%FF%zz"), list, 200),
        (semel.request(Method::GET, "/v1/messages?after=-9223372036854775808"), list, 200),
        (semel.request(Method::GET, "/v1/messages?limit=4294967296"), list, 400),
        (semel.request(Method::GET, "/v1/messages?limit=1&limit=2"), list, 400),
        (semel.request(Method::GET, "/v1/messages?state="), list, 400),
        (semel.request(Method::GET, "/v1/ledger?limit=0&message=%00&after=-1"), ledger, 200),
        (semel.request(Method::GET, "/v1/ledger?state=lost"), ledger, 400),
        (semel.request(Method::PUT, "/v1/functions/x"), deploy, 400),
        (semel.request(Method::PUT, "/v1/functions/x?contract=both"), deploy, 400),
        (semel.request(Method::PUT, "/v1/functions/x").header("content-type", "multipart/form-data"), deploy, 400),
        (broken_off(&semel), deploy, 400),
    ] {
        let answer = request.send().await;
        assert_eq!(answer.status, status, "{}", answer.text());
        document.check(operation, &answer, &status.to_string());
    }
}

/// A multipart body that ends in the middle.
fn broken_off(semel: &Semel) -> crate::harness::Request {
    let body = "--x\r\ncontent-disposition: form-data; name=\"manifest\"\r\n\r\nname";
    let request = semel.request(Method::PUT, "/v1/functions/x").body(body);
    request.header("content-type", "multipart/form-data; boundary=x")
}
