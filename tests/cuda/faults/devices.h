// Questions about devices.
#pragma once

AREA(devices, "devices") {
    int value = 0, count = 0;
    char text[64];
    size_t bytes;
    CUuuid uuid;
    CUmemoryPool pool;
    unsigned mask;
    NEEDS(cuInit, 0);
    NEEDS(cuDeviceGetCount, &count);
    TRY("below 0", cuDeviceGet, &device, -1);
    TRY("above the last", cuDeviceGet, &device, count);
    TRY("nowhere to", cuDeviceGet, nullptr, 0);
    TRY("count, nowhere to", cuDeviceGetCount, nullptr);
    device = 0;
    TRY("name, nowhere to", cuDeviceGetName, nullptr, 10, device);
    TRY("name in no bytes", cuDeviceGetName, text, 0, device);
    TRY("name in less than no bytes", cuDeviceGetName, text, -1, device);
    TRY("name in one byte", cuDeviceGetName, text, 1, device);
    TRY("name of no device", cuDeviceGetName, text, 64, 99);
    TRY("attribute 0", cuDeviceGetAttribute, &value, (CUdevice_attribute)0, device);
    TRY("attribute 9999", cuDeviceGetAttribute, &value, (CUdevice_attribute)9999, device);
    TRY("attribute of no device", cuDeviceGetAttribute, &value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 99);
    TRY("attribute, nowhere to", cuDeviceGetAttribute, nullptr, CU_DEVICE_ATTRIBUTE_WARP_SIZE, device);
    TRY("memory of no device", cuDeviceTotalMem_v2, &bytes, 99);
    TRY("memory, nowhere to", cuDeviceTotalMem_v2, nullptr, device);
    TRY("uuid of no device", cuDeviceGetUuid_v2, &uuid, 99);
    TRY("uuid, nowhere to", cuDeviceGetUuid_v2, nullptr, device);
    TRY("luid", cuDeviceGetLuid, text, &mask, device);
    TRY("by a bus number of nobody", cuDeviceGetByPCIBusId, &device, "ffff:ff:1f.0");
    TRY("by rubbish", cuDeviceGetByPCIBusId, &device, "rubbish");
    TRY("by nothing", cuDeviceGetByPCIBusId, &device, nullptr);
    device = 0;
    TRY("bus number in no bytes", cuDeviceGetPCIBusId, text, 0, device);
    TRY("bus number in 3 bytes", cuDeviceGetPCIBusId, text, 3, device);
    TRY("bus number, nowhere to", cuDeviceGetPCIBusId, nullptr, 16, device);
    TRY("peer of itself", cuDeviceCanAccessPeer, &value, device, device);
    TELL("it is one", value);
    TRY("peer of no device", cuDeviceCanAccessPeer, &value, device, 99);
    TRY("peer, nowhere to", cuDeviceCanAccessPeer, nullptr, device, device);
    TRY("link to itself", cuDeviceGetP2PAttribute, &value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, device, device);
    TRY("link of no kind", cuDeviceGetP2PAttribute, &value, (CUdevice_P2PAttribute)99, device, device);
    TRY("pool of no device", cuDeviceGetDefaultMemPool, &pool, 99);
    TRY("pool, nowhere to", cuDeviceGetDefaultMemPool, nullptr, device);
    TRY("no pool for a device", cuDeviceSetMemPool, device, nullptr);
    TRY("width of a texture, nowhere to", cuDeviceGetTexture1DLinearMaxWidth, nullptr, CU_AD_FORMAT_FLOAT, 1, device);
    TRY("width of a texture of three channels", cuDeviceGetTexture1DLinearMaxWidth, &bytes, CU_AD_FORMAT_FLOAT, 3, device);
    TRY("width of a texture of no format", cuDeviceGetTexture1DLinearMaxWidth, &bytes, (CUarray_format)99, 1, device);
    TRY("affinity of no kind", cuDeviceGetExecAffinitySupport, &value, (CUexecAffinityType)9, device);
    TRY("capability, nowhere to", cuDeviceComputeCapability, nullptr, nullptr, device);
    TRY("flush to nobody", cuFlushGPUDirectRDMAWrites, (CUflushGPUDirectRDMAWritesTarget)9, (CUflushGPUDirectRDMAWritesScope)9);
}
