//! The bytes of one record as the worker gets them: two of the op, one for the reply flag, the payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vgpu_api::{Call, ContextId, ImageInfo, Refuses, Snapshot, dispatch};

fuzz_target!(|bytes: &[u8]| {
    let Some((&[low, high, flag], payload)) = bytes.split_first_chunk::<3>() else { return };
    let call = Call { context: ContextId(u32::from(flag >> 1)), sync: flag & 1 == 1 };
    let _ = dispatch(&mut Refuses, u16::from_le_bytes([low, high]), call, payload, &mut [0; 4080]);
    let _ = Snapshot::parse(payload);
    let _ = ImageInfo::parse(payload);
    let _ = vgpu_api::graph::parse(payload);
});
