//! Modules and libraries: their load reply answers all questions about their functions and globals in the guest.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use vgpu_api::handle::{GoneHandle, Handle, Kind, NewHandle, kind};
use vgpu_api::image::FUNCTION_ATTRIBUTES;
use vgpu_api::{
    ContextId, CuError, CuResult, FunctionHandle, GlobalInfo, ImageHandle, ImageInfo, ImageKind, ParamInfo,
    WireError, ask,
};

use super::contexts::Entered;
use super::process::Process;
use super::ranges::GLOBAL;
use super::slab::{Slab, lock};
use crate::log::{self, say};

/// Of a record, what an upload's chunk carries: the rest is room for its parameters.
const CHUNK_BYTES: usize = 60 * 1024;

/// Answers about occupancy that are kept of one kernel.
const OCCUPANCIES_MAX: usize = 256;

/// One kernel.
#[derive(Debug)]
pub struct Function {
    pub name: CString,
    pub params: Vec<ParamInfo>,
    /// The packed parameter block.
    pub param_bytes: usize,
    attributes: OnceLock<[AtomicI32; FUNCTION_ATTRIBUTES]>,
    occupancy: Mutex<HashMap<(u32, u64, u32), u32>>,
}

/// One module or library.
#[derive(Debug)]
pub struct Image {
    pub handle: ImageHandle,
    pub kind: ImageKind,
    pub context: ContextId,
    pub functions: Vec<Function>,
    by_name: HashMap<CString, u16>,
    pub globals: HashMap<CString, GlobalInfo>,
}

/// All images of the process. A place without an image is one that is being loaded.
#[derive(Debug)]
pub struct Images {
    slab: Slab<Option<Arc<Image>>>,
    /// Counts unloads: what threads remember of functions is void after one.
    epoch: AtomicU64,
    uploads: AtomicU32,
}

impl Images {
    pub const fn new() -> Self {
        Self { slab: Slab::new(), epoch: AtomicU64::new(0), uploads: AtomicU32::new(1) }
    }

    /// Sends bytes that a later call takes; its number.
    pub fn upload(&self, entered: Entered, bytes: &[u8]) -> CuResult<u32> {
        let upload = self.uploads.fetch_add(1, Ordering::Relaxed);
        let send = |offset: usize, chunk: &[u8]| {
            let (channel, total) = (&entered.process.channel, bytes.len() as u64);
            ask::vgpuUpload(channel, entered.context, upload, total, offset as u64, chunk)
        };
        if bytes.is_empty() {
            send(0, bytes)?;
        }
        for (number, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            send(number * CHUNK_BYTES, chunk)?;
        }
        Ok(upload)
    }

    /// Sends the image's bytes and waits for the list of its functions.
    pub fn load(&self, entered: Entered, kind: ImageKind, bytes: &[u8]) -> CuResult<Arc<Image>> {
        let (channel, context) = (&entered.process.channel, entered.context);
        let upload = self.upload(entered, bytes)?;
        let handle: ImageHandle = self.slab.insert(None);
        let loaded = load_reply(entered, handle, kind, upload).and_then(|info| {
            Image::new(handle, kind, context, info)
                .map_err(|_| channel.broken(&WireError::BadValue("name of a function or variable")))
        });
        match loaded {
            Ok(image) => {
                let image = Arc::new(image);
                for global in image.globals.values().filter(|global| global.bytes > 0) {
                    let (start, owner) = (global.address.0, image.owner());
                    entered.process.device_memory.insert(start, global.bytes, owner, GLOBAL);
                }
                self.slab.set(handle, Some(Arc::clone(&image)))?;
                Ok(image)
            }
            Err(error) => {
                self.slab.end(handle, |_| ())?;
                // Why the upload failed says more than that there was nothing to load.
                channel.take_error()?;
                if log::wanted() {
                    let why = refusal(entered).unwrap_or_default();
                    say!("an image is not loaded, {error}: {}", String::from_utf8_lossy(&why));
                }
                Err(error)
            }
        }
    }

    /// The image of a module's or library's handle.
    pub fn get<K: Kind>(&self, raw: u64) -> CuResult<Arc<Image>> {
        let handle = Handle::<K>::check(raw)?.as_kind::<kind::Image>();
        let image = self.slab.get(handle)?.ok_or(CuError::INVALID_HANDLE)?;
        // A module's handle of a library is right (`cuLibraryGetModule`), a library's handle of a module is not.
        let right = image.kind == ImageKind::Library || K::NUMBER == kind::Module::NUMBER;
        if right { Ok(image) } else { Err(CuError::INVALID_HANDLE) }
    }

    /// Ends an image.
    pub fn unload(&self, process: &Process, image: &Image) -> CuResult<()> {
        self.slab.end(image.handle, |_| {
            // After the slab has lost it: a thread that looks it up in between must not remember it in the new epoch.
            self.epoch.fetch_add(1, Ordering::Release);
            for global in image.globals.values() {
                process.device_memory.remove(global.address.0, |range| range.flags == GLOBAL);
            }
            ask::vgpuImageUnload(&process.channel, image.context, GoneHandle(image.handle))
        })?
    }

    /// Forgets the modules of a context that ended; libraries live on.
    pub fn forget(&self, context: ContextId) {
        self.slab.retain(|image| image.as_ref().is_none_or(|image| image.owner() != context));
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Runs `body` with the function of a program's handle. Each thread remembers the functions it used last.
    #[inline]
    pub fn with_function<T>(
        &self,
        raw: u64,
        body: impl FnOnce(FunctionHandle, &Image, &Function) -> CuResult<T>,
    ) -> CuResult<T> {
        let handle = FunctionHandle::check(raw)?;
        let epoch = self.epoch.load(Ordering::Acquire);
        let image = match take_remembered(raw, epoch) {
            Some(image) => image,
            None => self.slab.get(handle.image())?.ok_or(CuError::INVALID_HANDLE)?,
        };
        let function = image.functions.get(usize::from(handle.ordinal())).ok_or(CuError::INVALID_HANDLE)?;
        let result = body(handle, &image, function);
        // Taken out and put back: a hit touches no shared count. `body` may have come here again, with another function.
        remember(raw, epoch, image);
        result
    }
}

/// What a thread remembers: the handle, the epoch it was true in, the image.
type Remembered = Option<(u64, u64, Arc<Image>)>;
const REMEMBERED: usize = 64;

thread_local! {
    static FUNCTIONS: RefCell<[Remembered; REMEMBERED]> = const { RefCell::new([const { None }; REMEMBERED]) };
}

/// Handles of one image differ in their low bits, those of several images at bit 16.
fn place(raw: u64) -> usize {
    usize::try_from((raw ^ raw >> 16) % REMEMBERED as u64).unwrap_or(0)
}

#[inline]
fn take_remembered(raw: u64, epoch: u64) -> Option<Arc<Image>> {
    let found = FUNCTIONS.try_with(|functions| {
        let mut functions = functions.borrow_mut();
        let slot = &mut functions[place(raw)];
        let right = slot.as_ref().is_some_and(|(handle, then, _)| *handle == raw && *then == epoch);
        if right { slot.take().map(|(_, _, image)| image) } else { None }
    });
    found.ok().flatten()
}

#[inline]
fn remember(raw: u64, epoch: u64, image: Arc<Image>) {
    // Without effect in a thread whose locals are gone.
    let _ = FUNCTIONS.try_with(|functions| {
        let old = functions.borrow_mut()[place(raw)].replace((raw, epoch, image));
        drop(old); // After the borrow: the last reference to an image frees much.
    });
}

/// The compiler's words about the last load that failed.
pub fn refusal(entered: Entered) -> CuResult<Vec<u8>> {
    let room = entered.process.channel.staging()?;
    let len = ask::vgpuImageLog(&entered.process.channel, entered.context, room.all())?;
    room.take(len.min(room.all().len))
}

fn load_reply(entered: Entered, handle: ImageHandle, kind: ImageKind, upload: u32) -> CuResult<ImageInfo> {
    let (channel, context) = (&entered.process.channel, entered.context);
    let room = channel.staging()?;
    let total = ask::vgpuImageLoad(channel, context, NewHandle(handle), kind, upload, room.all())?;
    let mut reply = Vec::new();
    loop {
        let left = total.saturating_sub(reply.len() as u64);
        reply.extend_from_slice(&room.take(left.min(room.all().len))?);
        if reply.len() as u64 >= total {
            break;
        }
        ask::vgpuImageInfo(channel, context, handle, reply.len() as u64, room.all())?;
    }
    ImageInfo::parse(&reply).map_err(|error| channel.broken(&error))
}

impl Image {
    /// The context that it ends with; libraries are the process's.
    fn owner(&self) -> ContextId {
        match self.kind {
            ImageKind::Module => self.context,
            ImageKind::Library => ContextId::NONE,
        }
    }

    fn new(handle: ImageHandle, kind: ImageKind, context: ContextId, info: ImageInfo) -> CuResult<Self> {
        let mut functions = Vec::with_capacity(info.functions.len());
        let mut by_name = HashMap::new();
        for (ordinal, function) in info.functions.into_iter().enumerate() {
            let param_bytes = usize::try_from(function.param_bytes()).map_err(|_| CuError::UNKNOWN)?;
            let name = CString::new(function.name).map_err(|_| CuError::UNKNOWN)?;
            by_name.insert(name.clone(), u16::try_from(ordinal).map_err(|_| CuError::UNKNOWN)?);
            let made = Function {
                name,
                params: function.params,
                param_bytes,
                attributes: OnceLock::new(),
                occupancy: Mutex::new(HashMap::new()),
            };
            if !function.attributes.values.is_empty() {
                made.learn(&function.attributes.values);
            }
            functions.push(made);
        }
        let mut globals = HashMap::new();
        for global in info.globals {
            globals.insert(CString::new(global.name.as_str()).map_err(|_| CuError::UNKNOWN)?, global);
        }
        Ok(Self { handle, kind, context, functions, by_name, globals })
    }

    /// The handle of the function at a place of the list.
    pub fn function_at(&self, ordinal: usize) -> CuResult<FunctionHandle> {
        let ordinal = u16::try_from(ordinal).map_err(|_| CuError::INVALID_VALUE)?;
        Ok(FunctionHandle::of_image(self.handle, ordinal))
    }

    /// The handle of a function.
    /// # Errors
    /// 500.
    pub fn function_named(&self, name: &CStr) -> CuResult<FunctionHandle> {
        self.by_name
            .get(name)
            .map(|ordinal| FunctionHandle::of_image(self.handle, *ordinal))
            .ok_or(CuError::NOT_FOUND)
    }
}

impl Function {
    fn learn(&self, values: &[i32]) {
        // Two threads may learn at once; what they learn is the same.
        let _ =
            self.attributes.set(std::array::from_fn(|i| AtomicI32::new(values.get(i).copied().unwrap_or(0))));
    }

    /// An attribute, if it is known without asking.
    #[inline]
    pub fn known_attribute(&self, number: u32) -> Option<i32> {
        Some(self.attributes.get()?.get(number as usize)?.load(Ordering::Relaxed))
    }

    /// An attribute; asks the worker the first time if the load reply left it out.
    pub fn attribute(&self, entered: Entered, handle: FunctionHandle, number: u32) -> CuResult<i32> {
        if number as usize >= FUNCTION_ATTRIBUTES {
            return Err(CuError::INVALID_VALUE);
        }
        if self.attributes.get().is_none() {
            let attributes = ask::vgpuFunctionAttributes(&entered.process.channel, entered.context, handle)?;
            self.learn(&attributes.values);
        }
        self.known_attribute(number).ok_or(CuError::INVALID_VALUE)
    }

    /// Keeps an attribute that the program set; what was known of its occupancy is void.
    pub fn set_attribute(&self, number: u32, value: i32) {
        if let Some(place) = self.attributes.get().and_then(|attributes| attributes.get(number as usize)) {
            place.store(value, Ordering::Relaxed);
        }
        lock(&self.occupancy).clear();
    }

    /// The occupancy for a block size, shared memory and flags; `ask` answers the first time.
    pub fn occupancy(&self, key: (u32, u64, u32), ask: impl FnOnce() -> CuResult<u32>) -> CuResult<u32> {
        if let Some(blocks) = lock(&self.occupancy).get(&key) {
            return Ok(*blocks);
        }
        let blocks = ask()?;
        let mut known = lock(&self.occupancy);
        if known.len() >= OCCUPANCIES_MAX {
            known.clear();
        }
        known.insert(key, blocks);
        Ok(blocks)
    }
}
