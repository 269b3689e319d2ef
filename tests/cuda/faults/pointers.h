// Attributes of addresses.
#pragma once

static void attributes_of(const char *kind, CUdeviceptr at) {
    for (int number = 1; number <= 22; number++) {
        // Two words of the kernel driver's, which nobody has any more.
        if (number == CU_POINTER_ATTRIBUTE_P2P_TOKENS) continue;
        char name[64];
        snprintf(name, sizeof name, "%s: attribute %d", kind, number);
        unsigned long long value[4] = {};
        TRY(name, cuPointerGetAttribute, value, (CUpointer_attribute)number, at);
    }
}

AREA(pointers, "attributes of addresses") {
    unsigned long long value[4] = {};
    void *pinned;
    with_context();
    CUdeviceptr at = some(4096), gone = some(64 << 20);
    NEEDS(cuMemFree_v2, gone);
    NEEDS(cuMemHostAlloc, &pinned, 4096, 0);
    attributes_of("device memory", at + 8);
    attributes_of("pinned memory", (CUdeviceptr)pinned + 8);
    attributes_of("a program's own", HOST);
    attributes_of("freed memory", gone);
    attributes_of("0", 0);
    TRY("attribute 0", cuPointerGetAttribute, value, (CUpointer_attribute)0, at);
    TRY("attribute 99", cuPointerGetAttribute, value, (CUpointer_attribute)99, at);
    TRY("nowhere to", cuPointerGetAttribute, nullptr, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at);
    CUpointer_attribute wanted[2] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUpointer_attribute)99};
    void *places[2] = {&value[0], &value[1]};
    TRY("none of many", cuPointerGetAttributes, 0, wanted, places, at);
    TRY("many at nowhere", cuPointerGetAttributes, 1, nullptr, places, at);
    TRY("many, nowhere to", cuPointerGetAttributes, 1, wanted, nullptr, at);
    TRY("many, one of nobody", cuPointerGetAttributes, 2, wanted, places, at);
    TRY("many of a program's own", cuPointerGetAttributes, 1, wanted, places, HOST);
    TRY("many of 0", cuPointerGetAttributes, 1, wanted, places, 0);
    int one = 1;
    TRY("set what is only read", cuPointerSetAttribute, &one, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at);
    TRY("set of a program's own", cuPointerSetAttribute, &one, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, HOST);
    TRY("set to nothing", cuPointerSetAttribute, nullptr, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, at);
    CUmemLocation here = {CU_MEM_LOCATION_TYPE_DEVICE, device}, nobody = {CU_MEM_LOCATION_TYPE_DEVICE, 99};
    TRY("advice about device memory", cuMemAdvise_v2, at, 4096, CU_MEM_ADVISE_SET_READ_MOSTLY, here);
    TRY("prefetch of device memory", cuMemPrefetchAsync_v2, at, 4096, here, 0, nullptr);
    TRY("prefetch to nobody", cuMemPrefetchAsync_v2, at, 4096, nobody, 0, nullptr);
    int range;
    TRY("range of device memory", cuMemRangeGetAttribute, &range, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, at, 4096);
    TRY("range of no bytes", cuMemRangeGetAttribute, &range, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, at, 0);
    TRY("managed memory of no bytes", cuMemAllocManaged, &at, 0, CU_MEM_ATTACH_GLOBAL);
    TRY("managed memory, nowhere to", cuMemAllocManaged, nullptr, 4096, CU_MEM_ATTACH_GLOBAL);
    TRY("managed memory without flags", cuMemAllocManaged, &at, 4096, 0);
    TRY("managed memory with flags of nobody", cuMemAllocManaged, &at, 4096, 0x80);
    TRY("managed memory for one stream", cuMemAllocManaged, &at, 4096, CU_MEM_ATTACH_SINGLE);
}
