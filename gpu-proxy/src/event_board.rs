//! The events that workers of one zone share: words of the host's memory, which all of them and their devices reach.
//!
//! ```text
//! place n at 128·n: 0 the last record u64 | 8·u: where streams of user u have got to u64, u from 1 to 15; 1024 places
//! the last record: number·16 + its user; 0: there is none
//! ```
//! Each worker that has an event is a user of it, with a word of its own: its numbers grow, and its streams write them when they get to a
//! record. Who waits reads the last record, then waits for the word of its user. Any worker of the zone can write all of it: that can hold
//! up or let go streams of the zone itself, nobody else's.

/// Places of a board.
pub const PLACES: usize = 1024;
/// Words of a place: one, and that of each user.
pub const WORDS: usize = 16;
/// Bytes of a place.
pub const PLACE_BYTES: usize = 8 * WORDS;
/// Bytes of a board.
pub const BYTES: usize = PLACES * PLACE_BYTES;
/// Where a user's numbers go on when it has ended: past all that its streams were to write.
pub const LIFE: u64 = 1 << 32;

/// One user of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    place: usize,
    user: usize,
}

/// A record of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose word tells of it.
    pub user: usize,
    /// Reached when that word is no less.
    pub number: u64,
}

impl Seat {
    /// `None` outside of a board.
    #[must_use]
    pub fn new(place: usize, user: usize) -> Option<Self> {
        (place < PLACES && (1..WORDS).contains(&user)).then_some(Self { place, user })
    }

    /// As it travels.
    #[must_use]
    pub fn encode(self) -> u64 {
        (self.place * WORDS + self.user) as u64
    }

    /// `None` for what is none.
    #[must_use]
    pub fn decode(seat: u64) -> Option<Self> {
        let seat = usize::try_from(seat).ok()?;
        Self::new(seat / WORDS, seat % WORDS)
    }

    /// The user's number among those of the event.
    #[must_use]
    pub fn user(self) -> usize {
        self.user
    }

    /// Where in the board the word of a user of the event is, in bytes; 0: the last record.
    #[must_use]
    pub fn offset(self, user: usize) -> usize {
        self.place * PLACE_BYTES + user % WORDS * 8
    }
}

impl Record {
    /// As it stands in the board.
    #[must_use]
    pub fn encode(self) -> u64 {
        self.number << 4 | self.user as u64
    }

    /// `None`: there is no record.
    #[must_use]
    pub fn decode(word: u64) -> Option<Self> {
        let record = Self { user: (word & 15) as usize, number: word >> 4 };
        (record.user > 0).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_and_records_come_back_and_others_are_none() {
        for seat in
            [(0, 1), (0, 15), (1023, 1), (1023, 15)].map(|(place, user)| Seat::new(place, user).unwrap())
        {
            assert_eq!(Seat::decode(seat.encode()), Some(seat));
            assert!(seat.offset(15) + 8 <= BYTES && seat.offset(usize::MAX) + 8 <= BYTES);
        }
        for wrong in [0, 16, BYTES as u64 / 8, u64::MAX] {
            assert_eq!(Seat::decode(wrong), None, "{wrong}");
        }
        let record = Record { user: 9, number: 7 * LIFE + 3 };
        assert_eq!((Record::decode(record.encode()), Record::decode(0)), (Some(record), None));
    }
}
