// Memory of the device and of the host: given, freed, named.
#pragma once

AREA(allocations, "allocations") {
    CUdeviceptr at, base;
    size_t pitch, bytes, free_bytes;
    with_context();
    TRY("nothing", cuMemAlloc_v2, &at, 0);
    TRY("nowhere to", cuMemAlloc_v2, nullptr, 16);
    TRY("nothing, nowhere to", cuMemAlloc_v2, nullptr, 0);
    TRY("more than there is", cuMemAlloc_v2, &at, (size_t)1 << 44);
    TRY("more than addresses", cuMemAlloc_v2, &at, HUGE_SIZE);
    TRY("all", cuMemAlloc_v2, &at, ALL);
    TRY("rows: no width", cuMemAllocPitch_v2, &at, &pitch, 0, 4, 4);
    TRY("rows: no height", cuMemAllocPitch_v2, &at, &pitch, 64, 0, 4);
    TRY("rows: elements of 3 bytes", cuMemAllocPitch_v2, &at, &pitch, 64, 4, 3);
    TRY("rows: elements of 32 bytes", cuMemAllocPitch_v2, &at, &pitch, 64, 4, 32);
    TRY("rows: elements of no bytes", cuMemAllocPitch_v2, &at, &pitch, 64, 4, 0);
    TRY("rows: nowhere to", cuMemAllocPitch_v2, nullptr, nullptr, 64, 4, 4);
    TRY("rows: too wide", cuMemAllocPitch_v2, &at, &pitch, HUGE_SIZE, 1, 4);
    TRY("rows: area beyond 64 bits", cuMemAllocPitch_v2, &at, &pitch, (size_t)1 << 40, (size_t)1 << 40, 4);
    TRY("rows: all", cuMemAllocPitch_v2, &at, &pitch, ALL, ALL, 4);
    CUdeviceptr block = some(4096);
    TRY("free nothing", cuMemFree_v2, 0);
    TRY("free nobody's", cuMemFree_v2, NOWHERE);
    TRY("free host memory", cuMemFree_v2, HOST);
    TRY("free within", cuMemFree_v2, block + 256);
    TRY("free the last address", cuMemFree_v2, ALL);
    TRY("free as pinned", cuMemFreeHost, (void *)block);
    TRY("unregister", cuMemHostUnregister, (void *)block);
    TRY("range of nobody's", cuMemGetAddressRange_v2, &base, &bytes, NOWHERE);
    TRY("range of host memory", cuMemGetAddressRange_v2, &base, &bytes, HOST);
    TRY("range of 0", cuMemGetAddressRange_v2, &base, &bytes, 0);
    TRY("range, nowhere to", cuMemGetAddressRange_v2, nullptr, nullptr, block);
    TRY("figures, nowhere to", cuMemGetInfo_v2, nullptr, nullptr);
    TRY("figures, one place", cuMemGetInfo_v2, &free_bytes, nullptr);
    TRY("free", cuMemFree_v2, block);
    TRY("free twice", cuMemFree_v2, block);
    TRY("range of what was freed", cuMemGetAddressRange_v2, &base, &bytes, block);
    TRY("the context after that", cuCtxSynchronize);
}

AREA(pinned, "host memory") {
    void *at, *pinned;
    CUdeviceptr there;
    unsigned flags;
    with_context();
    TRY("nothing", cuMemHostAlloc, &at, 0, 0);
    TRY("nowhere to", cuMemHostAlloc, nullptr, 16, 0);
    TRY("flags of nobody", cuMemHostAlloc, &at, 16, 0x80);
    TRY("more than addresses", cuMemHostAlloc, &at, HUGE_SIZE, 0);
    TRY("all", cuMemHostAlloc, &at, ALL, 0);
    TRY("old: nothing", cuMemAllocHost_v2, &at, 0);
    TRY("old: nowhere to", cuMemAllocHost_v2, nullptr, 16);
    NEEDS(cuMemHostAlloc, &pinned, 8192, 0);
    TRY("free nothing", cuMemFreeHost, nullptr);
    TRY("free a program's own", cuMemFreeHost, own);
    TRY("free within", cuMemFreeHost, (char *)pinned + 64);
    TRY("free as device memory", cuMemFree_v2, (CUdeviceptr)pinned);
    TRY("unregister what is pinned", cuMemHostUnregister, pinned);
    TRY("register what is pinned", cuMemHostRegister_v2, pinned, 8192, 0);
    TRY("device address of a program's own", cuMemHostGetDevicePointer_v2, &there, own, 0);
    TRY("device address with flags", cuMemHostGetDevicePointer_v2, &there, pinned, 1);
    TRY("device address, nowhere to", cuMemHostGetDevicePointer_v2, nullptr, pinned, 0);
    TRY("device address of nothing", cuMemHostGetDevicePointer_v2, &there, nullptr, 0);
    TRY("flags of a program's own", cuMemHostGetFlags, &flags, own);
    TRY("flags, nowhere to", cuMemHostGetFlags, nullptr, pinned);
    TRY("free", cuMemFreeHost, pinned);
    TRY("free twice", cuMemFreeHost, pinned);
    static char page[16384];
    char *own_page = (char *)(((size_t)page + 4095) & -(size_t)4096);
    TRY("register nothing", cuMemHostRegister_v2, own_page, 0, 0);
    TRY("register nowhere", cuMemHostRegister_v2, nullptr, 4096, 0);
    TRY("register what is not mapped", cuMemHostRegister_v2, (void *)0x10000, 4096, 0);
    TRY("register all", cuMemHostRegister_v2, own_page, ALL, 0);
    TRY("register with flags of nobody", cuMemHostRegister_v2, own_page, 4096, 0x80);
    TRY("unregister what is not", cuMemHostUnregister, own_page);
    TRY("unregister nothing", cuMemHostUnregister, nullptr);
    TRY("register", cuMemHostRegister_v2, own_page, 4096, 0);
    TRY("register twice", cuMemHostRegister_v2, own_page, 4096, 0);
    TRY("register more of it", cuMemHostRegister_v2, own_page, 8192, 0);
    TRY("free what is registered", cuMemFreeHost, own_page);
    TRY("unregister within", cuMemHostUnregister, own_page + 64);
    TRY("unregister", cuMemHostUnregister, own_page);
    TRY("unregister twice", cuMemHostUnregister, own_page);
}
