//! The declaration's trait, call by call, onto the device's own methods of the same names.

use vgpu_api::graph::GraphWork;
use vgpu_api::memory::Memset;
use vgpu_api::texture::Resource;
use vgpu_api::*;

use super::FakeDevice;

/// `name(parameters) -> reply;` One line a call.
macro_rules! calls {
    ($($name:ident($($param:ident: $t:ty),*) $(-> $reply:ty)?;)*) => {
        #[allow(non_snake_case, reason = "CUDA's names")]
        impl Driver for FakeDevice { $(
            fn $name(&mut self, call: Call $(, $param: $t)*) -> CuResult<calls!(@reply $($reply)?)> {
                // The method of the type itself goes before this one of the trait.
                Self::$name(self, call $(, $param)*)
            }
        )* }
    };
    (@reply) => { () };
    (@reply $reply:ty) => { $reply };
}

calls! {
    vgpuSnapshot(out: Staged) -> u64;
    cuDevicePrimaryCtxRetain(device: u32, flags: u32);
    cuDevicePrimaryCtxRelease_v2(device: u32);
    cuDevicePrimaryCtxReset_v2(device: u32);
    cuCtxCreate_v2(context: ContextId, flags: u32, device: u32);
    cuCtxDestroy_v2(context: ContextId);
    cuCtxSynchronize();
    cuCtxGetLimit(limit: u32) -> u64;
    cuCtxSetLimit(limit: u32, value: u64);
    vgpuSmResource(of: SmSource) -> SmResource;
    vgpuSmSplit(of: SmSource, split: SmSplit) -> SmGroups;
    vgpuGreenCreate(
        green: ContextId, stream: NewHandle<kind::Stream>, of: SmSource, split: SmSplit, parts: Vec<u32>
    ) -> SmResource;
    vgpuGreenDestroy(green: ContextId);
    cuCtxEnablePeerAccess(peer: ContextId);
    cuCtxDisablePeerAccess(peer: ContextId);
    cuMemAlloc_v2(bytes: u64) -> DevicePtr;
    cuMemFree_v2(dptr: DevicePtr);
    cuMemGetInfo_v2() -> MemInfo;
    cuMemcpyHtoDAsync_v2(dst: DevicePtr, bytes: &[u8], stream: Stream);
    vgpuMemcpyHtoDStaged(dst: DevicePtr, src: Staged, stream: Stream);
    vgpuMemcpyDtoHStaged(dst: Staged, src: DevicePtr, stream: Stream);
    cuMemcpyDtoDAsync_v2(dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream);
    vgpuMemset(memset: Memset, stream: Stream);
    vgpuArenaAdd(address: DevicePtr, bytes: u64);
    vgpuArenaRemove(address: DevicePtr);
    vgpuArenaSettle();
    cuMemcpyAsync(dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream);
    vgpuMemcpyThenWait(dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream);
    vgpuMemcpyThenWrite(dst: DevicePtr, src: DevicePtr, bytes: u64, stream: Stream, word: CopyWord);
    vgpuArrayCreate(array: NewHandle<kind::Array>, shape: ArrayShape);
    cuArrayDestroy(array: GoneHandle<kind::Array>);
    vgpuMipmapCreate(mipmap: NewHandle<kind::Mipmap>, shape: ArrayShape, levels: u32);
    vgpuMipmapLevel(array: NewHandle<kind::Array>, mipmap: MipmapHandle, level: u32);
    cuMipmappedArrayDestroy(mipmap: GoneHandle<kind::Mipmap>);
    vgpuArrayWrite(to: ArrayPlace, size: Extent, bytes: &[u8], stream: Stream);
    vgpuArrayWriteStaged(to: ArrayPlace, size: Extent, src: Staged, stream: Stream);
    vgpuArrayReadStaged(dst: Staged, from: ArrayPlace, size: Extent, stream: Stream);
    vgpuCopyBox(to: BoxSide, from: BoxSide, size: Extent, stream: Stream);
    vgpuTextureCreate(texture: Texture) -> Object;
    cuTexObjectDestroy(texture: Object);
    vgpuSurfaceCreate(array: ArrayHandle) -> Object;
    cuSurfObjectDestroy(surface: Object);
    cuDeviceGetTexture1DLinearMaxWidth(device: u32, format: u32, channels: u32) -> u64;
    cuModuleGetTexRef(texref: NewHandle<kind::TexRef>, image: ImageHandle, symbol: String);
    cuModuleGetSurfRef(surfref: NewHandle<kind::SurfRef>, image: ImageHandle, symbol: String);
    cuTexRefCreate(texref: NewHandle<kind::TexRef>);
    cuTexRefDestroy(texref: GoneHandle<kind::TexRef>);
    vgpuTexRefBind(texref: TexRefHandle, resource: Resource, told: bool) -> u64;
    vgpuTexRefUnbind(texref: TexRefHandle);
    cuTexRefSetFormat(texref: TexRefHandle, format: u32, channels: u32);
    vgpuTexRefSet(texref: TexRefHandle, setting: SamplerSetting);
    cuSurfRefSetArray(surfref: SurfRefHandle, array: ArrayHandle);
    vgpuUpload(upload: u32, total: u64, offset: u64, bytes: &[u8]);
    vgpuImageLoad(image: NewHandle<kind::Image>, image_kind: ImageKind, upload: u32, keep: bool, out: Staged) -> u64;
    vgpuImageLoadManaged(image: NewHandle<kind::Image>, image_kind: ImageKind, load: ManagedImage, out: Staged) -> u64;
    vgpuImageLoadAgain(image: NewHandle<kind::Image>, image_kind: ImageKind, upload: u32);
    vgpuUploadForget(upload: u32);
    vgpuImageInfo(image: ImageHandle, offset: u64, out: Staged);
    vgpuImageVariables(image: ImageHandle, first: u64, out: Staged);
    vgpuImageLog(out: Staged) -> u64;
    vgpuImageUnload(image: GoneHandle<kind::Image>);
    vgpuFunctionAttributes(function: FunctionHandle) -> Attributes;
    cuFuncSetAttribute(function: FunctionHandle, attribute: u32, value: i32);
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(function: FunctionHandle, block_threads: u32, shared_bytes: u64, flags: u32) -> u32;
    cuOccupancyAvailableDynamicSMemPerBlock(function: FunctionHandle, blocks: u32, block_threads: u32) -> u64;
    cuOccupancyMaxActiveClusters(launch: Launch<'_>) -> u32;
    cuOccupancyMaxPotentialClusterSize(launch: Launch<'_>) -> u32;
    cuLaunchKernel(launch: Launch<'_>);
    cuStreamCreateWithPriority(stream: NewHandle<kind::Stream>, flags: u32, priority: i32);
    cuStreamDestroy_v2(stream: GoneHandle<kind::Stream>);
    cuStreamSynchronize(stream: Stream);
    cuStreamQuery(stream: Stream);
    cuStreamWaitEvent(stream: Stream, event: EventHandle, flags: u32);
    cuEventCreate(event: NewHandle<kind::Event>, flags: u32);
    cuEventDestroy_v2(event: GoneHandle<kind::Event>);
    cuEventRecordWithFlags(event: EventHandle, stream: Stream, flags: u32);
    cuCtxRecordEvent(event: EventHandle);
    cuCtxWaitEvent(event: EventHandle);
    cuEventQuery(event: EventHandle);
    cuEventSynchronize(event: EventHandle);
    cuEventElapsedTime_v2(start: EventHandle, end: EventHandle) -> f32;
    vgpuConditionalCreate(graph: u64, value: u32, flags: u32) -> u64;
    vgpuConditionalsEnd(graph: u64);
    vgpuGraphInstantiate(graph: NewHandle<kind::GraphExec>, upload: u32, flags: u64);
    vgpuGraphUpdate(graph: GraphExecHandle, upload: u32);
    vgpuGraphNodeSet(graph: GraphExecHandle, node: u32, work: GraphWork<'_>);
    vgpuGraphNodeEnable(graph: GraphExecHandle, node: u32, enabled: bool);
    vgpuGraphHostPut(graph: GraphExecHandle, node: u32, offset: u64, src: Staged);
    vgpuGraphHostGet(graph: GraphExecHandle, node: u32, offset: u64, out: Staged);
    cuGraphUpload(graph: GraphExecHandle, stream: Stream);
    cuGraphLaunch(graph: GraphExecHandle, stream: Stream);
    cuGraphExecDestroy(graph: GoneHandle<kind::GraphExec>);
    vgpuTensorMapEncode(spec: TensorSpec) -> TensorMap;
    cuTensorMapReplaceAddress(map: TensorMap, address: DevicePtr) -> TensorMap;
    cuLinkCreate_v2(linker: NewHandle<kind::Linker>, options: Vec<JitOption>, info_bytes: u32, error_bytes: u32);
    cuLinkAddData_v2(linker: LinkerHandle, input: u32, upload: u32, name: String, options: Vec<JitOption>);
    cuLinkComplete(linker: LinkerHandle) -> u64;
    vgpuLinkImage(linker: LinkerHandle, offset: u64, out: Staged);
    vgpuLinkLog(linker: LinkerHandle, errors: bool, out: Staged) -> u64;
    vgpuLinkTold(linker: LinkerHandle) -> LinkTold;
    cuLinkDestroy(linker: GoneHandle<kind::Linker>);
    vgpuHostFunctions(mailbox: Staged);
    cuLaunchHostFunc(stream: Stream, function: u64);
    cuStreamAddCallback(stream: Stream, function: u64);
    vgpuPrinted() -> Printed;
    cuMemGetAllocationGranularity(device: u32, option: u32) -> u64;
    cuMemAddressReserve(bytes: u64, alignment: u64, wanted: DevicePtr) -> DevicePtr;
    cuMemAddressFree(at: DevicePtr, bytes: u64);
    cuMemCreate(memory: NewHandle<kind::Memory>, bytes: u64, device: u32);
    cuMemRelease(memory: GoneHandle<kind::Memory>);
    cuMemMap(at: DevicePtr, bytes: u64, memory: MemoryHandle);
    cuMemUnmap(at: DevicePtr, bytes: u64);
    cuMemSetAccess(at: DevicePtr, bytes: u64, device: u32, access: Access);
    cuMemPoolCreate(pool: NewHandle<kind::Pool>, device: u32, bytes_max: u64, shareable: bool);
    cuMemPoolDestroy(pool: GoneHandle<kind::Pool>);
    vgpuPoolExport(pool: PoolHandle) -> Token;
    vgpuPoolImport(pool: NewHandle<kind::Pool>, token: Token) -> u32;
    cuMemPoolExportPointer(dptr: DevicePtr) -> PooledPiece;
    cuMemPoolImportPointer(pool: PoolHandle, piece: PooledPiece) -> DevicePtr;
    vgpuEventExport(event: EventHandle) -> Token;
    vgpuEventImport(event: NewHandle<kind::Event>, token: Token);
    vgpuMemoryExport(memory: MemoryHandle) -> Token;
    vgpuIpcExport(at: DevicePtr) -> SharedPart;
    vgpuMemoryImport(memory: NewHandle<kind::Memory>, device: u32, token: Token) -> u64;
    vgpuIpcOpen(part: SharedPart) -> DevicePtr;
    vgpuIpcClose(at: DevicePtr);
    cuMemPoolTrimTo(pool: PoolHandle, keep: u64);
    cuMemPoolGetAttribute(pool: PoolHandle, attribute: u32) -> u64;
    cuMemPoolSetAttribute(pool: PoolHandle, attribute: u32, value: u64);
    cuMemPoolSetAccess(pool: PoolHandle, device: u32, access: Access);
    cuMemAllocFromPoolAsync(bytes: u64, pool: PoolHandle, stream: Stream) -> DevicePtr;
    cuMemFreeAsync(dptr: DevicePtr, stream: Stream);
    vgpuStreamSetAttribute(stream: Stream, attribute: u32, value: &[u8]);
    vgpuStreamMemory(stream: Stream, ops: Vec<MemoryOp>);
}
