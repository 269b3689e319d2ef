//! Kernels of the software GPU: how many would fit, launches, what they print.

use vgpu_api::printed::PRINTED_BYTES_MAX;
use vgpu_api::{CuError, CuResult, Printed};
use vgpu_soft as gpu;

use super::{Soft, error};
use crate::device::{DeviceLaunch, Execution, HostFunction, Place, Raw};

/// What kernels print is kept so far, in bytes; the rest is dropped, as by a GPU's buffer.
const PRINTED_KEPT_MAX: usize = 1 << 20;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

impl Execution for Soft {
    fn max_active_blocks(
        &mut self,
        _: Raw,
        function: Raw,
        threads: u32,
        shared: u64,
        _: u32,
    ) -> CuResult<u32> {
        let (info, _) = self.info(function)?;
        blocks_by_resources(info, threads, shared)
    }

    fn available_shared(&mut self, _: Raw, function: Raw, blocks: u32, _threads: u32) -> CuResult<u64> {
        let (info, _) = self.info(function)?;
        let each = attribute(SHARED_PER_MULTIPROCESSOR)
            .checked_div(u64::from(blocks))
            .ok_or(CuError::INVALID_VALUE)?;
        Ok(each.min(u64::from(gpu::SHARED_BYTES_OPT_IN)).saturating_sub(u64::from(info.static_shared_bytes)))
    }

    fn max_active_clusters(&mut self, _place: Place, _launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        Err(CuError::NOT_SUPPORTED)
    }

    fn max_cluster_size(&mut self, _place: Place, _launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        Err(CuError::NOT_SUPPORTED)
    }

    fn launch(&mut self, at: Place, launch: &DeviceLaunch<'_>) -> CuResult<()> {
        let (home, _) = self.home(at.context)?;
        let (loaded, place) = self.function(launch.function)?;
        let instance = loaded.instances.get(&home).ok_or(CuError::INVALID_HANDLE)?;
        let fixed_bytes = loaded.module.functions()[place].static_shared_bytes;
        if launch.shared_bytes.saturating_add(fixed_bytes) > loaded.shared_max[place] {
            return Err(CuError::INVALID_VALUE);
        }
        let config =
            gpu::LaunchConfig { grid: launch.grid, block: launch.block, shared_bytes: launch.shared_bytes };
        let result = self.gpu.launch_on(
            self.common.multiprocessors(at.context),
            instance,
            place,
            &config,
            launch.params,
        );
        let printed = self.gpu.take_output();
        self.keep_printed(STDOUT, printed);
        result.map_err(|fault| {
            match &fault {
                gpu::Fault::Assert(text) => self.keep_printed(STDERR, format!("{text}\n").into_bytes()),
                other => log::info!("a kernel ended early: {other}"),
            }
            error(fault.cu_result())
        })
    }

    /// Everything waits for it: all streams are one here.
    fn host_function(&mut self, _place: Place, _after_errors: bool, function: HostFunction) -> CuResult<()> {
        function(0);
        Ok(())
    }

    fn has_printed(&self) -> bool {
        !self.printed.is_empty()
    }

    fn take_printed(&mut self) -> Printed {
        let Some((to, bytes)) = self.printed.front_mut() else { return Printed::default() };
        let piece: Vec<u8> = bytes.drain(..bytes.len().min(PRINTED_BYTES_MAX)).collect();
        self.printed_bytes -= piece.len();
        let printed = Printed { to: *to, bytes: piece };
        if bytes.is_empty() {
            self.printed.pop_front();
        }
        printed
    }
}

impl Soft {
    fn keep_printed(&mut self, to: u32, mut bytes: Vec<u8>) {
        bytes.truncate(PRINTED_KEPT_MAX - self.printed_bytes);
        self.printed_bytes += bytes.len();
        match self.printed.back_mut() {
            Some((last, piece)) if *last == to => piece.extend(bytes),
            _ if bytes.is_empty() => {}
            _ => self.printed.push_back((to, bytes.into())),
        }
    }
}

/// `CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR`.
const THREADS_PER_MULTIPROCESSOR: u32 = 39;
/// `CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR`.
const SHARED_PER_MULTIPROCESSOR: u32 = 81;
/// `CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR`.
const REGISTERS_PER_MULTIPROCESSOR: u32 = 82;
/// `CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR`.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 106;

fn attribute(id: u32) -> u64 {
    u64::try_from(gpu::attribute(id)).unwrap_or(0)
}

/// Blocks that fit one multiprocessor by threads, shared memory, registers and number.
fn blocks_by_resources(info: &gpu::FunctionInfo, threads: u32, shared: u64) -> CuResult<u32> {
    if threads == 0 || threads > info.max_threads {
        return Err(CuError::INVALID_VALUE);
    }
    let threads = u64::from(threads.next_multiple_of(gpu::WARP_SIZE));
    let shared = shared.saturating_add(u64::from(info.static_shared_bytes));
    let by = |have: u64, each: u64| have.checked_div(each).unwrap_or(u64::MAX);
    let blocks = by(attribute(THREADS_PER_MULTIPROCESSOR), threads)
        .min(by(attribute(SHARED_PER_MULTIPROCESSOR), shared))
        .min(by(attribute(REGISTERS_PER_MULTIPROCESSOR), threads * u64::from(info.registers)))
        .min(attribute(BLOCKS_PER_MULTIPROCESSOR));
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kernels_print_comes_in_order_in_pieces_and_has_an_end() {
        let mut soft = Soft::new(1 << 20).unwrap();
        assert!(!soft.has_printed());
        soft.keep_printed(STDOUT, vec![b'a'; PRINTED_BYTES_MAX + 1]);
        soft.keep_printed(STDERR, b"b".to_vec());
        let piece = |to, bytes: &[u8]| Printed { to, bytes: bytes.to_vec() };
        assert_eq!(soft.take_printed(), piece(1, &[b'a'; PRINTED_BYTES_MAX]));
        assert_eq!(soft.take_printed(), piece(1, b"a"));
        assert_eq!(soft.take_printed(), piece(2, b"b"));
        assert_eq!((soft.has_printed(), soft.take_printed()), (false, Printed::default()));
        for _ in 0..3 {
            soft.keep_printed(STDOUT, vec![0; PRINTED_KEPT_MAX - 10]);
        }
        // The figure of SPECIFICATION.md.
        assert_eq!((soft.printed.len(), soft.printed_bytes), (1, 1 << 20));
        let taken: usize =
            std::iter::from_fn(|| Some(soft.take_printed().bytes.len())).take_while(|taken| *taken > 0).sum();
        assert_eq!((taken, soft.printed_bytes), (PRINTED_KEPT_MAX, 0));
    }

    /// A guest launches as often as it likes and need never take what is printed.
    #[test]
    fn a_little_from_each_of_many_launches_is_kept_as_one_piece() {
        let mut soft = Soft::new(1 << 20).unwrap();
        for _ in 0..PRINTED_KEPT_MAX + 1000 {
            soft.keep_printed(STDOUT, b".".to_vec());
        }
        assert_eq!((soft.printed.len(), soft.printed_bytes), (1, PRINTED_KEPT_MAX));
    }
}
