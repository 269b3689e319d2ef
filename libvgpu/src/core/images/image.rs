//! One module or library: what its load reply told of its functions and variables.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex};

use vgpu_api::{
    ContextId, CuError, CuResult, FunctionHandle, GlobalInfo, ImageHandle, ImageInfo, ImageKind, ask,
};

use crate::core::functions::{Function, Pristine};
use crate::core::managed_block::Block;
use crate::core::process::Process;
use crate::core::ranges::{GLOBAL, Home, Ranges};
use crate::core::slab::lock;

/// One module or library.
#[derive(Debug)]
pub struct Image {
    pub handle: ImageHandle,
    pub kind: ImageKind,
    pub context: ContextId,
    pub functions: Vec<Function>,
    by_name: HashMap<CString, u16>,
    /// As the load reply told, each with its place there.
    globals: HashMap<CString, (usize, GlobalInfo)>,
    /// Managed variables, one for all contexts, and where they lie.
    managed: HashMap<CString, GlobalInfo>,
    block: Option<Block>,
    /// Of a library: its variables' addresses in other contexts than that which it was loaded in, as far as they were asked for.
    others: Mutex<HashMap<ContextId, Arc<[u64]>>>,
}

impl Image {
    /// The context that it ends with; libraries are the process's.
    pub(super) fn owner(&self) -> ContextId {
        match self.kind {
            ImageKind::Module => self.context,
            ImageKind::Library => ContextId::NONE,
        }
    }

    /// `pristine`: what an earlier load of the same bytes has found out about its functions.
    pub(super) fn new(
        handle: ImageHandle,
        kind: ImageKind,
        context: ContextId,
        info: &ImageInfo,
        pristine: &[Arc<Pristine>],
        block: Option<Block>,
    ) -> CuResult<Self> {
        let mut functions = Vec::with_capacity(info.functions.len());
        let mut by_name = HashMap::new();
        for (ordinal, function) in info.functions.iter().enumerate() {
            let made = Function::new(function, pristine.get(ordinal).cloned().unwrap_or_default())?;
            by_name.insert(made.name.clone(), u16::try_from(ordinal).map_err(|_| CuError::UNKNOWN)?);
            functions.push(made);
        }
        let mut globals = HashMap::new();
        for (place, global) in info.globals.iter().enumerate() {
            let name = CString::new(global.name.as_str()).map_err(|_| CuError::UNKNOWN)?;
            globals.insert(name, (place, global.clone()));
        }
        let mut managed = HashMap::new();
        for one in &info.managed {
            let name = CString::new(one.name.as_str()).map_err(|_| CuError::UNKNOWN)?;
            managed.insert(name, one.clone());
        }
        Ok(Self {
            handle,
            kind,
            context,
            functions,
            by_name,
            globals,
            managed,
            block,
            others: Mutex::default(),
        })
    }

    /// A variable by its name: its address in the current context, since each has a library's of its own, and its length.
    /// # Errors
    /// 500 for no variable, the worker's if the device has no room for them.
    pub fn global(&self, process: &Process, name: &CStr) -> CuResult<(u64, u64)> {
        if let Some(managed) = self.managed.get(name) {
            return Ok((managed.address.0, managed.bytes));
        }
        let (place, global) = self.globals.get(name).ok_or(CuError::NOT_FOUND)?;
        let context = process.contexts.current_owner();
        let Some(ordinal) = self.elsewhere(process, context) else {
            return Ok((global.address.0, global.bytes));
        };
        let addresses = self.in_context(process, context, ordinal)?;
        addresses.get(*place).map(|address| (*address, global.bytes)).ok_or(CuError::NOT_FOUND)
    }

    /// Whether it has a managed variable of this name.
    pub fn is_managed(&self, name: &CStr) -> bool {
        self.managed.contains_key(name)
    }

    /// Whether it has managed variables.
    pub(super) fn has_managed(&self) -> bool {
        self.block.is_some()
    }

    /// The worker has it: pointers to its variables are known.
    pub(super) fn begin(&self, process: &Process) {
        for (_, global) in self.globals.values().filter(|(_, global)| global.bytes > 0) {
            process.device_memory.insert(global.address.0, global.bytes, self.owner(), GLOBAL);
        }
        Block::begin(self.managed.values(), self.owner());
    }

    /// It ends, and its variables on devices with it.
    pub(super) fn forget_variables(&self, device_memory: &Ranges) {
        forget_all(device_memory, self.globals.values().map(|(_, global)| global.address.0));
        let others = lock(&self.others);
        others.values().for_each(|addresses| forget_all(device_memory, addresses.iter().copied()));
    }

    /// The image has ended, for the worker, too.
    pub(super) fn end_managed(&self, process: &Process) -> CuResult<()> {
        self.block.as_ref().map_or(Ok(()), |block| block.end(process, self.managed.values()))
    }

    /// The ordinal of a context's device, if this is a library that was loaded in another context: if in none, in the first primary one.
    fn elsewhere(&self, process: &Process, context: ContextId) -> Option<u32> {
        let home = if self.context == ContextId::NONE { ContextId::primary(0) } else { self.context };
        if self.kind != ImageKind::Library || context == home {
            return None;
        }
        process.contexts.alive(context).ok()
    }

    fn in_context(&self, process: &Process, context: ContextId, ordinal: u32) -> CuResult<Arc<[u64]>> {
        let mut others = lock(&self.others);
        if let Some(known) = others.get(&context) {
            return Ok(Arc::clone(known));
        }
        let room = process.channel.staging()?;
        let mut addresses = Vec::with_capacity(self.globals.len());
        while addresses.len() < self.globals.len() {
            let first = addresses.len() as u64;
            ask::vgpuImageVariables(&process.channel, context, self.handle, first, room.all())?;
            let left = (self.globals.len() as u64 - first).saturating_mul(8);
            let bytes = room.take(left.min(room.all().len / 8 * 8))?;
            addresses.extend(bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)));
        }
        for (place, global) in self.globals.values().filter(|(_, global)| global.bytes > 0) {
            let home = Home { device: ordinal, handle: 0 };
            process.device_memory.insert_home(addresses[*place], global.bytes, GLOBAL, home);
        }
        let addresses: Arc<[u64]> = addresses.into();
        others.insert(context, Arc::clone(&addresses));
        Ok(addresses)
    }

    /// A context has ended, and a library's variables with it.
    pub(super) fn leave(&self, context: ContextId, device_memory: &Ranges) {
        if let Some(addresses) = lock(&self.others).remove(&context) {
            forget_all(device_memory, addresses.iter().copied());
        }
        if context == self.context {
            forget_all(device_memory, self.globals.values().map(|(_, global)| global.address.0));
        }
    }

    /// The handle of the function at a place of the list.
    pub fn function_at(&self, ordinal: usize) -> CuResult<FunctionHandle> {
        let ordinal = u16::try_from(ordinal).map_err(|_| CuError::INVALID_VALUE)?;
        Ok(FunctionHandle::of_image(self.handle, ordinal))
    }

    /// The handle of a function.
    /// # Errors
    /// 500.
    pub fn function_named(&self, name: &CStr) -> CuResult<FunctionHandle> {
        self.by_name
            .get(name)
            .map(|ordinal| FunctionHandle::of_image(self.handle, *ordinal))
            .ok_or(CuError::NOT_FOUND)
    }
}

fn forget_all(device_memory: &Ranges, variables: impl Iterator<Item = u64>) {
    for address in variables {
        device_memory.remove(address, |range| range.flags == GLOBAL);
    }
}
