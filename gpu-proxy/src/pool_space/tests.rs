use super::*;

const C: ContextId = ContextId(1);
const A: Order = Order::Stream(C, Some(1));
const B: Order = Order::Stream(C, Some(2));

fn grown(bytes: u64) -> PoolSpace {
    let mut space = PoolSpace::new(1 << 20, 1 << 20);
    let at = space.hole(bytes).unwrap();
    space.grown(at, bytes);
    space
}

#[test]
fn freed_memory_is_its_streams_at_once_and_anybodys_when_the_stream_is_done() {
    let mut space = grown(1000);
    let first = space.take(1000, A).unwrap();
    assert!(space.give(first, A));
    assert!(!space.give(first, A), "once");
    assert_eq!(space.take(1000, B), None);
    assert_eq!(space.take(1000, A), Some(first));
    assert!(space.give(first, A));
    assert_eq!(space.waited_for(), [A]);
    space.reorder(A, Order::Done);
    assert_eq!((space.waited_for(), space.take(1000, B)), (vec![], Some(first)));
}

#[test]
fn a_chunk_is_given_back_when_all_of_it_is_free_and_done() {
    let mut space = grown(1000);
    space.grown(space.hole(500).unwrap(), 500);
    let across = space.take(1200, A).unwrap();
    let rest = space.take(300, A).unwrap();
    let nothing: [u64; 0] = [];
    assert_eq!(space.shrink(0), nothing);
    space.give(across, A);
    assert_eq!(space.shrink(0), nothing, "stream A may still use it");
    space.reorder(A, Order::Done);
    assert_eq!(space.shrink(501), nothing, "less would be left");
    assert_eq!(space.shrink(500), [across]);
    assert_eq!(space.shrink(0), nothing, "the end of the other is used");
    space.give(rest, Order::Done);
    assert_eq!(space.shrink(0), [across + 1000]);
    let figures = Figures { reserved: 0, reserved_high: 1500, used: 0, used_high: 1500 };
    assert_eq!(space.figures(), figures);
    assert!(space.free.is_empty() && space.by_size.is_empty());
    assert_eq!(space.hole(1 << 20), Some(1 << 20));
    assert_eq!(space.hole((1 << 20) + 1), None);
    // Between chunks, when there is no room behind them.
    for bytes in [100, 200, (1 << 20) - 300] {
        space.grown(space.hole(bytes).unwrap(), bytes);
    }
    assert_eq!(space.shrink((1 << 20) - 200), [1 << 20]);
    assert_eq!((space.hole(100), space.hole(101)), (Some(1 << 20), None));
}

/// Against a plain list: no two pieces overlap, and all bytes are accounted for.
#[test]
fn a_thousand_steps_lose_nothing() {
    let mut space = PoolSpace::new(1 << 20, 1 << 20);
    let (mut mine, mut random): (Vec<(u64, u64)>, u64) = (Vec::new(), 7);
    let mut taken = 0;
    for _ in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let value = random >> 33;
        let order = [A, B, Order::Done, Order::Context(C)][usize::try_from(value % 4).unwrap()];
        let bytes = 1 + (value >> 8) % 3000;
        match (value >> 3) % 5 {
            0 => {
                if let Some(at) = space.hole(bytes) {
                    space.grown(at, bytes);
                }
            }
            1 => {
                space.shrink(0);
            }
            2 => space.reorder(order, Order::Done),
            3 if !mine.is_empty() => {
                let place = usize::try_from(value).unwrap() % mine.len();
                assert!(space.give(mine.swap_remove(place).0, order));
            }
            _ => {
                if let Some(at) = space.take(bytes, order) {
                    mine.push((at, bytes));
                    taken += 1;
                }
            }
        }
        let free: u64 = space.free.values().map(|free| free.bytes).sum();
        let used: u64 = mine.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!((free + used, used), (space.figures().reserved, space.figures().used));
        assert_eq!(space.free.len(), space.by_size.len());
    }
    let mut pieces: Vec<(u64, u64)> = mine.clone();
    pieces.extend(space.free.iter().map(|(at, free)| (*at, free.bytes)));
    pieces.sort_unstable();
    assert!(pieces.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0));
    assert!(taken > 1000, "{taken} were given out");
}

#[test]
fn no_piece_lies_in_two_chunks_that_are_kept_apart() {
    let mut space = PoolSpace::new(1 << 20, 1 << 20).apart();
    let [first, second] = [1000, 500].map(|bytes| {
        let at = space.hole(bytes).unwrap();
        space.grown(at, bytes);
        at
    });
    assert_eq!((second, space.take(1200, A)), (first + 1000, None));
    assert_eq!((space.chunk_of(second - 1), space.chunk_of(second)), (Some(first), Some(second)));
    assert_eq!((space.chunk_of(first - 1), space.chunk_of(second + 500)), (None, None));
    let [low, high] = [1000, 500].map(|bytes| space.take(bytes, A).unwrap());
    space.give(high, A);
    space.give(low, A);
    space.reorder(A, Order::Done);
    assert_eq!((space.free.len(), space.take(1001, B)), (2, None), "they stay apart");
    assert_eq!(space.shrink(0).len(), 2);
}

#[test]
fn what_somebody_else_says_is_given_out_where_it_is_free() {
    let mut space = grown(1000);
    let at = 1 << 20;
    for (address, bytes) in [(at - 1, 10), (at + 999, 2), (at, 0), (at, 1001), (at, u64::MAX), (0, 1)] {
        assert!(!space.take_at(address, bytes), "{bytes} at {address}");
    }
    assert!(space.take_at(at + 100, 50));
    assert!(space.take_at(at + 100, 50), "it is given out so");
    assert!(!space.take_at(at + 100, 60) && !space.take_at(at + 90, 20) && !space.take_at(at + 120, 10));
    assert_eq!(space.figures().used, 50);
    assert!(space.take_at(at, 100) && space.take_at(at + 150, 850));
    for address in [at, at + 100, at + 150] {
        assert!(space.give(address, Order::Done));
    }
    assert_eq!((space.figures().used, space.shrink(0)), (0, vec![at]));
}
