//! Attributes of streams. The values are kept here, so reading them needs nobody; the device is told of each change.
//!
//! What they change is when and how fast work runs, never its result: a device without such hardware may ignore them.

use std::collections::HashMap;
use std::sync::Mutex;

use vgpu_api::launch::attribute::{
    ACCESS_POLICY_WINDOW, MEM_SYNC_DOMAIN, MEM_SYNC_DOMAIN_MAP, NVLINK_UTIL_CENTRIC_SCHEDULING, OF_STREAMS,
    PRIORITY, SYNCHRONIZATION_POLICY,
};
use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, LaunchAttribute, Stream, ask};

use super::device::attribute;
use super::stream::existing;
use crate::abi::{In, Out, Raw, export};
use crate::core::contexts::{Entered, enter};
use crate::core::process::StreamInfo;
use crate::core::slab::lock;
use crate::core::streams::info;

/// `CU_DEVICE_ATTRIBUTE_MAX_ACCESS_POLICY_WINDOW_SIZE`.
const WINDOW_BYTES_MAX: u32 = 109;
/// `CU_DEVICE_ATTRIBUTE_MEM_SYNC_DOMAIN_COUNT`.
const DOMAIN_COUNT: u32 = 126;
/// `CU_ACCESS_PROPERTY_PERSISTING`.
const PERSISTING: u32 = 2;

/// `CUstreamAttrValue`.
type Value = [u8; 64];

/// By the attribute's number.
type Values = HashMap<u32, Value>;

/// What was set, by the stream's id, which no other stream of the process has; the default stream's are its context's.
static SET: Mutex<Option<HashMap<(u64, u64), Values>>> = Mutex::new(None);

fn key(info: &StreamInfo) -> (u64, u64) {
    (info.context.0.into(), info.id)
}

/// A stream has ended.
pub fn forget(info: &StreamInfo) {
    if let Some(all) = lock(&SET).as_mut() {
        all.remove(&key(info));
    }
}

/// A context has ended.
pub fn forget_context(context: vgpu_api::ContextId) {
    if let Some(all) = lock(&SET).as_mut() {
        all.retain(|(of, _), _| *of != u64::from(context.0));
    }
}

fn word(value: &Value, place: usize) -> u32 {
    let bytes = value.get(4 * place..).and_then(|rest| rest.first_chunk::<4>());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn long(value: &Value, place: usize) -> u64 {
    u64::from(word(value, 2 * place)) | u64::from(word(value, 2 * place + 1)) << 32
}

/// What a stream has that nobody set.
fn default(number: u32, info: &StreamInfo) -> Value {
    let (mut value, priority) = ([0; 64], info.priority.to_le_bytes());
    let first: &[u8] = match number {
        // Which is none of cuda.h's; a driver says so all the same.
        SYNCHRONIZATION_POLICY => &[0xff; 4],
        PRIORITY => &priority,
        // Default and remote work: domains 0 and 1.
        MEM_SYNC_DOMAIN_MAP => &[0, 1],
        _ => &[],
    };
    value[..first.len()].copy_from_slice(first);
    value
}

fn get(number: u32, info: &StreamInfo) -> CuResult<Value> {
    if !OF_STREAMS.contains(&number) {
        return Err(CuError::INVALID_VALUE);
    }
    let all = lock(&SET);
    let set = all.as_ref().and_then(|all| all.get(&key(info))?.get(&number).copied());
    Ok(set.unwrap_or_else(|| default(number, info)))
}

/// What kernels that a stream captures have of it: what was set, and its priority if that is not the usual one.
pub fn of_nodes(entered: Entered, stream: Stream) -> CuResult<Vec<LaunchAttribute>> {
    let Stream::Made(handle) = stream else { return Ok(Vec::new()) };
    let known = entered.process.streams.get(handle)?;
    let of_node = |number: &u32| *number != SYNCHRONIZATION_POLICY;
    let mut attributes = Vec::new();
    for number in OF_STREAMS.into_iter().filter(of_node) {
        let (value, plain) = (get(number, &known)?, default(number, &StreamInfo { priority: 0, ..known }));
        if value != plain {
            attributes.push(LaunchAttribute { id: number, value });
        }
    }
    Ok(attributes)
}

fn check(entered: Entered, number: u32, value: &Value) -> CuResult<()> {
    let process = entered.process;
    let device = process.devices.get(entered.device as usize).ok_or(CuError::INVALID_CONTEXT)?;
    let limit = |number| attribute(device, number).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(0);
    let good = match number {
        // Address, length, share of hits, what hits and misses are.
        ACCESS_POLICY_WINDOW => {
            let (at, bytes) = (long(value, 0), long(value, 1));
            let inside = bytes == 0 || process.device_memory.covers(at, bytes) == Some(true);
            let share = f32::from_bits(word(value, 4));
            let kinds = word(value, 5) <= PERSISTING && word(value, 6) < PERSISTING;
            inside && bytes <= u64::from(limit(WINDOW_BYTES_MAX)) && (0.0..=1.0).contains(&share) && kinds
        }
        SYNCHRONIZATION_POLICY => (1..=4).contains(&word(value, 0)),
        // Brought into the device's range.
        PRIORITY => true,
        MEM_SYNC_DOMAIN_MAP => {
            value[..2].iter().all(|domain| u32::from(*domain) < limit(DOMAIN_COUNT).max(2))
        }
        MEM_SYNC_DOMAIN | NVLINK_UTIL_CENTRIC_SCHEDULING => word(value, 0) <= 1,
        _ => false,
    };
    if good { Ok(()) } else { Err(CuError::INVALID_VALUE) }
}

fn set(entered: Entered, stream: Stream, known: &StreamInfo, number: u32, mut value: Value) -> CuResult<()> {
    let (channel, context) = (&entered.process.channel, entered.context);
    if number == PRIORITY {
        let range = &entered.process.snapshot;
        let priority = word(&value, 0).cast_signed().clamp(range.priority_greatest, range.priority_least);
        value[..4].copy_from_slice(&priority.to_le_bytes());
    }
    ask::vgpuStreamSetAttribute(channel, context, stream, number, &value)?;
    let mut all = lock(&SET);
    all.get_or_insert_default().entry(key(known)).or_default().insert(number, value);
    drop(all);
    if let (PRIORITY, Stream::Made(handle)) = (number, stream) {
        let priority = word(&value, 0).cast_signed();
        entered.process.streams.set(handle, StreamInfo { priority, ..*known })?;
    }
    Ok(())
}

fn named(stream: Raw, mode: Mode) -> CuResult<(Entered, Stream, StreamInfo)> {
    let entered = enter()?;
    Ok((entered, existing(entered, stream, mode)?, info(entered, stream.0, mode)?))
}

export! {
    fn cuStreamGetAttribute | cuStreamGetAttribute_ptsz(mode, stream: Raw, number: u32, out: Out<Value>) {
        let (_, _, known) = named(stream, mode)?;
        out.set(get(number, &known)?)
    }

    fn cuStreamSetAttribute | cuStreamSetAttribute_ptsz(mode, stream: Raw, number: u32, value: In<Value>) {
        let (entered, stream, known) = named(stream, mode)?;
        let value = value.get()?;
        check(entered, number, &value)?;
        set(entered, stream, &known, number, value)
    }

    /// What neither stream was given stays as it is.
    fn cuStreamCopyAttributes | cuStreamCopyAttributes_ptsz(mode, to: Raw, from: Raw) {
        let (_, _, source) = named(from, mode)?;
        let (entered, stream, known) = named(to, mode)?;
        if source.context != known.context {
            return Err(CuError::INVALID_VALUE);
        }
        for number in OF_STREAMS {
            let value = get(number, &source)?;
            if value != get(number, &known)? {
                set(entered, stream, &known, number, value)?;
            }
        }
        Ok(())
    }
}
