//! What the software GPU says of itself. The numbers are `CUdevice_attribute` of cuda.h 13.0.
//!
//! It claims compute capability 9.0, so that programs hand it their newest PTX, and no feature that it lacks: no managed memory of
//! its own, no clusters. The limits of textures and surfaces are an H100's.

/// The device's name, as `cuDeviceGetName` returns it.
pub const NAME: &str = "vgpu soft device";
/// Compute capability: major, minor. PTX for a newer target is refused.
pub const COMPUTE_CAPABILITY: (u32, u32) = (9, 0);
/// Lanes of a warp.
pub const WARP_SIZE: u32 = 32;
/// Most threads of one block.
pub const MAX_THREADS_PER_BLOCK: u32 = 1024;
/// Most threads of a block along x, y and z.
pub const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Most blocks of a grid along x, y and z.
pub const MAX_GRID: [u32; 3] = [0x7fff_ffff, 0xffff, 0xffff];
/// Shared memory that a block may have without asking, in bytes.
pub const SHARED_BYTES: u32 = 48 << 10;
/// Shared memory that a block may have after `cuFuncSetAttribute`, in bytes.
pub const SHARED_BYTES_OPT_IN: u32 = 227 << 10;
/// Streaming multiprocessors it claims. Programs size their grids by it, so it is small.
pub const MULTIPROCESSORS: u32 = 4;
/// Attributes are known for 1 up to this.
pub const ATTRIBUTE_MAX: u32 = 147;

/// The value of device attribute `id`; 0 for what the device has not, and for an id that nobody knows.
pub fn attribute(id: u32) -> i32 {
    let value = match id {
        1 => MAX_THREADS_PER_BLOCK,
        2 => MAX_BLOCK[0],
        3 => MAX_BLOCK[1],
        4 => MAX_BLOCK[2],
        5 => MAX_GRID[0],
        6 => MAX_GRID[1],
        7 => MAX_GRID[2],
        8 => SHARED_BYTES,
        9 => 64 << 10, // constant memory
        10 => WARP_SIZE,
        11 => 0x7fff_ffff, // pitch
        12 | 82 => 65536,  // registers of a block, of a multiprocessor
        13 => 1_000_000,   // kHz: clock64 counts nanoseconds
        14 | 30 => 512,    // alignment of textures and surfaces
        16 => MULTIPROCESSORS,
        19 => 1,                      // kernels reach pinned host memory: `Memory::share`
        21 | 22 | 56 | 70 => 131_072, // textures of 1 and 2 dimensions, surfaces of 2, rows of device memory
        23 | 57 => 65536,
        24..=26 | 58..=60 => 16384, // 3 dimensions
        27 | 28 | 42 | 45 | 46 | 52 | 53 | 55 | 61 | 63 | 64 | 49 | 66 | 67 | 73 | 74 | 77 => 32768,
        29 | 43 | 62 | 65 => 2048, // layers
        47 | 48 => 8192,           // the other way to 3 dimensions; the third is 49
        54 | 68 => 2046,           // layers of cubes
        69 => 1 << 28,             // elements of linear memory
        71 => 65000,
        72 => 2_097_120,
        31 => 1, // kernels of several streams at once
        36 => 1_000_000,
        37 => 64,
        38 => 4 << 20,
        39 => 2048,
        40 => 1, // copy engines
        41 => 1, // unified addresses
        51 => 32,
        75 => COMPUTE_CAPABILITY.0,
        76 => COMPUTE_CAPABILITY.1,
        78 => 1, // stream priorities: accepted
        79 | 80 => 1,
        81 => 228 << 10,
        87 => 2, // single to double precision
        90 => 1, // a kernel can be interrupted
        95 => 1, // cooperative launch: the blocks take turns
        97 => SHARED_BYTES_OPT_IN,
        102 => 1, // memory and addresses apart
        103 => 1, // shared by descriptors
        125 => 1, // events between processes
        106 => 32,
        111 => 1 << 10,
        115 => 1,       // memory pools: made by the worker of virtual memory
        122 | 123 => 1, // writes and waits of a stream
        126 => 1,
        129 => 1,         // function pointers are the same everywhere
        134 => return -1, // no NUMA node of its own
        _ => 0,
    };
    i32::try_from(value).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_the_largest_size_fits_the_grid_and_the_warp() {
        assert_eq!(attribute(1), 1024);
        assert_eq!(attribute(1) % attribute(10), 0);
        assert!(attribute(97) > attribute(8));
        assert_eq!((attribute(75), attribute(76)), (9, 0));
    }

    #[test]
    fn an_unknown_attribute_is_zero_and_no_panic() {
        assert_eq!(attribute(0), 0);
        assert_eq!(attribute(ATTRIBUTE_MAX + 1), 0);
        assert_eq!(attribute(u32::MAX), 0);
    }
}
