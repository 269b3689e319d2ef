//! Takes away what a sandbox or a container has on the host: by Delete, by a failed Create, and by the `delete` verb from disk alone.
//!
//! Everything here is idempotent and goes on after a failure: the first error is reported, the rest is still tried. The record goes last,
//! so that what is left can be tried again.

use std::time::Duration;

use vgpu_codes::Code;

use crate::{
    error::Result,
    mount,
    persist::{Record, Store},
    platform::Platform,
    share::ShareDir,
    zone,
};

/// `delete` has 5 s for all. So gpu-proxy comes last, when nothing else waits for what it does.
pub const PROXY_LIMIT: Duration = Duration::from_secs(2);

/// Ends the sandbox: domain, share, zone, mounts, files. Blocks.
///
/// # Errors
/// The first thing that could not be taken away.
pub fn sandbox(platform: &Platform, store: &Store, record: &Record) -> Result<()> {
    let mut first = Ok(());
    let mut keep = |result: Result<()>| {
        if let Err(error) = result {
            log::warn!("cleaning up sandbox {}: {}", record.sandbox, error.report());
            if first.is_ok() {
                first = Err(error);
            }
        }
    };
    // A shim that was killed may have left its toolstack at work: a domain must not come to be after we looked.
    keep(platform.toolstack.end_creation(&store.domain_file()));
    // Found by its UUID: the record may know no id yet, and an id may be another domain's by now.
    let mut found = None;
    match platform.toolstack.find(record.domain_uuid) {
        Ok(domid) => found = domid,
        // Without Xen there was never a domain.
        Err(error) if error.code() == Some(Code::NoXen) => {}
        Err(error) => keep(Err(error)),
    }
    if let Some(domid) = found {
        keep(platform.toolstack.destroy(domid));
    }
    let domid = record.domid.or(found);
    keep(platform.share.detach(domid, record.domain_uuid, record.backend));
    if let Some(domid) = domid {
        keep(platform.link.remove_devices(domid, record.domain_uuid, record.driver_domain));
    }
    keep(ShareDir::at(&record.share).remove());
    for container in record.containers.values() {
        keep(mount::take_away(&container.bundle.join("rootfs")));
    }
    zone::release(record, PROXY_LIMIT);
    first?;
    store.remove()
}

/// Takes one container of a sandbox that lives on from the host. Blocks. gpu-proxy is the caller's to tell ([`zone::revoke`], by the record
/// as it was): it may take its time.
///
/// # Errors
/// The first thing that could not be taken away; the container stays in the record then.
pub fn container(store: &Store, record: &mut Record, id: &str) -> Result<()> {
    let Some(container) = record.containers.get(id).cloned() else { return Ok(()) };
    let share = ShareDir::at(&record.share).remove_container(id);
    let rootfs = mount::take_away(&container.bundle.join("rootfs"));
    share.and(rootfs)?;
    record.containers.remove(id);
    store.save(record)
}
