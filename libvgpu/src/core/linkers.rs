//! What the guest keeps of a linker: where the program wants to be told, and the image that it was given.

use std::sync::{Mutex, OnceLock};

use vgpu_api::link::{OPTIONS_MAX, option};
use vgpu_api::{ContextId, CuError, CuResult, JitOption, LinkerHandle, ask};

use super::contexts::Entered;
use crate::abi::{In, Out, Span};

/// A `CUlinkState`.
#[derive(Debug)]
pub struct Linker {
    pub handle: LinkerHandle,
    pub context: ContextId,
    pub places: Places,
    /// The program holds its address as long as the linker lives. Ends with a NUL that was not asked for, as PTX needs one.
    image: OnceLock<Vec<u8>>,
    /// Held while it links.
    completing: Mutex<()>,
}

/// Options of a call: those that travel, and places of the program.
#[derive(Debug, Default)]
pub struct Options {
    pub travel: Vec<JitOption>,
    pub places: Places,
}

/// Where the program wants to be told; as addresses, since they are the program's for as long as the linker lives.
#[derive(Debug, Default, Clone, Copy)]
pub struct Places {
    pub info: Log,
    pub error: Log,
    /// The option's own slot.
    wall_ms: Option<u64>,
    threads: Option<u64>,
}

/// A log's buffer, its room, and the slot that tells how much of it is used.
#[derive(Debug, Default, Clone, Copy)]
pub struct Log {
    address: u64,
    pub bytes: u32,
    used: Option<u64>,
}

impl Options {
    /// Sorts the options of a call. Their values stand in an array of pointers.
    /// # Errors
    /// 1 for what is no option, 801 for lists of names and addresses.
    pub fn of(count: u32, options: In<u32>, values: In<u64>) -> CuResult<Self> {
        let mut sorted = Self::default();
        if count as usize > OPTIONS_MAX {
            return Err(CuError::INVALID_VALUE);
        }
        for i in 0..count as usize {
            let (number, value) = (options.at(i)?, values.at(i)?);
            let slot = values.address().checked_add(8 * i as u64);
            // The number itself stands in the pointer's place.
            let word = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
            let places = &mut sorted.places;
            match number {
                option::WALL_TIME => places.wall_ms = slot,
                option::INFO_LOG_BUFFER => places.info.address = value,
                option::INFO_LOG_BUFFER_BYTES => (places.info.bytes, places.info.used) = (word, slot),
                option::ERROR_LOG_BUFFER => places.error.address = value,
                option::ERROR_LOG_BUFFER_BYTES => (places.error.bytes, places.error.used) = (word, slot),
                number if option::travels(number) => {
                    if number == option::THREADS_PER_BLOCK {
                        places.threads = slot;
                    }
                    sorted.travel.push(JitOption { option: number, value: word.into() });
                }
                number if number < option::COUNT => return Err(CuError::NOT_SUPPORTED),
                _ => return Err(CuError::INVALID_VALUE),
            }
        }
        Ok(sorted)
    }
}

impl Linker {
    pub fn new(handle: LinkerHandle, context: ContextId, places: Places) -> Self {
        Self { handle, context, places, image: OnceLock::new(), completing: Mutex::new(()) }
    }

    /// Tells the program what the linker has said so far. A call's own result matters more than what goes wrong here.
    pub fn tell(&self, entered: Entered) {
        for (log, errors) in [(self.places.info, false), (self.places.error, true)] {
            let _ = self.tell_log(entered, log, errors);
        }
        if self.places.wall_ms.is_some() || self.places.threads.is_some() {
            let _ = self.tell_figures(entered);
        }
    }

    fn tell_log(&self, entered: Entered, log: Log, errors: bool) -> CuResult<()> {
        let Some(room) = log.bytes.checked_sub(1).filter(|_| log.address != 0) else { return Ok(()) };
        let staging = entered.process.channel.staging()?;
        let wanted = staging.part(room as usize);
        let len = ask::vgpuLinkLog(&entered.process.channel, self.context, self.handle, errors, wanted)?;
        let text = staging.take(len.min(wanted.len))?;
        let place = Span::at_address(log.address).write(text.len() + 1)?;
        place[..text.len()].copy_from_slice(&text);
        place[text.len()] = 0;
        let used = u64::try_from(text.len()).unwrap_or(0);
        log.used.map_or(Ok(()), |slot| set(slot, &used.to_ne_bytes()))
    }

    fn tell_figures(&self, entered: Entered) -> CuResult<()> {
        let told = ask::vgpuLinkTold(&entered.process.channel, self.context, self.handle)?;
        self.places.wall_ms.map_or(Ok(()), |slot| set(slot, &told.wall_ms.to_ne_bytes()))?;
        self.places.threads.map_or(Ok(()), |slot| set(slot, &u64::from(told.threads).to_ne_bytes()))
    }

    /// Links, the first time; gives the image to the program.
    pub fn complete(&self, entered: Entered, image: Out<*const u8>, bytes: Out<usize>) -> CuResult<()> {
        let _one = super::slab::lock(&self.completing);
        if self.image.get().is_none() {
            let linked = self.link(entered);
            self.tell(entered);
            // Under the lock nobody else sets it.
            let _ = self.image.set(linked?);
        }
        let linked = self.image.get().ok_or(CuError::UNKNOWN)?;
        image.set_if_wanted(linked.as_ptr());
        bytes.set_if_wanted(linked.len().saturating_sub(1));
        Ok(())
    }

    fn link(&self, entered: Entered) -> CuResult<Vec<u8>> {
        let channel = &entered.process.channel;
        let total = ask::cuLinkComplete(channel, self.context, self.handle)?;
        let room = channel.staging()?;
        let mut linked = Vec::new();
        while (linked.len() as u64) < total {
            let at = linked.len() as u64;
            ask::vgpuLinkImage(channel, self.context, self.handle, at, room.all())?;
            linked.extend_from_slice(&room.take((total - at).min(room.all().len))?);
        }
        linked.push(0);
        Ok(linked)
    }
}

/// Writes into an option's slot.
fn set(slot: u64, bytes: &[u8]) -> CuResult<()> {
    Span::at_address(slot).write(bytes.len())?.copy_from_slice(bytes);
    Ok(())
}
