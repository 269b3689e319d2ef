//! Packing and checked parsing: little endian, no padding, no alignment.
//!
//! A [`Reader`] walks bytes that were copied out of shared memory first. Every `take` compares with what is left.

use std::fmt;

/// Payload of one reply, in bytes: a reply slot of `idm` less its header. Larger answers go through staging.
pub const REPLY_BYTES_MAX: usize = 4080;
/// Payload of one record, in bytes: a record has at most 64 KiB with its header.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024 - 16;

/// Bytes from the peer that no honest peer sends: its fault, the channel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// `needed` bytes were announced, `left` are there.
    Short {
        /// Bytes that the value takes.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// Bytes were left over after the last parameter.
    Trailing {
        /// How many.
        left: usize,
    },
    /// No call has this number.
    UnknownOp(u16),
    /// A value outside its range; the field is named.
    BadValue(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short { needed, left } => write!(f, "{needed} bytes announced, {left} there"),
            Self::Trailing { left } => write!(f, "{left} bytes after the last parameter"),
            Self::UnknownOp(op) => write!(f, "no call has number {op}"),
            Self::BadValue(field) => write!(f, "{field} is out of range"),
        }
    }
}

impl std::error::Error for WireError {}

/// Walks received bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// The next `count` bytes.
    /// # Errors
    /// [`WireError::Short`].
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self
            .left
            .split_at_checked(count)
            .ok_or(WireError::Short { needed: count, left: self.left.len() })?;
        self.left = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    /// # Errors
    /// [`WireError::Short`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self
            .left
            .split_first_chunk::<N>()
            .ok_or(WireError::Short { needed: N, left: self.left.len() })?;
        self.left = tail;
        Ok(*head)
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// That nothing is left over.
    /// # Errors
    /// [`WireError::Trailing`].
    pub fn end(&self) -> Result<(), WireError> {
        if self.left.is_empty() { Ok(()) } else { Err(WireError::Trailing { left: self.left.len() }) }
    }
}

/// Writes into a buffer of fixed size. What doesn't fit is remembered, not written: see [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    at: usize,
    overflow: bool,
}

impl<'a> Writer<'a> {
    /// Starts at the first byte of `buffer`.
    #[must_use]
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, at: 0, overflow: false }
    }

    /// Appends `bytes`.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.at..self.at + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            None => self.overflow = true,
        }
    }

    /// The number of bytes written, `None` if something didn't fit.
    #[must_use]
    pub fn finish(self) -> Option<usize> {
        (!self.overflow).then_some(self.at)
    }
}

/// A value with a wire form.
pub trait Wire<'a>: Sized {
    /// Its size in bytes.
    fn size(&self) -> usize;
    /// Appends it.
    fn put(&self, writer: &mut Writer<'_>);
    /// Reads it.
    /// # Errors
    /// The bytes are too few or out of range.
    fn take(reader: &mut Reader<'a>) -> Result<Self, WireError>;
}

macro_rules! wire_numbers {
    ($($t:ty)*) => { $(
        impl Wire<'_> for $t {
            #[inline]
            fn size(&self) -> usize { size_of::<$t>() }
            #[inline]
            fn put(&self, writer: &mut Writer<'_>) { writer.bytes(&self.to_le_bytes()); }
            #[inline]
            fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> { Ok(Self::from_le_bytes(reader.array()?)) }
        }
    )* };
}
wire_numbers!(u8 u16 u32 u64 i32 i64 f32);

impl Wire<'_> for bool {
    fn size(&self) -> usize {
        1
    }
    fn put(&self, writer: &mut Writer<'_>) {
        u8::from(*self).put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::take(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::BadValue("bool")),
        }
    }
}

impl Wire<'_> for () {
    fn size(&self) -> usize {
        0
    }
    fn put(&self, _: &mut Writer<'_>) {}
    fn take(_: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(())
    }
}

impl<const N: usize> Wire<'_> for [u32; N] {
    #[inline]
    fn size(&self) -> usize {
        4 * N
    }
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) {
        for value in self {
            value.put(writer);
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut values = [0; N];
        for value in &mut values {
            *value = u32::take(reader)?;
        }
        Ok(values)
    }
}

impl Wire<'_> for [u8; 16] {
    fn size(&self) -> usize {
        16
    }
    fn put(&self, writer: &mut Writer<'_>) {
        writer.bytes(self);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.array()
    }
}

/// Length as u32, then the bytes. A longer slice than u32 can count never fits a record: the writer reports it.
impl<'a> Wire<'a> for &'a [u8] {
    #[inline]
    fn size(&self) -> usize {
        4 + self.len()
    }
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) {
        match u32::try_from(self.len()) {
            Ok(length) => {
                length.put(writer);
                writer.bytes(self);
            }
            Err(_) => writer.overflow = true,
        }
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let length = u32::take(reader)?;
        reader.bytes(length as usize)
    }
}

impl Wire<'_> for String {
    fn size(&self) -> usize {
        4 + self.len()
    }
    fn put(&self, writer: &mut Writer<'_>) {
        self.as_bytes().put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let bytes = <&[u8]>::take(reader)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| WireError::BadValue("text"))
    }
}

/// Count as u32, then the elements. Nothing is reserved by the peer's count: each element takes bytes that are there.
impl<'a, T: Wire<'a>> Wire<'a> for Vec<T> {
    fn size(&self) -> usize {
        4 + self.iter().map(Wire::size).sum::<usize>()
    }
    fn put(&self, writer: &mut Writer<'_>) {
        match u32::try_from(self.len()) {
            Ok(count) => {
                count.put(writer);
                self.iter().for_each(|element| element.put(writer));
            }
            Err(_) => writer.overflow = true,
        }
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = u32::take(reader)?;
        let mut elements = Self::new();
        for _ in 0..count {
            // An element of no bytes would let a count of four thousand million pass: no such element exists.
            if reader.left() == 0 {
                return Err(WireError::Short { needed: 1, left: 0 });
            }
            elements.push(T::take(reader)?);
        }
        Ok(elements)
    }
}

/// The wire form of `value` in a buffer of its own.
pub fn to_vec<'a>(value: &impl Wire<'a>) -> Vec<u8> {
    let mut bytes = vec![0; value.size()];
    let mut writer = Writer::new(&mut bytes);
    value.put(&mut writer);
    let written = writer.finish();
    debug_assert_eq!(written, Some(bytes.len()), "size() and put() agree");
    bytes
}

/// The one value that `bytes` hold.
/// # Errors
/// Too few, too many or bad bytes.
pub fn from_slice<'a, T: Wire<'a>>(bytes: &'a [u8]) -> Result<T, WireError> {
    let mut reader = Reader::new(bytes);
    let value = T::take(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Declares a struct whose wire form is its fields in order. `DECLARATION` goes into the wire hash.
macro_rules! wire_struct {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $t:ty,)* }) => {
        $(#[$meta])*
        pub struct $name { $($(#[$field_meta])* pub $field: $t,)* }

        impl $name {
            /// What goes into the wire hash.
            pub const DECLARATION: &'static str = concat!(stringify!($name), "{", $(stringify!($field), ":", stringify!($t), ",",)* "}");
        }

        impl<'a> $crate::wire::Wire<'a> for $name {
            #[inline]
            fn size(&self) -> usize { 0 $(+ $crate::wire::Wire::size(&self.$field))* }
            #[inline]
            fn put(&self, writer: &mut $crate::wire::Writer<'_>) { $($crate::wire::Wire::put(&self.$field, writer);)* }
            fn take(reader: &mut $crate::wire::Reader<'a>) -> Result<Self, $crate::wire::WireError> {
                Ok(Self { $($field: $crate::wire::Wire::take(reader)?,)* })
            }
        }
    };
}
pub(crate) use wire_struct;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_larger_than_the_bytes_is_refused_without_reserving() {
        let mut bytes = u32::MAX.to_le_bytes().to_vec();
        bytes.extend([1, 2, 3]);
        assert_eq!(from_slice::<Vec<u32>>(&bytes), Err(WireError::Short { needed: 4, left: 3 }));
        assert_eq!(from_slice::<&[u8]>(&bytes), Err(WireError::Short { needed: u32::MAX as usize, left: 3 }));
    }

    #[test]
    fn bytes_left_over_are_refused() {
        assert_eq!(from_slice::<u32>(&[0; 5]), Err(WireError::Trailing { left: 1 }));
    }

    #[test]
    fn a_value_that_does_not_fit_is_reported() {
        let mut room = [0; 7];
        let mut writer = Writer::new(&mut room);
        7u32.put(&mut writer);
        9u32.put(&mut writer);
        assert_eq!(writer.finish(), None);
    }

    #[test]
    fn numbers_come_back() {
        assert_eq!(from_slice::<f32>(&to_vec(&1.5f32)), Ok(1.5));
        assert_eq!(
            from_slice::<Vec<String>>(&to_vec(&vec!["a".to_owned(), String::new()])).unwrap(),
            ["a", ""]
        );
    }
}
