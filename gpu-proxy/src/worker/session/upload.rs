//! Images and graphs on their way here, and the images that stay to be loaded again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use vgpu_api::image::{KEPT_BYTES_MAX, KEPT_IMAGE_BYTES_MAX, KEPT_IMAGES_MAX};
use vgpu_api::{Attributes, CuError, CuResult, ImageInfo};

use super::Session;

/// Uploads at once, and bytes of all of them: they are the worker's own memory until a call takes them.
const UPLOADS_MAX: usize = 64;
const UPLOAD_BYTES_MAX: u64 = 1 << 30;

/// What the guest has uploaded, by its numbers.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    by_number: HashMap<u32, Upload>,
    bytes: u64,
    kept: HashMap<u32, Kept>,
    kept_bytes: usize,
}

#[derive(Debug)]
struct Upload {
    total: u64,
    bytes: Vec<u8>,
}

impl Upload {
    /// Its bytes, if all of them have arrived.
    fn whole(self) -> Option<Vec<u8>> {
        (self.bytes.len() as u64 == self.total).then_some(self.bytes)
    }
}

/// An upload that was loaded once.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) bytes: Arc<Vec<u8>>,
    /// A hash of what its first load has shown.
    shown: u64,
}

impl Kept {
    /// Whether a load of its bytes has shown the same as the first, and no variables: their addresses would be others.
    pub(super) fn is_of(&self, info: ImageInfo) -> bool {
        info.globals.is_empty() && info.managed.is_empty() && self.shown == hash(info)
    }
}

/// Without attributes: a device may give them or not.
fn hash(mut info: ImageInfo) -> u64 {
    info.functions.iter_mut().for_each(|function| function.attributes = Attributes::default());
    let mut hasher = DefaultHasher::new();
    info.to_bytes().hash(&mut hasher);
    hasher.finish()
}

impl Uploads {
    /// Adds a chunk. It grows by what arrived, whatever `total` says.
    fn add(&mut self, number: u32, total: u64, offset: u64, chunk: &[u8]) -> CuResult<()> {
        if offset == 0 {
            self.take(number);
            if self.by_number.len() >= UPLOADS_MAX {
                return Err(CuError::OUT_OF_MEMORY);
            }
            self.by_number.insert(number, Upload { total, bytes: Vec::new() });
        }
        if self.bytes + chunk.len() as u64 > UPLOAD_BYTES_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let upload = self.by_number.get_mut(&number).ok_or(CuError::INVALID_VALUE)?;
        let end = offset.checked_add(chunk.len() as u64).ok_or(CuError::INVALID_VALUE)?;
        if offset != upload.bytes.len() as u64 || end > upload.total {
            return Err(CuError::INVALID_VALUE);
        }
        upload.bytes.extend_from_slice(chunk);
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    /// Takes an upload out, complete or not.
    fn take(&mut self, number: u32) -> Option<Upload> {
        let upload = self.by_number.remove(&number)?;
        self.bytes -= upload.bytes.len() as u64;
        Some(upload)
    }

    /// Puts back what a call took and has not used.
    pub(super) fn put_back(&mut self, number: u32, bytes: Arc<Vec<u8>>) {
        // Of one that is kept there is nothing to put back.
        if let Ok(bytes) = Arc::try_unwrap(bytes) {
            let total = bytes.len() as u64;
            self.bytes += total;
            self.by_number.insert(number, Upload { total, bytes });
        }
    }

    /// Keeps the bytes of an image, as far as there is room.
    pub(super) fn keep(&mut self, number: u32, bytes: Arc<Vec<u8>>, info: ImageInfo) {
        self.forget(number);
        let all = self.kept_bytes + bytes.len();
        if bytes.len() <= KEPT_IMAGE_BYTES_MAX && self.kept.len() < KEPT_IMAGES_MAX && all <= KEPT_BYTES_MAX {
            self.kept_bytes = all;
            self.kept.insert(number, Kept { bytes, shown: hash(info) });
        }
    }

    /// An upload that was kept.
    pub(super) fn kept(&self, number: u32) -> CuResult<Kept> {
        self.kept.get(&number).cloned().ok_or(CuError::INVALID_VALUE)
    }

    pub(super) fn forget(&mut self, number: u32) {
        if let Some(kept) = self.kept.remove(&number) {
            self.kept_bytes -= kept.bytes.len();
        }
    }
}

impl Session {
    pub(super) fn upload(&mut self, number: u32, total: u64, offset: u64, chunk: &[u8]) -> CuResult<()> {
        self.uploads.add(number, total, offset, chunk)
    }

    /// The bytes of an upload, for the call that names it.
    pub(super) fn take_upload(&mut self, number: u32) -> CuResult<Vec<u8>> {
        let upload = self.uploads.take(number).ok_or(CuError::INVALID_VALUE)?;
        upload.whole().ok_or(CuError::INVALID_IMAGE)
    }

    /// The bytes of an image, whose upload may have been kept.
    pub(super) fn image_bytes(&mut self, number: u32) -> CuResult<Arc<Vec<u8>>> {
        match self.uploads.kept(number) {
            Ok(kept) => Ok(kept.bytes),
            Err(_) => self.take_upload(number).map(Arc::new),
        }
    }

    /// Of one that is kept, or that waits for a call which will not come.
    pub(super) fn forget_upload(&mut self, number: u32) -> CuResult<()> {
        self.uploads.forget(number);
        self.uploads.take(number);
        Ok(())
    }
}
