//! Functions, scopes and labels: from the tree to numbered slots and instructions.
//!
//! Start at [`compile`]; [`Body`] holds what one function's instructions need. What an instruction does is in `select.rs`.

mod operands;

use std::collections::HashMap;

use super::layout::{ModuleScope, Name, module_scope, place, unsupported, wrong};
use super::select::select;
use super::{Builtin, Function, FunctionKind, Inst, Op, Program, Src};
use crate::attributes;
use crate::image::ImageError;
use crate::memory::align_up;
use crate::module::{FunctionInfo, Parameter};
use crate::ptx::{self, Source, Space, Statement, Ty};

/// Most registers of a function. One costs a block of 1024 threads 8 KiB.
const SLOTS_MAX: u32 = 1 << 15;
/// Most instructions of a module.
const CODE_MAX: usize = 1 << 24;
/// Most places that the indirect branches of a module can lead to, all together: each branch has a copy of its table.
const TARGETS_MAX: usize = 1 << 22;

/// Resolves a parsed text.
pub(crate) fn compile(source: &Source<'_>) -> Result<Program, ImageError> {
    let mut program = Program::default();
    let mut scope = module_scope(source, &mut program)?;
    // Layouts first, so that calls know their callees; kernels last, so that their shared memory lies behind all other.
    for function in &source.functions {
        let index = function_index(&scope, function)?;
        program.functions[index] = signature(function, program.functions[index].kind)?;
    }
    let (kernels, others): (Vec<_>, Vec<_>) = source.functions.iter().partition(|f| f.is_kernel);
    for function in others.into_iter().chain(kernels) {
        if let Some(body) = &function.body {
            self::function(function, body, &mut scope, &mut program)?;
        }
    }
    if let Some(kernel) = source.functions.iter().find(|f| f.is_kernel && f.body.is_none()) {
        return Err(unsupported(kernel.line, "a kernel without a body"));
    }
    for (kernel, &index) in program.kernels.iter_mut().zip(&program.kernel_functions) {
        kernel.static_shared_bytes = program.functions[index].shared_bytes;
    }
    Ok(program)
}

fn function_index(scope: &ModuleScope<'_>, function: &ptx::Function<'_>) -> Result<usize, ImageError> {
    match scope.names.get(function.name) {
        Some(Name::Function(index)) => Ok(*index),
        _ => Err(wrong(function.line, format!("{:.60} is declared twice", function.name))),
    }
}

/// The frame's parameters: returns first, then the formal ones.
fn signature(function: &ptx::Function<'_>, kind: FunctionKind) -> Result<Function, ImageError> {
    let mut end = 0;
    let mut all = |list: &[ptx::Variable<'_>]| -> Result<Vec<(u32, u32)>, ImageError> {
        list.iter().map(|v| Ok((place(&mut end, v)?, u32::try_from(v.bytes).unwrap_or(u32::MAX)))).collect()
    };
    let returns = all(&function.returns)?;
    let parameters = all(&function.parameters)?;
    let builtin = match function.name {
        "vprintf" => Some(Builtin::Printf),
        "__assertfail" => Some(Builtin::AssertFail),
        "malloc" => Some(Builtin::Malloc),
        "free" => Some(Builtin::Free),
        "cudaGraphSetConditional" => Some(Builtin::SetConditional),
        _ => None,
    };
    let kind = match builtin {
        Some(builtin) if function.body.is_none() => FunctionKind::Builtin(builtin),
        _ => kind,
    };
    let param_bytes =
        u32::try_from(align_up(end, 16)).map_err(|_| wrong(function.line, "parameters too large"))?;
    Ok(Function { kind, param_bytes, parameters, returns, ..Function::default() })
}

fn function<'a>(
    tree: &'a ptx::Function<'a>,
    statements: &'a [Statement<'a>],
    scope: &mut ModuleScope<'a>,
    program: &mut Program,
) -> Result<(), ImageError> {
    let index = function_index(scope, tree)?;
    if matches!(program.functions[index].kind, FunctionKind::Code(_)) {
        return Err(wrong(tree.line, format!("{:.60} is defined twice", tree.name)));
    }
    let start = program.code.len();
    let entry = u32::try_from(start).map_err(|_| wrong(tree.line, "too much code"))?;
    let layout = program.functions[index].clone();
    let mut names = HashMap::new();
    let formal = layout.returns.iter().chain(&layout.parameters);
    for (variable, (offset, _)) in tree.returns.iter().chain(&tree.parameters).zip(formal) {
        names.insert(variable.name, Local::Param(*offset));
    }
    let mut body = Body {
        module: scope,
        functions: &program.functions,
        code: &mut program.code,
        scopes: vec![names],
        labels: Vec::new(),
        slots: 0,
        carry: None,
        local_bytes: 0,
        param_bytes: u64::from(layout.param_bytes),
        shared_bytes: scope.shared_bytes,
        targets: &mut program.targets,
    };
    body.statements(statements)?;
    // Falling off the end is a return.
    body.code.push(Inst { guard: None, op: if tree.is_kernel { Op::Exit } else { Op::Return } });
    let (labels, slots, local_bytes, param_bytes) =
        (body.labels, body.slots, body.local_bytes, body.param_bytes);
    let shared_bytes = body.shared_bytes;
    resolve_labels(&mut program.code[start..], &labels, tree.line)?;
    let function = &mut program.functions[index];
    function.kind = FunctionKind::Code(entry);
    function.registers = slots;
    function.local_bytes = to_u32(align_up(local_bytes, 16), tree.line)?;
    function.param_bytes = to_u32(align_up(param_bytes, 16), tree.line)?;
    function.shared_bytes = to_u32(shared_bytes, tree.line)?;
    if tree.is_kernel {
        let info = kernel_info(tree, &layout, function);
        program.kernels.push(info);
        program.kernel_functions.push(index);
    } else {
        scope.shared_bytes = shared_bytes;
    }
    Ok(())
}

fn kernel_info(tree: &ptx::Function<'_>, layout: &Function, function: &Function) -> FunctionInfo {
    let parameters: Vec<_> =
        layout.parameters.iter().map(|&(offset, size)| Parameter { offset, size }).collect();
    FunctionInfo {
        name: tree.name.to_owned(),
        parameter_bytes: parameters.last().map_or(0, |last| last.offset + last.size),
        parameters,
        max_threads: tree.max_threads.unwrap_or(u32::MAX).min(attributes::MAX_THREADS_PER_BLOCK),
        static_shared_bytes: function.shared_bytes,
        local_bytes: function.local_bytes,
        // Virtual registers outnumber real ones; this keeps occupancy plausible.
        registers: (function.registers / 2).clamp(8, 64),
    }
}

fn resolve_labels(code: &mut [Inst], labels: &[Option<u32>], line: u32) -> Result<(), ImageError> {
    let find = |label: u32| {
        labels.get(label as usize).copied().flatten().ok_or_else(|| wrong(line, "a label is nowhere defined"))
    };
    for inst in code {
        match &mut inst.op {
            Op::Branch { target } => *target = find(*target)?,
            Op::BranchIndexed { targets, .. } => {
                for target in targets.iter_mut() {
                    *target = find(*target)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn to_u32(value: u64, line: u32) -> Result<u32, ImageError> {
    u32::try_from(value).map_err(|_| wrong(line, "a function's variables are too large"))
}

/// What a name of a function's scope stands for.
#[derive(Debug, Clone)]
pub(super) enum Local<'a> {
    /// First slot, and how many are numbered from 0 (`None`: the name stands for one).
    Register {
        slot: u32,
        count: Option<u32>,
        ty: Ty,
    },
    Shared(u32),
    Frame(u32),
    Param(u32),
    Label(u32),
    Targets(&'a [&'a str]),
}

/// One function while its instructions are made.
pub(super) struct Body<'a, 'b> {
    pub module: &'b ModuleScope<'a>,
    pub functions: &'b [Function],
    pub code: &'b mut Vec<Inst>,
    scopes: Vec<HashMap<&'a str, Local<'a>>>,
    labels: Vec<Option<u32>>,
    slots: u32,
    carry: Option<u32>,
    local_bytes: u64,
    param_bytes: u64,
    shared_bytes: u64,
    targets: &'b mut usize,
}

impl<'a> Body<'a, '_> {
    fn statements(&mut self, statements: &'a [Statement<'a>]) -> Result<(), ImageError> {
        self.scopes.push(HashMap::new());
        // Labels may be used before they are reached.
        for statement in statements {
            if let Statement::Label(name) = statement {
                let label = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
                self.labels.push(None);
                self.declare(name, Local::Label(label), 0)?;
            }
        }
        for statement in statements {
            self.statement(statement)?;
        }
        self.scopes.pop();
        Ok(())
    }

    fn statement(&mut self, statement: &'a Statement<'a>) -> Result<(), ImageError> {
        match statement {
            Statement::Block(inner) => self.statements(inner),
            Statement::Label(name) => {
                let here = u32::try_from(self.code.len()).ok();
                if let Some(Local::Label(label)) = self.scopes.last().and_then(|scope| scope.get(name)) {
                    self.labels[*label as usize] = here;
                }
                Ok(())
            }
            Statement::Registers { ty, name, count, line } => {
                let slot = self.take_slots(count.unwrap_or(1), *line)?;
                self.declare(name, Local::Register { slot, count: *count, ty: *ty }, *line)
            }
            Statement::Variable(variable) => self.variable(variable),
            Statement::Targets { name, labels, line } => self.declare(name, Local::Targets(labels), *line),
            Statement::Instruction(instruction) => self.instruction(instruction),
        }
    }

    fn variable(&mut self, variable: &'a ptx::Variable<'a>) -> Result<(), ImageError> {
        if !variable.initial.is_empty() {
            return Err(unsupported(variable.line, "a first value of a variable in a function"));
        }
        let local = match variable.space {
            Space::Local => Local::Frame(place(&mut self.local_bytes, variable)?),
            Space::Param => Local::Param(place(&mut self.param_bytes, variable)?),
            Space::Shared => Local::Shared(place(&mut self.shared_bytes, variable)?),
            Space::Global | Space::Const | Space::TexRef | Space::SurfRef | Space::SamplerRef => {
                return Err(unsupported(variable.line, "a global variable in a function"));
            }
        };
        self.declare(variable.name, local, variable.line)
    }

    fn instruction(&mut self, instruction: &'a ptx::Instruction<'a>) -> Result<(), ImageError> {
        let start = self.code.len();
        if start > CODE_MAX {
            return Err(unsupported(instruction.line, "a module of more than 16 million instructions"));
        }
        let guard = match instruction.guard {
            None => None,
            Some((name, negated)) => match self.register(name) {
                Some((slot, Ty::Pred)) => Some((slot, negated)),
                _ => return Err(wrong(instruction.line, format!("{name:.40} is no predicate"))),
            },
        };
        select(self, instruction)?;
        let Some((slot, negated)) = guard else { return Ok(()) };
        if self.code.len() - start == 1 {
            self.code[start].guard = guard;
            return Ok(());
        }
        // One of several operations may write the guard: they look at a copy.
        let copy = self.take_slots(1, instruction.line)?;
        for inst in &mut self.code[start..] {
            inst.guard = Some((copy, negated));
        }
        let f = super::alu::integer::truncate(1).ok_or_else(|| wrong(instruction.line, "no predicate"))?;
        self.code.insert(start, Inst { guard: None, op: Op::Unary { f, dst: copy, a: Src::Reg(slot) } });
        Ok(())
    }

    fn declare(&mut self, name: &'a str, local: Local<'a>, line: u32) -> Result<(), ImageError> {
        // A function's body is inside a scope; `last_mut` is there.
        match self.scopes.last_mut().and_then(|scope| scope.insert(name, local)) {
            None => Ok(()),
            Some(_) => Err(wrong(line, format!("{name:.60} is declared twice"))),
        }
    }

    fn take_slots(&mut self, count: u32, line: u32) -> Result<u32, ImageError> {
        let first = self.slots;
        self.slots = self.slots.saturating_add(count);
        if self.slots > SLOTS_MAX {
            return Err(unsupported(line, format!("a function with more than {SLOTS_MAX} registers")));
        }
        Ok(first)
    }

    /// A slot that no register has.
    pub fn scratch(&mut self) -> Result<u32, ImageError> {
        self.take_slots(1, 0)
    }

    /// The slot of the condition code, `CC.CF`.
    pub fn carry(&mut self) -> Result<u32, ImageError> {
        match self.carry {
            Some(slot) => Ok(slot),
            None => Ok({
                let slot = self.take_slots(1, 0)?;
                *self.carry.insert(slot)
            }),
        }
    }

    pub fn push(&mut self, op: Op) {
        self.code.push(Inst { guard: None, op });
    }

    fn find(&self, name: &str) -> Option<&Local<'a>> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    /// The slot and type of a register.
    pub fn register(&self, name: &str) -> Option<(u32, Ty)> {
        if let Some(Local::Register { slot, count: None, ty }) = self.find(name) {
            return Some((*slot, *ty));
        }
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number: u32 = name[stem.len()..].parse().ok()?;
        match self.find(stem)? {
            Local::Register { slot, count: Some(count), ty } if number < *count => Some((slot + number, *ty)),
            _ => None,
        }
    }

    pub fn label(&self, name: &str) -> Option<u32> {
        match self.find(name)? {
            Local::Label(label) => Some(*label),
            _ => None,
        }
    }

    pub fn targets(&self, name: &str) -> Option<Vec<u32>> {
        match self.find(name)? {
            Local::Targets(labels) => labels.iter().map(|label| self.label(label)).collect(),
            _ => None,
        }
    }

    /// Counts the places of one more indirect branch; `None` past [`TARGETS_MAX`].
    pub fn count_targets(&mut self, count: usize) -> Option<()> {
        *self.targets += count;
        (*self.targets <= TARGETS_MAX).then_some(())
    }

    pub fn function(&self, name: &str) -> Option<usize> {
        match self.module.names.get(name)? {
            Name::Function(index) => Some(*index),
            _ => None,
        }
    }

    /// Offset in the frame of a parameter.
    pub fn parameter(&self, name: &str) -> Option<u32> {
        match self.find(name)? {
            Local::Param(offset) => Some(*offset),
            _ => None,
        }
    }
}
