//! The fatbin container: a header, then entries for targets, each PTX or machine code, perhaps compressed.
//!
//! ```text
//! 0 magic | 4 version u16 | 6 header bytes u16 | 8 bytes of all entries u64
//! entry: 0 kind u16 (1 PTX, 2 ELF) | 4 header bytes u32 | 8 payload bytes u64 | 16 compressed bytes u32 | 28 target u32
//!        40 flags u64 (0x2000 LZ4, 0x8000 zstd) | 56 expanded bytes u64
//! ```

use std::io::Read;

use super::{ImageError, MACHINE_CODE_BYTES_MAX, TEXT_BYTES_MAX};

pub(super) const MAGIC: [u8; 4] = 0xba55_ed50_u32.to_le_bytes();
const KIND_PTX: u16 = 1;
const KIND_ELF: u16 = 2;
const FLAG_LZ4: u64 = 0x2000;
const FLAG_ZSTD: u64 = 0x8000;
/// Containers hold one entry for each target; nobody has built for more.
const ENTRIES_MAX: usize = 1024;

struct Entry<'a> {
    target: u32,
    flags: u64,
    expanded_bytes: u64,
    payload: &'a [u8],
}

/// The expanded text of the best PTX entry for target `sm` (90 for 9.0) in the container at the start of `image`.
pub(super) fn ptx_of(image: &[u8], sm: u32) -> Result<Vec<u8>, ImageError> {
    let best = entries(image, KIND_PTX)?
        .into_iter()
        .filter(|entry| entry.target <= sm)
        .max_by_key(|entry| entry.target);
    best.ok_or(ImageError::NoBinary("the fatbin has none for compute capability 9.0 or below"))?
        .expand(TEXT_BYTES_MAX)
}

/// Hands out the text of each PTX entry that target `sm` can run, one after the other.
pub(super) fn each_ptx(
    image: &[u8],
    sm: u32,
    mut each: impl FnMut(&[u8]) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let entries = entries(image, KIND_PTX)?.into_iter();
    entries.filter(|entry| entry.target <= sm).try_for_each(|entry| each(&entry.expand(TEXT_BYTES_MAX)?))
}

/// Hands out the machine code of each entry that target `sm` can run, one after the other: those of its major number.
pub(super) fn each_machine_code(
    image: &[u8],
    sm: u32,
    mut each: impl FnMut(&[u8]),
) -> Result<(), ImageError> {
    for entry in machine_codes(image, sm)? {
        each(&entry.expand(MACHINE_CODE_BYTES_MAX)?);
    }
    Ok(())
}

/// The machine code for the highest target that target `sm` can run, if there is some.
pub(super) fn machine_code_of(image: &[u8], sm: u32) -> Result<Option<Vec<u8>>, ImageError> {
    let best = machine_codes(image, sm)?.max_by_key(|entry| entry.target);
    best.map(|entry| entry.expand(MACHINE_CODE_BYTES_MAX)).transpose()
}

fn machine_codes(image: &[u8], sm: u32) -> Result<impl Iterator<Item = Entry<'_>>, ImageError> {
    let runs = move |entry: &Entry<'_>| entry.target <= sm && entry.target / 10 == sm / 10;
    Ok(entries(image, KIND_ELF)?.into_iter().filter(runs))
}

/// The entries of one kind in the container at the start of `image`.
fn entries(image: &[u8], kind: u16) -> Result<Vec<Entry<'_>>, ImageError> {
    let header_bytes = usize::from(u16::from_le_bytes(field(image, 6)?));
    let body_bytes = to_usize(u64::from_le_bytes(field(image, 8)?))?;
    let body = slice(image, header_bytes, body_bytes)?;
    let mut entries = Vec::new();
    let mut rest = body;
    // Some bytes of padding may follow the last entry.
    for count in 0.. {
        if rest.len() < 64 {
            break;
        }
        // What is not looked at might be what a driver takes.
        if count >= ENTRIES_MAX {
            return Err(ImageError::Invalid("a fatbin of so many entries"));
        }
        let header_bytes = to_usize(u64::from(u32::from_le_bytes(field(rest, 4)?)))?;
        let payload_bytes = to_usize(u64::from_le_bytes(field(rest, 8)?))?;
        if header_bytes < 64 {
            return Err(ImageError::Invalid("a fatbin entry's header is too short"));
        }
        let payload = slice(rest, header_bytes, payload_bytes)?;
        if u16::from_le_bytes(field(rest, 0)?) == kind {
            let compressed_bytes = to_usize(u64::from(u32::from_le_bytes(field(rest, 16)?)))?;
            let flags = u64::from_le_bytes(field(rest, 40)?);
            // The payload is padded; a compressed one says its own length.
            let is_packed = flags & (FLAG_LZ4 | FLAG_ZSTD) != 0 && compressed_bytes != 0;
            entries.push(Entry {
                target: u32::from_le_bytes(field(rest, 28)?),
                flags,
                expanded_bytes: u64::from_le_bytes(field(rest, 56)?),
                payload: if is_packed { slice(payload, 0, compressed_bytes)? } else { payload },
            });
        }
        rest = &rest[header_bytes + payload_bytes..];
    }
    Ok(entries)
}

impl Entry<'_> {
    fn expand(&self, bytes_max: usize) -> Result<Vec<u8>, ImageError> {
        if self.flags & (FLAG_LZ4 | FLAG_ZSTD) == 0 {
            return Ok(self.payload.to_vec());
        }
        let expanded_bytes = to_usize(self.expanded_bytes)?;
        if expanded_bytes > bytes_max {
            return Err(ImageError::Invalid("a fatbin entry expands to more than is taken"));
        }
        let text = if self.flags & FLAG_LZ4 != 0 {
            lz4_flex::block::decompress(self.payload, expanded_bytes)
                .map_err(|_| ImageError::Invalid("a fatbin entry's LZ4 data is damaged"))?
        } else {
            unzstd(self.payload, expanded_bytes)?
        };
        if text.len() == expanded_bytes {
            Ok(text)
        } else {
            Err(ImageError::Invalid("a fatbin entry is cut short"))
        }
    }
}

fn unzstd(payload: &[u8], expanded_bytes: usize) -> Result<Vec<u8>, ImageError> {
    let damaged = ImageError::Invalid("a fatbin entry's zstd data is damaged");
    let decoder = ruzstd::decoding::StreamingDecoder::new(payload).map_err(|_| damaged.clone())?;
    let mut text = Vec::new();
    // One byte more than it says, to notice a longer one; never more.
    decoder.take(expanded_bytes as u64 + 1).read_to_end(&mut text).map_err(|_| damaged)?;
    Ok(text)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ImageError> {
    slice(bytes, at, N)?.try_into().map_err(|_| ImageError::Invalid("the fatbin is cut short"))
}

fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], ImageError> {
    let end = at.checked_add(length).ok_or(ImageError::Invalid("a size in the fatbin is too large"))?;
    bytes.get(at..end).ok_or(ImageError::Invalid("the fatbin is cut short"))
}

fn to_usize(value: u64) -> Result<usize, ImageError> {
    usize::try_from(value).map_err(|_| ImageError::Invalid("a size in the fatbin is too large"))
}
