//! The resolved program: what launches run.
//!
//! Start at [`compile`] and [`Op`]. Registers are slots of 64 bits, labels are indices, types have become functions over the
//! 32 lanes of a warp (`alu/`). `select*.rs` turn an instruction's words into [`Op`]s, `layout.rs` gives variables places.
//! The rule: a slot holds its value zero-extended from its register's width. Not here: running (`exec/`).

mod alu;
mod compile;
mod layout;
mod select;
mod select_convert;
mod select_float;
mod select_integer;
mod select_memory;
mod select_texture;
mod select_threads;

pub(crate) use alu::{Convert, F1, F2, F3, Lanes};
pub(crate) use compile::compile;

use crate::module::{FunctionInfo, GlobalInfo, ReferenceInfo};
use crate::texture::{Outside, Shape};

/// The value of a binary16 in the low bits.
pub(crate) fn half(bits: u64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "every binary16 is a binary32")]
    let value = <alu::F16 as alu::Codec>::take(bits & 0xffff) as f32;
    value
}

/// Generic addresses below device memory: each space but global has a window of its own, 4 GiB apart.
pub(crate) const SHARED_WINDOW: u64 = 0x1_0000_0000;
/// See [`SHARED_WINDOW`].
pub(crate) const LOCAL_WINDOW: u64 = 0x2_0000_0000;
/// See [`SHARED_WINDOW`].
pub(crate) const PARAM_WINDOW: u64 = 0x3_0000_0000;
/// Function `n` of a program has the address `CODE_WINDOW + 16 * n`.
pub(crate) const CODE_WINDOW: u64 = 0x4_0000_0000;
/// Length of a window in bytes.
pub(crate) const WINDOW_BYTES: u64 = 1 << 32;

/// A whole image, resolved.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub kernels: Vec<FunctionInfo>,
    /// Index into `functions` of each kernel.
    pub kernel_functions: Vec<usize>,
    pub globals: Vec<GlobalInfo>,
    /// Texture and surface references.
    pub references: Vec<ReferenceInfo>,
    /// First values, in the order of `globals`.
    pub initial: Vec<InitialData>,
    pub functions: Vec<Function>,
    /// The code of all functions, one after another.
    pub code: Vec<Inst>,
    /// Places that indirect branches lead to, counted while compiling.
    pub targets: usize,
}

/// A variable's first value.
#[derive(Debug, Default)]
pub(crate) struct InitialData {
    pub bytes: Vec<u8>,
    /// Offsets at which the address of a symbol is written.
    pub symbols: Vec<(u64, Symbol)>,
}

/// Something with an address that is only known when the module has its place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Symbol {
    /// A global and what is added to its address.
    Global(usize, i64),
    /// A function.
    Function(usize),
}

impl Program {
    /// The address of `symbol` when the globals lie at `addresses`.
    pub fn symbol_address(&self, symbol: Symbol, addresses: &[u64]) -> u64 {
        match symbol {
            Symbol::Global(index, offset) => addresses[index].wrapping_add_signed(offset),
            Symbol::Function(index) => function_address(index),
        }
    }
}

pub(crate) fn function_address(index: usize) -> u64 {
    CODE_WINDOW + 16 * index as u64
}

/// What a call needs to know of a function.
#[derive(Debug, Default, Clone)]
pub(crate) struct Function {
    pub kind: FunctionKind,
    /// Slots of a frame.
    pub registers: u32,
    /// Bytes of a frame for parameters: returns, then formal ones, then what its own calls need.
    pub param_bytes: u32,
    /// Bytes of a frame for local variables.
    pub local_bytes: u32,
    /// Static shared memory, its callees' included, in bytes.
    pub shared_bytes: u32,
    /// Offset and size of each formal parameter in the frame.
    pub parameters: Vec<(u32, u32)>,
    /// The same of returned values.
    pub returns: Vec<(u32, u32)>,
}

/// Where a function's code is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FunctionKind {
    /// Declared, and neither defined nor known.
    #[default]
    Missing,
    /// Index of its first instruction.
    Code(u32),
    Builtin(Builtin),
}

/// Functions that the device brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    /// `int vprintf(const char *, void *)`
    Printf,
    /// `__assertfail(message, file, line, function, size)`
    AssertFail,
    /// `void *malloc(size_t)`: there is no device heap; it returns NULL, as a full one would.
    Malloc,
    /// `free(void *)`
    Free,
    /// `cudaGraphSetConditional(handle, value)`
    SetConditional,
}

/// One instruction.
#[derive(Debug)]
pub(crate) struct Inst {
    /// The predicate's slot, and whether it is negated.
    pub guard: Option<(u32, bool)>,
    pub op: Op,
}

/// A source operand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Src {
    Reg(u32),
    Imm(u64),
    Special(Special),
    /// Address of a global, and what is added.
    Global(usize, i64),
    /// The number of a texture or surface reference.
    Reference(usize),
    /// Address in the thread's local window: offset in its frame.
    Local(u32),
    /// Address in the thread's parameter space: offset in its frame.
    Param(u32),
}

/// Special registers. Source: PTX ISA, chapter 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NwarpId,
    SmId,
    NsmId,
    GridId,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    Clock,
    Clock64,
    GlobalTimer,
    /// Where dynamic shared memory starts, in the shared space.
    DynamicShared,
    DynamicSharedBytes,
    TotalSharedBytes,
}

/// The space an access names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    Generic,
    Global,
    Shared,
    Local,
    Param,
}

/// An address: a source and what is added to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub area: Area,
    pub base: Src,
    pub offset: i64,
}

/// Parameters of a call: where the callee finds them is known from its layout, where the caller has them is here.
#[derive(Debug, Default)]
pub(crate) struct CallFrame {
    /// Offset and size in the caller's frame of each argument.
    pub arguments: Vec<(u32, u32)>,
    /// The same of returned values.
    pub returns: Vec<(u32, u32)>,
}

/// What is done with predicates across lanes or threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteKind {
    All,
    Any,
    Uni,
    Ballot,
}

/// How a shuffle finds its source lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShuffleKind {
    Up,
    Down,
    Butterfly,
    Index,
}

/// `bar.red`'s operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarReduce {
    And,
    Or,
    Count,
}

/// A register's slot and the bits it keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dst {
    pub slot: u32,
    pub mask: u64,
}

/// `tex` and `tld4`.
#[derive(Debug)]
pub(crate) struct Sample {
    pub object: Src,
    pub shape: Shape,
    /// As many as the shape has numbers; of a layered one the layer comes first.
    pub coordinates: Box<[Src]>,
    /// Binary32; else elements.
    pub floats: bool,
    pub level: Option<Src>,
    /// The channel of `tld4`.
    pub gather: Option<usize>,
    pub dst: Box<[Option<Dst>]>,
}

/// `suld.b` and `sust.b`.
#[derive(Debug)]
pub(crate) struct SurfaceAccess {
    pub object: Src,
    pub shape: Shape,
    pub coordinates: Box<[Src]>,
    /// Bytes of each value.
    pub width: u32,
    pub outside: Outside,
    pub values: SurfaceValues,
}

#[derive(Debug)]
pub(crate) enum SurfaceValues {
    Load(Box<[Option<Dst>]>),
    Store(Box<[Src]>),
}

/// What `txq` and `suq` ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// A side of the first level.
    Side(usize),
    Levels,
}

/// An operation on the lanes of a warp.
#[derive(Debug)]
pub(crate) enum Op {
    Unary {
        f: F1,
        dst: u32,
        a: Src,
    },
    Binary {
        f: F2,
        dst: u32,
        a: Src,
        b: Src,
    },
    Ternary {
        f: F3,
        dst: u32,
        a: Src,
        b: Src,
        c: Src,
    },
    Convert {
        how: Box<Convert>,
        dst: u32,
        a: Src,
    },
    /// `width` bytes for each of `dst`, one behind the other.
    Load {
        address: Address,
        width: u32,
        signed: bool,
        dst: Box<[Option<Dst>]>,
    },
    Store {
        address: Address,
        width: u32,
        values: Box<[Src]>,
    },
    /// `f(old, a, b)` takes the place of the old value.
    Atomic {
        address: Address,
        width: u32,
        f: fn(u64, u64, u64) -> u64,
        dst: Option<u32>,
        a: Src,
        b: Src,
    },
    Branch {
        target: u32,
    },
    BranchIndexed {
        index: Src,
        targets: Box<[u32]>,
    },
    Call {
        function: usize,
        frame: Box<CallFrame>,
    },
    CallIndirect {
        address: Src,
        frame: Box<CallFrame>,
    },
    Return,
    Exit,
    Trap,
    /// `bar.sync`, `bar.arrive`, `bar.red`: `count` threads, or all of the block.
    Barrier {
        id: Src,
        count: Option<Src>,
        wait: bool,
        reduce: Option<(BarReduce, u32, Src, bool)>,
    },
    BarrierWarp {
        mask: Src,
    },
    Shuffle {
        kind: ShuffleKind,
        dst: u32,
        valid: Option<u32>,
        a: Src,
        b: Src,
        c: Src,
        mask: Src,
    },
    Vote {
        kind: VoteKind,
        dst: u32,
        a: Src,
        negated: bool,
        mask: Option<Src>,
    },
    /// `match.any` and `match.all` (`valid`: its predicate).
    Match {
        all: bool,
        dst: u32,
        valid: Option<u32>,
        a: Src,
        bits: u32,
        mask: Src,
    },
    Reduce {
        f: fn(u64, u64) -> u64,
        dst: u32,
        a: Src,
        mask: Src,
    },
    /// `elect.sync`: the lowest lane of the mask.
    Elect {
        dst: Option<u32>,
        chosen: u32,
        mask: Src,
    },
    ActiveMask {
        dst: u32,
    },
    Sample(Box<Sample>),
    Surface(Box<SurfaceAccess>),
    /// Of a texture, or of a surface.
    Ask {
        surface: bool,
        question: Question,
        object: Src,
        dst: u32,
    },
    Fence,
    Nothing,
}
