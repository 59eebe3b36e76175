//! Postgres' messages: a byte for the kind, the length, the rest. The host's may come several at once.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{Fault, Line};

mod talk;

use talk::Talk;

/// What a client may say before anything else: encryption (twice), and a request to cancel, which has no answer.
const TLS: [i32; 2] = [80_877_103, 80_877_104];
const CANCEL: i32 = 80_877_102;
/// Longer than any message of a test; a length beyond it means that the two sides are not speaking Postgres.
const LONGEST: i32 = 1 << 30;

/// Passes on what the two sides say, until one of them ends or a fault ends both.
pub(super) async fn connect(host: TcpStream, server: TcpStream, line: &Line) -> std::io::Result<()> {
    let ((from_host, mut to_host), (from_server, to_server)) = (host.into_split(), server.into_split());
    let (mut from_host, mut to_server) = (BufReader::new(from_host), BufWriter::new(to_server));
    loop {
        let length = from_host.read_i32().await?;
        let code = from_host.read_i32().await?;
        if TLS.contains(&code) {
            to_host.write_all(b"N").await?;
            continue;
        }
        let mut rest = vec![0; size(length, 8)?];
        from_host.read_exact(&mut rest).await?;
        line.pass().await;
        to_server.write_i32(length).await?;
        to_server.write_i32(code).await?;
        to_server.write_all(&rest).await?;
        to_server.flush().await?;
        if code == CANCEL {
            return to_server.shutdown().await;
        }
        break;
    }
    tokio::select! {
        ended = forth(from_host, to_server, line) => ended,
        ended = back(BufReader::new(from_server), BufWriter::new(to_host), line) => ended,
    }
}

fn size(length: i32, of_it_read: usize) -> std::io::Result<usize> {
    let wrong = || std::io::Error::other("this is not how Postgres speaks");
    let length = usize::try_from(length.min(LONGEST)).ok().and_then(|length| length.checked_sub(of_it_read));
    length.ok_or_else(wrong)
}

/// One message: its kind, its length as it stands in front of it, and the rest.
async fn message(from: &mut BufReader<OwnedReadHalf>) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = from.read_u8().await?;
    let length = from.read_i32().await?;
    let mut body = vec![0; size(length, 4)?];
    from.read_exact(&mut body).await?;
    Ok((kind, body))
}

async fn send(to: &mut BufWriter<OwnedWriteHalf>, kind: u8, body: &[u8], flush: bool) -> std::io::Result<()> {
    to.write_u8(kind).await?;
    to.write_i32(i32::try_from(body.len() + 4).unwrap_or(LONGEST)).await?;
    to.write_all(body).await?;
    if flush { to.flush().await } else { Ok(()) }
}

/// What the host says, as far as it has a commit in it.
async fn forth(
    mut from: BufReader<OwnedReadHalf>,
    mut to: BufWriter<OwnedWriteHalf>,
    line: &Line,
) -> std::io::Result<()> {
    let mut talk = Talk::default();
    loop {
        let (kind, body) = message(&mut from).await?;
        let commits = talk.hear(kind, &body);
        if kind == b'E' && line.holds(talk.acknowledges()) {
            to.flush().await?; // What came before it is there: the server waits for the rest of it, not for a client.
        }
        if commits && !line.meets(&std::mem::take(&mut talk.ran)) {
            return Ok(());
        }
        line.pass().await;
        if matches!(kind, b'Q' | b'S') {
            line.travel().await;
        }
        send(&mut to, kind, &body, from.buffer().is_empty()).await?;
    }
}

async fn back(
    mut from: BufReader<OwnedReadHalf>,
    mut to: BufWriter<OwnedWriteHalf>,
    line: &Line,
) -> std::io::Result<()> {
    loop {
        let (kind, body) = message(&mut from).await?;
        line.pass().await;
        if line.swallows() {
            if kind == b'Z' {
                line.shared.count(Fault::After);
                return Ok(());
            }
            continue;
        }
        send(&mut to, kind, &body, from.buffer().is_empty()).await?;
    }
}
