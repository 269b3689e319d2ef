//! How each exported symbol of libcuda is answered. What stands in no list here is exported all the same and returns 801.
//!
//! The exports themselves are in `libvgpu`, in files named by the subject; its build fails when a name stands here without an
//! export or the other way round. `docs/cuda-coverage.md` is made from this table.

/// How an exported symbol is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In the guest, without the worker.
    Local,
    /// By the worker once, then in the guest.
    Cached,
    /// Queued; errors come later.
    Async,
    /// By the worker, one reply or more.
    Sync,
}

/// Symbols of one subject that are answered in one way.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The file of `libvgpu/src/calls` that holds the exports.
    pub subject: &'static str,
    /// How they are answered.
    pub kind: Kind,
    /// The exported names.
    pub symbols: &'static [&'static str],
}

macro_rules! surface {
    ($($subject:literal { $($kind:ident: $($symbol:ident)*;)* })*) => {
        /// Every supported symbol, by subject.
        pub const SURFACE: &[Group] = &[$($(
            Group { subject: $subject, kind: Kind::$kind, symbols: &[$(stringify!($symbol)),*] },
        )*)*];
    };
}

surface! {
    "init" {
        Local: cuInit cuDriverGetVersion cuGetErrorName cuGetErrorString cuProfilerStart cuProfilerStop;
    }
    "logs" { Local: cuLogsRegisterCallback cuLogsUnregisterCallback cuLogsCurrent cuLogsDumpToFile cuLogsDumpToMemory; }
    "proc_address" { Local: cuGetProcAddress cuGetProcAddress_v2 cuGetProcAddress_v2_ptsz; }
    "dark" { Local: cuGetExportTable; }
    "device" {
        Local: cuDeviceGet cuDeviceGetCount cuDeviceGetName cuDeviceTotalMem_v2 cuDeviceGetUuid cuDeviceGetUuid_v2
            cuDeviceGetAttribute cuDeviceGetPCIBusId cuDeviceGetByPCIBusId cuDeviceComputeCapability cuDeviceCanAccessPeer
            cuDeviceGetP2PAttribute cuDeviceGetExecAffinitySupport cuDeviceGetProperties cuDeviceGetHostAtomicCapabilities
            cuDeviceGetP2PAtomicCapabilities cuDeviceRegisterAsyncNotification cuDeviceUnregisterAsyncNotification;
    }
    "primary" {
        Local: cuDevicePrimaryCtxGetState cuDevicePrimaryCtxSetFlags cuDevicePrimaryCtxSetFlags_v2;
        Sync: cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxReset
            cuDevicePrimaryCtxReset_v2;
    }
    "green" {
        Local: cuGreenCtxGetDevResource cuDevResourceGenerateDesc cuCtxFromGreenCtx cuStreamGetGreenCtx cuGreenCtxGetId;
        Async: cuGreenCtxRecordEvent cuGreenCtxWaitEvent cuGreenCtxStreamCreate;
        Sync: cuDeviceGetDevResource cuCtxGetDevResource cuDevSmResourceSplitByCount cuGreenCtxCreate cuGreenCtxDestroy;
    }
    "context" {
        Local: cuCtxGetCurrent cuCtxSetCurrent cuCtxPushCurrent cuCtxPushCurrent_v2 cuCtxPopCurrent cuCtxPopCurrent_v2
            cuCtxGetDevice cuCtxGetDevice_v2 cuCtxGetFlags cuCtxSetFlags cuCtxGetId cuCtxGetApiVersion cuCtxGetStreamPriorityRange
            cuCtxGetCacheConfig cuCtxSetCacheConfig cuCtxGetSharedMemConfig cuCtxSetSharedMemConfig cuCtxResetPersistingL2Cache
            cuCtxAttach cuCtxGetExecAffinity;
        Async: cuCtxRecordEvent cuCtxWaitEvent;
        Cached: cuCtxGetLimit;
        Sync: cuCtxCreate cuCtxCreate_v2 cuCtxCreate_v3 cuCtxCreate_v4 cuCtxDestroy cuCtxDestroy_v2 cuCtxDetach cuCtxSynchronize
            cuCtxSynchronize_v2 cuCtxSetLimit;
    }
    "memory" {
        Local: cuMemGetAddressRange_v2;
        Async: cuMemFree_v2;
        Sync: cuMemAlloc_v2 cuMemAllocPitch_v2 cuMemGetInfo_v2;
    }
    "virtual_memory" {
        Local: cuMemGetAccess cuMemGetAllocationPropertiesFromHandle cuMemRetainAllocationHandle;
        Cached: cuMemGetAllocationGranularity;
        Async: cuMemAddressFree cuMemRelease cuMemMap cuMemUnmap cuMemSetAccess;
        Sync: cuMemAddressReserve cuMemCreate;
    }
    "ipc" {
        Sync: cuMemExportToShareableHandle cuMemImportFromShareableHandle cuIpcGetMemHandle cuIpcOpenMemHandle cuIpcOpenMemHandle_v2
            cuIpcCloseMemHandle cuIpcGetEventHandle cuIpcOpenEventHandle;
    }
    "pool" {
        Local: cuDeviceGetDefaultMemPool cuDeviceGetMemPool cuDeviceSetMemPool cuMemGetDefaultMemPool cuMemGetMemPool
            cuMemSetMemPool cuMemPoolGetAccess;
        Async: cuMemPoolCreate cuMemPoolDestroy cuMemPoolTrimTo cuMemFreeAsync cuMemFreeAsync_ptsz;
        Sync: cuMemPoolSetAccess cuMemPoolGetAttribute cuMemPoolSetAttribute cuMemAllocAsync cuMemAllocAsync_ptsz cuMemAllocFromPoolAsync
            cuMemAllocFromPoolAsync_ptsz;
    }
    "pool_ipc" {
        Sync: cuMemPoolExportToShareableHandle cuMemPoolImportFromShareableHandle cuMemPoolExportPointer cuMemPoolImportPointer;
    }
    "peer" { Sync: cuCtxEnablePeerAccess cuCtxDisablePeerAccess; }
    "host_memory" {
        Local: cuMemHostGetFlags cuMemHostGetDevicePointer_v2 cuMemHostRegister_v2 cuMemHostUnregister;
        Sync: cuMemAllocHost_v2 cuMemFreeHost cuMemHostAlloc;
    }
    "managed" {
        Local: cuMemAdvise cuMemAdvise_v2 cuMemPrefetchAsync cuMemPrefetchAsync_ptsz cuMemPrefetchAsync_v2
            cuMemPrefetchAsync_v2_ptsz cuMemRangeGetAttribute cuMemRangeGetAttributes cuStreamAttachMemAsync
            cuStreamAttachMemAsync_ptsz;
        Sync: cuMemAllocManaged;
    }
    "managed_batch" {
        Local: cuMemPrefetchBatchAsync cuMemPrefetchBatchAsync_ptsz cuMemDiscardBatchAsync cuMemDiscardBatchAsync_ptsz
            cuMemDiscardAndPrefetchBatchAsync cuMemDiscardAndPrefetchBatchAsync_ptsz;
    }
    "pointer" { Local: cuPointerGetAttribute cuPointerGetAttributes cuPointerSetAttribute; }
    "copy" {
        Async: cuMemcpyHtoDAsync_v2 cuMemcpyHtoDAsync_v2_ptsz cuMemcpyDtoDAsync_v2 cuMemcpyDtoDAsync_v2_ptsz cuMemcpyDtoD_v2
            cuMemcpyDtoD_v2_ptds cuMemcpyPeer cuMemcpyPeer_ptds cuMemcpyPeerAsync cuMemcpyPeerAsync_ptsz;
        Sync: cuMemcpy cuMemcpy_ptds cuMemcpyAsync cuMemcpyAsync_ptsz cuMemcpyHtoD_v2 cuMemcpyHtoD_v2_ptds cuMemcpyDtoH_v2
            cuMemcpyDtoH_v2_ptds cuMemcpyDtoHAsync_v2 cuMemcpyDtoHAsync_v2_ptsz;
    }
    "copy_batch" {
        Sync: cuMemcpyBatchAsync cuMemcpyBatchAsync_ptsz cuMemcpyBatchAsync_v2 cuMemcpyBatchAsync_v2_ptsz;
    }
    "copy_box_batch" {
        Sync: cuMemcpy3DBatchAsync cuMemcpy3DBatchAsync_ptsz cuMemcpy3DBatchAsync_v2 cuMemcpy3DBatchAsync_v2_ptsz;
    }
    "copy_box" {
        Sync: cuMemcpy2D_v2 cuMemcpy2D_v2_ptds cuMemcpy2DUnaligned_v2 cuMemcpy2DUnaligned_v2_ptds cuMemcpy2DAsync_v2
            cuMemcpy2DAsync_v2_ptsz cuMemcpy3D_v2 cuMemcpy3D_v2_ptds cuMemcpy3DAsync_v2 cuMemcpy3DAsync_v2_ptsz cuMemcpy3DPeer
            cuMemcpy3DPeer_ptds cuMemcpy3DPeerAsync cuMemcpy3DPeerAsync_ptsz;
    }
    "copy_array" {
        Async: cuMemcpyHtoA_v2 cuMemcpyHtoA_v2_ptds cuMemcpyHtoAAsync_v2 cuMemcpyHtoAAsync_v2_ptsz cuMemcpyDtoA_v2
            cuMemcpyDtoA_v2_ptds cuMemcpyAtoD_v2 cuMemcpyAtoD_v2_ptds cuMemcpyAtoA_v2 cuMemcpyAtoA_v2_ptds;
        Sync: cuMemcpyAtoH_v2 cuMemcpyAtoH_v2_ptds cuMemcpyAtoHAsync_v2 cuMemcpyAtoHAsync_v2_ptsz;
    }
    "array" {
        Local: cuArrayGetDescriptor_v2 cuArray3DGetDescriptor_v2 cuArrayGetPlane cuArrayGetMemoryRequirements
            cuArrayGetSparseProperties cuMipmappedArrayGetMemoryRequirements cuMipmappedArrayGetSparseProperties;
        Async: cuArrayDestroy cuMipmappedArrayDestroy cuMipmappedArrayGetLevel;
        Sync: cuArrayCreate_v2 cuArray3DCreate_v2 cuMipmappedArrayCreate;
    }
    "module_references" {
        Sync: cuModuleGetTexRef cuModuleGetSurfRef;
    }
    "texref" {
        Local: cuTexRefGetAddress_v2 cuTexRefGetArray cuTexRefGetMipmappedArray cuTexRefGetAddressMode cuTexRefGetFilterMode
            cuTexRefGetFormat cuTexRefGetMipmapFilterMode cuTexRefGetMipmapLevelBias cuTexRefGetMipmapLevelClamp
            cuTexRefGetMaxAnisotropy cuTexRefGetBorderColor cuTexRefGetFlags cuSurfRefGetArray;
        Async: cuTexRefDestroy;
        Sync: cuTexRefCreate cuTexRefSetArray cuTexRefSetMipmappedArray
            cuTexRefSetAddress_v2 cuTexRefSetAddress2D_v2 cuTexRefSetAddress2D_v3 cuTexRefSetFormat cuTexRefSetAddressMode
            cuTexRefSetFilterMode cuTexRefSetMipmapFilterMode cuTexRefSetMipmapLevelBias cuTexRefSetMipmapLevelClamp
            cuTexRefSetMaxAnisotropy cuTexRefSetBorderColor cuTexRefSetFlags cuSurfRefSetArray;
    }
    "texture" {
        Local: cuTexObjectGetResourceDesc cuTexObjectGetTextureDesc cuTexObjectGetResourceViewDesc cuSurfObjectGetResourceDesc;
        Async: cuTexObjectDestroy cuSurfObjectDestroy;
        Sync: cuTexObjectCreate cuSurfObjectCreate cuDeviceGetTexture1DLinearMaxWidth;
    }
    "memset" {
        Async: cuMemsetD8Async cuMemsetD8Async_ptsz cuMemsetD16Async cuMemsetD16Async_ptsz cuMemsetD32Async cuMemsetD32Async_ptsz
            cuMemsetD2D8Async cuMemsetD2D8Async_ptsz cuMemsetD2D16Async cuMemsetD2D16Async_ptsz cuMemsetD2D32Async
            cuMemsetD2D32Async_ptsz cuMemsetD8_v2 cuMemsetD8_v2_ptds cuMemsetD16_v2 cuMemsetD16_v2_ptds cuMemsetD32_v2
            cuMemsetD32_v2_ptds cuMemsetD2D8_v2 cuMemsetD2D8_v2_ptds cuMemsetD2D16_v2 cuMemsetD2D16_v2_ptds cuMemsetD2D32_v2
            cuMemsetD2D32_v2_ptds;
    }
    "stream" {
        Local: cuStreamGetPriority cuStreamGetPriority_ptsz cuStreamGetFlags cuStreamGetFlags_ptsz cuStreamGetId cuStreamGetId_ptsz
            cuStreamGetDevice cuStreamGetDevice_ptsz cuStreamGetCtx cuStreamGetCtx_ptsz cuStreamGetCtx_v2
            cuStreamGetCtx_v2_ptsz;
        Async: cuStreamCreate cuStreamCreateWithPriority cuStreamDestroy cuStreamDestroy_v2 cuStreamWaitEvent cuStreamWaitEvent_ptsz;
        Sync: cuStreamSynchronize cuStreamSynchronize_ptsz cuStreamQuery cuStreamQuery_ptsz;
    }
    "stream_attribute" {
        Local: cuStreamGetAttribute cuStreamGetAttribute_ptsz;
        Async: cuStreamSetAttribute cuStreamSetAttribute_ptsz cuStreamCopyAttributes cuStreamCopyAttributes_ptsz;
    }
    "stream_memory" {
        Async: cuStreamWriteValue32_v2 cuStreamWriteValue32_v2_ptsz cuStreamWriteValue64_v2 cuStreamWriteValue64_v2_ptsz
            cuStreamWaitValue32_v2 cuStreamWaitValue32_v2_ptsz cuStreamWaitValue64_v2 cuStreamWaitValue64_v2_ptsz
            cuStreamBatchMemOp_v2 cuStreamBatchMemOp_v2_ptsz;
    }
    "event" {
        Async: cuEventCreate cuEventDestroy cuEventDestroy_v2 cuEventRecord cuEventRecord_ptsz cuEventRecordWithFlags
            cuEventRecordWithFlags_ptsz;
        Sync: cuEventQuery cuEventSynchronize cuEventElapsedTime cuEventElapsedTime_v2;
    }
    "module" {
        Local: cuModuleGetFunction cuModuleGetGlobal_v2 cuModuleGetLoadingMode cuModuleGetFunctionCount cuModuleEnumerateFunctions;
        Async: cuModuleUnload;
        Sync: cuModuleLoad cuModuleLoadData cuModuleLoadDataEx cuModuleLoadFatBinary;
    }
    "library" {
        Local: cuLibraryGetKernel cuLibraryGetModule cuLibraryGetGlobal cuLibraryGetManaged cuLibraryGetUnifiedFunction
            cuLibraryGetKernelCount
            cuLibraryEnumerateKernels;
        Async: cuLibraryUnload;
        Sync: cuLibraryLoadData cuLibraryLoadFromFile;
    }
    "function" {
        Local: cuFuncGetModule cuFuncGetName cuFuncGetParamInfo cuFuncIsLoaded cuFuncLoad cuFuncSetCacheConfig
            cuFuncSetSharedMemConfig cuKernelGetFunction cuKernelGetLibrary cuKernelGetName cuKernelGetParamInfo
            cuKernelSetCacheConfig;
        Cached: cuFuncGetAttribute cuKernelGetAttribute;
        Async: cuFuncSetAttribute cuKernelSetAttribute;
    }
    "occupancy" {
        Sync: cuOccupancyMaxActiveBlocksPerMultiprocessor cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags
            cuOccupancyMaxPotentialBlockSize cuOccupancyMaxPotentialBlockSizeWithFlags cuOccupancyAvailableDynamicSMemPerBlock
            cuOccupancyMaxActiveClusters cuOccupancyMaxPotentialClusterSize;
    }
    "tensor_map" {
        Cached: cuTensorMapEncodeTiled cuTensorMapEncodeIm2col cuTensorMapEncodeIm2colWide cuTensorMapReplaceAddress;
    }
    "link" {
        Async: cuLinkDestroy;
        Sync: cuLinkCreate cuLinkCreate_v2 cuLinkAddData cuLinkAddData_v2 cuLinkAddFile cuLinkAddFile_v2 cuLinkComplete;
    }
    "old_launch" {
        Local: cuFuncSetBlockShape cuFuncSetSharedSize cuParamSetSize cuParamSeti cuParamSetf cuParamSetv cuParamSetTexRef;
        Async: cuLaunch cuLaunchGrid cuLaunchGridAsync;
    }
    "user_object" {
        Local: cuUserObjectCreate cuUserObjectRetain cuUserObjectRelease cuGraphRetainUserObject cuGraphReleaseUserObject;
    }
    "host_function" { Async: cuLaunchHostFunc cuLaunchHostFunc_ptsz cuStreamAddCallback cuStreamAddCallback_ptsz; }
    "launch" {
        Async: cuLaunchKernel cuLaunchKernel_ptsz cuLaunchKernelEx cuLaunchKernelEx_ptsz cuLaunchCooperativeKernel
            cuLaunchCooperativeKernel_ptsz;
    }
    "capture" {
        Local: cuThreadExchangeStreamCaptureMode cuStreamBeginCapture cuStreamBeginCapture_ptsz cuStreamBeginCapture_v2
            cuStreamBeginCapture_v2_ptsz cuStreamBeginCaptureToGraph cuStreamBeginCaptureToGraph_ptsz cuStreamEndCapture
            cuStreamEndCapture_ptsz cuStreamIsCapturing cuStreamIsCapturing_ptsz cuStreamGetCaptureInfo
            cuStreamGetCaptureInfo_ptsz cuStreamGetCaptureInfo_v2 cuStreamGetCaptureInfo_v2_ptsz cuStreamGetCaptureInfo_v3
            cuStreamGetCaptureInfo_v3_ptsz cuStreamUpdateCaptureDependencies cuStreamUpdateCaptureDependencies_ptsz
            cuStreamUpdateCaptureDependencies_v2 cuStreamUpdateCaptureDependencies_v2_ptsz;
    }
    "graph" {
        Local: cuGraphCreate cuGraphDestroy cuGraphClone cuGraphDestroyNode cuGraphGetNodes cuGraphGetRootNodes cuGraphGetEdges
            cuGraphGetEdges_v2 cuGraphNodeGetDependencies cuGraphNodeGetDependencies_v2 cuGraphNodeGetDependentNodes
            cuGraphNodeGetDependentNodes_v2 cuGraphAddDependencies cuGraphAddDependencies_v2 cuGraphRemoveDependencies
            cuGraphRemoveDependencies_v2 cuGraphNodeGetType cuGraphNodeFindInClone cuGraphChildGraphNodeGetGraph
            cuGraphDebugDotPrint;
    }
    "graph_nodes" {
        Local: cuGraphAddKernelNode cuGraphAddKernelNode_v2 cuGraphAddMemcpyNode cuGraphAddMemsetNode cuGraphAddEmptyNode
            cuGraphAddChildGraphNode cuGraphAddEventRecordNode cuGraphAddEventWaitNode cuGraphAddHostNode
            cuGraphAddNode cuGraphAddNode_v2 cuGraphHostNodeGetParams cuGraphHostNodeSetParams
            cuGraphAddBatchMemOpNode cuGraphBatchMemOpNodeGetParams cuGraphBatchMemOpNodeSetParams
            cuGraphKernelNodeGetParams cuGraphKernelNodeGetParams_v2 cuGraphKernelNodeSetParams cuGraphKernelNodeSetParams_v2
            cuGraphKernelNodeGetAttribute cuGraphKernelNodeSetAttribute cuGraphKernelNodeCopyAttributes
            cuGraphMemcpyNodeGetParams cuGraphMemcpyNodeSetParams cuGraphMemsetNodeGetParams cuGraphMemsetNodeSetParams
            cuGraphEventRecordNodeGetEvent cuGraphEventRecordNodeSetEvent cuGraphEventWaitNodeGetEvent
            cuGraphEventWaitNodeSetEvent cuGraphNodeSetParams;
    }
    "graph_memory" {
        Local: cuGraphAddMemFreeNode cuGraphMemAllocNodeGetParams cuGraphMemFreeNodeGetParams cuDeviceGetGraphMemAttribute
            cuDeviceSetGraphMemAttribute;
        Sync: cuGraphAddMemAllocNode cuDeviceGraphMemTrim;
    }
    "graph_conditional" { Sync: cuGraphConditionalHandleCreate; }
    "graph_exec" {
        Local: cuGraphExecGetFlags;
        Async: cuGraphUpload cuGraphUpload_ptsz cuGraphLaunch cuGraphLaunch_ptsz cuGraphExecDestroy;
        Sync: cuGraphInstantiate cuGraphInstantiate_v2 cuGraphInstantiateWithFlags cuGraphInstantiateWithParams
            cuGraphInstantiateWithParams_ptsz;
    }
    "graph_change" {
        Local: cuGraphNodeGetEnabled;
        Async: cuGraphNodeSetEnabled cuGraphExecKernelNodeSetParams cuGraphExecKernelNodeSetParams_v2
            cuGraphExecMemcpyNodeSetParams cuGraphExecMemsetNodeSetParams cuGraphExecChildGraphNodeSetParams
            cuGraphExecEventRecordNodeSetEvent cuGraphExecEventWaitNodeSetEvent cuGraphExecHostNodeSetParams cuGraphExecBatchMemOpNodeSetParams cuGraphExecNodeSetParams;
        Sync: cuGraphExecUpdate cuGraphExecUpdate_v2;
    }
}

/// The group of a symbol; `None`: not supported.
#[must_use]
pub fn group_of(symbol: &str) -> Option<&'static Group> {
    SURFACE.iter().find(|group| group.symbols.contains(&symbol))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_symbol_stands_once_and_is_one_of_libcuda() {
        let mut seen = BTreeSet::new();
        for symbol in SURFACE.iter().flat_map(|group| group.symbols) {
            assert!(seen.insert(symbol), "{symbol} stands twice");
            assert!(crate::symbols::shape_of(symbol).is_some(), "{symbol} is no symbol of libcuda");
        }
    }
}
