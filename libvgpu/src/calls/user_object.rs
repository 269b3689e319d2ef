//! User objects: a count of owners, and a function of the program that runs when there are none. All in the guest.

use std::sync::Mutex;

use vgpu_api::handle::{Handle, kind};
use vgpu_api::{CuError, CuResult};

use crate::abi::{Out, Raw, Span, export};
use crate::core::host_functions::{HostFn, HostFunction, run_here};
use crate::core::process::process;
use crate::core::slab::{Slab, lock};

/// `CU_USER_OBJECT_NO_DESTRUCTOR_SYNC`, the only flag, and one that has to be there.
const NO_DESTRUCTOR_SYNC: u32 = 1;
/// Owners of one object at most.
const OWNERS_MAX: u32 = i32::MAX.unsigned_abs();

#[derive(Debug, Clone, Copy)]
struct Object {
    owners: u32,
    destroy: HostFunction,
}

static OBJECTS: Slab<Object> = Slab::new();
/// Held while a count changes, never while code of the program runs.
static COUNTING: Mutex<()> = Mutex::new(());

fn object(raw: Raw, count: u32) -> CuResult<(Handle<kind::UserObject>, Object)> {
    process()?;
    let handle = Handle::check(raw.0)?;
    if !(1..=OWNERS_MAX).contains(&count) {
        return Err(CuError::INVALID_VALUE);
    }
    Ok((handle, OBJECTS.get(handle)?))
}

export! {
    fn cuUserObjectCreate(out: Out<u64>, data: Span, destroy: Option<HostFn>, owners: u32, flags: u32) {
        process()?;
        let (out, function) = (out.wanted()?, destroy.ok_or(CuError::INVALID_VALUE)?);
        if !(1..=OWNERS_MAX).contains(&owners) || flags != NO_DESTRUCTOR_SYNC {
            return Err(CuError::INVALID_VALUE);
        }
        let destroy = HostFunction::Plain { function, data: data.address() };
        let handle: Handle<kind::UserObject> = OBJECTS.insert(Object { owners, destroy });
        out.set(handle.raw())
    }

    fn cuUserObjectRetain(raw: Raw, count: u32) {
        let _counting = lock(&COUNTING);
        let (handle, object) = object(raw, count)?;
        let owners = object.owners.checked_add(count).filter(|owners| *owners <= OWNERS_MAX);
        OBJECTS.set(handle, Object { owners: owners.ok_or(CuError::INVALID_VALUE)?, ..object })
    }

    /// The last release runs the program's function, which may not call CUDA, before it returns.
    fn cuUserObjectRelease(raw: Raw, count: u32) {
        let counting = lock(&COUNTING);
        let (handle, object) = object(raw, count)?;
        let owners = object.owners.checked_sub(count).ok_or(CuError::INVALID_VALUE)?;
        if owners > 0 {
            return OBJECTS.set(handle, Object { owners, ..object });
        }
        OBJECTS.end(handle, |_| ())?;
        drop(counting);
        run_here(object.destroy);
        Ok(())
    }
}
