//! Calls of functions, of ones in the image and of the device's own.

use super::access::{Access, Target};
use super::block::Common;
use super::printf;
use super::warp::{Frame, Group, Thread, Warp, entry, lanes};
use super::{LOCAL_BYTES_MAX, Launch};
use crate::Fault;
use crate::code::{Area, Builtin, CODE_WINDOW, CallFrame, Function, FunctionKind, Lanes, Op};

/// Deepest nesting of calls of one thread.
const FRAMES_MAX: usize = 4096;
/// Most parameter space of one thread in bytes.
const PARAM_BYTES_MAX: usize = 512 << 10;

impl Warp {
    #[expect(clippy::too_many_arguments, reason = "the parts of one instruction")]
    pub(super) fn call(
        &mut self,
        launch: &Launch<'_>,
        common: &mut Common,
        access: &mut Access<'_>,
        group: &Group,
        mask: u32,
        function: usize,
        call: &CallFrame,
    ) -> Result<(), Fault> {
        let callee = &launch.program.functions[function];
        if let FunctionKind::Builtin(builtin) = callee.kind {
            for lane in lanes(mask) {
                self.builtin(builtin, callee, call, lane, launch, common, access)?;
            }
            self.set_pc(mask, group.pc + 1);
            return Ok(());
        }
        let start = entry(callee, CODE_WINDOW)?;
        let Some(top) = lanes(mask).map(|lane| self.top[lane]).next() else { return Ok(()) };
        let new_top = self.grow(top, callee)?;
        for lane in lanes(mask) {
            self.push_frame(launch, lane, group.pc, callee, call)?;
            self.threads[lane].function = function;
            (self.pc[lane], self.base[lane], self.top[lane]) = (start, top, new_top);
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one instruction")]
    pub(super) fn call_indirect(
        &mut self,
        launch: &Launch<'_>,
        common: &mut Common,
        access: &mut Access<'_>,
        group: &Group,
        mask: u32,
        addresses: &Lanes,
        call: &CallFrame,
    ) -> Result<(), Fault> {
        let mut rest = mask;
        while rest != 0 {
            let address = addresses[rest.trailing_zeros() as usize];
            let same =
                lanes(rest).filter(|&lane| addresses[lane] == address).fold(0, |all, lane| all | 1 << lane);
            let index = address.checked_sub(CODE_WINDOW).filter(|at| at % 16 == 0).map(|at| at / 16);
            let index = index.and_then(|index| usize::try_from(index).ok());
            let callee = index.and_then(|index| Some((index, launch.program.functions.get(index)?)));
            let (index, callee) = callee.ok_or(Fault::InvalidPc(address))?;
            // A call through a pointer of another type would read past what the caller has: the sizes must agree in number.
            if callee.parameters.len() != call.arguments.len() || callee.returns.len() != call.returns.len() {
                return Err(Fault::InvalidPc(address));
            }
            self.call(launch, common, access, group, same, index, call)?;
            rest &= !same;
        }
        Ok(())
    }

    fn push_frame(
        &mut self,
        launch: &Launch<'_>,
        lane: usize,
        pc: u32,
        callee: &Function,
        call: &CallFrame,
    ) -> Result<(), Fault> {
        let (base, top) = (self.base[lane], self.top[lane]);
        let thread = &mut self.threads[lane];
        let frame = Frame {
            call: pc,
            base,
            top,
            local_base: thread.local_base,
            param_base: thread.param_base,
            function: thread.function,
        };
        let local_base = thread.local.len();
        let local_end = local_base + callee.local_bytes as usize;
        let param_base = thread.param.len();
        let param_end = param_base + callee.param_bytes as usize;
        if thread.frames.len() >= FRAMES_MAX
            || local_end > LOCAL_BYTES_MAX as usize
            || param_end > PARAM_BYTES_MAX
        {
            return Err(Fault::StackOverflow);
        }
        thread.local.resize(local_end, 0);
        thread.param.resize(param_end, 0);
        for (&(from, _), &(to, bytes)) in call.arguments.iter().zip(&callee.parameters) {
            let from = thread.caller_param(launch, from);
            copy(&mut thread.param, param_base + to as usize, from, bytes as usize)?;
        }
        thread.frames.push(frame);
        // Both ends were just held against limits far below 4 GiB.
        thread.local_base = u32::try_from(local_base).map_err(|_| Fault::StackOverflow)?;
        thread.param_base = u32::try_from(param_base).map_err(|_| Fault::StackOverflow)?;
        Ok(())
    }

    /// Returns from a function, or ends a thread of the kernel itself.
    pub(super) fn ret(&mut self, launch: &Launch<'_>, mask: u32, common: &mut Common) {
        for lane in lanes(mask) {
            let thread = &mut self.threads[lane];
            let Some(frame) = thread.frames.pop() else {
                self.exit(1 << lane, common);
                continue;
            };
            let callee = &launch.program.functions[thread.function];
            let own = thread.param_base as usize;
            let results: Vec<_> =
                callee.returns.iter().map(|&(from, bytes)| (own + from as usize, bytes as usize)).collect();
            (thread.param_base, thread.function) = (frame.param_base, frame.function);
            let code = &launch.program.code[frame.call as usize];
            if let Op::Call { frame: call, .. } | Op::CallIndirect { frame: call, .. } = &code.op {
                for (&(to, _), &(from, bytes)) in call.returns.iter().zip(&results) {
                    let to = thread.caller_param(launch, to);
                    // A caller that has less room than the callee returns gets what fits.
                    let _ = copy(&mut thread.param, to.unwrap_or(usize::MAX), Some(from), bytes);
                }
            }
            thread.param.truncate(own);
            thread.local.truncate(thread.local_base as usize);
            thread.local_base = frame.local_base;
            (self.pc[lane], self.base[lane], self.top[lane]) = (frame.call + 1, frame.base, frame.top);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one instruction")]
    fn builtin(
        &mut self,
        builtin: Builtin,
        callee: &Function,
        call: &CallFrame,
        lane: usize,
        launch: &Launch<'_>,
        common: &mut Common,
        access: &mut Access<'_>,
    ) -> Result<(), Fault> {
        let at = |call: &[(u32, u32)], index: usize, warp: &Self| {
            let (offset, _) = *call.get(index)?;
            let base = if warp.threads[lane].frames.is_empty() { 0 } else { launch.params.len() as u64 };
            Some(base + u64::from(warp.threads[lane].param_base) + u64::from(offset))
        };
        let mut arguments = [0; 5];
        for (index, (value, &(_, bytes))) in arguments.iter_mut().zip(&callee.parameters).enumerate() {
            let Some(at) = at(&call.arguments, index, self) else { break };
            let target = Target { area: Area::Param, at, bytes };
            if !matches!(bytes, 1 | 2 | 4 | 8) {
                return Err(Fault::IllegalInstruction("a parameter of a device function"));
            }
            *value = access.load(target, (0, bytes), &self.threads[lane], &common.shared)?;
        }
        let result = match builtin {
            Builtin::Printf => {
                printf::print(access, &self.threads[lane], common, arguments[0], arguments[1])?
            }
            Builtin::AssertFail => return Err(self.assertion(access, launch, common, lane, &arguments)?),
            Builtin::Malloc | Builtin::Free => 0,
            Builtin::SetConditional => {
                // The second parameter has 32 bits.
                let value = u32::try_from(arguments[1] & u64::from(u32::MAX)).unwrap_or(0);
                launch.conditions.into_iter().for_each(|conditions| conditions.set(arguments[0], value));
                0
            }
        };
        if let (Some(&(_, bytes)), Some(at)) = (callee.returns.first(), at(&call.returns, 0, self))
            && matches!(bytes, 4 | 8)
        {
            let target = Target { area: Area::Param, at, bytes };
            access.store(target, (0, bytes), result, &mut self.threads[lane], &mut common.shared)?;
        }
        Ok(())
    }

    /// The text that CUDA prints about a failed `assert`.
    fn assertion(
        &self,
        access: &mut Access<'_>,
        launch: &Launch<'_>,
        common: &Common,
        lane: usize,
        arguments: &[u64; 5],
    ) -> Result<Fault, Fault> {
        let thread = &self.threads[lane];
        let mut text = |at: u64| {
            let bytes = access.read(at, 4096, true, thread, &common.shared)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (message, file, function) = (text(arguments[0])?, text(arguments[1])?, text(arguments[3])?);
        let line = arguments[2];
        let index = 32 * self.index + u32::try_from(lane).unwrap_or(0);
        let [bx, by, _] = launch.block;
        let (x, y, z) = (index % bx, index / bx % by, index / bx / by);
        let [i, j, k] = common.at;
        Ok(Fault::Assert(format!(
            "{file}:{line}: {function}: block: [{i},{j},{k}], thread: [{x},{y},{z}] Assertion `{message}` failed."
        )))
    }
}

impl Thread {
    /// Where a parameter of the running function's frame lies in the thread's own space. The kernel's own lie elsewhere.
    fn caller_param(&self, launch: &Launch<'_>, offset: u32) -> Option<usize> {
        if self.frames.is_empty() {
            return (offset as usize).checked_sub(launch.params.len());
        }
        Some(self.param_base as usize + offset as usize)
    }
}

/// Copies inside a thread's parameter space.
fn copy(space: &mut [u8], to: usize, from: Option<usize>, bytes: usize) -> Result<(), Fault> {
    let from = from.ok_or(Fault::IllegalInstruction("a kernel's parameter given on to a function"))?;
    let fits = |start: usize| start.checked_add(bytes).is_some_and(|end| end <= space.len());
    if !fits(from) || !fits(to) {
        return Err(Fault::IllegalInstruction("a call with parameters of other sizes"));
    }
    space.copy_within(from..from + bytes, to);
    Ok(())
}
