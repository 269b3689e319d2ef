//! Allocations that other workers may have: memory of their own, or parts of pieces, at addresses of the process.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use vgpu_api::{Access, CuError, CuResult};

use super::super::table::Table;
use super::super::{GRANULE_BYTES, Raw};
use super::{Allocation, Memories, PIECE_BYTES, POSIX_FD};
use crate::device::{Exported, Shareable};

impl Memories {
    /// Whether allocations are made here. Else they are left to `cuMemAlloc`.
    pub fn allocates(&self) -> bool {
        self.handle_types != 0
    }

    /// What an allocation takes that is made here: so many bytes of memory.
    pub fn allocation_bytes(&self, bytes: u64) -> Option<u64> {
        let part = bytes.checked_next_multiple_of(GRANULE_BYTES)?;
        if part < PIECE_BYTES { Some(part) } else { part.checked_next_multiple_of(self.granule_bytes) }
    }

    /// Memory of `bytes`, as [`Memories::allocation_bytes`] says, at an address: a context's of `device`.
    pub fn allocate(&mut self, table: &Table, (context, device): (Raw, u32), bytes: u64) -> CuResult<u64> {
        if bytes >= PIECE_BYTES {
            return self.allocate_whole(table, (context, device), bytes);
        }
        if let Some(address) = self.pieces.take(context, bytes) {
            return Ok(address);
        }
        let piece_bytes = self.piece_bytes();
        let start = self.allocate_whole(table, (context, device), piece_bytes)?;
        self.pieces.add(context, start, piece_bytes);
        *self.pieces_bytes.entry(device).or_default() += piece_bytes;
        self.pieces.take(context, bytes).ok_or(CuError::UNKNOWN)
    }

    /// What of a device's memory an allocation would need for a piece, if it is to be a part of one.
    pub fn piece_growth(&self, context: Raw, bytes: u64) -> Option<u64> {
        let part = self.allocation_bytes(bytes).filter(|part| self.allocates() && *part < PIECE_BYTES)?;
        Some(if self.pieces.have(context, part) { 0 } else { self.piece_bytes() })
    }

    /// What a device has in pieces.
    pub fn pieces_bytes(&self, device: u32) -> u64 {
        self.pieces_bytes.get(&device).copied().unwrap_or(0)
    }

    fn piece_bytes(&self) -> u64 {
        PIECE_BYTES.next_multiple_of(self.granule_bytes)
    }

    fn allocate_whole(&mut self, table: &Table, (context, device): (Raw, u32), bytes: u64) -> CuResult<u64> {
        let memory = self.create(table, device, bytes)?;
        let all: Vec<u32> = [device].into_iter().chain(self.reach.devices_of(context)).collect();
        match self.show(table, bytes, memory, &all) {
            Ok(address) => {
                self.allocations.insert(address, Allocation { memory, bytes, context, device });
                Ok(address)
            }
            Err((error, is_unmapped)) => {
                if self.release(table, memory).is_err() || !is_unmapped {
                    *self.pieces_bytes.entry(device).or_default() += bytes;
                }
                Err(error)
            }
        }
    }

    /// Lets a device reach what the other device's context allocates, as the driver does by itself for what is not mapped.
    pub fn open_to(&mut self, table: &Table, device: u32, context: Raw) -> CuResult<()> {
        if !self.reach.begin(device, context) {
            return Ok(());
        }
        let opened = self.access_of_all(table, device, context, Access::ReadWrite);
        if opened.is_err() {
            // Those that were opened before one was refused.
            let _ = self.close_to(table, device, context);
        }
        opened
    }

    /// Takes back what [`Memories::open_to`] began once.
    pub fn close_to(&mut self, table: &Table, device: u32, context: Raw) -> CuResult<()> {
        if !self.reach.end(device, context) {
            return Ok(());
        }
        self.access_of_all(table, device, context, Access::None)
    }

    /// All are tried; the first refusal of any.
    fn access_of_all(&self, table: &Table, device: u32, context: Raw, access: Access) -> CuResult<()> {
        let of_it = self.allocations.iter().filter(|(_, allocation)| allocation.context == context);
        let set = of_it
            .map(|(address, allocation)| self.set_access(table, device, *address, allocation.bytes, access));
        set.fold(Ok(()), CuResult::and)
    }

    /// Where it is. Else why not, and whether it is nowhere.
    fn show(&self, table: &Table, bytes: u64, memory: Raw, devices: &[u32]) -> Result<u64, (CuError, bool)> {
        let nowhere = |error| (error, true);
        let address = self.reserve(table, bytes, 0, 0).map_err(nowhere)?;
        let shown = self.map(table, address, bytes, memory).map_err(nowhere).and_then(|()| {
            let mut devices = devices.iter();
            let opened = devices
                .try_for_each(|device| self.set_access(table, *device, address, bytes, Access::ReadWrite));
            opened.map_err(|error| (error, self.unmap(table, address, bytes).is_ok()))
        });
        shown.map(|()| address).inspect_err(|_| {
            // Where something is mapped still the driver refuses.
            let _ = self.unreserve(table, address, bytes);
        })
    }

    pub fn is_allocation(&self, address: u64) -> bool {
        self.whole_of(address).is_some()
    }

    /// Where the memory starts that an allocation is, or is a part of, and how long it is.
    pub fn whole_of(&self, address: u64) -> Option<(u64, u64)> {
        self.holding(address).map(|(start, Allocation { bytes, .. })| (start, *bytes))
    }

    /// The device that has an allocation.
    pub fn device_of(&self, address: u64) -> Option<u32> {
        self.holding(address).map(|(_, allocation)| allocation.device)
    }

    fn holding(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (start, allocation) = self.allocations.range(..=address).next_back()?;
        (address - start < allocation.bytes).then_some((*start, allocation))
    }

    /// Ends what [`Memories::allocate`] gave. No work uses it.
    pub fn free(&mut self, table: &Table, address: u64) -> CuResult<()> {
        let (_, &Allocation { context, .. }) = self.holding(address).ok_or(CuError::INVALID_VALUE)?;
        match self.pieces.give(context, address, self.piece_bytes()) {
            Some(ended) => {
                self.end_pieces(table, ended);
                Ok(())
            }
            None => self.free_whole(table, address),
        }
    }

    /// The same, of a context that is no more.
    pub fn free_left(&mut self, table: &Table, address: u64) -> CuResult<()> {
        let (_, &Allocation { context, .. }) = self.holding(address).ok_or(CuError::INVALID_VALUE)?;
        self.free(table, address)?;
        self.end_idle_pieces(table, context);
        Ok(())
    }

    /// A context ends: what was kept for its next small allocations does, too.
    pub fn end_idle_pieces(&mut self, table: &Table, context: Raw) {
        let idle = self.pieces.idle(context);
        self.end_pieces(table, idle);
    }

    fn end_pieces(&mut self, table: &Table, pieces: Vec<u64>) {
        for start in pieces {
            let Some(&Allocation { device, bytes, .. }) = self.allocations.get(&start) else { continue };
            match self.free_whole(table, start) {
                Ok(()) => self.pieces_bytes.entry(device).and_modify(|all| *all -= bytes).or_default(),
                // It is nobody's any more, so nobody is told; it goes on counting.
                Err(error) => {
                    log::warn!("a piece of device memory stays mapped: {}", error.code());
                    continue;
                }
            };
        }
    }

    fn free_whole(&mut self, table: &Table, address: u64) -> CuResult<()> {
        let &Allocation { memory, bytes, .. } =
            self.allocations.get(&address).ok_or(CuError::INVALID_VALUE)?;
        self.unmap(table, address, bytes)?;
        self.release(table, memory)?;
        // Until here it is one still, and whoever counts it goes on.
        self.allocations.remove(&address);
        self.unreserve(table, address, bytes)
    }

    pub fn export(&self, table: &Table, what: Shareable) -> CuResult<Exported> {
        let memory = match what {
            Shareable::Memory(memory) => memory,
            Shareable::Allocation(address) => self.holding(address).ok_or(CuError::NOT_SUPPORTED)?.1.memory,
        };
        if self.handle_types == 0 {
            return Err(CuError::NOT_SUPPORTED);
        }
        let handle = *self.handles.get(&memory.0).ok_or(CuError::INVALID_VALUE)?;
        let mut fd: c_int = -1;
        // SAFETY: a live handle of ours; the driver writes one descriptor to a variable of ours.
        unsafe { table.cuMemExportToShareableHandle((&raw mut fd).cast(), handle, POSIX_FD, 0) }?;
        if fd < 0 {
            return Err(CuError::UNKNOWN);
        }
        // SAFETY: the driver opened it for us, and knows it no more.
        Ok(Exported::Device(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn import(&mut self, table: &Table, memory: &OwnedFd) -> CuResult<Raw> {
        let place = usize::try_from(memory.as_raw_fd()).map_err(|_| CuError::INVALID_VALUE)?;
        let mut handle = 0;
        // SAFETY: the driver takes the descriptor's number in a pointer's place, and has one of its own afterwards; it writes a number
        // to a variable of ours.
        unsafe {
            table.cuMemImportFromShareableHandle(
                &raw mut handle,
                ptr::without_provenance_mut(place),
                POSIX_FD,
            )
        }?;
        Ok(self.name(handle))
    }
}
