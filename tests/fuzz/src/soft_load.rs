//! Any bytes as an image, and what loads of them as kernels, within a budget.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vgpu_soft::{Device, DeviceConfig, LaunchConfig, Module};

fuzz_target!(|image: &[u8]| {
    let _ = vgpu_soft::each_machine_code(image, vgpu_soft::COMPUTE_CAPABILITY, |_| {});
    let Ok(module) = Module::load(image) else { return };
    let config = DeviceConfig { memory_bytes: 1 << 20, instructions_max: Some(10_000), ..Default::default() };
    let device = Device::new(config);
    let Ok(instance) = device.instantiate(&module) else { return };
    let shape = LaunchConfig { grid: [2, 1, 1], block: [40, 1, 1], shared_bytes: 64 };
    for (index, function) in module.functions().iter().enumerate() {
        let _ = device.launch(&instance, index, &shape, &vec![0; function.parameter_bytes as usize]);
    }
});
