//! Ways from a function into the network that its host is in: each is refused, in the ledger, and arrives nowhere.
//!
//! A real host and a real component, which calls whom its message names. Names are answered by a library that is preloaded
//! into the host (`names.c`), as a hostile name server would.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::calling::{TO_BODY, function};
use crate::harness::{On, Semel, Start};
use crate::outside::{Server, Then};

/// Whom the guest calls (`PORT` is the listener's), and what the ledger says of it.
const WAYS: [(&str, &str); 22] = [
    ("127.0.0.1:PORT", "is not granted"),
    ("127.0.0.1.:PORT", "is not granted"),
    ("127.1:PORT", "is not granted"),
    ("127.255.255.254:PORT", "is not granted"),
    ("0.0.0.0:PORT", "is not granted"),
    ("0:PORT", "is not granted"),
    ("2130706433:PORT", "http://127.0.0.1:PORT is not granted"),
    ("0x7f000001:PORT", "http://127.0.0.1:PORT is not granted"),
    ("0x7f.1:PORT", "http://127.0.0.1:PORT is not granted"),
    ("017700000001:PORT", "http://127.0.0.1:PORT is not granted"),
    ("localhost:PORT", "is not granted"),
    ("LocalHost.:PORT", "is not granted"),
    ("[::1]:PORT", "is not granted"),
    ("[::ffff:127.0.0.1]:PORT", "is not granted"),
    ("[::ffff:7f00:1]:PORT", "is not granted"),
    ("[::127.0.0.1]:PORT", "is not granted"),
    ("169.254.169.254", "is not granted"),
    ("2852039166", "http://169.254.169.254 is not granted"),
    ("metadata.example", "169.254.169.254, which is link-local"),
    ("inside.example:PORT", "127.0.0.1, which is loopback"),
    ("mixed.example:PORT", "127.0.0.1, which is loopback"),
    // The granted name, at another port.
    ("api.example.com:PORT", "is not granted"),
];

#[tokio::test]
async fn no_way_inward_reaches_a_listener() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (library, log) = (folder.path().join("names.so"), folder.path().join("names.txt"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/names.c");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(compiled.expect("a C compiler: run .ci/setup").success());
    let (library, names) = (library.display().to_string(), log.display().to_string());
    let variables = [("LD_PRELOAD", library.as_str()), ("NAMES_LOG", names.as_str())];
    let semel = Semel::start_as(Start { variables: &variables, on: On::Sqlite, ..Start::default() }, &[]).await;

    let listener = Server::start(Then::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let port = listener.port().to_string();
    let elsewhere = format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{port}/\r\ncontent-length: 0\r\n\r\n");
    let redirects = Server::start(Then::Say(elsewhere.leak().as_bytes())).await;
    let granted = ["metadata.example", &format!("inside.example:{port}"), &format!("mixed.example:{port}")]
        .into_iter()
        .chain(["api.example.com", &format!("rebinds.example:{port}"), &redirects.address.to_string()])
        .map(|server| format!("\"http://{server}\""))
        .collect::<Vec<_>>();
    semel.deploy(function("tricked", "", &granted.join(", "), &format!("{TO_BODY} (call $call) (i32.const 0)"))).await;

    let call = async |authority: &str| {
        let done = semel.call("tricked", authority).await;
        assert_eq!(done.status, 200, "{authority}: {}", done.text());
        let page = semel.get(&format!("/v1/ledger?message={}", done.id())).await.ok();
        assert_eq!(page["calls"].as_array().map(Vec::len), Some(1), "{authority}: {page:#}");
        page["calls"][0]["attempts"][0].clone()
    };
    for (authority, expected) in WAYS {
        let made = call(&authority.replace("PORT", &port)).await;
        let detail = made["detail"].as_str().unwrap_or_default();
        assert_eq!((&made["state"], &made["status"]), (&json!("failed"), &json!(null)), "{authority}: {made:#}");
        let expected = expected.replace("PORT", &port);
        assert!(detail.starts_with("refused: ") && detail.contains(&expected), "{authority}: {detail}");
    }
    // The first answer is checked and connected to, and nobody asks again in between; the second is refused.
    let rebinds = format!("rebinds.example:{port}");
    let (first, second) = (call(&rebinds).await, call(&rebinds).await);
    assert!(first["detail"].to_string().contains("not connected"), "{first:#}");
    assert!(second["detail"].to_string().contains("127.0.0.1, which is loopback"), "{second:#}");
    let asked = std::fs::read_to_string(&log).expect("questions");
    assert_eq!(
        asked.lines().collect::<Vec<_>>(),
        ["metadata.example", "inside.example", "mixed.example", "rebinds.example", "rebinds.example"]
    );
    // A redirect is an answer like any other.
    let made = call(&redirects.address.to_string()).await;
    assert_eq!((&made["state"], &made["status"]), (&json!("done"), &json!(302)));
    assert_eq!((redirects.connections(), listener.connections()), (1, 0));
}
