//! The declaration's trait, call by call, onto the session's own methods.

use vgpu_api::graph::GraphWork;
use vgpu_api::memory::Memset;
use vgpu_api::texture::Resource;
use vgpu_api::{
    Access, ArrayHandle, ArrayPlace, ArrayShape, Attributes, BoxSide, Call, ContextId, CopyWord, CuResult,
    DevicePtr, Driver, EventHandle, Extent, FunctionHandle, GoneHandle, GraphExecHandle, ImageHandle,
    ImageKind, JitOption, Launch, LinkTold, LinkerHandle, ManagedImage, MemInfo, MemoryHandle, MemoryOp,
    MipmapHandle, NewHandle, Object, PoolHandle, PooledPiece, Printed, SamplerSetting, SharedPart, SmGroups,
    SmResource, SmSource, SmSplit, Staged, Stream, SurfRefHandle, TensorMap, TensorSpec, TexRefHandle,
    Texture, Token, kind,
};

use super::Session;
use super::image::Load;

/// `name(parameters) -> reply => method(arguments);` One line a call, in the declaration's order.
macro_rules! calls {
    ($($name:ident($session:ident, $call:ident $(, $param:ident: $t:ty)*) $(-> $reply:ty)? => $body:expr;)*) => {
        #[allow(non_snake_case, reason = "CUDA's names")]
        impl Driver for Session { $(
            fn $name(&mut self, $call: Call $(, $param: $t)*) -> CuResult<calls!(@reply $($reply)?)> {
                let _ = $call;
                let $session = self;
                $body
            }
        )* }
    };
    (@reply) => { () };
    (@reply $reply:ty) => { $reply };
}

calls! {
    vgpuSnapshot(s, c, out: Staged) -> u64 => s.snapshot(out);
    cuDevicePrimaryCtxRetain(s, c, device: u32, flags: u32) => s.primary_retain(device, flags);
    cuDevicePrimaryCtxRelease_v2(s, c, device: u32) => s.primary_end(device);
    cuDevicePrimaryCtxReset_v2(s, c, device: u32) => s.primary_end(device);
    cuCtxCreate_v2(s, c, context: ContextId, flags: u32, device: u32) => s.context_create(context, flags, device);
    cuCtxDestroy_v2(s, c, context: ContextId) => s.context_destroy(context);
    cuCtxSynchronize(s, c) => s.context_synchronize(c);
    cuCtxGetLimit(s, c, limit: u32) -> u64 => s.limit(c, limit);
    cuCtxSetLimit(s, c, limit: u32, value: u64) => s.set_limit(c, limit, value);
    cuCtxEnablePeerAccess(s, c, peer: ContextId) => s.peer_enable(c, peer);
    cuCtxDisablePeerAccess(s, c, peer: ContextId) => s.peer_disable(c, peer);
    vgpuSmResource(s, c, of: SmSource) -> SmResource => s.sm_resource(c, of);
    vgpuSmSplit(s, c, of: SmSource, split: SmSplit) -> SmGroups => s.sm_split(c, of, split);
    vgpuGreenCreate(
        s, c, green: ContextId, stream: NewHandle<kind::Stream>, of: SmSource, split: SmSplit, parts: Vec<u32>) -> SmResource
        => s.green_create(green, stream.0, of, (split, &parts));
    vgpuGreenDestroy(s, c, green: ContextId) => s.green_destroy(green);
    cuMemAlloc_v2(s, c, bytes: u64) -> DevicePtr => s.alloc(c, bytes);
    cuMemFree_v2(s, c, dptr: DevicePtr) => s.free(c, dptr);
    cuMemGetInfo_v2(s, c) -> MemInfo => s.mem_info(c);
    cuMemcpyHtoDAsync_v2(s, c, dst: DevicePtr, bytes: &[u8], stream: Stream) => s.write(c, dst, bytes, stream);
    vgpuMemcpyHtoDStaged(s, c, dst: DevicePtr, src: Staged, stream: Stream) => s.write_staged(c, dst, src, stream);
    vgpuMemcpyDtoHStaged(s, c, dst: Staged, src: DevicePtr, stream: Stream) => s.read_staged(c, dst, src, stream);
    cuMemcpyDtoDAsync_v2(s, c, dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream)
        => s.copy(c, dst, src, bytes, stream);
    vgpuMemset(s, c, memset: Memset, stream: Stream) => s.fill(c, &memset, stream);
    vgpuArenaAdd(s, c, address: DevicePtr, bytes: u64) => s.arena_add(address, bytes);
    vgpuArenaRemove(s, c, address: DevicePtr) => s.arena_remove(address);
    vgpuArenaSettle(s, c) => s.arena_settle();
    cuMemcpyAsync(s, c, dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream) => s.copy(c, dst, src, bytes, stream);
    vgpuMemcpyThenWrite(s, c, dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream, word: CopyWord)
        => s.copy_then_write(c, (dst, src, bytes), stream, word);
    vgpuMemcpyThenWait(s, c, dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream)
        => s.copy_then_wait(c, (dst, src, bytes), stream);
    cuMemGetAllocationGranularity(s, c, device: u32, option: u32) -> u64 => s.granularity(device, option);
    cuMemAddressReserve(s, c, bytes: u64, alignment: u64, wanted: DevicePtr) -> DevicePtr
        => s.reserve(c, bytes, alignment, wanted);
    cuMemAddressFree(s, c, at: DevicePtr, bytes: u64) => s.unreserve(c, at, bytes);
    cuMemCreate(s, c, memory: NewHandle<kind::Memory>, bytes: u64, device: u32) => s.create(c, memory.0, bytes, device);
    cuMemRelease(s, c, memory: GoneHandle<kind::Memory>) => s.release(c, memory.0);
    cuMemMap(s, c, at: DevicePtr, bytes: u64, memory: MemoryHandle) => s.map(c, at, bytes, memory);
    cuMemUnmap(s, c, at: DevicePtr, bytes: u64) => s.unmap(c, at, bytes);
    cuMemSetAccess(s, c, at: DevicePtr, bytes: u64, device: u32, access: Access)
        => s.set_access(c, at, bytes, device, access);
    vgpuEventExport(s, c, event: EventHandle) -> Token => s.event_export(event);
    vgpuEventImport(s, c, event: NewHandle<kind::Event>, token: Token) => s.event_import(c, event.0, token);
    vgpuMemoryExport(s, c, memory: MemoryHandle) -> Token => s.memory_export(c, memory);
    vgpuIpcExport(s, c, at: DevicePtr) -> SharedPart => s.ipc_export(c, at);
    vgpuMemoryImport(s, c, memory: NewHandle<kind::Memory>, device: u32, token: Token) -> u64
        => s.memory_import(c, memory.0, (device, token));
    vgpuIpcOpen(s, c, part: SharedPart) -> DevicePtr => s.ipc_open(c, part);
    vgpuIpcClose(s, c, at: DevicePtr) => s.ipc_close(c, at);
    cuMemPoolCreate(s, c, pool: NewHandle<kind::Pool>, device: u32, bytes_max: u64, shareable: bool)
        => s.pool_create(c, pool.0, device, (bytes_max, shareable));
    cuMemPoolDestroy(s, c, pool: GoneHandle<kind::Pool>) => s.pool_destroy(pool.0);
    cuMemPoolTrimTo(s, c, pool: PoolHandle, keep: u64) => s.pool_trim(c, pool, keep);
    cuMemPoolGetAttribute(s, c, pool: PoolHandle, attribute: u32) -> u64 => s.pool_attribute(c, pool, attribute);
    cuMemPoolSetAttribute(s, c, pool: PoolHandle, attribute: u32, value: u64)
        => s.set_pool_attribute(c, pool, attribute, value);
    cuMemPoolSetAccess(s, c, pool: PoolHandle, device: u32, access: Access) => s.pool_access(c, pool, device, access);
    cuMemAllocFromPoolAsync(s, c, bytes: u64, pool: PoolHandle, stream: Stream) -> DevicePtr
        => s.alloc_pooled(c, bytes, pool, stream);
    cuMemFreeAsync(s, c, dptr: DevicePtr, stream: Stream) => s.free_in_order(c, dptr, stream);
    vgpuPoolExport(s, c, pool: PoolHandle) -> Token => s.pool_export(c, pool);
    vgpuPoolImport(s, c, pool: NewHandle<kind::Pool>, token: Token) -> u32 => s.pool_import(c, pool.0, token);
    cuMemPoolExportPointer(s, c, dptr: DevicePtr) -> PooledPiece => s.export_pooled(c, dptr);
    cuMemPoolImportPointer(s, c, pool: PoolHandle, piece: PooledPiece) -> DevicePtr => s.import_pooled(c, pool, piece);
    vgpuArrayCreate(s, c, array: NewHandle<kind::Array>, shape: ArrayShape) => s.array_create(c, array.0, shape);
    cuArrayDestroy(s, c, array: GoneHandle<kind::Array>) => s.array_destroy(array.0);
    vgpuMipmapCreate(s, c, mipmap: NewHandle<kind::Mipmap>, shape: ArrayShape, levels: u32)
        => s.mipmap_create(c, mipmap.0, shape, levels);
    vgpuMipmapLevel(s, c, array: NewHandle<kind::Array>, mipmap: MipmapHandle, level: u32)
        => s.mipmap_level(array.0, mipmap, level);
    cuMipmappedArrayDestroy(s, c, mipmap: GoneHandle<kind::Mipmap>) => s.mipmap_destroy(mipmap.0);
    vgpuArrayWrite(s, c, to: ArrayPlace, size: Extent, bytes: &[u8], stream: Stream)
        => s.array_write(c, &to, size, bytes, stream);
    vgpuArrayWriteStaged(s, c, to: ArrayPlace, size: Extent, src: Staged, stream: Stream)
        => s.array_write_staged(c, &to, size, src, stream);
    vgpuArrayReadStaged(s, c, dst: Staged, from: ArrayPlace, size: Extent, stream: Stream)
        => s.array_read_staged(c, dst, &from, size, stream);
    vgpuCopyBox(s, c, to: BoxSide, from: BoxSide, size: Extent, stream: Stream) => s.copy_box(c, &to, &from, size, stream);
    vgpuTextureCreate(s, c, texture: Texture) -> Object => s.texture_create(c, &texture);
    cuTexObjectDestroy(s, c, texture: Object) => s.texture_destroy(c, texture);
    vgpuSurfaceCreate(s, c, array: ArrayHandle) -> Object => s.surface_create(c, array);
    cuSurfObjectDestroy(s, c, surface: Object) => s.surface_destroy(c, surface);
    cuDeviceGetTexture1DLinearMaxWidth(s, c, device: u32, format: u32, channels: u32) -> u64
        => s.linear_texture_max(c, device, format, channels);
    cuModuleGetTexRef(s, c, texref: NewHandle<kind::TexRef>, image: ImageHandle, symbol: String)
        => s.texref_of(texref.0, image, &symbol);
    cuModuleGetSurfRef(s, c, surfref: NewHandle<kind::SurfRef>, image: ImageHandle, symbol: String)
        => s.surfref_of(surfref.0, image, &symbol);
    cuTexRefCreate(s, c, texref: NewHandle<kind::TexRef>) => s.texref_create(c, texref.0);
    cuTexRefDestroy(s, c, texref: GoneHandle<kind::TexRef>) => s.texref_destroy(texref.0);
    vgpuTexRefBind(s, c, texref: TexRefHandle, resource: Resource, told: bool) -> u64
        => s.texref_bind(texref, &resource, told);
    vgpuTexRefUnbind(s, c, texref: TexRefHandle) => s.texref_let_go(texref);
    cuTexRefSetFormat(s, c, texref: TexRefHandle, format: u32, channels: u32) => s.texref_format(texref, format, channels);
    vgpuTexRefSet(s, c, texref: TexRefHandle, setting: SamplerSetting) => s.texref_set(texref, &setting);
    cuSurfRefSetArray(s, c, surfref: SurfRefHandle, array: ArrayHandle) => s.surfref_bind(surfref, array);
    vgpuUpload(s, c, upload: u32, total: u64, offset: u64, bytes: &[u8]) => s.upload(upload, total, offset, bytes);
    vgpuImageLoad(s, c, image: NewHandle<kind::Image>, image_kind: ImageKind, upload: u32, keep: bool, out: Staged) -> u64
        => s.image_load(c, image, Load { image_kind, upload, keep, block: None }, out);
    vgpuImageLoadManaged(s, c, image: NewHandle<kind::Image>, image_kind: ImageKind, load: ManagedImage, out: Staged) -> u64
        => s.image_load(c, image, Load { image_kind, upload: load.upload, keep: load.keep, block: Some(load.block) }, out);
    vgpuImageLoadAgain(s, c, image: NewHandle<kind::Image>, image_kind: ImageKind, upload: u32)
        => s.image_load_again(c, image, image_kind, upload);
    vgpuUploadForget(s, c, upload: u32) => s.forget_upload(upload);
    vgpuImageInfo(s, c, image: ImageHandle, offset: u64, out: Staged) => s.image_info(image, offset, out);
    vgpuImageVariables(s, c, image: ImageHandle, first: u64, out: Staged) => s.image_variables(c, image, first, out);
    vgpuImageLog(s, c, out: Staged) -> u64 => s.image_log(out);
    vgpuImageUnload(s, c, image: GoneHandle<kind::Image>) => s.image_unload(image.0);
    vgpuFunctionAttributes(s, c, function: FunctionHandle) -> Attributes => s.function_attributes(c, function);
    cuFuncSetAttribute(s, c, function: FunctionHandle, attribute: u32, value: i32)
        => s.set_function_attribute(c, function, attribute, value);
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        s, c, function: FunctionHandle, block_threads: u32, shared_bytes: u64, flags: u32) -> u32
        => s.max_active_blocks(c, function, block_threads, shared_bytes, flags);
    cuOccupancyAvailableDynamicSMemPerBlock(s, c, function: FunctionHandle, blocks: u32, block_threads: u32) -> u64
        => s.available_shared(c, function, blocks, block_threads);
    cuOccupancyMaxActiveClusters(s, c, launch: Launch<'_>) -> u32 => s.max_active_clusters(c, &launch);
    cuOccupancyMaxPotentialClusterSize(s, c, launch: Launch<'_>) -> u32 => s.max_cluster_size(c, &launch);
    cuLaunchKernel(s, c, launch: Launch<'_>) => s.launch(c, &launch);
    cuStreamCreateWithPriority(s, c, stream: NewHandle<kind::Stream>, flags: u32, priority: i32)
        => s.stream_create(c, stream.0, flags, priority);
    cuStreamDestroy_v2(s, c, stream: GoneHandle<kind::Stream>) => s.stream_destroy(stream.0);
    cuStreamSynchronize(s, c, stream: Stream) => s.stream_synchronize(c, stream);
    cuStreamQuery(s, c, stream: Stream) => s.stream_query(c, stream);
    cuStreamWaitEvent(s, c, stream: Stream, event: EventHandle, flags: u32) => s.stream_wait(c, stream, event, flags);
    vgpuStreamSetAttribute(s, c, stream: Stream, attribute: u32, value: &[u8])
        => s.set_stream_attribute(c, stream, attribute, value);
    vgpuStreamMemory(s, c, stream: Stream, ops: Vec<MemoryOp>) => s.stream_memory(c, stream, &ops);
    cuEventCreate(s, c, event: NewHandle<kind::Event>, flags: u32) => s.event_create(c, event.0, flags);
    cuEventDestroy_v2(s, c, event: GoneHandle<kind::Event>) => s.event_destroy(event.0);
    cuEventRecordWithFlags(s, c, event: EventHandle, stream: Stream, flags: u32) => s.event_record(c, event, stream, flags);
    cuEventQuery(s, c, event: EventHandle) => s.event_query(event);
    cuCtxRecordEvent(s, c, event: EventHandle) => s.context_record(c, event);
    cuCtxWaitEvent(s, c, event: EventHandle) => s.context_wait(c, event);
    cuEventSynchronize(s, c, event: EventHandle) => s.event_synchronize(event);
    cuEventElapsedTime_v2(s, c, start: EventHandle, end: EventHandle) -> f32 => s.event_elapsed(start, end);
    vgpuConditionalCreate(s, c, graph: u64, value: u32, flags: u32) -> u64 => s.conditional_create(c, graph, value, flags);
    vgpuConditionalsEnd(s, c, graph: u64) => s.conditionals_end(graph);
    vgpuGraphInstantiate(s, c, graph: NewHandle<kind::GraphExec>, upload: u32, flags: u64)
        => s.graph_instantiate(c, graph.0, upload, flags);
    vgpuGraphUpdate(s, c, graph: GraphExecHandle, upload: u32) => s.graph_update(graph, upload);
    vgpuGraphNodeSet(s, c, graph: GraphExecHandle, node: u32, work: GraphWork<'_>) => s.graph_set(graph, node, &work);
    vgpuGraphNodeEnable(s, c, graph: GraphExecHandle, node: u32, enabled: bool) => s.graph_enable(graph, node, enabled);
    vgpuGraphHostPut(s, c, graph: GraphExecHandle, node: u32, offset: u64, src: Staged) => s.graph_put(graph, node, offset, src);
    vgpuGraphHostGet(s, c, graph: GraphExecHandle, node: u32, offset: u64, out: Staged) => s.graph_get(graph, node, offset, out);
    cuGraphUpload(s, c, graph: GraphExecHandle, stream: Stream) => s.graph_upload(c, graph, stream);
    cuGraphLaunch(s, c, graph: GraphExecHandle, stream: Stream) => s.graph_launch(c, graph, stream);
    cuGraphExecDestroy(s, c, graph: GoneHandle<kind::GraphExec>) => s.graph_destroy(graph.0);
    vgpuTensorMapEncode(s, c, spec: TensorSpec) -> TensorMap => s.tensor_map(&spec);
    cuTensorMapReplaceAddress(s, c, map: TensorMap, address: DevicePtr) -> TensorMap => s.tensor_map_at(map, address);
    cuLinkCreate_v2(
        s, c, linker: NewHandle<kind::Linker>, options: Vec<JitOption>, info_bytes: u32, error_bytes: u32)
        => s.link_create(c, linker.0, &options, [info_bytes, error_bytes]);
    cuLinkAddData_v2(s, c, linker: LinkerHandle, input: u32, upload: u32, name: String, options: Vec<JitOption>)
        => s.link_add(linker, input, upload, &name, &options);
    cuLinkComplete(s, c, linker: LinkerHandle) -> u64 => s.link_complete(linker);
    vgpuLinkImage(s, c, linker: LinkerHandle, offset: u64, out: Staged) => s.link_image(linker, offset, out);
    vgpuLinkLog(s, c, linker: LinkerHandle, errors: bool, out: Staged) -> u64 => s.link_log(linker, errors, out);
    vgpuLinkTold(s, c, linker: LinkerHandle) -> LinkTold => s.link_told(linker);
    cuLinkDestroy(s, c, linker: GoneHandle<kind::Linker>) => s.link_destroy(linker.0);
    vgpuHostFunctions(s, c, mailbox: Staged) => s.host_mailbox(mailbox);
    cuLaunchHostFunc(s, c, stream: Stream, function: u64) => s.host_function(c, stream, function, false);
    cuStreamAddCallback(s, c, stream: Stream, function: u64) => s.host_function(c, stream, function, true);
    vgpuPrinted(s, c) -> Printed => Ok(s.device.take_printed());
}
