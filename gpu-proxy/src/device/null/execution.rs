//! Kernels that do nothing; functions of the guest, which run.

use std::sync::atomic::Ordering;
use std::thread;

use vgpu_api::{CuError, CuResult};

use super::Null;
use crate::device::{DeviceLaunch, Execution, HostFunction, Place, Raw, Step};

impl Execution for Null {
    fn max_active_blocks(
        &mut self,
        _: Raw,
        _: Raw,
        _threads: u32,
        _shared: u64,
        _flags: u32,
    ) -> CuResult<u32> {
        Ok(1)
    }

    fn available_shared(&mut self, _: Raw, _: Raw, _blocks: u32, _threads: u32) -> CuResult<u64> {
        Ok(vgpu_soft::SHARED_BYTES.into())
    }

    fn max_active_clusters(&mut self, _place: Place, _launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        Ok(1)
    }

    fn max_cluster_size(&mut self, _place: Place, _launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        Ok(1)
    }

    fn launch(&mut self, place: Place, _launch: &DeviceLaunch<'_>) -> CuResult<()> {
        self.queue(place);
        Ok(())
    }

    fn host_function(&mut self, _place: Place, _after_errors: bool, function: HostFunction) -> CuResult<()> {
        if self.refuse(Step::HostFunction).is_err() {
            std::mem::forget(function);
            return Err(CuError::ILLEGAL_ADDRESS);
        }
        self.run_in_order(move || function(0));
        Ok(())
    }
}

impl Null {
    /// At once, or in a thread.
    pub(super) fn run_in_order(&self, functions: impl FnOnce() + Send + 'static) {
        let Some(running) = self.running.clone() else { return functions() };
        running.fetch_add(1, Ordering::Relaxed);
        thread::spawn(move || {
            functions();
            running.fetch_sub(1, Ordering::Release);
        });
    }

    pub(super) fn runs_functions(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.load(Ordering::Acquire) > 0)
    }
}
