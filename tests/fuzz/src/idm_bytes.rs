//! Bytes that a peer sends: the hello, what xenstored answers, what a guest writes into its nodes.
#![no_main]

use idm::Peer;
use idm::hello::{HELLO_BYTES, Hello};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(first) = bytes.first_chunk::<HELLO_BYTES>()
        && let Ok(hello) = Hello::parse(first, Peer::Server)
    {
        assert_eq!(Hello::parse(&hello.encode(), Peer::Server), Ok(hello));
        let _ = Hello::new(4096, 0).meet(&hello, Peer::Server);
    }
    idm::fuzzing::xenstore_messages(bytes);
    idm::fuzzing::offer_nodes(bytes);
});
