//! What this process shares with others of its pod: the form in which programs hand it on, what was exported, what others' was opened.
//!
//! A program gets 64 bytes, or a descriptor of a small file in memory: a token that only the supervisor can do something with, which gives
//! what it names to workers of the same zone alone. So they may be anything when they come back.

use std::sync::Mutex;

use vgpu_api::{ContextId, CuError, CuResult, DevicePtr, SharedPart, Token};

use super::slab::lock;

/// `CU_IPC_HANDLE_SIZE`.
pub const HANDLE_BYTES: usize = 64;

/// What a handle names. The first 8 bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An allocation, for `cuIpcOpenMemHandle`.
    Allocation,
    /// What `cuMemCreate` made, for `cuMemImportFromShareableHandle`.
    Memory,
    /// For `cuIpcOpenEventHandle`.
    Event,
    /// For `cuMemPoolImportFromShareableHandle`.
    Pool,
}

impl Kind {
    fn mark(self) -> [u8; 8] {
        match self {
            Self::Allocation => *b"vgpu ipc",
            Self::Memory => *b"vgpu mem",
            Self::Event => *b"vgpu evt",
            Self::Pool => *b"vgpu pol",
        }
    }
}

/// A handle's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    pub token: Token,
    /// As its maker asked for it; 1 for an event and for a pool.
    pub bytes: u64,
    /// The worker's number of the device that it lies on.
    pub device: u32,
    /// Where an allocation starts in what the token names; else 0.
    pub offset: u64,
    /// Of an allocation its `CU_POINTER_ATTRIBUTE_BUFFER_ID`: one that lies where an earlier one lay has another handle (CUDA driver API,
    /// `cuIpcGetMemHandle`). Else 0.
    pub id: u64,
}

impl Handle {
    /// ```text
    /// 0 mark | 8 token | 24 bytes u64 | 32 device u32 | 36 zeros | 40 offset u64 | 48 id u64 | 56 zeros
    /// ```
    pub fn encode(self, kind: Kind) -> [u8; HANDLE_BYTES] {
        let mut handle = [0; HANDLE_BYTES];
        handle[..8].copy_from_slice(&kind.mark());
        handle[8..24].copy_from_slice(&self.token.0);
        handle[24..32].copy_from_slice(&self.bytes.to_le_bytes());
        handle[32..36].copy_from_slice(&self.device.to_le_bytes());
        handle[40..48].copy_from_slice(&self.offset.to_le_bytes());
        handle[48..56].copy_from_slice(&self.id.to_le_bytes());
        handle
    }

    /// # Errors
    /// 1 for what was never encoded.
    pub fn decode(kind: Kind, handle: &[u8; HANDLE_BYTES]) -> CuResult<Self> {
        let part = |from: usize, to: usize| &handle[from..to];
        let token = part(8, 24).try_into().map(Token);
        let bytes = part(24, 32).try_into().map(u64::from_le_bytes);
        let device = part(32, 36).try_into().map(u32::from_le_bytes);
        let offset = part(40, 48).try_into().map(u64::from_le_bytes);
        let id = part(48, 56).try_into().map(u64::from_le_bytes);
        let (Ok(token), Ok(bytes), Ok(device), Ok(offset), Ok(id)) = (token, bytes, device, offset, id)
        else {
            return Err(CuError::INVALID_VALUE);
        };
        let is_one = part(0, 8) == kind.mark() && bytes > 0;
        is_one.then_some(Self { token, bytes, device, offset, id }).ok_or(CuError::INVALID_VALUE)
    }
}

/// All of the process.
#[derive(Debug)]
pub struct Ipc {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    exported: Vec<Exported>,
    opened: Vec<Opened>,
}

/// An allocation that was asked about before, by its `CU_POINTER_ATTRIBUTE_BUFFER_ID`.
#[derive(Debug)]
struct Exported {
    id: u64,
    part: SharedPart,
}

#[derive(Debug)]
struct Opened {
    context: ContextId,
    part: SharedPart,
    at: DevicePtr,
    count: u32,
}

impl Ipc {
    pub const fn new() -> Self {
        Self { state: Mutex::new(State { exported: Vec::new(), opened: Vec::new() }) }
    }

    /// What others know an allocation by; asked for once. `lives` says of such which are still there.
    pub fn export(
        &self,
        id: u64,
        lives: impl Fn(u64) -> bool,
        ask: impl FnOnce() -> CuResult<SharedPart>,
    ) -> CuResult<SharedPart> {
        let mut state = lock(&self.state);
        if let Some(known) = state.exported.iter().find(|known| known.id == id) {
            return Ok(known.part);
        }
        let part = ask()?;
        state.exported.retain(|known| lives(known.id));
        state.exported.push(Exported { id, part });
        Ok(part)
    }

    /// Opens what another process has exported, or counts once more what the context has opened already.
    ///
    /// # Errors
    /// 201 for this process's own; what `ask` says.
    pub fn open(
        &self,
        context: ContextId,
        part: SharedPart,
        ask: impl FnOnce() -> CuResult<DevicePtr>,
    ) -> CuResult<DevicePtr> {
        let mut state = lock(&self.state);
        if state.exported.iter().any(|known| known.part.memory == part.memory) {
            return Err(CuError::INVALID_CONTEXT);
        }
        let known = state.opened.iter_mut().find(|known| known.context == context && known.part == part);
        if let Some(known) = known {
            known.count = known.count.checked_add(1).ok_or(CuError::INVALID_VALUE)?;
            return Ok(known.at);
        }
        let at = ask()?;
        state.opened.push(Opened { context, part, at, count: 1 });
        Ok(at)
    }

    /// Takes back one opening; `end` is told of the last.
    ///
    /// # Errors
    /// 1 for what is not open; what `end` says.
    pub fn close(&self, at: DevicePtr, end: impl FnOnce(ContextId) -> CuResult<()>) -> CuResult<()> {
        let mut state = lock(&self.state);
        let place = state.opened.iter().position(|known| known.at == at).ok_or(CuError::INVALID_VALUE)?;
        let known = &mut state.opened[place];
        if known.count > 1 {
            known.count -= 1;
            return Ok(());
        }
        let context = known.context;
        end(context)?;
        state.opened.swap_remove(place);
        Ok(())
    }

    /// A context ended, and what was opened for it.
    pub fn forget(&self, context: ContextId) {
        lock(&self.state).opened.retain(|known| known.context != context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token([3; 16]);
    const PART: SharedPart = SharedPart { memory: TOKEN, offset: 0, bytes: 512 };
    const C: ContextId = ContextId::primary(0);

    #[test]
    fn handles_come_back_and_nothing_else_is_one() {
        let handle = Handle { token: TOKEN, bytes: 1 << 33, device: 7, offset: 1 << 20, id: 1 << 40 };
        let encoded = handle.encode(Kind::Allocation);
        assert_eq!(Handle::decode(Kind::Allocation, &encoded), Ok(handle));
        for wrong in [
            Handle::decode(Kind::Memory, &encoded),
            Handle::decode(Kind::Allocation, &[0; 64]),
            Handle::decode(Kind::Memory, &Handle { bytes: 0, ..handle }.encode(Kind::Memory)),
        ] {
            assert_eq!(wrong, Err(CuError::INVALID_VALUE));
        }
    }

    #[test]
    fn what_is_open_already_is_counted_and_ends_with_the_last_or_with_its_context() {
        let (ipc, at) = (Ipc::new(), DevicePtr(0x1000));
        let never = || -> CuResult<DevicePtr> { panic!("it is open") };
        assert_eq!(ipc.open(C, PART, || Err(CuError::OUT_OF_MEMORY)), Err(CuError::OUT_OF_MEMORY));
        assert_eq!((ipc.open(C, PART, || Ok(at)), ipc.open(C, PART, never)), (Ok(at), Ok(at)));
        assert_eq!(ipc.close(at, |_| panic!("one is left")), Ok(()));
        assert_eq!(ipc.close(at, |_| Err(CuError::UNKNOWN)), Err(CuError::UNKNOWN));
        assert_eq!(ipc.close(at, |_| Ok(())), Ok(()));
        assert_eq!(ipc.close(at, |_| Ok(())), Err(CuError::INVALID_VALUE));
        // Another part of the same memory is another opening.
        let next = SharedPart { offset: 512, ..PART };
        assert_eq!(ipc.open(C, next, || Ok(DevicePtr(0x3000))), Ok(DevicePtr(0x3000)));
        ipc.open(C, PART, || Ok(at)).unwrap();
        ipc.forget(C);
        assert_eq!(ipc.close(at, |_| Ok(())), Err(CuError::INVALID_VALUE));
    }

    #[test]
    fn an_allocation_has_one_token_and_is_not_opened_where_it_was_made() {
        let ipc = Ipc::new();
        assert_eq!(ipc.export(5, |_| true, || Ok(PART)), Ok(PART));
        assert_eq!(ipc.export(5, |_| true, || panic!("it is known")), Ok(PART));
        assert_eq!(ipc.open(C, PART, || panic!("its own")), Err(CuError::INVALID_CONTEXT));
        let next = SharedPart { offset: 512, ..PART };
        assert_eq!(ipc.open(C, next, || panic!("in the same memory")), Err(CuError::INVALID_CONTEXT));
        // Those that were freed are forgotten.
        ipc.export(6, |id| id != 5, || Ok(SharedPart { memory: Token([4; 16]), ..PART })).unwrap();
        assert_eq!(ipc.open(C, PART, || Err(CuError::INVALID_VALUE)), Err(CuError::INVALID_VALUE));
    }
}
