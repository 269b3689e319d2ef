// Pools and memory in the order of streams.
#pragma once

static CUmemPoolProps on_device() {
    CUmemPoolProps properties = {};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
    return properties;
}

AREA(pools, "pools") {
    CUmemoryPool pool, made, standard;
    CUdeviceptr at;
    CUmemAccess_flags access;
    unsigned long long value = 2;
    int fd = -1;
    with_context();
    auto make = [&](const char *what, const std::function<void(CUmemPoolProps &)> &change) {
        CUmemPoolProps properties = on_device();
        change(properties);
        if (TRY(what, cuMemPoolCreate, &made, &properties) == 0) CALL(cuMemPoolDestroy, made);
    };
    using P = CUmemPoolProps;
    TRY("no description", cuMemPoolCreate, &made, nullptr);
    P right = on_device();
    TRY("nowhere to", cuMemPoolCreate, nullptr, &right);
    make("memory of no kind", [](P &p) { p.allocType = (CUmemAllocationType)0; });
    make("memory of kind 99", [](P &p) { p.allocType = (CUmemAllocationType)99; });
    make("a place of no kind", [](P &p) { p.location.type = (CUmemLocationType)0; });
    make("a place of kind 99", [](P &p) { p.location.type = (CUmemLocationType)99; });
    make("a device of nobody", [](P &p) { p.location.id = 99; });
    make("a device below 0", [](P &p) { p.location.id = -1; });
    make("handles of kind 64", [](P &p) { p.handleTypes = (CUmemAllocationHandleType)64; });
    make("reserved words", [](P &p) { p.reserved[0] = 1; });
    make("at most all", [](P &p) { p.maxSize = ALL; });
    make("flags of nobody", [](P &p) { p.usage = 0x8000; });
    NEEDS(cuMemPoolCreate, &pool, &right);
    NEEDS(cuDeviceGetDefaultMemPool, &standard, device);
    TRY("destroy none", cuMemPoolDestroy, nullptr);
    TRY("destroy the device's", cuMemPoolDestroy, standard);
    TRY("attribute 0", cuMemPoolGetAttribute, pool, (CUmemPool_attribute)0, &value);
    TRY("attribute 99", cuMemPoolGetAttribute, pool, (CUmemPool_attribute)99, &value);
    TRY("attribute, nowhere to", cuMemPoolGetAttribute, pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, nullptr);
    TRY("attribute of none", cuMemPoolGetAttribute, nullptr, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &value);
    TRY("set attribute 99", cuMemPoolSetAttribute, pool, (CUmemPool_attribute)99, &value);
    TRY("set what is only read", cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value);
    TRY("set the most to what it is not", cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &value);
    TRY("set a flag to 2", cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES, &value);
    TRY("set to nothing", cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, nullptr);
    TRY("trim none", cuMemPoolTrimTo, nullptr, 0);
    TRY("trim to all", cuMemPoolTrimTo, pool, ALL);
    CUmemLocation here = {CU_MEM_LOCATION_TYPE_DEVICE, device}, nobody = {CU_MEM_LOCATION_TYPE_DEVICE, 99};
    CUmemAccessDesc none = {here, CU_MEM_ACCESS_FLAGS_PROT_NONE}, both = {here, CU_MEM_ACCESS_FLAGS_PROT_READWRITE},
                    theirs = {nobody, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    TRY("its own device", cuMemPoolSetAccess, pool, &both, 1);
    TRY("not for its own device", cuMemPoolSetAccess, pool, &none, 1);
    TRY("for a device of nobody", cuMemPoolSetAccess, pool, &theirs, 1);
    TRY("for nobody", cuMemPoolSetAccess, pool, &both, 0);
    TRY("at nowhere", cuMemPoolSetAccess, pool, nullptr, 1);
    TRY("access, nowhere to", cuMemPoolGetAccess, nullptr, pool, &here);
    TRY("access of a device of nobody", cuMemPoolGetAccess, &access, pool, &nobody);
    TRY("export of one that is not for it", cuMemPoolExportToShareableHandle, &fd, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    TRY("export as no kind", cuMemPoolExportToShareableHandle, &fd, pool, CU_MEM_HANDLE_TYPE_NONE, 0);
    TRY("import of no descriptor", cuMemPoolImportFromShareableHandle, &made, (void *)-1, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    CUstream stream = new_stream();
    TRY("allocate nothing", cuMemAllocFromPoolAsync, &at, 0, pool, stream);
    TRY("allocate, nowhere to", cuMemAllocFromPoolAsync, nullptr, 16, pool, stream);
    TRY("allocate from none", cuMemAllocFromPoolAsync, &at, 16, nullptr, stream);
    TRY("allocate more than there is", cuMemAllocFromPoolAsync, &at, (size_t)1 << 44, pool, stream);
    TRY("allocate all", cuMemAllocFromPoolAsync, &at, ALL, pool, stream);
    TRY("allocate nothing of the device's", cuMemAllocAsync, &at, 0, stream);
    TRY("allocate of the device's, nowhere to", cuMemAllocAsync, nullptr, 16, stream);
    NEEDS(cuMemAllocFromPoolAsync, &at, 4096, pool, stream);
    CUmemPoolPtrExportData data;
    TRY("name of its memory", cuMemPoolExportPointer, &data, at);
    TRY("name of memory of no pool", cuMemPoolExportPointer, &data, some(16));
    TRY("free nothing", cuMemFreeAsync, 0, stream);
    TRY("free nobody's", cuMemFreeAsync, NOWHERE, stream);
    TRY("free host memory", cuMemFreeAsync, HOST, stream);
    TRY("free within", cuMemFreeAsync, at + 16, stream);
    TRY("free", cuMemFreeAsync, at, stream);
    TRY("free twice", cuMemFreeAsync, at, stream);
    TRY("free twice, at once", cuMemFree_v2, at);
    TRY("the stream after that", cuStreamSynchronize, stream);
}
AREA(ended_pool, "a pool that has ended: destroy") {
    CUmemoryPool pool;
    CUmemPoolProps right = on_device();
    with_context();
    NEEDS(cuMemPoolCreate, &pool, &right);
    NEEDS(cuMemPoolDestroy, pool);
    TRY("destroy", cuMemPoolDestroy, pool);
}
AREA(ended_pool_allocate, "a pool that has ended: allocate") {
    CUmemoryPool pool;
    CUdeviceptr at;
    CUmemPoolProps right = on_device();
    with_context();
    NEEDS(cuMemPoolCreate, &pool, &right);
    NEEDS(cuMemPoolDestroy, pool);
    TRY("allocate", cuMemAllocFromPoolAsync, &at, 16, pool, nullptr);
}
AREA(ended_pool_set, "a pool that has ended: for a device") {
    CUmemoryPool pool;
    CUmemPoolProps right = on_device();
    with_context();
    NEEDS(cuMemPoolCreate, &pool, &right);
    NEEDS(cuMemPoolDestroy, pool);
    TRY("set", cuDeviceSetMemPool, device, pool);
}
