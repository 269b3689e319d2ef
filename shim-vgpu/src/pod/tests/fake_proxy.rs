//! A gpu-proxy that remembers what it was asked and whose zones are, and says yes to all but a conflict. Dropped, it dies with its
//! connections.

use std::{
    collections::BTreeMap,
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

use vgpu_codes::Code;
use vgpu_zone_api::shim::{
    DomainRef, HELLO_BYTES, Hello, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, Reply, Request, ZoneId, decode,
    encode, frame_len,
};

pub struct FakeProxy {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    open: Arc<Mutex<Vec<UnixStream>>>,
    over: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    asked: Vec<Request>,
    zones: BTreeMap<ZoneId, DomainRef>,
}

impl State {
    fn answer(&mut self, request: Request) -> Reply {
        self.asked.push(request.clone());
        match request {
            Request::Register { zone, domain, .. } if *self.zones.entry(zone).or_insert(domain) != domain => {
                return Reply::Refused { code: Code::ZoneConflict as u16, text: "another has it".into() };
            }
            Request::Release { zone, domain } if self.zones.get(&zone) == Some(&domain) => {
                self.zones.remove(&zone);
            }
            _ => {}
        }
        Reply::Done
    }
}

impl FakeProxy {
    pub fn start(socket: &Path) -> FakeProxy {
        let listener = UnixListener::bind(socket).unwrap();
        let proxy = FakeProxy {
            socket: socket.into(),
            state: Arc::default(),
            open: Arc::default(),
            over: Arc::default(),
        };
        let (state, open, over) = (proxy.state.clone(), proxy.open.clone(), proxy.over.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Acquire) {
                    return;
                }
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let state = state.clone();
                thread::spawn(move || serve(stream, &state));
            }
        });
        proxy
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<Request> {
        self.state.lock().unwrap().asked.clone()
    }

    /// Its zones, and whose they are.
    pub fn zones(&self) -> BTreeMap<ZoneId, DomainRef> {
        self.state.lock().unwrap().zones.clone()
    }

    /// The zone is another domain's from now on: it was released, and the pod's next sandbox came.
    pub fn hand_over(&self, zone: ZoneId, domain: DomainRef) {
        self.state.lock().unwrap().zones.insert(zone, domain);
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

fn serve(mut stream: UnixStream, state: &Mutex<State>) {
    let (mut hello, mut word) = ([0; HELLO_BYTES], [0; 4]);
    if stream.read_exact(&mut hello).is_err() {
        return;
    }
    stream.write_all(&Hello::ours().to_bytes()).unwrap();
    while stream.read_exact(&mut word).is_ok() {
        let mut body = vec![0; frame_len(word, REQUEST_BYTES_MAX).unwrap()];
        stream.read_exact(&mut body).unwrap();
        let reply = state.lock().unwrap().answer(decode(&body).unwrap());
        stream.write_all(&encode(&reply, REPLY_BYTES_MAX).unwrap()).unwrap();
    }
}
