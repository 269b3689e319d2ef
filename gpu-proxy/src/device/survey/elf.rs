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
/// A variable of code that is still to be linked.
const SYMBOL_UNLINKED: u8 = 13;
const SYMBOL_FUNCTION: u8 = 2;
/// In the place of a symbol's section: who links it gives it memory. Its value is its alignment.
const COMMON: u16 = 0xfff2;
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
    /// `None`: it is no such file. Tables of symbols are no longer than it, so that each is gone through once.
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
        let sections = headers.chunks_exact(SECTION_BYTES).map(section).collect::<Option<Vec<_>>>()?;
        let tables = sections.iter().filter(|section| section.kind == TYPE_SYMBOLS);
        let all = tables.fold(0_u64, |sum, table| sum.saturating_add(table.bytes));
        if all > bytes.len() as u64 {
            return None;
        }
        Some(Self { bytes, sections, names: usize::from(half(bytes, 62)?) })
    }

    /// Device memory of variables and constants, in bytes. Code is left out: it is loaded when it is first used.
    pub fn variable_bytes(&self) -> u64 {
        let counted = self.sections.iter().filter(|section| self.holds_variables(section));
        let counted = counted.map(|section| (section.bytes, section.align));
        super::laid_out(counted.chain(self.commons()))
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

    /// Lengths and alignments of variables that are in no section yet.
    fn commons(&self) -> impl Iterator<Item = (u64, u64)> + Clone + '_ {
        let tables = self.sections.iter().filter(|section| section.kind == TYPE_SYMBOLS);
        let symbols = tables.filter_map(|table| self.data(table));
        let symbols = symbols.flat_map(|table| table.chunks_exact(SYMBOL_BYTES));
        let commons = symbols.filter(|symbol| half(symbol, 6) == Some(COMMON));
        commons.filter_map(|symbol| Some((long(symbol, 16)?, long(symbol, 8)?)))
    }

    fn symbols(&self) -> impl Iterator<Item = Symbol<'_>> + '_ {
        let tables = self.sections.iter().filter(|section| section.kind == TYPE_SYMBOLS);
        let tables = tables.filter_map(|table| Some((self.data(table)?, self.sections.get(table.link)?)));
        tables.flat_map(|(table, names)| {
            table.chunks_exact(SYMBOL_BYTES).filter_map(|symbol| {
                Some(Symbol {
                    name: (names, word(symbol, 0)? as usize),
                    kind: symbol.get(4)? & 0xf,
                    other: *symbol.get(5)?,
                    section: usize::from(half(symbol, 6)?),
                    bytes: long(symbol, 16)?,
                })
            })
        })
    }

    fn is_variable(&self, symbol: &Symbol<'_>) -> bool {
        let owner = self.sections.get(symbol.section);
        let is_in_memory = owner.is_some_and(|owner| self.holds_variables(owner));
        matches!(symbol.kind, SYMBOL_OBJECT | SYMBOL_UNLINKED)
            && (is_in_memory || symbol.section == usize::from(COMMON))
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
pub(super) mod tests;
