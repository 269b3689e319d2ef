//! What the device says of itself and what calls do: an attribute is told where its call is supported, and is 0 where it is refused.

use vgpu_api::snapshot::{ATTRIBUTES, is_offered};
use vgpu_api::surface::group_of;

/// Attributes (`CUdevice_attribute` of cuda.h 13.0), and a call without which they mean nothing.
const PROMISES: &[(u32, &str)] = &[
    (92, "cuStreamBatchMemOp"),
    (93, "cuStreamWriteValue64"),
    (94, "cuStreamWaitValue32"),
    (95, "cuLaunchCooperativeKernel"),
    (96, "cuLaunchCooperativeKernelMultiDevice"),
    (102, "cuMemCreate"),
    (103, "cuMemExportToShareableHandle"),
    (112, "cuMemMapArrayAsync"),
    (114, "cuImportExternalSemaphore"),
    (115, "cuMemPoolCreate"),
    (116, "cuFlushGPUDirectRDMAWrites"),
    (117, "cuFlushGPUDirectRDMAWrites"),
    (118, "cuFlushGPUDirectRDMAWrites"),
    (119, "cuMemPoolExportToShareableHandle"),
    (120, "cuLaunchKernelEx"),
    (121, "cuMemMapArrayAsync"),
    (122, "cuStreamBatchMemOp_v2"),
    (123, "cuStreamWaitValue32_v2"),
    (124, "cuMemGetHandleForAddressRange"),
    (125, "cuIpcGetEventHandle"),
    (127, "cuTensorMapEncodeTiled"),
    (132, "cuMulticastCreate"),
    (136, "cuMemBatchDecompressAsync"),
    (137, "cuMemBatchDecompressAsync"),
    (146, "cuMemGetHandleForAddressRange"),
];

#[test]
fn an_attribute_promises_no_call_that_is_refused_and_hides_none_that_is_there() {
    for (attribute, call) in PROMISES {
        assert!((*attribute as usize) < ATTRIBUTES, "{attribute}");
        assert!(vgpu_api::symbols::shape_of(call).is_some(), "{call} is no symbol of libcuda");
        assert_eq!(is_offered(*attribute), group_of(call).is_some(), "attribute {attribute} and {call}");
    }
}
