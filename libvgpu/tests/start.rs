//! Starts that fail: each a clear code, and the next try starts afresh.

mod support;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use idm::connect::{answer, greet, make_ends, peer_of, refuse};
use idm::hello::Hello;
use idm::record::{RECORD_LIMIT_MAX, RegionSpec};
use support::Library;

const NO_DEVICE: u32 = 100;
const DEVICE_UNAVAILABLE: u32 = 46;
const INVALID_VALUE: u32 = 1;
const LIMIT: Duration = Duration::from_secs(5);

/// A server that says no once: with a code, or by declarations of its own.
fn serve(path: &Path, code: Option<u16>) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).expect("a fresh path");
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("the library connects");
        let peer = peer_of(&socket).expect("a process");
        greet(&socket, peer, LIMIT).expect("a hello");
        let hello = Hello::new(RECORD_LIMIT_MAX, 0x0dd);
        match code {
            Some(code) => refuse(&socket, peer, &hello, code).expect("refused"),
            None => {
                let spec = RegionSpec::default();
                let (program, _server) = make_ends(&spec).expect("memory");
                answer(&socket, peer, &hello, &spec, &program).expect("answered");
            }
        }
    })
}

#[test]
fn a_start_that_fails_says_why_and_can_be_tried_again() {
    let library = Library::open();
    let path = std::env::temp_dir().join(format!("vgpu-start-{}.sock", std::process::id()));
    // SAFETY: this test is alone in its program; no other thread reads the environment.
    unsafe { std::env::set_var("VGPU_SOCKET", &path) };
    assert_eq!(cu!(library, cuInit(1: u32)), INVALID_VALUE, "flags");
    assert_eq!(cu!(library, cuInit(0: u32)), NO_DEVICE, "no socket");
    for (code, wanted) in [
        (Some(403), NO_DEVICE),          // not granted
        (Some(404), DEVICE_UNAVAILABLE), // a limit of the zone
        (Some(999), DEVICE_UNAVAILABLE), // a code of a later version
        (None, DEVICE_UNAVAILABLE),      // another hash of the declarations
    ] {
        let server = serve(&path, code);
        assert_eq!(cu!(library, cuInit(0: u32)), wanted, "{code:?}");
        server.join().expect("the server did its part");
        std::fs::remove_file(&path).expect("it is ours");
    }
}
