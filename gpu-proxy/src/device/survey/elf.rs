//! What machine code (a cubin) says of its variables and kernels: how much device memory they take, what they are called, what parameters
//! they have.
//!
//! ```text
//! file:    0 "\x7fELF" | 4 class (2: 64 bits) | 40 section headers at, u64 | 58 bytes of one, u16 | 60 count, u16 | 62 names in, u16
//! section: 0 name u32 | 4 type u32 | 8 flags u64 | 24 offset u64 | 32 bytes u64 | 40 link u32 | 44 info u32 | 48 align u64; the count is
//!          here (32) if it is 0 above
//! symbol:  0 name u32 | 4 info u8 | 5 other u8 (of a function 16: a kernel; of a variable 4: managed) | 6 section u16 | 8 value u64 | 16 bytes u64
//! section .nv.info.KERNEL, entries: 0 format u8 (4: bytes follow) | 1 attribute u8 | 2 value, or how many bytes, u16 | bytes
//!   attributes 0x17, 0x45, a parameter: 4 ordinal u16 | 6 offset u16 | 8 u32, the size in its high 14, or its low 24 bits
//! ```
//! The bytes are the guest's: each offset is checked, and what cannot be read is not there. Source: the ELF-64 object file format; what is
//! NVIDIA's own is what ptxas of CUDA 13.0 writes.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;

use vgpu_api::ParamInfo;

const MAGIC: &[u8] = b"\x7fELF\x02";
const SECTION_BYTES: usize = 64;
pub(super) const SYMBOL_BYTES: usize = 24;
pub(super) const TYPE_SYMBOLS: u32 = 2;
pub(super) const TYPE_NOBITS: u32 = 8;
pub(super) const FLAG_ALLOC: u64 = 2;
const FLAG_EXEC: u64 = 4;
pub(super) const SYMBOL_OBJECT: u8 = 1;
const SYMBOL_FUNCTION: u8 = 2;
/// Of a function's other byte, and of a variable's.
const KERNEL: u8 = 16;
pub(super) const MANAGED: u8 = 4;
const BYTES_FOLLOW: u8 = 4;
const PARAMETER: u8 = 0x17;
const LONG_PARAMETER: u8 = 0x45;
/// How the names of sections with variables begin.
const VARIABLES: [&[u8]; 2] = [b".nv.global", b".nv.constant"];
/// More than any GPU's shared memory of a block: what is larger lies in device memory, whatever it is called.
const SHARED_BYTES_MAX: u64 = 256 << 10;
/// Names that are taken: each is a question to the driver.
const NAMES_MAX: usize = 1 << 16;
const NAME_BYTES_MAX: usize = 64 << 10;

pub(super) struct Section {
    name: usize,
    pub kind: u32,
    pub flags: u64,
    pub offset: u64,
    pub bytes: u64,
    pub link: usize,
    pub info: usize,
    pub align: u64,
}

struct Symbol<'a> {
    /// The section of its name, and where it begins there.
    name: (&'a Section, usize),
    kind: u8,
    other: u8,
    section: usize,
    bytes: u64,
}

/// Machine code whose section headers lie inside of it.
pub struct Elf<'a> {
    bytes: &'a [u8],
    sections: Vec<Section>,
    names: usize,
}

impl<'a> Elf<'a> {
    /// `None`: it is no such file.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(MAGIC) || usize::from(half(bytes, 58)?) != SECTION_BYTES {
            return None;
        }
        let headers = bytes.get(usize::try_from(long(bytes, 40)?).ok()?..)?;
        let count = match half(bytes, 60)? {
            0 => usize::try_from(long(headers, 32)?).ok()?,
            count => usize::from(count),
        };
        let headers = headers.get(..count.checked_mul(SECTION_BYTES)?)?;
        let sections = headers.chunks_exact(SECTION_BYTES).map(section).collect::<Option<_>>()?;
        Some(Self { bytes, sections, names: usize::from(half(bytes, 62)?) })
    }

    /// Device memory of variables and constants, in bytes. Code is left out: it is loaded when it is first used.
    pub fn variable_bytes(&self) -> u64 {
        let counted = self.sections.iter().filter(|section| self.holds_variables(section));
        super::laid_out(counted.map(|section| (section.bytes, section.align)))
    }

    /// The names of variables, [`NAMES_MAX`] at most.
    pub fn variables(&self) -> Vec<CString> {
        self.sized_variables().filter_map(|(name, _)| CString::new(name).ok()).collect()
    }

    /// The names of variables and their sizes in bytes, [`NAMES_MAX`] at most.
    pub fn sized_variables(&self) -> impl Iterator<Item = (&'a [u8], u64)> + '_ {
        let variables = self.symbols().filter(|symbol| self.is_variable(symbol)).take(NAMES_MAX);
        variables.filter_map(|symbol| Some((self.name_of(&symbol)?, symbol.bytes)))
    }

    /// Whether a variable is managed.
    pub fn has_managed(&self) -> bool {
        self.symbols().any(|symbol| symbol.other & MANAGED != 0 && self.is_variable(&symbol))
    }

    /// The names of kernels and their parameters, [`NAMES_MAX`] at most.
    pub fn kernels(&self) -> impl Iterator<Item = (&'a [u8], Vec<ParamInfo>)> + '_ {
        let infos: HashMap<&[u8], &Section> = self
            .sections
            .iter()
            .filter_map(|section| Some((self.name(section)?.strip_prefix(b".nv.info.")?, section)))
            .collect();
        let is_kernel = |symbol: &Symbol<'_>| symbol.kind == SYMBOL_FUNCTION && symbol.other & KERNEL != 0;
        self.symbols().filter(is_kernel).take(NAMES_MAX).filter_map(move |symbol| {
            let name = self.name_of(&symbol)?;
            let info = infos.get(name).and_then(|section| self.data(section));
            Some((name, info.map(parameters).unwrap_or_default()))
        })
    }

    /// Of all tables together no more than the file could hold: in a damaged one they may lie over each other.
    fn symbols(&self) -> impl Iterator<Item = Symbol<'_>> + '_ {
        let tables = self.sections.iter().filter(|section| section.kind == TYPE_SYMBOLS);
        let tables = tables.filter_map(|table| Some((self.data(table)?, self.sections.get(table.link)?)));
        let symbols = tables.flat_map(|(table, names)| {
            table.chunks_exact(SYMBOL_BYTES).filter_map(move |symbol| {
                Some(Symbol {
                    name: (names, word(symbol, 0)? as usize),
                    kind: symbol.get(4)? & 0xf,
                    other: *symbol.get(5)?,
                    section: usize::from(half(symbol, 6)?),
                    bytes: long(symbol, 16)?,
                })
            })
        });
        symbols.take(self.bytes.len() / SYMBOL_BYTES)
    }

    fn is_variable(&self, symbol: &Symbol<'_>) -> bool {
        let owner = self.sections.get(symbol.section);
        symbol.kind == SYMBOL_OBJECT && owner.is_some_and(|owner| self.holds_variables(owner))
    }

    fn name(&self, section: &Section) -> Option<&'a [u8]> {
        self.text(self.sections.get(self.names)?, section.name)
    }

    fn holds_variables(&self, section: &Section) -> bool {
        // Code is in the file; what only says a size is none.
        let is_code = section.flags & FLAG_EXEC != 0 && section.kind != TYPE_NOBITS;
        let name = self.name(section);
        let is_shared =
            name.is_some_and(|name| name.starts_with(b".nv.shared")) && section.bytes <= SHARED_BYTES_MAX;
        // A driver may go by the name.
        let is_named = name.is_some_and(|name| VARIABLES.iter().any(|known| name.starts_with(known)));
        (section.flags & FLAG_ALLOC != 0 || is_named) && !is_code && !is_shared
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn sections(&self) -> &[Section] {
        &self.sections
    }

    pub(super) fn data(&self, section: &Section) -> Option<&'a [u8]> {
        let start = usize::try_from(section.offset).ok()?;
        self.bytes.get(start..start.checked_add(usize::try_from(section.bytes).ok()?)?)
    }

    /// A symbol's name, if it has one.
    fn name_of(&self, symbol: &Symbol<'_>) -> Option<&'a [u8]> {
        let (names, at) = symbol.name;
        self.text(names, at).filter(|name| !name.is_empty())
    }

    /// The text at an offset of a section of names, without its NUL. One that is longer than any name is none.
    pub(super) fn text(&self, names: &Section, at: usize) -> Option<&'a [u8]> {
        let rest = self.data(names)?.get(at..)?;
        let end = rest.iter().take(NAME_BYTES_MAX).position(|byte| *byte == 0)?;
        rest.get(..end)
    }
}

/// A kernel's parameters in their order.
fn parameters(mut info: &[u8]) -> Vec<ParamInfo> {
    let mut found = BTreeMap::new();
    while let (Some([format, attribute]), Some(value)) = (info.first_chunk(), half(info, 2)) {
        let bytes = if *format == BYTES_FOLLOW { usize::from(value) } else { 0 };
        let Some(entry) = info.get(4..4 + bytes) else { break };
        if let (PARAMETER | LONG_PARAMETER, Some(ordinal), Some(offset), Some(packed)) =
            (*attribute, half(entry, 4), half(entry, 6), word(entry, 8))
        {
            let bytes = if *attribute == PARAMETER { packed >> 18 } else { packed & 0xff_ffff };
            found.insert(ordinal, ParamInfo { offset: offset.into(), bytes });
        }
        info = &info[4 + bytes..];
    }
    found.into_values().collect()
}

fn section(header: &[u8]) -> Option<Section> {
    Some(Section {
        name: word(header, 0)? as usize,
        kind: word(header, 4)?,
        flags: long(header, 8)?,
        offset: long(header, 24)?,
        bytes: long(header, 32)?,
        link: word(header, 40)? as usize,
        info: word(header, 44)? as usize,
        align: long(header, 48)?,
    })
}

pub(super) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const ALLOC: u64 = FLAG_ALLOC;
    const WRITE: u64 = 1;
    const PROGBITS: u32 = 1;
    const STRINGS: u32 = 3;

    pub(in super::super) fn header(
        name: u32,
        kind: u32,
        flags: u64,
        at: usize,
        bytes: u64,
        link: u32,
    ) -> Vec<u8> {
        let mut header = vec![0; SECTION_BYTES];
        header[0..4].copy_from_slice(&name.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[8..16].copy_from_slice(&flags.to_le_bytes());
        header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        header[32..40].copy_from_slice(&bytes.to_le_bytes());
        header[40..44].copy_from_slice(&link.to_le_bytes());
        header
    }

    pub(in super::super) fn symbol(name: u32, info: u8, other: u8, section: u16) -> Vec<u8> {
        let mut symbol = vec![0; SYMBOL_BYTES];
        symbol[0..4].copy_from_slice(&name.to_le_bytes());
        (symbol[4], symbol[5]) = (info, other);
        symbol[6..8].copy_from_slice(&section.to_le_bytes());
        symbol
    }

    fn parameter(attribute: u8, ordinal: u8, offset: u8, packed: u32) -> Vec<u8> {
        let head = [BYTES_FOLLOW, attribute, 12, 0, 0, 0, 0, 0, ordinal, 0, offset, 0];
        [&head[..], &packed.to_le_bytes()].concat()
    }

    /// Code, a table whose bytes are not in the file, constants (256 bytes), shared memory; two variables and a kernel.
    pub(crate) fn cubin(table_bytes: u64) -> Vec<u8> {
        let names = b"\0.nv.global\0.nv.shared.k\0.nv.info.k\0table\0factor\0k\0";
        let at = |name: &[u8]| {
            let place = names.windows(name.len()).position(|text| text == name).unwrap();
            u32::try_from(place).unwrap()
        };
        // Of a function `other` has bits of its own.
        let symbols = [
            symbol(0, 0, 0, 0),
            symbol(at(b"table\0"), 0x11, 0, 3),
            symbol(at(b"factor\0"), 0x11, 0, 4),
            symbol(at(b"k\0"), 0x12, 0x1f, 2),
            symbol(at(b"k\0"), 0x11, 0, 5),
        ]
        .concat();
        let info = [
            vec![3, 1, 9, 9],
            parameter(LONG_PARAMETER, 1, 8, 0x0100_1234),
            parameter(PARAMETER, 0, 0, (8 << 18) | 0x1234),
        ]
        .concat();
        let (names_at, symbols_at) = (64, 64 + names.len());
        let info_at = symbols_at + symbols.len();
        let headers = [
            header(0, 0, 0, 0, 0, 0),
            header(0, STRINGS, 0, names_at, names.len() as u64, 0),
            header(0, PROGBITS, ALLOC | FLAG_EXEC, 0, 5000, 0),
            header(at(b".nv.global\0"), TYPE_NOBITS, ALLOC | WRITE, 0, table_bytes, 0),
            header(0, PROGBITS, ALLOC, 0, 256, 0),
            header(at(b".nv.shared.k\0"), TYPE_NOBITS, ALLOC | WRITE, 0, 48 << 10, 0),
            header(0, TYPE_SYMBOLS, 0, symbols_at, symbols.len() as u64, 1),
            header(at(b".nv.info.k\0"), PROGBITS, 0, info_at, info.len() as u64, 0),
        ];
        whole(&[names.to_vec(), symbols, info], &headers)
    }

    /// A file of these contents, from 64 on, and headers; section 1 has the names.
    pub(in super::super) fn whole(contents: &[Vec<u8>], headers: &[Vec<u8>]) -> Vec<u8> {
        let contents = contents.concat();
        let mut file = vec![0; 64];
        file[..5].copy_from_slice(MAGIC);
        file[40..48].copy_from_slice(&((64 + contents.len()) as u64).to_le_bytes());
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&u16::try_from(headers.len()).unwrap().to_le_bytes());
        file[62..64].copy_from_slice(&1_u16.to_le_bytes());
        [file, contents, headers.concat()].concat()
    }

    #[test]
    fn variables_and_constants_count_and_have_names_and_nothing_else_does() {
        let file = cubin(10 << 30);
        let elf = Elf::parse(&file).unwrap();
        assert_eq!(elf.variable_bytes(), (10 << 30) + 256);
        assert_eq!(elf.variables(), [c"table".to_owned(), c"factor".to_owned()]);
    }

    #[test]
    fn kernels_have_names_and_parameters_in_their_order() {
        let file = cubin(1);
        let kernels: Vec<_> = Elf::parse(&file).unwrap().kernels().collect();
        let params = vec![ParamInfo { offset: 0, bytes: 8 }, ParamInfo { offset: 8, bytes: 0x1234 }];
        assert_eq!(kernels, [(&b"k"[..], params)]);
    }

    #[test]
    fn what_pretends_to_be_code_or_shared_memory_counts() {
        let headers_at = |file: &[u8]| usize::try_from(long(file, 40).unwrap()).unwrap();
        let mut file = cubin(10 << 30);
        let flags_at = headers_at(&file) + 3 * SECTION_BYTES + 8;
        file[flags_at] |= 4;
        assert_eq!(Elf::parse(&file).unwrap().variable_bytes(), (10 << 30) + 256, "code without bytes");
        let mut file = cubin(10 << 30);
        let bytes_at = headers_at(&file) + 5 * SECTION_BYTES + 32;
        file[bytes_at..bytes_at + 8].copy_from_slice(&(1_u64 << 30).to_le_bytes());
        assert_eq!(Elf::parse(&file).unwrap().variable_bytes(), (11 << 30) + 256, "shared memory of 1 GiB");
        let (mut file, sum_at) = (cubin(10 << 30), bytes_at - 2 * SECTION_BYTES);
        file[sum_at..sum_at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(Elf::parse(&file).unwrap().variable_bytes(), u64::MAX);
    }

    #[test]
    fn variables_count_by_the_name_of_their_section_too() {
        let mut file = cubin(10 << 30);
        let headers = usize::try_from(long(&file, 40).unwrap()).unwrap();
        let flags = headers + 3 * SECTION_BYTES + 8;
        file[flags..flags + 8].copy_from_slice(&WRITE.to_le_bytes());
        assert_eq!(Elf::parse(&file).unwrap().variable_bytes(), (10 << 30) + 256);
        let align = headers + 3 * SECTION_BYTES + 48;
        file[align..align + 8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        assert!(Elf::parse(&file).unwrap().variable_bytes() > 1 << 40);
    }

    /// A table that is there a thousand times is not gone through a thousand times.
    #[test]
    fn symbols_are_no_more_than_the_file_could_hold() {
        let file = cubin(1000);
        let headers = usize::try_from(long(&file, 40).unwrap()).unwrap();
        let table = file[headers + 6 * SECTION_BYTES..][..SECTION_BYTES].to_vec();
        let mut many = [file, table.repeat(1000)].concat();
        many[60..62].copy_from_slice(&1008_u16.to_le_bytes());
        let count = Elf::parse(&many).unwrap().symbols().count();
        assert!(count > 5 && count <= many.len() / SYMBOL_BYTES, "{count}");
    }

    /// Every byte of the file in turn, and every end: an answer, never a panic.
    #[test]
    fn damaged_machine_code_is_read_as_far_as_it_goes() {
        let whole = cubin(10 << 30);
        let read = |file: &[u8]| {
            let found = |elf: Elf<'_>| (elf.variable_bytes(), elf.variables().len(), elf.kernels().count());
            Elf::parse(file).map(found)
        };
        for at in 0..whole.len() {
            let mut file = whole.clone();
            for value in [0, 1, 0x7f, 0xff] {
                file[at] = value;
                let _ = read(&file);
            }
            assert_eq!(read(&whole[..at]), None, "cut at {at}");
        }
        assert_eq!(read(b"\x7fELF"), None);
    }
}
