//! One instruction, for the lanes of a group.

use super::Launch;
use super::access::{Access, Target};
use super::block::Common;
use super::warp::{Group, Wait, Warp, lanes};
use crate::Fault;
use crate::code::{Address, BarReduce, Dst, Lanes, Op, Special, Src};

impl Warp {
    /// Runs the instruction at `group.pc`. `true`: the group goes on at the `pc` now in it. `false`: lanes have parted, wait or
    /// have ended, and each has its `pc`.
    pub(super) fn step(
        &mut self,
        launch: &Launch<'_>,
        common: &mut Common,
        access: &mut Access<'_>,
        group: &mut Group,
    ) -> Result<bool, Fault> {
        let inst = &launch.program.code[group.pc as usize];
        let mut mask = group.mask;
        if let Some((slot, negated)) = inst.guard {
            let row = &self.rows[(group.base + slot) as usize];
            let set = (0..32).fold(0, |bits, lane| bits | u32::from(row[lane] & 1 == 1) << lane);
            mask &= if negated { !set } else { set };
            if mask == 0 {
                group.pc += 1;
                return Ok(true);
            }
        }
        let view = View { launch, common, group: *group };
        let mut out = [0; 32];
        let (mut x, mut y, mut z) = ([0; 32], [0; 32], [0; 32]);
        match &inst.op {
            Op::Unary { f, dst, a } => {
                f(self.read(*a, &view, &mut x), &mut out);
                self.write(group.base + dst, mask, &out);
            }
            Op::Binary { f, dst, a, b } => {
                f(self.read(*a, &view, &mut x), self.read(*b, &view, &mut y), &mut out);
                self.write(group.base + dst, mask, &out);
            }
            Op::Ternary { f, dst, a, b, c } => {
                let (a, b, c) = (
                    self.read(*a, &view, &mut x),
                    self.read(*b, &view, &mut y),
                    self.read(*c, &view, &mut z),
                );
                f(a, b, c, &mut out);
                self.write(group.base + dst, mask, &out);
            }
            Op::Convert { how, dst, a } => {
                let a = self.read(*a, &view, &mut x);
                lanes(mask).for_each(|lane| out[lane] = how.apply(a[lane]));
                self.write(group.base + dst, mask, &out);
            }
            Op::Load { address, width, signed, dst } => {
                let places = *self.read(address.base, &view, &mut x);
                self.load(&places, address, (*width, *signed), dst, mask, &view, access)?;
            }
            Op::Store { address, width, values } => {
                let places = *self.read(address.base, &view, &mut x);
                let total = width * u32::try_from(values.len()).unwrap_or(1);
                for (index, value) in (0..).zip(values) {
                    let view = View { launch, common, group: *group };
                    let value = *self.read(*value, &view, &mut y);
                    for lane in lanes(mask) {
                        let at = place(places[lane], address);
                        let target = Target { area: address.area, at, bytes: total };
                        let part = (width * index, *width);
                        access.store(
                            target,
                            part,
                            value[lane],
                            &mut self.threads[lane],
                            &mut common.shared,
                        )?;
                    }
                }
            }
            Op::Atomic { address, width, f, dst, a, b } => {
                let places = *self.read(address.base, &view, &mut x);
                let (a, b) = (self.read(*a, &view, &mut y), self.read(*b, &view, &mut z));
                for lane in lanes(mask) {
                    let target =
                        Target { area: address.area, at: place(places[lane], address), bytes: *width };
                    out[lane] = access.update(target, &mut common.shared, |old| f(old, a[lane], b[lane]))?;
                }
                if let Some(dst) = dst {
                    self.write(group.base + dst, mask, &out);
                }
            }
            Op::Sample(sample) => self.sample(sample, &view, mask, access)?,
            Op::Surface(surface) => self.surface(surface, &view, mask, access)?,
            Op::Ask { surface, question, object, dst } => {
                let objects = *self.read(*object, &view, &mut x);
                for lane in lanes(mask) {
                    out[lane] = launch.ask(*surface, *question, objects[lane])?;
                }
                self.write(group.base + dst, mask, &out);
            }
            Op::Branch { target } => {
                if mask == group.mask {
                    group.pc = *target;
                    return Ok(group.meet == u32::MAX);
                }
                self.set_pc(group.mask & !mask, group.pc + 1);
                self.set_pc(mask, *target);
                return Ok(false);
            }
            Op::BranchIndexed { index, targets } => {
                let index = *self.read(*index, &view, &mut x);
                self.set_pc(group.mask & !mask, group.pc + 1);
                for lane in lanes(mask) {
                    let target = usize::try_from(index[lane]).ok().and_then(|n| targets.get(n));
                    self.pc[lane] = *target.ok_or(Fault::InvalidPc(index[lane]))?;
                }
                return Ok(false);
            }
            Op::Call { function, frame } => {
                self.set_pc(group.mask & !mask, group.pc + 1);
                self.call(launch, common, access, group, mask, *function, frame)?;
                return Ok(false);
            }
            Op::CallIndirect { address, frame } => {
                let address = *self.read(*address, &view, &mut x);
                self.set_pc(group.mask & !mask, group.pc + 1);
                self.call_indirect(launch, common, access, group, mask, &address, frame)?;
                return Ok(false);
            }
            Op::Return => {
                self.set_pc(group.mask & !mask, group.pc + 1);
                self.ret(launch, mask, common);
                return Ok(false);
            }
            Op::Exit => {
                self.set_pc(group.mask & !mask, group.pc + 1);
                self.exit(mask, common);
                return Ok(false);
            }
            Op::Trap => return Err(Fault::Trap),
            Op::Barrier { id, count, wait, reduce } => {
                let id = *self.read(*id, &view, &mut x);
                let count = count.map(|count| *self.read(count, &view, &mut y));
                let reduce = reduce.map(|(kind, dst, p, _)| (kind, dst, *self.read(p, &view, &mut z)));
                self.set_pc(group.mask, group.pc + 1);
                self.arrive(common, mask, &id, count.as_ref(), reduce.as_ref())?;
                if *wait {
                    for lane in lanes(mask) {
                        let result = reduce.as_ref().map(|(kind, dst, _)| (*kind, group.base + dst));
                        // The id was checked just above.
                        self.wait(
                            1 << lane,
                            Wait::Barrier { id: usize::try_from(id[lane]).unwrap_or(0), result },
                        );
                    }
                }
                return Ok(false);
            }
            Op::BarrierWarp { mask: members } => {
                let members = *self.read(*members, &view, &mut x);
                if lanes(mask).all(|lane| u32_of(members[lane]) & self.live & !mask == 0) {
                    group.pc += 1;
                    return Ok(true);
                }
                self.set_pc(group.mask, group.pc + 1);
                lanes(mask).for_each(|lane| self.wait(1 << lane, Wait::Warp(u32_of(members[lane]))));
                return Ok(false);
            }
            op @ (Op::Shuffle { .. }
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::Reduce { .. }
            | Op::Elect { .. }) => {
                let done = self.across(op, &view, mask);
                if done != mask {
                    self.set_pc(group.mask & !mask | done, group.pc + 1);
                    self.set_pc(mask & !done, group.pc);
                    return Ok(false);
                }
            }
            Op::ActiveMask { dst } => self.write(group.base + dst, mask, &[u64::from(mask); 32]),
            Op::Fence => std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst),
            Op::Nothing => {}
        }
        group.pc += 1;
        Ok(true)
    }

    /// The lanes of `src`; computed into `buffer` if it is no register.
    pub(super) fn read<'s>(&'s self, src: Src, view: &View<'_, '_>, buffer: &'s mut Lanes) -> &'s Lanes {
        let params = view.launch.params.len() as u64;
        match src {
            Src::Reg(slot) => return &self.rows[(view.group.base + slot) as usize],
            Src::Imm(value) => *buffer = [value; 32],
            Src::Global(index, offset) => {
                *buffer = [view.launch.globals[index].wrapping_add_signed(offset); 32]
            }
            Src::Reference(index) => *buffer = [view.launch.references[index]; 32],
            Src::Local(offset) => {
                self.each(buffer, |lane| u64::from(self.threads[lane].local_base) + u64::from(offset));
            }
            // The kernel's own parameters come first; a called function's frame lies behind them.
            Src::Param(offset) => self.each(buffer, |lane| {
                let thread = &self.threads[lane];
                let frame = if thread.frames.is_empty() { 0 } else { params + u64::from(thread.param_base) };
                frame + u64::from(offset)
            }),
            Src::Special(special) => self.special(special, view, buffer),
        }
        buffer
    }

    fn each(&self, buffer: &mut Lanes, value: impl Fn(usize) -> u64) {
        for (lane, out) in buffer.iter_mut().enumerate().take(self.threads.len()) {
            *out = value(lane);
        }
    }

    fn special(&self, special: Special, view: &View<'_, '_>, buffer: &mut Lanes) {
        let View { launch, common, .. } = *view;
        let first = 32 * self.index;
        let [bx, by, _] = launch.block;
        let same = |value: u32| [u64::from(value); 32];
        *buffer = match special {
            Special::Ntid(axis) => same(launch.block[usize::from(axis)]),
            Special::Nctaid(axis) => same(launch.grid[usize::from(axis)]),
            Special::Ctaid(axis) => same(common.at[usize::from(axis)]),
            Special::WarpId => same(self.index),
            Special::NwarpId => same(launch.threads.div_ceil(32)),
            Special::SmId => same(launch.processor(common.index)),
            Special::NsmId => same(crate::MULTIPROCESSORS),
            Special::GridId => same(1),
            Special::Clock => [common.clock & 0xffff_ffff; 32],
            Special::Clock64 => [common.clock; 32],
            Special::GlobalTimer => {
                [u64::try_from(launch.started.elapsed().as_nanos()).unwrap_or(u64::MAX); 32]
            }
            Special::DynamicShared => same(launch.dynamic_start),
            Special::DynamicSharedBytes => same(launch.dynamic_bytes),
            Special::TotalSharedBytes => same(launch.shared_bytes()),
            Special::Tid(0) => std::array::from_fn(|lane| u64::from((first + number(lane)) % bx)),
            Special::Tid(1) => std::array::from_fn(|lane| u64::from((first + number(lane)) / bx % by)),
            Special::Tid(_) => std::array::from_fn(|lane| u64::from((first + number(lane)) / bx / by)),
            Special::LaneId => std::array::from_fn(|lane| lane as u64),
            Special::LaneMaskEq => std::array::from_fn(|lane| 1 << lane),
            Special::LaneMaskLt => std::array::from_fn(|lane| (1 << lane) - 1),
            Special::LaneMaskLe => std::array::from_fn(|lane| (2 << lane) - 1),
            Special::LaneMaskGt => std::array::from_fn(|lane| 0xffff_ffff & !((2 << lane) - 1)),
            Special::LaneMaskGe => std::array::from_fn(|lane| 0xffff_ffff & !((1 << lane) - 1)),
        };
    }

    /// Writes the lanes of `mask` of one row.
    pub(super) fn write(&mut self, row: u32, mask: u32, values: &Lanes) {
        let row = &mut self.rows[row as usize];
        if mask == u32::MAX {
            *row = *values;
        } else {
            lanes(mask).for_each(|lane| row[lane] = values[lane]);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one instruction")]
    fn load(
        &mut self,
        places: &Lanes,
        address: &Address,
        (width, signed): (u32, bool),
        dst: &[Option<Dst>],
        mask: u32,
        view: &View<'_, '_>,
        access: &mut Access<'_>,
    ) -> Result<(), Fault> {
        let total = width * u32::try_from(dst.len()).unwrap_or(1);
        let unused = 64 - 8 * width;
        for (index, dst) in (0..).zip(dst) {
            let mut out = [0; 32];
            for lane in lanes(mask) {
                let target = Target { area: address.area, at: place(places[lane], address), bytes: total };
                let part = (width * index, width);
                let value = access.load(target, part, &self.threads[lane], &view.common.shared)?;
                out[lane] = if signed {
                    (value << unused).cast_signed().wrapping_shr(unused).cast_unsigned()
                } else {
                    value
                };
            }
            let Some(dst) = dst else { continue };
            out.iter_mut().for_each(|value| *value &= dst.mask);
            self.write(view.group.base + dst.slot, mask, &out);
        }
        Ok(())
    }

    fn arrive(
        &self,
        common: &mut Common,
        mask: u32,
        id: &Lanes,
        count: Option<&Lanes>,
        reduce: Option<&(BarReduce, u32, Lanes)>,
    ) -> Result<(), Fault> {
        for lane in lanes(mask) {
            let barrier = usize::try_from(id[lane]).ok().and_then(|id| common.barriers.get_mut(id));
            let barrier = barrier.ok_or(Fault::IllegalInstruction("a barrier above 15"))?;
            // `bar.arrive` does not wait: a loop of them may come more often than can be counted.
            barrier.arrived = barrier.arrived.saturating_add(1);
            barrier.expected = count.map(|count| u32_of(count[lane]));
            barrier.ones =
                barrier.ones.saturating_add(u32::from(reduce.is_some_and(|(_, _, p)| p[lane] & 1 == 1)));
        }
        Ok(())
    }
}

/// What an instruction may look at beside its warp.
pub(super) struct View<'a, 'l> {
    pub launch: &'a Launch<'l>,
    pub common: &'a Common,
    pub group: Group,
}

/// The address that a lane's base and the instruction's displacement make.
fn place(base: u64, address: &Address) -> u64 {
    base.wrapping_add_signed(address.offset)
}

/// A lane's number.
pub(super) fn number(lane: usize) -> u32 {
    u32::try_from(lane & 31).unwrap_or(0)
}

pub(super) fn u32_of(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}
