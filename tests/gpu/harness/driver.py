"""The driver API by ctypes, for cases that need no framework: a context, a module, memory, and calls that may fail."""

import ctypes
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p

# Adds two vectors of 32-bit words.
ADD = b"""
.version 6.4
.target sm_75
.address_size 64
.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)
{
    .reg .pred %skip;
    .reg .u32 %i, %t, %n, %x, %y;
    .reg .u64 %a, %b, %c, %o;
    ld.param.u64 %a, [a];
    ld.param.u64 %b, [b];
    ld.param.u64 %c, [c];
    ld.param.u32 %n, [n];
    mov.u32 %i, %ctaid.x;
    mov.u32 %t, %ntid.x;
    mul.lo.u32 %i, %i, %t;
    mov.u32 %t, %tid.x;
    add.u32 %i, %i, %t;
    setp.ge.u32 %skip, %i, %n;
    @%skip bra end;
    mul.wide.u32 %o, %i, 4;
    add.u64 %a, %a, %o;
    add.u64 %b, %b, %o;
    add.u64 %c, %c, %o;
    ld.global.u32 %x, [%a];
    ld.global.u32 %y, [%b];
    add.u32 %x, %x, %y;
    st.global.u32 [%c], %x;
end:
    ret;
}
"""


class Refused(Exception):
    """A call gave an error."""

    def __init__(self, name, code):
        super().__init__(f"{name}: {code}")
        self.code = code


class Driver:
    """libcuda with the primary context of device 0 current."""

    def __init__(self):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.must("cuInit", c_uint(0))
        self.context = c_void_p()
        self.must("cuDevicePrimaryCtxRetain", byref(self.context), c_int(0))
        self.must("cuCtxSetCurrent", self.context)

    def call(self, name, *values):
        """The call's code."""
        return getattr(self.cuda, name)(*values)

    def must(self, name, *values):
        """A call that has to succeed."""
        code = self.call(name, *values)
        if code:
            raise Refused(name, code)

    def function(self, image=ADD, name=b"add"):
        """A kernel of a module made of PTX."""
        module, function = c_void_p(), c_void_p()
        self.must("cuModuleLoadData", byref(module), image)
        self.must("cuModuleGetFunction", byref(function), module, name)
        return function

    def allocate(self, size):
        """Device memory."""
        address = c_uint64()
        self.must("cuMemAlloc_v2", byref(address), c_size_t(size))
        return address

    def write(self, address, data):
        """Copies bytes to the device."""
        self.must("cuMemcpyHtoD_v2", address, data, c_size_t(len(data)))

    def read(self, address, size):
        """Copies bytes from the device."""
        data = ctypes.create_string_buffer(size)
        self.must("cuMemcpyDtoH_v2", data, address, c_size_t(size))
        return data.raw

    def launch(self, function, grid, block, *values, stream=None):
        """Launches with these parameters, each a ctypes value."""
        pointers = (c_void_p * len(values))(*[ctypes.cast(byref(value), c_void_p) for value in values])
        one = c_uint(1)
        self.must(
            "cuLaunchKernel", function, c_uint(grid), one, one, c_uint(block), one, one, c_uint(0), stream, pointers, None
        )

    def synchronize(self):
        """Waits for all work of the context."""
        self.must("cuCtxSynchronize")
