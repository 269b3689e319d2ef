//! Memory as a thread sees it: which space an address names, whether the access lies inside it, and the access itself.
//!
//! The rule: nothing is read or written before [`Target`]'s whole length has been found inside one allocation, the block's shared
//! memory, or the thread's own local or parameter space, and its address is a multiple of its size.

use std::sync::Arc;

use super::Launch;
use super::warp::Thread;
use crate::block::Block as Allocation;
use crate::code::{Area, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::{Access as Kind, Fault};

/// What an instruction wants to touch: all elements of a vector together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub area: Area,
    pub at: u64,
    pub bytes: u32,
}

/// The way of one host thread into memory. It remembers the last allocation, as neighbours follow each other.
#[derive(Debug)]
pub(super) struct Access<'a> {
    allocations: &'a [Arc<Allocation>],
    params: &'a [u8],
    last: usize,
}

/// A target found: what it lies in, and where there.
enum Found<'a> {
    Allocation(&'a Allocation, u64),
    Shared(usize),
    Local(usize),
    /// The kernel's parameters.
    Given(usize),
    /// The thread's own parameter space.
    Param(usize),
}

impl<'a> Access<'a> {
    pub fn new(launch: &'a Launch<'_>) -> Self {
        Self { allocations: &launch.allocations, params: &launch.params, last: 0 }
    }

    /// Loads the element at `part` (offset and width) of the target.
    pub fn load(
        &mut self,
        target: Target,
        part: (u32, u32),
        thread: &Thread,
        shared: &[u8],
    ) -> Result<u64, Fault> {
        let (offset, width) = part;
        Ok(match self.find(target, Kind::Load, thread, shared.len())? {
            Found::Allocation(allocation, at) => allocation.load(at + u64::from(offset), width),
            Found::Shared(at) => get(shared, at, part),
            Found::Local(at) => get(&thread.local, at, part),
            Found::Given(at) => get(self.params, at, part),
            Found::Param(at) => get(&thread.param, at, part),
        })
    }

    /// Stores the element at `part` of the target.
    pub fn store(
        &mut self,
        target: Target,
        part: (u32, u32),
        value: u64,
        thread: &mut Thread,
        shared: &mut [u8],
    ) -> Result<(), Fault> {
        let (offset, width) = part;
        match self.find(target, Kind::Store, thread, shared.len())? {
            Found::Allocation(allocation, at) if allocation.is_writable() => {
                allocation.store(at + u64::from(offset), width, value);
            }
            Found::Allocation(..) => return Err(illegal(target, Kind::Store)),
            Found::Shared(at) => put(shared, at, part, value),
            Found::Local(at) => put(&mut thread.local, at, part, value),
            Found::Given(_) => return Err(illegal(target, Kind::Store)),
            Found::Param(at) => put(&mut thread.param, at, part, value),
        }
        Ok(())
    }

    /// Replaces the target's value by `f` of it, in one step as others see it, and returns the old one.
    pub fn update(
        &mut self,
        target: Target,
        shared: &mut [u8],
        mut f: impl FnMut(u64) -> u64,
    ) -> Result<u64, Fault> {
        let nobody = Thread::default();
        match self.find(target, Kind::Atomic, &nobody, shared.len())? {
            Found::Allocation(allocation, at) if allocation.is_writable() => {
                Ok(allocation.update(at, target.bytes, f))
            }
            Found::Shared(at) => {
                // Only this host thread runs this block.
                let old = get(shared, at, (0, target.bytes));
                put(shared, at, (0, target.bytes), f(old));
                Ok(old)
            }
            _ => Err(illegal(target, Kind::Atomic)),
        }
    }

    /// Copies out bytes wherever they lie, as builtin functions read their arguments. Stops at the first NUL if `text`.
    pub fn read(
        &mut self,
        from: u64,
        length: usize,
        text: bool,
        thread: &Thread,
        shared: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        for offset in 0..length {
            let at = from.wrapping_add(offset as u64);
            let target = Target { area: Area::Generic, at, bytes: 1 };
            let value = self.load(target, (0, 1), thread, shared)?;
            if text && value == 0 {
                break;
            }
            out.push((value & 255) as u8);
        }
        Ok(out)
    }

    fn find(
        &mut self,
        target: Target,
        kind: Kind,
        thread: &Thread,
        shared: usize,
    ) -> Result<Found<'a>, Fault> {
        let Target { area, at, bytes } = target;
        if at % u64::from(bytes.next_power_of_two()) != 0 {
            return Err(Fault::Misaligned { address: at, bytes, access: kind });
        }
        let (area, offset) = match area {
            Area::Generic => space_of(at),
            named => (named, at),
        };
        let inside = |length: usize| {
            let start = usize::try_from(offset).ok()?;
            (start.checked_add(bytes as usize)? <= length).then_some(start)
        };
        let found = match area {
            Area::Global | Area::Generic => self.allocation(offset, u64::from(bytes)),
            Area::Shared => inside(shared).map(Found::Shared),
            Area::Local => inside(thread.local.len()).map(Found::Local),
            Area::Param => match offset.checked_sub(self.params.len() as u64) {
                None => inside(self.params.len()).map(Found::Given),
                Some(own) => usize::try_from(own)
                    .ok()
                    .filter(|start| start.saturating_add(bytes as usize) <= thread.param.len())
                    .map(Found::Param),
            },
        };
        found.ok_or_else(|| illegal(target, kind))
    }

    fn allocation(&mut self, at: u64, bytes: u64) -> Option<Found<'a>> {
        let allocations = self.allocations;
        let last = allocations.get(self.last)?;
        if !last.holds(at, bytes) {
            self.last = allocations.partition_point(|allocation| allocation.base() <= at).checked_sub(1)?;
        }
        let allocation = &allocations[self.last];
        allocation.holds(at, bytes).then(|| Found::Allocation(allocation, at - allocation.base()))
    }
}

fn illegal(target: Target, access: Kind) -> Fault {
    Fault::IllegalAddress { address: target.at, bytes: target.bytes, access }
}

/// The space of a generic address, and the address in it.
fn space_of(at: u64) -> (Area, u64) {
    let windows = [(SHARED_WINDOW, Area::Shared), (LOCAL_WINDOW, Area::Local), (PARAM_WINDOW, Area::Param)];
    let hit = windows.into_iter().find(|(window, _)| at.wrapping_sub(*window) < WINDOW_BYTES);
    hit.map_or((Area::Global, at), |(window, area)| (area, at - window))
}

/// `part` (offset and width, at most 8) of what starts at `at`; inside `bytes`, as `find` has seen to.
fn get(bytes: &[u8], at: usize, (offset, width): (u32, u32)) -> u64 {
    let start = at + offset as usize;
    let mut value = [0; 8];
    value[..width as usize].copy_from_slice(&bytes[start..start + width as usize]);
    u64::from_le_bytes(value)
}

fn put(bytes: &mut [u8], at: usize, (offset, width): (u32, u32), value: u64) {
    let start = at + offset as usize;
    bytes[start..start + width as usize].copy_from_slice(&value.to_le_bytes()[..width as usize]);
}
