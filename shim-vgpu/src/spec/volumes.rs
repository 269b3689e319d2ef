//! What a volume's source is on this host.

use std::path::Path;

use rustix::fs::StatVfsMountFlags;

/// What the host's mount of `source` forbids, by the names of mount(8): a bind of it would have inherited that, the guest's mount is another.
/// Of mounts below it the guest sees one with `source`, so they count as it does. Nothing, if `source` is not there.
pub fn forbidden(source: &Path) -> impl Iterator<Item = &'static str> {
    let flags = rustix::fs::statvfs(source).map_or(StatVfsMountFlags::empty(), |found| found.f_flag);
    [("nosuid", StatVfsMountFlags::NOSUID), ("noexec", StatVfsMountFlags::NOEXEC)]
        .into_iter()
        .filter(move |(_, flag)| flags.contains(*flag))
        .map(|(name, _)| name)
}
