//! Contexts as the guest knows them: which are alive, and the stack of each thread.
//!
//! The handle of a primary context is fixed and can be current before it is retained: only *using* it needs a
//! retain.
//!
//! Each thread remembers that its current context is alive, and when it found that out: [`Contexts::epoch`] counts the contexts that
//! ended. So the usual call asks no table and takes no lock.
//!
//! A green context is a context here, current as any other. What is made while it is current belongs to its primary context, so calls go on
//! with that one ([`Entered::context`]); only streams are its own ([`Entered::green`]).

mod green;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vgpu_api::handle::{Handle, kind};
use vgpu_api::{ContextId, CuError, CuResult};

use super::process::{Process, process};
pub use green::Green;

/// One device's primary context.
#[derive(Debug, Default)]
pub struct Primary {
    /// Retains less releases; changed under `changing`.
    pub count: AtomicU32,
    pub flags: AtomicU32,
    /// Whether it was released for the last time before.
    pub ended: AtomicBool,
    /// Held while a first retain or last release travels. Never while code of the program runs.
    pub changing: Mutex<()>,
}

/// A context that `cuCtxCreate` or `cuGreenCtxCreate` made.
#[derive(Debug, Clone, Copy)]
pub struct Created {
    pub device: u32,
    pub flags: u32,
    pub green: Option<Green>,
}

/// All contexts of the process.
#[derive(Debug)]
pub struct Contexts {
    /// By the worker's number of the device, as [`ContextId::primary`].
    primaries: Vec<Primary>,
    /// The worker's number of each ordinal that the program sees (`CUDA_VISIBLE_DEVICES`).
    numbers: Vec<u32>,
    created: RwLock<HashMap<ContextId, Created>>,
    next: AtomicU32,
    /// Counts the contexts that ended. Starts at 1: a thread that remembers nothing has 0.
    epoch: AtomicU64,
    /// Counts those that were made.
    made: AtomicU32,
}

/// A thread's current context, and the epoch in which it was found alive.
#[derive(Clone, Copy)]
struct Here {
    context: u32,
    /// Its device's ordinal and whose is what is made in it, while `alive_in` counts.
    device: u32,
    owner: u32,
    alive_in: u64,
}

impl Here {
    const fn new(context: u32) -> Self {
        Self { context, device: 0, owner: 0, alive_in: 0 }
    }
}

thread_local! {
    /// Apart from the stack below it: no destructor, so one load.
    static HERE: Cell<Here> = const { Cell::new(Here::new(0)) };
    static BELOW: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// The calling thread's current context.
#[inline]
pub fn current() -> ContextId {
    ContextId(HERE.get().context)
}

/// Makes `context` current in place of what was; [`ContextId::NONE`] takes off what was, and what lies below it is current again.
#[inline]
pub fn set_current(context: ContextId) {
    if context == ContextId::NONE {
        // Nothing to take off is no error here.
        let _ = pop();
    } else if current() != context {
        HERE.set(Here::new(context.0));
    }
}

/// Makes `context` current on top of what was.
pub fn push(context: ContextId) {
    let below = HERE.replace(Here::new(context.0));
    // A thread whose locals are gone keeps no stack: nothing of it can pop any more.
    let _ = BELOW.try_with(|stack| stack.borrow_mut().push(below.context));
}

/// Takes the current context off.
/// # Errors
/// 201 if there is none.
pub fn pop() -> CuResult<ContextId> {
    let top = current();
    if top == ContextId::NONE {
        return Err(CuError::INVALID_CONTEXT);
    }
    let below = BELOW.try_with(|stack| stack.borrow_mut().pop()).ok().flatten();
    HERE.set(Here::new(below.unwrap_or(0)));
    Ok(top)
}

impl Contexts {
    /// None is alive yet. `chosen`: the places of the devices that the program sees, of `devices` in all.
    pub fn new(devices: usize, chosen: &[usize]) -> Self {
        Self {
            primaries: (0..devices).map(|_| Primary::default()).collect(),
            numbers: chosen.iter().filter_map(|place| u32::try_from(*place).ok()).collect(),
            created: RwLock::new(HashMap::new()),
            next: AtomicU32::new(ContextId::PRIMARY_MAX + 1),
            epoch: AtomicU64::new(1),
            made: AtomicU32::new(0),
        }
    }

    /// The worker's number of the device of an ordinal.
    /// # Errors
    /// 101.
    pub fn number(&self, ordinal: u32) -> CuResult<u32> {
        self.numbers.get(ordinal as usize).copied().ok_or(CuError::INVALID_DEVICE)
    }

    /// The primary context of a device, by the worker's number.
    /// # Errors
    /// 101.
    pub fn primary(&self, number: u32) -> CuResult<&Primary> {
        self.primaries.get(number as usize).ok_or(CuError::INVALID_DEVICE)
    }

    /// The context of a program's handle; it need not be alive.
    /// # Errors
    /// 201 for what is no context of this process.
    pub fn named(&self, raw: u64) -> CuResult<ContextId> {
        let handle = Handle::<kind::Context>::check(raw)?;
        let context = ContextId::of_handle(handle).ok_or(CuError::INVALID_CONTEXT)?;
        self.device_of(context)?;
        Ok(context)
    }

    /// As [`Contexts::named`], also of one that has ended: that can be made current, and calls then say so.
    /// # Errors
    /// 1 for NULL, 201 for what never was a context of this process.
    pub fn once_named(&self, raw: u64) -> CuResult<ContextId> {
        if raw == 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let ended = |context: &ContextId| {
            context.primary_device().is_none() && context.0 < self.next.load(Ordering::Relaxed)
        };
        let context = Handle::<kind::Context>::parse(raw).and_then(ContextId::of_handle).filter(ended);
        context.map_or_else(|| self.named(raw), Ok)
    }

    /// The ordinal of a context's device, as the program counts.
    /// # Errors
    /// 201 for what is no context of this process.
    pub fn device_of(&self, context: ContextId) -> CuResult<u32> {
        let Some(number) = context.primary_device() else {
            return self.created(context).map(|created| created.device);
        };
        let ordinal =
            self.numbers.iter().position(|known| *known == number).ok_or(CuError::INVALID_CONTEXT)?;
        u32::try_from(ordinal).map_err(|_| CuError::INVALID_CONTEXT)
    }

    /// That a context can be used; the ordinal of its device.
    /// # Errors
    /// 201 if there is none or it was never retained, 709 if it has ended.
    pub fn alive(&self, context: ContextId) -> CuResult<u32> {
        match context.primary_device() {
            Some(device) => {
                let primary = self.primaries.get(device as usize).ok_or(CuError::INVALID_CONTEXT)?;
                match primary.count.load(Ordering::Acquire) {
                    0 if primary.ended.load(Ordering::Relaxed) => Err(CuError::CONTEXT_IS_DESTROYED),
                    0 => Err(CuError::INVALID_CONTEXT),
                    _ => self.device_of(context),
                }
            }
            None if context == ContextId::NONE => Err(CuError::INVALID_CONTEXT),
            // A thread has it current, so it was there once.
            None => self.device_of(context).map_err(|_| CuError::CONTEXT_IS_DESTROYED),
        }
    }

    /// That the calling thread's current context can be used.
    /// # Errors
    /// As [`Contexts::alive`].
    #[inline]
    fn here(&self) -> CuResult<Here> {
        let here = HERE.get();
        if here.alive_in == self.epoch.load(Ordering::Acquire) {
            return Ok(here);
        }
        self.look(here)
    }

    #[cold]
    fn look(&self, here: Here) -> CuResult<Here> {
        // Read before the tables: who ends a context changes them first and counts then.
        let alive_in = self.epoch.load(Ordering::Acquire);
        let (device, owner) = self.living(ContextId(here.context))?;
        let here = Here { device, owner: owner.0, alive_in, ..here };
        HERE.set(here);
        Ok(here)
    }

    /// A context was ended: what threads remember is void.
    pub fn ended(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// A created context.
    /// # Errors
    /// 201.
    pub fn created(&self, context: ContextId) -> CuResult<Created> {
        self.read().get(&context).copied().ok_or(CuError::INVALID_CONTEXT)
    }

    /// The flags of a context.
    /// # Errors
    /// 201.
    pub fn flags(&self, context: ContextId) -> CuResult<u32> {
        match context.primary_device() {
            Some(number) => Ok(self.primary(number)?.flags.load(Ordering::Relaxed)),
            None => Ok(self.created(context)?.flags),
        }
    }

    /// Changes the flags of a context.
    /// # Errors
    /// 201.
    pub fn set_flags(&self, context: ContextId, flags: u32) -> CuResult<()> {
        match context.primary_device() {
            Some(number) => self.primary(number)?.flags.store(flags, Ordering::Relaxed),
            None => self.write().get_mut(&context).ok_or(CuError::INVALID_CONTEXT)?.flags = flags,
        }
        Ok(())
    }

    /// A number for a context that is being created. Never given twice.
    pub fn next_id(&self) -> ContextId {
        ContextId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether the process never had another context than the one it has.
    pub fn is_one(&self) -> bool {
        self.made.load(Ordering::SeqCst) == 1
    }

    /// The worker has made a primary context.
    pub fn made_primary(&self) {
        self.made.fetch_add(1, Ordering::SeqCst);
    }

    /// The worker has created it.
    pub fn add(&self, context: ContextId, created: Created) {
        self.made.fetch_add(1, Ordering::SeqCst);
        self.write().insert(context, created);
    }

    /// The program destroys it.
    /// # Errors
    /// 201 if there is no such context.
    pub fn remove(&self, context: ContextId) -> CuResult<Created> {
        let created = self.write().remove(&context).ok_or(CuError::INVALID_CONTEXT)?;
        self.ended();
        Ok(created)
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ContextId, Created>> {
        self.created.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ContextId, Created>> {
        self.created.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call that uses the GPU needs: the process and a living current context, and no error waiting.
#[derive(Debug, Clone, Copy)]
pub struct Entered {
    pub process: &'static Process,
    pub context: ContextId,
    /// The green context of that one which is current, or [`ContextId::NONE`].
    pub green: ContextId,
    /// The ordinal of the context's device.
    pub device: u32,
}

/// Enters with the current context.
/// # Errors
/// 3, 201, or the error of an earlier queued call.
#[inline]
pub fn enter() -> CuResult<Entered> {
    let entered = enter_to_end()?;
    entered.told()?;
    Ok(entered)
}

/// Enters for a call that ends something. The error of an earlier call doesn't keep it from that: [`Entered::told`] follows.
/// # Errors
/// 3, 201.
#[inline]
pub fn enter_to_end() -> CuResult<Entered> {
    let process = process()?;
    let Here { context, device, owner, .. } = process.contexts.here()?;
    Ok(Entered::of(process, ContextId(context), ContextId(owner), device))
}

/// Enters with a context that the call names.
/// # Errors
/// As [`enter`].
pub fn enter_with(process: &'static Process, context: ContextId) -> CuResult<Entered> {
    let (device, owner) = process.contexts.living(context)?;
    process.channel.take_error()?;
    Ok(Entered::of(process, context, owner, device))
}

impl Entered {
    #[inline]
    fn of(process: &'static Process, context: ContextId, owner: ContextId, device: u32) -> Self {
        let green = if owner == context { ContextId::NONE } else { context };
        Self { process, context: owner, green, device }
    }

    /// The context as the program calls it.
    pub fn named(self) -> ContextId {
        if self.green == ContextId::NONE { self.context } else { self.green }
    }

    /// That no earlier queued call failed.
    /// # Errors
    /// Its error.
    #[inline]
    pub fn told(self) -> CuResult<()> {
        self.process.channel.take_error()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_no_context_takes_one_off_and_what_lies_below_is_current_again() {
        push(ContextId(1));
        push(ContextId(2));
        set_current(ContextId(3));
        set_current(ContextId::NONE);
        assert_eq!(current(), ContextId(1));
        set_current(ContextId::NONE);
        set_current(ContextId::NONE);
        assert_eq!((current(), pop()), (ContextId::NONE, Err(CuError::INVALID_CONTEXT)));
    }

    #[test]
    fn what_a_thread_remembers_of_a_context_ends_with_it() {
        let contexts = Contexts::new(2, &[1]);
        let made = contexts.next_id();
        contexts.add(made, Created { device: 0, flags: 0, green: None });
        set_current(made);
        let here = || contexts.here().map(|here| (ContextId(here.context), here.device));
        assert_eq!((here(), here()), (Ok((made, 0)), Ok((made, 0))));
        contexts.remove(made).unwrap();
        assert_eq!(here(), Err(CuError::CONTEXT_IS_DESTROYED));
        set_current(ContextId::primary(1));
        assert_eq!(here(), Err(CuError::INVALID_CONTEXT), "not retained");
        contexts.primary(1).unwrap().count.store(1, Ordering::Release);
        assert_eq!(here(), Ok((ContextId::primary(1), 0)), "ordinal 0 is the worker's device 1");
        set_current(ContextId::primary(0));
        assert_eq!(here(), Err(CuError::INVALID_CONTEXT), "a device that the program doesn't see");
        set_current(ContextId::NONE);
    }
}
