//! Kernels: their layout, and what is known of their attributes and occupancy.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use vgpu_api::image::FUNCTION_ATTRIBUTES;
use vgpu_api::{Attributes, CuError, CuResult, FunctionHandle, FunctionInfo, ParamInfo, ask};

use super::contexts::Entered;
use super::slab::lock;

/// Answers about occupancy that are kept of one kernel.
const OCCUPANCIES_MAX: usize = 256;

/// One kernel.
#[derive(Debug)]
pub struct Function {
    pub name: CString,
    pub params: Vec<ParamInfo>,
    /// The packed parameter block.
    pub param_bytes: usize,
    attributes: OnceLock<[AtomicI32; FUNCTION_ATTRIBUTES]>,
    /// As the worker has them, which all loads of the same bytes share.
    pub pristine: Arc<Pristine>,
    /// Whether the program has set one of this load's.
    is_set: AtomicBool,
    /// The round of [`super::limits`] in which it was launched last, counted from 1.
    launched_in: AtomicU32,
    occupancy: Mutex<HashMap<(u32, u64, u32), u32>>,
}

/// Attributes of a kernel before any was set, once they are known.
pub type Pristine = OnceLock<[i32; FUNCTION_ATTRIBUTES]>;

/// As many as there are, 0 for those that the worker doesn't know.
fn all(attributes: &Attributes) -> [i32; FUNCTION_ATTRIBUTES] {
    std::array::from_fn(|number| attributes.values.get(number).copied().unwrap_or(0))
}

impl Function {
    /// `pristine`: of an earlier load of the same bytes, or nothing yet.
    /// # Errors
    /// A name that is none, or more parameters than there can be.
    pub fn new(info: &FunctionInfo, pristine: Arc<Pristine>) -> CuResult<Self> {
        let made = Self {
            name: CString::new(info.name.as_str()).map_err(|_| CuError::UNKNOWN)?,
            params: info.params.clone(),
            param_bytes: usize::try_from(info.param_bytes()).map_err(|_| CuError::UNKNOWN)?,
            attributes: OnceLock::new(),
            pristine,
            is_set: AtomicBool::new(false),
            launched_in: AtomicU32::new(0),
            occupancy: Mutex::new(HashMap::new()),
        };
        if !info.attributes.values.is_empty() {
            let _ = made.pristine.set(all(&info.attributes));
        }
        if let Some(values) = made.pristine.get() {
            made.learn(*values);
        }
        Ok(made)
    }

    fn learn(&self, values: [i32; FUNCTION_ATTRIBUTES]) {
        // Two threads may learn at once; what they learn is the same.
        let _ = self.attributes.set(values.map(AtomicI32::new));
    }

    /// An attribute, if it is known without asking.
    #[inline]
    pub fn known_attribute(&self, number: u32) -> Option<i32> {
        Some(self.attributes.get()?.get(number as usize)?.load(Ordering::Relaxed))
    }

    /// An attribute; asks the worker the first time if the load reply left it out.
    pub fn attribute(&self, entered: Entered, handle: FunctionHandle, number: u32) -> CuResult<i32> {
        if number as usize >= FUNCTION_ATTRIBUTES {
            return Err(CuError::INVALID_VALUE);
        }
        if self.attributes.get().is_none() {
            self.learn(self.ask(entered, handle)?);
        }
        self.known_attribute(number).ok_or(CuError::INVALID_VALUE)
    }

    /// Once for all loads of the same bytes, but for one of which the program has set attributes before it asked for any.
    fn ask(&self, entered: Entered, handle: FunctionHandle) -> CuResult<[i32; FUNCTION_ATTRIBUTES]> {
        let is_set = || self.is_set.load(Ordering::Acquire);
        if let Some(values) = self.pristine.get().filter(|_| !is_set()) {
            return Ok(*values);
        }
        let values = all(&ask::vgpuFunctionAttributes(&entered.process.channel, entered.context, handle)?);
        if !is_set() {
            let _ = self.pristine.set(values);
        }
        Ok(values)
    }

    /// Whether it was launched in this round of [`super::limits`].
    pub fn launched_in(&self, round: u32) -> bool {
        self.launched_in.load(Ordering::Acquire) == round.wrapping_add(1)
    }

    /// It was launched in this round.
    pub fn set_launched_in(&self, round: u32) {
        self.launched_in.store(round.wrapping_add(1), Ordering::Release);
    }

    /// Keeps an attribute that the program sets, before the worker hears of it; what was known of its occupancy is void.
    pub fn set_attribute(&self, number: u32, value: i32) {
        self.is_set.store(true, Ordering::Release);
        if let Some(place) = self.attributes.get().and_then(|attributes| attributes.get(number as usize)) {
            place.store(value, Ordering::Relaxed);
        }
        lock(&self.occupancy).clear();
    }

    /// The occupancy for a block size, shared memory and flags; `ask` answers the first time.
    pub fn occupancy(&self, key: (u32, u64, u32), ask: impl FnOnce() -> CuResult<u32>) -> CuResult<u32> {
        if let Some(blocks) = lock(&self.occupancy).get(&key) {
            return Ok(*blocks);
        }
        let blocks = ask()?;
        let mut known = lock(&self.occupancy);
        if known.len() >= OCCUPANCIES_MAX {
            known.clear();
        }
        known.insert(key, blocks);
        Ok(blocks)
    }
}
