//! A connection's bytes at one end of its way: from TCP into a stream to the other end, and back.

use std::io;

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, split},
    net::TcpStream,
};

/// Bytes in flight of one direction.
const BUFFER_BYTES: usize = 16 << 10;

/// How a direction ended whose source did not break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// All was said, and is on its way.
    InOrder,
    /// Nobody takes any more.
    Unheard,
}

/// Moves bytes until both directions have ended: who has said all still hears the rest, and who hears no more, as a server that refuses what it
/// is sent and closes, is still heard. One that broke takes the other with it, and the connection is reset then.
pub async fn carry(mut connection: TcpStream, stream: impl AsyncRead + AsyncWrite) {
    // What is typed shall not wait for more. One that is over already has no options.
    let _ = connection.set_nodelay(true);
    let (from_stream, to_stream) = split(stream);
    let (from_connection, to_connection) = connection.split();
    let ended = tokio::try_join!(one_way(from_connection, to_stream), one_way(from_stream, to_connection));
    if !matches!(ended, Ok((Ended::InOrder, Ended::InOrder))) {
        reset(connection);
    }
}

/// Ends a connection as one that broke, or that nobody wanted.
pub fn reset(connection: TcpStream) {
    let _ = connection.set_zero_linger();
}

/// # Errors
/// The source broke: what it had said before is on its way.
async fn one_way(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<Ended> {
    let mut from = BufReader::with_capacity(BUFFER_BYTES, from);
    loop {
        let bytes = from.fill_buf().await?;
        let count = bytes.len();
        let taken = if count == 0 { to.shutdown().await } else { to.write_all(bytes).await };
        match taken {
            Ok(()) if count == 0 => return Ok(Ended::InOrder),
            Ok(()) => from.consume(count),
            Err(_) => return Ok(Ended::Unheard),
        }
    }
}

#[cfg(test)]
mod tests;
