//! Any bytes are a 9P message that is written as it came, or none: what the guest sends, and what the tests' client reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vgpu_share::message::{Entry, HEADER_BYTES, Reply, Request, split};

fuzz_target!(|bytes: &[u8]| {
    let _ = Entry::all(bytes);
    let Ok((kind, tag, body)) = split(bytes, u32::MAX) else { return };
    let mut again = Vec::new();
    if let Ok(request) = Request::parse(kind, body) {
        request.frame(tag, &mut again);
        assert_eq!(again, bytes);
    }
    if let Ok(reply) = Reply::parse(kind, body) {
        reply.frame(tag, &mut again);
        assert_eq!(again, bytes);
    }
    assert!(bytes.len() >= HEADER_BYTES);
});
