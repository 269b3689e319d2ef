//! Events between two processes of a zone: whose last record it is, whether it was reached, what becomes of seats.

use std::sync::atomic::Ordering;

use idm::Region;
use vgpu_api::{SharedPart, Token};

use super::shared::{Node, Process};
use super::*;
use crate::event_board::{BYTES, LIFE, Record, Seat};
use crate::exchange::Question;
use crate::worker::Exchange;

const INTERPROCESS: u32 = 6;

fn event(number: u64) -> EventHandle {
    EventHandle::new(0, number)
}

impl Process {
    fn event(&self, number: u64, flags: u32) -> CuResult<()> {
        ask::cuEventCreate(&self.world.guest, C, NewHandle(event(number)), flags)?;
        self.told()
    }

    fn record(&self, number: u64) -> CuResult<()> {
        ask::cuEventRecordWithFlags(&self.world.guest, C, event(number), Stream::Legacy, 0)?;
        self.told()
    }

    fn wait(&self, number: u64) -> CuResult<()> {
        ask::cuStreamWaitEvent(&self.world.guest, C, Stream::Legacy, event(number), 0)?;
        self.told()
    }

    fn query(&self, number: u64) -> CuResult<()> {
        ask::cuEventQuery(&self.world.guest, C, event(number))
    }

    fn synchronize(&self, number: u64) -> CuResult<()> {
        ask::cuEventSynchronize(&self.world.guest, C, event(number))
    }

    fn destroy(&self, number: u64) -> CuResult<()> {
        ask::cuEventDestroy_v2(&self.world.guest, C, GoneHandle(event(number)))?;
        self.told()
    }

    fn export_event(&self, number: u64) -> CuResult<Token> {
        ask::vgpuEventExport(&self.world.guest, C, event(number))
    }

    fn import_event(&self, number: u64, token: Token) -> CuResult<()> {
        ask::vgpuEventImport(&self.world.guest, C, NewHandle(event(number)), token)
    }

    /// The zone's board, as another worker has it.
    fn board(&self) -> Region {
        let (_, fd) = self.asks().ask(Question::Board, None).unwrap();
        Region::map(fd.unwrap(), BYTES).unwrap()
    }
}

#[test]
fn a_record_of_one_process_is_what_the_other_waits_for() {
    let node = Node::new();
    let (one, two) = (node.soft(1), node.soft(1));
    one.event(1, INTERPROCESS).unwrap();
    one.record(1).unwrap();
    let token = one.export_event(1).unwrap();
    two.import_event(4, token).unwrap();
    assert_eq!((two.query(4), two.wait(4), two.synchronize(4)), (Ok(()), Ok(()), Ok(())));
    // Either records; the last one counts.
    for _ in 0..3 {
        two.record(4).unwrap();
        assert_eq!((one.query(1), one.wait(1)), (Ok(()), Ok(())));
        one.record(1).unwrap();
        assert_eq!((two.query(4), one.synchronize(1)), (Ok(()), Ok(())));
    }
    assert_eq!(two.export_event(4), Ok(token), "it may be given on");
}

#[test]
fn what_another_process_has_recorded_and_not_reached_is_waited_for() {
    let node = Node::new();
    let (one, two) = (node.soft(1), node.soft(1));
    one.event(1, INTERPROCESS).unwrap();
    two.import_event(4, one.export_event(1).unwrap()).unwrap();
    assert_eq!((one.query(1), two.wait(4)), (Ok(()), Ok(())), "nobody has recorded it");
    // A GPU of the first process would be at work.
    let (board, seat) = (two.board(), Seat::new(0, 1).unwrap());
    let word = |user| board.words(seat.offset(user), 1)[0].load(Ordering::Relaxed);
    board.words(seat.offset(0), 1)[0].store(Record { user: 1, number: 5 }.encode(), Ordering::Relaxed);
    assert_eq!(two.query(4), Err(CuError::NOT_READY));
    assert_eq!(two.synchronize(4), Err(CuError::NOT_READY), "put aside, and tried again");
    board.words(seat.offset(1), 1)[0].store(5, Ordering::Relaxed);
    assert_eq!((two.query(4), two.synchronize(4), two.wait(4)), (Ok(()), Ok(()), Ok(())));
    // Its own records go to a word of their own.
    two.record(4).unwrap();
    assert_eq!((word(0), word(1), word(2)), (Record { user: 2, number: 1 }.encode(), 5, 1));
}

#[test]
fn a_death_ends_waits_and_seats_come_back_when_nothing_is_written_there_any_more() {
    let node = Node::new();
    let (one, two) = (node.soft(1), node.soft(1));
    one.event(1, INTERPROCESS).unwrap();
    two.import_event(4, one.export_event(1).unwrap()).unwrap();
    let (board, seat) = (two.board(), Seat::new(0, 1).unwrap());
    board.words(seat.offset(0), 1)[0].store(Record { user: 1, number: 5 }.encode(), Ordering::Relaxed);
    one.end();
    assert_eq!((two.query(4), board.words(seat.offset(1), 1)[0].load(Ordering::Relaxed)), (Ok(()), LIFE));
    two.record(4).unwrap();
    // As if the stream had still to write it.
    board.words(seat.offset(2), 1)[0].store(0, Ordering::Relaxed);
    two.destroy(4).unwrap();
    two.event(5, INTERPROCESS).unwrap();
    two.record(5).unwrap();
    assert_eq!(board.words(seat.offset(2), 1)[0].load(Ordering::Relaxed), 0, "the place is not given again");
    board.words(seat.offset(2), 1)[0].store(1, Ordering::Relaxed);
    two.event(6, INTERPROCESS).unwrap();
    two.event(7, INTERPROCESS).unwrap();
    let last = board.words(seat.offset(0), 1)[0].load(Ordering::Relaxed);
    assert_eq!(last, 0, "it is another event's, which nobody has recorded");
}

#[test]
fn only_events_made_for_it_are_shared_and_only_within_the_zone() {
    let node = Node::new();
    let (one, stranger) = (node.soft(1), node.soft(2));
    one.event(1, 2).unwrap();
    one.event(2, INTERPROCESS).unwrap();
    let wrong = Err(CuError::INVALID_VALUE);
    assert_eq!(one.export_event(1).map(drop), wrong);
    let token = one.export_event(2).unwrap();
    stranger.event(3, INTERPROCESS).unwrap();
    assert_eq!(
        (stranger.import_event(1, token), one.import_event(2, token)),
        (wrong, Err(CuError::INVALID_HANDLE))
    );
    ask::cuCtxRecordEvent(&one.world.guest, C, event(2)).unwrap();
    assert_eq!(one.told(), Err(CuError::NOT_SUPPORTED), "the board does not carry that");
    // Memory is no event, and the other way round.
    let at = one.alloc(64).unwrap();
    let memory = one.export_at(at).unwrap();
    let event = SharedPart { memory: token, ..memory };
    assert_eq!((one.import_event(9, memory.memory), one.open(event).map(drop)), (wrong, wrong));
}

/// The board is every worker's of the zone, and one of them may have been taken over.
#[test]
fn numbers_that_no_worker_counts_to_are_an_error_and_nothing_worse() {
    let node = Node::new();
    let (one, two) = (node.soft(1), node.soft(1));
    one.event(1, INTERPROCESS).unwrap();
    let token = one.export_event(1).unwrap();
    let board = one.board();
    board.words(0, BYTES / 8).iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
    two.import_event(4, token).unwrap();
    assert_eq!(two.record(4), Err(CuError::INVALID_HANDLE));
    assert_eq!((two.query(4), two.wait(4), two.destroy(4)), (Ok(()), Ok(()), Ok(())));
    one.record(1).unwrap();
    assert_eq!((one.query(1), one.destroy(1)), (Ok(()), Ok(())));
}
