use std::time::Duration;

use idm::stream::{AsyncStream, Stream, StreamSpec};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::carry;

const SPEC: StreamSpec = StreamSpec { to_taker_bytes: 64 << 10, to_maker_bytes: 64 << 10 };
const SOON: Duration = Duration::from_secs(20);
/// More than the way holds: the rings, the buffers, and what the kernel keeps of two connections.
const MUCH: usize = 64 << 20;

async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// Who dials, and the program, with both ends of the way between them.
async fn way() -> (TcpStream, TcpStream) {
    let (maker, taker) = Stream::pair(SPEC).unwrap();
    let ((dialler, caught), (dialled, program)) = (connection().await, connection().await);
    tokio::spawn(carry(caught, AsyncStream::new(taker).unwrap()));
    tokio::spawn(carry(dialled, AsyncStream::new(maker).unwrap()));
    (dialler, program)
}

async fn rest(of: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    timeout(SOON, of.read_to_end(&mut bytes)).await.expect("an end").map(|_| bytes)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..251).cycle().take(bytes).collect()
}

#[tokio::test]
async fn who_has_said_all_hears_the_rest() {
    for turned in [false, true] {
        let (dialler, program) = way().await;
        let (mut first, mut second) = if turned { (program, dialler) } else { (dialler, program) };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(rest(&mut second).await.unwrap(), b"question");
        second.write_all(b"answer").await.unwrap();
        drop(second);
        assert_eq!(rest(&mut first).await.unwrap(), b"answer");
    }
}

#[tokio::test]
async fn what_nobody_reads_stops_who_writes_and_comes_whole() {
    let (mut dialler, mut program) = way().await;
    let sent = pattern(MUCH);
    let (mut counts, mut heard) = (Vec::new(), JoinSet::new());
    for writer in [&mut dialler, &mut program] {
        let mut count = 0;
        while let Ok(more) = timeout(Duration::from_millis(300), writer.write(&sent[count..])).await {
            count += more.unwrap();
        }
        assert!(count < MUCH, "nothing stops it");
        counts.push(count);
    }
    for (end, count) in [dialler, program].into_iter().zip(counts) {
        let (mut hears, mut says) = end.into_split();
        let rest = sent[count..].to_vec();
        tokio::spawn(async move { says.write_all(&rest).await });
        heard.spawn(async move {
            let mut bytes = Vec::new();
            hears.read_to_end(&mut bytes).await.map(|_| bytes)
        });
    }
    for bytes in timeout(SOON, heard.join_all()).await.unwrap() {
        assert!(bytes.unwrap() == sent);
    }
}

#[tokio::test]
async fn a_reset_is_one_at_the_other_end() {
    for turned in [false, true] {
        let (dialler, program) = way().await;
        let (mut first, mut second) = if turned { (program, dialler) } else { (dialler, program) };
        first.write_all(b"before").await.unwrap();
        let mut before = [0; 6];
        timeout(SOON, second.read_exact(&mut before)).await.unwrap().unwrap();
        first.set_zero_linger().unwrap();
        drop(first);
        let error = rest(&mut second).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "turned: {turned}");
    }
}

/// As a web server does that refuses an upload.
#[tokio::test]
async fn an_answer_of_one_that_does_not_read_comes() {
    let (mut dialler, mut program) = way().await;
    let uploading = pattern(MUCH);
    let (mut hears, mut says) = dialler.split();
    let upload = async { says.write_all(&uploading).await };
    let refuse = async {
        program.readable().await.unwrap();
        program.write_all(b"too much").await.unwrap();
        // It is closed with bytes that were not read.
        drop(program);
    };
    let answer = async {
        let mut answer = Vec::new();
        // After it comes the reset.
        let _ = hears.read_to_end(&mut answer).await;
        answer
    };
    let (_, (), answer) = timeout(SOON, async { tokio::join!(upload, refuse, answer) }).await.unwrap();
    assert_eq!(answer, b"too much");
}

#[tokio::test]
async fn an_end_that_dies_resets_the_other() {
    let (maker, taker) = Stream::pair(SPEC).unwrap();
    let (mut dialler, caught) = connection().await;
    tokio::spawn(carry(caught, AsyncStream::new(taker).unwrap()));
    dialler.write_all(b"word").await.unwrap();
    drop(maker);
    let error = rest(&mut dialler).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
