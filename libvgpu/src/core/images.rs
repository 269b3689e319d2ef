//! Modules and libraries: their load reply answers all questions about their functions and globals in the guest.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::hash::RandomState;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vgpu_api::handle::{GoneHandle, Handle, Kind, NewHandle, kind};
use vgpu_api::{
    ContextId, CuError, CuResult, FunctionHandle, GlobalInfo, ImageHandle, ImageInfo, ImageKind,
    ManagedImage, Staged, WireError, ask,
};

use super::contexts::Entered;
use super::fat_binary;
use super::functions::{Function, Pristine};
use super::known_images::{Key, Known, KnownImages};
use super::managed_block::Block;
use super::process::Process;
use super::ranges::{GLOBAL, Home, Ranges};
use super::slab::{Slab, lock};
use crate::log::{self, say};

/// Of a record, what an upload's chunk carries: the rest is room for its parameters.
const CHUNK_BYTES: usize = 60 * 1024;

/// One module or library.
#[derive(Debug)]
pub struct Image {
    pub handle: ImageHandle,
    pub kind: ImageKind,
    pub context: ContextId,
    pub functions: Vec<Function>,
    by_name: HashMap<CString, u16>,
    /// As the load reply told, each with its place there.
    globals: HashMap<CString, (usize, GlobalInfo)>,
    /// Managed variables, one for all contexts, and where they lie.
    managed: HashMap<CString, GlobalInfo>,
    block: Option<Block>,
    /// Of a library: its variables' addresses in other contexts than that which it was loaded in, as far as they were asked for.
    others: Mutex<HashMap<ContextId, Arc<[u64]>>>,
}

/// All images of the process. A place without an image is one that is being loaded.
#[derive(Debug)]
pub struct Images {
    slab: Slab<Option<Arc<Image>>>,
    known: Mutex<KnownImages>,
    /// Of the hashes of known images.
    secret: RandomState,
    /// Counts unloads: what threads remember of functions is void after one.
    epoch: AtomicU64,
    uploads: AtomicU32,
}

impl Images {
    pub fn new() -> Self {
        Self {
            slab: Slab::new(),
            known: Mutex::new(KnownImages::new()),
            secret: RandomState::new(),
            epoch: AtomicU64::new(0),
            uploads: AtomicU32::new(1),
        }
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

    /// Loads an image: sends what of it runs here and waits for the list of its functions, but for what the worker has and this library knows.
    pub fn load(&self, entered: Entered, kind: ImageKind, bytes: &[u8]) -> CuResult<Arc<Image>> {
        let bytes = &*fat_binary::for_devices(&entered.process.devices, bytes);
        let key = Key::of(&self.secret, entered, kind, bytes);
        if let Some(key) = &key {
            // The worker keeps it as long as the lock is held.
            let known = lock(&self.known);
            if let Some(known) = known.get(key) {
                return self.load_known(entered, kind, known);
            }
        }
        let Some(key) = key.filter(|key| lock(&self.known).make_room(entered, *key)) else {
            let upload = self.upload(entered, bytes)?;
            return self.load_upload(entered, kind, upload, None).map(|(image, _)| image);
        };
        let loaded = self.upload(entered, bytes).and_then(|upload| {
            let (image, info) = self.load_upload(entered, kind, upload, Some(&[]))?;
            Ok((upload, image, info))
        });
        match loaded {
            Ok((upload, image, info)) => {
                let pristine =
                    image.functions.iter().map(|function| Arc::clone(&function.pristine)).collect();
                lock(&self.known).add(entered, key, Known { upload, info, pristine });
                Ok(image)
            }
            Err(error) => {
                lock(&self.known).give_up(key);
                Err(error)
            }
        }
    }

    /// Loads what the worker has kept. Only the addresses of variables have to be waited for.
    fn load_known(&self, entered: Entered, kind: ImageKind, known: &Known) -> CuResult<Arc<Image>> {
        if !known.info.globals.is_empty() || !known.info.managed.is_empty() {
            let loaded = self.load_upload(entered, kind, known.upload, Some(&known.pristine));
            return loaded.map(|(image, _)| image);
        }
        let handle: ImageHandle = self.slab.insert(None);
        let (channel, context) = (&entered.process.channel, entered.context);
        let made = ask::vgpuImageLoadAgain(channel, context, NewHandle(handle), kind, known.upload)
            .and_then(|()| Image::new(handle, kind, entered.context, &known.info, &known.pristine, None));
        match made {
            Ok(image) => self.keep(entered, Arc::new(image)),
            Err(error) => self.slab.end(handle, |_| Err(error))?,
        }
    }

    /// Loads an upload, which the worker keeps if `kept` is given: what is known of its functions' attributes, if anything is.
    fn load_upload(
        &self,
        entered: Entered,
        kind: ImageKind,
        upload: u32,
        kept: Option<&[Arc<Pristine>]>,
    ) -> CuResult<(Arc<Image>, ImageInfo)> {
        let channel = &entered.process.channel;
        let handle: ImageHandle = self.slab.insert(None);
        let loaded = load_info(entered, handle, kind, upload, kept.is_some()).and_then(|(info, block)| {
            let image = Image::new(handle, kind, entered.context, &info, kept.unwrap_or_default(), block);
            let image =
                image.map_err(|_| channel.broken(&WireError::BadValue("name of a function or variable")))?;
            Ok((Arc::new(image), info))
        });
        match loaded {
            Ok((image, info)) => self.keep(entered, image).map(|image| (image, info)),
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

    /// The worker has it.
    fn keep(&self, entered: Entered, image: Arc<Image>) -> CuResult<Arc<Image>> {
        for (_, global) in image.globals.values().filter(|(_, global)| global.bytes > 0) {
            let (start, owner) = (global.address.0, image.owner());
            entered.process.device_memory.insert(start, global.bytes, owner, GLOBAL);
        }
        Block::begin(image.managed.values(), image.owner());
        self.slab.set(image.handle, Some(Arc::clone(&image)))?;
        Ok(image)
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
        let told = self.slab.end(image.handle, |_| {
            // After the slab has lost it: a thread that looks it up in between must not remember it in the new epoch.
            self.epoch.fetch_add(1, Ordering::Release);
            let own = image.globals.values().map(|(_, global)| global.address.0);
            forget_all(&process.device_memory, own);
            lock(&image.others)
                .values()
                .for_each(|addresses| forget_all(&process.device_memory, addresses.iter().copied()));
            let told = ask::vgpuImageUnload(&process.channel, image.context, GoneHandle(image.handle));
            process.references.forget_image(image.handle);
            told
        })?;
        told.and(image.end_managed(process))
    }

    /// Forgets the modules of a context that ended; libraries live on, but for what they had in one that was created.
    pub fn forget(&self, process: &Process, context: ContextId) {
        let mut ended = Vec::new();
        self.slab.retain(|image| {
            let Some(image) = image else { return true };
            if image.kind == ImageKind::Library && context.primary_device().is_none() {
                image.leave(context, &process.device_memory);
            }
            let stays = image.owner() != context;
            if !stays && image.block.is_some() {
                ended.push(Arc::clone(image));
            }
            stays
        });
        self.epoch.fetch_add(1, Ordering::Release);
        // A worker that is gone, or that keeps a part, is told of by the next call that needs it.
        for image in ended {
            let _ = image.end_managed(process);
        }
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

fn forget_all(device_memory: &Ranges, variables: impl Iterator<Item = u64>) {
    for address in variables {
        device_memory.remove(address, |range| range.flags == GLOBAL);
    }
}

/// The compiler's words about the last load that failed.
pub fn refusal(entered: Entered) -> CuResult<Vec<u8>> {
    let room = entered.process.channel.staging()?;
    let len = ask::vgpuImageLog(&entered.process.channel, entered.context, room.all())?;
    room.take(len.min(room.all().len))
}

/// Loads an upload; an image with managed variables once there is a block for them.
fn load_info(
    entered: Entered,
    handle: ImageHandle,
    kind: ImageKind,
    upload: u32,
    keep: bool,
) -> CuResult<(ImageInfo, Option<Block>)> {
    let Entered { process, context, .. } = entered;
    let (channel, image) = (&process.channel, || NewHandle(handle));
    let load = |out| ask::vgpuImageLoad(channel, context, image(), kind, upload, keep, out);
    let info = load_reply(entered, handle, load)?;
    if info.block_bytes == 0 {
        return Ok((info, None));
    }
    let block = Block::take(process, info.block_bytes)?;
    let managed = ManagedImage { upload, keep, block: block.address() };
    let load = |out| ask::vgpuImageLoadManaged(channel, context, image(), kind, managed, out);
    let info = load_reply(entered, handle, load)
        .and_then(|info| block.holds(&info.managed).map(|()| info).map_err(|error| channel.broken(&error)));
    match info {
        Ok(info) => Ok((info, Some(block))),
        Err(error) => {
            // The load's error matters more.
            let _ = block.end(process, [].iter());
            Err(error)
        }
    }
}

fn load_reply(
    entered: Entered,
    handle: ImageHandle,
    load: impl FnOnce(Staged) -> CuResult<u64>,
) -> CuResult<ImageInfo> {
    let (channel, context) = (&entered.process.channel, entered.context);
    let room = channel.staging()?;
    let total = load(room.all())?;
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

    /// `pristine`: what an earlier load of the same bytes has found out about its functions.
    fn new(
        handle: ImageHandle,
        kind: ImageKind,
        context: ContextId,
        info: &ImageInfo,
        pristine: &[Arc<Pristine>],
        block: Option<Block>,
    ) -> CuResult<Self> {
        let mut functions = Vec::with_capacity(info.functions.len());
        let mut by_name = HashMap::new();
        for (ordinal, function) in info.functions.iter().enumerate() {
            let made = Function::new(function, pristine.get(ordinal).cloned().unwrap_or_default())?;
            by_name.insert(made.name.clone(), u16::try_from(ordinal).map_err(|_| CuError::UNKNOWN)?);
            functions.push(made);
        }
        let mut globals = HashMap::new();
        for (place, global) in info.globals.iter().enumerate() {
            let name = CString::new(global.name.as_str()).map_err(|_| CuError::UNKNOWN)?;
            globals.insert(name, (place, global.clone()));
        }
        let mut managed = HashMap::new();
        for one in &info.managed {
            let name = CString::new(one.name.as_str()).map_err(|_| CuError::UNKNOWN)?;
            managed.insert(name, one.clone());
        }
        Ok(Self {
            handle,
            kind,
            context,
            functions,
            by_name,
            globals,
            managed,
            block,
            others: Mutex::default(),
        })
    }

    /// A variable by its name: its address in the current context, since each has a library's of its own, and its length.
    /// # Errors
    /// 500 for no variable, the worker's if the device has no room for them.
    pub fn global(&self, process: &Process, name: &CStr) -> CuResult<(u64, u64)> {
        if let Some(managed) = self.managed.get(name) {
            return Ok((managed.address.0, managed.bytes));
        }
        let (place, global) = self.globals.get(name).ok_or(CuError::NOT_FOUND)?;
        let context = process.contexts.current_owner();
        let Some(ordinal) = self.elsewhere(process, context) else {
            return Ok((global.address.0, global.bytes));
        };
        let addresses = self.in_context(process, context, ordinal)?;
        addresses.get(*place).map(|address| (*address, global.bytes)).ok_or(CuError::NOT_FOUND)
    }

    /// Whether it has a managed variable of this name.
    pub fn is_managed(&self, name: &CStr) -> bool {
        self.managed.contains_key(name)
    }

    /// The image has ended, for the worker, too.
    fn end_managed(&self, process: &Process) -> CuResult<()> {
        self.block.as_ref().map_or(Ok(()), |block| block.end(process, self.managed.values()))
    }

    /// The ordinal of a context's device, if this is a library that was loaded in another context: if in none, in the first primary one.
    fn elsewhere(&self, process: &Process, context: ContextId) -> Option<u32> {
        let home = if self.context == ContextId::NONE { ContextId::primary(0) } else { self.context };
        if self.kind != ImageKind::Library || context == home {
            return None;
        }
        process.contexts.alive(context).ok()
    }

    fn in_context(&self, process: &Process, context: ContextId, ordinal: u32) -> CuResult<Arc<[u64]>> {
        let mut others = lock(&self.others);
        if let Some(known) = others.get(&context) {
            return Ok(Arc::clone(known));
        }
        let room = process.channel.staging()?;
        let mut addresses = Vec::with_capacity(self.globals.len());
        while addresses.len() < self.globals.len() {
            let first = addresses.len() as u64;
            ask::vgpuImageVariables(&process.channel, context, self.handle, first, room.all())?;
            let left = (self.globals.len() as u64 - first).saturating_mul(8);
            let bytes = room.take(left.min(room.all().len / 8 * 8))?;
            addresses.extend(bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)));
        }
        for (place, global) in self.globals.values().filter(|(_, global)| global.bytes > 0) {
            let home = Home { device: ordinal, handle: 0 };
            process.device_memory.insert_home(addresses[*place], global.bytes, GLOBAL, home);
        }
        let addresses: Arc<[u64]> = addresses.into();
        others.insert(context, Arc::clone(&addresses));
        Ok(addresses)
    }

    /// A context has ended, and a library's variables with it.
    fn leave(&self, context: ContextId, device_memory: &Ranges) {
        if let Some(addresses) = lock(&self.others).remove(&context) {
            forget_all(device_memory, addresses.iter().copied());
        }
        if context == self.context {
            forget_all(device_memory, self.globals.values().map(|(_, global)| global.address.0));
        }
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
