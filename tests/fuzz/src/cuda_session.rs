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
    let (devices, device): (u32, Box<dyn Device>) = match which % 3 {
        0 => (1, Box::new(Null::default())),
        1 => (1, Box::new(Soft::new(GRANT_BYTES).expect("a device"))),
        _ => (2, Box::new(Soft::with_devices(2, GRANT_BYTES).expect("devices"))),
    };
    play(device, devices, GRANT_BYTES, Bytes(choices), choices.len() / CHOICES);
});
