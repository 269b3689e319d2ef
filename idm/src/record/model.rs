//! The submission ring under every interleaving with at most three preemptions: a ring of four headers, payloads of one word, a region
//! whose races loom reports.

use std::sync::Arc;

use loom::model::Builder;
use loom::thread;

use super::layout::{RingPlace, sequence};
use super::producer::{Header, Producer};
use super::puller::Puller;
use crate::error::Peer;
use crate::region::Region;

const PLACE: RingPlace = RingPlace { head: 0, data: 16, bytes: 128, record_limit: 16 };
const HEADER: Header = Header { flags: 0, op: 7, lane: 0, ctx: 0 };

fn ring() -> (Arc<Producer>, Puller) {
    let region = Arc::new(Region::model(16 + 128));
    let producer = Producer::new(region.clone(), PLACE, Peer::Server);
    (Arc::new(producer), Puller::new(region, PLACE, Peer::Server))
}

/// Submits, yielding while the ring is full.
fn submit(producer: &Producer, payload: u32) {
    loop {
        if let Some(reserved) = producer.reserve(4).unwrap() {
            reserved.payload().put(&payload.to_le_bytes());
            reserved.publish(HEADER);
            return;
        }
        thread::yield_now();
    }
}

/// Consumes `count` records and returns their payloads in order.
fn consume(puller: &mut Puller, count: usize) -> Vec<u32> {
    let mut got = Vec::new();
    while got.len() < count {
        let mut to = [0; 16];
        match puller.pull(&mut to).unwrap() {
            Some(pulled) => {
                assert_eq!((pulled.op, pulled.bytes), (7, 4));
                got.push(u32::from_le_bytes([to[0], to[1], to[2], to[3]]));
                puller.tell_head();
            }
            None => {
                puller.tell_head();
                thread::yield_now();
            }
        }
    }
    got
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn a_record_is_whole_when_it_is_seen() {
    check(|| {
        let (producer, mut puller) = ring();
        let sender = thread::spawn(move || submit(&producer, 0xabcd));
        assert_eq!(consume(&mut puller, 1), [0xabcd]);
        sender.join().unwrap();
    });
}

#[test]
fn two_producers_publish_in_any_order_and_nothing_is_lost() {
    check(|| {
        let (producer, mut puller) = ring();
        let twin = producer.clone();
        let one = thread::spawn(move || submit(&producer, 1));
        let two = thread::spawn(move || submit(&twin, 2));
        let mut got = consume(&mut puller, 2);
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
        one.join().unwrap();
        two.join().unwrap();
    });
}

#[test]
fn room_is_used_again_only_after_it_was_read_and_zeroed() {
    check(|| {
        let (producer, mut puller) = ring();
        // A lap whose payloads look like the records of the next one.
        for i in 0..3 {
            submit(&producer, sequence(128 + 16 * i));
            consume(&mut puller, 1);
        }
        let sender = thread::spawn(move || {
            submit(&producer, 5);
            submit(&producer, 6);
        });
        assert_eq!(consume(&mut puller, 2), [5, 6]);
        sender.join().unwrap();
    });
}
