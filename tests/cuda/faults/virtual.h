// Addresses and memory apart.
#pragma once

static CUmemAllocationProp piece_on_device() {
    CUmemAllocationProp properties = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
    return properties;
}
static const size_t PIECE = 2 << 20;

AREA(pieces, "memory without addresses") {
    CUmemGenericAllocationHandle made;
    CUmemAllocationProp told;
    size_t bytes;
    int fd = -1;
    with_context();
    auto make = [&](const char *what, size_t size, const std::function<void(CUmemAllocationProp &)> &change) {
        CUmemAllocationProp properties = piece_on_device();
        change(properties);
        if (TRY(what, cuMemCreate, &made, size, &properties, 0) == 0) CALL(cuMemRelease, made);
    };
    using P = CUmemAllocationProp;
    P right = piece_on_device();
    auto same = [](P &) {};
    TRY("no description", cuMemCreate, &made, PIECE, nullptr, 0);
    TRY("nowhere to", cuMemCreate, nullptr, PIECE, &right, 0);
    TRY("flags", cuMemCreate, &made, PIECE, &right, 1);
    make("nothing", 0, same);
    make("a page", 4096, same);
    make("a byte more", PIECE + 1, same);
    make("more than there is", (size_t)1 << 44, same);
    make("all", ALL & -PIECE, same);
    make("memory of no kind", PIECE, [](P &p) { p.type = (CUmemAllocationType)0; });
    make("memory of kind 99", PIECE, [](P &p) { p.type = (CUmemAllocationType)99; });
    make("a place of no kind", PIECE, [](P &p) { p.location.type = (CUmemLocationType)0; });
    make("a place of kind 99", PIECE, [](P &p) { p.location.type = (CUmemLocationType)99; });
    make("a device of nobody", PIECE, [](P &p) { p.location.id = 99; });
    make("handles of Windows", PIECE, [](P &p) { p.requestedHandleTypes = CU_MEM_HANDLE_TYPE_WIN32; });
    make("handles of kind 64", PIECE, [](P &p) { p.requestedHandleTypes = (CUmemAllocationHandleType)64; });
    TRY("granularity, no description", cuMemGetAllocationGranularity, &bytes, nullptr, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    TRY("granularity, nowhere to", cuMemGetAllocationGranularity, nullptr, &right, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    TRY("granularity 99", cuMemGetAllocationGranularity, &bytes, &right, (CUmemAllocationGranularity_flags)99);
    TRY("release 0", cuMemRelease, 0);
    TRY("description of 0", cuMemGetAllocationPropertiesFromHandle, &told, 0);
    NEEDS(cuMemCreate, &made, PIECE, &right, 0);
    TRY("description, nowhere to", cuMemGetAllocationPropertiesFromHandle, nullptr, made);
    TRY("export of one that is not for it", cuMemExportToShareableHandle, &fd, made, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    TRY("export as no kind", cuMemExportToShareableHandle, &fd, made, CU_MEM_HANDLE_TYPE_NONE, 0);
    TRY("import of no descriptor", cuMemImportFromShareableHandle, &made, (void *)-1, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    TRY("handle of plain memory", cuMemRetainAllocationHandle, &made, (void *)some(4096));
    TRY("handle of nobody's", cuMemRetainAllocationHandle, &made, (void *)NOWHERE);
}

AREA(addresses, "addresses without memory") {
    CUdeviceptr at, base;
    size_t bytes;
    unsigned long long flags;
    CUmemGenericAllocationHandle piece, large;
    CUmemAllocationProp right = piece_on_device();
    with_context();
    auto reserve = [&](const char *what, CUdeviceptr *to, size_t size, size_t alignment, unsigned long long how) {
        if (TRY(what, cuMemAddressReserve, to, size, alignment, 0, how) == 0 && to) CALL(cuMemAddressFree, *to, size);
    };
    reserve("reserve nothing", &at, 0, 0, 0);
    reserve("reserve, nowhere to", nullptr, PIECE, 0, 0);
    reserve("reserve a byte more", &at, PIECE + 1, 0, 0);
    reserve("reserve a page", &at, 4096, 0, 0);
    reserve("reserve at multiples of 3", &at, PIECE, 3, 0);
    reserve("reserve with flags", &at, PIECE, 0, 1);
    reserve("reserve more than addresses", &at, HUGE_SIZE, 0, 0);
    reserve("reserve all", &at, ALL & -PIECE, 0, 0);
    NEEDS(cuMemAddressReserve, &base, 16 * PIECE, 0, 0, 0);
    NEEDS(cuMemCreate, &piece, PIECE, &right, 0);
    NEEDS(cuMemCreate, &large, 4 * PIECE, &right, 0);
    auto map = [&](const char *what, CUdeviceptr to, size_t size, size_t offset, CUmemGenericAllocationHandle which,
                   unsigned long long how = 0) { TRY(what, cuMemMap, to, size, offset, which, how); };
    map("map 0", base, PIECE, 0, 0);
    map("map nothing", base, 0, 0, piece);
    map("map at 0", 0, PIECE, 0, piece);
    map("map at nowhere", NOWHERE, PIECE, 0, piece);
    map("map past the addresses", base + 16 * PIECE, PIECE, 0, piece);
    map("map over their end", base + 15 * PIECE, 4 * PIECE, 0, large);
    map("map between pages", base + 4096, PIECE, 0, piece);
    map("map within pages", base, 4096, 0, piece);
    map("map more than there is", base, 2 * PIECE, 0, piece);
    map("map from an offset", base, PIECE, PIECE, large);
    map("map with flags", base, PIECE, 0, piece, 1);
    map("map", base, PIECE, 0, piece);
    map("map over it", base, PIECE, 0, large);
    map("map over it once more", base, 4 * PIECE, 0, large);
    TRY("a copy to what nobody may touch", cuMemcpyHtoD_v2, base, own, 16);
    TRY("a copy to what nobody mapped", cuMemcpyHtoD_v2, base + 8 * PIECE, own, 16);
    CUmemAccessDesc both = {{CU_MEM_LOCATION_TYPE_DEVICE, device}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    auto let = [&](const char *what, CUdeviceptr where, size_t size, CUmemAccessDesc description, size_t count = 1) {
        TRY(what, cuMemSetAccess, where, size, &description, count);
    };
    let("access to nothing", base, 0, both);
    let("access to what is not mapped", base + 8 * PIECE, PIECE, both);
    let("access over the end", base, 2 * PIECE, both);
    let("access within pages", base, 4096, both);
    let("access between pages", base + 4096, PIECE, both);
    let("access to nobody's", NOWHERE, PIECE, both);
    let("access of nobody", base, PIECE, both, 0);
    CUmemAccessDesc other = both;
    other.location.id = 99;
    let("access of a device of nobody", base, PIECE, other);
    other = both, other.location.type = (CUmemLocationType)99;
    let("access of a place of kind 99", base, PIECE, other);
    other = both, other.flags = (CUmemAccess_flags)2;
    let("access of kind 2", base, PIECE, other);
    TRY("access at nowhere", cuMemSetAccess, base, PIECE, nullptr, 1);
    let("access", base, PIECE, both);
    CUmemLocation here = both.location, nobody = {CU_MEM_LOCATION_TYPE_DEVICE, 99};
    TRY("ask for access, nowhere to", cuMemGetAccess, nullptr, &here, base);
    TRY("ask for access to nobody's", cuMemGetAccess, &flags, &here, NOWHERE);
    TRY("ask for access to what is not mapped", cuMemGetAccess, &flags, &here, base + 8 * PIECE);
    TRY("ask for access of a device of nobody", cuMemGetAccess, &flags, &nobody, base);
    TRY("a copy past it", cuMemcpyHtoD_v2, base + PIECE - 8, own, 16);
    TRY("its range", cuMemGetAddressRange_v2, &at, &bytes, base + 64);
    TRY("range of what is not mapped", cuMemGetAddressRange_v2, &at, &bytes, base + 8 * PIECE);
    TRY("free", cuMemFree_v2, base);
    TRY("free, in the order of a stream", cuMemFreeAsync, base, nullptr);
    TRY("give back what is mapped", cuMemAddressFree, base, 16 * PIECE);
    TRY("unmap nothing", cuMemUnmap, base, 0);
    TRY("unmap within pages", cuMemUnmap, base, 4096);
    TRY("unmap between pages", cuMemUnmap, base + 4096, PIECE);
    TRY("unmap what is not mapped", cuMemUnmap, base + 8 * PIECE, PIECE);
    TRY("unmap more than is mapped", cuMemUnmap, base, 2 * PIECE);
    TRY("unmap nobody's", cuMemUnmap, NOWHERE, PIECE);
    map("map a large one", base + 4 * PIECE, 4 * PIECE, 0, large);
    TRY("unmap a part", cuMemUnmap, base + 4 * PIECE, PIECE);
    TRY("unmap it", cuMemUnmap, base + 4 * PIECE, 4 * PIECE);
    TRY("unmap it twice", cuMemUnmap, base + 4 * PIECE, 4 * PIECE);
    TRY("give back a part", cuMemAddressFree, base, PIECE);
    TRY("give back more", cuMemAddressFree, base, 32 * PIECE);
    TRY("give back from within", cuMemAddressFree, base + PIECE, 15 * PIECE);
    TRY("give back nobody's", cuMemAddressFree, NOWHERE, PIECE);
    TRY("unmap the first", cuMemUnmap, base, PIECE);
    TRY("give back", cuMemAddressFree, base, 16 * PIECE);
    TRY("give back twice", cuMemAddressFree, base, 16 * PIECE);
    TRY("release", cuMemRelease, piece);
    TRY("the context after that", cuCtxSynchronize);
}
AREA(ended_piece, "memory without addresses that has ended: release") {
    CUmemGenericAllocationHandle piece;
    CUmemAllocationProp right = piece_on_device();
    with_context();
    NEEDS(cuMemCreate, &piece, PIECE, &right, 0);
    NEEDS(cuMemRelease, piece);
    TRY("release", cuMemRelease, piece);
}
AREA(ended_piece_map, "memory without addresses that has ended: map") {
    CUdeviceptr base;
    CUmemGenericAllocationHandle piece;
    CUmemAllocationProp right = piece_on_device();
    with_context();
    NEEDS(cuMemAddressReserve, &base, PIECE, 0, 0, 0);
    NEEDS(cuMemCreate, &piece, PIECE, &right, 0);
    NEEDS(cuMemRelease, piece);
    TRY("map", cuMemMap, base, PIECE, 0, piece, 0);
}
