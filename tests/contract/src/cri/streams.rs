//! What containerd's streaming server carries of an exec, an attach or a forwarded port: messages of a WebSocket, each with a channel's number
//! before its bytes. Sources: RFC 6455, sections 4 and 5; Kubernetes' subprotocol `v4.channel.k8s.io`.

use std::{collections::BTreeMap, fs::File, io, thread, time::Duration};

use rustix::{
    fd::AsFd,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bytes by their channel.
pub type Channels = BTreeMap<u8, Vec<u8>>;

/// A process's input.
pub const STDIN: u8 = 0;
/// Its output.
pub const STDOUT: u8 = 1;
/// Its errors.
pub const STDERR: u8 = 2;
/// How it ended, as Kubernetes' Status.
pub const STATUS: u8 = 3;

const LIMIT: Duration = Duration::from_secs(60);
const FINAL: u8 = 0x80;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const MASKED: u8 = 0x80;
/// Of a message that is sent.
const BYTES_MAX: usize = 16 << 10;

/// Sends bytes to channels, and meanwhile hears all channels until the other side closes, or `enough` says that no more is wanted. The server
/// is in the network of process `pid`.
///
/// # Errors
/// The server refuses, or nothing ends within 60 s.
pub async fn play(
    url: &str,
    pid: u32,
    sent: &[(u8, &[u8])],
    enough: impl Fn(&Channels) -> bool,
) -> io::Result<Channels> {
    let played = async {
        let mut socket = open(url, pid).await?;
        let (mut hears, mut says) = socket.split();
        let say = async {
            for (channel, bytes) in sent {
                for part in bytes.chunks(BYTES_MAX) {
                    says.write_all(&message(*channel, part)).await?;
                }
            }
            io::Result::Ok(())
        };
        let hear = async {
            let mut heard = Channels::new();
            while !enough(&heard) {
                let Some((channel, bytes)) = next(&mut hears).await? else { break };
                heard.entry(channel).or_default().extend(bytes);
            }
            Ok(heard)
        };
        tokio::try_join!(say, hear).map(|((), heard)| heard)
    };
    tokio::time::timeout(LIMIT, played).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The channels of the n-th port: what it is sent and gives, and why it gives nothing.
pub fn of_port(at: u8) -> (u8, u8) {
    (2 * at, 2 * at + 1)
}

/// What a port's channel has carried: the port's own number is before it.
pub fn bytes_of(heard: &Channels, channel: u8) -> &[u8] {
    heard.get(&channel).and_then(|bytes| bytes.get(2..)).unwrap_or_default()
}

/// By a thread that stays in the other network and ends there.
fn dial(host: String, pid: u32) -> io::Result<std::net::TcpStream> {
    let dial = move || {
        let network = File::open(format!("/proc/{pid}/ns/net"))?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        let socket = std::net::TcpStream::connect(host)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    thread::spawn(dial).join().map_err(|_| io::Error::other("the thread panicked"))?
}

async fn open(url: &str, pid: u32) -> io::Result<TcpStream> {
    let (host, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut socket = TcpStream::from_std(dial(host.to_owned(), pid)?)?;
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await?);
    }
    if answer.starts_with(b"HTTP/1.1 101 ") {
        Ok(socket)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()))
    }
}

/// One message. A client has to mask what it sends; a mask of zeros changes nothing.
fn message(channel: u8, bytes: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(bytes.len() + 1).expect("no more than a message has").to_be_bytes();
    let mut message = vec![FINAL | BINARY, MASKED | 126, high, low, 0, 0, 0, 0, channel];
    message.extend(bytes);
    message
}

/// The next message of a channel; none: the end.
async fn next(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Vec<u8>)>> {
    loop {
        let head = match socket.read_u8().await {
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            head => head?,
        };
        let length = match socket.read_u8().await? {
            126 => u64::from(socket.read_u16().await?),
            127 => socket.read_u64().await?,
            short => short.into(),
        };
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        socket.read_exact(&mut bytes).await?;
        match head & 0xf {
            CLOSE => return Ok(None),
            0..=BINARY if !bytes.is_empty() => return Ok(Some((bytes.remove(0), bytes))),
            _ => {}
        }
    }
}
