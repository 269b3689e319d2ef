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
        let device =
            Device::new(DeviceConfig { memory_bytes: 64 << 20, seed: 7, host_threads, ..Default::default() });
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

    fn launch(
        &self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        args: &[Arg],
    ) -> Result<(), Fault> {
        let functions = self.instance.module().functions();
        let index = functions.iter().position(|f| f.name == name).expect("a kernel of that name");
        let mut packed = vec![0; functions[index].parameter_bytes as usize];
        assert_eq!(functions[index].parameters.len(), args.len());
        for (arg, place) in args.iter().zip(&functions[index].parameters) {
            let bytes = match arg {
                Pointer(value) => value.to_le_bytes().to_vec(),
                Int(value) => value.to_le_bytes().to_vec(),
                Float(value) => value.to_le_bytes().to_vec(),
            };
            assert_eq!(bytes.len(), place.size as usize);
            packed[place.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        self.device.launch(&self.instance, index, &LaunchConfig { grid, block, shared_bytes }, &packed)
    }
}

use Arg::{Float, Int, Pointer};

const VECTOR_ADD: &str = include_str!("kernels/vector_add.ptx");
const SAXPY: &str = include_str!("kernels/saxpy.ptx");
const REDUCE: &str = include_str!("kernels/reduce.ptx");
const MATMUL: &str = include_str!("kernels/matmul_tiled.ptx");
const HISTOGRAM: &str = include_str!("kernels/histogram.ptx");
const FEATURES: &str = include_str!("kernels/features.ptx");

fn count(n: usize) -> Arg {
    Int(i32::try_from(n).unwrap())
}

#[test]
fn sums_of_vectors_are_the_cpus() {
    let bench = Bench::new(VECTOR_ADD);
    let (a, b): (Vec<f32>, Vec<f32>) =
        (0..1000u16).map(|i| (f32::from(i) * 0.1, 7.0 - f32::from(i) * 3.3)).unzip();
    let (ga, gb, gc) = (bench.floats(&a), bench.floats(&b), bench.floats(&[0.0; 1000]));
    let args = [Pointer(ga), Pointer(gb), Pointer(gc), count(1000)];
    bench.launch("_Z3addPKfS0_Pfi", [4, 1, 1], [256, 1, 1], 0, &args).unwrap();
    for ((a, b), c) in a.iter().zip(&b).zip(bench.get_floats(gc, 1000)) {
        assert_eq!(a + b, c);
    }
}

#[test]
fn saxpy_is_fused_and_strides_over_the_grid() {
    let bench = Bench::new(SAXPY);
    let (x, y): (Vec<f32>, Vec<f32>) = (0..777u16).map(|i| (f32::from(i) / 3.0, f32::from(i) / -7.0)).unzip();
    let (gx, gy) = (bench.floats(&x), bench.floats(&y));
    bench
        .launch(
            "_Z5saxpyifPKfPf",
            [3, 1, 1],
            [64, 1, 1],
            0,
            &[count(777), Float(1.7), Pointer(gx), Pointer(gy)],
        )
        .unwrap();
    for ((x, y), found) in x.iter().zip(&y).zip(bench.get_floats(gy, 777)) {
        assert_eq!(1.7f32.mul_add(*x, *y), found);
    }
}

#[test]
fn both_reductions_find_the_sum() {
    let bench = Bench::new(REDUCE);
    let values: Vec<u32> = (0..5000).map(|i| i * 7919 % 65521).collect();
    let expected: u64 = values.iter().map(|v| u64::from(*v)).sum();
    let (input, sums) = (bench.words(&values), bench.words(&[0; 4]));
    let args = |sum| [Pointer(input), Int(5000), Pointer(sum)];
    bench.launch("_Z7by_treePKjjPy", [20, 1, 1], [256, 1, 1], 1024, &args(sums)).unwrap();
    bench.launch("_Z11by_shufflesPKjjPy", [40, 1, 1], [128, 1, 1], 0, &args(sums + 8)).unwrap();
    let sums: Vec<u64> =
        bench.get_words(sums, 4).chunks(2).map(|w| u64::from(w[1]) << 32 | u64::from(w[0])).collect();
    assert_eq!(sums, [expected, expected]);
}

#[test]
fn a_tiled_product_is_exact() {
    let side = 96;
    let bench = Bench::new(MATMUL);
    let a: Vec<f32> =
        (0..side * side).map(|i| f32::from(u16::try_from(i * 31 % 17).unwrap()) - 8.0).collect();
    let b: Vec<f32> =
        (0..side * side).map(|i| f32::from(u16::try_from(i * 53 % 19).unwrap()) - 9.0).collect();
    let (ga, gb, gc) = (bench.floats(&a), bench.floats(&b), bench.floats(&vec![0.0; side * side]));
    bench
        .launch("_Z7productPKfS0_Pf", [6, 6, 1], [16, 16, 1], 0, &[Pointer(ga), Pointer(gb), Pointer(gc)])
        .unwrap();
    let found = bench.get_floats(gc, side * side);
    for row in 0..side {
        for column in 0..side {
            let expected: f32 = (0..side).map(|k| a[row * side + k] * b[k * side + column]).sum();
            assert_eq!(found[row * side + column], expected);
        }
    }
}

#[test]
fn a_histogram_is_right_on_one_and_on_many_host_threads() {
    let data: Vec<u32> = (0..2500u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    let mut expected = vec![0; 256];
    data.iter().flat_map(|w| w.to_le_bytes()).for_each(|byte| expected[usize::from(byte)] += 1);
    for host_threads in [1, 4] {
        let bench = Bench::with_threads(HISTOGRAM, host_threads);
        let (input, bins) = (bench.words(&data), bench.words(&[0; 256]));
        let args = [Pointer(input), Int(10000), Pointer(bins)];
        bench.launch("_Z11count_bytesPKhiPj", [8, 1, 1], [256, 1, 1], 0, &args).unwrap();
        assert_eq!(bench.get_words(bins, 256), expected);
    }
}

#[test]
fn a_lock_between_lanes_of_a_warp_is_taken_by_each() {
    let bench = Bench::with_threads(FEATURES, 3);
    let words = bench.words(&[0, 0]);
    let args = [Pointer(words), Pointer(words + 4)];
    bench.launch("_Z6lockedPiS_", [4, 1, 1], [96, 1, 1], 0, &args).unwrap();
    assert_eq!(bench.get_words(words, 2), [0, 4 * 96]);
}

#[test]
fn calls_by_pointer_reach_their_functions() {
    let bench = Bench::new(FEATURES);
    let out = bench.words(&[0; 32]);
    bench.launch("_Z4callPi", [1, 1, 1], [32, 1, 1], 0, &[Pointer(out)]).unwrap();
    let expected: Vec<u32> = (0..32).map(|i| if i % 2 == 1 { 2 * i } else { i + 1 }).collect();
    assert_eq!(bench.get_words(out, 32), expected);
}

#[test]
fn printf_arrives_and_is_taken_once() {
    let bench = Bench::new(FEATURES);
    bench.launch("_Z5helloi", [1, 1, 1], [1, 1, 1], 0, &[Int(9)]).unwrap();
    assert_eq!(bench.device.take_output(), b"features: hello from the GPU, 9 and 2.25\n");
    assert!(bench.device.take_output().is_empty());
}

#[test]
fn variables_start_with_their_values_and_have_addresses() {
    let bench = Bench::new(FEATURES);
    let index = bench.instance.module().globals().iter().position(|g| g.name == "counter").unwrap();
    let address = bench.instance.addresses()[index];
    assert_eq!(bench.get_words(address, 1), [5]);
    bench.launch("_Z5counti", [2, 1, 1], [32, 1, 1], 0, &[Int(3)]).unwrap();
    assert_eq!(bench.get_words(address, 1), [5 + 64 * 3]);
    bench.device.unload(&bench.instance);
    assert!(!bench.device.memory().contains(address, 1));
}
