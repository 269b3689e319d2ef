//! Streams of the software GPU: names only, since everything has run when a call returns.

use std::thread;
use std::time::{Duration, Instant};

use vgpu_api::{CuError, CuResult, MemoryOp, MemoryOpKind};

use super::{Soft, error};
use crate::device::{Place, Raw, Streams};

/// How long a stream waits for a word of memory, and how often it looks.
const WORD_WAIT_MAX: Duration = Duration::from_secs(1);
const WORD_POLL: Duration = Duration::from_micros(100);

impl Streams for Soft {
    fn stream_create(&mut self, _context: Raw, _flags: u32, _priority: i32) -> CuResult<Raw> {
        Ok(self.name())
    }

    fn stream_destroy(&mut self, _stream: Raw) -> CuResult<()> {
        Ok(())
    }

    fn stream_synchronize(&mut self, _place: Place) -> CuResult<()> {
        Ok(())
    }

    fn stream_query(&mut self, _place: Place) -> CuResult<()> {
        Ok(())
    }

    fn stream_wait(&mut self, _place: Place, _event: Raw, _flags: u32) -> CuResult<()> {
        Ok(())
    }

    /// Everything runs at once, in order, without caches: there is nothing to change.
    fn set_stream_attribute(&mut self, _place: Place, _attribute: u32, _value: &[u8; 64]) -> CuResult<()> {
        Ok(())
    }

    /// All that came before has run, and nothing that comes later runs before this returns: a wait that is not over now is over
    /// only if the program itself writes the word, in memory that it shares. A GPU would wait for good; this one for a time.
    fn stream_memory(&mut self, _place: Place, ops: &[MemoryOp]) -> CuResult<()> {
        ops.iter().try_for_each(|op| match op.kind {
            MemoryOpKind::Write => {
                let value = op.value.to_le_bytes();
                let value = value.get(..op.bytes as usize).ok_or(CuError::INVALID_VALUE)?;
                self.gpu.memory().write(op.at.0, value).map_err(|refused| error(refused.cu_result()))
            }
            MemoryOpKind::Barrier => Ok(()),
            _ => self.wait_for_word(op),
        })
    }
}

impl Soft {
    fn wait_for_word(&self, op: &MemoryOp) -> CuResult<()> {
        let until = Instant::now() + WORD_WAIT_MAX;
        loop {
            let mut word = [0; 8];
            let bytes = word.get_mut(..op.bytes as usize).ok_or(CuError::INVALID_VALUE)?;
            self.gpu.memory().read(op.at.0, bytes).map_err(|refused| error(refused.cu_result()))?;
            if op.is_met(u64::from_le_bytes(word)) {
                return Ok(());
            }
            if Instant::now() >= until {
                log::info!("a stream waits for a word that nobody writes");
                return Err(CuError::LAUNCH_TIMEOUT);
            }
            thread::sleep(WORD_POLL);
        }
    }
}
