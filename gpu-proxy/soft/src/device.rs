//! One software GPU, or several with one space of addresses: their memory, and the door for launches.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::exec;
use crate::texture::{Objects, Surface, Texture};
use crate::{Conditions, Fault, Memory, MemoryError, Module};

/// How a device is made.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// How many devices there are.
    pub devices: u32,
    /// Memory of each device in bytes.
    pub memory_bytes: u64,
    /// Where addresses start follows from it. Draw it afresh for each worker.
    pub seed: u64,
    /// Host threads that run the blocks of one launch.
    pub host_threads: usize,
    /// Most instructions of all warps together that one launch may run; `None` for no end.
    pub instructions_max: Option<u64>,
}

impl Default for DeviceConfig {
    /// One device, 4 GiB, one host thread, no limit on instructions.
    fn default() -> Self {
        Self { devices: 1, memory_bytes: 4 << 30, seed: 0, host_threads: 1, instructions_max: None }
    }
}

/// The shape of a launch: blocks of the grid and threads of a block along x, y, z, and dynamic shared memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks along x, y, z; none is 0.
    pub grid: [u32; 3],
    /// Threads along x, y, z; none is 0.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes, beside what the kernel has of its own.
    pub shared_bytes: u32,
}

/// A module with its variables in a device's memory.
#[derive(Debug, Clone)]
pub struct Instance {
    pub(crate) module: Module,
    device: u32,
    addresses: Vec<u64>,
    references: Vec<u64>,
}

impl Instance {
    /// The module it was made from.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// The device whose kernels they are.
    pub fn device(&self) -> u32 {
        self.device
    }

    /// The device address of each of [`Module::globals`], in the same order.
    pub fn addresses(&self) -> &[u64] {
        &self.addresses
    }

    /// The number of each of [`Module::references`], in the same order: kernels know by it what [`Device::texture_bind`] or
    /// [`Device::surface_bind`] has given it.
    pub fn references(&self) -> &[u64] {
        &self.references
    }
}

/// Bytes of kernels' output kept until they are taken. As the hardware's printf buffer, it drops what does not fit.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Told of instructions that warps have run, as they run them, by the host thread that ran them: each time of some ten thousand at most.
/// The thread goes on when it returns, so kernels can be held up by it. All instructions are told of before the launch returns.
pub type Meter = Arc<dyn Fn(u64) + Send + Sync>;

/// The software GPU, or all of them. Shared by reference; launches from several threads run side by side.
pub struct Device {
    config: DeviceConfig,
    meter: Option<Meter>,
    memory: Memory,
    objects: Mutex<Arc<Objects>>,
    conditions: Conditions,
    output: Mutex<Vec<u8>>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Device {
    /// With nothing in memory.
    pub fn new(config: DeviceConfig) -> Self {
        let memory = Memory::of_devices(config.devices, config.memory_bytes, config.seed);
        Self {
            config,
            meter: None,
            memory,
            objects: Mutex::default(),
            conditions: Conditions::default(),
            output: Mutex::default(),
        }
    }

    /// Has the instructions of all launches from now on told.
    pub fn set_meter(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    /// Its memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Values of conditional nodes, which kernels set.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Makes a texture object; its number, never 0 and never given twice. Whatever its levels say, kernels read no memory by it that
    /// they could not read themselves.
    pub fn texture_create(&self, texture: Texture) -> u64 {
        let mut objects = self.objects();
        let objects = Arc::make_mut(&mut objects);
        objects.last += 1;
        objects.textures.insert(objects.last, Arc::new(texture));
        objects.last
    }

    /// Ends a texture object; whether there was one. A launch that is running keeps it.
    pub fn texture_destroy(&self, texture: u64) -> bool {
        Arc::make_mut(&mut self.objects()).textures.remove(&texture).is_some()
    }

    /// Makes a surface object; its number, as of a texture.
    pub fn surface_create(&self, surface: Surface) -> u64 {
        let mut objects = self.objects();
        let objects = Arc::make_mut(&mut objects);
        objects.last += 1;
        objects.surfaces.insert(objects.last, Arc::new(surface));
        objects.last
    }

    /// Ends a surface object; whether there was one.
    pub fn surface_destroy(&self, surface: u64) -> bool {
        Arc::make_mut(&mut self.objects()).surfaces.remove(&surface).is_some()
    }

    /// Binds a texture reference, by its number, to a texture from the next launch on. `None`: to nothing, and who reads by it faults.
    pub fn texture_bind(&self, reference: u64, texture: Option<Texture>) {
        let mut objects = self.objects();
        let textures = &mut Arc::make_mut(&mut objects).textures;
        match texture {
            Some(texture) => textures.insert(reference, Arc::new(texture)),
            None => textures.remove(&reference),
        };
    }

    /// As [`Device::texture_bind`], of a surface reference.
    pub fn surface_bind(&self, reference: u64, surface: Option<Surface>) {
        let mut objects = self.objects();
        let surfaces = &mut Arc::make_mut(&mut objects).surfaces;
        match surface {
            Some(surface) => surfaces.insert(reference, Arc::new(surface)),
            None => surfaces.remove(&reference),
        };
    }

    fn objects(&self) -> MutexGuard<'_, Arc<Objects>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the module's variables addresses in this device's memory and writes their first values.
    /// # Errors
    /// [`MemoryError::OutOfMemory`]; then nothing stays allocated.
    pub fn instantiate(&self, module: &Module) -> Result<Instance, MemoryError> {
        self.instantiate_on(0, module)
    }

    /// As [`Device::instantiate`], in the memory of a device: its kernels run there.
    /// # Errors
    /// As [`Device::instantiate`].
    pub fn instantiate_on(&self, device: u32, module: &Module) -> Result<Instance, MemoryError> {
        let mut addresses = Vec::with_capacity(module.globals().len());
        let filled = self.place_globals(device, module, &mut addresses);
        if let Err(error) = filled {
            self.release(&addresses);
            return Err(error);
        }
        let references = self.place_references(module.references().len());
        Ok(Instance { module: module.clone(), device, addresses, references })
    }

    /// Frees the variables of `instance`, and binds its references to nothing. A launch that is running keeps what it started with.
    pub fn unload(&self, instance: &Instance) {
        self.release(&instance.addresses);
        for reference in &instance.references {
            self.texture_bind(*reference, None);
            self.surface_bind(*reference, None);
        }
    }

    /// Runs kernel `function` (an index into [`Module::functions`]) over the whole grid and returns when it has ended.
    /// `parameters` is the packed buffer that [`crate::FunctionInfo::parameters`] describes; longer is allowed.
    /// # Errors
    /// [`Fault`]; memory then holds what was written before it.
    pub fn launch(
        &self,
        instance: &Instance,
        function: usize,
        config: &LaunchConfig,
        parameters: &[u8],
    ) -> Result<(), Fault> {
        self.launch_on(&[], instance, function, config, parameters)
    }

    /// As [`Device::launch`], on these multiprocessors, by their numbers. None: on all.
    /// # Errors
    /// As there.
    pub fn launch_on(
        &self,
        processors: &[u32],
        instance: &Instance,
        function: usize,
        config: &LaunchConfig,
        parameters: &[u8],
    ) -> Result<(), Fault> {
        let launch =
            exec::Launch::new(instance, function, config, parameters, self.memory.snapshot(instance.device))?
                .with(Arc::clone(&self.objects()), &self.conditions)
                .on(processors);
        let (result, printed) = exec::run(&launch, &self.config, self.meter.as_ref(), OUTPUT_BYTES_MAX);
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let room = OUTPUT_BYTES_MAX.saturating_sub(output.len());
        output.extend_from_slice(&printed[..printed.len().min(room)]);
        result
    }

    /// What kernels have printed since the last call, at most 1 MiB.
    pub fn take_output(&self) -> Vec<u8> {
        std::mem::take(&mut *self.output.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn place_globals(
        &self,
        device: u32,
        module: &Module,
        addresses: &mut Vec<u64>,
    ) -> Result<(), MemoryError> {
        for global in module.globals() {
            addresses.push(self.memory.alloc_on(device, global.bytes.max(1))?);
        }
        for (address, initial) in addresses.iter().zip(&module.program.initial) {
            self.memory.write(*address, &initial.bytes)?;
            for (offset, symbol) in &initial.symbols {
                let value = module.program.symbol_address(*symbol, addresses);
                self.memory.write(address + offset, &value.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Numbers for so many references, which no object has.
    fn place_references(&self, count: usize) -> Vec<u64> {
        if count == 0 {
            return Vec::new();
        }
        let mut objects = self.objects();
        let objects = Arc::make_mut(&mut objects);
        let first = objects.last;
        objects.last += count as u64;
        (first + 1..=objects.last).collect()
    }

    fn release(&self, addresses: &[u64]) {
        for address in addresses {
            // A program may have freed a variable's address itself: then there is nothing left to do.
            let _ = self.memory.free(*address);
        }
    }
}
