//! The calls that travel, one line each. The line is the contract.
//!
//! Classes: `async` is queued, its error comes through the error word; `sync` waits for the reply; `cached` waits once and the
//! guest keeps the answer; `wait` is a `sync` whose answer may take as long as the GPU does; `bulk` is a `sync` whose bytes
//! travel through the staging area. Types: [`Stream`], [`EventHandle`], … are handles; [`NewHandle`] is made, [`GoneHandle`] ended by the call;
//! [`DevicePtr`] is an address to check; `&[u8]` travels in the record; [`Staged`] in staging.
//!
//! Names: CUDA's, where the call does what that symbol does. `vgpu…` are our own. Calls that never travel: [`crate::surface`].

use crate::array::{ArrayPlace, ArrayShape, BoxSide, Extent, LinearPlace};
use crate::call_macro::{calls, class, reply_type, travel};
use crate::graph::{
    ArrayAndHost, ArrayAndMemory, Body, Conditional, CopyBox, GraphEdge, GraphNode, GraphWork, Rows,
    TwoArrays,
};
use crate::green::{SmGroups, SmResource, SmSource, SmSplit};
use crate::handle::{
    ArrayHandle, ContextId, EventHandle, FunctionHandle, GoneHandle, GraphExecHandle, ImageHandle,
    LinkerHandle, MemoryHandle, MipmapHandle, NewHandle, PoolHandle, Stream, SurfRefHandle, TexRefHandle,
    kind,
};
use crate::image::{Attributes, ImageKind, ManagedImage};
use crate::launch::Launch;
use crate::link::{JitOption, LinkTold};
use crate::memory::{CopyWord, DevicePtr, MemInfo, Memset, Staged};
use crate::printed::Printed;
use crate::result::CuResult;
use crate::shared::{PooledPiece, SharedPart, Token};
use crate::stream_memory::{MemoryOp, MemoryOpKind};
use crate::tensor_map::{TensorMap, TensorSpec};
use crate::texref::{SamplerField, SamplerSetting};
use crate::texture::{LinearTexels, Object, PitchedTexels, Resource, Sampler, Texture, View};
use crate::virtual_memory::Access;
use crate::wire::{Wire, Writer};

/// How a call travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Queued.
    Async,
    /// One reply.
    Sync,
    /// One reply, kept by the guest.
    Cached,
    /// One reply, bytes through staging.
    Bulk,
    /// One reply, when the GPU is done.
    Wait,
}

calls! {
    /// The devices of the zone and the limits: a [`crate::Snapshot`] written to `out`. Answers the length it has (at most
    /// `out.len` was written).
    bulk fn vgpuSnapshot(out: Staged) -> u64;

    // Contexts.
    /// The first retain of a device's primary context in this process; `flags` as of `cuDevicePrimaryCtxSetFlags`.
    sync fn cuDevicePrimaryCtxRetain(device: u32, flags: u32);
    /// The last release: the context and all that it holds end.
    sync fn cuDevicePrimaryCtxRelease_v2(device: u32);
    /// Ends the primary context whatever its count; the next retain makes a new one of the same id.
    sync fn cuDevicePrimaryCtxReset_v2(device: u32);
    /// Makes a context of `device` with the id `context`, above [`ContextId::PRIMARY_MAX`].
    sync fn cuCtxCreate_v2(context: ContextId, flags: u32, device: u32);
    /// Ends a context that was created.
    sync fn cuCtxDestroy_v2(context: ContextId);
    /// Waits for all that was queued in the call's context.
    wait fn cuCtxSynchronize();
    /// A limit of the call's context, by `CUlimit`.
    cached fn cuCtxGetLimit(limit: u32) -> u64;
    /// Sets a limit of the call's context. What it costs counts against the grant.
    sync fn cuCtxSetLimit(limit: u32, value: u64);
    /// Lets kernels of the call's context reach the memory of `peer`, a context of another device. 217 if they cannot, 704 if they do.
    sync fn cuCtxEnablePeerAccess(peer: ContextId);
    /// Keeps them from it. 705 if they do not reach it.
    sync fn cuCtxDisablePeerAccess(peer: ContextId);

    // Green contexts. Where a call's context is waited for or recorded, or a stream is made in it, it may be one.
    /// Multiprocessors that a device or a green context has.
    sync fn vgpuSmResource(of: SmSource) -> SmResource;
    /// What a split of them gives. 915 if there is no group.
    sync fn vgpuSmSplit(of: SmSource, split: SmSplit) -> SmGroups;
    /// Makes a green context of the primary context of `of`'s device, with the id `green`, above [`ContextId::PRIMARY_MAX`], and these parts of
    /// a split: a group's place, or [`crate::green::REST`]; no part: all that `of` has. `stream` names its legacy stream until it ends.
    sync fn vgpuGreenCreate(
        green: ContextId, stream: NewHandle<kind::Stream>, of: SmSource, split: SmSplit, parts: Vec<u32>) -> SmResource;
    /// Ends a green context; calls with streams that were made in it give 709, until a stream gets their number.
    sync fn vgpuGreenDestroy(green: ContextId);

    // Memory.
    /// Device memory of the call's context. 2 when the grant is used up.
    sync fn cuMemAlloc_v2(bytes: u64) -> DevicePtr;
    /// Frees what `cuMemAlloc_v2` gave, after the work that was queued before it.
    async fn cuMemFree_v2(dptr: DevicePtr);
    /// Free and total bytes of the grant.
    sync fn cuMemGetInfo_v2() -> MemInfo;
    /// Host to device, the bytes in the record.
    async fn cuMemcpyHtoDAsync_v2(dst: DevicePtr, bytes: &[u8], stream: Stream);
    /// Host to device through staging. Answers when staging may be used again, in the order of `stream`.
    bulk fn vgpuMemcpyHtoDStaged(dst: DevicePtr, src: Staged, stream: Stream);
    /// Device to host through staging. Answers when the bytes are there, after the work that `stream` held.
    bulk fn vgpuMemcpyDtoHStaged(dst: Staged, src: DevicePtr, stream: Stream);
    /// Device to device; the ranges may not overlap.
    async fn cuMemcpyDtoDAsync_v2(dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream);
    /// All the `cuMemset*`.
    async fn vgpuMemset(memset: Memset, stream: Stream);

    // The arena: pinned host memory, which guest and worker have at the same addresses (`idm::arena`).
    /// Lets `bytes` of the arena from `address` on be named by copies, sets and kernels of every context: whole pages, none of which
    /// can be named yet. 801 without an arena, 2 when the device or the worker takes no more.
    sync fn vgpuArenaAdd(address: DevicePtr, bytes: u64);
    /// Ends what `vgpuArenaAdd` began at `address`, when all work of all contexts is done: the guest may give the pages back then.
    wait fn vgpuArenaRemove(address: DevicePtr);
    /// Waits for all work of all contexts: then nothing of it reads or writes the arena.
    wait fn vgpuArenaSettle();
    /// Between any two of device memory and the arena, by the addresses alone, in the order of `stream`; the ranges may not overlap.
    async fn cuMemcpyAsync(dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream);
    /// `cuMemcpyAsync`, and behind it in `stream` a write of `word`. That of a copy that is refused is written at once: who waits for it
    /// waits in vain only if the context ends.
    async fn vgpuMemcpyThenWrite(dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream, word: CopyWord);
    /// `cuMemcpyAsync`, and the wait for all that `stream` holds then: the reply tells of both.
    wait fn vgpuMemcpyThenWait(dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream);

    // Virtual memory: addresses and memory apart. Both are the process's, no context's.
    /// What sizes of memory and mappings are multiples of, in bytes. `option`: 0 the least, 1 the best.
    cached fn cuMemGetAllocationGranularity(device: u32, option: u32) -> u64;
    /// Reserves `bytes` addresses, at `wanted` if that can be had. `alignment` is 0 or a power of two.
    sync fn cuMemAddressReserve(bytes: u64, alignment: u64, wanted: DevicePtr) -> DevicePtr;
    /// Gives back a whole reservation in which nothing is mapped.
    async fn cuMemAddressFree(at: DevicePtr, bytes: u64);
    /// Memory of `device` without an address. 2 when the grant is used up.
    sync fn cuMemCreate(memory: NewHandle<kind::Memory>, bytes: u64, device: u32);
    /// Ends a handle. What it names counts against the grant as long as it is mapped.
    async fn cuMemRelease(memory: GoneHandle<kind::Memory>);
    /// Shows the first `bytes` of `memory` at `at`, inside one reservation. Nothing can touch it there yet.
    async fn cuMemMap(at: DevicePtr, bytes: u64, memory: MemoryHandle);
    /// Takes away whole mappings that follow each other.
    async fn cuMemUnmap(at: DevicePtr, bytes: u64);
    /// Lets `device` touch whole mappings that follow each other, or keeps it from that, whichever device the memory lies on.
    async fn cuMemSetAccess(at: DevicePtr, bytes: u64, device: u32, access: Access);

    // Events between processes of the zone: made with the flag for that, `CU_EVENT_INTERPROCESS`.
    /// Lets other processes have `event`, as long as any has it. 1 for one that was made without the flag.
    sync fn vgpuEventExport(event: EventHandle) -> Token;
    /// Gives an event that a process of the zone has exported a handle here, in the call's context.
    sync fn vgpuEventImport(event: NewHandle<kind::Event>, token: Token);

    // Memory between processes of the zone. 801 where the worker has nobody to exchange with.
    /// Lets other processes have `memory`, as long as this one has it. Asked again it answers the same.
    sync fn vgpuMemoryExport(memory: MemoryHandle) -> Token;
    /// As above, what `cuMemAlloc_v2` gave: `at` is where it starts. 801 for what the device cannot share.
    sync fn vgpuIpcExport(at: DevicePtr) -> SharedPart;
    /// Gives memory that a process of the zone has exported a handle here; its length. It counts against the grant of who made it. 1 for
    /// what is no such memory, or no more, or lies on another device.
    sync fn vgpuMemoryImport(memory: NewHandle<kind::Memory>, device: u32, token: Token) -> u64;
    /// The same, mapped at addresses of its own, for the call's context: all of the memory, of which this part may be named. 101 for memory of
    /// another device than that one's.
    sync fn vgpuIpcOpen(part: SharedPart) -> DevicePtr;
    /// Ends what `vgpuIpcOpen` gave, when the work of its context is done.
    wait fn vgpuIpcClose(at: DevicePtr);

    // Pools: memory allocated and freed in the order of a stream. What a pool keeps counts against the grant.
    /// A pool of `device`'s memory that keeps at most `bytes_max`; 0: no limit but the grant. A device's default pool is one of them. Those
    /// that are `shareable` other processes may have.
    async fn cuMemPoolCreate(pool: NewHandle<kind::Pool>, device: u32, bytes_max: u64, shareable: bool);
    /// Ends a pool, once what was allocated of it is freed.
    async fn cuMemPoolDestroy(pool: GoneHandle<kind::Pool>);
    /// Gives back what nobody uses, but for `keep` bytes.
    async fn cuMemPoolTrimTo(pool: PoolHandle, keep: u64);
    /// A `CUmemPool_attribute`; flags are 0 or 1.
    sync fn cuMemPoolGetAttribute(pool: PoolHandle, attribute: u32) -> u64;
    /// Sets one of those that can be set.
    sync fn cuMemPoolSetAttribute(pool: PoolHandle, attribute: u32, value: u64);
    /// Lets another device than the pool's touch all that the pool has and will have, or keeps it from that.
    sync fn cuMemPoolSetAccess(pool: PoolHandle, device: u32, access: Access);
    /// Memory of a pool, to be used after what `stream` holds now. 2 when the grant or the pool is used up.
    sync fn cuMemAllocFromPoolAsync(bytes: u64, pool: PoolHandle, stream: Stream) -> DevicePtr;
    /// Frees, for use after what `stream` holds now. Also what `cuMemAlloc_v2` gave.
    async fn cuMemFreeAsync(dptr: DevicePtr, stream: Stream);

    // Pools between processes of the zone. 801 where the worker has nobody to exchange with.
    /// Lets other processes have `pool`, as long as this one has it. Asked again it answers the same. 1 for one that is not shareable.
    sync fn vgpuPoolExport(pool: PoolHandle) -> Token;
    /// Gives a pool that a process of the zone has exported a handle here; the number of its device. Nothing is allocated of it here.
    sync fn vgpuPoolImport(pool: NewHandle<kind::Pool>, token: Token) -> u32;
    /// Lets processes that have the pool have what was allocated of it at `dptr`. 1 if the pool is not exported.
    sync fn cuMemPoolExportPointer(dptr: DevicePtr) -> PooledPiece;
    /// Gives that an address here, where it is freed as what was allocated of a pool; asked again the same one. What it lies in counts
    /// against the grant of who made it.
    sync fn cuMemPoolImportPointer(pool: PoolHandle, piece: PooledPiece) -> DevicePtr;

    // Arrays, textures and surfaces.
    /// Makes an array in the call's context. 2 when the grant is used up.
    sync fn vgpuArrayCreate(array: NewHandle<kind::Array>, shape: ArrayShape);
    /// Ends an array that `vgpuArrayCreate` made.
    async fn cuArrayDestroy(array: GoneHandle<kind::Array>);
    /// Makes an array with `levels` levels.
    sync fn vgpuMipmapCreate(mipmap: NewHandle<kind::Mipmap>, shape: ArrayShape, levels: u32);
    /// Gives one level a name of its own, which ends with its mipmapped array.
    async fn vgpuMipmapLevel(array: NewHandle<kind::Array>, mipmap: MipmapHandle, level: u32);
    /// Ends a mipmapped array and the names of its levels.
    async fn cuMipmappedArrayDestroy(mipmap: GoneHandle<kind::Mipmap>);
    /// Host to array, the bytes in the record: rows without gaps.
    async fn vgpuArrayWrite(to: ArrayPlace, size: Extent, bytes: &[u8], stream: Stream);
    /// Host to array through staging, a megabyte at most. Answers when staging may be used again, in the order of `stream`.
    bulk fn vgpuArrayWriteStaged(to: ArrayPlace, size: Extent, src: Staged, stream: Stream);
    /// Array to host through staging, a megabyte at most: rows without gaps, after the work that `stream` held.
    bulk fn vgpuArrayReadStaged(dst: Staged, from: ArrayPlace, size: Extent, stream: Stream);
    /// A box from one place of the device to another.
    async fn vgpuCopyBox(to: BoxSide, from: BoxSide, size: Extent, stream: Stream);
    /// Makes a texture object; its number, which kernels get.
    sync fn vgpuTextureCreate(texture: Texture) -> Object;
    /// Ends a texture object of the call's context.
    async fn cuTexObjectDestroy(texture: Object);
    /// Makes a surface object of an array; its number, which kernels get.
    sync fn vgpuSurfaceCreate(array: ArrayHandle) -> Object;
    /// Ends a surface object of the call's context.
    async fn cuSurfObjectDestroy(surface: Object);
    /// Elements of a linear texture at most, by `CUarray_format` and number of channels.
    sync fn cuDeviceGetTexture1DLinearMaxWidth(device: u32, format: u32, channels: u32) -> u64;

    // Texture and surface references, which modules have and name.
    /// Finds a texture reference of a module, with which it ends. 500 if there is none of that name.
    sync fn cuModuleGetTexRef(texref: NewHandle<kind::TexRef>, image: ImageHandle, symbol: String);
    /// Finds a surface reference of a module, with which it ends. 500 if there is none of that name.
    sync fn cuModuleGetSurfRef(surfref: NewHandle<kind::SurfRef>, image: ImageHandle, symbol: String);
    /// Makes a texture reference in the call's context that no module names.
    sync fn cuTexRefCreate(texref: NewHandle<kind::TexRef>);
    /// Ends one that `cuTexRefCreate` made.
    async fn cuTexRefDestroy(texref: GoneHandle<kind::TexRef>);
    /// What it reads from the next launch on. The format of a row of device memory is the reference's, whatever stands here. Where such a
    /// row starts as no texture can, the reference reads from before it: answers by how many bytes, and is 1 if the program is not `told`.
    sync fn vgpuTexRefBind(texref: TexRefHandle, resource: Resource, told: bool) -> u64;
    /// From the next launch on it reads nothing.
    sync fn vgpuTexRefUnbind(texref: TexRefHandle);
    /// The `CUarray_format` and number of channels of a row of device memory.
    sync fn cuTexRefSetFormat(texref: TexRefHandle, format: u32, channels: u32);
    /// How it reads: the `cuTexRefSet*` that take numbers.
    sync fn vgpuTexRefSet(texref: TexRefHandle, setting: SamplerSetting);
    /// The array that kernels use by it from the next launch on.
    sync fn cuSurfRefSetArray(surfref: SurfRefHandle, array: ArrayHandle);

    // Images: modules and libraries.
    /// Adds bytes to the upload `upload` of `total` bytes. Chunks come in order; the first has `offset` 0. The load that
    /// names the upload takes it.
    async fn vgpuUpload(upload: u32, total: u64, offset: u64, bytes: &[u8]);
    /// Loads the upload as `image`. A [`crate::ImageInfo`] is written to `out`; answers the length it has. If that is more
    /// than `out.len`, the rest is read with `vgpuImageInfo`. With `keep` the upload stays and can be loaded again, as far as the limits of
    /// [`crate::image`] allow.
    bulk fn vgpuImageLoad(
        image: NewHandle<kind::Image>, image_kind: ImageKind, upload: u32, keep: bool, out: Staged) -> u64;
    /// As `vgpuImageLoad`, whose answer was that the image has managed variables: they lie in a block of the arena, which is the
    /// image's as long as it lives.
    bulk fn vgpuImageLoadManaged(
        image: NewHandle<kind::Image>, image_kind: ImageKind, load: ManagedImage, out: Staged) -> u64;
    /// Loads a kept upload as one more image. There are no variables in it, so the guest knows all that is in it from the first load.
    async fn vgpuImageLoadAgain(image: NewHandle<kind::Image>, image_kind: ImageKind, upload: u32);
    /// Lets go of a kept upload.
    async fn vgpuUploadForget(upload: u32);
    /// The load reply from byte `offset` on, as much as `out` holds.
    bulk fn vgpuImageInfo(image: ImageHandle, offset: u64, out: Staged);
    /// The addresses that a library's variables have on the device of the call's context, in the order of the load reply, from variable
    /// `first` on: 8 bytes each, as many as `out` holds.
    bulk fn vgpuImageVariables(image: ImageHandle, first: u64, out: Staged);
    /// The compiler's error text of the last load that failed in this process, cut to `out`. Answers its length there.
    bulk fn vgpuImageLog(out: Staged) -> u64;
    /// Ends an image and its functions and globals.
    async fn vgpuImageUnload(image: GoneHandle<kind::Image>);
    /// Attributes of a function whose load reply left them out.
    cached fn vgpuFunctionAttributes(function: FunctionHandle) -> Attributes;
    /// Sets a `CUfunction_attribute`. The guest has checked the number and range.
    async fn cuFuncSetAttribute(function: FunctionHandle, attribute: u32, value: i32);
    /// Blocks of `block_threads` threads that fit on one multiprocessor.
    cached fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        function: FunctionHandle, block_threads: u32, shared_bytes: u64, flags: u32) -> u32;
    /// Dynamic shared memory that `blocks` blocks on one multiprocessor leave each, in bytes.
    cached fn cuOccupancyAvailableDynamicSMemPerBlock(function: FunctionHandle, blocks: u32, block_threads: u32) -> u64;
    /// Clusters of the launch's shape that can run at once. The launch has no parameters.
    cached fn cuOccupancyMaxActiveClusters(launch: Launch<'_>) -> u32;
    /// Blocks of the largest cluster that the launch's shape allows. The launch has no parameters.
    cached fn cuOccupancyMaxPotentialClusterSize(launch: Launch<'_>) -> u32;
    /// A launch, also a cooperative one (attribute 2).
    async fn cuLaunchKernel(launch: Launch<'_>);

    // Streams and events.
    /// Makes a stream in the call's context.
    async fn cuStreamCreateWithPriority(stream: NewHandle<kind::Stream>, flags: u32, priority: i32);
    /// Ends a stream; its work goes on.
    async fn cuStreamDestroy_v2(stream: GoneHandle<kind::Stream>);
    /// Waits for the work of a stream.
    wait fn cuStreamSynchronize(stream: Stream);
    /// 0 when the work of a stream is done, else 600.
    sync fn cuStreamQuery(stream: Stream);
    /// What is queued in `stream` after this waits for `event`.
    async fn cuStreamWaitEvent(stream: Stream, event: EventHandle, flags: u32);
    /// Sets a `CUstreamAttrID` to the 64 bytes of its value.
    async fn vgpuStreamSetAttribute(stream: Stream, attribute: u32, value: &[u8]);
    /// All the `cuStreamWriteValue*` and `cuStreamWaitValue*`, in order.
    async fn vgpuStreamMemory(stream: Stream, ops: Vec<MemoryOp>);
    /// Makes an event in the call's context.
    async fn cuEventCreate(event: NewHandle<kind::Event>, flags: u32);
    /// Ends an event.
    async fn cuEventDestroy_v2(event: GoneHandle<kind::Event>);
    /// Records `event` in `stream`.
    async fn cuEventRecordWithFlags(event: EventHandle, stream: Stream, flags: u32);
    /// 0 when the event has been reached or was never recorded, else 600.
    sync fn cuEventQuery(event: EventHandle);
    /// Records `event` behind all work of the call's context.
    async fn cuCtxRecordEvent(event: EventHandle);
    /// What is queued anywhere in the call's context after this waits for `event`.
    async fn cuCtxWaitEvent(event: EventHandle);
    /// Waits for an event.
    wait fn cuEventSynchronize(event: EventHandle);
    /// Milliseconds between two recorded events.
    sync fn cuEventElapsedTime_v2(start: EventHandle, end: EventHandle) -> f32;

    // Graphs. The guest keeps graphs and captures; the worker has what is instantiated.
    /// A number for a conditional node of a graph, which the guest calls `graph` and of which there can be one at a time that can be launched
    /// (801). Flag 1: each launch begins with this value.
    sync fn vgpuConditionalCreate(graph: u64, value: u32, flags: u32) -> u64;
    /// The guest's graph has ended, and with what was instantiated of it its numbers will.
    async fn vgpuConditionalsEnd(graph: u64);
    /// Makes a graph that can be launched of the upload `upload`: its nodes ([`crate::graph::GraphNode`]) one after the other.
    /// `flags` as of `cuGraphInstantiate`.
    sync fn vgpuGraphInstantiate(graph: NewHandle<kind::GraphExec>, upload: u32, flags: u64);
    /// Gives each node what the upload's node of its place does. 910 if kinds, edges, bodies or contexts are not the same, or conditional nodes
    /// have numbers that were made in another order.
    sync fn vgpuGraphUpdate(graph: GraphExecHandle, upload: u32);
    /// Gives one node another work of its kind.
    async fn vgpuGraphNodeSet(graph: GraphExecHandle, node: u32, work: GraphWork<'_>);
    /// Lets a node do its work or nothing.
    async fn vgpuGraphNodeEnable(graph: GraphExecHandle, node: u32, enabled: bool);
    /// Bytes from `offset` on of what a copy from host memory copies when the graph is launched next.
    bulk fn vgpuGraphHostPut(graph: GraphExecHandle, node: u32, offset: u64, src: Staged);
    /// Bytes from `offset` on of what a copy to host memory has copied. The launch is waited for by then.
    bulk fn vgpuGraphHostGet(graph: GraphExecHandle, node: u32, offset: u64, out: Staged);
    /// Brings a graph to the device before its first launch.
    async fn cuGraphUpload(graph: GraphExecHandle, stream: Stream);
    /// Launches a graph.
    async fn cuGraphLaunch(graph: GraphExecHandle, stream: Stream);
    /// Ends a graph that can be launched; launches of it go on.
    async fn cuGraphExecDestroy(graph: GoneHandle<kind::GraphExec>);

    // Tensor maps.
    /// All the `cuTensorMapEncode*`.
    cached fn vgpuTensorMapEncode(spec: TensorSpec) -> TensorMap;
    /// The same map of a tensor at another address.
    cached fn cuTensorMapReplaceAddress(map: TensorMap, address: DevicePtr) -> TensorMap;

    // The linker.
    /// Begins to link in the call's context. So many bytes of what the compiler says, and of its errors, are kept.
    sync fn cuLinkCreate_v2(
        linker: NewHandle<kind::Linker>, options: Vec<JitOption>, info_bytes: u32, error_bytes: u32);
    /// Adds the upload `upload` as an input of the `CUjitInputType` `input`.
    sync fn cuLinkAddData_v2(
        linker: LinkerHandle, input: u32, upload: u32, name: String, options: Vec<JitOption>);
    /// Links. Answers the length of the image.
    sync fn cuLinkComplete(linker: LinkerHandle) -> u64;
    /// The image from byte `offset` on, as much as `out` holds.
    bulk fn vgpuLinkImage(linker: LinkerHandle, offset: u64, out: Staged);
    /// What the compiler has said so far, or its errors, cut to `out`. Answers its length there.
    bulk fn vgpuLinkLog(linker: LinkerHandle, errors: bool, out: Staged) -> u64;
    /// What it tells beside that.
    sync fn vgpuLinkTold(linker: LinkerHandle) -> LinkTold;
    /// Ends it.
    async fn cuLinkDestroy(linker: GoneHandle<kind::Linker>);

    // Host functions.
    /// Where the worker says which function is due ([`crate::host_function`]): once in a process, before the first.
    sync fn vgpuHostFunctions(mailbox: Staged);
    /// The stream waits until the guest has run its function number `function`.
    async fn cuLaunchHostFunc(stream: Stream, function: u64);
    /// As above; the guest runs it also after an error, of which it is told.
    async fn cuStreamAddCallback(stream: Stream, function: u64);

    // Output.
    /// The next piece of what kernels have printed, in order. Asked for when a reply says so ([`crate::PRINTED`]).
    sync fn vgpuPrinted() -> Printed;
}

/// What the worker sends back for a record that was a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `CUresult`, 0 for success. Of a queued call: goes to the error word.
    pub code: u32,
    /// Bytes of the reply's payload.
    pub reply_bytes: usize,
}

impl Answer {
    fn of<'a, T: Wire<'a>>(result: CuResult<T>, reply: &mut [u8]) -> Self {
        let value = match result {
            Ok(value) => value,
            Err(error) => return Self { code: error.code(), reply_bytes: 0 },
        };
        let mut writer = Writer::new(reply);
        value.put(&mut writer);
        match writer.finish() {
            Some(reply_bytes) => Self { code: 0, reply_bytes },
            // The caller gave less room than `dispatch` asks for.
            None => Self { code: crate::CuError::UNKNOWN.code(), reply_bytes: 0 },
        }
    }
}

/// The structures of the calls, as they are declared.
pub const STRUCTS: &[&str] = &[
    crate::ParamInfo::DECLARATION,
    Attributes::DECLARATION,
    crate::FunctionInfo::DECLARATION,
    crate::GlobalInfo::DECLARATION,
    crate::ImageInfo::DECLARATION,
    ManagedImage::DECLARATION,
    crate::launch::LaunchShape::DECLARATION,
    Launch::DECLARATION,
    Staged::DECLARATION,
    CopyWord::DECLARATION,
    MemInfo::DECLARATION,
    Memset::DECLARATION,
    GraphEdge::DECLARATION,
    Rows::DECLARATION,
    CopyBox::DECLARATION,
    ArrayAndMemory::DECLARATION,
    TwoArrays::DECLARATION,
    ArrayAndHost::DECLARATION,
    Conditional::DECLARATION,
    Body::DECLARATION,
    GraphWork::DECLARATION,
    GraphNode::DECLARATION,
    ArrayShape::DECLARATION,
    ArrayPlace::DECLARATION,
    Extent::DECLARATION,
    LinearPlace::DECLARATION,
    BoxSide::DECLARATION,
    LinearTexels::DECLARATION,
    PitchedTexels::DECLARATION,
    Resource::DECLARATION,
    Sampler::DECLARATION,
    View::DECLARATION,
    Texture::DECLARATION,
    SamplerField::DECLARATION,
    SamplerSetting::DECLARATION,
    Printed::DECLARATION,
    SmResource::DECLARATION,
    SmSource::DECLARATION,
    SmSplit::DECLARATION,
    SmGroups::DECLARATION,
    Access::DECLARATION,
    Token::DECLARATION,
    SharedPart::DECLARATION,
    PooledPiece::DECLARATION,
    MemoryOpKind::DECLARATION,
    MemoryOp::DECLARATION,
    crate::host_function::DECLARATION,
    TensorSpec::DECLARATION,
    JitOption::DECLARATION,
    LinkTold::DECLARATION,
    crate::PciAddress::DECLARATION,
    crate::DeviceSnapshot::DECLARATION,
    crate::Snapshot::DECLARATION,
];

const fn wire_hash() -> u64 {
    // Handle layout, encoding of numbers, the meaning of the error word and of a reply's status: count up when they change.
    let mut state = crate::hash::fnv1a(crate::hash::FNV_START, b"vgpu wire 3");
    let mut i = 0;
    while i < CALLS.len() {
        state = crate::hash::fnv1a(state, CALLS[i].as_bytes());
        i += 1;
    }
    i = 0;
    while i < STRUCTS.len() {
        state = crate::hash::fnv1a(state, STRUCTS[i].as_bytes());
        i += 1;
    }
    state
}

/// Hash of all declarations: the two ends must have the same.
pub const WIRE_HASH: u64 = wire_hash();
