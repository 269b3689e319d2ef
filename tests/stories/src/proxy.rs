//! A gpu-proxy for the shim's door only, which falls silent where a story wants it. Dropped, it is gone.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::command::until;

/// When it falls silent: for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    /// Asked to register a zone, it does not even greet.
    AtRegister,
    /// It registers and grants; then there is nothing more to say.
    AfterGrant,
}

/// One gpu-proxy.
#[derive(Debug)]
pub struct Proxy {
    path: String,
    reached: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens at `path`.
    pub fn at(path: &str, silent: Silent) -> Self {
        let listener = UnixListener::bind(path).expect("a free path");
        let proxy = Self { path: path.into(), reached: Arc::default(), over: Arc::default() };
        let (reached, over) = (Arc::clone(&proxy.reached), Arc::clone(&proxy.over));
        thread::spawn(move || {
            let connections = AtomicU32::new(0);
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Acquire) {
                    return;
                }
                // The first only asks whether somebody is there; the second registers.
                let second = connections.fetch_add(1, Ordering::Relaxed) == 1;
                let reached = Arc::clone(&reached);
                if second && silent == Silent::AtRegister {
                    reached.store(true, Ordering::Release);
                    thread::spawn(move || read_all(stream));
                } else {
                    thread::spawn(move || serve(stream, &reached));
                }
            }
        });
        proxy
    }

    /// Waits until it has fallen silent.
    pub fn wait(&self) {
        let reached = until(Duration::from_secs(90), || self.reached.load(Ordering::Acquire).then_some(()));
        reached.expect("Create comes to gpu-proxy");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the one that accepts.
        drop(UnixStream::connect(&self.path));
        let _ = fs::remove_file(&self.path);
    }
}

fn read_all(mut stream: UnixStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Greets with the peer's own hello, and says yes to everything. Source: `gpu-proxy/zone-api`, the shim's door.
fn serve(mut stream: UnixStream, reached: &AtomicBool) -> Option<()> {
    let mut hello = [0; 24];
    stream.read_exact(&mut hello).ok()?;
    stream.write_all(&hello).ok()?;
    loop {
        let mut len = [0; 4];
        stream.read_exact(&mut len).ok()?;
        let mut body = vec![0; u32::from_le_bytes(len) as usize];
        stream.read_exact(&mut body).ok()?;
        let reply = br#"{"reply":"done"}"#;
        stream.write_all(&u32::try_from(reply.len()).ok()?.to_le_bytes()).ok()?;
        stream.write_all(reply).ok()?;
        if String::from_utf8_lossy(&body).contains(r#""request":"grant""#) {
            reached.store(true, Ordering::Release);
        }
    }
}
