//! The linker, `cuLink*`: it runs in the worker; what it writes to places of the program is fetched.

use crate::wire::wire_struct;

/// `CUjit_option`s.
pub mod option {
    /// Threads of a block: asked for, and told.
    pub const THREADS_PER_BLOCK: u32 = 1;
    /// Told: milliseconds, as a float.
    pub const WALL_TIME: u32 = 2;
    /// A place for what the compiler says.
    pub const INFO_LOG_BUFFER: u32 = 3;
    /// Its room; told: how much of it is used.
    pub const INFO_LOG_BUFFER_BYTES: u32 = 4;
    /// A place for its errors.
    pub const ERROR_LOG_BUFFER: u32 = 5;
    /// Its room; told: how much of it is used.
    pub const ERROR_LOG_BUFFER_BYTES: u32 = 6;
    /// How many options CUDA 13.0 knows.
    pub const COUNT: u32 = 35;

    /// Whether the option is a number that means the same in the worker. Not: places of the program, and lists of names and addresses
    /// (17 to 19, 25 to 28).
    #[must_use]
    pub const fn travels(option: u32) -> bool {
        matches!(option, 0 | THREADS_PER_BLOCK | 7..=16 | 20..=24 | 29..=34)
    }
}

/// `CUjitInputType`s: cubin, PTX, fatbin, object, library, NVVM.
pub const INPUTS: u32 = 6;
/// `CU_JIT_INPUT_PTX`.
pub const INPUT_PTX: u32 = 1;
/// Options of one call at most.
pub const OPTIONS_MAX: usize = 64;
/// Bytes of one log that are kept at most.
pub const LOG_BYTES_MAX: u32 = 64 << 10;

wire_struct! {
    /// A `CUjit_option` that travels, and its value.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct JitOption {
        /// Its number.
        pub option: u32,
        /// A number, or a float's bits.
        pub value: u64,
    }
}

wire_struct! {
    /// What the linker tells beside its image.
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    pub struct LinkTold {
        /// Milliseconds that it worked.
        pub wall_ms: f32,
        /// Threads of a block that it compiled for.
        pub threads: u32,
    }
}
