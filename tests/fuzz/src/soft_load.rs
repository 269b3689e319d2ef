//! Any bytes as an image, and what loads of them as kernels, within a budget; as a text whose managed variables get addresses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vgpu_soft::{Chosen, Device, DeviceConfig, LaunchConfig, Module};

fuzz_target!(|image: &[u8]| {
    let _ = vgpu_soft::each_machine_code(image, vgpu_soft::COMPUTE_CAPABILITY, |_| {});
    if let Ok(Chosen::Ptx(text)) = vgpu_soft::chosen(image, vgpu_soft::COMPUTE_CAPABILITY, true)
        && let Ok(found) = vgpu_soft::managed_variables(&text)
    {
        let addresses = found.into_iter().map(|one| (one.name, 0x6800_0000_0200)).collect();
        let _ = vgpu_soft::place_managed(&text, &addresses);
    }
    let Ok(module) = Module::load(image) else { return };
    let config = DeviceConfig { memory_bytes: 1 << 20, instructions_max: Some(10_000), ..Default::default() };
    let device = Device::new(config);
    let Ok(instance) = device.instantiate(&module) else { return };
    let shape = LaunchConfig { grid: [2, 1, 1], block: [40, 1, 1], shared_bytes: 64 };
    for (index, function) in module.functions().iter().enumerate() {
        let _ = device.launch(&instance, index, &shape, &vec![0; function.parameter_bytes as usize]);
    }
});
