//! Graphs as devices get them, and for a device without graphs of its own: kept as a list, run one node after the other.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use vgpu_api::graph::{Body, Conditional, CopyBox, GraphEdge, HostSide};
use vgpu_api::launch::LaunchAttributes;
use vgpu_api::{CuError, CuResult, Extent, MemoryOp, Memset};

use super::conditional::Condition;
use super::{Device, DeviceLaunch, Place, Raw, Side};

/// As [`super::HostFunction`], at each launch of a graph. Whoever gave it has it as long as a launch may call it: a device that has it no more
/// when it is due does nothing.
pub type GraphFunction = Arc<dyn Fn() + Send + Sync>;

/// The part of a [`super::Device`] that has to do with graphs.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Graphs {
    /// A number for a conditional node of a graph that is to be made, as kernels get it: `of` is the device's name of the graph, if it has one
    /// already. `value` and `flags` as of `cuGraphConditionalHandleCreate`.
    fn conditional_create(
        &mut self,
        context: Raw,
        of: Option<Raw>,
        value: u32,
        flags: u32,
    ) -> CuResult<(Raw, u64)>;
    /// Nothing will be made for that graph any more, if it is still there. What was instantiated of it lives on.
    fn conditionals_destroy(&mut self, of: Raw) -> CuResult<()>;
    /// A graph of these nodes, ready to be launched; `flags` as of `cuGraphInstantiate`. Of a graph with conditional nodes there is one at
    /// most.
    fn graph_instantiate(&mut self, nodes: &[DeviceNode<'_>], flags: u64) -> CuResult<Raw>;
    /// All nodes get other works; kinds, edges, bodies and contexts are the same. Conditional nodes get those of another graph, or of the same,
    /// whose numbers were made, and given to nodes, in the same order.
    fn graph_update(&mut self, graph: Raw, nodes: &[DeviceNode<'_>]) -> CuResult<()>;
    /// One node gets another work of its kind, with as large a host side.
    fn graph_set(&mut self, graph: Raw, node: u32, context: Raw, work: &DeviceWork<'_>) -> CuResult<()>;
    /// Lets a node do its work or nothing.
    fn graph_enable(&mut self, graph: Raw, node: u32, enabled: bool) -> CuResult<()>;
    /// Changes the host's side of a copy. No launch of the graph is on its way.
    fn graph_put(&mut self, graph: Raw, node: u32, offset: u64, bytes: &[u8]) -> CuResult<()>;
    /// Reads the host's side of a copy. No launch of the graph is on its way.
    fn graph_get(&mut self, graph: Raw, node: u32, offset: u64, bytes: &mut [u8]) -> CuResult<()>;
    /// Brings it to the device before its first launch.
    fn graph_upload(&mut self, place: Place, graph: Raw) -> CuResult<()>;
    /// Launches it.
    fn graph_launch(&mut self, place: Place, graph: Raw) -> CuResult<()>;
    /// Ends it; launches go on.
    fn graph_destroy(&mut self, graph: Raw) -> CuResult<()>;
}

/// One node with resolved names. What it waits for stands before it.
#[derive(Debug)]
pub struct DeviceNode<'a> {
    /// The context that it runs in.
    pub context: Raw,
    /// Where it is.
    pub body: Body,
    /// What it waits for, once each.
    pub needs: &'a [GraphEdge],
    /// What it does.
    pub work: DeviceWork<'a>,
}

/// What a node does. Addresses and lengths are checked.
pub enum DeviceWork<'a> {
    /// Nothing.
    Empty,
    /// A kernel.
    Kernel(DeviceLaunch<'a>),
    /// A set.
    Fill(Memset),
    /// A copy. The host's side is a packed buffer that the device keeps with the node, of zeros at first.
    Copy(CopyBox, HostSide),
    /// A copy with an array on one side or both. The host's side is `None`, and a buffer as of other copies.
    ArrayCopy {
        /// Where it goes.
        to: Option<Side>,
        /// Where it comes from.
        from: Option<Side>,
        /// How much.
        size: Extent,
    },
    /// Records an event.
    Record(Raw),
    /// Waits for an event.
    Wait(Raw),
    /// Calls a function of the guest's and waits for it.
    Host(GraphFunction),
    /// Writes words and waits for words.
    Words(Vec<MemoryOp>),
    /// Runs its bodies. Its number was made for the graph `of`, as those of all others in the list.
    Conditional {
        /// The device's name of the graph.
        of: Raw,
        /// What runs when.
        conditional: Conditional,
    },
}

impl DeviceWork<'_> {
    /// Its kind.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Kernel(_) => "Kernel",
            Self::Fill(_) => "Fill",
            Self::Copy(..) => "Copy",
            Self::ArrayCopy { .. } => "ArrayCopy",
            Self::Record(_) => "Record",
            Self::Wait(_) => "Wait",
            Self::Host(_) => "Host",
            Self::Words(_) => "Words",
            Self::Conditional { .. } => "Conditional",
        }
    }
}

impl fmt::Debug for DeviceWork<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The host's side of a copy, whose size the session has checked; `None` of works without one.
pub(super) fn host_buffer(work: &DeviceWork<'_>) -> CuResult<Option<Box<[u8]>>> {
    let bytes = match work {
        DeviceWork::Copy(copy, HostSide::From | HostSide::To) => copy.bytes(),
        DeviceWork::ArrayCopy { to: None, size, .. } | DeviceWork::ArrayCopy { from: None, size, .. } => {
            size.bytes()
        }
        _ => return Ok(None),
    };
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok()).ok_or(CuError::INVALID_VALUE)?;
    Ok(Some(vec![0; bytes].into_boxed_slice()))
}

/// The part of a host buffer that begins at `offset`.
pub(super) fn part(buffer: &mut [u8], offset: u64, bytes: usize) -> CuResult<&mut [u8]> {
    let start = usize::try_from(offset).map_err(|_| CuError::INVALID_VALUE)?;
    let end = start.checked_add(bytes).ok_or(CuError::INVALID_VALUE)?;
    buffer.get_mut(start..end).ok_or(CuError::INVALID_VALUE)
}

/// A graph as a list.
#[derive(Debug, Default)]
pub(super) struct Listed {
    nodes: Vec<Node>,
    /// The places of each body's nodes, in order.
    bodies: HashMap<Body, Vec<usize>>,
}

/// Finds the value of a conditional node: what it was made for, its number.
pub(super) type Find<'a> = &'a dyn Fn(Raw, u64) -> CuResult<Condition>;

/// Of a change of one node: no conditional node is changed.
const NONE: Find<'static> = &|_, _| Err(CuError::NOT_SUPPORTED);

#[derive(Debug)]
struct Node {
    context: Raw,
    enabled: bool,
    work: Work,
}

enum Work {
    Nothing,
    Kernel { function: Raw, grid: [u32; 3], block: [u32; 3], shared_bytes: u32, params: Box<[u8]> },
    Fill(Memset),
    Copy { copy: CopyBox, side: HostSide, host: Box<[u8]> },
    ArrayCopy { to: Option<Side>, from: Option<Side>, size: Extent, host: Box<[u8]> },
    Record(Raw),
    Host(GraphFunction),
    Words(Vec<MemoryOp>),
    Conditional(Conditional, Condition),
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

impl Work {
    fn new(work: &DeviceWork<'_>, find: Find<'_>) -> CuResult<Self> {
        Ok(match work {
            // What was recorded has been reached, and what stands before has run.
            DeviceWork::Empty | DeviceWork::Wait(_) => Self::Nothing,
            DeviceWork::Kernel(launch) => Self::Kernel {
                function: launch.function,
                grid: launch.grid,
                block: launch.block,
                shared_bytes: launch.shared_bytes,
                params: launch.params.into(),
            },
            DeviceWork::Fill(memset) => Self::Fill(*memset),
            DeviceWork::Copy(copy, side) => {
                Self::Copy { copy: *copy, side: *side, host: host_buffer(work)?.unwrap_or_default() }
            }
            DeviceWork::ArrayCopy { to, from, size } => Self::ArrayCopy {
                to: *to,
                from: *from,
                size: *size,
                host: host_buffer(work)?.unwrap_or_default(),
            },
            DeviceWork::Record(event) => Self::Record(*event),
            DeviceWork::Host(function) => Self::Host(function.clone()),
            DeviceWork::Words(ops) => Self::Words(ops.clone()),
            DeviceWork::Conditional { of, conditional } => {
                Self::Conditional(*conditional, find(*of, conditional.handle)?)
            }
        })
    }
}

impl Listed {
    pub(super) fn new(nodes: &[DeviceNode<'_>], find: Find<'_>) -> CuResult<Self> {
        let keep = |node: &DeviceNode<'_>| {
            Ok(Node { context: node.context, enabled: true, work: Work::new(&node.work, find)? })
        };
        let mut bodies: HashMap<Body, Vec<usize>> = HashMap::new();
        for (place, node) in nodes.iter().enumerate() {
            bodies.entry(node.body).or_default().push(place);
        }
        Ok(Self { nodes: nodes.iter().map(keep).collect::<CuResult<_>>()?, bodies })
    }

    /// All nodes get other works of their kinds.
    pub(super) fn update(&mut self, nodes: &[DeviceNode<'_>], find: Find<'_>) -> CuResult<()> {
        let works = nodes.iter().map(|node| Work::new(&node.work, find)).collect::<CuResult<Vec<_>>>()?;
        self.nodes.iter_mut().zip(works).for_each(|(node, work)| node.work = work);
        Ok(())
    }

    pub(super) fn set(&mut self, node: u32, work: &DeviceWork<'_>) -> CuResult<()> {
        let work = Work::new(work, NONE)?;
        self.node(node)?.work = work;
        Ok(())
    }

    pub(super) fn enable(&mut self, node: u32, enabled: bool) -> CuResult<()> {
        self.node(node)?.enabled = enabled;
        Ok(())
    }

    /// The host's side of a copy.
    pub(super) fn host(&mut self, node: u32, offset: u64, bytes: usize) -> CuResult<&mut [u8]> {
        match &mut self.node(node)?.work {
            Work::Copy { host, .. } | Work::ArrayCopy { host, .. } => part(host, offset, bytes),
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    fn node(&mut self, node: u32) -> CuResult<&mut Node> {
        self.nodes.get_mut(node as usize).ok_or(CuError::INVALID_VALUE)
    }

    /// Runs all of it on `device`, in order; the first error ends it.
    pub(super) fn run(&mut self, device: &mut dyn Device, stream: Option<Raw>) -> CuResult<()> {
        for node in &self.nodes {
            if let Work::Conditional(_, condition) = &node.work {
                condition.start();
            }
        }
        let Self { nodes, bodies } = self;
        run_body(nodes, bodies, Body::NONE, device, stream).map(drop)
    }
}

/// Runs the nodes of one body; whether kernels were among them. A loop without an end goes on, as a kernel without one does, until the
/// worker ends with its process; but for one that no kernel can end.
fn run_body(
    nodes: &mut [Node],
    bodies: &HashMap<Body, Vec<usize>>,
    body: Body,
    device: &mut dyn Device,
    stream: Option<Raw>,
) -> CuResult<bool> {
    let mut any_kernel = false;
    for place in bodies.get(&body).into_iter().flatten() {
        let Some(node) = nodes.get_mut(*place).filter(|node| node.enabled) else { continue };
        if let Work::Conditional(conditional, condition) = &node.work {
            let (conditional, condition) = (*conditional, condition.clone());
            let of = u32::try_from(*place).map_err(|_| CuError::INVALID_VALUE)?;
            while let Some(number) = condition.body(&conditional) {
                let has_kernels = run_body(nodes, bodies, Body::new(of, number)?, device, stream)?;
                any_kernel |= has_kernels;
                if conditional.flavor != Conditional::WHILE {
                    break;
                }
                if !has_kernels {
                    return Err(CuError::LAUNCH_TIMEOUT);
                }
            }
            continue;
        }
        any_kernel |= matches!(node.work, Work::Kernel { .. });
        node.run(device, stream)?;
    }
    Ok(any_kernel)
}

impl Node {
    fn run(&mut self, device: &mut dyn Device, stream: Option<Raw>) -> CuResult<()> {
        let place = Place { context: self.context, stream };
        match &mut self.work {
            // What it runs is not its own.
            Work::Nothing | Work::Conditional(..) => {}
            Work::Kernel { function, grid, block, shared_bytes, params } => {
                let launch = DeviceLaunch {
                    function: *function,
                    grid: *grid,
                    block: *block,
                    shared_bytes: *shared_bytes,
                    attributes: LaunchAttributes::default(),
                    params,
                };
                device.launch(place, &launch)?;
            }
            Work::Fill(memset) => device.fill(place, memset)?,
            Work::Copy { copy, side, host } => run_copy(device, place, copy, *side, host)?,
            Work::ArrayCopy { to, from, size, host } => {
                run_array_copy(device, place, (*to, *from), *size, host)?;
            }
            Work::Record(event) => device.event_record(place, *event, 0)?,
            Work::Host(function) => function(),
            Work::Words(ops) => device.stream_memory(place, ops)?,
        }
        Ok(())
    }
}

fn run_copy(
    device: &mut dyn Device,
    place: Place,
    copy: &CopyBox,
    side: HostSide,
    host: &mut [u8],
) -> CuResult<()> {
    let width = usize::try_from(copy.width).map_err(|_| CuError::INVALID_VALUE)?;
    for (to, from, packed) in copy.rows() {
        match side {
            HostSide::Neither => device.copy(place, to, from, copy.width)?,
            HostSide::From => device.write(place, to, part(host, packed, width)?)?,
            HostSide::To => device.read(place, from, part(host, packed, width)?)?,
        }
    }
    Ok(())
}

fn run_array_copy(
    device: &mut dyn Device,
    place: Place,
    sides: (Option<Side>, Option<Side>),
    size: Extent,
    host: &mut [u8],
) -> CuResult<()> {
    match sides {
        (Some(to), Some(from)) => device.copy_box(place, to, from, size),
        (Some(Side::Array(array, corner)), None) => device.array_write(place, (array, corner), size, host),
        (None, Some(Side::Array(array, corner))) => device.array_read(place, (array, corner), size, host),
        _ => Err(CuError::INVALID_VALUE),
    }
}
