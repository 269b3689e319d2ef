//! A guest process to its end: the bytes choose its records, which the declarations make, and the device that they are played on.
#![no_main]

use gpu_proxy::device::{Device, Null, Soft};
use gpu_proxy::hostile::play;
use libfuzzer_sys::fuzz_target;
use vgpu_api::hostile::Bytes;

const GRANT_BYTES: u64 = 64 << 20;
/// Of one record, about.
const CHOICES: usize = 16;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, choices)) = bytes.split_first() else { return };
    let device: Box<dyn Device> = match which % 2 {
        0 => Box::new(Null::default()),
        _ => Box::new(Soft::new(GRANT_BYTES).expect("a device")),
    };
    play(device, GRANT_BYTES, Bytes(choices), choices.len() / CHOICES);
});
