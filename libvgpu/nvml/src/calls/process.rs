//! The container's own processes, by the pids that the asking process knows. Of others there is nothing, not even a count.

use vgpu_zone_api::guest::facts::ProcessFacts;

use crate::abi::{Device, Out, exports};
use crate::result::{NvmlError, NvmlResult};
use crate::session::session;
use crate::structs::{ProcessDetail, ProcessDetailList, ProcessV1, ProcessV2, version_of};

/// For a device that is not divided: `gpuInstanceId`, `computeInstanceId`. And for what is not measured. Source: nvml.h.
const NO_INSTANCE: u32 = u32::MAX;
const NOT_AVAILABLE: u64 = u64::MAX;
/// Modes of `nvmlProcessDetailList_t`: computing, graphics, through MPS.
const COMPUTE: u32 = 0;
const MODES: u32 = 3;
/// The place of `numProcArrayEntries` among the structure's 32-bit words.
const COUNT_WORD: usize = std::mem::offset_of!(ProcessDetailList, count) / 4;

impl From<&ProcessFacts> for ProcessV1 {
    fn from(facts: &ProcessFacts) -> Self {
        Self { pid: facts.pid, used_bytes: facts.used_bytes }
    }
}

impl From<&ProcessFacts> for ProcessV2 {
    fn from(facts: &ProcessFacts) -> Self {
        Self {
            pid: facts.pid,
            used_bytes: facts.used_bytes,
            gpu_instance: NO_INSTANCE,
            compute_instance: NO_INSTANCE,
        }
    }
}

impl From<&ProcessFacts> for ProcessDetail {
    fn from(facts: &ProcessFacts) -> Self {
        Self {
            pid: facts.pid,
            used_bytes: facts.used_bytes,
            gpu_instance: NO_INSTANCE,
            compute_instance: NO_INSTANCE,
            protected_bytes: NOT_AVAILABLE,
        }
    }
}

/// Those that compute on it now.
fn computing(device: Device) -> NvmlResult<Vec<ProcessFacts>> {
    let session = session()?;
    let (index, _) = session.device(device)?;
    let mut processes = session.now()?.processes;
    processes.retain(|process| process.device as usize == index);
    Ok(processes)
}

/// Writes how many there are, and all of them if the program has room.
fn fill<T: for<'a> From<&'a ProcessFacts>>(
    processes: &[ProcessFacts],
    count: Out<u32>,
    list: Out<T>,
) -> NvmlResult<()> {
    let room = count.get()? as usize;
    if room > 0 {
        list.wanted()?;
    }
    count.set(u32::try_from(processes.len()).unwrap_or(u32::MAX))?;
    match processes.len() {
        0 => Ok(()),
        length if length > room => Err(NvmlError::INSUFFICIENT_SIZE),
        _ => list.set_all(processes.iter().map(T::from)),
    }
}

pub fn list_computing<T: for<'a> From<&'a ProcessFacts>>(
    device: Device,
    count: Out<u32>,
    list: Out<T>,
) -> NvmlResult<()> {
    session()?.device(device)?;
    count.wanted()?;
    fill(&computing(device)?, count, list)
}

/// Nothing draws, and nothing goes through MPS.
pub fn list_none<T: for<'a> From<&'a ProcessFacts>>(
    device: Device,
    count: Out<u32>,
    list: Out<T>,
) -> NvmlResult<()> {
    session()?.device(device)?;
    fill(&[], count, list)
}

exports! {
    fn nvmlDeviceGetComputeRunningProcesses(device: Device, count: Out<u32>, list: Out<ProcessV1>) {
        list_computing(device, count, list)
    }

    fn nvmlDeviceGetComputeRunningProcesses_v2(device: Device, count: Out<u32>, list: Out<ProcessV2>) {
        list_computing(device, count, list)
    }

    fn nvmlDeviceGetComputeRunningProcesses_v3(device: Device, count: Out<u32>, list: Out<ProcessV2>) {
        list_computing(device, count, list)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses(device: Device, count: Out<u32>, list: Out<ProcessV1>) {
        list_none(device, count, list)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v2(device: Device, count: Out<u32>, list: Out<ProcessV2>) {
        list_none(device, count, list)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v3(device: Device, count: Out<u32>, list: Out<ProcessV2>) {
        list_none(device, count, list)
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses(device: Device, count: Out<u32>, list: Out<ProcessV1>) {
        list_none(device, count, list)
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses_v2(device: Device, count: Out<u32>, list: Out<ProcessV2>) {
        list_none(device, count, list)
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(device: Device, count: Out<u32>, list: Out<ProcessV2>) {
        list_none(device, count, list)
    }

    fn nvmlDeviceGetRunningProcessDetailList(device: Device, place: Out<ProcessDetailList>) {
        session()?.device(device)?;
        let asked = place.get()?;
        if asked.version != version_of::<ProcessDetailList>(1) {
            return Err(NvmlError::ARGUMENT_VERSION_MISMATCH);
        }
        let processes = match asked.mode {
            COMPUTE => computing(device)?,
            1..MODES => Vec::new(),
            _ => return Err(NvmlError::INVALID_ARGUMENT),
        };
        fill(&processes, place.cast().at(COUNT_WORD), asked.list)
    }
}
