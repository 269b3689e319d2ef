//! How long the image is that a program passes to a load without a length: a fat binary (in a wrapper, or raw) and a
//! cubin say so in their headers, PTX ends with its zero byte.
//!
//! Headers may say anything: what they point to is read where something is mapped. Reading past an image's end harms only the
//! program itself: the worker parses its own copy.

use std::ffi::c_char;

use vgpu_api::{CuError, CuResult};

use crate::abi::{In, Span};

const WRAPPER: u32 = 0x4662_43b1;
const FATBIN: u32 = 0xba55_ed50;
const ELF: u32 = u32::from_le_bytes(*b"\x7fELF");
/// A section of this type has no bytes in the file.
const SHT_NOBITS: u32 = 8;

/// The image's bytes: of a wrapper, what it points to; of PTX, the text without its NUL.
/// # Errors
/// 1 for NULL, 200 for what is no image.
pub fn bytes<'a>(image: In<u8>) -> CuResult<&'a [u8]> {
    let magic: u32 = image.cast::<u32>(0).get()?;
    match magic {
        WRAPPER => {
            // magic @0, version @4, data* @8.
            let data: u64 = image.cast::<u64>(8).get()?;
            // SAFETY: the wrapper is the program's, and so is the address in it; it is read only, as the wrapper was.
            let data = unsafe { In::<u8>::from_raw(Span::at_address(data).address() as *const u8) };
            match data.cast::<u32>(0).get()? {
                WRAPPER => Err(CuError::INVALID_IMAGE),
                _ => bytes(data),
            }
        }
        FATBIN => {
            let header: u16 = image.cast::<u16>(6).get()?;
            let body: u64 = image.cast::<u64>(8).get()?;
            slice(image, u64::from(header).checked_add(body))
        }
        ELF => slice(image, elf_end(image)?),
        _ => {
            let text = image.cast::<c_char>(0).text()?.to_bytes();
            if text.is_empty()
                || !text
                    .iter()
                    .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || *byte >= 0x80)
            {
                return Err(CuError::INVALID_IMAGE);
            }
            Ok(text)
        }
    }
}

fn slice<'a>(image: In<u8>, len: Option<u64>) -> CuResult<&'a [u8]> {
    let len = len.filter(|len| is_mapped(image.address(), *len)).ok_or(CuError::INVALID_IMAGE)?;
    Span::at_address(image.address()).read(usize::try_from(len).map_err(|_| CuError::INVALID_IMAGE)?)
}

/// Whether something is mapped at each of `len` bytes.
pub fn is_mapped(at: u64, len: u64) -> bool {
    const PAGE_BYTES: u64 = 4096;
    let start = at - at % PAGE_BYTES;
    let Some(end) = at.checked_add(len) else { return false };
    let (Ok(place), Ok(bytes)) = (usize::try_from(start), usize::try_from(end - start)) else { return false };
    // SAFETY: `MS_ASYNC` writes nothing and starts nothing: it only says ENOMEM where nothing is mapped. Source: `msync(2)`.
    unsafe { libc::msync(std::ptr::with_exposed_provenance_mut(place), bytes, libc::MS_ASYNC) == 0 }
}

/// The largest end of the header tables, the sections and the segments of a 64-bit ELF.
fn elf_end(image: In<u8>) -> CuResult<Option<u64>> {
    let u64_at = |offset: u64| image.cast::<u64>(usize::try_from(offset).unwrap_or(usize::MAX)).get();
    let u32_at = |offset: u64| image.cast::<u32>(usize::try_from(offset).unwrap_or(usize::MAX)).get();
    let u16_at =
        |offset: u64| image.cast::<u16>(usize::try_from(offset).unwrap_or(usize::MAX)).get().map(u64::from);
    let (segments, segment_bytes, segment_count) = (u64_at(32)?, u16_at(54)?, u16_at(56)?);
    let (sections, section_bytes, section_count) = (u64_at(40)?, u16_at(58)?, u16_at(60)?);
    // An entry's fields are read up to its byte 40.
    let table = |start: u64, bytes: u64, count: u64| {
        let end = start.checked_add(bytes * count)?;
        is_mapped(image.address().checked_add(start)?, bytes * count + 40).then_some(end)
    };
    let tables =
        table(segments, segment_bytes, segment_count).zip(table(sections, section_bytes, section_count));
    let Some((segments_end, sections_end)) = tables else { return Ok(None) };
    let mut end = segments_end.max(sections_end);
    for segment in (0..segment_count).map(|i| segments + i * segment_bytes) {
        end = end.max(u64_at(segment + 8)?.saturating_add(u64_at(segment + 32)?));
    }
    for section in (0..section_count).map(|i| sections + i * section_bytes) {
        if u32_at(section + 4)? != SHT_NOBITS {
            end = end.max(u64_at(section + 24)?.saturating_add(u64_at(section + 32)?));
        }
    }
    Ok(Some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of(image: &[u8]) -> CuResult<usize> {
        // SAFETY: the tests' images are whole.
        bytes(unsafe { In::from_raw(image.as_ptr()) }).map(<[u8]>::len)
    }

    fn fatbin(body: usize) -> Vec<u8> {
        let mut image = FATBIN.to_le_bytes().to_vec();
        image.extend(1u16.to_le_bytes());
        image.extend(16u16.to_le_bytes());
        image.extend((body as u64).to_le_bytes());
        image.resize(16 + body, 7);
        image
    }

    #[test]
    fn text_ends_before_its_nul() {
        assert_eq!(size_of(b".version 8.0\n\0garbage"), Ok(13));
        assert_eq!(size_of(b"\x01\x02\x03\x04\x05\0\0\0"), Err(CuError::INVALID_IMAGE));
    }

    #[test]
    fn a_fatbin_says_its_length_also_through_a_wrapper() {
        let inner = fatbin(100);
        assert_eq!(size_of(&inner), Ok(116));
        let mut wrapper = WRAPPER.to_le_bytes().to_vec();
        wrapper.extend(1u32.to_le_bytes());
        wrapper.extend((inner.as_ptr().expose_provenance() as u64).to_le_bytes());
        wrapper.extend([0; 8]);
        assert_eq!(size_of(&wrapper), Ok(116));
    }

    #[test]
    fn an_elf_ends_with_its_last_section() {
        let mut image = vec![0u8; 64 + 2 * 64 + 30];
        image[..4].copy_from_slice(b"\x7fELF");
        image[40..48].copy_from_slice(&64u64.to_le_bytes());
        image[58..60].copy_from_slice(&64u16.to_le_bytes());
        image[60..62].copy_from_slice(&2u16.to_le_bytes());
        // Section 0: bytes at 192, 30 long. Section 1: no bytes, but a large size.
        image[64 + 24..64 + 32].copy_from_slice(&192u64.to_le_bytes());
        image[64 + 32..64 + 40].copy_from_slice(&30u64.to_le_bytes());
        image[128 + 4..128 + 8].copy_from_slice(&SHT_NOBITS.to_le_bytes());
        image[128 + 32..128 + 40].copy_from_slice(&9999u64.to_le_bytes());
        assert_eq!(size_of(&image), Ok(222));
    }
}
