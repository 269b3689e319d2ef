//! A gpu-proxy that says yes and remembers what it was asked.

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    sync::{Arc, Mutex},
};

use vgpu_zone_api::shim::{
    HELLO_BYTES, Hello, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, Reply, Request, decode, encode, frame_len,
};

/// Serves at `socket` until the test ends.
pub fn serve(socket: &Path) -> Arc<Mutex<Vec<Request>>> {
    let (asked, listener) = (Arc::new(Mutex::new(Vec::new())), UnixListener::bind(socket).unwrap());
    let heard = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.read_exact(&mut [0; HELLO_BYTES]).unwrap();
            stream.write_all(&Hello::ours().to_bytes()).unwrap();
            let mut word = [0; 4];
            while stream.read_exact(&mut word).is_ok() {
                let mut body = vec![0; frame_len(word, REQUEST_BYTES_MAX).unwrap()];
                stream.read_exact(&mut body).unwrap();
                heard.lock().unwrap().push(decode(&body).unwrap());
                stream.write_all(&encode(&Reply::Done, REPLY_BYTES_MAX).unwrap()).unwrap();
            }
        }
    });
    asked
}
