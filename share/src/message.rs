//! The messages of 9P2000.L, declared once: their types, fields, parsing, encoding. Pure: bytes to messages and back.
//!
//! A frame is `size[4] type[1] tag[2]` and the fields in their order; `size` counts itself. A message has exactly its fields: one byte
//! less or more makes it malformed. Sources: Linux `include/net/9p/9p.h` and `net/9p/client.c`; Plan 9's manual, section 5.

use crate::wire::{Bytes, Data, Field, Malformed, Names, Qid, Text};

/// `size`, `type`, `tag`.
pub const HEADER_BYTES: usize = 7;
/// The tag of a Tversion.
pub const NO_TAG: u16 = u16::MAX;
/// "No such fid": an attach without authentication says so.
pub const NO_FID: u32 = u32::MAX;
/// "No such user".
pub const NO_USER: u32 = u32::MAX;

macro_rules! messages {
    ($(#[$head:meta])* $enum:ident: $($kind:literal $name:ident { $($field:ident: $type:ty),* })*) => {
        $(#[$head])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the protocol's own words")]
        pub enum $enum<'a> {
            $($name { $($field: $type),* },)*
        }

        impl<'a> $enum<'a> {
            /// Each message's type and name.
            pub const ALL: &'static [(u8, &'static str)] = &[$(($kind, stringify!($name))),*];

            /// Reads a body of type `kind`.
            /// # Errors
            /// Those of [`Malformed`] but `Size`.
            pub fn parse(kind: u8, body: &'a [u8]) -> Result<Self, Malformed> {
                let bytes = &mut Bytes::new(kind, body);
                let message = match kind {
                    $($kind => $enum::$name { $($field: Field::take(bytes)?),* },)*
                    _ => return Err(Malformed::Type(kind)),
                };
                bytes.end()?;
                Ok(message)
            }

            /// Its type.
            pub fn kind(&self) -> u8 {
                match self {
                    $($enum::$name { .. } => $kind,)*
                }
            }

            fn fields(&self, into: &mut Vec<u8>) {
                match self {
                    $($enum::$name { $($field),* } => { $($field.put(into);)* })*
                }
            }

            /// Puts the whole frame in `into`, in place of what was there.
            pub fn frame(&self, tag: u16, into: &mut Vec<u8>) {
                into.clear();
                into.extend_from_slice(&[0; 4]);
                self.kind().put(into);
                tag.put(into);
                self.fields(into);
                // Nobody makes one of 4 GiB; if somebody did, its size would fit no frame.
                let size = u32::try_from(into.len()).unwrap_or(u32::MAX);
                into[..4].copy_from_slice(&size.to_le_bytes());
            }
        }
    };
}

macro_rules! records {
    ($($(#[$head:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $($(#[$head])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the protocol's own words")]
        pub struct $name {
            $(pub $field: $type,)*
        }

        impl Field<'_> for $name {
            fn take(bytes: &mut Bytes<'_>) -> Result<Self, Malformed> {
                Ok($name { $($field: Field::take(bytes)?),* })
            }

            fn put(&self, into: &mut Vec<u8>) {
                $(self.$field.put(into);)*
            }
        })*
    };
}

records! {
    /// What Rgetattr tells. Of seconds that are before 1970 it tells the two's complement.
    Attributes {
        valid: u64, qid: Qid, mode: u32, uid: u32, gid: u32, links: u64, device: u64, size: u64, block_size: u64, blocks: u64,
        atime_s: u64, atime_ns: u64, mtime_s: u64, mtime_ns: u64, ctime_s: u64, ctime_ns: u64, btime_s: u64, btime_ns: u64,
        generation: u64, data_version: u64,
    }
    /// What Tsetattr changes: that of which `valid` has the bit.
    Changes {
        valid: u32, mode: u32, uid: u32, gid: u32, size: u64, atime_s: u64, atime_ns: u64, mtime_s: u64, mtime_ns: u64,
    }
    /// What Rstatfs tells.
    FileSystem {
        kind: u32, block_size: u32, blocks: u64, blocks_free: u64, blocks_available: u64, files: u64, files_free: u64, id: u64,
        name_bytes_max: u32,
    }
    /// What Tgetlock asks, and Rgetlock answers, before the owner's name.
    Range { kind: u8, start: u64, length: u64, process: u32 }
}

messages! {
    /// What a client sends.
    Request:
    8 Statfs { fid: u32 }
    12 Lopen { fid: u32, flags: u32 }
    14 Lcreate { fid: u32, name: Text<'a>, flags: u32, mode: u32, gid: u32 }
    16 Symlink { fid: u32, name: Text<'a>, target: Text<'a>, gid: u32 }
    18 Mknod { fid: u32, name: Text<'a>, mode: u32, major: u32, minor: u32, gid: u32 }
    20 Rename { fid: u32, directory: u32, name: Text<'a> }
    22 Readlink { fid: u32 }
    24 Getattr { fid: u32, mask: u64 }
    26 Setattr { fid: u32, changes: Changes }
    30 Xattrwalk { fid: u32, new_fid: u32, name: Text<'a> }
    32 Xattrcreate { fid: u32, name: Text<'a>, size: u64, flags: u32 }
    40 Readdir { fid: u32, offset: u64, count: u32 }
    50 Fsync { fid: u32, data_only: u32 }
    52 Lock { fid: u32, kind: u8, flags: u32, start: u64, length: u64, process: u32, client: Text<'a> }
    54 Getlock { fid: u32, range: Range, client: Text<'a> }
    70 Link { directory: u32, fid: u32, name: Text<'a> }
    72 Mkdir { fid: u32, name: Text<'a>, mode: u32, gid: u32 }
    74 Renameat { old_directory: u32, old_name: Text<'a>, new_directory: u32, new_name: Text<'a> }
    76 Unlinkat { fid: u32, name: Text<'a>, flags: u32 }
    100 Version { msize: u32, version: Text<'a> }
    102 Auth { fid: u32, user_name: Text<'a>, tree: Text<'a>, user: u32 }
    104 Attach { fid: u32, auth_fid: u32, user_name: Text<'a>, tree: Text<'a>, user: u32 }
    108 Flush { old_tag: u16 }
    110 Walk { fid: u32, new_fid: u32, names: Names<'a> }
    116 Read { fid: u32, offset: u64, count: u32 }
    118 Write { fid: u32, offset: u64, data: Data<'a> }
    120 Clunk { fid: u32 }
    122 Remove { fid: u32 }
}

messages! {
    /// What the server answers.
    Reply:
    7 Lerror { errno: u32 }
    9 Statfs { of: FileSystem }
    13 Lopen { qid: Qid, unit: u32 }
    15 Lcreate { qid: Qid, unit: u32 }
    17 Symlink { qid: Qid }
    19 Mknod { qid: Qid }
    21 Rename {}
    23 Readlink { target: Text<'a> }
    25 Getattr { of: Attributes }
    27 Setattr {}
    31 Xattrwalk { size: u64 }
    33 Xattrcreate {}
    41 Readdir { entries: Data<'a> }
    51 Fsync {}
    53 Lock { status: u8 }
    55 Getlock { range: Range, client: Text<'a> }
    71 Link {}
    73 Mkdir { qid: Qid }
    75 Renameat {}
    77 Unlinkat {}
    101 Version { msize: u32, version: Text<'a> }
    103 Auth { qid: Qid }
    105 Attach { qid: Qid }
    109 Flush {}
    111 Walk { qids: Vec<Qid> }
    117 Read { data: Data<'a> }
    119 Write { count: u32 }
    121 Clunk {}
    123 Remove {}
}

/// A frame's header and its body.
/// # Errors
/// [`Malformed::Size`]: what the frame says of itself is not what it is, or more than `limit`.
pub fn split(frame: &[u8], limit: u32) -> Result<(u8, u16, &[u8]), Malformed> {
    let said = frame.first_chunk().map_or(0, |size| u32::from_le_bytes(*size));
    let wrong = Malformed::Size { size: said, limit };
    if said > limit || usize::try_from(said) != Ok(frame.len()) {
        return Err(wrong);
    }
    let (header, body) = frame.split_first_chunk::<HEADER_BYTES>().ok_or(wrong)?;
    Ok((header[4], u16::from_le_bytes([header[5], header[6]]), body))
}

/// An entry of a directory, as Rreaddir's contents have it: qid, the offset behind it, its type as `getdents` tells it, its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Of the object.
    pub qid: Qid,
    /// Where the entry behind it begins.
    pub next: u64,
    /// `DT_REG` and others.
    pub kind: u8,
    /// One name.
    pub name: &'a [u8],
}

impl<'a> Entry<'a> {
    /// What it takes in a reply.
    pub fn bytes(&self) -> usize {
        13 + 8 + 1 + 2 + self.name.len()
    }

    pub(crate) fn put(&self, into: &mut Vec<u8>) {
        self.qid.put(into);
        self.next.put(into);
        self.kind.put(into);
        Text(self.name).put(into);
    }

    /// All entries of a reply.
    /// # Errors
    /// [`Malformed::Short`].
    pub fn all(entries: &'a [u8]) -> Result<Vec<Self>, Malformed> {
        let bytes = &mut Bytes::new(41, entries);
        let mut found = Vec::new();
        while bytes.end().is_err() {
            let (qid, next, kind) = (Field::take(bytes)?, Field::take(bytes)?, Field::take(bytes)?);
            found.push(Entry { qid, next, kind, name: Text::take(bytes)?.0 });
        }
        Ok(found)
    }
}
