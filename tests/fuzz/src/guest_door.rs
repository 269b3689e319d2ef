//! Any bytes, in two pieces, give messages or an error; a message encodes to the bytes it came from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vgpu_zone_api::guest::{Frames, Message, ToProxy};

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (split, bytes) = input;
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
