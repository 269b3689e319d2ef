//! Green contexts of the driver. What it says of multiprocessors, a `CUdevResource`, is got anew for each question and never leaves this file.

use std::collections::HashMap;
use std::ptr;

use vgpu_api::green::GROUPS_MAX;
use vgpu_api::{CuError, CuResult, SmGroups, SmResource, SmSplit};

use super::table::{DevResource, NULL};
use super::{Cuda, Pointer, Raw};
use crate::device::GreenContexts;
use crate::device::green::parts_of;

/// `CU_DEV_RESOURCE_TYPE_SM`.
const SM: u32 = 1;
/// `CU_GREEN_CTX_DEFAULT_STREAM`.
const DEFAULT_STREAM: u32 = 1;

/// The green contexts of a worker.
#[derive(Debug, Default)]
pub(super) struct Greens {
    /// By the name of the context that each is as well: the driver's green context, which is no context itself, and its legacy stream.
    by_context: HashMap<Raw, (Pointer, Raw)>,
    /// Whose each of those streams is: it is NULL, in that context.
    by_stream: HashMap<Raw, Raw>,
}

impl Greens {
    /// The green context whose legacy stream this is.
    pub(super) fn of_stream(&self, stream: Raw) -> Option<Raw> {
        self.by_stream.get(&stream).copied()
    }
}

fn told(resource: &DevResource) -> SmResource {
    let [count, group_min, group_step] = resource.sm;
    SmResource { count, group_min, group_step }
}

impl Cuda {
    fn multiprocessors(&mut self, device: u32, of: Option<Raw>) -> CuResult<DevResource> {
        let mut resource = DevResource::default();
        match of {
            None => {
                let device = *self.devices.get(device as usize).ok_or(CuError::INVALID_DEVICE)?;
                // SAFETY: the driver writes one resource to a variable of ours.
                unsafe { self.table.cuDeviceGetDevResource(device, &raw mut resource, SM) }?;
            }
            Some(of) => {
                let (green, _) = *self.greens.by_context.get(&of).ok_or(CuError::INVALID_CONTEXT)?;
                // SAFETY: a live green context of ours; the driver writes one resource to a variable of ours.
                unsafe { self.table.cuGreenCtxGetDevResource(green.0, &raw mut resource, SM) }?;
            }
        }
        Ok(resource)
    }

    /// The groups and the rest.
    fn divide(
        &mut self,
        device: u32,
        of: Option<Raw>,
        split: SmSplit,
    ) -> CuResult<(Vec<DevResource>, DevResource)> {
        let all = self.multiprocessors(device, of)?;
        let SmSplit { groups: mut count, flags, count_min } = split;
        if count == 0 {
            // SAFETY: no place for groups is given: the driver writes their number to a variable of ours.
            unsafe {
                self.table.cuDevSmResourceSplitByCount(
                    ptr::null_mut(),
                    &raw mut count,
                    &raw const all,
                    ptr::null_mut(),
                    flags,
                    count_min,
                )
            }?;
        }
        count = count.min(GROUPS_MAX);
        let mut groups = vec![DevResource::default(); count as usize];
        let mut rest = DevResource::default();
        // SAFETY: there is room for `count` groups; the resource that is split has just come from the driver.
        unsafe {
            self.table.cuDevSmResourceSplitByCount(
                groups.as_mut_ptr(),
                &raw mut count,
                &raw const all,
                &raw mut rest,
                flags,
                count_min,
            )
        }?;
        groups.truncate(count as usize);
        if groups.is_empty() { Err(CuError::INVALID_RESOURCE_CONFIGURATION) } else { Ok((groups, rest)) }
    }

    fn make_green(&mut self, device: u32, mut parts: Vec<DevResource>) -> CuResult<(Raw, Raw)> {
        let on = *self.devices.get(device as usize).ok_or(CuError::INVALID_DEVICE)?;
        let count = u32::try_from(parts.len()).map_err(|_| CuError::INVALID_VALUE)?;
        let (mut described, mut green, mut context) = (NULL, NULL, NULL);
        // SAFETY: the driver reads `count` resources of its own making and writes a pointer to a variable of ours.
        unsafe { self.table.cuDevResourceGenerateDesc(&raw mut described, parts.as_mut_ptr(), count) }?;
        // SAFETY: what was just made; the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuGreenCtxCreate(&raw mut green, described, on, DEFAULT_STREAM) }?;
        // SAFETY: as above.
        let as_context = unsafe { self.table.cuCtxFromGreenCtx(&raw mut context, green) };
        if let Err(error) = as_context {
            // SAFETY: what was just made, and nobody has heard of.
            let _ = unsafe { self.table.cuGreenCtxDestroy(green) };
            return Err(error);
        }
        let (name, stream) = (self.contexts.add(context), self.streams.add(NULL));
        self.created.insert(name, device);
        self.greens.by_context.insert(name, (Pointer(green), stream));
        self.greens.by_stream.insert(stream, name);
        Ok((name, stream))
    }
}

impl GreenContexts for Cuda {
    fn sm_resource(&mut self, device: u32, of: Option<Raw>) -> CuResult<SmResource> {
        self.multiprocessors(device, of).map(|resource| told(&resource))
    }

    fn sm_split(&mut self, device: u32, of: Option<Raw>, split: SmSplit) -> CuResult<SmGroups> {
        let (groups, rest) = self.divide(device, of, split)?;
        let each = groups.first().map(told).unwrap_or_default();
        let groups = u32::try_from(groups.len()).map_err(|_| CuError::INVALID_VALUE)?;
        Ok(SmGroups { groups, each, rest: told(&rest) })
    }

    fn green_create(
        &mut self,
        device: u32,
        of: Option<Raw>,
        split: SmSplit,
        parts: &[u32],
    ) -> CuResult<(Raw, Raw)> {
        let given = if parts.is_empty() {
            vec![self.multiprocessors(device, of)?]
        } else {
            let (groups, rest) = self.divide(device, of, split)?;
            parts_of(parts, &groups, rest)?
        };
        self.make_green(device, given)
    }

    fn green_destroy(&mut self, green: Raw) -> CuResult<()> {
        let (pointer, stream) = self.greens.by_context.remove(&green).ok_or(CuError::INVALID_CONTEXT)?;
        self.greens.by_stream.remove(&stream);
        self.streams.remove(stream)?;
        self.contexts.remove(green)?;
        self.created.remove(&green);
        // It may be current.
        let first = self.first_primary()?;
        self.enter(first)?;
        // SAFETY: a live green context of ours, named no more.
        unsafe { self.table.cuGreenCtxDestroy(pointer.0) }
    }
}
