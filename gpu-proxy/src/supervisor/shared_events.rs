//! Events that workers of one zone share: who has which seat of the zone's board (`crate::event_board`). What an event's last record is
//! and whether it was reached, the workers say to each other there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use idm::Region;
use idm::region::sealed_memory;
use vgpu_api::{CuError, CuResult, Token};

use super::foreign::Foreign;
use super::token::random_token;
use super::worker_id::WorkerId;
use crate::event_board::{BYTES, LIFE, PLACE_BYTES, PLACES, Seat, WORDS};
use crate::exchange::Answer;

/// The events of one zone.
#[derive(Debug, Default)]
pub(super) struct Events {
    board: Option<(OwnedFd, Region)>,
    by_token: BTreeMap<Token, Event>,
    /// Places that events have.
    taken: BTreeSet<usize>,
}

#[derive(Debug)]
struct Event {
    place: usize,
    /// By seat.
    users: BTreeMap<usize, WorkerId>,
}

impl Events {
    /// The board's memory: made with the first event.
    pub fn board(&mut self) -> CuResult<(Answer, Option<Foreign>)> {
        let full = |_| CuError::OUT_OF_MEMORY;
        if self.board.is_none() {
            let memory = sealed_memory("vgpu-events", BYTES).map_err(full)?;
            let region = Region::map(memory.as_fd(), BYTES).map_err(full)?;
            self.board = Some((memory, region));
        }
        let (memory, _) = self.board.as_ref().ok_or(CuError::UNKNOWN)?;
        let answer = Answer { bytes: BYTES as u64, ..Answer::default() };
        Ok((answer, Some(Foreign::new(memory.try_clone().map_err(full)?))))
    }

    pub fn put(&mut self, worker: WorkerId) -> CuResult<(Answer, Option<Foreign>)> {
        let (_, board) = self.board.as_ref().ok_or(CuError::INVALID_VALUE)?;
        let place = (0..PLACES).find(|place| !self.taken.contains(place)).ok_or(CuError::OUT_OF_MEMORY)?;
        let token = random_token().map_err(|_| CuError::OUT_OF_MEMORY)?;
        words(board, place)[0].store(0, Ordering::Release);
        self.taken.insert(place);
        self.by_token.insert(token, Event { place, users: BTreeMap::new() });
        self.get(worker, token)
    }

    pub fn get(&mut self, worker: WorkerId, token: Token) -> CuResult<(Answer, Option<Foreign>)> {
        let event = self.by_token.get_mut(&token).ok_or(CuError::INVALID_VALUE)?;
        let free = (1..WORDS).find(|user| !event.users.contains_key(user));
        let seat = free.and_then(|user| Seat::new(event.place, user)).ok_or(CuError::OUT_OF_MEMORY)?;
        event.users.insert(seat.user(), worker);
        Ok((Answer { bytes: seat.encode(), token, ..Answer::default() }, None))
    }

    /// A worker gives a seat back: all that its streams were to write there is written.
    pub fn close(
        &mut self,
        worker: WorkerId,
        token: Token,
        seat: u64,
    ) -> CuResult<(Answer, Option<Foreign>)> {
        let event = self.by_token.get_mut(&token).ok_or(CuError::INVALID_VALUE)?;
        let user = Seat::decode(seat).map(Seat::user).ok_or(CuError::INVALID_VALUE)?;
        if event.users.get(&user) != Some(&worker) {
            return Err(CuError::INVALID_VALUE);
        }
        event.users.remove(&user);
        if event.users.is_empty() {
            self.taken.remove(&event.place);
            self.by_token.remove(&token);
        }
        Ok(Default::default())
    }

    /// A worker has ended, and with it its streams: nobody waits for them any more.
    pub fn ended(&mut self, worker: WorkerId) {
        let Some((_, board)) = &self.board else { return };
        self.by_token.retain(|_, event| {
            let place = words(board, event.place);
            event.users.retain(|user, of| {
                if *of == worker {
                    let life = place[*user].load(Ordering::Acquire) / LIFE;
                    place[*user].store((life + 1).wrapping_mul(LIFE), Ordering::Release);
                }
                *of != worker
            });
            if event.users.is_empty() {
                self.taken.remove(&event.place);
            }
            !event.users.is_empty()
        });
    }
}

fn words(board: &Region, place: usize) -> &[AtomicU64] {
    board.words(place * PLACE_BYTES, WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKERS: [WorkerId; 2] = [WorkerId(1), WorkerId(2)];

    #[test]
    fn an_event_has_a_place_as_long_as_anybody_has_it_and_a_death_ends_its_waits() {
        let (mut events, [one, two]) = (Events::default(), WORKERS);
        assert_eq!(events.put(one).unwrap_err(), CuError::INVALID_VALUE, "who has no board");
        events.board().unwrap();
        let first = events.put(one).unwrap().0;
        let second = events.put(one).unwrap().0;
        assert_eq!((first.bytes, second.bytes), (1, 17));
        let opened = events.get(two, first.token).unwrap().0;
        assert_eq!((opened.bytes, opened.token), (2, first.token));
        let word = |events: &Events, number: usize| {
            words(&events.board.as_ref().unwrap().1, 0)[number].load(Ordering::Relaxed)
        };
        words(&events.board.as_ref().unwrap().1, 0)[0].store(7, Ordering::Relaxed);
        words(&events.board.as_ref().unwrap().1, 0)[1].store(LIFE + 5, Ordering::Relaxed);
        events.ended(one);
        assert_eq!((word(&events, 1), word(&events, 2)), (2 * LIFE, 0), "its streams write no more");
        assert!(events.by_token.contains_key(&first.token) && !events.by_token.contains_key(&second.token));
        let wrong = CuError::INVALID_VALUE;
        for (worker, seat) in [(one, 1), (one, 2), (two, 1), (two, 0), (two, u64::MAX)] {
            assert_eq!(events.close(worker, first.token, seat).unwrap_err(), wrong, "{seat}");
        }
        events.close(two, first.token, 2).unwrap();
        assert_eq!(events.get(two, first.token).unwrap_err(), wrong);
        assert_eq!((events.put(two).unwrap().0.bytes, word(&events, 0)), (1, 0), "a new one");
    }

    #[test]
    fn a_board_and_an_event_have_an_end() {
        let (mut events, [one, two]) = (Events::default(), WORKERS);
        events.board().unwrap();
        let token = events.put(one).unwrap().0.token;
        for _ in 1..PLACES {
            events.put(two).unwrap();
        }
        assert_eq!(events.put(one).unwrap_err(), CuError::OUT_OF_MEMORY);
        for _ in 2..WORDS {
            events.get(two, token).unwrap();
        }
        assert_eq!(events.get(two, token).unwrap_err(), CuError::OUT_OF_MEMORY);
        events.ended(two);
        assert!(events.get(two, token).is_ok() && events.put(two).is_ok());
    }
}
