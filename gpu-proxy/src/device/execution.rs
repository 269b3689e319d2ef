//! Kernels: how many fit, launches, what they print; and functions of the guest between them.

use vgpu_api::launch::LaunchAttributes;
use vgpu_api::{CuResult, Printed};

use super::{Place, Raw};

/// Runs a function in the guest, from any thread, and returns when it has returned. Not called if the device comes to its end before.
pub type HostFunction = Box<dyn FnOnce(u32) + Send>;

/// A launch with resolved names. Attributes that hold handles or addresses do not get here.
#[derive(Debug)]
pub struct DeviceLaunch<'a> {
    /// What runs.
    pub function: Raw,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub shared_bytes: u32,
    /// Checked against the list of those that travel.
    pub attributes: LaunchAttributes<'a>,
    /// The parameter block: as many bytes as the function's layout has.
    pub params: &'a [u8],
}

/// The part of a [`super::Device`] that has to do with kernels.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Execution {
    /// `cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags`.
    fn max_active_blocks(
        &mut self,
        context: Raw,
        function: Raw,
        threads: u32,
        shared: u64,
        flags: u32,
    ) -> CuResult<u32>;
    /// `cuOccupancyAvailableDynamicSMemPerBlock`.
    fn available_shared(&mut self, context: Raw, function: Raw, blocks: u32, threads: u32) -> CuResult<u64>;
    /// `cuOccupancyMaxActiveClusters`.
    fn max_active_clusters(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<u32>;
    /// `cuOccupancyMaxPotentialClusterSize`.
    fn max_cluster_size(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<u32>;
    /// Queues or runs a kernel.
    fn launch(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<()>;
    /// Queues a function of the guest's: the stream waits until `function` returns. It is given 0, or the stream's error if it runs
    /// `after_errors` too.
    fn host_function(&mut self, place: Place, after_errors: bool, function: HostFunction) -> CuResult<()>;
    /// Whether kernels have printed something that was not taken.
    fn has_printed(&self) -> bool {
        false
    }
    /// The next piece of it.
    fn take_printed(&mut self) -> Printed {
        Printed::default()
    }
}
