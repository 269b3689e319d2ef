//! Places for variables: globals with their first values, shared memory, kernel parameters.

use std::collections::HashMap;

use super::{Function, FunctionKind, InitialData, Program, Symbol};
use crate::image::ImageError;
use crate::memory::align_up;
use crate::module::{GlobalInfo, ReferenceInfo};
use crate::ptx::{Initial, Source, Space, Variable};

/// Largest variable, and largest sum of a space's variables but global's, in bytes.
const SPACE_BYTES_MAX: u64 = 1 << 24;
/// Largest variable in global memory. It is allocated from the device's memory, under its limit.
const GLOBAL_BYTES_MAX: u64 = 1 << 36;
/// Longest initializer in bytes: as much as the host holds of a module's variables.
const INITIAL_BYTES_MAX: u64 = 1 << 28;

/// What a name of the module's scope stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name {
    Global(usize),
    /// Offset in shared memory.
    Shared(u32),
    DynamicShared,
    Function(usize),
    /// Index of a texture or surface reference.
    Reference(usize),
    Sampler,
}

/// The module's names, and how much shared memory its own variables take.
#[derive(Debug, Default)]
pub(super) struct ModuleScope<'a> {
    pub names: HashMap<&'a str, Name>,
    pub shared_bytes: u64,
    pub has_samplers_apart: bool,
}

pub(super) fn wrong(line: u32, what: impl Into<String>) -> ImageError {
    ImageError::Ptx { line, what: what.into() }
}

pub(super) fn unsupported(line: u32, what: impl Into<String>) -> ImageError {
    ImageError::Unsupported { line, what: what.into() }
}

/// Puts a variable behind `end` and returns its offset.
pub(super) fn place(end: &mut u64, variable: &Variable<'_>) -> Result<u32, ImageError> {
    let start = align_up(*end, u64::from(variable.align));
    *end = start.saturating_add(variable.bytes);
    if *end > SPACE_BYTES_MAX {
        return Err(wrong(variable.line, format!("{:.60} does not fit its state space", variable.name)));
    }
    u32::try_from(start).map_err(|_| wrong(variable.line, "a variable is too large"))
}

/// Gives every name of the module's scope its meaning. Functions are numbered; a definition takes its declaration's number.
pub(super) fn module_scope<'a>(
    source: &Source<'a>,
    program: &mut Program,
) -> Result<ModuleScope<'a>, ImageError> {
    let mut scope = ModuleScope { has_samplers_apart: source.has_samplers_apart, ..ModuleScope::default() };
    for variable in &source.variables {
        let name = match variable.space {
            Space::Shared if variable.bytes == 0 => Name::DynamicShared,
            Space::Shared => Name::Shared(place(&mut scope.shared_bytes, variable)?),
            Space::Global | Space::Const => Name::Global(global(variable, program)?),
            Space::TexRef | Space::SurfRef | Space::SamplerRef => reference(variable, program)?,
            Space::Local | Space::Param => return Err(wrong(variable.line, "a variable outside a function")),
        };
        declare(&mut scope, variable.name, name, variable.line)?;
    }
    for function in &source.functions {
        if scope.names.contains_key(function.name) {
            continue; // its declaration came before
        }
        let name = Name::Function(program.functions.len());
        program.functions.push(Function { kind: FunctionKind::Missing, ..Function::default() });
        declare(&mut scope, function.name, name, function.line)?;
    }
    first_values(source, &scope, program)?;
    Ok(scope)
}

fn declare<'a>(scope: &mut ModuleScope<'a>, key: &'a str, name: Name, line: u32) -> Result<(), ImageError> {
    match scope.names.insert(key, name) {
        None => Ok(()),
        Some(_) => Err(wrong(line, format!("{key:.60} is declared twice"))),
    }
}

/// A reference has no memory: its number is the device's, once the module has its place.
fn reference(variable: &Variable<'_>, program: &mut Program) -> Result<Name, ImageError> {
    if variable.bytes != u64::from(variable.ty.bytes()) || !variable.initial.is_empty() {
        return Err(unsupported(variable.line, "references in a row, or with first values"));
    }
    if variable.space == Space::SamplerRef {
        return Ok(Name::Sampler);
    }
    let is_surface = variable.space == Space::SurfRef;
    program.references.push(ReferenceInfo { name: variable.name.to_owned(), is_surface });
    Ok(Name::Reference(program.references.len() - 1))
}

fn global(variable: &Variable<'_>, program: &mut Program) -> Result<usize, ImageError> {
    if variable.bytes > GLOBAL_BYTES_MAX {
        return Err(wrong(variable.line, format!("{:.60} is too large", variable.name)));
    }
    program.globals.push(GlobalInfo {
        name: variable.name.to_owned(),
        bytes: variable.bytes,
        align: variable.align.into(),
        constant: variable.space == Space::Const,
        managed: variable.managed,
    });
    program.initial.push(InitialData::default());
    Ok(program.globals.len() - 1)
}

fn first_values(
    source: &Source<'_>,
    scope: &ModuleScope<'_>,
    program: &mut Program,
) -> Result<(), ImageError> {
    let mut total = 0;
    for variable in &source.variables {
        let Some(Name::Global(index)) = scope.names.get(variable.name) else { continue };
        let width = variable.ty.bytes() as usize;
        let mut data = InitialData::default();
        total += variable.initial.len() as u64 * width as u64;
        if total > INITIAL_BYTES_MAX {
            return Err(wrong(variable.line, "initializers longer than 256 MiB"));
        }
        for value in &variable.initial {
            let bits = match *value {
                Initial::Bits(bits) => bits,
                Initial::Symbol(name, offset) => {
                    let symbol = symbol(scope, name, offset, variable.line)?;
                    if width != 8 {
                        return Err(unsupported(variable.line, "an address in fewer than 64 bits"));
                    }
                    data.symbols.push((data.bytes.len() as u64, symbol));
                    0
                }
            };
            data.bytes.extend_from_slice(&bits.to_le_bytes()[..width]);
        }
        program.initial[*index] = data;
    }
    Ok(())
}

fn symbol(scope: &ModuleScope<'_>, name: &str, offset: i64, line: u32) -> Result<Symbol, ImageError> {
    match scope.names.get(name) {
        Some(Name::Global(index)) => Ok(Symbol::Global(*index, offset)),
        Some(Name::Function(index)) if offset == 0 => Ok(Symbol::Function(*index)),
        _ => Err(wrong(line, format!("{name:.60} has no address"))),
    }
}
