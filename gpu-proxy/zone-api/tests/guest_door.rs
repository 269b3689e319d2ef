//! The guest's door against whatever bytes a guest may send.

use idm::arena::CHUNK_PAGES;
use proptest::prelude::*;
use vgpu_zone_api::guest::{
    ChannelId, Connect, ContainerId, FRAME_BYTES_MAX, Frames, HEADER_BYTES, Malformed, Message, REFS_MAX,
    ToGuest, ToProxy, facts,
};

fn connect() -> impl Strategy<Value = ToProxy> {
    (
        1..=u32::MAX,
        "[A-Za-z0-9_-]{1,128}",
        any::<[u32; 2]>(),
        any::<u64>(),
        prop::collection::vec(any::<u32>(), 1..3000),
    )
        .prop_map(|(channel, id, [pid, port], wire_hash, refs)| {
            ToProxy::Connect(Connect {
                channel: ChannelId::new(channel).unwrap(),
                container: ContainerId::new(&id).unwrap(),
                pid,
                wire_hash,
                port,
                refs,
            })
        })
}

fn to_proxy() -> impl Strategy<Value = ToProxy> {
    let close = (1..=u32::MAX).prop_map(|n| ToProxy::Close { channel: ChannelId::new(n).unwrap() });
    let ask = (1..=u32::MAX, "[A-Za-z0-9_-]{1,128}").prop_map(|(n, id)| ToProxy::Ask {
        question: ChannelId::new(n).unwrap(),
        container: ContainerId::new(&id).unwrap(),
    });
    let refs = prop::collection::vec(any::<u32>(), CHUNK_PAGES);
    let chunk = (1..=u32::MAX, any::<u32>(), refs).prop_map(|(n, chunk, refs)| ToProxy::Chunk {
        channel: ChannelId::new(n).unwrap(),
        chunk,
        refs,
    });
    let lack = (1..=u32::MAX, any::<u32>())
        .prop_map(|(n, chunk)| ToProxy::Lack { channel: ChannelId::new(n).unwrap(), chunk });
    prop_oneof![connect(), close, ask, chunk, lack]
}

/// All messages of `pieces`, or the first error.
fn read<M: Message>(pieces: &[&[u8]]) -> Result<Vec<M>, Malformed> {
    let mut frames = Frames::<M>::default();
    let mut messages = Vec::new();
    for piece in pieces {
        frames.push(piece);
        while let Some(message) = frames.next()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_survive_the_wire_in_any_pieces(messages in prop::collection::vec(to_proxy(), 1..5), size in 1..5000usize) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        prop_assert_eq!(read::<ToProxy>(&pieces), Ok(messages));
    }

    #[test]
    fn any_bytes_give_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read::<ToProxy>(&[&bytes]);
        let _ = read::<ToGuest>(&[&bytes]);
        let _ = facts::Facts::decode(&bytes);
    }

    #[test]
    fn a_changed_byte_never_makes_a_message_that_does_not_encode_to_itself(
        message in to_proxy(), at in any::<prop::sample::Index>(), to in any::<u8>()
    ) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(messages) = read::<ToProxy>(&[&bytes]) {
            let mut again = Vec::new();
            messages.iter().for_each(|message| message.encode(&mut again));
            prop_assert_eq!(&again[..], &bytes[..again.len()]);
        }
    }
}

#[test]
fn answers_survive_the_wire() {
    let channel = ChannelId::new(7).unwrap();
    let answers = [
        ToGuest::Accepted { channel, arena_mib: 0 },
        ToGuest::Accepted { channel, arena_mib: 16384 },
        ToGuest::Want { channel, chunk: 9 },
        ToGuest::Refused { channel, code: 320 },
        ToGuest::Died { channel, code: 321 },
        ToGuest::Unmapped { channel },
        ToGuest::Told { question: channel, code: 0, answer: vec![7; facts::BYTES_MAX] },
        ToGuest::Told { question: channel, code: 401, answer: Vec::new() },
    ];
    let mut bytes = Vec::new();
    answers.iter().for_each(|answer| answer.encode(&mut bytes));
    assert_eq!(read::<ToGuest>(&[&bytes]), Ok(answers.to_vec()));
}

#[test]
fn a_length_that_cannot_be_is_refused_with_the_header_alone() {
    let header = |kind: u16, len: u32| [kind.to_le_bytes().as_slice(), &[0; 2], &len.to_le_bytes()].concat();
    for len in [0, 8, 152, 155, 158, u32::MAX, 152 + 4 * 16_001] {
        assert_eq!(
            read::<ToProxy>(&[&header(1, len)]),
            Err(Malformed::Length { kind: 1, bytes: len }),
            "{len}"
        );
    }
    for (kind, len) in
        [(3, 8), (3, 135), (3, 137), (4, 8), (4, 8 + 4 * 511), (4, 8 + 4 * 513), (5, 4), (5, 12)]
    {
        assert_eq!(read::<ToProxy>(&[&header(kind, len)]), Err(Malformed::Length { kind, bytes: len }));
    }
    for len in [0, 7, 8 + (48 << 10) + 1, u32::MAX] {
        assert_eq!(read::<ToGuest>(&[&header(133, len)]), Err(Malformed::Length { kind: 133, bytes: len }));
    }
    assert_eq!(read::<ToProxy>(&[&header(129, 8)]), Err(Malformed::Kind(129)));
    assert_eq!(read::<ToGuest>(&[&header(1, 156)]), Err(Malformed::Kind(1)));
    assert_eq!(read::<ToProxy>(&[&header(1, 156)]), Ok(vec![]));
    const { assert!(HEADER_BYTES + 152 + 4 * REFS_MAX <= FRAME_BYTES_MAX) };
    const { assert!(HEADER_BYTES + 8 + facts::BYTES_MAX <= FRAME_BYTES_MAX) };
}

#[test]
fn a_refusal_with_an_answer_is_none() {
    let question = ChannelId::new(7).unwrap();
    let mut bytes = Vec::new();
    ToGuest::Told { question, code: 401, answer: vec![1] }.encode(&mut bytes);
    assert_eq!(read::<ToGuest>(&[&bytes]), Err(Malformed::Field { kind: 133, field: "answer" }));
}

#[test]
fn an_id_that_could_leave_its_directory_is_no_id() {
    for id in ["", ".", "..", "a/b", "a\0b", "ü", &"a".repeat(129)] {
        assert_eq!(ContainerId::new(id), None, "{id:?}");
    }
    assert!(ContainerId::new(&"a".repeat(128)).is_some());
}
