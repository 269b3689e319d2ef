//! Modules and libraries: their load reply answers all questions about their functions and globals in the guest (`images/image.rs`). How they
//! are loaded: `images/loads.rs`.

mod image;
mod loads;

use std::cell::RefCell;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vgpu_api::handle::{GoneHandle, Handle, Kind, NewHandle, kind};
use vgpu_api::{
    ContextId, CuError, CuResult, FunctionHandle, ImageHandle, ImageInfo, ImageKind, WireError, ask,
};

pub use self::image::Image;
pub use self::loads::refusal;
use self::loads::{Keep, load_info};

use super::contexts::Entered;
use super::fat_binary;
use super::functions::Function;
use super::known_images::{Key, Known, KnownImages};
use super::process::Process;
use super::slab::{Slab, lock};
use crate::log::{self, say};

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
            return self.load_upload(entered, kind, upload, Keep::Not).map(|(image, _)| image);
        };
        let loaded = self.upload(entered, bytes).and_then(|upload| {
            let (image, info) = self.load_upload(entered, kind, upload, Keep::New)?;
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
            let loaded = self.load_upload(entered, kind, known.upload, Keep::Known(&known.pristine));
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

    /// Loads an upload, and waits for what the worker tells of it.
    fn load_upload(
        &self,
        entered: Entered,
        kind: ImageKind,
        upload: u32,
        keep: Keep<'_>,
    ) -> CuResult<(Arc<Image>, ImageInfo)> {
        let channel = &entered.process.channel;
        let handle: ImageHandle = self.slab.insert(None);
        let loaded = load_info(entered, handle, kind, upload, keep).and_then(|(info, block)| {
            let image = Image::new(handle, kind, entered.context, &info, keep.pristine(), block);
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
        image.begin(entered.process);
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
            image.forget_variables(&process.device_memory);
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
            if !stays && image.has_managed() {
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
