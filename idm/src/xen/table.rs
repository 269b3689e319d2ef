//! The one table of the kernel calls that this module makes: number, field offsets and array of each.
//!
//! Source: Linux 6.12, `include/uapi/xen/{gntalloc,gntdev,evtchn}.h` and `include/uapi/linux/udmabuf.h`, printed for x86-64.
//! Rule: no other file holds a number or an offset. Xen's calls are `_IOC(_IOC_NONE, …)`: no direction bits, but the size of
//! the struct with a one-element array. An argument is a slice of `u64` (aligned for every field) read and written by offset,
//! so a call needs no struct of its own; [`call`](super::ioctl::call) checks that the slice holds what the kernel touches.

/// Bytes of a page of grants; Xen's interfaces know no other size.
pub const PAGE_BYTES: usize = 4096;

/// The array at the end of an argument: `count` elements, from the end of the fixed part on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    /// Offset of the u32 that says how many elements follow.
    pub count_at: usize,
    /// Bytes of an element.
    pub element_bytes: usize,
}

/// One kernel call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Op {
    /// As the kernel's header calls it; shown in errors.
    pub name: &'static str,
    pub number: u32,
    /// Bytes before the array, or of the whole argument.
    pub fixed_bytes: usize,
    /// Bytes that the kernel copies whatever the count is.
    pub least_bytes: usize,
    pub tail: Option<Tail>,
}

const fn op(name: &'static str, number: u32, bytes: usize) -> Op {
    Op { name, number, fixed_bytes: bytes, least_bytes: bytes, tail: None }
}

/// `/dev/xen/gntalloc`: pages of this domain, granted to another.
pub(super) mod gntalloc {
    use super::{Op, Tail, op};

    pub const PATH: &str = "/dev/xen/gntalloc";
    /// 0 u16 domid, 2 u16 flags, 4 u32 count, 8 u64 index (out), 16 u32 references[count] (out).
    /// The kernel copies 24 bytes in and out even for one page.
    pub const ALLOC_GREF: Op = Op {
        name: "IOCTL_GNTALLOC_ALLOC_GREF",
        number: 0x18_4705,
        fixed_bytes: 16,
        least_bytes: 24,
        tail: Some(Tail { count_at: ALLOC_COUNT, element_bytes: 4 }),
    };
    pub const ALLOC_DOMID: usize = 0;
    pub const ALLOC_FLAGS: usize = 2;
    pub const ALLOC_COUNT: usize = 4;
    pub const ALLOC_INDEX: usize = 8;
    pub const ALLOC_REFS: usize = 16;
    pub const FLAG_WRITABLE: u16 = 1;
    /// 0 u64 index, 8 u32 count, 12 padding.
    pub const DEALLOC_GREF: Op = op("IOCTL_GNTALLOC_DEALLOC_GREF", 0x10_4706, 16);
    /// As [`super::notify`].
    pub const SET_UNMAP_NOTIFY: Op = op("IOCTL_GNTALLOC_SET_UNMAP_NOTIFY", 0x10_4707, 16);
}

/// `/dev/xen/gntdev`: pages of other domains, mapped here; and own pages granted through a dma-buf.
pub(super) mod gntdev {
    use super::{Op, Tail, op};

    pub const PATH: &str = "/dev/xen/gntdev";
    /// 0 u32 count, 4 padding, 8 u64 index (out), 16 {u32 domid, u32 reference}[count].
    pub const MAP_GRANT_REF: Op = Op {
        name: "IOCTL_GNTDEV_MAP_GRANT_REF",
        number: 0x18_4700,
        fixed_bytes: 16,
        least_bytes: 24,
        tail: Some(Tail { count_at: MAP_COUNT, element_bytes: 8 }),
    };
    pub const MAP_COUNT: usize = 0;
    pub const MAP_INDEX: usize = 8;
    pub const MAP_REFS: usize = 16;
    /// 0 u64 index, 8 u32 count, 12 padding.
    pub const UNMAP_GRANT_REF: Op = op("IOCTL_GNTDEV_UNMAP_GRANT_REF", 0x10_4701, 16);
    pub const UNMAP_INDEX: usize = 0;
    pub const UNMAP_COUNT: usize = 8;
    /// As [`super::notify`].
    pub const SET_UNMAP_NOTIFY: Op = op("IOCTL_GNTDEV_SET_UNMAP_NOTIFY", 0x10_4707, 16);
    /// 0 u32 dma-buf, 4 u32 count, 8 u32 domid, 12 u32 reserved (0), 16 u32 references[count] (out).
    pub const DMABUF_IMP_TO_REFS: Op = Op {
        name: "IOCTL_GNTDEV_DMABUF_IMP_TO_REFS",
        number: 0x14_470b,
        fixed_bytes: 16,
        least_bytes: 20,
        tail: Some(Tail { count_at: IMP_COUNT, element_bytes: 4 }),
    };
    pub const IMP_FD: usize = 0;
    pub const IMP_COUNT: usize = 4;
    pub const IMP_DOMID: usize = 8;
    pub const IMP_REFS: usize = 16;
    /// 0 u32 dma-buf, 4 u32 reserved (0).
    pub const DMABUF_IMP_RELEASE: Op = op("IOCTL_GNTDEV_DMABUF_IMP_RELEASE", 0x08_470c, 8);
}

/// SET_UNMAP_NOTIFY of both devices: 0 u64 index of the byte, 8 u32 action, 12 u32 port.
pub(super) mod notify {
    pub const INDEX: usize = 0;
    pub const ACTION: usize = 8;
    pub const PORT: usize = 12;
    pub const CLEAR_BYTE: u32 = 1;
    pub const SEND_EVENT: u32 = 2;
}

/// `/dev/xen/evtchn`: event channels.
pub(super) mod evtchn {
    use super::{Op, op};

    pub const PATH: &str = "/dev/xen/evtchn";
    /// 0 u32 remote domain, 4 u32 remote port; returns the local port.
    pub const BIND_INTERDOMAIN: Op = op("IOCTL_EVTCHN_BIND_INTERDOMAIN", 0x8_4501, 8);
    pub const INTERDOMAIN_DOMID: usize = 0;
    pub const INTERDOMAIN_PORT: usize = 4;
    /// 0 u32 remote domain; returns the port.
    pub const BIND_UNBOUND_PORT: Op = op("IOCTL_EVTCHN_BIND_UNBOUND_PORT", 0x4_4502, 4);
    /// 0 u32 port.
    pub const NOTIFY: Op = op("IOCTL_EVTCHN_NOTIFY", 0x4_4504, 4);
    /// No argument. Empties the descriptor's ring and clears the overflow error; unbinds nothing.
    pub const RESET: Op = op("IOCTL_EVTCHN_RESET", 0x4505, 0);
    /// 0 u16 domid.
    pub const RESTRICT_DOMID: Op = op("IOCTL_EVTCHN_RESTRICT_DOMID", 0x2_4506, 2);
}

/// `/dev/udmabuf`: a dma-buf of a memfd's pages.
pub(super) mod udmabuf {
    use super::{Op, op};

    pub const PATH: &str = "/dev/udmabuf";
    /// 0 u32 memfd, 4 u32 flags, 8 u64 offset, 16 u64 size; returns the dma-buf. `_IOW`, unlike Xen's own.
    pub const CREATE: Op = op("UDMABUF_CREATE", 0x4018_7542, 24);
    pub const CREATE_FD: usize = 0;
    pub const CREATE_FLAGS: usize = 4;
    pub const CREATE_OFFSET: usize = 8;
    pub const CREATE_SIZE: usize = 16;
    pub const FLAG_CLOEXEC: u32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `_IOC(dir, type, nr, size)` of Linux: what each number must be made of.
    fn ioc(direction: u32, kind: u8, number: u32, bytes: u32) -> u32 {
        direction << 30 | bytes << 16 | u32::from(kind) << 8 | number
    }

    fn offset_and_number(op: Op, direction: u32, kind: u8, number: u32, struct_bytes: u32, literal: u32) {
        assert_eq!(op.number, literal, "{}", op.name);
        assert_eq!(op.number, ioc(direction, kind, number, struct_bytes), "{}", op.name);
        assert!(op.least_bytes <= struct_bytes as usize, "{}", op.name);
        if let Some(tail) = op.tail {
            assert!(op.fixed_bytes + tail.element_bytes <= struct_bytes as usize, "{}", op.name);
        } else {
            assert_eq!(op.fixed_bytes, struct_bytes as usize, "{}", op.name);
        }
    }

    #[test]
    fn every_number_is_the_kernels() {
        const W: u32 = 1;
        for (op, direction, kind, nr, bytes, literal) in [
            (gntalloc::ALLOC_GREF, 0, b'G', 5, 24, 0x184705),
            (gntalloc::DEALLOC_GREF, 0, b'G', 6, 16, 0x104706),
            (gntalloc::SET_UNMAP_NOTIFY, 0, b'G', 7, 16, 0x104707),
            (gntdev::MAP_GRANT_REF, 0, b'G', 0, 24, 0x184700),
            (gntdev::UNMAP_GRANT_REF, 0, b'G', 1, 16, 0x104701),
            (gntdev::SET_UNMAP_NOTIFY, 0, b'G', 7, 16, 0x104707),
            (gntdev::DMABUF_IMP_TO_REFS, 0, b'G', 11, 20, 0x14470b),
            (gntdev::DMABUF_IMP_RELEASE, 0, b'G', 12, 8, 0x08470c),
            (evtchn::BIND_INTERDOMAIN, 0, b'E', 1, 8, 0x84501),
            (evtchn::BIND_UNBOUND_PORT, 0, b'E', 2, 4, 0x44502),
            (evtchn::NOTIFY, 0, b'E', 4, 4, 0x44504),
            (evtchn::RESET, 0, b'E', 5, 0, 0x4505),
            (evtchn::RESTRICT_DOMID, 0, b'E', 6, 2, 0x24506),
            (udmabuf::CREATE, W, b'u', 0x42, 24, 0x40187542),
        ] {
            offset_and_number(op, direction, kind, nr, bytes, literal);
        }
    }

    #[test]
    fn every_offset_is_the_kernels() {
        let offsets = [
            (gntalloc::ALLOC_DOMID, 0),
            (gntalloc::ALLOC_FLAGS, 2),
            (gntalloc::ALLOC_COUNT, 4),
            (gntalloc::ALLOC_INDEX, 8),
            (gntalloc::ALLOC_REFS, 16),
            (gntdev::MAP_COUNT, 0),
            (gntdev::MAP_INDEX, 8),
            (gntdev::MAP_REFS, 16),
            (gntdev::UNMAP_INDEX, 0),
            (gntdev::UNMAP_COUNT, 8),
            (gntdev::IMP_FD, 0),
            (gntdev::IMP_COUNT, 4),
            (gntdev::IMP_DOMID, 8),
            (gntdev::IMP_REFS, 16),
            (notify::INDEX, 0),
            (notify::ACTION, 8),
            (notify::PORT, 12),
            (evtchn::INTERDOMAIN_DOMID, 0),
            (evtchn::INTERDOMAIN_PORT, 4),
            (udmabuf::CREATE_FD, 0),
            (udmabuf::CREATE_FLAGS, 4),
            (udmabuf::CREATE_OFFSET, 8),
            (udmabuf::CREATE_SIZE, 16),
        ];
        for (line, (ours, kernels)) in offsets.into_iter().enumerate() {
            assert_eq!(ours, kernels, "line {line}");
        }
    }
}
