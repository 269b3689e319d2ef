//! The private table that NVIDIA's own nvidia-smi asks for beside the public calls: without it that program does not start.
//!
//! No header declares it. What its slots mean is known from NVIDIA's mock of this library (github.com/NVIDIA/k8s-test-infra,
//! `pkg/gpu/mocknvml`, watched with nvidia-smi 580.65.06): a handle by its index, and three lists of processes; and from what nvidia-smi
//! 580.159.04 gives them: a slot for lines of a log. A slot that nobody knows is not supported and follows no pointer: what its
//! parameters are is not known either.

use std::ffi::c_void;

use vgpu_zone_api::guest::facts::ProcessFacts;

use super::handle::by_index;
use super::process::{list_computing, list_none};
use crate::abi::{Device, In, Out, exports, guard};
use crate::process_name::process_name;
use crate::result::NvmlError;
use crate::structs::ProcessDetail;

/// Its identity, as bytes in memory.
const ID: [u8; 16] = 0xc4fe3e6c_c98f_6c4e_a327_ee696e12f7c4_u128.to_be_bytes();
/// nvidia-smi wants more than 81, and none beyond 249 is known.
const SLOTS: usize = 256;
const NAME_BYTES: usize = 4096;

/// A slot: a function, or in the first one the table's size in bytes.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Slot(*const c_void);
// SAFETY: addresses of functions of this library, or a number.
unsafe impl Sync for Slot {}

static TABLE: [Slot; SLOTS] = {
    let mut slots = [Slot(unknown as *const c_void); SLOTS];
    slots[0] = Slot(std::ptr::without_provenance(SLOTS * size_of::<Slot>()));
    slots[26] = Slot(line as *const c_void);
    slots[81] = Slot(handle_by_index as *const c_void);
    // Which of the three is which has not been seen; one of them has the processes.
    slots[213] = Slot(computing as *const c_void);
    slots[214] = Slot(nobody as *const c_void);
    slots[215] = Slot(nobody as *const c_void);
    slots
};

/// A process with its name: the public structure, and text behind it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Named {
    process: ProcessDetail,
    name: [u8; NAME_BYTES],
}
const _: () = assert!(size_of::<Named>() == 4128);

impl From<&ProcessFacts> for Named {
    fn from(facts: &ProcessFacts) -> Self {
        let mut name = [0; NAME_BYTES];
        let known = process_name(facts.pid).unwrap_or_default();
        // The last byte stays a NUL.
        name[..NAME_BYTES - 1].iter_mut().zip(known).for_each(|(place, byte)| *place = byte);
        Self { process: ProcessDetail::from(facts), name }
    }
}

extern "C" fn unknown() -> u32 {
    guard("a slot of the private table", || Err(NvmlError::NOT_SUPPORTED))
}

/// Each line that nvidia-smi prints, for the library's debugging log, of which there is none. It prints nothing more after a refusal.
extern "C" fn line() -> u32 {
    guard("slot 26 of the private table", || Ok(()))
}

extern "C" fn handle_by_index(index: u32, place: Out<Device>) -> u32 {
    guard("slot 81 of the private table", move || by_index(index, place))
}

extern "C" fn computing(device: Device, count: Out<u32>, list: Out<Named>) -> u32 {
    guard("slot 213 of the private table", move || list_computing(device, count, list))
}

extern "C" fn nobody(device: Device, count: Out<u32>, list: Out<Named>) -> u32 {
    guard("slot 214 or 215 of the private table", move || list_none(device, count, list))
}

exports! {
    fn nvmlInternalGetExportTable(place: Out<*const Slot>, id: In<[u8; 16]>) {
        place.wanted()?;
        if id.get()? != ID {
            place.set(std::ptr::null())?;
            return Err(NvmlError::INVALID_ARGUMENT);
        }
        place.set(TABLE.as_ptr())
    }
}
