//! Launches that do what they say, functions of the guest.

use vgpu_api::*;

use super::{DEEP_BYTES, FakeDevice, GATE, SeenLaunch};

impl FakeDevice {
    /// Has the guest run a function of the program, and waits for it.
    pub(super) fn run_in_the_guest(&mut self, function: u64) {
        let mailbox = self.mailbox.expect("told before the first");
        let word = |at: usize| Staged { offset: mailbox.offset + at as u64, len: 8 };
        self.posted += 1;
        self.staging.write(word(host_function::FUNCTION), &function.to_le_bytes());
        self.staging.write(word(host_function::STATUS), &0_u64.to_le_bytes());
        self.staging.write(word(host_function::POSTED), &self.posted.to_le_bytes());
        self.staging.wake();
        while self.staging.read(word(host_function::DONE)) != self.posted.to_le_bytes() {
            std::thread::yield_now();
        }
    }
}

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        &mut self,
        _: Call,
        _: FunctionHandle,
        threads: u32,
        _: u64,
        _: u32,
    ) -> CuResult<u32> {
        self.saw("occupancy")?;
        Ok(2048 / threads)
    }

    pub(super) fn cuOccupancyAvailableDynamicSMemPerBlock(
        &mut self,
        _: Call,
        _: FunctionHandle,
        blocks: u32,
        _: u32,
    ) -> CuResult<u64> {
        Ok(u64::from(98_304 / blocks))
    }

    pub(super) fn cuOccupancyMaxActiveClusters(&mut self, _: Call, launch: Launch<'_>) -> CuResult<u32> {
        Ok(if launch.attributes.is_empty() { 0 } else { 7 })
    }

    pub(super) fn cuOccupancyMaxPotentialClusterSize(&mut self, _: Call, _: Launch<'_>) -> CuResult<u32> {
        Ok(8)
    }

    pub(super) fn cuLaunchKernel(&mut self, _: Call, launch: Launch<'_>) -> CuResult<()> {
        GATE.pass();
        self.saw("launch")?;
        self.stream(launch.shape.stream)?;
        let attribute_ids = launch.attributes.iter().map(|attribute| attribute.id).collect();
        let seen = SeenLaunch { shape: launch.shape.clone(), attribute_ids, params: launch.params.to_vec() };
        self.seen.lock().unwrap().launches.push(seen);
        if self.deep.contains(&launch.shape.function.image().raw()) {
            self.limit = self.limit.max(u64::from(DEEP_BYTES.unsigned_abs()));
        }
        match launch.shape.function.ordinal() {
            0 => {
                let word = |at: usize| u32::from_le_bytes(launch.params[at..at + 4].try_into().unwrap());
                let dst = DevicePtr(u64::from_le_bytes(launch.params[..8].try_into().unwrap()));
                let (value, count) = (word(8).to_le_bytes(), u64::from(word(12)));
                if self.set(dst, &value.repeat(usize::try_from(count).unwrap())).is_err() {
                    self.sticky = Some(CuError::ILLEGAL_ADDRESS);
                }
            }
            _ => self.sticky = Some(CuError::ILLEGAL_ADDRESS),
        }
        self.sticky.map_or(Ok(()), Err)
    }

    pub(super) fn vgpuHostFunctions(&mut self, _: Call, mailbox: Staged) -> CuResult<()> {
        assert!(self.mailbox.replace(mailbox).is_none(), "told once where the thread looks");
        self.saw("host functions")
    }

    pub(super) fn cuLaunchHostFunc(&mut self, _: Call, stream: Stream, function: u64) -> CuResult<()> {
        self.saw("host function")?;
        self.stream(stream)?;
        self.run_in_the_guest(function);
        Ok(())
    }

    pub(super) fn cuStreamAddCallback(&mut self, _: Call, stream: Stream, function: u64) -> CuResult<()> {
        self.saw("callback")?;
        self.stream(stream)?;
        self.run_in_the_guest(function);
        Ok(())
    }

    pub(super) fn vgpuPrinted(&mut self, _: Call) -> CuResult<Printed> {
        Ok(Printed::default())
    }
}
