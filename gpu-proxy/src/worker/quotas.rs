//! The grant of each of a worker's devices, by the device's number.

use vgpu_api::{CuError, CuResult};

use super::quota::Quota;

/// One at least.
#[derive(Debug)]
pub struct Quotas {
    of: Vec<Quota>,
    /// What is counted of each device's pieces.
    pieces: Vec<u64>,
}

impl From<Vec<Quota>> for Quotas {
    fn from(quotas: Vec<Quota>) -> Self {
        Self { pieces: vec![0; quotas.len()], of: quotas }
    }
}

impl From<Quota> for Quotas {
    fn from(quota: Quota) -> Self {
        Self::from(vec![quota])
    }
}

impl Quotas {
    /// How many devices there are.
    #[must_use]
    pub fn devices(&self) -> u32 {
        u32::try_from(self.of.len()).unwrap_or(u32::MAX)
    }

    /// That of a device.
    ///
    /// # Errors
    /// 101 for no device.
    pub fn of(&self, device: u32) -> CuResult<&Quota> {
        self.of.get(device as usize).ok_or(CuError::INVALID_DEVICE)
    }

    /// What each device's grant is, in bytes.
    #[must_use]
    pub fn limits(&self) -> Vec<u64> {
        self.of.iter().map(Quota::limit_bytes).collect()
    }

    /// Counts `bytes` on a device before they are allocated there.
    ///
    /// # Errors
    /// 2, `CUDA_ERROR_OUT_OF_MEMORY`; 101 for no device.
    pub fn charge(&mut self, device: u32, bytes: u64) -> CuResult<()> {
        self.of.get_mut(device as usize).ok_or(CuError::INVALID_DEVICE)?.charge(bytes)
    }

    /// Counts `bytes` on every device, or on none.
    ///
    /// # Errors
    /// 2.
    pub fn charge_each(&mut self, bytes: u64) -> CuResult<()> {
        for device in 0..self.devices() {
            if let Err(error) = self.charge(device, bytes) {
                (0..device).for_each(|counted| self.release(counted, bytes));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Counts one more piece, which small allocations share: whole, as long as the device has it, whatever is used of it. Who frees all
    /// but a little of each could else hold a device that was not granted.
    ///
    /// # Errors
    /// As [`Quotas::charge`].
    pub fn charge_piece(&mut self, device: u32, bytes: u64) -> CuResult<()> {
        self.charge(device, bytes)?;
        self.pieces.get_mut(device as usize).into_iter().for_each(|counted| *counted += bytes);
        Ok(())
    }

    /// An allocation that `bytes` were counted for was not made, and the device has `pieces_bytes` now: what it keeps of the failure is
    /// among them, and goes on counting.
    pub fn not_made(&mut self, device: u32, bytes: u64, pieces_bytes: u64) {
        let Some(counted) = self.pieces.get_mut(device as usize) else { return };
        let kept = pieces_bytes.saturating_sub(*counted).min(bytes);
        *counted += kept;
        self.release(device, bytes - kept);
        self.pieces_are(device, pieces_bytes);
    }

    /// The device has `bytes` of pieces now: no more are counted.
    pub fn pieces_are(&mut self, device: u32, bytes: u64) {
        let Some(counted) = self.pieces.get_mut(device as usize) else { return };
        let gone = counted.saturating_sub(bytes);
        *counted -= gone;
        self.release(device, gone);
    }

    /// Counts `bytes` on a device no longer.
    pub fn release(&mut self, device: u32, bytes: u64) {
        self.of.get_mut(device as usize).into_iter().for_each(|quota| quota.release(bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shared_page::SharedPage;
    use crate::worker::quota::Grant;

    #[test]
    fn each_device_has_its_own_bytes_and_what_is_wanted_of_all_is_counted_on_all_or_none() {
        let pages: Vec<_> = [100, 50].map(|bytes| (SharedPage::create().unwrap(), bytes)).into();
        let quota =
            |(page, _): &(SharedPage, u64)| Quota::new(SharedPage::map(page.fd()).unwrap(), 0).unwrap();
        let mut quotas = Quotas::from(pages.iter().map(quota).collect::<Vec<_>>());
        let grants: Vec<_> =
            pages.into_iter().map(|(page, bytes)| Grant::new(Arc::new(page), bytes)).collect();
        let used = || [0, 1].map(|device: usize| grants[device].used_bytes(0));
        assert_eq!((quotas.devices(), quotas.limits()), (2, vec![100, 50]));
        assert_eq!(quotas.charge_each(51), Err(CuError::OUT_OF_MEMORY));
        assert_eq!(used(), [0, 0]);
        assert_eq!(quotas.charge_each(50), Ok(()));
        assert_eq!((quotas.charge(0, 50), quotas.charge(1, 1)), (Ok(()), Err(CuError::OUT_OF_MEMORY)));
        assert_eq!((quotas.charge(2, 0), used()), (Err(CuError::INVALID_DEVICE), [100, 50]));
        quotas.release(0, 60);
        assert_eq!(used(), [40, 50]);
        assert_eq!(quotas.charge_piece(0, 61), Err(CuError::OUT_OF_MEMORY));
        quotas.charge_piece(0, 20).unwrap();
        quotas.charge_piece(0, 30).unwrap();
        quotas.pieces_are(0, 60);
        assert_eq!(used(), [90, 50], "nothing has ended");
        quotas.pieces_are(0, 30);
        assert_eq!(used(), [70, 50]);
        // 20 are asked for in vain, of which 5 stay.
        quotas.charge(0, 20).unwrap();
        quotas.not_made(0, 20, 35);
        assert_eq!(used(), [75, 50]);
        quotas.charge(0, 20).unwrap();
        quotas.not_made(0, 20, 35);
        quotas.charge_piece(0, 20).unwrap();
        quotas.not_made(0, 0, 35);
        assert_eq!(used(), [75, 50]);
        quotas.pieces_are(0, 0);
        quotas.pieces_are(1, 0);
        assert_eq!(used(), [40, 50]);
    }
}
