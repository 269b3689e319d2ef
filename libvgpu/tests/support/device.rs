//! A device of a few lines, for tests of the guest's side: real memory, one image with two kernels that do what they say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use idm::Region;
use idm::arena::WINDOW;
use vgpu_api::graph::{Body, Conditional, GraphWork, HostSide, parse};
use vgpu_api::memory::Memset;
use vgpu_api::wire::{from_slice, to_vec};
use vgpu_api::*;

use super::arrays::FakeArrays;

/// Attributes of the fake device: plausible limits, compute capability 9.0.
fn attributes() -> Vec<i32> {
    let mut values = vec![1; 148];
    for (number, value) in [
        (1, 1024),
        (2, 1024),
        (3, 1024),
        (4, 64),
        (5, i32::MAX),
        (6, 65535),
        (7, 65535),
        (8, 49152),
        (10, 32),
        (14, 512),
        (16, 4),
        // Textures and surfaces: alignment of rows, sides, rows of device memory.
        (51, 32),
        (70, 4096),
        (71, 4096),
        (72, 65536),
        (75, 9),
        (76, 0),
        (97, 232_448),
        // Memory domains.
        (126, 4),
    ] {
        values[number] = value;
    }
    for number in (21..=29).chain(42..=43).chain(45..=49).chain(52..=68).chain([73, 74, 77]) {
        values[number] = 4096;
    }
    values
}

/// Holds the worker at its next launch, so that nothing that waits for it can return.
pub struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
}

struct GateState {
    closed: bool,
    waiting: bool,
}

impl Gate {
    pub fn close(&self) {
        self.state.lock().unwrap().closed = true;
    }

    pub fn open(&self) {
        self.state.lock().unwrap().closed = false;
        self.moved.notify_all();
    }

    /// Until the worker stands before it.
    pub fn until_reached(&self) {
        drop(self.moved.wait_while(self.state.lock().unwrap(), |state| !state.waiting).unwrap());
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        if state.closed {
            state.waiting = true;
            self.moved.notify_all();
            state = self.moved.wait_while(state, |state| state.closed).unwrap();
        }
        state.waiting = false;
    }
}

/// The gate of the one worker of a test program.
pub static GATE: Gate =
    Gate { state: Mutex::new(GateState { closed: false, waiting: false }), moved: Condvar::new() };

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

/// A node of a graph: its work as it travels, whether it does it, the host's side of a copy.
struct FakeNode {
    body: Body,
    needs: Vec<u32>,
    work: Vec<u8>,
    enabled: bool,
    host: Vec<u8>,
}

impl FakeNode {
    fn list(upload: &[u8]) -> CuResult<Vec<Self>> {
        let nodes = parse(upload)?.into_iter().map(|node| {
            let host = node.work.host_bytes().unwrap();
            let needs = node.needs.iter().map(|edge| edge.from).collect();
            let host = vec![0; usize::try_from(host).unwrap()];
            Self { body: node.body, needs, work: to_vec(&node.work), enabled: true, host }
        });
        Ok(nodes.collect())
    }
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
    events: HashMap<u64, bool>,
    graphs: HashMap<u64, Vec<FakeNode>>,
    /// By number: of which graph, with which value.
    conditionals: HashMap<u64, (u64, u32)>,
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
    /// Images whose kernels need a large stack.
    deep: HashSet<u64>,
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

/// `fill(u64 dst, u32 value, u32 count)` writes words; `fault()` makes 700 stick.
fn image_info(extra_functions: usize) -> ImageInfo {
    let function = |name: &str, params: &[(u32, u32)]| FunctionInfo {
        name: name.into(),
        params: params.iter().map(|(offset, bytes)| ParamInfo { offset: *offset, bytes: *bytes }).collect(),
        attributes: Attributes { values: vec![1024, 0, 0, 0, 16, 90, 90, 0, 49152, -1, 0, 0, 0, 0, 0, 0] },
    };
    let mut functions = vec![function("fill", &[(0, 8), (8, 4), (12, 4)]), function("fault", &[])];
    functions.extend((0..extra_functions).map(|number| function(&format!("extra_{number:060}"), &[(0, 8)])));
    let globals = vec![GlobalInfo { name: "table".into(), address: DevicePtr(0x7000_0000), bytes: 64 }];
    ImageInfo { functions, globals }
}

impl FakeDevice {
    pub fn new(staging: Box<dyn Staging>, arena: Region, seen: Arc<Mutex<Seen>>) -> Self {
        let memory = BTreeMap::from([(0x7000_0000, vec![5; 64])]);
        Self {
            staging,
            seen,
            memory,
            arena,
            parts: BTreeMap::new(),
            next: 0x7f00_0000_0000,
            retained: HashSet::new(),
            peers: HashSet::new(),
            events: HashMap::new(),
            graphs: HashMap::new(),
            conditionals: HashMap::new(),
            streams: HashSet::new(),
            places: HashMap::new(),
            sticky: None,
            pool_values: HashMap::new(),
            arrays: FakeArrays::default(),
            limit: 1024,
            info: Vec::new(),
            kept: HashSet::new(),
            deep: HashSet::new(),
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

    fn bytes(&mut self, address: DevicePtr, len: u64) -> CuResult<&mut [u8]> {
        let (start, block) = self.memory.range_mut(..=address.0).next_back().ok_or(CuError::INVALID_VALUE)?;
        let from = usize::try_from(address.0 - start).unwrap();
        block.get_mut(from..from + usize::try_from(len).unwrap()).ok_or(CuError::INVALID_VALUE)
    }

    /// Where in the arena bytes lie that can be named; `None` for an address outside of the window.
    fn pinned(&self, address: DevicePtr, len: u64) -> Option<CuResult<usize>> {
        let offset =
            address.0.checked_sub(WINDOW as u64).filter(|offset| *offset < self.arena.len() as u64)?;
        let part = self.parts.range(..=address.0).next_back();
        let inside = part.is_some_and(|(start, bytes)| address.0 + len <= start + bytes);
        Some(if inside { Ok(usize::try_from(offset).unwrap()) } else { Err(CuError::INVALID_VALUE) })
    }

    fn get(&mut self, address: DevicePtr, len: u64) -> CuResult<Vec<u8>> {
        let Some(offset) = self.pinned(address, len) else { return Ok(self.bytes(address, len)?.to_vec()) };
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.arena.read(offset?, &mut bytes);
        Ok(bytes)
    }

    fn set(&mut self, address: DevicePtr, bytes: &[u8]) -> CuResult<()> {
        match self.pinned(address, bytes.len() as u64) {
            Some(offset) => self.arena.write(offset?, bytes),
            None => self.bytes(address, bytes.len() as u64)?.copy_from_slice(bytes),
        }
        Ok(())
    }

    fn stream(&self, stream: Stream) -> CuResult<()> {
        match stream {
            Stream::Legacy => Ok(()),
            Stream::Made(handle) if self.streams.contains(&handle.raw()) => Ok(()),
            Stream::Made(_) => Err(CuError::INVALID_HANDLE),
        }
    }

    fn graph_node(&mut self, graph: GraphExecHandle, node: u32) -> CuResult<&mut FakeNode> {
        let nodes = self.graphs.get_mut(&graph.raw()).ok_or(CuError::INVALID_HANDLE)?;
        nodes.get_mut(node as usize).ok_or(CuError::INVALID_VALUE)
    }

    /// A loop's value is one less after each round, as if a kernel had set it.
    fn run_body(&mut self, call: Call, nodes: &mut [FakeNode], body: Body) -> CuResult<()> {
        let places = (0..nodes.len()).filter(|place| nodes[*place].body == body).collect::<Vec<_>>();
        for place in places.into_iter().filter(|place| nodes[*place].enabled).collect::<Vec<_>>() {
            self.run(call, &mut nodes[place])?;
            let work = nodes[place].work.clone();
            let GraphWork::Conditional(of) = from_slice::<GraphWork<'_>>(&work).unwrap() else { continue };
            let mut value = self.conditionals[&of.handle].1;
            while let Some(number) = of.body_at(value) {
                let within = Body::new(u32::try_from(place).unwrap(), number).unwrap();
                self.run_body(call, nodes, within)?;
                if of.flavor != Conditional::WHILE {
                    break;
                }
                value -= 1;
            }
        }
        Ok(())
    }

    fn run(&mut self, call: Call, node: &mut FakeNode) -> CuResult<()> {
        match from_slice::<GraphWork<'_>>(&node.work).unwrap() {
            GraphWork::Empty | GraphWork::Wait(_) | GraphWork::Conditional(_) => Ok(()),
            GraphWork::Words(ops) => self.vgpuStreamMemory(call, Stream::Legacy, ops),
            GraphWork::Host(function) => {
                self.run_in_the_guest(function);
                Ok(())
            }
            GraphWork::Kernel(launch) => self.cuLaunchKernel(call, launch),
            GraphWork::Fill(memset) => self.vgpuMemset(call, memset, Stream::Legacy),
            GraphWork::Record(event) => self.cuEventRecordWithFlags(call, event, Stream::Legacy, 0),
            GraphWork::ArrayCopy(copy) => match (copy.sides(), copy.extent()) {
                ((Some(to), Some(from)), size) => self.vgpuCopyBox(call, to, from, size, Stream::Legacy),
                ((Some(BoxSide::Array(to)), _), size) => {
                    self.with_arrays("graph", |arrays| arrays.write(to, size, &node.host))
                }
                ((_, Some(BoxSide::Array(from))), size) => {
                    node.host = self.with_arrays("graph", |arrays| arrays.read(from, size))?;
                    Ok(())
                }
                sides => panic!("{sides:?} is no copy with an array"),
            },
            GraphWork::Copy(copy, side) => copy.rows().try_for_each(|(to, from, packed)| {
                let at = usize::try_from(packed).unwrap();
                let width = usize::try_from(copy.width).unwrap();
                match side {
                    HostSide::From => {
                        self.set(DevicePtr(to), &node.host[at..at + width])?;
                    }
                    HostSide::To => {
                        node.host[at..at + width].copy_from_slice(&self.get(DevicePtr(from), copy.width)?);
                    }
                    HostSide::Neither => {
                        let bytes = self.get(DevicePtr(from), copy.width)?;
                        self.set(DevicePtr(to), &bytes)?;
                    }
                }
                Ok(())
            }),
        }
    }

    /// As a worker: a place that is in use is refused.
    fn occupy<K: handle::Kind>(&mut self, call: Call, kind: &'static str, handle: Handle<K>) -> CuResult<()> {
        let taken = self.places.insert((kind, handle.index()), (call.context, handle.raw()));
        if taken.is_none() { Ok(()) } else { Err(CuError::INVALID_HANDLE) }
    }

    fn end_context(&mut self, context: ContextId) {
        for (_, raw) in self.places.values().filter(|(owner, _)| *owner == context) {
            self.streams.remove(raw);
            self.events.remove(raw);
            self.graphs.remove(raw);
        }
        self.places.retain(|_, (owner, _)| *owner != context);
        self.arrays.end_context(context);
        self.count_arrays();
    }

    fn count_arrays(&self) {
        self.seen.lock().unwrap().array_counts = self.arrays.counts();
    }

    /// What changes the arrays, and what is left of them for tests to see.
    fn with_arrays<T>(
        &mut self,
        name: &'static str,
        change: impl FnOnce(&mut FakeArrays) -> CuResult<T>,
    ) -> CuResult<T> {
        self.saw(name)?;
        let result = change(&mut self.arrays);
        self.count_arrays();
        result
    }

    /// The rows of a side in device memory.
    fn linear_rows(place: LinearPlace, size: Extent) -> Vec<DevicePtr> {
        let row = |z: u64, y: u64| DevicePtr(place.at.0 + (z * place.height + y) * place.pitch);
        (0..size.depth).flat_map(|z| (0..size.height).map(move |y| row(z, y))).collect()
    }

    /// Has the guest run a function of the program, and waits for it.
    fn run_in_the_guest(&mut self, function: u64) {
        let mailbox = self.mailbox.expect("told before the first");
        let word = |at: usize| Staged { offset: mailbox.offset + at as u64, len: 8 };
        self.posted += 1;
        self.staging.write(word(host_function::FUNCTION), &function.to_le_bytes());
        self.staging.write(word(host_function::STATUS), &0_u64.to_le_bytes());
        self.staging.write(word(host_function::POSTED), &self.posted.to_le_bytes());
        self.staging.wake();
        while self.staging.read(word(host_function::DONE)) != self.posted.to_le_bytes() {
            std::thread::yield_now();
        }
    }

    fn put(&mut self, out: Staged, bytes: &[u8]) -> u64 {
        let kept = bytes.len().min(usize::try_from(out.len).unwrap());
        self.staging.write(out, &bytes[..kept]);
        bytes.len() as u64
    }
}

#[allow(non_snake_case, reason = "CUDA's names")]
impl Driver for FakeDevice {
    fn vgpuSnapshot(&mut self, _: Call, out: Staged) -> CuResult<u64> {
        let device = |number: u8| DeviceSnapshot {
            name: format!("fake {number}"),
            uuid: [number + 1; 16],
            pci: PciAddress { domain: 0, bus: i32::from(number) + 1, device: 0 },
            total_memory: 1 << 30,
            attributes: attributes(),
        };
        let snapshot = Snapshot {
            // Below the library's own, so that it can be told which of the two a program hears of.
            driver_version: 12090,
            priority_greatest: -5,
            priority_least: 0,
            limits: vec![1024; 10],
            devices: vec![device(0), device(1)],
            // The first reaches the second, not the other way.
            peers: Snapshot::all_peers(
                2,
                |number, device, _| if device == 0 { number.cast_signed() } else { 0 },
            ),
        };
        Ok(self.put(out, &snapshot.to_bytes()))
    }
    fn cuDevicePrimaryCtxRetain(&mut self, _: Call, device: u32, _flags: u32) -> CuResult<()> {
        self.saw("retain")?;
        assert!(self.retained.insert(device), "only the first retain travels");
        Ok(())
    }
    fn cuDevicePrimaryCtxRelease_v2(&mut self, _: Call, device: u32) -> CuResult<()> {
        self.saw("release")?;
        assert!(self.retained.remove(&device), "only the last release travels");
        self.end_context(ContextId::primary(device));
        Ok(())
    }
    fn cuDevicePrimaryCtxReset_v2(&mut self, _: Call, device: u32) -> CuResult<()> {
        self.retained.remove(&device);
        self.end_context(ContextId::primary(device));
        self.sticky = None;
        self.saw("reset")
    }
    fn cuCtxCreate_v2(&mut self, _: Call, context: ContextId, _flags: u32, _device: u32) -> CuResult<()> {
        assert!(context.0 > ContextId::PRIMARY_MAX);
        self.saw("ctx create")
    }
    fn cuCtxDestroy_v2(&mut self, _: Call, context: ContextId) -> CuResult<()> {
        self.end_context(context);
        self.saw("ctx destroy")
    }
    fn cuCtxSynchronize(&mut self, _: Call) -> CuResult<()> {
        self.saw("ctx sync")
    }
    fn cuCtxGetLimit(&mut self, _: Call, _limit: u32) -> CuResult<u64> {
        self.saw("get limit")?;
        Ok(self.limit)
    }
    fn cuCtxSetLimit(&mut self, _: Call, _limit: u32, value: u64) -> CuResult<()> {
        self.limit = value;
        self.ends = value == KILLS;
        self.saw("set limit")
    }
    fn cuCtxEnablePeerAccess(&mut self, call: Call, peer: ContextId) -> CuResult<()> {
        self.saw("peer enable")?;
        let is_new = self.peers.insert((call.context, peer));
        if is_new { Ok(()) } else { Err(CuError::PEER_ACCESS_ALREADY_ENABLED) }
    }
    fn cuCtxDisablePeerAccess(&mut self, call: Call, peer: ContextId) -> CuResult<()> {
        self.saw("peer disable")?;
        let was_there = self.peers.remove(&(call.context, peer));
        if was_there { Ok(()) } else { Err(CuError::PEER_ACCESS_NOT_ENABLED) }
    }
    fn cuMemAlloc_v2(&mut self, _: Call, bytes: u64) -> CuResult<DevicePtr> {
        self.saw("alloc")?;
        if bytes > 1 << 28 {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let address = self.next;
        self.next += (bytes + 0xffff) & !0xffff;
        self.memory.insert(address, vec![0xcd; usize::try_from(bytes).unwrap()]);
        Ok(DevicePtr(address))
    }
    fn cuMemFree_v2(&mut self, _: Call, dptr: DevicePtr) -> CuResult<()> {
        self.saw("free")?;
        self.memory.remove(&dptr.0).map(|_| ()).ok_or(CuError::INVALID_VALUE)
    }
    fn cuMemGetInfo_v2(&mut self, _: Call) -> CuResult<MemInfo> {
        let used: usize = self.memory.values().map(Vec::len).sum();
        Ok(MemInfo { free: (1 << 30) - used as u64, total: 1 << 30 })
    }
    fn cuMemcpyHtoDAsync_v2(
        &mut self,
        _: Call,
        dst: DevicePtr,
        bytes: &[u8],
        stream: Stream,
    ) -> CuResult<()> {
        self.saw("htod")?;
        self.stream(stream)?;
        self.set(dst, bytes)
    }
    fn vgpuMemcpyHtoDStaged(&mut self, _: Call, dst: DevicePtr, src: Staged, stream: Stream) -> CuResult<()> {
        self.saw("htod staged")?;
        self.stream(stream)?;
        let bytes = self.staging.read(src);
        self.set(dst, &bytes)
    }
    fn vgpuMemcpyDtoHStaged(&mut self, _: Call, dst: Staged, src: DevicePtr, stream: Stream) -> CuResult<()> {
        self.saw("dtoh")?;
        self.stream(stream)?;
        let bytes = self.get(src, dst.len)?;
        self.staging.write(dst, &bytes);
        Ok(())
    }
    fn cuMemcpyDtoDAsync_v2(
        &mut self,
        _: Call,
        dst: DevicePtr,
        src: DevicePtr,
        bytes: u64,
        _: Stream,
    ) -> CuResult<()> {
        self.saw("dtod")?;
        let copy = self.get(src, bytes)?;
        self.set(dst, &copy)
    }
    fn vgpuMemset(&mut self, _: Call, memset: Memset, _: Stream) -> CuResult<()> {
        self.saw("memset")?;
        let element = &memset.value.to_le_bytes()[..memset.element_bytes as usize];
        let bytes = element.repeat(usize::try_from(memset.width).unwrap());
        for row in 0..memset.rows {
            self.set(DevicePtr(memset.dst.0 + row * memset.pitch), &bytes)?;
        }
        Ok(())
    }
    fn vgpuArenaAdd(&mut self, _: Call, address: DevicePtr, bytes: u64) -> CuResult<()> {
        self.saw("arena add")?;
        if ARENA_FULL.load(Ordering::Relaxed) {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let end = address.0 + bytes;
        assert_eq!((address.0 % 4096, bytes % 4096), (0, 0), "whole pages");
        assert!(address.0 >= WINDOW as u64 && end <= WINDOW as u64 + self.arena.len() as u64, "inside");
        let before = self.parts.range(..end).next_back();
        assert!(before.is_none_or(|(start, bytes)| start + bytes <= address.0), "apart");
        self.parts.insert(address.0, bytes);
        Ok(())
    }
    fn vgpuArenaRemove(&mut self, _: Call, address: DevicePtr) -> CuResult<()> {
        self.saw("arena remove")?;
        self.parts.remove(&address.0).map(drop).ok_or(CuError::INVALID_VALUE)
    }
    fn vgpuArenaSettle(&mut self, _: Call) -> CuResult<()> {
        self.saw("arena settle")
    }
    fn cuMemcpyAsync(
        &mut self,
        _: Call,
        dst: DevicePtr,
        src: DevicePtr,
        bytes: u64,
        stream: Stream,
    ) -> CuResult<()> {
        self.saw("copy by address")?;
        self.stream(stream)?;
        let copy = self.get(src, bytes)?;
        self.set(dst, &copy)
    }
    fn vgpuMemcpyThenWait(
        &mut self,
        _: Call,
        dst: DevicePtr,
        src: DevicePtr,
        bytes: u64,
        stream: Stream,
    ) -> CuResult<()> {
        self.saw("copy, then wait")?;
        self.stream(stream)?;
        if REFUSED_AFTER.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let copy = self.get(src, bytes)?;
        self.set(dst, &copy)
    }
    fn vgpuMemcpyThenWrite(
        &mut self,
        _: Call,
        dst: DevicePtr,
        src: DevicePtr,
        bytes: u64,
        stream: Stream,
        CopyWord { at, count }: CopyWord,
    ) -> CuResult<()> {
        self.saw("copy, then write")?;
        self.pinned(at, 8).unwrap()?;
        let copied = self.stream(stream).and_then(|()| {
            if REFUSED_AFTER.fetch_sub(1, Ordering::Relaxed) == 0 {
                return Err(CuError::INVALID_VALUE);
            }
            let copy = self.get(src, bytes)?;
            self.set(dst, &copy)
        });
        if copied.is_ok() && WORDS_STAY.load(Ordering::Relaxed) {
            return Ok(());
        }
        let code = copied.err().map_or(0, CuError::code);
        self.set(at, &(u64::from(code) << 32 | u64::from(count)).to_le_bytes())?;
        copied
    }
    fn vgpuArrayCreate(
        &mut self,
        call: Call,
        array: NewHandle<kind::Array>,
        shape: ArrayShape,
    ) -> CuResult<()> {
        self.with_arrays("array create", |arrays| arrays.create(call.context, array.0, shape))
    }
    fn cuArrayDestroy(&mut self, _: Call, array: GoneHandle<kind::Array>) -> CuResult<()> {
        self.with_arrays("array destroy", |arrays| arrays.destroy(array.0))
    }
    fn vgpuMipmapCreate(
        &mut self,
        call: Call,
        mipmap: NewHandle<kind::Mipmap>,
        shape: ArrayShape,
        levels: u32,
    ) -> CuResult<()> {
        self.with_arrays("mipmap create", |arrays| {
            arrays.create_mipmap(call.context, mipmap.0, shape, levels)
        })
    }
    fn vgpuMipmapLevel(
        &mut self,
        _: Call,
        array: NewHandle<kind::Array>,
        mipmap: MipmapHandle,
        level: u32,
    ) -> CuResult<()> {
        self.with_arrays("mipmap level", |arrays| arrays.level(array.0, mipmap, level))
    }
    fn cuMipmappedArrayDestroy(&mut self, _: Call, mipmap: GoneHandle<kind::Mipmap>) -> CuResult<()> {
        self.with_arrays("mipmap destroy", |arrays| arrays.destroy_mipmap(mipmap.0))
    }
    fn vgpuArrayWrite(
        &mut self,
        _: Call,
        to: ArrayPlace,
        size: Extent,
        bytes: &[u8],
        stream: Stream,
    ) -> CuResult<()> {
        self.stream(stream)?;
        self.with_arrays("array write", |arrays| arrays.write(to, size, bytes))
    }
    fn vgpuArrayWriteStaged(
        &mut self,
        _: Call,
        to: ArrayPlace,
        size: Extent,
        src: Staged,
        stream: Stream,
    ) -> CuResult<()> {
        self.stream(stream)?;
        let bytes = self.staging.read(src);
        self.with_arrays("array write staged", |arrays| arrays.write(to, size, &bytes))
    }
    fn vgpuArrayReadStaged(
        &mut self,
        _: Call,
        dst: Staged,
        from: ArrayPlace,
        size: Extent,
        stream: Stream,
    ) -> CuResult<()> {
        self.stream(stream)?;
        let bytes = self.with_arrays("array read", |arrays| arrays.read(from, size))?;
        assert_eq!(bytes.len() as u64, dst.len);
        self.staging.write(dst, &bytes);
        Ok(())
    }
    fn vgpuCopyBox(
        &mut self,
        _: Call,
        to: BoxSide,
        from: BoxSide,
        size: Extent,
        stream: Stream,
    ) -> CuResult<()> {
        self.stream(stream)?;
        let width = usize::try_from(size.width_bytes).unwrap();
        let bytes = match from {
            BoxSide::Array(place) => self.with_arrays("box", |arrays| arrays.read(place, size))?,
            BoxSide::Linear(place) => {
                let mut bytes = Vec::new();
                for row in Self::linear_rows(place, size) {
                    bytes.extend_from_slice(self.bytes(row, size.width_bytes)?);
                }
                bytes
            }
        };
        match to {
            BoxSide::Array(place) => self.with_arrays("box", |arrays| arrays.write(place, size, &bytes)),
            BoxSide::Linear(place) => {
                for (row, bytes) in Self::linear_rows(place, size).into_iter().zip(bytes.chunks(width)) {
                    self.bytes(row, size.width_bytes)?.copy_from_slice(bytes);
                }
                Ok(())
            }
        }
    }
    fn vgpuTextureCreate(&mut self, call: Call, texture: Texture) -> CuResult<Object> {
        let array = match texture.resource {
            texture::Resource::Array(array) => Some(array),
            _ => None,
        };
        self.with_arrays("texture create", |arrays| arrays.create_object(call.context, array))
    }
    fn cuTexObjectDestroy(&mut self, call: Call, texture: Object) -> CuResult<()> {
        self.with_arrays("texture destroy", |arrays| arrays.destroy_object(call.context, texture))
    }
    fn vgpuSurfaceCreate(&mut self, call: Call, array: ArrayHandle) -> CuResult<Object> {
        self.with_arrays("surface create", |arrays| arrays.create_object(call.context, Some(array)))
    }
    fn cuSurfObjectDestroy(&mut self, call: Call, surface: Object) -> CuResult<()> {
        self.with_arrays("surface destroy", |arrays| arrays.destroy_object(call.context, surface))
    }
    fn cuDeviceGetTexture1DLinearMaxWidth(
        &mut self,
        _: Call,
        device: u32,
        format: u32,
        channels: u32,
    ) -> CuResult<u64> {
        self.saw("linear max")?;
        Ok(u64::from(1000 * device + 10 * format + channels))
    }
    fn vgpuUpload(&mut self, _: Call, upload: u32, total: u64, offset: u64, bytes: &[u8]) -> CuResult<()> {
        let mut seen = self.seen.lock().unwrap();
        let image = seen.uploads.entry(upload).or_default();
        assert_eq!(
            (image.len() as u64, total >= offset + bytes.len() as u64),
            (offset, true),
            "chunks in order"
        );
        image.extend_from_slice(bytes);
        Ok(())
    }
    fn vgpuImageLoad(
        &mut self,
        call: Call,
        image_handle: NewHandle<kind::Image>,
        _: ImageKind,
        upload: u32,
        keep: bool,
        out: Staged,
    ) -> CuResult<u64> {
        self.saw("image load")?;
        let image = self.seen.lock().unwrap().uploads[&upload].clone();
        if image.starts_with(b".broken") {
            return Err(CuError::INVALID_PTX);
        }
        self.occupy(call, "image", image_handle.0)?;
        // An image that says "many" has so many functions that the reply needs several pieces.
        let many = if image.windows(4).any(|word| word == b"many") { 40_000 } else { 0 };
        let mut info = image_info(many);
        let says = |word: &str| image.windows(word.len()).any(|bytes| bytes == word.as_bytes());
        if says("deep") {
            info.functions.iter_mut().for_each(|function| function.attributes.values[3] = DEEP_BYTES);
            self.deep.insert(image_handle.0.raw());
        }
        // One that says "lazy" has functions whose attributes are to be asked for, one that says "constant" no variable.
        if says("lazy") {
            info.functions.iter_mut().for_each(|function| function.attributes = Attributes::default());
        }
        if says("constant") {
            info.globals.clear();
        }
        self.info = info.to_bytes();
        if keep {
            self.kept.insert(upload);
        }
        let info = self.info.clone();
        Ok(self.put(out, &info))
    }
    fn vgpuImageLoadAgain(
        &mut self,
        call: Call,
        image: NewHandle<kind::Image>,
        _: ImageKind,
        upload: u32,
    ) -> CuResult<()> {
        self.saw("image load again")?;
        assert!(self.kept.contains(&upload), "never kept, or let go of");
        self.occupy(call, "image", image.0)
    }
    fn vgpuUploadForget(&mut self, _: Call, upload: u32) -> CuResult<()> {
        assert!(self.kept.remove(&upload), "kept");
        self.saw("upload forget")
    }
    fn vgpuImageInfo(&mut self, _: Call, _: ImageHandle, offset: u64, out: Staged) -> CuResult<()> {
        let rest = self.info[usize::try_from(offset).unwrap()..].to_vec();
        self.put(out, &rest);
        Ok(())
    }
    /// A megabyte behind where they were loaded, on any other device.
    fn vgpuImageVariables(&mut self, _: Call, _: ImageHandle, first: u64, out: Staged) -> CuResult<()> {
        self.saw("image variables")?;
        let addresses = image_info(0).globals.into_iter().map(|global| global.address.0 + (1 << 20));
        let bytes: Vec<u8> =
            addresses.skip(usize::try_from(first).unwrap()).flat_map(u64::to_le_bytes).collect();
        self.put(out, &bytes);
        Ok(())
    }
    fn vgpuImageLog(&mut self, _: Call, out: Staged) -> CuResult<u64> {
        Ok(self.put(out, b"line 1: no such instruction"))
    }
    fn vgpuImageUnload(&mut self, _: Call, image: GoneHandle<kind::Image>) -> CuResult<()> {
        self.places.remove(&("image", image.0.index()));
        self.saw("image unload")
    }
    fn vgpuFunctionAttributes(&mut self, _: Call, function: FunctionHandle) -> CuResult<Attributes> {
        self.saw("function attributes")?;
        let mut attributes = image_info(0).functions[0].attributes.clone();
        if self.deep.contains(&function.image().raw()) {
            attributes.values[3] = DEEP_BYTES;
        }
        Ok(attributes)
    }
    fn cuFuncSetAttribute(&mut self, _: Call, _: FunctionHandle, _: u32, _: i32) -> CuResult<()> {
        self.saw("set attribute")
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        &mut self,
        _: Call,
        _: FunctionHandle,
        threads: u32,
        _: u64,
        _: u32,
    ) -> CuResult<u32> {
        self.saw("occupancy")?;
        Ok(2048 / threads)
    }
    fn cuOccupancyAvailableDynamicSMemPerBlock(
        &mut self,
        _: Call,
        _: FunctionHandle,
        blocks: u32,
        _: u32,
    ) -> CuResult<u64> {
        Ok(u64::from(98_304 / blocks))
    }
    fn cuOccupancyMaxActiveClusters(&mut self, _: Call, launch: Launch<'_>) -> CuResult<u32> {
        Ok(if launch.attributes.is_empty() { 0 } else { 7 })
    }
    fn cuOccupancyMaxPotentialClusterSize(&mut self, _: Call, _: Launch<'_>) -> CuResult<u32> {
        Ok(8)
    }
    fn cuLaunchKernel(&mut self, _: Call, launch: Launch<'_>) -> CuResult<()> {
        GATE.pass();
        self.saw("launch")?;
        self.stream(launch.shape.stream)?;
        let attribute_ids = launch.attributes.iter().map(|attribute| attribute.id).collect();
        let seen = SeenLaunch { shape: launch.shape.clone(), attribute_ids, params: launch.params.to_vec() };
        self.seen.lock().unwrap().launches.push(seen);
        if self.deep.contains(&launch.shape.function.image().raw()) {
            self.limit = self.limit.max(u64::from(DEEP_BYTES.unsigned_abs()));
        }
        match launch.shape.function.ordinal() {
            0 => {
                let word = |at: usize| u32::from_le_bytes(launch.params[at..at + 4].try_into().unwrap());
                let dst = DevicePtr(u64::from_le_bytes(launch.params[..8].try_into().unwrap()));
                let (value, count) = (word(8).to_le_bytes(), u64::from(word(12)));
                if self.set(dst, &value.repeat(usize::try_from(count).unwrap())).is_err() {
                    self.sticky = Some(CuError::ILLEGAL_ADDRESS);
                }
            }
            _ => self.sticky = Some(CuError::ILLEGAL_ADDRESS),
        }
        self.sticky.map_or(Ok(()), Err)
    }
    fn cuStreamCreateWithPriority(
        &mut self,
        call: Call,
        stream: NewHandle<kind::Stream>,
        _: u32,
        _: i32,
    ) -> CuResult<()> {
        self.streams.insert(stream.0.raw());
        self.occupy(call, "stream", stream.0)?;
        self.saw("stream create")
    }
    fn cuStreamDestroy_v2(&mut self, _: Call, stream: GoneHandle<kind::Stream>) -> CuResult<()> {
        self.streams.remove(&stream.0.raw());
        self.places.remove(&("stream", stream.0.index()));
        self.saw("stream destroy")
    }
    fn cuStreamSynchronize(&mut self, _: Call, stream: Stream) -> CuResult<()> {
        self.saw("stream sync")?;
        self.stream(stream)
    }
    fn cuStreamQuery(&mut self, _: Call, _: Stream) -> CuResult<()> {
        self.saw("stream query")
    }
    fn cuStreamWaitEvent(&mut self, _: Call, _: Stream, _: EventHandle, _: u32) -> CuResult<()> {
        self.saw("wait event")
    }
    fn cuEventCreate(&mut self, call: Call, event: NewHandle<kind::Event>, _: u32) -> CuResult<()> {
        self.events.insert(event.0.raw(), false);
        self.occupy(call, "event", event.0)?;
        self.saw("event create")
    }
    fn cuEventDestroy_v2(&mut self, _: Call, event: GoneHandle<kind::Event>) -> CuResult<()> {
        self.events.remove(&event.0.raw());
        self.places.remove(&("event", event.0.index()));
        self.saw("event destroy")
    }
    fn cuEventRecordWithFlags(&mut self, _: Call, event: EventHandle, _: Stream, _: u32) -> CuResult<()> {
        self.events.insert(event.raw(), true);
        self.saw("event record")
    }
    fn cuCtxRecordEvent(&mut self, _: Call, event: EventHandle) -> CuResult<()> {
        self.events.insert(event.raw(), true);
        self.saw("ctx record")
    }
    fn cuCtxWaitEvent(&mut self, _: Call, _: EventHandle) -> CuResult<()> {
        self.saw("ctx wait")
    }
    fn cuEventQuery(&mut self, _: Call, event: EventHandle) -> CuResult<()> {
        let pending = EVENTS_PENDING.load(Ordering::Relaxed);
        match self.events.get(&event.raw()) {
            Some(true) if pending => Err(CuError::NOT_READY),
            Some(_) => Ok(()),
            None => Err(CuError::INVALID_HANDLE),
        }
    }
    fn cuEventSynchronize(&mut self, call: Call, event: EventHandle) -> CuResult<()> {
        EVENTS_PENDING.store(false, Ordering::Relaxed);
        self.cuEventQuery(call, event)
    }
    fn cuEventElapsedTime_v2(&mut self, _: Call, start: EventHandle, end: EventHandle) -> CuResult<f32> {
        match (self.events.get(&start.raw()), self.events.get(&end.raw())) {
            (Some(true), Some(true)) if EVENTS_PENDING.load(Ordering::Relaxed) => Err(CuError::NOT_READY),
            (Some(true), Some(true)) => Ok(1.5),
            _ => Err(CuError::INVALID_HANDLE),
        }
    }
    fn vgpuConditionalCreate(&mut self, _: Call, graph: u64, value: u32, _: u32) -> CuResult<u64> {
        self.saw("conditional create")?;
        let number = 1000 + self.conditionals.len() as u64;
        self.conditionals.insert(number, (graph, value));
        Ok(number)
    }
    fn vgpuConditionalsEnd(&mut self, _: Call, graph: u64) -> CuResult<()> {
        assert!(self.conditionals.values().any(|(of, _)| *of == graph), "no number was made for it");
        self.saw("conditionals end")
    }
    fn vgpuGraphInstantiate(
        &mut self,
        call: Call,
        graph: NewHandle<kind::GraphExec>,
        upload: u32,
        _: u64,
    ) -> CuResult<()> {
        self.saw("graph instantiate")?;
        let bytes = self.seen.lock().unwrap().uploads.remove(&upload).unwrap();
        let nodes = FakeNode::list(&bytes)?;
        self.seen.lock().unwrap().graphs.push(nodes.iter().map(|node| node.needs.clone()).collect());
        self.occupy(call, "graph", graph.0)?;
        self.graphs.insert(graph.0.raw(), nodes);
        Ok(())
    }
    fn vgpuGraphUpdate(&mut self, _: Call, graph: GraphExecHandle, upload: u32) -> CuResult<()> {
        self.saw("graph update")?;
        let bytes = self.seen.lock().unwrap().uploads.remove(&upload).unwrap();
        let new = FakeNode::list(&bytes)?;
        let old = self.graphs.get_mut(&graph.raw()).ok_or(CuError::INVALID_HANDLE)?;
        assert_eq!(old.len(), new.len(), "the library compares first");
        old.iter_mut().zip(new).for_each(|(old, new)| old.work = new.work);
        Ok(())
    }
    fn vgpuGraphNodeSet(
        &mut self,
        _: Call,
        graph: GraphExecHandle,
        node: u32,
        work: GraphWork<'_>,
    ) -> CuResult<()> {
        self.saw("graph set")?;
        self.graph_node(graph, node)?.work = to_vec(&work);
        Ok(())
    }
    fn vgpuGraphNodeEnable(
        &mut self,
        _: Call,
        graph: GraphExecHandle,
        node: u32,
        enabled: bool,
    ) -> CuResult<()> {
        self.saw("graph enable")?;
        self.graph_node(graph, node)?.enabled = enabled;
        Ok(())
    }
    fn vgpuGraphHostPut(
        &mut self,
        _: Call,
        graph: GraphExecHandle,
        node: u32,
        at: u64,
        src: Staged,
    ) -> CuResult<()> {
        self.saw("graph put")?;
        let (bytes, at) = (self.staging.read(src), usize::try_from(at).unwrap());
        self.graph_node(graph, node)?.host[at..at + bytes.len()].copy_from_slice(&bytes);
        Ok(())
    }
    fn vgpuGraphHostGet(
        &mut self,
        _: Call,
        graph: GraphExecHandle,
        node: u32,
        at: u64,
        out: Staged,
    ) -> CuResult<()> {
        self.saw("graph get")?;
        let (at, len) = (usize::try_from(at).unwrap(), usize::try_from(out.len).unwrap());
        let bytes = self.graph_node(graph, node)?.host[at..at + len].to_vec();
        self.staging.write(out, &bytes);
        Ok(())
    }
    fn cuGraphUpload(&mut self, _: Call, _: GraphExecHandle, _: Stream) -> CuResult<()> {
        self.saw("graph upload")
    }
    fn cuGraphLaunch(&mut self, call: Call, graph: GraphExecHandle, _: Stream) -> CuResult<()> {
        self.saw("graph launch")?;
        let mut nodes = self.graphs.remove(&graph.raw()).ok_or(CuError::INVALID_HANDLE)?;
        let result = self.run_body(call, &mut nodes, Body::NONE);
        self.graphs.insert(graph.raw(), nodes);
        result
    }
    fn cuGraphExecDestroy(&mut self, _: Call, graph: GoneHandle<kind::GraphExec>) -> CuResult<()> {
        self.graphs.remove(&graph.0.raw());
        self.places.remove(&("graph", graph.0.index()));
        self.saw("graph destroy")
    }
    /// Says what it was made of, as far as there is room.
    fn vgpuTensorMapEncode(&mut self, _: Call, spec: TensorSpec) -> CuResult<TensorMap> {
        self.saw("tensor map")?;
        assert!(spec.is_whole(), "{spec:?}");
        if spec.address == DevicePtr(0) {
            return Err(CuError::INVALID_VALUE);
        }
        let (bytes, mut map) = (to_vec(&spec), [0; 128]);
        let kept = bytes.len().min(128);
        map[..kept].copy_from_slice(&bytes[..kept]);
        Ok(TensorMap(map))
    }
    fn cuTensorMapReplaceAddress(
        &mut self,
        _: Call,
        map: TensorMap,
        address: DevicePtr,
    ) -> CuResult<TensorMap> {
        self.saw("tensor map address")?;
        let mut map = map.0;
        map[8..16].copy_from_slice(&address.0.to_le_bytes());
        Ok(TensorMap(map))
    }
    fn cuLinkCreate_v2(
        &mut self,
        call: Call,
        linker: NewHandle<kind::Linker>,
        options: Vec<JitOption>,
        info_bytes: u32,
        error_bytes: u32,
    ) -> CuResult<()> {
        assert!(options.iter().all(|each| link::option::travels(each.option)), "{options:?}");
        assert!(info_bytes.max(error_bytes) <= link::LOG_BYTES_MAX);
        self.occupy(call, "linker", linker.0)?;
        self.linked.clear();
        self.saw("link create")
    }
    fn cuLinkAddData_v2(
        &mut self,
        _: Call,
        _: LinkerHandle,
        _input: u32,
        upload: u32,
        name: String,
        _: Vec<JitOption>,
    ) -> CuResult<()> {
        self.saw("link add")?;
        let bytes = self.seen.lock().unwrap().uploads.remove(&upload).ok_or(CuError::INVALID_VALUE)?;
        if bytes.windows(6).any(|word| word == b"broken") {
            return Err(CuError::INVALID_PTX);
        }
        self.linked.extend_from_slice(name.as_bytes());
        self.linked.extend_from_slice(&bytes);
        Ok(())
    }
    fn cuLinkComplete(&mut self, _: Call, _: LinkerHandle) -> CuResult<u64> {
        self.saw("link complete")?;
        Ok(self.linked.len() as u64)
    }
    fn vgpuLinkImage(&mut self, _: Call, _: LinkerHandle, offset: u64, out: Staged) -> CuResult<()> {
        let rest = self.linked[usize::try_from(offset).unwrap()..].to_vec();
        self.put(out, &rest);
        Ok(())
    }
    fn vgpuLinkLog(&mut self, _: Call, _: LinkerHandle, errors: bool, out: Staged) -> CuResult<u64> {
        let log: &[u8] = if errors { b"line 1: no such instruction" } else { b"linked" };
        Ok(self.put(out, log).min(out.len))
    }
    fn vgpuLinkTold(&mut self, _: Call, _: LinkerHandle) -> CuResult<LinkTold> {
        Ok(LinkTold { wall_ms: 1.5, threads: 256 })
    }
    fn cuLinkDestroy(&mut self, _: Call, linker: GoneHandle<kind::Linker>) -> CuResult<()> {
        self.places.remove(&("linker", linker.0.index()));
        self.saw("link destroy")
    }
    fn vgpuHostFunctions(&mut self, _: Call, mailbox: Staged) -> CuResult<()> {
        assert!(self.mailbox.replace(mailbox).is_none(), "told once");
        self.saw("host functions")
    }
    fn cuLaunchHostFunc(&mut self, _: Call, stream: Stream, function: u64) -> CuResult<()> {
        self.saw("host function")?;
        self.stream(stream)?;
        self.run_in_the_guest(function);
        Ok(())
    }
    fn cuStreamAddCallback(&mut self, _: Call, stream: Stream, function: u64) -> CuResult<()> {
        self.saw("callback")?;
        self.stream(stream)?;
        self.run_in_the_guest(function);
        Ok(())
    }
    fn vgpuPrinted(&mut self, _: Call) -> CuResult<Printed> {
        Ok(Printed::default())
    }
    fn cuMemGetAllocationGranularity(&mut self, _: Call, _device: u32, _option: u32) -> CuResult<u64> {
        self.saw("granularity")?;
        Ok(PIECE)
    }
    /// Small ones are memory at once: what is mapped there is the guest's and the worker's to know.
    fn cuMemAddressReserve(&mut self, _: Call, bytes: u64, _: u64, _: DevicePtr) -> CuResult<DevicePtr> {
        self.saw("reserve")?;
        let address = self.next.next_multiple_of(PIECE);
        self.next = address + bytes;
        if bytes <= 1 << 28 {
            self.memory.insert(address, vec![0; usize::try_from(bytes).unwrap()]);
        }
        Ok(DevicePtr(address))
    }
    fn cuMemAddressFree(&mut self, _: Call, at: DevicePtr, _bytes: u64) -> CuResult<()> {
        self.memory.remove(&at.0);
        self.saw("unreserve")
    }
    fn cuMemCreate(
        &mut self,
        _: Call,
        memory: NewHandle<kind::Memory>,
        bytes: u64,
        _device: u32,
    ) -> CuResult<()> {
        self.saw("create")?;
        if bytes > 1 << 28 {
            return Err(CuError::OUT_OF_MEMORY);
        }
        self.occupy(OF_THE_PROCESS, "memory", memory.0)
    }
    fn cuMemRelease(&mut self, _: Call, memory: GoneHandle<kind::Memory>) -> CuResult<()> {
        self.places.remove(&("memory", memory.0.index()));
        self.saw("memory release")
    }
    fn cuMemMap(&mut self, _: Call, _at: DevicePtr, _bytes: u64, memory: MemoryHandle) -> CuResult<()> {
        assert!(self.places.contains_key(&("memory", memory.index())), "it was created");
        self.saw("map")
    }
    fn cuMemUnmap(&mut self, _: Call, _at: DevicePtr, _bytes: u64) -> CuResult<()> {
        self.saw("unmap")
    }
    fn cuMemSetAccess(&mut self, _: Call, _: DevicePtr, _: u64, device: u32, _: Access) -> CuResult<()> {
        self.saw(if device == 0 { "set access" } else { "set access of the second" })
    }
    fn cuMemPoolCreate(
        &mut self,
        _: Call,
        pool: NewHandle<kind::Pool>,
        _device: u32,
        _max: u64,
    ) -> CuResult<()> {
        self.saw("pool create")?;
        self.occupy(OF_THE_PROCESS, "pool", pool.0)
    }
    fn cuMemPoolDestroy(&mut self, _: Call, pool: GoneHandle<kind::Pool>) -> CuResult<()> {
        self.places.remove(&("pool", pool.0.index()));
        self.saw("pool destroy")
    }
    fn vgpuEventExport(&mut self, _: Call, event: EventHandle) -> CuResult<Token> {
        assert!(self.places.contains_key(&("event", event.index())), "it was made");
        self.saw("event export").map(|()| Token([6; 16]))
    }
    fn vgpuEventImport(&mut self, call: Call, event: NewHandle<kind::Event>, token: Token) -> CuResult<()> {
        self.saw("event import")?;
        if token == THEIRS { self.cuEventCreate(call, event, 2) } else { Err(CuError::INVALID_VALUE) }
    }
    fn vgpuMemoryExport(&mut self, _: Call, memory: MemoryHandle) -> CuResult<Token> {
        assert!(self.places.contains_key(&("memory", memory.index())), "it was created");
        self.saw("memory export").map(|()| THEIRS)
    }
    fn vgpuIpcExport(&mut self, _: Call, at: DevicePtr) -> CuResult<Token> {
        assert!(self.memory.contains_key(&at.0), "an allocation starts there");
        self.saw("ipc export").map(|()| Token([5; 16]))
    }
    /// Memory of two pieces.
    fn vgpuMemoryImport(
        &mut self,
        call: Call,
        memory: NewHandle<kind::Memory>,
        token: Token,
    ) -> CuResult<u64> {
        self.saw("memory import")?;
        if token != THEIRS {
            return Err(CuError::INVALID_VALUE);
        }
        self.occupy(call, "memory", memory.0).map(|()| 4 << 20)
    }
    fn vgpuIpcOpen(&mut self, call: Call, token: Token) -> CuResult<DevicePtr> {
        self.saw("ipc open")?;
        if token == THEIRS { self.cuMemAlloc_v2(call, 4096) } else { Err(CuError::INVALID_VALUE) }
    }
    fn vgpuIpcClose(&mut self, call: Call, at: DevicePtr) -> CuResult<()> {
        self.saw("ipc close")?;
        self.cuMemFree_v2(call, at)
    }
    fn cuMemPoolTrimTo(&mut self, _: Call, _pool: PoolHandle, _keep: u64) -> CuResult<()> {
        self.saw("trim")
    }
    fn cuMemPoolGetAttribute(&mut self, _: Call, _: PoolHandle, attribute: u32) -> CuResult<u64> {
        Ok(self.pool_values.get(&attribute).copied().unwrap_or(1))
    }
    fn cuMemPoolSetAttribute(&mut self, _: Call, _: PoolHandle, attribute: u32, value: u64) -> CuResult<()> {
        self.pool_values.insert(attribute, value);
        Ok(())
    }
    fn cuMemPoolSetAccess(&mut self, _: Call, _: PoolHandle, device: u32, access: Access) -> CuResult<()> {
        // What a driver may refuse.
        if access == Access::Read {
            return Err(CuError::INVALID_DEVICE);
        }
        self.saw(if device == 0 { "pool access of 0" } else { "pool access of another" })
    }
    fn cuMemAllocFromPoolAsync(
        &mut self,
        call: Call,
        bytes: u64,
        pool: PoolHandle,
        stream: Stream,
    ) -> CuResult<DevicePtr> {
        self.stream(stream)?;
        assert!(self.places.contains_key(&("pool", pool.index())), "it was created");
        self.cuMemAlloc_v2(call, bytes)
    }
    fn cuMemFreeAsync(&mut self, call: Call, dptr: DevicePtr, stream: Stream) -> CuResult<()> {
        self.saw("free in order")?;
        self.stream(stream)?;
        self.cuMemFree_v2(call, dptr)
    }
    fn vgpuStreamSetAttribute(&mut self, _: Call, stream: Stream, _: u32, value: &[u8]) -> CuResult<()> {
        assert_eq!(value.len(), 64);
        self.stream(stream)?;
        self.saw("set stream attribute")
    }
    fn vgpuStreamMemory(&mut self, _: Call, stream: Stream, ops: Vec<MemoryOp>) -> CuResult<()> {
        self.saw("stream memory")?;
        self.stream(stream)?;
        for op in ops.into_iter().filter(|op| op.kind != MemoryOpKind::Barrier) {
            let mut word = [0; 8];
            let len = op.bytes as usize;
            word[..len].copy_from_slice(&self.get(op.at, len as u64)?);
            if op.kind == MemoryOpKind::Write && WORDS_STAY.load(Ordering::Relaxed) {
                // Not yet.
            } else if op.kind == MemoryOpKind::Write {
                self.set(op.at, &op.value.to_le_bytes()[..len])?;
            } else if !op.is_met(u64::from_le_bytes(word)) {
                return Err(CuError::TIMEOUT);
            }
        }
        Ok(())
    }
}
