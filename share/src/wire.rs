//! What messages are made of: little endian numbers, strings, qids. Every length is checked against what is there before it is used.

/// Of a message that is not one. The peer broke the protocol; nothing that it sends later can be trusted to begin where it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A size below a header's, above what was agreed, or not that of the frame.
    #[error("a message of {size} bytes, where 7 to {limit} are possible")]
    Size {
        /// As the message says.
        size: u32,
        /// What was agreed.
        limit: u32,
    },
    /// No message of 9P2000.L has this type, or none that goes this way.
    #[error("no message is of type {0}")]
    Type(u8),
    /// Its fields reach beyond its end.
    #[error("a message of type {0} ends inside a field")]
    Short(u8),
    /// There are bytes behind its last field.
    #[error("a message of type {0} has {1} bytes too many")]
    Long(u8, usize),
    /// More names or qids than [`WALK_MAX`].
    #[error("a walk of {0} steps")]
    Steps(u16),
}

/// Names of one walk. Source: Linux `include/net/9p/9p.h`, `P9_MAXWELEM`.
pub const WALK_MAX: u16 = 16;

/// The rest of a message's body.
pub(crate) struct Bytes<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub(crate) fn new(kind: u8, body: &'a [u8]) -> Self {
        Bytes { kind, rest: body }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Short(self.kind))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short(self.kind))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Long(self.kind, self.rest.len())) }
    }
}

/// Something that messages have as a field.
pub(crate) trait Field<'a>: Sized {
    fn take(bytes: &mut Bytes<'a>) -> Result<Self, Malformed>;
    fn put(&self, into: &mut Vec<u8>);
}

macro_rules! number {
    ($($kind:ty)*) => {
        $(impl Field<'_> for $kind {
            fn take(bytes: &mut Bytes<'_>) -> Result<Self, Malformed> {
                Ok(<$kind>::from_le_bytes(bytes.array()?))
            }

            fn put(&self, into: &mut Vec<u8>) {
                into.extend_from_slice(&self.to_le_bytes());
            }
        })*
    };
}
number! { u8 u16 u32 u64 }

/// A string: bytes behind a length of 16 bits. Names and link targets are bytes, too, not text of any encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> Field<'a> for Text<'a> {
    fn take(bytes: &mut Bytes<'a>) -> Result<Self, Malformed> {
        let length = u16::take(bytes)?;
        Ok(Text(bytes.take(length.into())?))
    }

    fn put(&self, into: &mut Vec<u8>) {
        let length = u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        length.put(into);
        into.extend_from_slice(&self.0[..length.into()]);
    }
}

/// Contents: bytes behind a length of 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a>(pub &'a [u8]);

impl<'a> Field<'a> for Data<'a> {
    fn take(bytes: &mut Bytes<'a>) -> Result<Self, Malformed> {
        let length = u32::take(bytes)?;
        let length = usize::try_from(length).map_err(|_| Malformed::Short(bytes.kind))?;
        Ok(Data(bytes.take(length)?))
    }

    fn put(&self, into: &mut Vec<u8>) {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        length.put(into);
        into.extend_from_slice(self.0);
    }
}

/// What the guest takes for the identity of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Qid {
    /// Bits: [`Qid::DIRECTORY`], [`Qid::SYMLINK`].
    pub kind: u8,
    /// For caches that look at it.
    pub version: u32,
    /// One for an object, whatever its names. It becomes the guest's inode number.
    pub path: u64,
}

impl Qid {
    /// Source: Linux `include/net/9p/9p.h`, `P9_QTDIR`.
    pub const DIRECTORY: u8 = 0x80;
    /// `P9_QTSYMLINK`.
    pub const SYMLINK: u8 = 0x02;
}

impl Field<'_> for Qid {
    fn take(bytes: &mut Bytes<'_>) -> Result<Self, Malformed> {
        Ok(Qid { kind: u8::take(bytes)?, version: u32::take(bytes)?, path: u64::take(bytes)? })
    }

    fn put(&self, into: &mut Vec<u8>) {
        self.kind.put(into);
        self.version.put(into);
        self.path.put(into);
    }
}

/// The names of a walk, or the qids of its answer: [`WALK_MAX`] at most.
pub type Names<'a> = Vec<Text<'a>>;

impl<'a, T: Field<'a>> Field<'a> for Vec<T> {
    fn take(bytes: &mut Bytes<'a>) -> Result<Self, Malformed> {
        let count = u16::take(bytes)?;
        if count > WALK_MAX {
            return Err(Malformed::Steps(count));
        }
        (0..count).map(|_| T::take(bytes)).collect()
    }

    fn put(&self, into: &mut Vec<u8>) {
        let count = u16::try_from(self.len()).unwrap_or(u16::MAX);
        count.put(into);
        self.iter().take(count.into()).for_each(|each| each.put(into));
    }
}
