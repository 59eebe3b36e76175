//! The packets of MariaDB and MySQL: three bytes for the length, one that counts, the rest. One side speaks at a time: a
//! command, and its answer.

use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{Fault, Line};

mod talk;

use talk::Talk;

/// A packet of this length is continued in the next one.
const FULL: usize = 0xff_ffff;
/// What the server offers, of which nothing could be read here.
const TLS: u16 = 0x0800;
const COMPRESSION: u16 = 0x0020;

/// Passes on what the two sides say, until one of them ends or a fault ends both.
pub(super) async fn connect(host: TcpStream, server: TcpStream, line: &Line) -> std::io::Result<()> {
    let ((from_host, to_host), (from_server, to_server)) = (host.into_split(), server.into_split());
    let (mut from_host, mut to_host) = (BufReader::new(from_host), BufWriter::new(to_host));
    let (mut from_server, mut to_server) = (BufReader::new(from_server), BufWriter::new(to_server));
    let mut greeting = Packet::read(&mut from_server).await?;
    offer_less(&mut greeting.body);
    line.pass().await;
    greeting.send(&mut to_host, true).await?;
    let login = Packet::read(&mut from_host).await?;
    let talk = Mutex::new(Talk::of_login(&login.body));
    login.send(&mut to_server, true).await?;
    tokio::select! {
        ended = forth(from_host, to_server, &talk, line) => ended,
        ended = back(from_server, to_host, &talk, line) => ended,
    }
}

/// Takes TLS and compression out of the server's first packet: a version, a text that ends with a zero, thirteen bytes, and
/// then what it can do.
fn offer_less(greeting: &mut [u8]) {
    let Some(end) = greeting.iter().position(|byte| *byte == 0) else { return };
    if let Some([low, high]) = greeting.get_mut(end + 14..end + 16) {
        let can = u16::from_le_bytes([*low, *high]) & !TLS & !COMPRESSION;
        [*low, *high] = can.to_le_bytes();
    }
}

struct Packet {
    /// Its number in its command or answer; the other side counts on from it.
    number: u8,
    body: Vec<u8>,
}

impl Packet {
    async fn read(from: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Self> {
        let head = from.read_u32_le().await?;
        let mut body = vec![0; head as usize & FULL];
        from.read_exact(&mut body).await?;
        Ok(Self { number: head.to_le_bytes()[3], body })
    }

    async fn send(&self, to: &mut BufWriter<OwnedWriteHalf>, flush: bool) -> std::io::Result<()> {
        let length = u32::try_from(self.body.len()).unwrap_or_default().to_le_bytes();
        to.write_all(&[length[0], length[1], length[2], self.number]).await?;
        to.write_all(&self.body).await?;
        if flush { to.flush().await } else { Ok(()) }
    }
}

/// What the host says, as far as it has a commit in it.
async fn forth(
    mut from: BufReader<OwnedReadHalf>,
    mut to: BufWriter<OwnedWriteHalf>,
    talk: &Mutex<Talk>,
    line: &Line,
) -> std::io::Result<()> {
    let locked = || talk.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let packet = Packet::read(&mut from).await?;
        let begins = packet.number == 0;
        let commits = begins && locked().hear(&packet.body);
        line.holds(begins && locked().acknowledges());
        let ran = if commits { std::mem::take(&mut locked().ran) } else { Vec::new() };
        if commits && !line.meets(&ran) {
            return Ok(());
        }
        line.pass().await;
        if begins && Talk::is_answered(&packet.body) {
            line.travel().await;
        }
        packet.send(&mut to, from.buffer().is_empty()).await?;
    }
}

async fn back(
    mut from: BufReader<OwnedReadHalf>,
    mut to: BufWriter<OwnedWriteHalf>,
    talk: &Mutex<Talk>,
    line: &Line,
) -> std::io::Result<()> {
    let mut continues = false;
    loop {
        let packet = Packet::read(&mut from).await?;
        line.pass().await;
        let is_over = !continues && talk.lock().unwrap_or_else(PoisonError::into_inner).answer(&packet.body);
        continues = packet.body.len() == FULL;
        if line.swallows() {
            if is_over {
                line.shared.count(Fault::After);
                return Ok(());
            }
            continue;
        }
        packet.send(&mut to, from.buffer().is_empty()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_offered_what_could_not_be_read() {
        let mut greeting = b"\x0a10.11.6-MariaDB\0".to_vec();
        greeting.extend([7; 13]);
        let rest = greeting.len();
        greeting.extend(0xffff_u16.to_le_bytes());
        greeting.push(9);
        offer_less(&mut greeting);
        assert_eq!(greeting[rest..], [0xdf, 0xf7, 9]);
        offer_less(&mut [1, 2, 0]);
    }
}
