//! Takes away what a sandbox or a container has on the host: by Delete, by a failed Create, and by the `delete` verb from disk alone.
//!
//! Everything here is idempotent and goes on after a failure: the first error is reported, the rest is still tried. The record goes last,
//! so that what is left can be tried again. Hooks of the end run when nothing else is left, and under no lock of the pod.

use std::{path::Path, time::Duration};

use vgpu_codes::Code;

use crate::{
    error::{Error, OrFail, Result},
    hooks, mount, network,
    persist::{ContainerRecord, Record, Store},
    platform::Platform,
    share::ShareDir,
    zone,
};

/// `delete` has 5 s for all. So gpu-proxy comes last, when nothing else waits for what it does.
pub const PROXY_LIMIT: Duration = Duration::from_secs(2);
/// For a cleaning that is at work to end, before a sandbox of the same id is made.
const EARLIER_LIMIT: Duration = Duration::from_secs(30);

/// The first of several errors; each is logged.
struct First<'a> {
    record: &'a Record,
    error: Result<()>,
}

impl First<'_> {
    fn keep(&mut self, result: Result<()>) {
        if let Err(error) = result {
            log::warn!("cleaning up sandbox {}: {}", self.record.sandbox, error.report());
            if self.error.is_ok() {
                self.error = Err(error);
            }
        }
    }
}

/// Ends the guest, and before it what writes for it to the host. Returns the domain's id, if it was there. Blocks.
///
/// # Errors
/// The first thing that went on.
pub fn guest(platform: &Platform, store: &Store, record: &Record) -> (Option<u16>, Result<()>) {
    let mut first = First { record, error: Ok(()) };
    // containerd gives the container's files to others once it believes the container dead.
    first.keep(platform.share.end(record.domain_uuid, record.backend));
    // A shim that was killed may have left its toolstack at work: a domain must not come to be after we looked.
    first.keep(platform.toolstack.end_creation(&store.domain_file()));
    // Found by its UUID: the record may know no id yet, and an id may be another domain's by now.
    let mut found = None;
    match platform.toolstack.find(record.domain_uuid) {
        Ok(domid) => found = domid,
        // Without Xen there was never a domain; but xl may be missing for a moment, in an upgrade, and a domain be there whose id is not recorded.
        Err(error)
            if error.code() == Some(Code::NoXen)
                && record.domid.is_none()
                && platform.toolstack.check().is_err() => {}
        Err(error) => first.keep(Err(error)),
    }
    if let Some(domid) = found {
        first.keep(platform.toolstack.destroy(domid));
    }
    (found, first.error)
}

/// Ends the sandbox: domain, share, network, zone, mounts, files. What is left is for its containers' hooks alone ([`last_hooks`]). Blocks.
///
/// # Errors
/// The first thing that could not be taken away.
pub fn sandbox(platform: &Platform, store: &Store, record: &Record) -> Result<()> {
    let (found, ended) = guest(platform, store, record);
    let mut first = First { record, error: ended };
    match store.hooks() {
        Ok(all) => all.iter().for_each(|notes| first.keep(hooks::end_orphan(notes))),
        Err(error) => first.keep(Err(error)),
    }
    if let Some(domid) = record.domid.or(found) {
        first.keep(platform.share.detach(domid, record.domain_uuid));
        first.keep(platform.link.remove_devices(domid, record.domain_uuid, record.driver_domain));
        if let Some(network) = &record.network {
            first.keep(network::leave(&*platform.link, network, domid, record.domain_uuid));
        }
    }
    first.keep(ShareDir::at(&record.share).remove());
    for (id, container) in &record.containers {
        first.keep(holder(id, container));
        first.keep(rootfs(store, &container.bundle));
    }
    zone::release(record, PROXY_LIMIT);
    first.error?;
    store.settle()
}

/// Runs the hooks of all containers of a sandbox that was taken away, under no lock but each container's own: others may be at them, too, and are
/// waited for. Each has its own time, but no more than `hook_limit`. Blocks.
///
/// # Errors
/// One could not be begun or waited for: what is left can be tried again.
pub fn last_hooks(store: &Store, limit: Duration, hook_limit: Duration) -> Result<()> {
    // One's that cannot be begun keep no other's from it.
    let run = |notes| hooks::run_last(notes, limit, hook_limit, || false).map(drop);
    store.hooks()?.iter().map(run).fold(Ok(()), Result::and)?;
    // None: somebody else has done it.
    let Some(_lock) = store.lock(limit)? else { return Ok(()) };
    store.settle()
}

/// Ends a container's stand-in. One whose shim was killed has ended by itself, as soon as it came to it.
fn holder(id: &str, container: &ContainerRecord) -> Result<()> {
    let ended = container.holder.map_or(Ok(()), |holder| holder.kill());
    ended.or_fail(Code::HostFailure, || format!("cannot end the holder of container {id}"))
}

/// Unmounts a bundle's root, if this sandbox mounted it. The next life of an id may have the same bundle, with a root of its own.
///
/// # Errors
/// [`Code::HostFailure`] if something is left.
pub fn rootfs(store: &Store, bundle: &Path) -> Result<()> {
    // It mounts only what it has put its name to.
    let next_ones = Store::pointed_from(bundle).is_some_and(|other| other != *store);
    if next_ones { Ok(()) } else { mount::take_away(&bundle.join("rootfs")) }
}

/// Ends what an earlier sandbox of the same id has left, or waits until who is at it is done: two guests must never write to one container's
/// files. Blocks.
///
/// # Errors
/// The first thing that could not be taken away, or another process is at it for too long. [`Code::IdTaken`] if it lives: another
/// containerd's of this node, since ours would have been told its address.
pub fn earlier(platform: &Platform, store: &Store) -> Result<()> {
    let Some(lock) = store.lock(EARLIER_LIMIT)? else { return Ok(()) };
    let Some(record) = store.load()? else { return store.remove() };
    if let Some(shim) = record.shim.filter(|shim| shim.is_alive() && !shim.is_this()) {
        let what = format!("the sandbox {} is served by another shim, process {}", record.sandbox, shim.pid);
        return Err(Error::new(Code::IdTaken, what));
    }
    sandbox(platform, store, &record)?;
    drop(lock);
    last_hooks(store, EARLIER_LIMIT, hooks::LIMIT)
}

/// Takes one container of a sandbox that lives on from the host. Its hooks come after that ([`hooks::run_last`]), and after gpu-proxy, which is the
/// caller's to tell ([`zone::revoke`], by the record as it was): both may take their time. Blocks.
///
/// # Errors
/// The first thing that could not be taken away; the container stays in the record then.
pub fn container(store: &Store, record: &mut Record, id: &str) -> Result<()> {
    let Some(container) = record.containers.get(id).cloned() else { return Ok(()) };
    let orphan = hooks::end_orphan(&store.hooks_of(id));
    let held = holder(id, &container);
    let share = ShareDir::at(&record.share).remove_container(id);
    let root = rootfs(store, &container.bundle);
    orphan.and(held).and(share).and(root)?;
    record.containers.remove(id);
    // What stays noted is looked for once more at the sandbox's end, and is not there.
    if let Err(no_room) = store.save(record) {
        log::warn!("container {id} stays noted: {}", no_room.report());
    }
    Ok(())
}
