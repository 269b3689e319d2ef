//! Whole kernels, as nvcc 13 compiled them: results against the same sums on the host.

use vgpu_soft::{Device, DeviceConfig, Fault, Instance, LaunchConfig, Module};

struct Bench {
    device: Device,
    instance: Instance,
}

/// What a kernel gets: each argument's bytes, placed by the kernel's own layout.
enum Arg {
    Pointer(u64),
    Int(i32),
    Float(f32),
}

impl Bench {
    fn new(text: &str) -> Self {
        Self::with_threads(text, 2)
    }

    fn with_threads(text: &str, host_threads: usize) -> Self {
        let device = Device::new(DeviceConfig { memory_bytes: 64 << 20, seed: 7, host_threads, ..Default::default() });
        let module = Module::load(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        let instance = device.instantiate(&module).unwrap();
        Self { device, instance }
    }

    fn put<T: Copy, const N: usize>(&self, values: &[T], bytes: impl Fn(T) -> [u8; N]) -> u64 {
        let data: Vec<u8> = values.iter().flat_map(|value| bytes(*value)).collect();
        let address = self.device.memory().alloc(data.len() as u64).unwrap();
        self.device.memory().write(address, &data).unwrap();
        address
    }

    fn floats(&self, values: &[f32]) -> u64 {
        self.put(values, f32::to_le_bytes)
    }

    fn words(&self, values: &[u32]) -> u64 {
        self.put(values, u32::to_le_bytes)
    }

    fn get_words(&self, address: u64, count: usize) -> Vec<u32> {
        let mut data = vec![0; 4 * count];
        self.device.memory().read(address, &mut data).unwrap();
        data.chunks(4).map(|chunk| u32::from_le_bytes(chunk.try_into().unwrap())).collect()
    }

    fn get_floats(&self, address: u64, count: usize) -> Vec<f32> {
        self.get_words(address, count).into_iter().map(f32::from_bits).collect()
    }

    fn launch(&self, name: &str, grid: [u32; 3], block: [u32; 3], shared_bytes: u32, args: &[Arg]) -> Result<(), Fault> {
        let functions = self.instance.module().functions();
        let index = functions.iter().position(|f| f.name == name).expect("a kernel of that name");
        let mut packed = vec![0; functions[index].parameter_bytes as usize];
        assert_eq!(functions[index].parameters.len(), args.len());
        for (arg, place) in args.iter().zip(&functions[index].parameters) {
            let bytes = match arg {
                Arg::Pointer(value) => value.to_le_bytes().to_vec(),
                Arg::Int(value) => value.to_le_bytes().to_vec(),
                Arg::Float(value) => value.to_le_bytes().to_vec(),
            };
            assert_eq!(bytes.len(), place.size as usize);
            packed[place.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        self.device.launch(&self.instance, index, &LaunchConfig { grid, block, shared_bytes }, &packed)
    }
}
