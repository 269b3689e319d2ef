//! What processes of a zone share: a thing of one worker that another one gets by a token. The supervisor draws tokens and knows which
//! zone each is of; a guest carries them about in the handles that its programs exchange.

use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};

/// Names something shared. Nobody finds one by trying, and one of another zone names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Token(pub [u8; 16]);

impl Token {
    /// Part of the wire hash.
    pub const DECLARATION: &'static str = "Token{value:[u8; 16]}";
}

impl Wire<'_> for Token {
    fn size(&self) -> usize {
        16
    }
    fn put(&self, writer: &mut Writer<'_>) {
        self.0.put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        <[u8; 16]>::take(reader).map(Self)
    }
}

wire_struct! {
    /// An allocation that processes share: the memory that it lies in, and where. A device may give memory to others in pieces that hold several.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SharedPart {
        /// Names the memory.
        pub memory: Token,
        /// Where it starts there.
        pub offset: u64,
        /// Its length, as it was asked for.
        pub bytes: u64,
    }
}

impl SharedPart {
    /// Bytes on the wire.
    pub const BYTES: usize = 32;
}

wire_struct! {
    /// An allocation of a pool that processes share, for those that have the pool. A guest hands it on as it likes: 48 bytes, none of which
    /// is believed when they come back.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PooledPiece {
        /// Names the pool.
        pub pool: Token,
        /// Names the memory that it lies in.
        pub chunk: Token,
        /// Where it starts there.
        pub offset: u64,
        /// Its length, as it was asked for.
        pub bytes: u64,
    }
}

impl PooledPiece {
    /// Bytes on the wire, and in a program's hands.
    pub const BYTES: usize = 48;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{from_slice, to_vec};

    #[test]
    fn a_token_comes_back_and_none_is_shorter() {
        let token = Token(*b"0123456789abcdef");
        assert_eq!(from_slice(&to_vec(&token)), Ok(token));
        assert!(from_slice::<Token>(&[0; 15]).is_err());
    }

    #[test]
    fn a_piece_has_the_length_that_it_is_said_to_have() {
        let piece = PooledPiece { pool: Token([1; 16]), chunk: Token([2; 16]), offset: 3, bytes: 4 };
        let bytes = to_vec(&piece);
        assert_eq!((bytes.len(), from_slice(&bytes)), (PooledPiece::BYTES, Ok(piece)));
        let part = SharedPart { memory: Token([1; 16]), offset: 2, bytes: 3 };
        let bytes = to_vec(&part);
        assert_eq!((bytes.len(), from_slice(&bytes)), (SharedPart::BYTES, Ok(part)));
    }
}
