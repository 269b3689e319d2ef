//! A gpu-proxy that says yes and remembers what it was asked. Dropped, it dies with its connections.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use vgpu_zone_api::shim::{
    HELLO_BYTES, Hello, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, Reply, Request, decode, encode, frame_len,
};

pub struct FakeProxy {
    socket: PathBuf,
    asked: Arc<Mutex<Vec<Request>>>,
    open: Arc<Mutex<Vec<UnixStream>>>,
    over: Arc<AtomicBool>,
}

impl FakeProxy {
    pub fn start(socket: &Path) -> FakeProxy {
        let listener = UnixListener::bind(socket).unwrap();
        let proxy = FakeProxy {
            socket: socket.into(),
            asked: Arc::default(),
            open: Arc::default(),
            over: Arc::default(),
        };
        let (asked, open, over) = (proxy.asked.clone(), proxy.open.clone(), proxy.over.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Acquire) {
                    return;
                }
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let asked = asked.clone();
                thread::spawn(move || serve(stream, &asked));
            }
        });
        proxy
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// The same, once it was asked `count` things.
    pub async fn asked_until(&self, count: usize) -> Vec<Request> {
        for _ in 0..1000 {
            if self.asked().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.asked()
    }
}

impl Drop for FakeProxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the one that accepts, which then ends with its listener.
        drop(UnixStream::connect(&self.socket));
        std::fs::remove_file(&self.socket).unwrap();
        for stream in self.open.lock().unwrap().iter() {
            // The peer may have closed it.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(mut stream: UnixStream, asked: &Mutex<Vec<Request>>) {
    let (mut hello, mut word) = ([0; HELLO_BYTES], [0; 4]);
    if stream.read_exact(&mut hello).is_err() {
        return;
    }
    stream.write_all(&Hello::ours().to_bytes()).unwrap();
    while stream.read_exact(&mut word).is_ok() {
        let mut body = vec![0; frame_len(word, REQUEST_BYTES_MAX).unwrap()];
        stream.read_exact(&mut body).unwrap();
        asked.lock().unwrap().push(decode(&body).unwrap());
        stream.write_all(&encode(&Reply::Done, REPLY_BYTES_MAX).unwrap()).unwrap();
    }
}
