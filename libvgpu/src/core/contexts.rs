//! Contexts as the guest knows them: which are alive, and the stack of each thread.
//!
//! The handle of a primary context is fixed and can be current before it is retained (cuda.md 4.1): only *using* it needs a
//! retain.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use vgpu_api::handle::{Handle, kind};
use vgpu_api::{ContextId, CuError, CuResult};

use super::process::{Process, process};

/// One device's primary context.
#[derive(Debug, Default)]
pub struct Primary {
    /// Retains less releases; changed under `changing`.
    pub count: AtomicU32,
    pub flags: AtomicU32,
    /// Held while a first retain or last release travels.
    pub changing: Mutex<()>,
}

/// A context that `cuCtxCreate` made.
#[derive(Debug, Clone, Copy)]
pub struct Created {
    pub device: u32,
    pub flags: u32,
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
}

thread_local! {
    /// The current context. Apart from the stack below it: no destructor, so one load.
    static CURRENT: Cell<u32> = const { Cell::new(0) };
    static BELOW: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// The calling thread's current context.
#[inline]
pub fn current() -> ContextId {
    ContextId(CURRENT.get())
}

/// Makes `context` current in place of what was.
#[inline]
pub fn set_current(context: ContextId) {
    CURRENT.set(context.0);
}

/// Makes `context` current on top of what was.
pub fn push(context: ContextId) {
    let below = CURRENT.replace(context.0);
    // A thread whose locals are gone keeps no stack: nothing of it can pop any more.
    let _ = BELOW.try_with(|stack| stack.borrow_mut().push(below));
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
    CURRENT.set(below.unwrap_or(0));
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

    /// The ordinal of a context's device, as the program counts.
    /// # Errors
    /// 201 for what is no context of this process.
    #[inline]
    pub fn device_of(&self, context: ContextId) -> CuResult<u32> {
        let Some(number) = context.primary_device() else {
            return self.created(context).map(|created| created.device);
        };
        let ordinal =
            self.numbers.iter().position(|known| *known == number).ok_or(CuError::INVALID_CONTEXT)?;
        u32::try_from(ordinal).map_err(|_| CuError::INVALID_CONTEXT)
    }

    /// That a context can be used.
    /// # Errors
    /// 201 if there is none or it isn't retained.
    #[inline]
    pub fn alive(&self, context: ContextId) -> CuResult<()> {
        let alive = match context.primary_device() {
            Some(device) => self
                .primaries
                .get(device as usize)
                .is_some_and(|primary| primary.count.load(Ordering::Acquire) > 0),
            None => context != ContextId::NONE && self.created(context).is_ok(),
        };
        if alive { Ok(()) } else { Err(CuError::INVALID_CONTEXT) }
    }

    /// A created context.
    /// # Errors
    /// 201.
    pub fn created(&self, context: ContextId) -> CuResult<Created> {
        let created = self.created.read().unwrap_or_else(PoisonError::into_inner);
        created.get(&context).copied().ok_or(CuError::INVALID_CONTEXT)
    }

    /// A number for a context that is being created. Never given twice.
    pub fn next_id(&self) -> ContextId {
        ContextId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The worker has created it.
    pub fn add(&self, context: ContextId, created: Created) {
        self.created.write().unwrap_or_else(PoisonError::into_inner).insert(context, created);
    }

    /// The program destroys it.
    /// # Errors
    /// 201 if there is no such context.
    pub fn remove(&self, context: ContextId) -> CuResult<Created> {
        let mut created = self.created.write().unwrap_or_else(PoisonError::into_inner);
        created.remove(&context).ok_or(CuError::INVALID_CONTEXT)
    }
}

/// What a call that uses the GPU needs: the process and a living current context, and no error waiting.
#[derive(Debug, Clone, Copy)]
pub struct Entered {
    pub process: &'static Process,
    pub context: ContextId,
}

/// Enters with the current context.
/// # Errors
/// 3, 201, or the error of an earlier queued call.
#[inline]
pub fn enter() -> CuResult<Entered> {
    enter_with(process()?, current())
}

/// Enters with a context that the call names.
/// # Errors
/// As [`enter`].
#[inline]
pub fn enter_with(process: &'static Process, context: ContextId) -> CuResult<Entered> {
    process.contexts.alive(context)?;
    process.channel.take_error()?;
    Ok(Entered { process, context })
}
