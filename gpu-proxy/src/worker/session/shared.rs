//! Memory that processes of one zone share. Each process has a worker of its own, so what one exports goes through the supervisor, which
//! knows by the socket who asks, to a worker of the same zone; the guests only carry tokens.
//!
//! It counts against the grant of its maker as long as that one has it, wherever else it is mapped (`supervisor/shared.rs`).

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use vgpu_api::{Access, Call, ContextId, CuError, CuResult, DevicePtr, MemoryHandle, SharedPart, Token};

use super::Session;
use super::virtual_memory::{Memory, MemoryOwner};
use crate::device::{Exported, Raw, Shareable};
use crate::exchange::{Answer, Question};
use crate::worker::Exchange;
use crate::worker::ranges::Origin;

/// What of it this process has.
#[derive(Debug, Default)]
pub(super) struct Shared {
    exchange: Option<Box<dyn Exchange>>,
    /// Allocations that others may have, by their address. Those of one piece of memory have one token, which ends with the last of them.
    exported: BTreeMap<u64, Token>,
    /// Pieces that others may have and of which no such allocation lives, by where they start. As long as the device has one it is this
    /// worker's, and counts here.
    left: BTreeMap<u64, Token>,
    /// Others' that are mapped here, by their address.
    opened: BTreeMap<u64, Opened>,
}

#[derive(Debug)]
struct Opened {
    bytes: u64,
    /// What is mapped: where it starts and how long it is.
    mapped: (u64, u64),
    device: u32,
    token: Token,
    context: ContextId,
}

/// Memory of another process, by the device's name of it.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) raw: Raw,
    pub(super) bytes: u64,
    pub(super) device: u32,
}

impl Session {
    /// With somebody to exchange memory with.
    #[must_use]
    pub fn with_exchange(mut self, exchange: Box<dyn Exchange>) -> Self {
        self.shared.exchange = Some(exchange);
        self
    }

    pub(super) fn memory_export(&mut self, call: Call, handle: MemoryHandle) -> CuResult<Token> {
        self.whole(call)?;
        let memory = Arc::clone(self.virtual_memory.memory(handle)?);
        // What is another's it may itself give to whom it likes.
        if let MemoryOwner::Others(token) = memory.owner {
            return Ok(token);
        }
        match memory.token.get() {
            Some(token) => Ok(*token),
            None => {
                let token = self.put(Shareable::Memory(memory.raw), memory.bytes, memory.device)?;
                Ok(*memory.token.get_or_init(|| token))
            }
        }
    }

    pub(super) fn ipc_export(&mut self, call: Call, at: DevicePtr) -> CuResult<SharedPart> {
        self.context(call.context)?;
        let Origin::Alloc(owner) = self.ranges.freeable(at)? else { return Err(CuError::INVALID_VALUE) };
        self.context(owner)?;
        let bytes = self.ranges.length(at);
        let (start, whole_bytes) = self.device.whole_of(at.0, bytes);
        let of_it = self.shared.exported.range(start..start.saturating_add(whole_bytes)).next();
        let memory = match of_it.map(|(_, token)| *token).or_else(|| self.shared.left.remove(&start)) {
            Some(token) => token,
            None => {
                // Where memory is moved no work may be on its way.
                self.all_must_be_done()?;
                self.put(Shareable::Allocation(at.0), whole_bytes, self.device_of(owner))?
            }
        };
        self.shared.exported.insert(at.0, memory);
        Ok(SharedPart { memory, offset: at.0 - start, bytes })
    }

    /// Hands memory of this process, of so many bytes of a device, to the supervisor.
    pub(super) fn put(&mut self, what: Shareable, bytes: u64, device: u32) -> CuResult<Token> {
        let exchange = self.shared.exchange.as_mut().ok_or(CuError::NOT_SUPPORTED)?;
        let bytes =
            bytes.checked_next_multiple_of(self.device.mapping_bytes()).ok_or(CuError::INVALID_VALUE)?;
        match self.device.export(what)? {
            Exported::Device(fd) => {
                exchange.ask(Question::Put { bytes, device }, Some(fd)).map(|(Answer { token, .. }, _)| token)
            }
            Exported::Host => {
                let (Answer { token, .. }, fd) = exchange.ask(Question::Put { bytes, device }, None)?;
                let moved =
                    fd.ok_or(CuError::DEVICE_UNAVAILABLE).and_then(|fd| self.device.move_to(what, fd, bytes));
                if moved.is_err() {
                    exchange.tell(Question::LetGo(token));
                }
                moved.map(|()| token)
            }
        }
    }

    /// Gets what another process has put.
    pub(super) fn get(&mut self, token: Token) -> CuResult<Got> {
        let exchange = self.shared.exchange.as_mut().ok_or(CuError::NOT_SUPPORTED)?;
        let (Answer { bytes, device, .. }, fd) = exchange.ask(Question::Get(token), None)?;
        let whole = bytes > 0 && bytes.is_multiple_of(self.device.mapping_bytes());
        let fd = fd.filter(|_| whole).ok_or(CuError::INVALID_VALUE);
        let raw = fd.and_then(|fd| self.device.import(device, fd, bytes));
        if raw.is_err() {
            exchange.tell(Question::Close(token));
        }
        Ok(Got { raw: raw?, bytes, device })
    }

    pub(super) fn memory_import(
        &mut self,
        call: Call,
        handle: MemoryHandle,
        (device, token): (u32, Token),
    ) -> CuResult<u64> {
        self.whole(call)?;
        self.virtual_memory.check_free(handle)?;
        let Got { raw, bytes, device: on } = self.get(token)?;
        if on != device {
            self.device.release(raw)?;
            self.tell(Question::Close(token));
            return Err(CuError::INVALID_VALUE);
        }
        let owner = MemoryOwner::Others(token);
        let memory = Memory { raw, device, bytes, owner, token: OnceLock::new() };
        self.virtual_memory.insert(handle, memory)?;
        Ok(bytes)
    }

    /// Kernels reach all that is mapped, as with a driver; calls reach the part that was named.
    pub(super) fn ipc_open(&mut self, call: Call, part: SharedPart) -> CuResult<DevicePtr> {
        self.context(call.context)?;
        let SharedPart { memory: token, offset, bytes } = part;
        if bytes == 0 || !offset.is_multiple_of(self.device.granule_bytes()) {
            return Err(CuError::INVALID_VALUE);
        }
        let Got { raw, bytes: whole_bytes, device } = self.get(token)?;
        let is_inside = whole_bytes.checked_sub(offset).is_some_and(|left| bytes <= left);
        // Through its own device alone, which the guest is told nothing of.
        let mapped = match device == self.device_of(call.context) {
            _ if !is_inside => Err((CuError::INVALID_VALUE, self.device.release(raw).is_ok())),
            true => self.map_opened(raw, whole_bytes, device),
            false => Err((CuError::INVALID_DEVICE, self.device.release(raw).is_ok())),
        };
        match mapped {
            Ok(start) => {
                let (at, mapped) = (start + offset, (start, whole_bytes));
                self.ranges.insert(at, bytes, 0, Origin::Opened);
                self.shared.opened.insert(at, Opened { bytes, mapped, device, token, context: call.context });
                Ok(DevicePtr(at))
            }
            Err((error, gone)) => {
                // What the device does not let go of goes on counting until this worker ends.
                if gone {
                    self.tell(Question::Close(token));
                }
                Err(error)
            }
        }
    }

    /// Maps another's memory and ends its name: what is mapped stays. Or lets it go; whether the device did that.
    fn map_opened(&mut self, raw: Raw, bytes: u64, device: u32) -> Result<u64, (CuError, bool)> {
        let reserved = self.device.reserve(bytes, 0, 0);
        let at = reserved.map_err(|error| (error, self.device.release(raw).is_ok()))?;
        let shown = self.show_chunk(at, bytes, raw, vec![(device, Access::ReadWrite)]);
        let named = shown.and_then(|()| {
            // Named still, it is not gone, mapped or not.
            self.device.release(raw).map_err(|error| {
                let _ = self.device.unmap(at, bytes);
                (error, false)
            })
        });
        named.map(|()| at).inspect_err(|_| {
            // Where something is mapped still the device refuses.
            let _ = self.device.unreserve(at, bytes);
        })
    }

    pub(super) fn ipc_close(&mut self, call: Call, DevicePtr(at): DevicePtr) -> CuResult<()> {
        self.context(call.context)?;
        let owner = self.shared.opened.get(&at).ok_or(CuError::INVALID_VALUE)?.context;
        let context = self.context(owner)?;
        self.context_must_be_done(owner, context)?;
        let result = self.device.context_synchronize(context);
        self.settle(owner, result)?;
        self.close_opened(at)
    }

    /// Ends a mapping of another's memory, which no work uses.
    fn close_opened(&mut self, at: u64) -> CuResult<()> {
        let Some(Opened { mapped: (start, bytes), token, .. }) = self.shared.opened.remove(&at) else {
            return Err(CuError::INVALID_VALUE);
        };
        self.ranges.remove(at);
        self.graphs.something_ended();
        // What the device does not let go of stays with it, and its maker's or whoever's grant counts it until this worker ends.
        self.device.unmap(start, bytes)?;
        self.tell(Question::Close(token));
        self.device.unreserve(start, bytes)
    }

    /// The device of what was opened at an address.
    pub(super) fn device_of_opened(&self, DevicePtr(at): DevicePtr) -> Option<u32> {
        let (start, opened) = self.shared.opened.range(..=at).next_back()?;
        (at - start < opened.bytes).then_some(opened.device)
    }

    /// A context ends, and with it what was opened for it. Its work is over.
    pub(super) fn end_opened_of(&mut self, id: ContextId) {
        let of_it = |(at, opened): (&u64, &Opened)| (opened.context == id).then_some(*at);
        let all: Vec<_> = self.shared.opened.iter().filter_map(of_it).collect();
        for at in all {
            if let Err(error) = self.close_opened(at) {
                log::warn!("memory of another process stays mapped: {}", error.code());
            }
        }
    }

    /// An allocation has ended: nobody may open it any more, once its piece has, too. Before it counts no longer.
    pub(super) fn allocation_ended(&mut self, at: u64) {
        let Some(token) = self.shared.exported.remove(&at) else { return };
        // Those of one piece stand one after the other.
        let (before, after) = (self.shared.exported.range(..at), self.shared.exported.range(at..));
        let has_another = [before.map(|(_, token)| token).next_back(), after.map(|(_, token)| token).next()]
            .contains(&Some(&token));
        if !has_another {
            self.shared.left.insert(self.device.whole_of(at, 1).0, token);
            self.let_go_of_ended();
        }
    }

    /// Of pieces that the device has no more: before they count no longer.
    pub(super) fn let_go_of_ended(&mut self) {
        let Self { shared, device, .. } = self;
        let mut ended = Vec::new();
        shared.left.retain(|start, token| {
            let stays = device.has_piece(*start);
            ended.extend((!stays).then_some(*token));
            stays
        });
        ended.into_iter().for_each(|token| self.tell(Question::LetGo(token)));
    }

    /// Asks what needs no descriptor.
    pub(super) fn ask(&mut self, question: Question) -> CuResult<(Answer, Option<OwnedFd>)> {
        self.shared.exchange.as_mut().ok_or(CuError::NOT_SUPPORTED)?.ask(question, None)
    }

    pub(super) fn tell(&mut self, question: Question) {
        if let Some(exchange) = &mut self.shared.exchange {
            exchange.tell(question);
        }
    }
}
