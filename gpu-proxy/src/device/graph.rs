//! Graphs as devices get them, and for a device without graphs of its own: kept as a list, run one node after the other.

use std::fmt;

use vgpu_api::graph::{CopyBox, GraphEdge, HostSide};
use vgpu_api::launch::LaunchAttributes;
use vgpu_api::{CuError, CuResult, MemoryOp, Memset};

use super::{Device, DeviceLaunch, GraphFunction, Place, Raw};

/// One node with resolved names. What it waits for stands before it.
#[derive(Debug)]
pub struct DeviceNode<'a> {
    /// The context that it runs in.
    pub context: Raw,
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
    /// Records an event.
    Record(Raw),
    /// Waits for an event.
    Wait(Raw),
    /// Calls a function of the guest's and waits for it.
    Host(GraphFunction),
    /// Writes words and waits for words.
    Words(Vec<MemoryOp>),
}

impl fmt::Debug for DeviceWork<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Kernel(_) => "Kernel",
            Self::Fill(_) => "Fill",
            Self::Copy(..) => "Copy",
            Self::Record(_) => "Record",
            Self::Wait(_) => "Wait",
            Self::Host(_) => "Host",
            Self::Words(_) => "Words",
        })
    }
}

/// The bytes of a copy that the session has checked.
pub(super) fn host_buffer(copy: &CopyBox) -> CuResult<Box<[u8]>> {
    let bytes = copy.bytes().and_then(|bytes| usize::try_from(bytes).ok());
    Ok(vec![0; bytes.ok_or(CuError::INVALID_VALUE)?].into_boxed_slice())
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
}

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
    Record(Raw),
    Host(GraphFunction),
    Words(Vec<MemoryOp>),
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

impl Work {
    fn new(work: &DeviceWork<'_>) -> CuResult<Self> {
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
            DeviceWork::Copy(copy, HostSide::Neither) => {
                Self::Copy { copy: *copy, side: HostSide::Neither, host: Box::default() }
            }
            DeviceWork::Copy(copy, side) => Self::Copy { copy: *copy, side: *side, host: host_buffer(copy)? },
            DeviceWork::Record(event) => Self::Record(*event),
            DeviceWork::Host(function) => Self::Host(function.clone()),
            DeviceWork::Words(ops) => Self::Words(ops.clone()),
        })
    }
}

impl Listed {
    pub(super) fn new(nodes: &[DeviceNode<'_>]) -> CuResult<Self> {
        let keep = |node: &DeviceNode<'_>| {
            Ok(Node { context: node.context, enabled: true, work: Work::new(&node.work)? })
        };
        Ok(Self { nodes: nodes.iter().map(keep).collect::<CuResult<_>>()? })
    }

    /// All nodes get other works of their kinds.
    pub(super) fn update(&mut self, nodes: &[DeviceNode<'_>]) -> CuResult<()> {
        let works = nodes.iter().map(|node| Work::new(&node.work)).collect::<CuResult<Vec<_>>>()?;
        self.nodes.iter_mut().zip(works).for_each(|(node, work)| node.work = work);
        Ok(())
    }

    pub(super) fn set(&mut self, node: u32, work: &DeviceWork<'_>) -> CuResult<()> {
        let work = Work::new(work)?;
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
            Work::Copy { host, .. } => part(host, offset, bytes),
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    fn node(&mut self, node: u32) -> CuResult<&mut Node> {
        self.nodes.get_mut(node as usize).ok_or(CuError::INVALID_VALUE)
    }

    /// Runs all of it on `device`, in order; the first error ends it.
    pub(super) fn run(&mut self, device: &mut dyn Device, stream: Option<Raw>) -> CuResult<()> {
        for node in self.nodes.iter_mut().filter(|node| node.enabled) {
            let place = Place { context: node.context, stream };
            match &mut node.work {
                Work::Nothing => {}
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
                Work::Record(event) => device.event_record(place, *event, 0)?,
                Work::Host(function) => function(),
                Work::Words(ops) => device.stream_memory(place, ops)?,
            }
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
