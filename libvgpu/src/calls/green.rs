//! Green contexts. What a program holds of multiprocessors says how it was got (`vgpu_api::green`); descriptors never travel. A green context
//! is a context of this process (`core/contexts.rs`), and its handle is that one's under another kind.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use vgpu_api::green::{GROUPS_MAX, REST};
use vgpu_api::handle::{Handle, NewHandle, kind};
use vgpu_api::symbols::Mode;
use vgpu_api::{ContextId, CuError, CuResult, SmResource, SmSource, SmSplit, ask};

use super::context::{record, wait};
use super::device::device;
use super::primary;
use super::stream::{known, make_in};
use super::stream_attribute;
use crate::abi::{In, Out, Raw, export};
use crate::core::contexts::{Created, Green, current, enter_with};
use crate::core::process::{Process, process};
use crate::core::slab::lock;
use crate::core::streams::legacy_info;
use crate::dark::cls;

/// `CU_DEV_RESOURCE_TYPE_SM`.
const SM: u32 = 1;
/// `CU_GREEN_CTX_DEFAULT_STREAM`.
const DEFAULT_STREAM: u32 = 1;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;
/// What this library's own resources begin with: what else says that it is one was made by nobody.
const MARK: u32 = u32::from_le_bytes(*b"vgSM");
/// As a part's number: all that there is.
const WHOLE: u32 = u32::MAX - 1;

/// `CUdevResource`: 96 bytes of type and what is ours, 48 of what it says.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DevResource {
    kind: u32,
    mark: u32,
    /// Which call of this process split it; 0: none.
    instance: u32,
    device: u32,
    green: u32,
    groups: u32,
    flags: u32,
    count_min: u32,
    part: u32,
    own: [u32; 15],
    count: u32,
    group_min: u32,
    group_step: u32,
    more: [u32; 9],
}
const _: () = assert!(size_of::<DevResource>() == 144 && std::mem::offset_of!(DevResource, count) == 96);

/// How a resource was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Got {
    instance: u32,
    of: SmSource,
    split: SmSplit,
    part: u32,
}

impl Got {
    fn whole(device: u32, green: ContextId) -> Self {
        Self { instance: 0, of: SmSource { device, green }, split: SmSplit::default(), part: WHOLE }
    }

    fn as_resource(self, says: SmResource) -> DevResource {
        let Self { instance, of, split, part } = self;
        DevResource {
            kind: SM,
            mark: MARK,
            instance,
            device: of.device,
            green: of.green.0,
            groups: split.groups,
            flags: split.flags,
            count_min: split.count_min,
            part,
            own: [0; 15],
            count: says.count,
            group_min: says.group_min,
            group_step: says.group_step,
            more: [0; 9],
        }
    }
}

impl DevResource {
    /// What it was got by, as far as its bytes are to be believed: the worker checks all of it again.
    /// # Errors
    /// 914 for what is no multiprocessors, 1 for what this library has not made.
    fn got(self) -> CuResult<Got> {
        if self.kind != SM {
            return Err(CuError::INVALID_RESOURCE_TYPE);
        }
        if self.mark != MARK {
            return Err(CuError::INVALID_VALUE);
        }
        let Self { instance, device, green, groups, flags, count_min, part, .. } = self;
        let of = SmSource { device, green: ContextId(green) };
        Ok(Got { instance, of, split: SmSplit { groups, flags, count_min }, part })
    }

    /// Nothing.
    fn none() -> Self {
        let got = Got::whole(0, ContextId::NONE);
        Self { kind: 0, mark: 0, part: 0, ..got.as_resource(SmResource::default()) }
    }
}

/// What a descriptor says. CUDA has no call that ends one, so each content has one for good.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Described {
    of: SmSource,
    split: SmSplit,
    /// In order. None: all.
    parts: Vec<u32>,
}

static DESCRIBED: LazyLock<Mutex<Vec<Described>>> = LazyLock::new(Mutex::default);

fn described(raw: Raw) -> CuResult<Described> {
    let handle = Handle::<kind::ResourceDesc>::check(raw.0)?;
    let place = usize::try_from(handle.index()).map_err(|_| CuError::INVALID_VALUE)?;
    lock(&DESCRIBED).get(place).cloned().ok_or(CuError::INVALID_VALUE)
}

/// The handle of a green context; of none, NULL.
pub fn green_handle(green: ContextId) -> u64 {
    if green == ContextId::NONE { 0 } else { green.handle().as_kind::<kind::Green>().raw() }
}

/// A green context that lives.
fn green(process: &Process, raw: Raw) -> CuResult<(ContextId, Created, Green)> {
    let handle = Handle::<kind::Green>::check(raw.0)?;
    let context = ContextId::of_handle(handle.as_kind()).ok_or(CuError::INVALID_CONTEXT)?;
    let context = process.contexts.once_named(context.handle().raw())?;
    process.contexts.alive(context)?;
    let created = process.contexts.created(context)?;
    Ok((context, created, created.green.ok_or(CuError::INVALID_CONTEXT)?))
}

fn check_type(kind: u32) -> CuResult<()> {
    if kind == SM { Ok(()) } else { Err(CuError::INVALID_RESOURCE_TYPE) }
}

fn device_resource(process: &Process, number: u32) -> CuResult<DevResource> {
    let got = Got::whole(number, ContextId::NONE);
    Ok(got.as_resource(ask::vgpuSmResource(&process.channel, current(), got.of)?))
}

fn green_resource(process: &Process, context: ContextId) -> CuResult<DevResource> {
    let created = process.contexts.created(context)?;
    let number = process.contexts.number(created.device)?;
    let green = created.green.ok_or(CuError::INVALID_CONTEXT)?;
    Ok(Got::whole(number, context).as_resource(green.multiprocessors))
}

fn split(
    result: Out<DevResource>,
    count: Out<u32>,
    input: In<DevResource>,
    rest: Out<DevResource>,
    (flags, count_min): (u32, u32),
) -> CuResult<()> {
    static INSTANCES: AtomicU32 = AtomicU32::new(1);
    let process = process()?;
    let is_asked = result.wanted().is_err();
    let wanted = if is_asked { count.wanted().map(|_| 0)? } else { count.get()? };
    let whole = input.get()?.got()?;
    if whole.part != WHOLE {
        return Err(CuError::INVALID_RESOURCE_CONFIGURATION);
    }
    if wanted == 0 && !is_asked {
        return Err(CuError::INVALID_VALUE);
    }
    let split = SmSplit { groups: wanted.min(GROUPS_MAX), flags, count_min };
    let made = ask::vgpuSmSplit(&process.channel, current(), whole.of, split)?;
    count.set(made.groups)?;
    if is_asked {
        return Ok(());
    }
    let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
    let part = |part| Got { instance, split, part, ..whole };
    result.set_all((0..made.groups.min(wanted)).map(|number| part(number).as_resource(made.each)))?;
    let is_left = made.rest.count > 0;
    rest.set_if_wanted(if is_left { part(REST).as_resource(made.rest) } else { DevResource::none() });
    Ok(())
}

fn describe(out: Out<u64>, resources: In<DevResource>, count: u32) -> CuResult<()> {
    process()?;
    out.wanted()?;
    if count == 0 {
        return Err(CuError::INVALID_VALUE);
    }
    let got = (0..count as usize).map(|place| resources.at(place)?.got()).collect::<CuResult<Vec<_>>>()?;
    let first = got[0];
    let mut parts: Vec<u32> = got.iter().map(|got| got.part).collect();
    parts.sort_unstable();
    parts.dedup();
    let are_of_one =
        got.iter().all(|got| (got.instance, got.of, got.split) == (first.instance, first.of, first.split));
    if !are_of_one || parts.len() != got.len() {
        return Err(CuError::INVALID_RESOURCE_CONFIGURATION);
    }
    parts.retain(|part| *part != WHOLE);
    let described = Described { of: first.of, split: first.split, parts };
    let mut all = lock(&DESCRIBED);
    let place = all.iter().position(|known| *known == described).unwrap_or(all.len());
    if place == all.len() {
        all.push(described);
    }
    out.set(Handle::<kind::ResourceDesc>::new(0, place as u64).raw())
}

fn create(out: Out<u64>, desc: Raw, dev: i32, flags: u32) -> CuResult<()> {
    let process = process()?;
    out.wanted()?;
    let Described { of, split, parts } = described(desc)?;
    let (ordinal, _) = device(process, dev)?;
    let number = process.contexts.number(ordinal)?;
    if flags != DEFAULT_STREAM || of.device != number {
        return Err(CuError::INVALID_VALUE);
    }
    process.channel.take_error()?;
    let held = process.contexts.primary(number)?;
    primary::hold(process, number, held)?;
    let (primary, context) = (ContextId::primary(number), process.contexts.next_id());
    let stream = process.streams.insert(legacy_info(primary, context));
    let made =
        ask::vgpuGreenCreate(&process.channel, ContextId::NONE, context, NewHandle(stream), of, split, parts);
    match made {
        Ok(multiprocessors) => {
            let green = Some(Green { primary, stream, multiprocessors });
            process.contexts.add(context, Created { device: ordinal, flags: 0, green });
            out.set(green_handle(context))
        }
        Err(error) => {
            let _ = process.streams.end(stream, |_| ());
            primary::let_go(process, number, held)?;
            Err(error)
        }
    }
}

/// It stays current where it is: calls say then that it has ended.
fn destroy(raw: Raw) -> CuResult<()> {
    let process = process()?;
    let (context, created, green) = green(process, raw)?;
    // Of two threads that destroy it, one.
    process.contexts.remove(context)?;
    let result = ask::vgpuGreenDestroy(&process.channel, ContextId::NONE, context);
    let _ = process.streams.end(green.stream, |_| ());
    for (stream, known) in process.streams.end_with_owner(|known| known.green == context) {
        process.graphs.stream_ended(stream);
        stream_attribute::forget(&known);
    }
    cls::take(context).run();
    let number = process.contexts.number(created.device)?;
    primary::let_go(process, number, process.contexts.primary(number)?)?;
    result
}

export! {
    fn cuDeviceGetDevResource(dev: i32, out: Out<DevResource>, kind: u32) {
        let process = process()?;
        let (ordinal, _) = device(process, dev)?;
        out.wanted()?;
        check_type(kind)?;
        out.set(device_resource(process, process.contexts.number(ordinal)?)?)
    }

    fn cuCtxGetDevResource(context: Raw, out: Out<DevResource>, kind: u32) {
        let process = process()?;
        let context = process.contexts.named(context.0)?;
        let ordinal = process.contexts.alive(context)?;
        out.wanted()?;
        check_type(kind)?;
        out.set(match process.contexts.green(context) {
            Some(_) => green_resource(process, context)?,
            None => device_resource(process, process.contexts.number(ordinal)?)?,
        })
    }

    fn cuGreenCtxGetDevResource(raw: Raw, out: Out<DevResource>, kind: u32) {
        let process = process()?;
        let (context, _, _) = green(process, raw)?;
        out.wanted()?;
        check_type(kind)?;
        out.set(green_resource(process, context)?)
    }

    fn cuDevSmResourceSplitByCount(
        result: Out<DevResource>, count: Out<u32>, input: In<DevResource>, rest: Out<DevResource>, flags: u32, min: u32
    ) {
        split(result, count, input, rest, (flags, min))
    }

    fn cuDevResourceGenerateDesc(out: Out<u64>, resources: In<DevResource>, count: u32) {
        describe(out, resources, count)
    }

    fn cuGreenCtxCreate(out: Out<u64>, desc: Raw, dev: i32, flags: u32) {
        create(out, desc, dev, flags)
    }

    fn cuGreenCtxDestroy(raw: Raw) {
        destroy(raw)
    }

    fn cuCtxFromGreenCtx(out: Out<u64>, raw: Raw) {
        let (context, _, _) = green(process()?, raw)?;
        out.set(context.handle().raw())
    }

    fn cuGreenCtxRecordEvent(raw: Raw, event: Raw) {
        record(green(process()?, raw)?.0, event)
    }

    fn cuGreenCtxWaitEvent(raw: Raw, event: Raw) {
        wait(green(process()?, raw)?.0, event)
    }

    fn cuStreamGetGreenCtx(stream: Raw, out: Out<u64>) {
        out.set(green_handle(known(stream, Mode::Legacy)?.1.green))
    }

    fn cuGreenCtxStreamCreate(out: Out<u64>, raw: Raw, flags: u32, priority: i32) {
        let process = process()?;
        let entered = enter_with(process, green(process, raw)?.0)?;
        if flags != NON_BLOCKING {
            return Err(CuError::INVALID_VALUE);
        }
        make_in(entered, out, flags, priority)
    }

    fn cuGreenCtxGetId(raw: Raw, out: Out<u64>) {
        let process = process()?;
        let context = if raw.0 == 0 { current() } else { green(process, raw)?.0 };
        process.contexts.alive(context)?;
        process.contexts.green(context).ok_or(CuError::INVALID_CONTEXT)?;
        out.set(u64::from(context.0))
    }
}
