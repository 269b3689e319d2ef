//! Records as a hostile guest could make them: well-formed by the declarations, of handles, addresses and sizes that are nearly right. So
//! they come past the parser, where random bytes end. Start at [`Maker`].
//!
//! All of it is read from what the two ends hash: a call's parameters ([`Op::params`]) and the structures' declarations
//! ([`crate::calls::STRUCTS`]). A new call or field is tried without a word here; a type that is declared nowhere is a panic of the
//! generator, and a failure of its test.
//!
//! Not here: who runs the records (`gpu-proxy/src/hostile.rs`), bytes that are no record (`tests/hostile.rs`).

mod values;

use std::collections::HashMap;

use crate::calls::{Class, STRUCTS};
use crate::{ContextId, Op, PooledPiece, SharedPart};

/// Where decisions come from, without end.
pub trait Choices {
    /// The next.
    fn byte(&mut self) -> u8;

    /// A number below `count`, which is 256 at most.
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// One of them.
    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// Any number.
    fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }
}

/// Decisions by a seed, so that a failure comes again with it (Marsaglia's xorshift).
#[derive(Clone, Debug)]
pub struct Seed(pub u64);

impl Choices for Seed {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 24).to_le_bytes()[0]
    }
}

/// Decisions by a fuzzer's bytes; 0 when they are used up.
#[derive(Clone, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Choices for Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }
}

/// One record, as the worker gets it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which call.
    pub op: Op,
    /// The context that its header names.
    pub context: ContextId,
    /// Whether a reply is wanted.
    pub sync: bool,
    /// The parameters.
    pub payload: Vec<u8>,
}

/// Makes records of one process, and remembers what their answers gave it.
#[derive(Debug)]
pub struct Maker<C> {
    choices: C,
    structs: HashMap<&'static str, &'static str>,
    /// By the kind's name.
    alive: HashMap<&'static str, Vec<u64>>,
    /// The last that was given.
    generation: u32,
    /// The last that was uploaded and not used yet.
    uploaded: Option<u32>,
    addresses: Vec<u64>,
    objects: Vec<u64>,
    tokens: Vec<[u8; 16]>,
    /// What others may have of allocations.
    parts: Vec<[u8; SharedPart::BYTES]>,
    /// And of pools.
    pieces: Vec<[u8; PooledPiece::BYTES]>,
    /// Those of what was made: parts and pieces have the same.
    sizes: Vec<u64>,
    /// Addresses without memory.
    reserved: Vec<u64>,
    is_about_mappings: bool,
    is_about_contexts: bool,
}

/// What a call ends, beside itself.
enum Ends {
    Nothing,
    One,
    Context,
}

fn ends(op: Op) -> Ends {
    match op {
        Op::cuDevicePrimaryCtxRelease_v2 | Op::cuDevicePrimaryCtxReset_v2 | Op::cuCtxDestroy_v2 => {
            Ends::Context
        }
        Op::cuMemFree_v2
        | Op::cuMemFreeAsync
        | Op::cuMemAddressFree
        | Op::cuMemUnmap
        | Op::vgpuIpcClose
        | Op::vgpuArenaRemove => Ends::One,
        _ if op.params().iter().any(|(_, of)| of.starts_with("GoneHandle")) => Ends::One,
        _ => Ends::Nothing,
    }
}

impl<C: Choices> Maker<C> {
    /// Of a process that has nothing but `addresses`.
    pub fn new(choices: C, addresses: &[u64]) -> Self {
        let structs = STRUCTS.iter().filter_map(|one| one.split_once('{')).collect();
        Self {
            choices,
            structs,
            alive: HashMap::new(),
            generation: 0,
            uploaded: None,
            addresses: addresses.to_vec(),
            objects: Vec::new(),
            tokens: Vec::new(),
            parts: Vec::new(),
            pieces: Vec::new(),
            sizes: Vec::new(),
            reserved: Vec::new(),
            is_about_mappings: false,
            is_about_contexts: false,
        }
    }

    /// Whose decisions they are.
    pub fn choices(&mut self) -> &mut C {
        &mut self.choices
    }

    /// The next record.
    pub fn record(&mut self) -> Record {
        // What was uploaded is used next, mostly.
        if self.uploaded.is_some() && self.choices.below(8) > 0 {
            let users = [
                Op::vgpuImageLoad,
                Op::vgpuImageLoadManaged,
                Op::vgpuGraphInstantiate,
                Op::vgpuGraphUpdate,
                Op::cuLinkAddData_v2,
            ];
            let user = self.choices.of(&users);
            let record = self.record_of(user);
            self.uploaded = None;
            return record;
        }
        // What is ended as often as it is made is never there: most ends are put off.
        let mut op = self.op();
        for _ in 0..3 {
            let put_off = match ends(op) {
                Ends::Nothing => false,
                Ends::One => self.choices.below(8) > 0,
                Ends::Context => self.choices.below(64) > 0,
            };
            if !put_off {
                break;
            }
            op = self.op();
        }
        self.record_of(op)
    }

    fn op(&mut self) -> Op {
        Op::ALL[usize::from(u16::from_le_bytes([self.choices.byte(), self.choices.byte()])) % Op::ALL.len()]
    }

    /// A record of a call.
    pub fn record_of(&mut self, op: Op) -> Record {
        self.is_about_mappings =
            matches!(op, Op::cuMemMap | Op::cuMemUnmap | Op::cuMemSetAccess | Op::cuMemAddressFree);
        self.is_about_contexts = matches!(op, Op::cuCtxCreate_v2 | Op::cuCtxDestroy_v2);
        let context = if self.choices.below(8) > 0 { 1 } else { self.context() };
        let mut payload = Vec::new();
        if self.choices.below(16) == 0 {
            self.words(&mut payload);
        } else if op == Op::vgpuUpload {
            self.upload(&mut payload);
        } else {
            op.params().iter().for_each(|(name, of)| self.value(name, of, &mut payload));
        }
        // One byte too many or too few now and then.
        match self.choices.below(128) {
            0 => payload.push(0),
            1 => drop(payload.pop()),
            _ => {}
        }
        Record {
            op,
            context: ContextId(context),
            sync: op.class() != Class::Async || self.choices.below(2) == 0,
            payload,
        }
    }

    /// What a call that succeeded gave the process.
    pub fn learn(&mut self, op: Op, payload: &[u8], reply: &[u8]) {
        let is_made = matches!(
            op,
            Op::cuMemAlloc_v2 | Op::cuMemAddressReserve | Op::cuMemCreate | Op::cuMemMap | Op::vgpuArenaAdd
        );
        if let Some(size) =
            payload.get(if op == Op::cuMemAlloc_v2 || op == Op::cuMemAddressReserve { 0..8 } else { 8..16 })
            && is_made
        {
            remember(&mut self.sizes, size.try_into().map_or(0, u64::from_le_bytes));
        }
        self.learn_handle(op, payload);
        if let Some(token) = reply.first_chunk().filter(|_| op.reply() == "Token") {
            self.tokens.push(*token);
            self.tokens.drain(..self.tokens.len().saturating_sub(16));
        }
        if let Some(part) = reply.first_chunk().filter(|_| op.reply() == "SharedPart") {
            self.parts.push(*part);
            self.parts.drain(..self.parts.len().saturating_sub(4));
        }
        if let Some(piece) = reply.first_chunk().filter(|_| op.reply() == "PooledPiece") {
            self.pieces.push(*piece);
            self.pieces.drain(..self.pieces.len().saturating_sub(4));
        }
        let Some(value) = reply.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return };
        let known = match op.reply() {
            "DevicePtr" if op == Op::cuMemAddressReserve => &mut self.reserved,
            "DevicePtr" => &mut self.addresses,
            "Object" => &mut self.objects,
            _ => return,
        };
        remember(known, value);
    }

    /// The first parameter says what was made or ended.
    fn learn_handle(&mut self, op: Op, payload: &[u8]) {
        if matches!(ends(op), Ends::Context) {
            // Memory without an address is nobody's but the process's.
            self.alive.retain(|kind, _| *kind == "Memory");
        }
        let of = op.params().first().map_or("", |(_, of)| *of);
        let Some(first) = payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return };
        if let Some(kind) = of.strip_prefix("NewHandle<kind::").and_then(|rest| rest.strip_suffix('>')) {
            self.alive.entry(kind).or_default().push(first);
        }
        if let Some(kind) = of.strip_prefix("GoneHandle<kind::").and_then(|rest| rest.strip_suffix('>')) {
            self.alive.entry(kind).or_default().retain(|known| *known != first);
        }
    }
}

fn remember(all: &mut Vec<u64>, value: u64) {
    if all.len() >= 16 {
        all.remove(0);
    }
    all.push(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, Refuses, dispatch};

    /// Or the generator is blind to a call: then nothing behind its parser is tried.
    #[test]
    fn of_every_call_most_records_come_past_the_parser() {
        let mut maker = Maker::new(Seed(7), &[0x7000_0000]);
        let mut reply = vec![0; crate::wire::REPLY_BYTES_MAX];
        for op in Op::ALL {
            let parsed = (0..200).filter(|_| {
                let Record { op, context, payload, .. } = maker.record_of(*op);
                dispatch(&mut Refuses, op as u16, Call { context, sync: true }, &payload, &mut reply).is_ok()
            });
            let parsed = parsed.count();
            assert!(parsed > 100, "{}: {parsed} of 200 records are parsed", op.name());
        }
    }
}
