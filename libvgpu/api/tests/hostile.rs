//! Payloads that no honest guest sends: each is an error or an answer, never a panic, and never more work than it has bytes.

use vgpu_api::calls::Class;
use vgpu_api::{Call, ContextId, CuError, ImageInfo, Op, Refuses, Snapshot, WireError, dispatch};

/// A small generator, so that a failure comes again with its seed (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let len = self.next() % (most + 1);
        (0..len)
            // Half of the bytes are extreme: lengths and counts are where parsers go wrong.
            .map(|_| match self.next() % 4 {
                0 => 0,
                1 => 0xff,
                _ => self.next().to_le_bytes()[0],
            })
            .collect()
    }
}

#[test]
fn random_payloads_of_every_call_are_parsed_or_refused() {
    let mut random = Random(0x5eed);
    let (mut parsed, mut refused) = (0, 0);
    let mut reply = vec![0; vgpu_api::wire::REPLY_BYTES_MAX];
    for round in 0..200_000u64 {
        let op = u16::try_from(round % (Op::ALL.len() as u64 + 3)).unwrap();
        let payload = random.bytes(96);
        let call = Call { context: ContextId(1), sync: true };
        match dispatch(&mut Refuses, op, call, &payload, &mut reply) {
            Ok(answer) => {
                assert_eq!((answer.code, answer.reply_bytes), (CuError::NOT_SUPPORTED.code(), 0));
                parsed += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(parsed > 100 && refused > 100, "{parsed} parsed, {refused} refused: the generator is blind");
}

#[test]
fn a_call_that_answers_cannot_be_queued_and_an_unknown_one_is_named() {
    let queued = Call { context: ContextId(1), sync: false };
    let alloc = Op::ALL.iter().position(|op| op.name() == "cuMemAlloc_v2").unwrap();
    assert_eq!(Op::ALL[alloc].class(), Class::Sync);
    let alloc = u16::try_from(alloc).unwrap();
    assert_eq!(
        dispatch(&mut Refuses, alloc, queued, &[0; 8], &mut []),
        Err(WireError::BadValue("sync flag"))
    );
    assert_eq!(dispatch(&mut Refuses, 9999, queued, &[], &mut []), Err(WireError::UnknownOp(9999)));
}

/// The guest parses these from staging: the worker may be another build's, or broken.
#[test]
fn random_snapshots_and_load_replies_are_refused_without_a_panic() {
    let mut random = Random(0xfeed);
    for _ in 0..50_000 {
        let bytes = random.bytes(300);
        let _ = Snapshot::parse(&bytes);
        let _ = ImageInfo::parse(&bytes);
    }
}
