//! Machine code with managed variables. A variable is a symbol whose other byte has the bit 4; code has its address in a bank of constants,
//! which the driver fills by a relocation. Here the address is filled in, the relocation becomes one of nothing, and the symbol that of a
//! plain variable, which nobody uses.
//!
//! ```text
//! relocation: 0 where in the section u64 | 8 type u32 (0 nothing, 2 an address of 64 bits) | 12 symbol u32 | 16 addend i64, or in its place
//! its section: link: the symbols' | info: the section that is changed
//! ```
//! Measured with nvcc 13 for sm_90. The bytes are the guest's.

use std::collections::{BTreeMap, HashMap};

use super::super::elf::{
    Elf, FLAG_ALLOC, MANAGED, SYMBOL_BYTES, SYMBOL_OBJECT, Section, TYPE_NOBITS, TYPE_SYMBOLS, half, long,
    word,
};

const TYPE_RELA: u32 = 4;
const TYPE_REL: u32 = 9;
const SYMBOL_SECTION: u8 = 3;
const NOTHING: u32 = 0;
const ADDRESS: u32 = 2;
const ADDRESS_BYTES: u64 = 8;
const VARIABLES_MAX: usize = 1 << 16;

/// Machine code and its managed variables.
#[derive(Debug)]
pub struct Code {
    bytes: Vec<u8>,
    variables: Vec<Variable>,
}

#[derive(Debug)]
struct Variable {
    name: String,
    symbol: usize,
    section: usize,
    /// In its section.
    start: u64,
    bytes: u64,
    align: u64,
}

/// Why it is refused.
type Why = &'static str;
const DAMAGED: Why = "the machine code is damaged";

impl Code {
    pub fn of(bytes: Vec<u8>) -> Result<Self, Why> {
        let elf = Elf::parse(&bytes).ok_or(DAMAGED)?;
        let mut variables = Vec::new();
        if let Some(table) = symbol_table(&elf)? {
            let names = elf.sections().get(table.link).ok_or(DAMAGED)?;
            for (number, symbol) in elf.data(table).ok_or(DAMAGED)?.chunks_exact(SYMBOL_BYTES).enumerate() {
                if symbol[4] & 0xf == SYMBOL_OBJECT && symbol[5] & MANAGED != 0 {
                    if variables.len() >= VARIABLES_MAX {
                        return Err("there are too many");
                    }
                    variables.push(variable(&elf, names, number, symbol)?);
                }
            }
        }
        are_apart(&variables)?;
        let is_in_file = |one: &&Variable| elf.sections()[one.section].kind != TYPE_NOBITS;
        let all = variables.iter().filter(is_in_file).fold(0_u64, |sum, one| sum.saturating_add(one.bytes));
        // Sections of a damaged file may lie over each other.
        if all > elf.file_bytes() {
            return Err(DAMAGED);
        }
        Ok(Self { bytes, variables })
    }

    /// Names, lengths and alignments in bytes.
    pub fn variables(&self) -> impl Iterator<Item = (String, u64, u64)> + '_ {
        self.variables.iter().map(|one| (one.name.clone(), one.bytes, one.align))
    }

    /// The code with its variables at these addresses, and their first values: none for one that begins as zeros.
    pub fn placed(self, addresses: &[u64]) -> Result<(Vec<u8>, Vec<Vec<u8>>), Why> {
        let elf = Elf::parse(&self.bytes).ok_or(DAMAGED)?;
        let Some(table) = symbol_table(&elf)? else { return Ok((self.bytes, Vec::new())) };
        let symbols = elf.data(table).ok_or(DAMAGED)?;
        let mut changed = self.bytes.clone();
        let by_symbol: HashMap<usize, u64> =
            self.variables.iter().map(|one| one.symbol).zip(addresses.iter().copied()).collect();
        let places = Places::of(&self.variables);
        for section in elf.sections().iter().filter(|one| matches!(one.kind, TYPE_RELA | TYPE_REL)) {
            let target = elf.sections().get(section.info).ok_or(DAMAGED)?;
            // What debuggers read may name a variable where it is not.
            if target.flags & FLAG_ALLOC == 0 {
                continue;
            }
            let entry_bytes = if section.kind == TYPE_RELA { 24 } else { 16 };
            let entries = elf.data(section).ok_or(DAMAGED)?.chunks_exact(entry_bytes);
            for (entry, at) in entries.zip((place(section.offset)?..).step_by(entry_bytes)) {
                let start = long(entry, 0).ok_or(DAMAGED)?;
                let kind = word(entry, 8).ok_or(DAMAGED)?;
                let symbol = word(entry, 12).ok_or(DAMAGED)? as usize;
                let Some(address) = by_symbol.get(&symbol) else {
                    let is_theirs = kind != NOTHING && names_place(symbols, symbol, &places);
                    let in_one = places.holds(section.info, start);
                    if is_theirs || (in_one && kind != NOTHING) {
                        return Err(if in_one {
                            "one begins with an address of something else"
                        } else {
                            "they are named by their section"
                        });
                    }
                    continue;
                };
                match kind {
                    NOTHING => continue,
                    ADDRESS if target.kind != TYPE_NOBITS => {}
                    _ => return Err("code names one otherwise than by an address of 64 bits"),
                }
                let inside = start.checked_add(ADDRESS_BYTES).is_some_and(|end| end <= target.bytes);
                let slot = target.offset.checked_add(start).filter(|_| inside).ok_or(DAMAGED)?;
                let slot = changed.get_mut(place(slot)?..).and_then(|rest| rest.first_chunk_mut());
                let slot: &mut [u8; 8] = slot.ok_or(DAMAGED)?;
                let addend = long(entry, 16).unwrap_or(u64::from_le_bytes(*slot));
                *slot = address.wrapping_add(addend).to_le_bytes();
                changed.get_mut(at + 8..at + 12).ok_or(DAMAGED)?.copy_from_slice(&NOTHING.to_le_bytes());
            }
        }
        let symbols_at = place(table.offset)?;
        for one in &self.variables {
            *changed.get_mut(symbols_at + one.symbol * SYMBOL_BYTES + 5).ok_or(DAMAGED)? &= !MANAGED;
        }
        let initial = self.variables.iter().map(|one| first_values(&elf, &changed, one));
        let initial = initial.collect::<Result<_, _>>()?;
        Ok((changed, initial))
    }
}

/// The one table of symbols; `None` without any. All tables together are no longer than the file, so each is gone through once.
fn symbol_table<'a>(elf: &'a Elf<'_>) -> Result<Option<&'a Section>, Why> {
    let tables = elf.sections().iter().filter(|one| matches!(one.kind, TYPE_SYMBOLS | TYPE_RELA | TYPE_REL));
    let all = tables.fold(0_u64, |sum, one| sum.saturating_add(one.bytes));
    if all > elf.file_bytes() {
        return Err(DAMAGED);
    }
    let mut symbols = elf.sections().iter().filter(|one| one.kind == TYPE_SYMBOLS);
    let first = symbols.next();
    if symbols.next().is_some() { Err("there are two tables of symbols") } else { Ok(first) }
}

fn variable(elf: &Elf<'_>, names: &Section, number: usize, symbol: &[u8]) -> Result<Variable, Why> {
    let section = half(symbol, 6).ok_or(DAMAGED)?.into();
    let (start, bytes) = (long(symbol, 8).ok_or(DAMAGED)?, long(symbol, 16).ok_or(DAMAGED)?);
    let owner: &Section = elf.sections().get(section).ok_or(DAMAGED)?;
    if owner.flags & FLAG_ALLOC == 0 {
        return Err("one is of another module");
    }
    if start.checked_add(bytes).is_none_or(|end| end > owner.bytes) {
        return Err(DAMAGED);
    }
    let name = word(symbol, 0).and_then(|at| elf.text(names, at as usize)).ok_or(DAMAGED)?;
    let name = std::str::from_utf8(name).map_err(|_| DAMAGED)?.to_owned();
    // It is aligned as far as its place tells.
    let align = 1 << start.trailing_zeros().min(owner.align.max(1).trailing_zeros()).min(63);
    Ok(Variable { name, symbol: number, section, start, bytes, align })
}

/// Two names of one variable would become two variables.
fn are_apart(variables: &[Variable]) -> Result<(), Why> {
    let mut places: Vec<_> = variables.iter().map(|one| (one.section, one.start, one.bytes)).collect();
    places.sort_unstable();
    let meet = |pair: &[(usize, u64, u64)]| {
        pair[0].0 == pair[1].0 && pair[0].1.saturating_add(pair[0].2.max(1)) > pair[1].1
    };
    if places.windows(2).any(meet) { Err("two lie in one place") } else { Ok(()) }
}

/// Where managed variables would have been: their sections, and where each begins and ends there.
struct Places(HashMap<usize, BTreeMap<u64, u64>>);

impl Places {
    fn of(variables: &[Variable]) -> Self {
        let mut places = HashMap::<_, BTreeMap<_, _>>::new();
        for one in variables.iter().filter(|one| one.bytes > 0) {
            places.entry(one.section).or_default().insert(one.start, one.start.saturating_add(one.bytes));
        }
        Self(places)
    }

    fn holds(&self, section: usize, at: u64) -> bool {
        let end = at.saturating_add(ADDRESS_BYTES);
        let before = self.0.get(&section).and_then(|starts| starts.range(..end).next_back());
        before.is_some_and(|(_, last)| *last > at)
    }
}

/// Whether a symbol is that of a section where managed variables would have been.
fn names_place(symbols: &[u8], number: usize, places: &Places) -> bool {
    let symbol = number.checked_mul(SYMBOL_BYTES).and_then(|at| symbols.get(at..)?.get(..SYMBOL_BYTES));
    symbol.is_some_and(|symbol| {
        let section = half(symbol, 6).map(usize::from);
        symbol[4] & 0xf == SYMBOL_SECTION && section.is_some_and(|section| places.0.contains_key(&section))
    })
}

fn first_values(elf: &Elf<'_>, changed: &[u8], variable: &Variable) -> Result<Vec<u8>, Why> {
    let section: &Section = elf.sections().get(variable.section).ok_or(DAMAGED)?;
    if section.kind == TYPE_NOBITS {
        return Ok(Vec::new());
    }
    let start = section.offset.checked_add(variable.start).ok_or(DAMAGED)?;
    let end = start.checked_add(variable.bytes).ok_or(DAMAGED)?;
    Ok(changed.get(place(start)?..place(end)?).ok_or(DAMAGED)?.to_vec())
}

fn place(offset: u64) -> Result<usize, Why> {
    usize::try_from(offset).map_err(|_| DAMAGED)
}
