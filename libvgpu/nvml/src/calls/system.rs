//! Start and end, versions, and what this system has none of.

use std::ffi::c_char;

use vgpu_api::CUDA_VERSION;

use crate::abi::{In, Out, exports};
use crate::process_name::process_name;
use crate::result::{NvmlError, words};
use crate::session::{end, session, start};
use crate::structs::{ConfComputeSettings, ConfComputeState, version_of};

/// The same as CUDA's library tells: the lower one of what the driver and what this release know.
fn cuda_version() -> Result<i32, NvmlError> {
    let version = session()?.facts().cuda_version.min(CUDA_VERSION);
    i32::try_from(version).map_err(|_| NvmlError::UNKNOWN)
}

/// The words for a number that a call gave.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: u32) -> *const c_char {
    words(result).as_ptr()
}

exports! {
    fn nvmlInit() {
        start()
    }

    fn nvmlInit_v2() {
        start()
    }

    /// Its flags are about GPUs that are missing or not attached: neither can be here.
    fn nvmlInitWithFlags(_flags: u32) {
        start()
    }

    fn nvmlShutdown() {
        end()
    }

    fn nvmlSystemGetDriverVersion(version: Out<c_char>, length: u32) {
        version.set_text(&session()?.facts().driver_version, length)
    }

    /// The major version of CUDA that it belongs to, then the driver's.
    fn nvmlSystemGetNVMLVersion(version: Out<c_char>, length: u32) {
        let session = session()?;
        let text = format!("{}.{}", cuda_version()? / 1000, session.facts().driver_version);
        version.set_text(&text, length)
    }

    fn nvmlSystemGetCudaDriverVersion(version: Out<i32>) {
        version.set(cuda_version()?)
    }

    fn nvmlSystemGetCudaDriverVersion_v2(version: Out<i32>) {
        version.set(cuda_version()?)
    }

    /// The first word of its command line, cut to fit.
    fn nvmlSystemGetProcessName(pid: u32, name: Out<c_char>, length: u32) {
        session()?;
        name.wanted()?;
        let room = (length as usize).checked_sub(1).ok_or(NvmlError::INVALID_ARGUMENT)?;
        let word = process_name(pid).ok_or(NvmlError::NOT_FOUND)?;
        name.set_all(word.into_iter().take(room).chain([0]).map(u8::cast_signed))
    }

    /// A zone has no confidential computing, whatever the card can do. NCCL asks.
    fn nvmlSystemGetConfComputeState(place: Out<ConfComputeState>) {
        session()?;
        place.set(ConfComputeState { environment: 0, feature: 0, dev_tools: 0 })
    }

    fn nvmlSystemGetConfComputeSettings(place: Out<ConfComputeSettings>) {
        session()?;
        let version = place.get()?.version;
        if version != version_of::<ConfComputeSettings>(1) {
            return Err(NvmlError::ARGUMENT_VERSION_MISMATCH);
        }
        place.set(ConfComputeSettings { version, environment: 0, feature: 0, dev_tools: 0, multi_gpu: 0 })
    }

    /// No host interface cards.
    fn nvmlSystemGetHicVersion(count: Out<u32>, _entries: In<u8>) {
        session()?;
        count.set(0)
    }

    fn nvmlUnitGetCount(count: Out<u32>) {
        session()?;
        count.set(0)
    }

    /// There is no unit, so no index is one's.
    fn nvmlUnitGetHandleByIndex(_index: u32, _unit: Out<usize>) {
        session()?;
        Err(NvmlError::INVALID_ARGUMENT)
    }

    fn nvmlGetExcludedDeviceCount(count: Out<u32>) {
        session()?;
        count.set(0)
    }
}
