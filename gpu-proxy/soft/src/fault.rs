//! Why a launch ended early, as a GPU would report it.

use std::fmt;

/// What a kernel was about to do when an address was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Load,
    /// A store.
    Store,
    /// A read-modify-write.
    Atomic,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Load => "load",
            Access::Store => "store",
            Access::Atomic => "atomic",
        })
    }
}

/// Why a launch ended early. All of them are the guest program's doing; none is a failure of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An access outside every allocation, over the end of one, or to a freed one.
    #[error("illegal {access} of {bytes} bytes at {address:#x}")]
    IllegalAddress {
        /// The address the kernel used.
        address: u64,
        /// Length of the access.
        bytes: u32,
        /// What it was.
        access: Access,
    },
    /// An address that is no multiple of the access's size.
    #[error("misaligned {access} of {bytes} bytes at {address:#x}")]
    Misaligned {
        /// The address the kernel used.
        address: u64,
        /// Length of the access.
        bytes: u32,
        /// What it was.
        access: Access,
    },
    /// `assert()` failed in a kernel; the text is what CUDA prints about it.
    #[error("{0}")]
    Assert(String),
    /// `trap` was executed.
    #[error("the kernel trapped")]
    Trap,
    /// An indirect call to something that is no function.
    #[error("call of {0:#x}, which is no function")]
    InvalidPc(u64),
    /// An instruction that this device cannot run, reached in a form only known at run time.
    #[error("illegal instruction: {0}")]
    IllegalInstruction(&'static str),
    /// Calls nested deeper than a thread's stack.
    #[error("a thread's stack overflowed")]
    StackOverflow,
    /// All threads that are left wait for one another.
    #[error("the threads of a block wait for each other")]
    Deadlock,
    /// The configured budget of instructions was used up.
    #[error("the launch ran out of time")]
    Timeout,
    /// Grid, block or parameters that no kernel, or not this one, can be launched with.
    #[error("invalid launch: {0}")]
    InvalidLaunch(&'static str),
    /// More threads or shared memory than the kernel or the device has.
    #[error("out of resources: {0}")]
    OutOfResources(&'static str),
}

impl Fault {
    /// The CUDA driver's number for it. Source: `CUresult` of cuda.h.
    pub fn cu_result(&self) -> u32 {
        match self {
            Fault::IllegalAddress { .. } => 700,
            Fault::Misaligned { .. } => 716,
            Fault::Assert(_) => 710,
            Fault::Trap | Fault::Deadlock => 719,
            Fault::InvalidPc(_) => 718,
            Fault::IllegalInstruction(_) => 715,
            Fault::StackOverflow => 714,
            Fault::Timeout => 702,
            Fault::InvalidLaunch(_) => 1,
            Fault::OutOfResources(_) => 701,
        }
    }

    /// Whether the context is lost, so that every later call returns the same number.
    pub fn is_sticky(&self) -> bool {
        !matches!(self, Fault::InvalidLaunch(_) | Fault::OutOfResources(_))
    }
}
