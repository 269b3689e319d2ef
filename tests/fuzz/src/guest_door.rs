//! Any bytes, in two pieces, give messages or an error; a message encodes to the bytes it came from. So does an answer to a question, of
//! this release.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vgpu_zone_api::guest::facts::Facts;
use vgpu_zone_api::guest::{Frames, Message, ToProxy};

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (split, bytes) = input;
    if let Ok(facts) = Facts::decode(&bytes) {
        assert_eq!(Facts::decode(&facts.encode()), Ok(facts));
    }
    let (first, second) = bytes.split_at(usize::from(split).min(bytes.len()));
    let mut frames = Frames::<ToProxy>::default();
    let mut again = Vec::new();
    for piece in [first, second] {
        frames.push(piece);
        loop {
            match frames.next() {
                Ok(Some(message)) => message.encode(&mut again),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert_eq!(again, bytes[..again.len()]);
});
