//! Outside calls: what leaves the host, what never does, and what is known of a call afterwards. The servers are real,
//! on the loopback interface, and count the connections that reach them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use semel::outside::{BodyFailed, Called, Client, Grants, Limits, Lost, NotSent, Request, Resolver, Target, Trust};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A server that reads one request per connection, keeps it, and then behaves.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
}

/// What it does after the request.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    Say(&'static [u8]),
    /// Says the one thing to so many, and the other to all after them.
    Change(usize, &'static [u8], &'static [u8]),
    /// Says this, and this again and again.
    Endless(&'static [u8], &'static [u8]),
    /// Says this and holds the connection.
    Hold(&'static [u8]),
    /// Says this when it is told to.
    Wait(&'static Notify, &'static [u8]),
    Reset,
}

impl Server {
    pub(crate) async fn start(then: Then) -> Self {
        Self::start_at(0, then).await
    }

    /// On this port.
    pub(crate) async fn start_at(port: u16, then: Then) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, requests) = (Arc::clone(&server.connections), Arc::clone(&server.requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, then, Arc::clone(&requests)));
            }
        });
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn request(&self) -> String {
        self.requests.lock().expect("a lock").first().cloned().expect("a request")
    }
}

async fn serve(mut stream: TcpStream, then: Then, requests: Arc<Mutex<Vec<String>>>) {
    let Ok(request) = read(&mut stream).await else { return };
    let before = {
        let mut requests = requests.lock().expect("a lock");
        requests.push(request);
        requests.len() - 1
    };
    let _ = match then {
        Then::Say(text) => stream.write_all(text).await,
        Then::Change(first, text, _) if before < first => stream.write_all(text).await,
        Then::Change(_, _, text) => stream.write_all(text).await,
        Then::Endless(text, more) => {
            let _ = stream.write_all(text).await;
            while stream.write_all(more).await.is_ok() {}
            Ok(())
        }
        Then::Hold(text) => {
            let _ = stream.write_all(text).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        }
        Then::Wait(until, text) => {
            until.notified().await;
            stream.write_all(text).await
        }
        Then::Reset => stream.set_zero_linger(),
    };
}

/// Head and body.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= length.parse().expect("a length") {
            return Ok(text);
        }
    }
}

/// Gives one answer after another, the last one for ever, and counts.
struct Names {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Names {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let addresses = |texts: &&[&str]| texts.iter().map(|text| text.parse().expect(text)).collect();
        Arc::new(Self { answers: answers.iter().map(addresses).collect(), asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        self.answers.get(asked).or(self.answers.last()).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

const LIMITS: Limits = Limits {
    request: 100_000,
    answer: 100_000,
    headers: 50,
    head: 16 << 10,
    connect: Duration::from_millis(500),
    first_byte: Duration::from_millis(500),
    total: Duration::from_millis(1500),
};

fn client(names: Arc<Names>) -> Client {
    Client::with(names, Trust::new(Vec::new()).expect("TLS"), LIMITS)
}

fn request(url: &str) -> Request {
    Request {
        method: http::Method::POST,
        target: Target::parse(url).expect(url),
        headers: http::HeaderMap::new(),
        body: "body".into(),
        key: Some("the-key".into()),
        connect: None,
        first_byte: None,
        answer: usize::MAX,
    }
}

fn grants(entries: &[String]) -> Grants {
    Grants::parse(entries).expect("grants")
}

/// Calls a server by its address, which is granted.
async fn call(server: &Server) -> Called {
    let origin = format!("http://{}", server.address);
    call_with(&client(Names::new(&[])), &request(&format!("{origin}/path?query")), &[origin]).await
}

async fn call_with(client: &Client, request: &Request, granted: &[String]) -> Called {
    let until = Instant::now() + Duration::from_secs(20);
    client.call(request.clone(), &grants(granted), until).await
}

#[tokio::test]
async fn a_request_arrives_as_it_was_meant_and_the_answer_comes_back() {
    let server =
        Server::start(Then::Say(b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\nx-twice: 1\r\nx-twice: 2\r\n\r\nhello"))
            .await;
    let origin = format!("http://{}", server.address);
    let mut request = request(&format!("{origin}/a/../b?c=d"));
    for (name, value) in [
        ("host", "evil.example"),
        ("connection", "keep-alive, x-kept"),
        ("transfer-encoding", "chunked"),
        ("content-length", "9999"),
        ("proxy-authorization", "secret"),
        ("upgrade", "websocket"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("expect", "100-continue"),
        ("x-kept", "1"),
        ("x-kept", "2"),
    ] {
        request.headers.append(name, value.parse().expect("a value"));
    }
    let answer = match call_with(&client(Names::new(&[])), &request, &[origin]).await {
        Called::Answered(answer) => answer,
        other => panic!("{other:?}"),
    };
    assert_eq!((answer.status.as_u16(), answer.headers.get_all("x-twice").iter().count()), (201, 2));
    assert_eq!(answer.body.expect("a body"), "hello");
    let sent = server.request();
    let (head, body) = sent.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<_> = head.lines().collect();
    assert_eq!((lines.remove(0), body), ("POST /a/../b?c=d HTTP/1.1", "body"));
    lines.sort_unstable();
    let host = format!("host: {}", server.address);
    let expected =
        ["connection: close", "content-length: 4", &host, "idempotency-key: the-key", "x-kept: 1", "x-kept: 2"];
    assert_eq!(lines, expected, "no more and no fewer");
}

#[tokio::test]
async fn a_key_of_the_guests_own_is_kept() {
    let server = Server::start(Then::Say(b"HTTP/1.1 204 No Content\r\n\r\n")).await;
    let origin = format!("http://{}", server.address);
    let mut request = request(&format!("{origin}/"));
    request.headers.insert("idempotency-key", "own".parse().expect("a value"));
    let called = call_with(&client(Names::new(&[])), &request, &[origin]).await;
    assert!(matches!(called, Called::Answered(_)), "{called:?}");
    assert!(server.request().contains("\r\nidempotency-key: own\r\n"), "{}", server.request());
    assert!(!server.request().contains("the-key"));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_nobody_goes_there() {
    let inside = Server::start(Then::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret")).await;
    let location = format!("HTTP/1.1 302 Found\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", inside.address);
    let server = Server::start(Then::Say(location.leak().as_bytes())).await;
    let called = call(&server).await;
    assert!(matches!(&called, Called::Answered(answer) if answer.status.as_u16() == 302), "{called:?}");
    assert_eq!((server.connections(), inside.connections()), (1, 0));
}

#[tokio::test]
async fn nothing_is_unpacked() {
    // The first bytes of a gzip file that would be a gigabyte; nobody looks.
    let server = Server::start(Then::Say(
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 10\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff",
    ))
    .await;
    let Called::Answered(answer) = call(&server).await else { panic!("an answer") };
    assert_eq!(answer.body.expect("a body").len(), 10);
    assert_eq!(answer.headers["content-encoding"], "gzip");
    assert!(!server.request().contains("accept-encoding"));
}

/// What is known when a server does not answer as it should, after it had the request.
#[tokio::test]
async fn a_call_that_may_have_happened_is_never_called_unsent() {
    for (then, expected) in [
        (Then::Say(b""), "Closed"),
        (Then::Say(b"HTTP/1.1 200 OK\r\ncontent-le"), "Closed"),
        (Then::Reset, "Closed"),
        (Then::Say(b"SSH-2.0-OpenSSH_9.2\r\n"), "Garbled"),
        (Then::Say(b"HTTP/2.0 200 OK\r\n\r\n"), "Garbled"),
        (Then::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"), "Garbled"),
        (Then::Endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"), "Garbled"),
        (Then::Endless(b"HTTP/1.1 200 OK\r\nx: ", b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"), "Garbled"),
        (Then::Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "TooLate"),
        (Then::Hold(b""), "TooLate"),
        (Then::Hold(b"HTTP/1.1 200 OK\r\n"), "TooLate"),
    ] {
        let server = Server::start(then).await;
        let called = call(&server).await;
        let Called::Unknown(lost) = called else { panic!("{expected}: {called:?}") };
        let found = match lost {
            Lost::Closed(_) => "Closed",
            Lost::Garbled(_) => "Garbled",
            Lost::TooLate => "TooLate",
        };
        assert_eq!(found, expected, "{lost:?}");
        assert!(server.request().ends_with("body"), "the server had all of it");
    }
}

/// Once there is a status the call has happened, whatever becomes of the body.
#[tokio::test]
async fn an_answer_without_its_body_is_an_answer() {
    for (then, expected) in [
        (Then::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"), "BrokenOff"),
        (Then::Say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"), "BrokenOff"),
        (Then::Endless(b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 1024]), "TooLarge"),
        (Then::Endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"4\r\nxxxx\r\n"), "TooLarge"),
        (Then::Endless(b"HTTP/1.1 200 OK\r\ncontent-length: 100001\r\n\r\n", &[b'x'; 1024]), "TooLarge"),
        (Then::Hold(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"), "TooLate"),
    ] {
        let server = Server::start(then).await;
        let called = call(&server).await;
        let Called::Answered(answer) = called else { panic!("{expected}: {called:?}") };
        let found = match answer.body.expect_err("no body") {
            BodyFailed::BrokenOff(_) => "BrokenOff",
            BodyFailed::TooLarge(_) => "TooLarge",
            BodyFailed::TooLate => "TooLate",
        };
        assert_eq!((answer.status.as_u16(), found), (200, expected));
    }
}

#[tokio::test]
async fn a_call_that_ends_before_its_first_byte_did_not_happen() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let origin = format!("http://{nobody}");
    let called = call_with(&client(Names::new(&[])), &request(&origin), std::slice::from_ref(&origin)).await;
    assert!(matches!(called, Called::NotSent(NotSent::Unreachable(_))), "{called:?}");

    let named = |names: &[&[&str]]| (client(Names::new(names)), "https://api.example.com".to_owned());
    let (none, name) = named(&[]);
    let called = call_with(&none, &request(&name), std::slice::from_ref(&name)).await;
    assert!(matches!(called, Called::NotSent(NotSent::Unresolved(_))), "{called:?}");
    let (empty, name) = named(&[&[]]);
    let called = call_with(&empty, &request(&name), std::slice::from_ref(&name)).await;
    assert!(matches!(called, Called::NotSent(NotSent::Unresolved(_))), "{called:?}");

    let server = Server::start(Then::Hold(b"")).await;
    let origin = format!("http://{}", server.address);
    for change in [
        |request: &mut Request| request.method = http::Method::CONNECT,
        |request: &mut Request| request.body = vec![0; 100_001].into(),
        |request: &mut Request| {
            request.headers.insert("x", "y".repeat(40_000).parse().expect("a value"));
        },
        |request: &mut Request| {
            for number in 0..101 {
                request.headers.append("x", number.into());
            }
        },
    ] {
        let mut request = request(&origin);
        change(&mut request);
        let called = call_with(&client(Names::new(&[])), &request, std::slice::from_ref(&origin)).await;
        assert!(matches!(called, Called::NotSent(NotSent::Invalid(_) | NotSent::Refused(_))), "{called:?}");
    }
    let over = Instant::now();
    let called = client(Names::new(&[])).call(request(&origin), &grants(&[origin]), over).await;
    assert!(matches!(called, Called::NotSent(NotSent::TooLate)), "the run's own deadline: {called:?}");
    assert!(server.requests.lock().expect("a lock").is_empty(), "nothing arrived");
}

/// No form of a loopback address, of whatever a deployment was granted, reaches a loopback listener.
#[tokio::test]
async fn what_is_not_granted_is_not_connected_to() {
    let inside = Server::start(Then::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let port = inside.port();
    let granted =
        ["https://api.example.com".to_owned(), format!("http://10.0.0.7:{port}"), "http://localhost:1".into()];
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.2",
        "0",
        "0.0.0.0",
        "localhost",
        "LOCALHOST.",
        "localhost.localdomain",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "①②⑦.0.0.1",
        "%31%32%37.0.0.1",
    ] {
        let client = Client::new(LIMITS);
        let called = call_with(&client, &request(&format!("http://{host}:{port}/")), &granted).await;
        assert!(matches!(&called, Called::NotSent(NotSent::Refused(_))), "{host}: {called:?}");
    }
    assert_eq!(inside.connections(), 0);
}

/// A name that is granted leads out into the world or nowhere: one address inside refuses all.
#[tokio::test]
async fn a_granted_name_does_not_lead_inside() {
    let inside = Server::start(Then::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let url = format!("http://rebound.example:{}", inside.port());
    for addresses in [
        &["127.0.0.1"][..],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["::127.0.0.1"],
        &["64:ff9b::7f00:1"],
        &["2002:7f00:1::1"],
        &["0.0.0.0"],
        &["169.254.169.254"],
        &["10.0.0.7"],
        &["100.64.0.1"],
        &["fd00:ec2::254"],
        &["fe80::1"],
        &["1.1.1.1", "127.0.0.1"],
        &["127.0.0.1", "1.1.1.1"],
        &["2606:4700::1111", "1.1.1.1", "::1"],
    ] {
        let names = Names::new(&[addresses]);
        let called = call_with(&client(Arc::clone(&names)), &request(&url), std::slice::from_ref(&url)).await;
        assert!(matches!(&called, Called::NotSent(NotSent::Refused(_))), "{addresses:?}: {called:?}");
        assert_eq!(names.asked.load(Ordering::SeqCst), 1);
    }
    assert_eq!(inside.connections(), 0);
}

/// A name server that says one thing to whoever checks and another to whoever connects: it is asked once.
#[tokio::test]
async fn a_name_is_asked_for_once() {
    let inside = Server::start(Then::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let url = format!("http://rebound.example:{}", inside.port());
    // The first answer is out in the world, where nobody was ever given this address.
    let names = Names::new(&[&["3ffe::1"], &["127.0.0.1"]]);
    let called = call_with(&client(Arc::clone(&names)), &request(&url), std::slice::from_ref(&url)).await;
    assert!(matches!(called, Called::NotSent(NotSent::Unreachable(_) | NotSent::TooLate)), "{called:?}");
    assert_eq!((names.asked.load(Ordering::SeqCst), inside.connections()), (1, 0));

    let url = format!("http://localhost:{}", inside.port());
    let names = Names::new(&[&["127.0.0.1"], &["10.0.0.7"]]);
    let called = call_with(&client(Arc::clone(&names)), &request(&url), std::slice::from_ref(&url)).await;
    assert!(matches!(called, Called::Answered(_)), "the address that was checked: {called:?}");
    assert_eq!((names.asked.load(Ordering::SeqCst), inside.connections()), (1, 1));
    assert!(inside.request().contains(&format!("\r\nhost: localhost:{}\r\n", inside.port())));
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_takes_no_connection() {
    let server = Server::start(Then::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let url = format!("http://localhost:{}", server.port());
    let names = Names::new(&[&["127.0.0.9", "::1", "127.0.0.1"]]); // Nobody listens at the first two.
    let called = call_with(&client(names), &request(&url), std::slice::from_ref(&url)).await;
    assert!(matches!(called, Called::Answered(_)), "{called:?}");
}

/// A server with a certificate for `localhost`, and who trusts it. It says the name that it was called by.
async fn secure() -> (SocketAddr, Trust, Arc<AtomicUsize>) {
    use tokio_rustls::rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let requests: Arc<AtomicUsize> = Arc::default();
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let name = stream.get_ref().1.server_name().unwrap_or("none").to_owned();
            if read(&mut stream).await.is_ok() {
                seen.fetch_add(1, Ordering::SeqCst);
                say(&mut stream, &name).await;
            }
        }
    });
    (address, Trust::new(vec![made.cert.der().clone()]).expect("TLS"), requests)
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), name: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[tokio::test]
async fn a_server_proves_its_name_before_it_hears_anything() {
    let (address, trust, requests) = secure().await;
    let names = || Names::new(&[&["127.0.0.1"]]);
    let url = format!("https://localhost:{}", address.port());
    let called =
        call_with(&Client::with(names(), trust.clone(), LIMITS), &request(&url), std::slice::from_ref(&url)).await;
    let Called::Answered(answer) = called else { panic!("{called:?}") };
    assert_eq!(answer.body.expect("a body"), "localhost", "it was called by its name");
    assert_eq!(requests.load(Ordering::SeqCst), 1);

    // By an address, for which it has no certificate; and by one who does not know it.
    let by_address = format!("https://{address}");
    let other = Client::with(names(), trust, LIMITS);
    let called = call_with(&other, &request(&by_address), std::slice::from_ref(&by_address)).await;
    assert!(matches!(called, Called::NotSent(NotSent::Tls(_))), "{called:?}");
    let called = call_with(&client(names()), &request(&url), std::slice::from_ref(&url)).await;
    assert!(matches!(called, Called::NotSent(NotSent::Tls(_))), "{called:?}");
    assert_eq!(requests.load(Ordering::SeqCst), 1, "nobody told it anything");

    // Servers that do not speak TLS, or nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = format!("https://{}", listener.local_addr().expect("an address"));
    let called = call_with(&client(names()), &request(&silent), std::slice::from_ref(&silent)).await;
    assert!(matches!(called, Called::NotSent(NotSent::TooLate)), "{called:?}");
    let plain = Server::start(Then::Say(b"HTTP/1.1 200 OK\r\n\r\n")).await;
    let url = format!("https://{}", plain.address);
    let called = call_with(&client(names()), &request(&url), std::slice::from_ref(&url)).await;
    assert!(matches!(called, Called::NotSent(NotSent::Tls(_) | NotSent::TooLate)), "{called:?}");
    assert!(plain.requests.lock().expect("a lock").is_empty());
}
