//! The tree of a PTX text. It borrows the text.

/// A PTX text.
#[derive(Debug, Default)]
pub(crate) struct Source<'a> {
    pub variables: Vec<Variable<'a>>,
    pub functions: Vec<Function<'a>>,
    /// `.target …, texmode_independent`: a texture reference says nothing of how it reads.
    pub has_samplers_apart: bool,
}

/// Where a variable lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Const,
    Shared,
    Local,
    Param,
    /// `.global .texref`: no memory, a name for what the host binds. So is the next.
    TexRef,
    /// `.global .surfref`.
    SurfRef,
    /// `.global .samplerref`: of code that has textures and samplers apart.
    SamplerRef,
}

/// A type of PTX: a letter's meaning and a width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ty {
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
    Pred,
}

impl Ty {
    /// The type written as `word`, without its dot.
    pub fn from_word(word: &str) -> Option<Ty> {
        Some(match word {
            "b8" => Ty::B8,
            "b16" => Ty::B16,
            "b32" => Ty::B32,
            "b64" => Ty::B64,
            "u8" => Ty::U8,
            "u16" => Ty::U16,
            "u32" => Ty::U32,
            "u64" => Ty::U64,
            "s8" => Ty::S8,
            "s16" => Ty::S16,
            "s32" => Ty::S32,
            "s64" => Ty::S64,
            "f16" => Ty::F16,
            "f16x2" => Ty::F16x2,
            "bf16" => Ty::Bf16,
            "bf16x2" => Ty::Bf16x2,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            "pred" => Ty::Pred,
            _ => return None,
        })
    }

    /// Its size in memory in bytes.
    pub fn bytes(self) -> u32 {
        match self {
            Ty::B8 | Ty::U8 | Ty::S8 | Ty::Pred => 1,
            Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::Bf16 => 2,
            Ty::B32 | Ty::U32 | Ty::S32 | Ty::F32 | Ty::F16x2 | Ty::Bf16x2 => 4,
            Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => 8,
        }
    }

    /// Its width in bits.
    pub fn bits(self) -> u32 {
        self.bytes() * 8
    }

    pub fn is_signed(self) -> bool {
        matches!(self, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }

    pub fn is_float(self) -> bool {
        matches!(self, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 | Ty::F32 | Ty::F64)
    }
}

/// A variable or a parameter.
#[derive(Debug, Clone)]
pub(crate) struct Variable<'a> {
    pub name: &'a str,
    pub space: Space,
    pub ty: Ty,
    /// In bytes; a power of two.
    pub align: u32,
    /// In bytes; 0 for an array without a length (dynamic shared memory).
    pub bytes: u64,
    pub initial: Vec<Initial<'a>>,
    /// `.attribute(.managed)`.
    pub managed: bool,
    pub line: u32,
}

/// One element of an initializer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Initial<'a> {
    /// Its bits, cut to the element's width.
    Bits(u64),
    /// The address of a symbol, and what is added to it.
    Symbol(&'a str, i64),
}

/// A `.entry` or `.func`.
#[derive(Debug)]
pub(crate) struct Function<'a> {
    pub name: &'a str,
    pub is_kernel: bool,
    pub returns: Vec<Variable<'a>>,
    pub parameters: Vec<Variable<'a>>,
    /// `None` for a declaration.
    pub body: Option<Vec<Statement<'a>>>,
    /// Product of `.maxntid` or `.reqntid`.
    pub max_threads: Option<u32>,
    pub line: u32,
}

/// One statement of a body.
#[derive(Debug)]
pub(crate) enum Statement<'a> {
    /// `{ … }`: a scope of its own.
    Block(Vec<Statement<'a>>),
    Label(&'a str),
    /// `.reg .b32 %r<5>`: the name, and how many are numbered from 0 (`None`: just the name).
    Registers {
        ty: Ty,
        name: &'a str,
        count: Option<u32>,
        line: u32,
    },
    Variable(Variable<'a>),
    /// `name: .branchtargets a, b;`
    Targets {
        name: &'a str,
        labels: Vec<&'a str>,
        line: u32,
    },
    Instruction(Instruction<'a>),
}

/// One instruction, its words not yet understood.
#[derive(Debug)]
pub(crate) struct Instruction<'a> {
    pub line: u32,
    /// The predicate's name, and whether it is negated.
    pub guard: Option<(&'a str, bool)>,
    /// `add.rn.f32` as written.
    pub words: &'a str,
    pub operands: Vec<Operand<'a>>,
}

/// One operand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand<'a> {
    /// A register, variable, label or function; `!` before a predicate is `negated`.
    Name { name: &'a str, negated: bool },
    /// `symbol+4`.
    Offset(&'a str, i64),
    /// An integer, sign-extended to 64 bits.
    Integer(u64),
    /// `0f…`: bits of a binary32.
    Single(u32),
    /// `0d…` or a decimal: bits of a binary64.
    Double(u64),
    /// `[name+8]`.
    Memory(&'a str, i64),
    /// `[4096]`.
    Absolute(u64),
    /// `[object, {x, y}]` of textures and surfaces.
    Texel(&'a str, Vec<Operand<'a>>),
    /// `{a, b}`.
    Vector(Vec<Operand<'a>>),
    /// `(a, b)`, of calls.
    Group(Vec<Operand<'a>>),
    /// `a|p`.
    Pair(&'a str, &'a str),
}
