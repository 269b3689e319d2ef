//! Memory that graphs allocate and free: nodes, what becomes one in a capture, what a device tells of it. How: `core/graph_memory.rs`.

use vgpu_api::{CuError, CuResult, DevicePtr, Stream};

use super::capture::no_edges;
use super::device::device;
use super::graph_nodes::add;
use super::pool::PoolProperties;
use super::virtual_memory::{AccessOf, DEVICE, Location, PINNED, accessor, ordinal_of, ready};
use crate::abi::{In, Out, Raw, Span, export};
use crate::core::contexts::Entered;
use crate::core::graphs::{Alloc, Graph, Inner, Need, Work};
use crate::core::process::{Process, process};

/// `CUgraphMem_attribute`: in use and its high mark, held and its high mark.
mod attribute {
    pub const USED: u32 = 0;
    pub const USED_HIGH: u32 = 1;
    pub const RESERVED: u32 = 2;
    pub const RESERVED_HIGH: u32 = 3;
}
/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
const READ_WRITE: u32 = 3;

/// `CUDA_MEM_ALLOC_NODE_PARAMS` and its second version.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AllocParams {
    properties: PoolProperties,
    access: u64,
    access_count: usize,
    bytes: usize,
    address: DevicePtr,
}
const _: () = assert!(size_of::<AllocParams>() == 120);
/// Where the address is told in it.
pub const ADDRESS: usize = 112;

/// What a node is to allocate.
pub struct Wanted {
    device: u32,
    bytes: u64,
    properties: PoolProperties,
    access: Box<[AccessOf]>,
}

impl Wanted {
    /// As in a capture.
    fn plain(device: u32, bytes: u64) -> Self {
        let location = Location { kind: DEVICE, id: device.cast_signed() };
        let properties = PoolProperties {
            kind: PINNED,
            handle_types: 0,
            location,
            security: 0,
            bytes_max: 0,
            usage: 0,
            reserved: [0; 54],
        };
        Self { device, bytes, properties, access: Box::default() }
    }

    /// # Errors
    /// 1, 801 for what no memory of a graph can be, 2 for more than its device has.
    pub fn of(given: &AllocParams) -> CuResult<Self> {
        let process = ready()?;
        let properties = given.properties;
        let device = match ordinal_of(process, properties.kind, properties.location) {
            // As NVIDIA's driver 580.
            Err(CuError::INVALID_DEVICE) => Err(CuError::INVALID_VALUE),
            other => other,
        }?;
        if properties.handle_types != 0 || properties.usage != 0 {
            return Err(CuError::NOT_SUPPORTED);
        }
        let access: In<AccessOf> = super::graph_work::array(given.access);
        let access: Box<[_]> = (0..given.access_count).map(|i| access.at(i)).collect::<CuResult<_>>()?;
        for AccessOf { location, flags } in &access {
            // Its own device reads and writes it, always; others can't.
            if accessor(process, *location)? != device || *flags != READ_WRITE {
                return Err(CuError::NOT_SUPPORTED);
            }
        }
        let wanted = Self { device, bytes: given.bytes as u64, properties, access };
        wanted.check(process)
    }

    fn check(self, process: &Process) -> CuResult<Self> {
        let total = process.devices.get(self.device as usize).map_or(0, |device| device.total_memory);
        match self.bytes {
            0 => Err(CuError::INVALID_VALUE),
            bytes if bytes > total => Err(CuError::OUT_OF_MEMORY),
            _ => Ok(self),
        }
    }

    /// The work of a node of `graph` that waits for `needs`.
    fn work(self, process: &'static Process, graph: &mut Graph, needs: &[Need]) -> CuResult<Work> {
        let Self { device, bytes, properties, access } = self;
        let (address, space) = graph.allocate(process, device, needs, bytes)?;
        Ok(Work::Alloc(Box::new(Alloc { address, bytes, space, properties, access })))
    }
}

/// Makes a node, whose address is given to `told`.
pub fn add_alloc(
    out: Out<u64>,
    graph: Raw,
    needs: super::graph_nodes::Needs,
    wanted: Wanted,
    told: impl FnOnce(u64) -> CuResult<()>,
) -> CuResult<()> {
    let process = process()?;
    add(out, graph, needs, |inner, graph, needs| {
        let work = wanted.work(process, inner.graph_mut(graph)?, needs)?;
        if let Work::Alloc(alloc) = &work {
            told(alloc.address)?;
        }
        Ok(work)
    })
}

/// Makes a node that frees what is at an address.
pub fn add_free(out: Out<u64>, graph: Raw, needs: super::graph_nodes::Needs, address: u64) -> CuResult<()> {
    let process = process()?;
    add(out, graph, needs, |inner, graph, _| {
        inner.graph(graph)?.check_free(process, address)?;
        Ok(Work::Free(address))
    })
}

/// The address of an allocation that a capture has taken.
pub fn captured_alloc(entered: Entered, stream: Stream, device: u32, bytes: u64) -> CuResult<Option<u64>> {
    let mut address = None;
    entered.process.graphs.captured_in(entered, stream, |inner, graph, needs| {
        let wanted = Wanted::plain(device, bytes).check(entered.process)?;
        let work = wanted.work(entered.process, inner.graph_mut(graph)?, needs)?;
        if let Work::Alloc(alloc) = &work {
            address = Some(alloc.address);
        }
        Ok(work)
    })?;
    Ok(address)
}

/// Whether a capture has taken a free.
pub fn captured_free(entered: Entered, stream: Stream, address: u64) -> CuResult<bool> {
    entered.process.graphs.captured_in(entered, stream, |inner, graph, _| {
        inner.graph(graph)?.check_free(entered.process, address)?;
        Ok(Work::Free(address))
    })
}

/// What a device number names.
fn ordinal(dev: i32) -> CuResult<(&'static Process, u32)> {
    let process = ready()?;
    Ok((process, device(process, dev)?.0))
}

fn look<T>(node: Raw, body: impl FnOnce(&Work) -> CuResult<T>) -> CuResult<T> {
    let inner: &Inner = &process()?.graphs.lock();
    body(&inner.node(node.0)?.1.work)
}

export! {
    fn cuGraphAddMemAllocNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, given: Out<AllocParams>) {
        let params = given.get()?;
        let told = |address| given.set(AllocParams { address: DevicePtr(address), ..params });
        add_alloc(out, graph, (nodes, no_edges(), count), Wanted::of(&params)?, told)
    }

    fn cuGraphAddMemFreeNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, address: DevicePtr) {
        add_free(out, graph, (nodes, no_edges(), count), address.0)
    }

    fn cuGraphMemAllocNodeGetParams(node: Raw, out: Out<AllocParams>) {
        look(node, |work| match work {
            Work::Alloc(alloc) => out.set(AllocParams {
                properties: alloc.properties,
                // Good while the node lives.
                access: alloc.access.as_ptr().expose_provenance() as u64,
                access_count: alloc.access.len(),
                bytes: usize::try_from(alloc.bytes).unwrap_or(usize::MAX),
                address: DevicePtr(alloc.address),
            }),
            _ => Err(CuError::INVALID_VALUE),
        })
    }

    fn cuGraphMemFreeNodeGetParams(node: Raw, out: Out<DevicePtr>) {
        look(node, |work| match work {
            Work::Free(address) => out.set(DevicePtr(*address)),
            _ => Err(CuError::INVALID_VALUE),
        })
    }

    fn cuDeviceGetGraphMemAttribute(dev: i32, number: u32, out: Out<u64>) {
        let (process, ordinal) = ordinal(dev)?;
        process.graph_memory.give_back(false);
        let figures = process.graph_memory.figures(ordinal);
        out.set(match number {
            attribute::USED => figures.used,
            attribute::USED_HIGH => figures.used_high,
            attribute::RESERVED => figures.reserved,
            attribute::RESERVED_HIGH => figures.reserved_high,
            _ => return Err(CuError::INVALID_VALUE),
        })
    }

    /// The high marks can be set to 0, what is held now not at all.
    fn cuDeviceSetGraphMemAttribute(dev: i32, number: u32, value: In<u64>) {
        let (process, ordinal) = ordinal(dev)?;
        match (number, value.get()?) {
            (attribute::USED_HIGH | attribute::RESERVED_HIGH, 0) => {
                process.graph_memory.reset_high(ordinal, number == attribute::USED_HIGH);
                Ok(())
            }
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    /// When the last goes that has memory it is given back, if launches are over by then: here, if they are over by now.
    fn cuDeviceGraphMemTrim(dev: i32) {
        let (process, _) = ordinal(dev)?;
        process.graph_memory.give_back(false);
        Ok(())
    }
}

/// Where an address is told in a `CUgraphNodeParams`.
pub fn tell(given: In<u8>, at: usize, address: u64) -> CuResult<()> {
    Span::at_address(given.address() + at as u64).write(8)?.copy_from_slice(&address.to_le_bytes());
    Ok(())
}
