//! Pointer attributes, from the tables of ranges. Memory in none of them is the program's own: `cuPointerGetAttributes` answers for it with
//! zeros, `cuPointerGetAttribute` with 1 (invalid value).

use vgpu_api::{Access, ContextId, CuError, CuResult, PoolHandle};

use super::host_memory::{is_managed, is_mapped, pinned};
use crate::abi::{In, Out, export};
use crate::core::process::{Process, process};
use crate::core::ranges::{Home, MAPPED, POOLED, Range};

const HOST: u32 = 1;
const DEVICE: u32 = 2;
/// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS`.
const SYNC_MEMOPS: u32 = 6;

/// What every device can share by `cuIpcGetMemHandle`; some smaller allocations, too.
const IPC_BYTES_MIN: u64 = 2 << 20;

/// What an address belongs to.
#[derive(Clone, Copy)]
enum Owner {
    Device(Range),
    /// Pinned host memory, and managed memory.
    Pinned(Range),
    /// Addresses without memory: the reservation's first and its length.
    Reserved(u64, u64),
}

/// One value of an attribute, with the size that CUDA's contract gives it.
enum Value {
    Word(u32),
    Long(u64),
    Pair(u64, u64),
}

fn owner(process: &Process, address: u64) -> Option<Owner> {
    let reserved = || process.virtual_memory.reservation(address);
    let memory = process.device_memory.find(address).map(Owner::Device);
    memory
        .or_else(|| pinned(address).map(Owner::Pinned))
        .or_else(|| reserved().map(|(start, bytes)| Owner::Reserved(start, bytes)))
}

/// `CUmemAllocationHandleType` bits of a pool, as long as it has a name.
fn pool_types(process: &Process, pool: u64) -> u64 {
    let pool = PoolHandle::check(pool).and_then(|pool| process.pools.get(pool));
    pool.map_or(0, |pool| pool.handle_types.into())
}

/// Of memory that belongs to no context: mapped, or a pool's.
fn at_home(process: &Process, number: u32, address: u64, range: Range, home: Home) -> CuResult<Value> {
    let mapping = process.virtual_memory.mapping(address);
    let (start, bytes) = process.virtual_memory.reservation(address).unwrap_or((range.start, range.bytes));
    Ok(match number {
        1 => Value::Long(0),
        2 => Value::Word(DEVICE),
        3 => Value::Long(address),
        5 => Value::Pair(0, 0),
        6 => Value::Word(0),
        7 => Value::Long(range.id),
        // Two mappings may show one memory.
        20 if range.flags == MAPPED => Value::Long(home.handle),
        20 => Value::Long(range.id),
        8 | 10 | 15 | 21 => Value::Word(0),
        9 => Value::Word(home.device),
        11 => Value::Long(start),
        12 => Value::Long(bytes),
        13 => Value::Word(1),
        14 if range.flags == POOLED => Value::Long(pool_types(process, home.handle)),
        14 => Value::Long(mapping.map_or(Ok(0), |mapping| {
            process.virtual_memory.memory(mapping).map(|memory| memory.handle_types.into())
        })?),
        16 => Value::Word(mapping.map_or(Access::ReadWrite, |mapping| mapping.access) as u32),
        17 => Value::Long(if range.flags == POOLED { home.handle } else { 0 }),
        18 => Value::Long(range.bytes),
        19 => Value::Long(range.start),
        _ => return Err(CuError::INVALID_VALUE),
    })
}

/// Of reserved addresses where nothing is mapped.
fn reserved(number: u32, start: u64, bytes: u64) -> CuResult<Value> {
    Ok(match number {
        2 => Value::Word(DEVICE),
        11 => Value::Long(start),
        12 => Value::Long(bytes),
        13 => Value::Word(0),
        _ => return Err(CuError::INVALID_VALUE),
    })
}

/// Numbers: `CUpointer_attribute`.
fn value(process: &Process, number: u32, address: u64, owner: Owner) -> CuResult<Value> {
    let range = match owner {
        Owner::Reserved(start, bytes) => return reserved(number, start, bytes),
        Owner::Device(range) | Owner::Pinned(range) => range,
    };
    if let Some(home) = range.home {
        return at_home(process, number, address, range, home);
    }
    let on_device = matches!(owner, Owner::Device(_));
    // Managed memory is told of as the device's, and has a host address all the same.
    let managed = !on_device && is_managed(&range);
    // Pinned memory that the device reaches has one address for both.
    let mapped = on_device || is_mapped(&range);
    // A library's variables are in whatever context looks at them.
    let context =
        if range.context == ContextId::NONE { process.contexts.current_owner() } else { range.context };
    Ok(match number {
        1 if context == ContextId::NONE => Value::Long(0),
        1 => Value::Long(context.handle().raw()),
        2 => Value::Word(if on_device || managed { DEVICE } else { HOST }),
        3 if mapped => Value::Long(address),
        4 if !on_device => Value::Long(address),
        6 => Value::Word(0),
        7 => Value::Long(range.id),
        8 => Value::Word(managed.into()),
        9 => Value::Word(process.contexts.device_of(context)?),
        10 => Value::Word((on_device && range.flags == 0 && range.bytes >= IPC_BYTES_MIN).into()),
        11 => Value::Long(range.start),
        12 => Value::Long(range.bytes),
        13 => Value::Word(mapped.into()),
        14 => Value::Long(0),
        15 => Value::Word(0),
        16 => Value::Word(3),
        17 => Value::Long(0),
        18 if mapped => Value::Long(range.bytes),
        19 if mapped => Value::Long(range.start),
        20 => Value::Long(range.id),
        21 => Value::Word(0),
        5 => Value::Pair(0, 0),
        _ => return Err(CuError::INVALID_VALUE),
    })
}

/// Of an address that belongs to nothing: zero of the attribute's size. `cuPointerGetAttributes` gives these.
fn nothing(number: u32) -> CuResult<Value> {
    Ok(match number {
        2 | 6 | 16 => Value::Word(0),
        // NVIDIA's driver says -2 for the ordinal: no device.
        9 => Value::Word(-2i32 as u32),
        8 | 10 | 13 | 15 | 21 => Value::Word(0),
        5 => Value::Pair(0, 0),
        1 | 3 | 4 | 7 | 11 | 12 | 14 | 17..=20 => Value::Long(0),
        _ => return Err(CuError::INVALID_VALUE),
    })
}

fn write(place: *mut u8, value: &Value) -> CuResult<()> {
    fn out<T>(place: *mut u8, value: T) -> CuResult<()> {
        // SAFETY: the program gives room for the attribute that it names; null is refused by `set`.
        unsafe { Out::from_raw(place.cast::<T>()) }.set(value)
    }
    match *value {
        Value::Word(value) => out(place, value),
        Value::Long(value) => out(place, value),
        Value::Pair(a, b) => out(place, [a, b]),
    }
}

export! {
    fn cuPointerGetAttribute(data: *mut u8, number: u32, address: u64) {
        let process = process()?;
        let owner = owner(process, address).ok_or(CuError::INVALID_VALUE)?;
        write(data, &value(process, number, address, owner)?)
    }

    /// Copies are in order with all else here, so `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS` has nothing to change.
    fn cuPointerSetAttribute(setting: In<u32>, number: u32, address: u64) {
        let process = process()?;
        setting.get()?;
        match owner(process, address) {
            Some(Owner::Device(_)) if number == SYNC_MEMOPS => Ok(()),
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    /// Succeeds for any address: attributes that it doesn't have are zero.
    fn cuPointerGetAttributes(count: u32, numbers: In<u32>, data: In<*mut u8>, address: u64) {
        let process = process()?;
        if count == 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let owner = owner(process, address);
        for i in 0..count as usize {
            let number = numbers.at(i)?;
            let known = owner.and_then(|owner| value(process, number, address, owner).ok());
            write(data.at(i)?, &known.map_or_else(|| nothing(number), Ok)?)?;
        }
        Ok(())
    }
}
