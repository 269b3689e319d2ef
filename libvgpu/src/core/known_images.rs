//! Images by their content: the worker keeps the bytes of small ones, so that the same image needs to travel once in a process.
//!
//! Programs that compile kernels load the same bytes again and again, a plan of cuDNN at a time. What is known of them makes a load of an
//! image without variables a queued record. The oldest go when there is no more room; the worker counts as this does.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use vgpu_api::image::{KEPT_BYTES_MAX, KEPT_IMAGE_BYTES_MAX, KEPT_IMAGES_MAX};
use vgpu_api::{ImageInfo, ImageKind, ask};

use super::contexts::Entered;
use super::functions::Pristine;

/// A content: its length and a hash of 64 bits whose secret is the process's, so that nobody can make two of the same; how and on which
/// device it was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    hash: u64,
    bytes: usize,
    kind: ImageKind,
    device: u32,
}

impl Key {
    /// Of an image, unless it is too large to be kept.
    pub fn of(secret: &RandomState, entered: Entered, kind: ImageKind, bytes: &[u8]) -> Option<Self> {
        let fits = bytes.len() <= KEPT_IMAGE_BYTES_MAX;
        fits.then(|| Self { hash: secret.hash_one(bytes), bytes: bytes.len(), kind, device: entered.device })
    }
}

/// What is known of an image that the worker has kept.
#[derive(Debug)]
pub struct Known {
    /// Its number there.
    pub upload: u32,
    pub info: ImageInfo,
    /// Of each function, shared with all loads.
    pub pristine: Vec<Arc<Pristine>>,
}

/// All of them.
#[derive(Debug)]
pub struct KnownImages {
    by_key: HashMap<Key, Known>,
    oldest_first: VecDeque<Key>,
    /// Of those that are kept, and of those that are being loaded.
    bytes: usize,
    loading: usize,
}

impl KnownImages {
    pub fn new() -> Self {
        Self { by_key: HashMap::new(), oldest_first: VecDeque::new(), bytes: 0, loading: 0 }
    }

    pub fn get(&self, key: &Key) -> Option<&Known> {
        self.by_key.get(key)
    }

    /// Makes room for an image that is about to be loaded: [`KnownImages::add`] or [`KnownImages::give_up`] follows. `false`: what other
    /// threads are loading takes all of it.
    #[must_use]
    pub fn make_room(&mut self, entered: Entered, key: Key) -> bool {
        self.bytes += key.bytes;
        self.loading += 1;
        while self.bytes > KEPT_BYTES_MAX || self.by_key.len() + self.loading > KEPT_IMAGES_MAX {
            let Some(oldest) = self.oldest_first.pop_front() else {
                self.give_up(key);
                return false;
            };
            if let Some(known) = self.by_key.remove(&oldest) {
                self.bytes -= oldest.bytes;
                forget(entered, &known);
            }
        }
        true
    }

    /// It is loaded, and kept by the worker.
    pub fn add(&mut self, entered: Entered, key: Key, known: Known) {
        self.loading -= 1;
        if self.by_key.contains_key(&key) {
            // Another thread was faster.
            self.bytes -= key.bytes;
            return forget(entered, &known);
        }
        self.by_key.insert(key, known);
        self.oldest_first.push_back(key);
    }

    /// It could not be loaded.
    pub fn give_up(&mut self, key: Key) {
        self.loading -= 1;
        self.bytes -= key.bytes;
    }
}

/// If the worker cannot be told, it is gone.
fn forget(entered: Entered, known: &Known) {
    let _ = ask::vgpuUploadForget(&entered.process.channel, entered.context, known.upload);
}
