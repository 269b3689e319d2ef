// Copies and sets past an end, from nowhere, of more than there is.
#pragma once

static const size_t SIZE = 1 << 20;

AREA(copies, "copies") {
    with_context();
    CUdeviceptr at = some(SIZE), other = some(SIZE), gone = some(64 << 20);
    NEEDS(cuMemFree_v2, gone);
    auto in = [&](const char *what, CUdeviceptr to, size_t bytes) { TRY(what, cuMemcpyHtoD_v2, to, own, bytes); };
    in("in: nothing", at, 0);
    in("in: nothing to nowhere", 0, 0);
    in("in: to 0", 0, 16);
    in("in: to nowhere", NOWHERE, 16);
    in("in: to host memory", HOST, 16);
    in("in: to freed memory", gone, 16);
    in("in: past the end", at + SIZE - 8, 9);
    in("in: from before the start", at - 8, 16);
    in("in: to the last address", ALL - 7, 8);
    auto out = [&](const char *what, CUdeviceptr from, size_t bytes) { TRY(what, cuMemcpyDtoH_v2, own, from, bytes); };
    out("out: nothing", at, 0);
    out("out: from 0", 0, 16);
    out("out: from nowhere", NOWHERE, 16);
    out("out: from host memory", HOST, 16);
    out("out: from freed memory", gone, 16);
    out("out: past the end", at + SIZE - 8, 9);
    auto between = [&](const char *what, CUdeviceptr to, CUdeviceptr from, size_t bytes) {
        TRY(what, cuMemcpyDtoD_v2, to, from, bytes);
    };
    between("between: nothing", at, other, 0);
    between("between: to 0", 0, at, 16);
    between("between: from nowhere", at, NOWHERE, 16);
    between("between: from host memory", at, HOST, 16);
    between("between: from freed memory", at, gone, 16);
    between("between: past both ends", at, other, SIZE + 1);
    between("between: all bytes", at, other, ALL);
    between("between: around the end", at, at + 16, ALL - 15);
    between("between: onto itself", at, at, SIZE);
    auto any = [&](const char *what, CUdeviceptr to, CUdeviceptr from, size_t bytes) { TRY(what, cuMemcpy, to, from, bytes); };
    any("unified: nothing", at, other, 0);
    any("unified: host to host", HOST, HOST + 64, 64);
    any("unified: host to device", at, HOST, 64);
    any("unified: past the end", HOST, at + SIZE - 8, 16);
    any("unified: all bytes between", at, other, ALL);
    CUstream stream = new_stream();
    TRY("queued: to 0", cuMemcpyHtoDAsync_v2, 0, own, 16, stream);
    TRY("queued: past the end", cuMemcpyHtoDAsync_v2, at + SIZE - 8, own, 9, stream);
    TRY("queued: out of nowhere", cuMemcpyDtoHAsync_v2, own, NOWHERE, 16, stream);
    TRY("queued: between, past the end", cuMemcpyDtoDAsync_v2, at, other + 1, SIZE, stream);
    TRY("queued: unified, past the end", cuMemcpyAsync, at, other + 1, SIZE, stream);
    TRY("the stream after that", cuStreamSynchronize, stream);
    TRY("peer: to no context", cuMemcpyPeer, at, nullptr, other, context, 16);
    TRY("peer: in one context", cuMemcpyPeer, at, context, other, context, 16);
    TRY("peer: past the end", cuMemcpyPeer, at, context, other + 1, context, SIZE);
    TRY("the context after that", cuCtxSynchronize);
}
AREA(copies_wrap, "copies of more than memory") {
    with_context();
    CUdeviceptr at = some(SIZE);
    TRY("in: half of all", cuMemcpyHtoD_v2, at, own, (size_t)1 << 63);
    TRY("in: all bytes", cuMemcpyHtoD_v2, at, own, ALL);
    TRY("out: half of all", cuMemcpyDtoH_v2, own, at, (size_t)1 << 63);
    TRY("out: all bytes", cuMemcpyDtoH_v2, own, at, ALL);
    TRY("out: around the end", cuMemcpyDtoH_v2, own, at + 16, ALL - 15);
}
AREA(copies_null, "copies with NULL") {
    with_context();
    CUdeviceptr at = some(SIZE);
    TRY("in: from NULL", cuMemcpyHtoD_v2, at, nullptr, 16);
    TRY("out: to NULL", cuMemcpyDtoH_v2, nullptr, at, 16);
    TRY("in: nothing from NULL", cuMemcpyHtoD_v2, at, nullptr, 0);
}

AREA(sets, "sets") {
    with_context();
    CUdeviceptr at = some(SIZE);
    TRY("8: nothing", cuMemsetD8_v2, at, 1, 0);
    TRY("8: at 0", cuMemsetD8_v2, 0, 1, 16);
    TRY("8: nothing at 0", cuMemsetD8_v2, 0, 1, 0);
    TRY("8: at nowhere", cuMemsetD8_v2, NOWHERE, 1, 16);
    TRY("8: host memory", cuMemsetD8_v2, HOST, 1, 16);
    TRY("8: past the end", cuMemsetD8_v2, at + SIZE - 8, 1, 9);
    TRY("8: all bytes", cuMemsetD8_v2, at, 1, ALL);
    TRY("8: around the end", cuMemsetD8_v2, at + 16, 1, ALL - 15);
    TRY("16: within an element", cuMemsetD16_v2, at + 1, 1, 4);
    TRY("16: past the end", cuMemsetD16_v2, at, 1, SIZE / 2 + 1);
    TRY("16: bytes beyond 64 bits", cuMemsetD16_v2, at, 1, ((size_t)1 << 63) + 1);
    TRY("32: within an element", cuMemsetD32_v2, at + 2, 1, 4);
    TRY("32: past the end", cuMemsetD32_v2, at, 1, SIZE / 4 + 1);
    TRY("32: bytes beyond 64 bits", cuMemsetD32_v2, at, 1, ((size_t)1 << 62) + 1);
    TRY("rows: no height", cuMemsetD2D8_v2, at, 64, 1, 16, 0);
    TRY("rows: no width", cuMemsetD2D8_v2, at, 64, 1, 0, 4);
    TRY("rows: closer than wide", cuMemsetD2D8_v2, at, 8, 1, 16, 4);
    TRY("rows: one, closer than wide", cuMemsetD2D8_v2, at, 8, 1, 16, 1);
    TRY("rows: no distance, one row", cuMemsetD2D8_v2, at, 0, 1, 16, 1);
    TRY("rows: past the end", cuMemsetD2D8_v2, at, SIZE / 4, 1, 16, 5);
    TRY("rows: the last one short", cuMemsetD2D8_v2, at + 16, SIZE / 4, 1, SIZE / 4 - 16, 4);
    TRY("rows: distance within an element", cuMemsetD2D32_v2, at, 66, 1, 4, 4);
    TRY("rows: area beyond 64 bits", cuMemsetD2D8_v2, at, (size_t)1 << 40, 1, 16, (size_t)1 << 40);
    TRY("rows: all", cuMemsetD2D32_v2, at, ALL, 1, ALL, ALL);
    TRY("queued: past the end", cuMemsetD8Async, at, 1, SIZE + 1, nullptr);
    TRY("the context after that", cuCtxSynchronize);
}

static CUDA_MEMCPY2D flat(CUdeviceptr to, const void *from) {
    CUDA_MEMCPY2D copy = {};
    copy.srcMemoryType = CU_MEMORYTYPE_HOST;
    copy.srcHost = from;
    copy.srcPitch = 64;
    copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    copy.dstDevice = to;
    copy.dstPitch = 64;
    copy.WidthInBytes = 32;
    copy.Height = 4;
    return copy;
}
AREA(rows, "copies of rows") {
    with_context();
    CUdeviceptr at = some(SIZE);
    auto with = [&](const char *what, const std::function<void(CUDA_MEMCPY2D &)> &change) {
        CUDA_MEMCPY2D copy = flat(at, own);
        change(copy);
        TRY(what, cuMemcpy2D_v2, &copy);
    };
    TRY("no description", cuMemcpy2D_v2, nullptr);
    with("as they should be", [](CUDA_MEMCPY2D &) {});
    with("no width", [](CUDA_MEMCPY2D &copy) { copy.WidthInBytes = 0; });
    with("no height", [](CUDA_MEMCPY2D &copy) { copy.Height = 0; });
    with("source of no kind", [](CUDA_MEMCPY2D &copy) { copy.srcMemoryType = (CUmemorytype)0; });
    with("source of kind 99", [](CUDA_MEMCPY2D &copy) { copy.srcMemoryType = (CUmemorytype)99; });
    with("target of no kind", [](CUDA_MEMCPY2D &copy) { copy.dstMemoryType = (CUmemorytype)0; });
    with("target an array that is none", [](CUDA_MEMCPY2D &copy) { copy.dstMemoryType = CU_MEMORYTYPE_ARRAY; });
    with("source closer than wide", [](CUDA_MEMCPY2D &copy) { copy.srcPitch = 16; });
    with("target closer than wide", [](CUDA_MEMCPY2D &copy) { copy.dstPitch = 16; });
    with("target closer than x and wide", [](CUDA_MEMCPY2D &copy) { copy.dstXInBytes = 40; });
    with("no distances", [](CUDA_MEMCPY2D &copy) { copy.srcPitch = copy.dstPitch = 0; });
    with("no distances, one row", [](CUDA_MEMCPY2D &copy) { copy.srcPitch = copy.dstPitch = 0, copy.Height = 1; });
    with("target past the end", [](CUDA_MEMCPY2D &copy) { copy.dstY = SIZE / 64 - 3; });
    with("target far past the end", [](CUDA_MEMCPY2D &copy) { copy.dstY = ALL / 64; });
    with("target at 0", [](CUDA_MEMCPY2D &copy) { copy.dstDevice = 0; });
    with("target in host memory", [](CUDA_MEMCPY2D &copy) { copy.dstDevice = HOST; });
    with("unified target in host memory", [](CUDA_MEMCPY2D &copy) { copy.dstMemoryType = CU_MEMORYTYPE_UNIFIED, copy.dstDevice = HOST + 4096; });
    with("more rows than 64 bits", [](CUDA_MEMCPY2D &copy) { copy.dstPitch = HUGE_SIZE, copy.Height = 64; });
    with("a distance too far", [](CUDA_MEMCPY2D &copy) { copy.dstPitch = (size_t)1 << 31; });
    with("a distance too far, unaligned", [](CUDA_MEMCPY2D &copy) { copy.srcMemoryType = CU_MEMORYTYPE_DEVICE, copy.srcDevice = copy.dstDevice, copy.srcPitch = 33; });
    CUDA_MEMCPY2D past = flat(at + SIZE - 64, own);
    TRY("queued, past the end", cuMemcpy2DAsync_v2, &past, nullptr);
    TRY("unaligned, past the end", cuMemcpy2DUnaligned_v2, &past);
    TRY("the context after that", cuCtxSynchronize);
}

AREA(boxes, "copies of boxes") {
    with_context();
    CUdeviceptr at = some(SIZE);
    auto with = [&](const char *what, const std::function<void(CUDA_MEMCPY3D &)> &change) {
        CUDA_MEMCPY3D copy = {};
        copy.srcMemoryType = CU_MEMORYTYPE_HOST;
        copy.srcHost = own;
        copy.srcPitch = copy.dstPitch = 64;
        copy.srcHeight = copy.dstHeight = 8;
        copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
        copy.dstDevice = at;
        copy.WidthInBytes = 32;
        copy.Height = 4;
        copy.Depth = 2;
        change(copy);
        TRY(what, cuMemcpy3D_v2, &copy);
    };
    TRY("no description", cuMemcpy3D_v2, nullptr);
    with("as they should be", [](CUDA_MEMCPY3D &) {});
    with("no depth", [](CUDA_MEMCPY3D &copy) { copy.Depth = 0; });
    with("no height", [](CUDA_MEMCPY3D &copy) { copy.Height = 0; });
    with("no width", [](CUDA_MEMCPY3D &copy) { copy.WidthInBytes = 0; });
    with("slices lower than high", [](CUDA_MEMCPY3D &copy) { copy.dstHeight = 2; });
    with("slices of no height", [](CUDA_MEMCPY3D &copy) { copy.dstHeight = 0; });
    with("source of no kind", [](CUDA_MEMCPY3D &copy) { copy.srcMemoryType = (CUmemorytype)0; });
    with("a level of memory", [](CUDA_MEMCPY3D &copy) { copy.dstLOD = 1; });
    with("past the end", [](CUDA_MEMCPY3D &copy) { copy.dstZ = SIZE / 512 - 1; });
    with("far past the end", [](CUDA_MEMCPY3D &copy) { copy.dstZ = ALL / 512; });
    with("more slices than 64 bits", [](CUDA_MEMCPY3D &copy) { copy.dstHeight = HUGE_SIZE, copy.dstZ = 64; });
    with("reserved words", [](CUDA_MEMCPY3D &copy) { copy.reserved0 = copy.reserved1 = own; });
    CUDA_MEMCPY3D_PEER peer = {};
    TRY("peer: no description", cuMemcpy3DPeer, nullptr);
    TRY("peer: an empty description", cuMemcpy3DPeer, &peer);
    TRY("the context after that", cuCtxSynchronize);
}

AREA(batches, "batches of copies") {
    with_context();
    CUstream stream = new_stream();
    CUdeviceptr to[2] = {some(SIZE), some(SIZE)}, from[2] = {some(SIZE), some(SIZE)};
    size_t bytes[2] = {SIZE, SIZE}, firsts[2] = {0, 1};
    CUmemcpyAttributes how[2] = {};
    how[0].srcAccessOrder = how[1].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    auto batch = [&](const char *what, size_t count, size_t kinds, CUstream in) {
        TRY(what, cuMemcpyBatchAsync_v2, to, from, bytes, count, how, firsts, kinds, in);
    };
    batch("as it should be", 2, 1, stream);
    batch("none", 0, 1, stream);
    batch("no attributes", 2, 0, stream);
    batch("more attributes than copies", 1, 2, stream);
    batch("in the legacy stream", 2, 1, nullptr);
    TRY("no targets", cuMemcpyBatchAsync_v2, nullptr, from, bytes, 2, how, firsts, 1, stream);
    TRY("no sources", cuMemcpyBatchAsync_v2, to, nullptr, bytes, 2, how, firsts, 1, stream);
    TRY("no sizes", cuMemcpyBatchAsync_v2, to, from, nullptr, 2, how, firsts, 1, stream);
    TRY("attributes at nowhere", cuMemcpyBatchAsync_v2, to, from, bytes, 2, nullptr, firsts, 1, stream);
    firsts[0] = 1;
    batch("the first without attributes", 2, 1, stream);
    firsts[0] = 0, firsts[1] = 0;
    batch("attributes out of order", 2, 2, stream);
    firsts[1] = 1;
    bytes[1] = 0;
    batch("no bytes", 2, 1, stream);
    bytes[1] = SIZE + 1;
    batch("past the end", 2, 1, stream);
    bytes[1] = SIZE;
    how[0].srcAccessOrder = (CUmemcpySrcAccessOrder)0;
    batch("no order", 2, 1, stream);
    how[0].srcAccessOrder = (CUmemcpySrcAccessOrder)99;
    batch("order 99", 2, 1, stream);
    how[0].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    how[0].flags = 99;
    batch("flags of nobody", 2, 1, stream);
    how[0].flags = 0;
    to[1] = 0;
    batch("to 0", 2, 1, stream);
    CUDA_MEMCPY3D_BATCH_OP box = {};
    TRY("boxes: none", cuMemcpy3DBatchAsync_v2, 0, &box, 0, stream);
    TRY("boxes: at nowhere", cuMemcpy3DBatchAsync_v2, 1, nullptr, 0, stream);
    TRY("boxes: an empty one", cuMemcpy3DBatchAsync_v2, 1, &box, 0, stream);
    TRY("boxes: flags of nobody", cuMemcpy3DBatchAsync_v2, 1, &box, 99, stream);
    TRY("the stream after that", cuStreamSynchronize, stream);
}
