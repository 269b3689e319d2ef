//! Memory that holds nothing: copies succeed, reads give zeros.

use std::collections::BTreeSet;
use std::ops::Range;

use vgpu_api::memory::Memset;
use vgpu_api::{CuError, CuResult, MemInfo};

use super::{END_ADDRESS, GAP_BYTES, GRANULE_BYTES, MAPPING_BYTES, Null, Step};
use crate::device::{HostPages, Memory, Place, Raw};

/// The numbers of the pieces that a range lies in.
fn pieces_of((address, bytes): (u64, u64)) -> Range<u64> {
    let end = address.saturating_add(bytes);
    address / MAPPING_BYTES..end.div_ceil(MAPPING_BYTES)
}

impl Memory for Null {
    fn granule_bytes(&self) -> u64 {
        GRANULE_BYTES
    }

    fn piece_growth(&self, _context: Raw, bytes: u64) -> Option<u64> {
        self.parts.as_ref()?;
        let wanted = pieces_of((self.next_address, bytes));
        // Addresses are given out in a row: at most the first piece is there.
        let there = u64::from(self.pieces().contains(&wanted.start));
        Some((wanted.end - wanted.start - there).saturating_mul(MAPPING_BYTES))
    }

    fn pieces_bytes(&self, _device: u32) -> u64 {
        self.pieces().len() as u64 * MAPPING_BYTES
    }

    fn alloc(&mut self, _context: Raw, bytes: u64) -> CuResult<u64> {
        let address = self.take_addresses(bytes)?;
        self.parts.as_mut().map(|parts| parts.insert(address, bytes));
        Ok(address)
    }

    /// As much as anybody is granted.
    fn memory(&mut self, _context: Raw) -> CuResult<MemInfo> {
        Ok(MemInfo { free: self.memory_bytes, total: self.memory_bytes })
    }

    fn free(&mut self, _context: Raw, address: u64) -> CuResult<()> {
        self.refuse(Step::Free)?;
        self.parts.as_mut().map(|parts| parts.remove(&address));
        Ok(())
    }

    fn free_left(&mut self, _address: u64) -> CuResult<()> {
        self.refuse(Step::FreeLeft)
    }

    fn write(&mut self, place: Place, _address: u64, _bytes: &[u8]) -> CuResult<()> {
        self.queue(place);
        Ok(())
    }

    fn read(&mut self, place: Place, _address: u64, bytes: &mut [u8]) -> CuResult<()> {
        bytes.fill(0);
        self.queue(place);
        self.wait(|stalls| stalls.query(place))
    }

    fn copy(&mut self, place: Place, to: u64, _from: u64, bytes: u64) -> CuResult<()> {
        self.queue(place);
        if let Some(pages) = self.pages(to) {
            pages.zero(to, bytes);
        }
        Ok(())
    }

    fn fill(&mut self, place: Place, _memset: &Memset) -> CuResult<()> {
        self.queue(place);
        Ok(())
    }

    fn pin(&mut self, pages: HostPages) -> CuResult<()> {
        self.pinned.insert(pages.address(), pages);
        Ok(())
    }

    fn unpin(&mut self, address: u64) -> CuResult<()> {
        self.pinned.remove(&address);
        Ok(())
    }
}

impl Null {
    /// The pieces with a part that lives.
    pub(super) fn pieces(&self) -> BTreeSet<u64> {
        let parts = self.parts.iter().flatten();
        parts.flat_map(|(address, bytes)| pieces_of((*address, *bytes))).collect()
    }

    pub(super) fn take_addresses(&mut self, bytes: u64) -> CuResult<u64> {
        let address = self.next_address;
        let end = address.checked_add(bytes).and_then(|end| end.checked_add(GAP_BYTES));
        let next = end.and_then(|end| end.checked_next_multiple_of(GRANULE_BYTES));
        self.next_address = next.filter(|next| *next < END_ADDRESS).ok_or(CuError::OUT_OF_MEMORY)?;
        Ok(address)
    }

    /// The pinned pages that hold an address.
    pub(super) fn pages(&self, address: u64) -> Option<&HostPages> {
        let (start, pages) = self.pinned.range(..=address).next_back()?;
        (address - start < pages.bytes() as u64).then_some(pages)
    }
}
