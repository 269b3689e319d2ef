//! What travels when an image is loaded: its bytes, then what the worker tells of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vgpu_api::handle::NewHandle;
use vgpu_api::{CuResult, ImageHandle, ImageInfo, ImageKind, ManagedImage, Staged, ask};

use super::Images;
use crate::core::contexts::Entered;
use crate::core::functions::Pristine;
use crate::core::managed_block::Block;

/// What becomes of an upload that is loaded.
#[derive(Clone, Copy)]
pub(super) enum Keep<'a> {
    /// The worker has no use for it afterwards.
    Not,
    /// It stays there.
    New,
    /// It has stayed there: what an earlier load has found out about its functions.
    Known(&'a [Arc<Pristine>]),
}

impl<'a> Keep<'a> {
    pub(super) fn pristine(self) -> &'a [Arc<Pristine>] {
        if let Self::Known(pristine) = self { pristine } else { &[] }
    }
}

/// Of a record, what an upload's chunk carries: the rest is room for its parameters.
const CHUNK_BYTES: usize = 60 * 1024;

impl Images {
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
}

/// The compiler's words about the last load that failed.
pub fn refusal(entered: Entered) -> CuResult<Vec<u8>> {
    let room = entered.process.channel.staging()?;
    let len = ask::vgpuImageLog(&entered.process.channel, entered.context, room.all())?;
    room.take(len.min(room.all().len))
}

/// Loads an upload; an image with managed variables once there is a block for them.
pub(super) fn load_info(
    entered: Entered,
    handle: ImageHandle,
    kind: ImageKind,
    upload: u32,
    keep: Keep<'_>,
) -> CuResult<(ImageInfo, Option<Block>)> {
    let Entered { process, context, .. } = entered;
    let (channel, image, is_kept) = (&process.channel, || NewHandle(handle), !matches!(keep, Keep::Not));
    let load = |out| ask::vgpuImageLoad(channel, context, image(), kind, upload, is_kept, out);
    let info = load_reply(entered, handle, load)?;
    if info.block_bytes == 0 {
        return Ok((info, None));
    }
    let block = Block::take(process, info.block_bytes).inspect_err(|_| {
        // It waits for a block still, and the worker has room for few that wait.
        if !matches!(keep, Keep::Known(_)) {
            let _ = ask::vgpuUploadForget(channel, context, upload);
        }
    })?;
    let managed = ManagedImage { upload, keep: is_kept, block: block.address() };
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
