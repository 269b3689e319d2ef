//! Handles that programs hold: opaque numbers, never an address, never the driver's own value.
//!
//! ```text
//! 63 | 62 | 61..57 | 56..40     | 39..0
//! 0  | 1  | kind   | generation | index
//! ```
//! Bit 62 makes it no user address, so that a mix-up with a pointer shows; without bit 63 it is a number to callers that have signed
//! words in a pointer's place (NVIDIA's Python bindings). The guest gives the numbers; the worker keeps a slab per kind and checks
//! kind, generation and index each time.
//!
//! Modules, libraries and their functions share one index space, [`kind::Image`]: a function's index is its image's
//! (24 bits) and its place in the image's list (16 bits). So a `CUkernel` passed as `CUfunction` resolves, as it must.

use std::fmt;
use std::marker::PhantomData;

use crate::result::CuError;
use crate::wire::{Reader, Wire, WireError, Writer};

const MARK: u64 = 1 << 62;
const KIND_SHIFT: u32 = 57;
const GENERATION_SHIFT: u32 = 40;
/// Number of generations before they start again.
pub const GENERATIONS: u32 = 1 << 17;
/// Number of indexes of a kind.
pub const INDEXES: u64 = 1 << GENERATION_SHIFT;
/// Number of images (modules and libraries) that may live at once.
pub const IMAGES_MAX: u64 = 1 << 24;
/// Number of functions of one image.
pub const FUNCTIONS_MAX: usize = 1 << 16;

/// What a handle names. The number is part of the wire form.
pub trait Kind: Copy + Eq + fmt::Debug + 'static {
    /// Five bits, not zero.
    const NUMBER: u8;
    /// As CUDA calls it.
    const NAME: &'static str;
    /// What a wrong handle of this kind gives: 201 for contexts, 1 for memory, pools, graphs and user objects, else 400.
    const WRONG: CuError = CuError::INVALID_HANDLE;
}

/// The kinds.
pub mod kind {
    use super::{CuError, Kind};

    macro_rules! kinds {
        ($($(#[$meta:meta])* $name:ident = $number:literal, $cuda:literal $(, $wrong:expr)?;)*) => { $(
            const _: () = assert!($number > 0 && $number < 32, "five bits");
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub struct $name;
            impl Kind for $name {
                const NUMBER: u8 = $number;
                const NAME: &'static str = $cuda;
                $(const WRONG: CuError = $wrong;)?
            }
        )* };
    }
    kinds! {
        /// `CUcontext`.
        Context = 1, "CUcontext", CuError::INVALID_CONTEXT;
        /// `CUstream`.
        Stream = 2, "CUstream";
        /// `CUevent`.
        Event = 3, "CUevent";
        /// What a `CUmodule` and a `CUlibrary` of the same index both are for the worker.
        Image = 4, "image";
        /// `CUmodule`: the guest's view of an image.
        Module = 5, "CUmodule";
        /// `CUlibrary`: the guest's view of an image.
        Library = 6, "CUlibrary";
        /// `CUfunction` and `CUkernel`: one id space.
        Function = 7, "CUfunction";
        /// `CUgreenCtx`: its number is its context's. Never travels.
        Green = 8, "CUgreenCtx", CuError::INVALID_CONTEXT;
        /// `CUdevResourceDesc`: never travels.
        ResourceDesc = 9, "CUdevResourceDesc", CuError::INVALID_VALUE;
        /// `CUmemGenericAllocationHandle`: memory without an address.
        Memory = 16, "CUmemGenericAllocationHandle", CuError::INVALID_VALUE;
        /// `CUmemoryPool`.
        Pool = 17, "CUmemoryPool", CuError::INVALID_VALUE;
        /// `CUgraph`: the guest's own.
        Graph = 20, "CUgraph", CuError::INVALID_VALUE;
        /// `CUgraphNode`: the guest's own.
        GraphNode = 21, "CUgraphNode", CuError::INVALID_VALUE;
        /// `CUgraphExec`.
        GraphExec = 22, "CUgraphExec", CuError::INVALID_VALUE;
        /// `CUarray`.
        Array = 24, "CUarray";
        /// `CUmipmappedArray`.
        Mipmap = 25, "CUmipmappedArray";
        /// `CUlinkState`.
        Linker = 26, "CUlinkState";
        /// `CUtexref`.
        TexRef = 28, "CUtexref";
        /// `CUsurfref`.
        SurfRef = 29, "CUsurfref";
        /// `CUuserObject`: never travels.
        UserObject = 27, "CUuserObject", CuError::INVALID_VALUE;
    }
}

/// A handle of kind `K`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Handle<K>(u64, PhantomData<K>);

/// `CUstream` that was created.
pub type StreamHandle = Handle<kind::Stream>;
/// `CUevent`.
pub type EventHandle = Handle<kind::Event>;
/// A module or library.
pub type ImageHandle = Handle<kind::Image>;
/// `CUgraph`.
pub type GraphHandle = Handle<kind::Graph>;
/// `CUgraphNode`.
pub type GraphNodeHandle = Handle<kind::GraphNode>;
/// `CUgraphExec`.
pub type GraphExecHandle = Handle<kind::GraphExec>;
/// `CUlinkState`.
pub type LinkerHandle = Handle<kind::Linker>;
/// `CUfunction` or `CUkernel`.
pub type FunctionHandle = Handle<kind::Function>;
/// `CUmemGenericAllocationHandle`.
pub type MemoryHandle = Handle<kind::Memory>;
/// `CUmemoryPool`.
pub type PoolHandle = Handle<kind::Pool>;
/// `CUarray`.
pub type ArrayHandle = Handle<kind::Array>;
/// `CUmipmappedArray`.
pub type MipmapHandle = Handle<kind::Mipmap>;
/// `CUtexref`.
pub type TexRefHandle = Handle<kind::TexRef>;
/// `CUsurfref`.
pub type SurfRefHandle = Handle<kind::SurfRef>;

impl<K: Kind> Handle<K> {
    /// From its parts; generation and index are cut to their width.
    #[must_use]
    pub const fn new(generation: u32, index: u64) -> Self {
        Self(
            MARK | ((K::NUMBER as u64) << KIND_SHIFT)
                | (((generation % GENERATIONS) as u64) << GENERATION_SHIFT)
                | (index % INDEXES),
            PhantomData,
        )
    }

    /// Checks a number that a program or a peer gave.
    #[must_use]
    #[inline]
    pub const fn parse(raw: u64) -> Option<Self> {
        if raw >> KIND_SHIFT == (MARK >> KIND_SHIFT | K::NUMBER as u64) {
            Some(Self(raw, PhantomData))
        } else {
            None
        }
    }

    /// As [`Handle::parse`], with the error that CUDA gives.
    /// # Errors
    /// [`Kind::WRONG`].
    #[inline]
    pub fn check(raw: u64) -> Result<Self, CuError> {
        Self::parse(raw).ok_or(K::WRONG)
    }

    /// The number that the program holds.
    #[must_use]
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// How often the index was given out before, modulo [`GENERATIONS`].
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32 % GENERATIONS
    }

    /// Its place in the slab of its kind.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.0 % INDEXES
    }

    /// The same number as another kind: only for kinds that share an index space.
    #[must_use]
    pub const fn as_kind<L: Kind>(self) -> Handle<L> {
        Handle::new(self.generation(), self.index())
    }
}

impl Handle<kind::Function> {
    /// The function at place `ordinal` of the list that the image's load returned.
    #[must_use]
    pub const fn of_image(image: ImageHandle, ordinal: u16) -> Self {
        Self::new(image.generation(), (image.index() % IMAGES_MAX) << 16 | ordinal as u64)
    }

    /// Its module or library.
    #[must_use]
    pub const fn image(self) -> ImageHandle {
        Handle::new(self.generation(), self.index() >> 16)
    }

    /// Its place in the image's list.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are meant")]
    pub const fn ordinal(self) -> u16 {
        self.index() as u16
    }
}

/// Number of graphs that may live at once, and of nodes that one may ever have: they share a node's index.
pub const GRAPHS_MAX: u64 = 1 << 20;

impl Handle<kind::GraphNode> {
    /// The node at a place of a graph.
    #[must_use]
    pub const fn of_graph(graph: GraphHandle, place: u32) -> Self {
        Self::new(graph.generation(), ((graph.index() % GRAPHS_MAX) << 20) | (place as u64 % GRAPHS_MAX))
    }

    /// Its graph.
    #[must_use]
    pub const fn graph(self) -> GraphHandle {
        Handle::new(self.generation(), self.index() >> 20)
    }

    /// Its place in the graph.
    #[must_use]
    pub const fn place(self) -> u32 {
        (self.index() % GRAPHS_MAX) as u32
    }
}

impl<K: Kind> fmt::Debug for Handle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", K::NAME, self.index(), self.generation())
    }
}

impl<K: Kind> Wire<'_> for Handle<K> {
    #[inline]
    fn size(&self) -> usize {
        8
    }
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) {
        self.0.put(writer);
    }
    /// libvgpu refuses a program's wrong handle itself, so a wrong kind here is the peer's fault. A wrong generation or
    /// index is only a stale handle: the worker answers 400.
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Self::parse(u64::take(reader)?).ok_or(WireError::BadValue(K::NAME))
    }
}

/// A handle that this call makes: the guest chose the number, the worker refuses one that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewHandle<K: Kind>(pub Handle<K>);

/// A handle that this call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoneHandle<K: Kind>(pub Handle<K>);

macro_rules! wire_handle_wrappers {
    ($($name:ident)*) => { $(
        impl<K: Kind> Wire<'_> for $name<K> {
            fn size(&self) -> usize { self.0.size() }
            fn put(&self, writer: &mut Writer<'_>) { self.0.put(writer); }
            fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> { Handle::take(reader).map(Self) }
        }
    )* };
}
wire_handle_wrappers!(NewHandle GoneHandle);

/// A stream as a call names it. The per-thread stream never travels: the guest makes an ordinary stream for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The legacy default stream of the context (`NULL` or `CU_STREAM_LEGACY`).
    Legacy,
    /// One that was created.
    Made(StreamHandle),
}

impl Wire<'_> for Stream {
    #[inline]
    fn size(&self) -> usize {
        8
    }
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Legacy => 0u64.put(writer),
            Self::Made(handle) => handle.put(writer),
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match u64::take(reader)? {
            0 => Ok(Self::Legacy),
            raw => Handle::parse(raw).map(Self::Made).ok_or(WireError::BadValue("CUstream")),
        }
    }
}

/// A context in a record's header: 0 none, 1 to [`ContextId::PRIMARY_MAX`] the primary context of device `id - 1`, above
/// that contexts that the guest made. Never given out twice in a process, so it needs no generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextId(pub u32);

impl ContextId {
    /// No context is current.
    pub const NONE: Self = Self(0);
    /// Number of devices that can be named.
    pub const PRIMARY_MAX: u32 = 64;

    /// The primary context of `device` (below [`ContextId::PRIMARY_MAX`]).
    #[must_use]
    pub const fn primary(device: u32) -> Self {
        Self(device + 1)
    }

    /// The device whose primary context this is.
    #[must_use]
    pub const fn primary_device(self) -> Option<u32> {
        if self.0 >= 1 && self.0 <= Self::PRIMARY_MAX { Some(self.0 - 1) } else { None }
    }

    /// The handle that programs hold.
    #[must_use]
    pub const fn handle(self) -> Handle<kind::Context> {
        Handle::new(0, self.0 as u64)
    }

    /// The context of a handle, if it can be one.
    #[must_use]
    pub fn of_handle(handle: Handle<kind::Context>) -> Option<Self> {
        let id = u32::try_from(handle.index()).ok()?;
        (handle.generation() == 0 && id != 0).then_some(Self(id))
    }
}

impl Wire<'_> for ContextId {
    fn size(&self) -> usize {
        4
    }
    fn put(&self, writer: &mut Writer<'_>) {
        self.0.put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        u32::take(reader).map(Self)
    }
}

#[cfg(test)]
mod tests;
