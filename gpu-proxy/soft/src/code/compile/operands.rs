//! What the operands of an instruction stand for in its function.

use super::super::layout::{Name, wrong};
use super::super::{Address, Area, Dst, Op, Special, Src, alu, function_address};
use super::{Body, Local};
use crate::attributes;
use crate::image::ImageError;
use crate::ptx::{Operand, Ty};

impl Body<'_, '_> {
    /// The address of a variable or function, or a special register.
    fn named(&self, name: &str, offset: i64) -> Option<Src> {
        let plain = |value: u64| Src::Imm(value.wrapping_add_signed(offset));
        let within = |base: u32| base.checked_add_signed(i32::try_from(offset).ok()?);
        match self.find(name) {
            Some(Local::Shared(place)) => return Some(plain(u64::from(*place))),
            Some(Local::Frame(place)) => return Some(Src::Local(within(*place)?)),
            Some(Local::Param(place)) => return Some(Src::Param(within(*place)?)),
            Some(_) => return None,
            None => {}
        }
        match self.module.names.get(name) {
            Some(Name::Global(index)) => Some(Src::Global(*index, offset)),
            Some(Name::Reference(index)) if offset == 0 => Some(Src::Reference(*index)),
            Some(Name::Shared(place)) => Some(plain(u64::from(*place))),
            Some(Name::DynamicShared) if offset == 0 => Some(Src::Special(Special::DynamicShared)),
            Some(Name::Function(index)) if offset == 0 => Some(Src::Imm(function_address(*index))),
            _ if offset == 0 => special(name),
            _ => None,
        }
    }

    /// A source operand of type `ty`.
    pub fn src(&self, operand: &Operand<'_>, ty: Ty, line: u32) -> Result<Src, ImageError> {
        let found = match *operand {
            Operand::Name { name, negated: false } => match self.register(name) {
                Some((slot, _)) => Some(Src::Reg(slot)),
                None => self.named(name, 0),
            },
            Operand::Offset(name, offset) => self.named(name, offset),
            Operand::Integer(value) => Some(Src::Imm(literal(value, ty))),
            Operand::Single(bits) if ty == Ty::F64 => {
                Some(Src::Imm(f64::from(f32::from_bits(bits)).to_bits()))
            }
            Operand::Single(bits) => Some(Src::Imm(u64::from(bits))),
            Operand::Double(bits) if ty == Ty::F32 => Some(Src::Imm(single(f64::from_bits(bits)))),
            Operand::Double(bits) => Some(Src::Imm(bits)),
            _ => None,
        };
        found.ok_or_else(|| wrong(line, format!("the operand {operand:.60?}")))
    }

    /// A predicate as a source; a negated one gets a slot of its own.
    pub fn predicate(&mut self, operand: &Operand<'_>, line: u32) -> Result<Src, ImageError> {
        let Operand::Name { name, negated: true } = *operand else {
            return self.src(operand, Ty::Pred, line);
        };
        let a = self.src(&Operand::Name { name, negated: false }, Ty::Pred, line)?;
        let dst = self.scratch()?;
        let f = alu::integer::unary("not", Ty::Pred).ok_or_else(|| wrong(line, "no predicate"))?;
        self.push(Op::Unary { f, dst, a });
        Ok(Src::Reg(dst))
    }

    /// A register that is written; `None` for `_`.
    pub fn dst(&self, operand: &Operand<'_>, line: u32) -> Result<Option<Dst>, ImageError> {
        match *operand {
            Operand::Name { name: "_", negated: false } => Ok(None),
            Operand::Name { name, negated: false } => match self.register(name) {
                Some((slot, ty)) => {
                    let mask = if ty == Ty::Pred { 1 } else { u64::MAX >> (64 - ty.bits()) };
                    Ok(Some(Dst { slot, mask }))
                }
                None => Err(wrong(line, format!("{name:.40} is no register"))),
            },
            _ => Err(wrong(line, format!("{operand:.60?} cannot be written"))),
        }
    }

    /// What is between brackets, in a space.
    pub fn address(&self, operand: &Operand<'_>, area: Area, line: u32) -> Result<Address, ImageError> {
        let (base, offset) = match *operand {
            Operand::Memory(name, offset) => match self.register(name) {
                Some((slot, _)) => (Src::Reg(slot), offset),
                None => match self.named(name, 0) {
                    Some(base) => (base, offset),
                    None => return Err(wrong(line, format!("{name:.60} has no address"))),
                },
            },
            Operand::Absolute(value) => (Src::Imm(value), 0),
            _ => return Err(wrong(line, "expected an address in brackets")),
        };
        Ok(Address { area, base, offset })
    }
}

fn literal(value: u64, ty: Ty) -> u64 {
    if ty == Ty::Pred { value & 1 } else { value & (u64::MAX >> (64 - ty.bits())) }
}

fn single(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the constant is used as an f32")]
    let value = value as f32;
    u64::from(value.to_bits())
}

fn special(name: &str) -> Option<Src> {
    let special = match name.strip_prefix('%') {
        None if name == "WARP_SZ" => return Some(Src::Imm(u64::from(attributes::WARP_SIZE))),
        None => return None,
        Some("laneid") => Special::LaneId,
        Some("warpid") => Special::WarpId,
        Some("nwarpid") => Special::NwarpId,
        Some("smid") => Special::SmId,
        Some("nsmid") => Special::NsmId,
        Some("gridid") => Special::GridId,
        Some("lanemask_eq") => Special::LaneMaskEq,
        Some("lanemask_lt") => Special::LaneMaskLt,
        Some("lanemask_le") => Special::LaneMaskLe,
        Some("lanemask_gt") => Special::LaneMaskGt,
        Some("lanemask_ge") => Special::LaneMaskGe,
        Some("clock") => Special::Clock,
        Some("clock64") => Special::Clock64,
        Some("globaltimer") => Special::GlobalTimer,
        Some("dynamic_smem_size") => Special::DynamicSharedBytes,
        Some("total_smem_size") => Special::TotalSharedBytes,
        Some(dotted) => {
            let (stem, axis) = dotted.split_once('.')?;
            let axis = match axis {
                "x" => 0,
                "y" => 1,
                "z" => 2,
                _ => return None,
            };
            match stem {
                "tid" => Special::Tid(axis),
                "ntid" => Special::Ntid(axis),
                "ctaid" => Special::Ctaid(axis),
                "nctaid" => Special::Nctaid(axis),
                _ => return None,
            }
        }
    };
    Some(Src::Special(special))
}
