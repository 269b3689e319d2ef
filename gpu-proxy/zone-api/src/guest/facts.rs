//! What a program may learn of its container's devices without a worker: the question of monitoring tools and of `libnvidia-ml.so.1`.
//!
//! The question is a hello whose application is [`APPLICATION`] (`idm::connect::ask`); the answer is one [`Facts`]. Over Xen
//! guest-init asks for its processes by `Ask` on the GPU stream, and gives what comes back the pids that the asking process knows.
//!
//! ```text
//!   0 head bytes u16 | 2 bytes of a device u16 | 4 bytes of a process u16 | 6 devices u16 | 8 processes u16 | 10 zero u16
//!   | 12 CUDA version u32 | 16 driver's version, 32 bytes                                                      head: 48
//!   device:  0 name, 96 bytes | 96 uuid | 112 PCI domain, bus, device 3 × u32 | 124 compute capability 2 × u16 | 128 total u64
//!   | 136 used u64 | 144 multiprocessors u32 | 148 clock kHz u32 | 152 memory clock kHz u32 | 156 memory bus bits u32
//!   | 160 flags u32: 1 ECC | 164 peers u32, a bit a device | 168 links u32                                         172
//!   process: 0 device u32 | 4 pid u32 | 8 used u64                                                                    16
//! ```
//! Little endian; texts end in zeros. Later releases append to head, device and process: a reader takes what it knows and skips the
//! rest, by the lengths that the answer begins with. What cannot be said so is another application.

/// The application of the question, `vgpuask1` in memory.
pub const APPLICATION: u64 = u64::from_le_bytes(*b"vgpuask1");
/// The longest answer, in bytes: with room for what later releases append.
pub const BYTES_MAX: usize = 48 << 10;
/// Devices of a container at most.
pub const DEVICES_MAX: usize = 16;
/// Processes told of a container at most: it has no more workers.
pub const PROCESSES_MAX: usize = 512;

const HEAD_BYTES: usize = 48;
const VERSION_BYTES: usize = 32;
const DEVICE_BYTES: usize = 172;
const NAME_BYTES: usize = 96;
const PROCESS_BYTES: usize = 16;
const ECC: u32 = 1;
const _: () = assert!(DEVICES_MAX <= u32::BITS as usize);
const _: () =
    assert!(HEAD_BYTES + DEVICES_MAX * DEVICE_BYTES + PROCESSES_MAX * PROCESS_BYTES <= BYTES_MAX / 4);

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// `cuDriverGetVersion` of the driver: 1000·major + 10·minor.
    pub cuda_version: u32,
    /// The driver's own version, as "580.95.05". Ends at 31 bytes.
    pub driver_version: String,
    /// The container's devices, by index. At most [`DEVICES_MAX`].
    pub devices: Vec<DeviceFacts>,
    /// Processes that have a worker for one of them. At most [`PROCESSES_MAX`].
    pub processes: Vec<ProcessFacts>,
}

/// One device, as the container sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceFacts {
    /// As `cuDeviceGetName` gives it. Ends at 95 bytes.
    pub name: String,
    /// The zone's own, as CUDA shows it.
    pub uuid: [u8; 16],
    /// PCI domain, bus, device: the zone's own.
    pub pci: [u32; 3],
    /// Compute capability.
    pub capability: [u16; 2],
    /// The grant, at most the device's memory, in bytes.
    pub total_bytes: u64,
    /// What the container uses of it, contexts included.
    pub used_bytes: u64,
    /// Streaming multiprocessors. 0, here and below: not known.
    pub multiprocessors: u32,
    /// The highest clock, in kHz.
    pub clock_khz: u32,
    /// The memory's, in kHz.
    pub memory_clock_khz: u32,
    /// The memory bus's width.
    pub memory_bus_bits: u32,
    /// Whether memory errors are corrected.
    pub ecc: bool,
    /// Devices of the container whose memory its kernels can reach: bit 0 is the first one's.
    pub peers: u32,
    /// NVLinks that are up, of a device that reaches others of the container by them.
    pub links: u32,
}

/// A process and its device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Index of the device.
    pub device: u32,
    /// Its pid, where the answer is read.
    pub pid: u32,
    /// Bytes in use, its context included.
    pub used_bytes: u64,
}

/// Why bytes are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an answer of {bytes} bytes with a bad {field}")]
pub struct NoFacts {
    /// How many there are.
    pub bytes: usize,
    /// What is wrong.
    pub field: &'static str,
}

impl Facts {
    /// The bytes to send: at most a quarter of [`BYTES_MAX`]. Devices, processes and letters beyond the limits are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let devices = &self.devices[..self.devices.len().min(DEVICES_MAX)];
        let processes = &self.processes[..self.processes.len().min(PROCESSES_MAX)];
        let mut out =
            Vec::with_capacity(HEAD_BYTES + devices.len() * DEVICE_BYTES + processes.len() * PROCESS_BYTES);
        for size in [HEAD_BYTES, DEVICE_BYTES, PROCESS_BYTES, devices.len(), processes.len(), 0] {
            out.extend(u16::try_from(size).unwrap_or(0).to_le_bytes());
        }
        out.extend(self.cuda_version.to_le_bytes());
        out.extend(text::<VERSION_BYTES>(&self.driver_version));
        devices.iter().for_each(|device| device.encode(&mut out));
        for ProcessFacts { device, pid, used_bytes } in processes {
            out.extend([device.to_le_bytes(), pid.to_le_bytes()].as_flattened());
            out.extend(used_bytes.to_le_bytes());
        }
        out
    }

    /// Reads an answer of this release or of a later one.
    ///
    /// # Errors
    /// [`NoFacts`]. Nothing is allocated by a length that was not compared with what is there.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoFacts> {
        let bad = |field| NoFacts { bytes: bytes.len(), field };
        let head = Block::<HEAD_BYTES>::new(bytes).ok_or(bad("head"))?;
        let [head_bytes, device_bytes, process_bytes, devices, processes] =
            [0, 2, 4, 6, 8].map(|at| usize::from(head.u16(at)));
        let long_enough =
            head_bytes >= HEAD_BYTES && device_bytes >= DEVICE_BYTES && process_bytes >= PROCESS_BYTES;
        if !long_enough || devices > DEVICES_MAX || processes > PROCESSES_MAX {
            return Err(bad("length"));
        }
        // Of 16-bit numbers: no sum here can be too large.
        let processes_at = head_bytes + devices * device_bytes;
        if bytes.len() > BYTES_MAX || bytes.len() != processes_at + processes * process_bytes {
            return Err(bad("number of devices or processes"));
        }
        let device = |block: &[u8]| Block::new(block).and_then(|block| DeviceFacts::decode(&block));
        let process = |block: &[u8]| Block::<PROCESS_BYTES>::new(block).map(|block| block.process());
        Ok(Self {
            cuda_version: head.u32(12),
            driver_version: head.text::<VERSION_BYTES>(16).ok_or(bad("driver's version"))?,
            devices: bytes[head_bytes..processes_at]
                .chunks_exact(device_bytes)
                .map(device)
                .collect::<Option<_>>()
                .ok_or(bad("device"))?,
            processes: bytes[processes_at..]
                .chunks_exact(process_bytes)
                .map(process)
                .collect::<Option<_>>()
                .ok_or(bad("process"))?,
        })
    }
}

impl DeviceFacts {
    /// `GPU-` and the bytes in five groups, as CUDA's tools write `cuDeviceGetUuid`.
    #[must_use]
    pub fn uuid_text(&self) -> String {
        let group = |from: usize, to: usize| {
            self.uuid[from..to].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
        };
        format!("GPU-{}-{}-{}-{}-{}", group(0, 4), group(4, 6), group(6, 8), group(8, 10), group(10, 16))
    }

    /// The PCI address with eight digits of domain. Source: nvml.h, `NVML_DEVICE_PCI_BUS_ID_FMT`.
    #[must_use]
    pub fn bus_id(&self) -> String {
        let [domain, bus, device] = self.pci;
        format!("{domain:08X}:{bus:02X}:{device:02X}.0")
    }

    /// With four digits of domain. Source: nvml.h, `NVML_DEVICE_PCI_BUS_ID_LEGACY_FMT`.
    #[must_use]
    pub fn bus_id_legacy(&self) -> String {
        let [domain, bus, device] = self.pci;
        format!("{domain:04X}:{bus:02X}:{device:02X}.0")
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(text::<NAME_BYTES>(&self.name));
        out.extend(self.uuid);
        self.pci.iter().for_each(|part| out.extend(part.to_le_bytes()));
        self.capability.iter().for_each(|part| out.extend(part.to_le_bytes()));
        out.extend([self.total_bytes.to_le_bytes(), self.used_bytes.to_le_bytes()].as_flattened());
        let flags = if self.ecc { ECC } else { 0 };
        let words = [
            self.multiprocessors,
            self.clock_khz,
            self.memory_clock_khz,
            self.memory_bus_bits,
            flags,
            self.peers,
            self.links,
        ];
        words.iter().for_each(|word| out.extend(word.to_le_bytes()));
    }

    fn decode(block: &Block<DEVICE_BYTES>) -> Option<Self> {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&block.0[96..112]);
        Some(Self {
            name: block.text::<NAME_BYTES>(0)?,
            uuid,
            pci: [112, 116, 120].map(|at| block.u32(at)),
            capability: [124, 126].map(|at| block.u16(at)),
            total_bytes: block.u64(128),
            used_bytes: block.u64(136),
            multiprocessors: block.u32(144),
            clock_khz: block.u32(148),
            memory_clock_khz: block.u32(152),
            memory_bus_bits: block.u32(156),
            ecc: block.u32(160) & ECC != 0,
            peers: block.u32(164),
            links: block.u32(168),
        })
    }
}

/// The part of a block that this release knows. Offsets are the constants above, so they are always inside.
struct Block<const N: usize>([u8; N]);

impl<const N: usize> Block<N> {
    fn new(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied().map(Self)
    }

    fn word<const BYTES: usize>(&self, at: usize) -> [u8; BYTES] {
        let mut word = [0; BYTES];
        word.copy_from_slice(&self.0[at..at + BYTES]);
        word
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.word(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.word(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.word(at))
    }

    /// Up to the first zero of `BYTES`. `None`: it does not end, or holds what no name holds.
    fn text<const BYTES: usize>(&self, at: usize) -> Option<String> {
        let bytes = &self.0[at..at + BYTES];
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let text = str::from_utf8(&bytes[..end]).ok()?;
        (!text.contains(char::is_control)).then(|| text.to_owned())
    }
}

impl Block<PROCESS_BYTES> {
    fn process(&self) -> ProcessFacts {
        ProcessFacts { device: self.u32(0), pid: self.u32(4), used_bytes: self.u64(8) }
    }
}

/// A text that ends in at least one zero, cut at a letter's border.
fn text<const BYTES: usize>(text: &str) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let mut end = text.len().min(BYTES - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let device = DeviceFacts {
            name: "NVIDIA H100 80GB HBM3".into(),
            uuid: *b"vgpu-cuda-device",
            pci: [0, 1, 2],
            capability: [9, 0],
            total_bytes: 8 << 30,
            used_bytes: 518 << 20,
            multiprocessors: 132,
            clock_khz: 1_980_000,
            memory_clock_khz: 2_619_000,
            memory_bus_bits: 5120,
            ecc: true,
            peers: 2,
            links: 18,
        };
        let process = |pid| ProcessFacts { device: 1, pid, used_bytes: u64::from(pid) << 32 };
        Facts {
            cuda_version: 13000,
            driver_version: "580.159.04".into(),
            devices: vec![device.clone(), DeviceFacts { ecc: false, ..device }],
            processes: vec![process(1), process(u32::MAX)],
        }
    }

    #[test]
    fn a_device_is_written_as_cudas_tools_write_it() {
        let device = DeviceFacts { pci: [0x1a, 0xb3, 0x1f], ..facts().devices.remove(0) };
        assert_eq!(device.uuid_text(), "GPU-76677075-2d63-7564-612d-646576696365");
        assert_eq!(
            (device.bus_id(), device.bus_id_legacy()),
            ("0000001A:B3:1F.0".into(), "001A:B3:1F.0".into())
        );
    }

    #[test]
    fn facts_survive_the_wire() {
        assert_eq!(Facts::decode(&facts().encode()), Ok(facts()));
        assert_eq!(Facts::decode(&Facts::default().encode()), Ok(Facts::default()));
    }

    #[test]
    fn what_is_beyond_the_limits_is_left_out() {
        let (name, version) = ("ä".repeat(100), "5".repeat(100));
        let many = Facts {
            cuda_version: 1,
            driver_version: version,
            devices: vec![DeviceFacts { name, ..DeviceFacts::default() }; DEVICES_MAX + 1],
            processes: vec![ProcessFacts { device: 0, pid: 1, used_bytes: 1 }; PROCESSES_MAX + 1],
        };
        let told = Facts::decode(&many.encode()).unwrap();
        assert_eq!((told.devices.len(), told.processes.len()), (DEVICES_MAX, PROCESSES_MAX));
        assert_eq!((told.devices[0].name.as_str(), told.driver_version.len()), (&*"ä".repeat(47), 31));
    }

    #[test]
    fn what_a_later_release_appends_is_skipped() {
        let bytes = facts().encode();
        let (head, rest) = bytes.split_at(HEAD_BYTES);
        let (devices, processes) = rest.split_at(2 * DEVICE_BYTES);
        let mut later = head.to_vec();
        let sizes = [(0, HEAD_BYTES + 4), (2, DEVICE_BYTES + 8), (4, PROCESS_BYTES + 2)];
        for (at, size) in sizes {
            later[at..at + 2].copy_from_slice(&u16::try_from(size).unwrap().to_le_bytes());
        }
        later.extend([9; 4]);
        devices.chunks(DEVICE_BYTES).for_each(|block| later.extend([block, &[8; 8]].concat()));
        processes.chunks(PROCESS_BYTES).for_each(|block| later.extend([block, &[7; 2]].concat()));
        assert_eq!(Facts::decode(&later), Ok(facts()));
    }

    #[test]
    fn every_cut_and_every_longer_answer_is_refused() {
        let bytes = facts().encode();
        for cut in 0..bytes.len() {
            assert!(Facts::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Facts::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn lengths_and_texts_that_cannot_be_are_refused() {
        // Head, device and process shorter than they are; more devices and processes than there may be; a name without an end.
        for (at, value) in [(0, 47_u16), (2, 171), (4, 15), (6, 17), (8, 513), (0, u16::MAX), (2, u16::MAX)] {
            let mut bytes = facts().encode();
            bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
            assert!(Facts::decode(&bytes).is_err(), "{value} at {at}");
        }
        for (from, byte) in [(16, b'5'), (HEAD_BYTES, b'n'), (HEAD_BYTES, 0xff), (HEAD_BYTES, b'\n')] {
            let mut bytes = facts().encode();
            let end = if byte == b'\n' { from + 1 } else { from + NAME_BYTES };
            bytes[from..end].fill(byte);
            assert!(Facts::decode(&bytes).is_err(), "{byte} from {from}");
        }
    }
}
