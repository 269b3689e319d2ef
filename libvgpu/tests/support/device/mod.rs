//! A device of a few lines, for tests of the guest's side: real memory, one image with two kernels that do what they say.

mod arena;
mod array;
mod calls;
mod context;
mod event;
mod execution;
mod gate;
mod graph;
mod green;
mod image;
mod linker;
mod memory;
mod pool;
mod references;
mod sharing;
mod stream;
mod virtual_memory;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI32};
use std::sync::{Arc, Mutex};

use idm::Region;
use vgpu_api::*;

use super::arrays::FakeArrays;
pub use gate::GATE;
use graph::FakeNode;

/// Whether the worker takes no more of the arena.
pub static ARENA_FULL: AtomicBool = AtomicBool::new(false);

/// Whether words that copies and streams are to write stay as they are, as behind work that does not end.
pub static WORDS_STAY: AtomicBool = AtomicBool::new(false);
/// So many copies that are to write a word go well before one is refused. Below 0: none is.
pub static REFUSED_AFTER: AtomicI32 = AtomicI32::new(-1);
/// Whether no event is reached.
pub static EVENTS_PENDING: AtomicBool = AtomicBool::new(false);

/// What another process has exported.
pub const THEIRS: Token = Token([7; 16]);

/// What the tests look at.
#[derive(Default)]
pub struct Seen {
    /// Names of the calls in order.
    pub calls: Vec<&'static str>,
    /// Launches in order.
    pub launches: Vec<SeenLaunch>,
    pub uploads: HashMap<u32, Vec<u8>>,
    /// Graphs in order: what each node waits for.
    pub graphs: Vec<Vec<Vec<u32>>>,
    /// Arrays, mipmapped arrays, texture and surface objects that live.
    pub array_counts: [usize; 3],
    /// What was said of texture and surface references, in order.
    pub references: Vec<String>,
}

/// One launch.
#[derive(Clone)]
pub struct SeenLaunch {
    pub shape: launch::LaunchShape,
    pub attribute_ids: Vec<u32>,
    pub params: Vec<u8>,
}

/// Copies from and to the channel's staging area.
pub trait Staging: Send {
    fn read(&self, from: Staged) -> Vec<u8>;
    fn write(&self, to: Staged, bytes: &[u8]);
    fn wake(&self);
}

pub struct FakeDevice {
    pub staging: Box<dyn Staging>,
    pub seen: Arc<Mutex<Seen>>,
    memory: BTreeMap<u64, Vec<u8>>,
    arena: Region,
    /// Parts of the arena that can be named: where they start, their length.
    parts: BTreeMap<u64, u64>,
    next: u64,
    retained: HashSet<u32>,
    /// Pairs of contexts, the first of which reaches the other's memory.
    peers: HashSet<(ContextId, ContextId)>,
    /// Green contexts: the legacy stream and how many multiprocessors.
    greens: HashMap<ContextId, (StreamHandle, u32)>,
    events: HashMap<u64, bool>,
    graphs: HashMap<u64, Vec<FakeNode>>,
    /// By number: of which graph, with which value.
    conditionals: HashMap<u64, (u64, u32)>,
    /// What can be launched of such a graph, by that graph.
    choosing: HashMap<u64, u64>,
    streams: HashSet<u64>,
    /// Places of handles in use, as a worker's slabs have them: by kind and index.
    places: HashMap<(&'static str, u64), (ContextId, u64)>,
    sticky: Option<CuError>,
    /// What was set of pools, by attribute.
    pool_values: HashMap<u32, u64>,
    arrays: FakeArrays,
    limit: u64,
    info: Vec<u8>,
    /// Uploads that can be loaded again.
    kept: HashSet<u32>,
    /// Uploads with managed variables that no block was given for.
    waiting: HashSet<u32>,
    /// Images whose kernels need a large stack.
    deep: HashSet<u64>,
    /// References of images: their place, the image.
    named: HashMap<(&'static str, u64), ImageHandle>,
    linked: Vec<u8>,
    mailbox: Option<Staged>,
    posted: u64,
    /// The worker dies at this call.
    pub ends: bool,
}

/// What memory that is mapped comes in.
pub const PIECE: u64 = 2 << 20;
/// Handles that no context takes along when it ends.
const OF_THE_PROCESS: Call = Call { context: ContextId::NONE, sync: false };

/// What a thread's stack has become after a kernel of an image that says "deep".
pub const DEEP_BYTES: i32 = 8192;

/// The limit that kills the worker when a program sets it.
pub const KILLS: u64 = 0xdead;

impl FakeDevice {
    pub fn new(staging: Box<dyn Staging>, arena: Region, seen: Arc<Mutex<Seen>>) -> Self {
        let memory = BTreeMap::from([(0x7000_0000, vec![5; 64])]);
        Self {
            staging,
            seen,
            memory,
            arena,
            parts: BTreeMap::new(),
            // Where the system puts nothing of a process by itself, which the device of these tests shares with its program.
            next: 0x2000_0000_0000,
            retained: HashSet::new(),
            peers: HashSet::new(),
            greens: HashMap::new(),
            events: HashMap::new(),
            graphs: HashMap::new(),
            conditionals: HashMap::new(),
            choosing: HashMap::new(),
            streams: HashSet::new(),
            places: HashMap::new(),
            sticky: None,
            pool_values: HashMap::new(),
            arrays: FakeArrays::default(),
            limit: 1024,
            info: Vec::new(),
            kept: HashSet::new(),
            waiting: HashSet::new(),
            deep: HashSet::new(),
            named: HashMap::new(),
            linked: Vec::new(),
            mailbox: None,
            posted: 0,
            ends: false,
        }
    }

    fn saw(&mut self, name: &'static str) -> CuResult<()> {
        self.seen.lock().unwrap().calls.push(name);
        self.sticky.map_or(Ok(()), Err)
    }

    /// As a worker: a place that is in use is refused.
    fn occupy<K: handle::Kind>(&mut self, call: Call, kind: &'static str, handle: Handle<K>) -> CuResult<()> {
        let taken = self.places.insert((kind, handle.index()), (call.context, handle.raw()));
        if taken.is_none() { Ok(()) } else { Err(CuError::INVALID_HANDLE) }
    }

    /// With its green contexts, if it is a primary one.
    fn end_context(&mut self, context: ContextId) {
        for (_, raw) in self.places.values().filter(|(owner, _)| *owner == context) {
            self.streams.remove(raw);
            self.events.remove(raw);
            self.graphs.remove(raw);
        }
        self.places.retain(|_, (owner, _)| *owner != context);
        let has_ended = |(stream, _): &(StreamHandle, u32)| !self.streams.contains(&stream.raw());
        let ended: Vec<_> = self.greens.extract_if(|_, green| has_ended(green)).collect();
        ended.iter().for_each(|(green, _)| self.end_context(*green));
        self.arrays.end_context(context);
        self.count_arrays();
    }

    fn put(&mut self, out: Staged, bytes: &[u8]) -> u64 {
        let kept = bytes.len().min(usize::try_from(out.len).unwrap());
        self.staging.write(out, &bytes[..kept]);
        bytes.len() as u64
    }
}
