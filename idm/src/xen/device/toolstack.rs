//! Making and removing a device's nodes: what the shim does before the domain runs, and after its end.

use super::super::xenstore::{Client, Permissions, Store as _, XsError};
use super::{Device, INITIALISING};

/// Writes both halves of `device` with their permissions, in one transaction: a guest that looked in between would be stuck for good.
/// What an earlier device of the same name left is replaced.
///
/// # Errors
/// Xenstore's. `EACCES`: only the toolstack's domain may.
pub fn create(xenstore: &Client, device: Device) -> Result<(), XsError> {
    let (front, back) = (device.frontend_path(), device.backend_path());
    xenstore.transaction(|tx| {
        tx.remove(&front)?;
        tx.remove(&back)?;
        // Children take the permissions of their parent, so these come first.
        tx.mkdir(&front)?;
        tx.set_permissions(&front, &Permissions::owned(device.guest, device.backend))?;
        tx.mkdir(&back)?;
        tx.set_permissions(&back, &Permissions::owned(device.backend, device.guest))?;
        for (path, value) in [
            (format!("{front}/backend"), back.clone()),
            (format!("{front}/backend-id"), device.backend.get().to_string()),
            (format!("{front}/handle"), device.number.to_string()),
            (format!("{front}/state"), INITIALISING.to_string()),
            (format!("{back}/frontend"), front.clone()),
            (format!("{back}/frontend-id"), device.guest.get().to_string()),
            (format!("{back}/online"), "1".to_owned()),
            (format!("{back}/state"), INITIALISING.to_string()),
        ] {
            tx.write(&path, value)?;
        }
        Ok(())
    })
}

/// Removes both halves, and the backend's directory of this guest with its last device. Nothing there is fine.
///
/// # Errors
/// Xenstore's.
pub fn remove(xenstore: &Client, device: Device) -> Result<(), XsError> {
    xenstore.transaction(|tx| {
        tx.remove(&device.frontend_path())?;
        tx.remove(&device.backend_path())?;
        let parent = device.backend_parent();
        match tx.list(&parent) {
            Ok(others) if others.is_empty() => tx.remove(&parent),
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    })
}
