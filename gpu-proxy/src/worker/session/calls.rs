//! The declaration's trait, call by call, onto the session's own methods.

use vgpu_api::memory::Memset;
use vgpu_api::{
    Attributes, Call, ContextId, CuResult, DevicePtr, Driver, EventHandle, FunctionHandle, GoneHandle,
    ImageHandle, ImageKind, JitOption, Launch, LinkTold, LinkerHandle, MemInfo, NewHandle, Printed, Staged,
    Stream, TensorMap, TensorSpec, kind,
};

use super::Session;

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
    cuMemAlloc_v2(s, c, bytes: u64) -> DevicePtr => s.alloc(c, bytes);
    cuMemFree_v2(s, c, dptr: DevicePtr) => s.free(c, dptr);
    cuMemGetInfo_v2(s, c) -> MemInfo => s.mem_info(c);
    cuMemcpyHtoDAsync_v2(s, c, dst: DevicePtr, bytes: &[u8], stream: Stream) => s.write(c, dst, bytes, stream);
    vgpuMemcpyHtoDStaged(s, c, dst: DevicePtr, src: Staged, stream: Stream) => s.write_staged(c, dst, src, stream);
    vgpuMemcpyDtoHStaged(s, c, dst: Staged, src: DevicePtr, stream: Stream) => s.read_staged(c, dst, src, stream);
    cuMemcpyDtoDAsync_v2(s, c, dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream)
        => s.copy(c, dst, src, bytes, stream);
    vgpuMemset(s, c, memset: Memset, stream: Stream) => s.fill(c, &memset, stream);
    vgpuUpload(s, c, upload: u32, total: u64, offset: u64, bytes: &[u8]) => s.upload(upload, total, offset, bytes);
    vgpuImageLoad(s, c, image: NewHandle<kind::Image>, image_kind: ImageKind, upload: u32, out: Staged) -> u64
        => s.image_load(c, image, image_kind, upload, out);
    vgpuImageInfo(s, c, image: ImageHandle, offset: u64, out: Staged) => s.image_info(image, offset, out);
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
    cuEventCreate(s, c, event: NewHandle<kind::Event>, flags: u32) => s.event_create(c, event.0, flags);
    cuEventDestroy_v2(s, c, event: GoneHandle<kind::Event>) => s.event_destroy(event.0);
    cuEventRecordWithFlags(s, c, event: EventHandle, stream: Stream, flags: u32) => s.event_record(c, event, stream, flags);
    cuEventQuery(s, c, event: EventHandle) => s.event_query(event);
    cuCtxRecordEvent(s, c, event: EventHandle) => s.context_record(c, event);
    cuCtxWaitEvent(s, c, event: EventHandle) => s.context_wait(c, event);
    cuEventSynchronize(s, c, event: EventHandle) => s.event_synchronize(event);
    cuEventElapsedTime_v2(s, c, start: EventHandle, end: EventHandle) -> f32 => s.event_elapsed(start, end);
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
