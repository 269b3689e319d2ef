//! The functions of NVIDIA's driver that a worker calls, loaded from `libcuda.so.1` by name. Versions: CUDA 12.4 (driver 550) and
//! later, for the layouts of kernels' parameters. Signatures: cuda.h of CUDA 13.0.

mod array_layouts;
mod graph_layouts;
mod layouts;

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use vgpu_api::descriptors::{Array3dDesc, ArrayDesc, ResourceDesc, TextureDesc, ViewDesc};
use vgpu_api::{CuError, CuResult};

pub use array_layouts::{Copy3d, CopySide, Requirements};
pub use graph_layouts::{
    ConditionalParams, EdgeData, FillParams, HostParams, KernelParams, UpdateInfo, WordsParams,
};
pub use layouts::{
    AccessOf, Address, Attribute, Config, DevResource, HostFn, MemoryProperties, NULL, Ptr, StreamAttribute,
    StreamCallback, StreamOp,
};

macro_rules! table {
    ($(fn $name:ident($($param:ident: $t:ty),*);)* later: $(fn $late:ident($($late_param:ident: $late_t:ty),*);)*) => {
        /// The functions, each as the driver has it. Drivers before some version lack the later ones: those give 801 there.
        #[allow(non_snake_case, reason = "CUDA's names")]
        pub struct Table {
            $($name: unsafe extern "C" fn($($t),*) -> c_int,)*
            $($late: Option<unsafe extern "C" fn($($late_t),*) -> c_int>,)*
        }

        #[allow(non_snake_case, reason = "CUDA's names")]
        #[allow(clippy::too_many_arguments, reason = "the driver's signatures")]
        impl Table {
            /// Finds all of them in an open library.
            fn find(library: NonNull<c_void>) -> Result<Self, String> {
                Ok(Self { $($name: {
                    let name = concat!(stringify!($name), "\0");
                    let found = symbol(library, name).ok_or_else(|| {
                        format!("NVIDIA's driver lacks {}: install driver 550 or later", stringify!($name))
                    })?;
                    // SAFETY: the driver exports this name with the signature of cuda.h, written below.
                    unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($t),*) -> c_int>(found.as_ptr()) }
                },)* $($late: symbol(library, concat!(stringify!($late), "\0")).map(|found| {
                    // SAFETY: as above.
                    unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($late_t),*) -> c_int>(found.as_ptr()) }
                }),)* })
            }

            $(
                #[doc = concat!("`", stringify!($name), "`.")]
                /// # Safety
                /// Every pointer is null where the driver allows it, or valid for what the driver reads and writes through it;
                /// handles are the driver's own and live; addresses were checked by the session.
                pub unsafe fn $name(&self $(, $param: $t)*) -> CuResult<()> {
                    // SAFETY: the caller's promise.
                    let code = unsafe { (self.$name)($($param),*) };
                    CuError::check(code.unsigned_abs())
                }
            )*
            $(
                #[doc = concat!("`", stringify!($late), "`, or 801.")]
                /// # Safety
                /// As for the others.
                pub unsafe fn $late(&self $(, $late_param: $late_t)*) -> CuResult<()> {
                    let function = self.$late.ok_or(CuError::NOT_SUPPORTED)?;
                    // SAFETY: the caller's promise.
                    let code = unsafe { function($($late_param),*) };
                    CuError::check(code.unsigned_abs())
                }
            )*
        }
    };
}

table! {
    fn cuInit(flags: c_uint);
    fn cuDriverGetVersion(version: *mut c_int);
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int);
    fn cuDeviceGetCount(count: *mut c_int);
    fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int);
    fn cuDeviceGetP2PAttribute(value: *mut c_int, attribute: c_int, device: c_int, peer: c_int);
    fn cuCtxEnablePeerAccess(peer: Ptr, flags: c_uint);
    fn cuCtxDisablePeerAccess(peer: Ptr);
    fn cuDeviceGetName(name: *mut c_char, bytes: c_int, device: c_int);
    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int);
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int);
    fn cuDevicePrimaryCtxRetain(context: *mut Ptr, device: c_int);
    fn cuCtxCreate_v2(context: *mut Ptr, flags: c_uint, device: c_int);
    fn cuCtxDestroy_v2(context: Ptr);
    fn cuCtxSetCurrent(context: Ptr);
    fn cuCtxSynchronize();
    fn cuCtxGetLimit(value: *mut usize, limit: c_uint);
    fn cuCtxSetLimit(limit: c_uint, value: usize);
    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int);
    fn cuMemAlloc_v2(address: *mut Address, bytes: usize);
    fn cuMemFree_v2(address: Address);
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    fn cuMemAddressReserve(address: *mut Address, bytes: usize, alignment: usize, wanted: Address, flags: u64);
    fn cuMemAddressFree(address: Address, bytes: usize);
    fn cuMemCreate(memory: *mut u64, bytes: usize, properties: *const MemoryProperties, flags: u64);
    fn cuMemRelease(memory: u64);
    fn cuMemMap(address: Address, bytes: usize, offset: usize, memory: u64, flags: u64);
    fn cuMemUnmap(address: Address, bytes: usize);
    fn cuMemSetAccess(address: Address, bytes: usize, access: *const AccessOf, count: usize);
    fn cuMemExportToShareableHandle(fd: Ptr, memory: u64, handle_type: c_uint, flags: u64);
    fn cuMemImportFromShareableHandle(memory: *mut u64, fd: Ptr, handle_type: c_uint);
    fn cuMemGetAllocationGranularity(bytes: *mut usize, properties: *const MemoryProperties, option: c_uint);
    fn cuMemcpyHtoDAsync_v2(to: Address, from: *const c_void, bytes: usize, stream: Ptr);
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: Address, bytes: usize, stream: Ptr);
    fn cuMemcpyAsync(to: Address, from: Address, bytes: usize, stream: Ptr);
    fn cuMemcpyPeerAsync(to: Address, to_context: Ptr, from: Address, from_context: Ptr, bytes: usize, stream: Ptr);
    fn cuMemHostRegister_v2(place: *mut c_void, bytes: usize, flags: c_uint);
    fn cuMemHostUnregister(place: *mut c_void);
    fn cuMemHostGetDevicePointer_v2(address: *mut Address, place: *mut c_void, flags: c_uint);
    fn cuMemsetD2D8Async(at: Address, pitch: usize, value: u8, width: usize, rows: usize, stream: Ptr);
    fn cuMemsetD2D16Async(at: Address, pitch: usize, value: u16, width: usize, rows: usize, stream: Ptr);
    fn cuMemsetD2D32Async(at: Address, pitch: usize, value: u32, width: usize, rows: usize, stream: Ptr);
    fn cuMemsetD8Async(at: Address, value: u8, count: usize, stream: Ptr);
    fn cuMemsetD16Async(at: Address, value: u16, count: usize, stream: Ptr);
    fn cuMemsetD32Async(at: Address, value: u32, count: usize, stream: Ptr);
    fn cuArray3DCreate_v2(array: *mut Ptr, descriptor: *const Array3dDesc);
    fn cuArrayDestroy(array: Ptr);
    fn cuArrayGetMemoryRequirements(needs: *mut Requirements, array: Ptr, device: c_int);
    fn cuMipmappedArrayCreate(mipmap: *mut Ptr, descriptor: *const Array3dDesc, levels: c_uint);
    fn cuMipmappedArrayGetLevel(array: *mut Ptr, mipmap: Ptr, level: c_uint);
    fn cuMipmappedArrayDestroy(mipmap: Ptr);
    fn cuMipmappedArrayGetMemoryRequirements(needs: *mut Requirements, mipmap: Ptr, device: c_int);
    fn cuMemcpy3DAsync_v2(copy: *const Copy3d, stream: Ptr);
    fn cuMemcpy3DPeerAsync(copy: *const Copy3d, stream: Ptr);
    fn cuTexObjectCreate(texture: *mut u64, resource: *const ResourceDesc, sampler: *const TextureDesc, view: *const ViewDesc);
    fn cuTexObjectDestroy(texture: u64);
    fn cuSurfObjectCreate(surface: *mut u64, resource: *const ResourceDesc);
    fn cuSurfObjectDestroy(surface: u64);
    fn cuDeviceGetTexture1DLinearMaxWidth(most: *mut usize, format: c_uint, channels: c_uint, device: c_int);
    fn cuModuleLoadDataEx(module: *mut Ptr, image: *const c_void, count: c_uint, options: *mut c_int, values: *mut Ptr);
    fn cuModuleUnload(module: Ptr);
    fn cuModuleGetFunctionCount(count: *mut c_uint, module: Ptr);
    fn cuModuleEnumerateFunctions(functions: *mut Ptr, count: c_uint, module: Ptr);
    fn cuModuleGetGlobal_v2(address: *mut Address, bytes: *mut usize, module: Ptr, name: *const c_char);
    fn cuLibraryLoadData(library: *mut Ptr, image: *const c_void, jit: *mut c_int, jit_values: *mut Ptr, jit_count: c_uint,
        options: *mut c_int, values: *mut Ptr, count: c_uint);
    fn cuLibraryUnload(library: Ptr);
    fn cuLibraryGetKernelCount(count: *mut c_uint, library: Ptr);
    fn cuLibraryEnumerateKernels(kernels: *mut Ptr, count: c_uint, library: Ptr);
    fn cuLibraryGetGlobal(address: *mut Address, bytes: *mut usize, library: Ptr, name: *const c_char);
    fn cuKernelGetFunction(function: *mut Ptr, kernel: Ptr);
    fn cuKernelGetName(name: *mut *const c_char, kernel: Ptr);
    fn cuKernelGetParamInfo(kernel: Ptr, index: usize, offset: *mut usize, bytes: *mut usize);
    fn cuFuncGetName(name: *mut *const c_char, function: Ptr);
    fn cuFuncGetParamInfo(function: Ptr, index: usize, offset: *mut usize, bytes: *mut usize);
    fn cuFuncLoad(function: Ptr);
    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: Ptr);
    fn cuFuncSetAttribute(function: Ptr, attribute: c_int, value: c_int);
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: *mut c_int, function: Ptr, threads: c_int, shared: usize, flags: c_uint);
    fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: *mut usize, function: Ptr, blocks: c_int, threads: c_int);
    fn cuOccupancyMaxActiveClusters(clusters: *mut c_int, function: Ptr, config: *const Config);
    fn cuOccupancyMaxPotentialClusterSize(blocks: *mut c_int, function: Ptr, config: *const Config);
    fn cuLaunchKernelEx(config: *const Config, function: Ptr, parameters: *mut Ptr, extra: *mut Ptr);
    fn cuStreamCreateWithPriority(stream: *mut Ptr, flags: c_uint, priority: c_int);
    fn cuStreamDestroy_v2(stream: Ptr);
    fn cuStreamSynchronize(stream: Ptr);
    fn cuStreamQuery(stream: Ptr);
    fn cuStreamWaitEvent(stream: Ptr, event: Ptr, flags: c_uint);
    fn cuStreamSetAttribute(stream: Ptr, attribute: c_uint, value: *const StreamAttribute);
    fn cuStreamBatchMemOp_v2(stream: Ptr, count: c_uint, ops: *mut StreamOp, flags: c_uint);
    fn cuEventCreate(event: *mut Ptr, flags: c_uint);
    fn cuEventDestroy_v2(event: Ptr);
    fn cuEventRecordWithFlags(event: Ptr, stream: Ptr, flags: c_uint);
    fn cuEventQuery(event: Ptr);
    fn cuEventSynchronize(event: Ptr);
    fn cuLinkCreate_v2(count: c_uint, options: *mut c_int, values: *mut Ptr, linker: *mut Ptr);
    fn cuLinkAddData_v2(linker: Ptr, input: c_int, data: *mut c_void, bytes: usize, name: *const c_char, count: c_uint,
        options: *mut c_int, values: *mut Ptr);
    fn cuLinkComplete(linker: Ptr, image: *mut Ptr, bytes: *mut usize);
    fn cuLinkDestroy(linker: Ptr);
    fn cuLaunchHostFunc(stream: Ptr, function: HostFn, data: Ptr);
    fn cuStreamAddCallback(stream: Ptr, function: StreamCallback, data: Ptr, flags: c_uint);
    fn cuEventElapsedTime(milliseconds: *mut f32, start: Ptr, end: Ptr);
    fn cuGraphCreate(graph: *mut Ptr, flags: c_uint);
    fn cuGraphDestroy(graph: Ptr);
    fn cuGraphAddEmptyNode(node: *mut Ptr, graph: Ptr, needs: *const Ptr, count: usize);
    fn cuGraphAddKernelNode_v2(node: *mut Ptr, graph: Ptr, needs: *const Ptr, count: usize, params: *const KernelParams);
    fn cuGraphAddMemsetNode(
        node: *mut Ptr, graph: Ptr, needs: *const Ptr, count: usize, params: *const FillParams, context: Ptr);
    fn cuGraphAddMemcpyNode(
        node: *mut Ptr, graph: Ptr, needs: *const Ptr, count: usize, params: *const Copy3d, context: Ptr);
    fn cuGraphAddEventRecordNode(node: *mut Ptr, graph: Ptr, needs: *const Ptr, count: usize, event: Ptr);
    fn cuGraphAddEventWaitNode(node: *mut Ptr, graph: Ptr, needs: *const Ptr, count: usize, event: Ptr);
    fn cuGraphAddHostNode(node: *mut Ptr, graph: Ptr, needs: *const Ptr, count: usize, params: *const HostParams);
    fn cuGraphAddBatchMemOpNode(node: *mut Ptr, graph: Ptr, needs: *const Ptr, count: usize, params: *const WordsParams);
    fn cuGraphAddDependencies_v2(graph: Ptr, from: *const Ptr, to: *const Ptr, data: *const EdgeData, count: usize);
    fn cuGraphKernelNodeSetAttribute(node: Ptr, attribute: c_int, value: *const c_void);
    fn cuGraphKernelNodeSetParams_v2(node: Ptr, params: *const KernelParams);
    fn cuGraphMemsetNodeSetParams(node: Ptr, params: *const FillParams);
    fn cuGraphMemcpyNodeSetParams(node: Ptr, params: *const Copy3d);
    fn cuGraphEventRecordNodeSetEvent(node: Ptr, event: Ptr);
    fn cuGraphEventWaitNodeSetEvent(node: Ptr, event: Ptr);
    fn cuGraphHostNodeSetParams(node: Ptr, params: *const HostParams);
    fn cuGraphBatchMemOpNodeSetParams(node: Ptr, params: *const WordsParams);
    fn cuGraphInstantiateWithFlags(exec: *mut Ptr, graph: Ptr, flags: u64);
    fn cuGraphExecUpdate_v2(exec: Ptr, graph: Ptr, info: *mut UpdateInfo);
    fn cuGraphExecKernelNodeSetParams_v2(exec: Ptr, node: Ptr, params: *const KernelParams);
    fn cuGraphExecMemsetNodeSetParams(exec: Ptr, node: Ptr, params: *const FillParams, context: Ptr);
    fn cuGraphExecMemcpyNodeSetParams(exec: Ptr, node: Ptr, params: *const Copy3d, context: Ptr);
    fn cuGraphExecEventRecordNodeSetEvent(exec: Ptr, node: Ptr, event: Ptr);
    fn cuGraphExecEventWaitNodeSetEvent(exec: Ptr, node: Ptr, event: Ptr);
    fn cuGraphExecHostNodeSetParams(exec: Ptr, node: Ptr, params: *const HostParams);
    fn cuGraphExecBatchMemOpNodeSetParams(exec: Ptr, node: Ptr, params: *const WordsParams);
    fn cuGraphNodeSetEnabled(exec: Ptr, node: Ptr, enabled: c_uint);
    fn cuGraphUpload(exec: Ptr, stream: Ptr);
    fn cuGraphLaunch(exec: Ptr, stream: Ptr);
    fn cuGraphExecDestroy(exec: Ptr);
    fn cuTensorMapEncodeTiled(map: Ptr, data_type: c_int, rank: c_uint, address: Ptr, dims: *const u64, strides: *const u64,
        boxes: *const u32, steps: *const u32, interleave: c_int, swizzle: c_int, promotion: c_int, fill: c_int);
    fn cuTensorMapEncodeIm2col(map: Ptr, data_type: c_int, rank: c_uint, address: Ptr, dims: *const u64, strides: *const u64,
        lower: *const c_int, upper: *const c_int, channels: u32, pixels: u32, steps: *const u32, interleave: c_int,
        swizzle: c_int, promotion: c_int, fill: c_int);
    fn cuTensorMapReplaceAddress(map: Ptr, address: Ptr);
    later:
    fn cuModuleGetTexRef(texref: *mut Ptr, module: Ptr, name: *const c_char);
    fn cuModuleGetSurfRef(surfref: *mut Ptr, module: Ptr, name: *const c_char);
    fn cuTexRefCreate(texref: *mut Ptr);
    fn cuTexRefDestroy(texref: Ptr);
    fn cuTexRefSetArray(texref: Ptr, array: Ptr, flags: c_uint);
    fn cuTexRefSetMipmappedArray(texref: Ptr, mipmap: Ptr, flags: c_uint);
    fn cuTexRefSetAddress_v2(offset: *mut usize, texref: Ptr, at: Address, bytes: usize);
    fn cuTexRefSetAddress2D_v3(texref: Ptr, shape: *const ArrayDesc, at: Address, pitch: usize);
    fn cuTexRefSetFormat(texref: Ptr, format: c_uint, channels: c_int);
    fn cuTexRefSetAddressMode(texref: Ptr, dimension: c_int, mode: c_uint);
    fn cuTexRefSetFilterMode(texref: Ptr, mode: c_uint);
    fn cuTexRefSetMipmapFilterMode(texref: Ptr, mode: c_uint);
    fn cuTexRefSetMipmapLevelBias(texref: Ptr, bias: f32);
    fn cuTexRefSetMipmapLevelClamp(texref: Ptr, least: f32, most: f32);
    fn cuTexRefSetMaxAnisotropy(texref: Ptr, ratio: c_uint);
    fn cuTexRefSetBorderColor(texref: Ptr, colour: *mut f32);
    fn cuTexRefSetFlags(texref: Ptr, flags: c_uint);
    fn cuSurfRefSetArray(surfref: Ptr, array: Ptr, flags: c_uint);
    fn cuGraphConditionalHandleCreate(handle: *mut u64, graph: Ptr, context: Ptr, value: c_uint, flags: c_uint);
    fn cuGraphAddNode_v2(
        node: *mut Ptr, graph: Ptr, needs: *const Ptr, edges: *const EdgeData, count: usize, params: *mut ConditionalParams);
    fn cuDeviceGetDevResource(device: c_int, resource: *mut DevResource, kind: c_uint);
    fn cuGreenCtxGetDevResource(green: Ptr, resource: *mut DevResource, kind: c_uint);
    fn cuDevSmResourceSplitByCount(groups: *mut DevResource, count: *mut c_uint, of: *const DevResource,
        rest: *mut DevResource, flags: c_uint, count_min: c_uint);
    fn cuDevResourceGenerateDesc(described: *mut Ptr, resources: *mut DevResource, count: c_uint);
    fn cuGreenCtxCreate(green: *mut Ptr, described: Ptr, device: c_int, flags: c_uint);
    fn cuGreenCtxDestroy(green: Ptr);
    fn cuCtxFromGreenCtx(context: *mut Ptr, green: Ptr);
    fn cuCtxRecordEvent(context: Ptr, event: Ptr);
    fn cuCtxWaitEvent(context: Ptr, event: Ptr);
    fn cuTensorMapEncodeIm2colWide(map: Ptr, data_type: c_int, rank: c_uint, address: Ptr, dims: *const u64,
        strides: *const u64, lower: c_int, upper: c_int, channels: u32, pixels: u32, steps: *const u32, interleave: c_int,
        mode: c_int, swizzle: c_int, promotion: c_int, fill: c_int);
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

/// Where the driver lies on machines whose loader does not know it.
const PLACES: [&str; 4] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/nvidia/lib64", "/usr/local/nvidia/lib"];

/// Where the driver is looked for when the loader's own places do not lead to it: the library path, then [`PLACES`].
pub fn library_folders() -> Vec<PathBuf> {
    let searched = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::env::split_paths(&searched).chain(PLACES.map(PathBuf::from));
    folders.filter(|folder| folder.is_absolute()).collect()
}

impl Table {
    /// Opens NVIDIA's driver, and the compiler that it would open later, behind the closed door. vgpu's own library of the same
    /// name, which a library path may lead to first, is passed over.
    ///
    /// # Errors
    /// It is not here, or is too old.
    pub fn load() -> Result<Self, String> {
        // First as the loader finds it.
        let folders = std::iter::once(PathBuf::new()).chain(library_folders());
        let mut ours = None;
        for folder in folders {
            let Some(library) = open(&folder.join("libcuda.so.1")) else { continue };
            if symbol(library, "vgpu_is_shim\0").is_none() {
                let table = Self::find(library)?;
                open_compiler(&folder);
                return Ok(table);
            }
            ours.get_or_insert(folder);
            // SAFETY: nothing of it was kept. It has to go: a library of its name would be found in it again.
            unsafe { libc::dlclose(library.as_ptr()) };
        }
        Err(match ours {
            Some(folder) => format!(
                "libcuda.so.1 {} is vgpu's own library, and NVIDIA's is in none of the usual places: correct gpu-proxy's \
                 library path",
                if folder.as_os_str().is_empty() {
                    "as the loader finds it".into()
                } else {
                    folder.display().to_string()
                }
            ),
            None => "libcuda.so.1 cannot be loaded: is NVIDIA's driver installed?".into(),
        })
    }
}

/// Behind the closed door the driver can open no file: what it compiles PTX with has to be there before. Its own search finds what is
/// loaded.
fn open_compiler(folder: &Path) {
    const NAME: &str = "libnvidia-ptxjitcompiler.so.1";
    if open(&folder.join(NAME)).or_else(|| open(Path::new(NAME))).is_none() {
        log::warn!("{NAME} cannot be loaded: PTX will be refused");
    }
}

/// Loads a library for good, by its name or its path.
pub(super) fn open(path: &Path) -> Option<NonNull<c_void>> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).ok()?;
    // SAFETY: runs the library's own initialisers, which is what loading it means; the worker is about to call it anyhow.
    NonNull::new(unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) })
}

/// `name` ends with a NUL.
pub(super) fn symbol(library: NonNull<c_void>, name: &str) -> Option<NonNull<c_void>> {
    let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
    // SAFETY: an open library and a C string.
    NonNull::new(unsafe { libc::dlsym(library.as_ptr(), name.as_ptr()) })
}
