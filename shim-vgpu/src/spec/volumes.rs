//! What a volume's source is on this host: some cannot cross, and what its mount forbids goes with it.

use std::{
    fs::{self, FileType},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use rustix::fs::StatVfsMountFlags;
use vgpu_codes::Code;

use super::{Spec, field, guest};
use crate::error::{Error, OrFail, Result};

impl Spec {
    /// Refuses volumes that no share can carry, before anything of the container is made. Asks the file systems that they are on.
    ///
    /// # Errors
    /// [`Code::SpecRefused`] for a socket, pipe or device, [`Code::SpecInvalid`] for what is not there, each with the field.
    pub fn refuse_sources(&self, bundle: &Path) -> Result<()> {
        for (number, mount) in self.list("/mounts").iter().enumerate() {
            if !guest::is_bind(mount) {
                continue;
            }
            let source = bundle.join(field(mount, "source"));
            let place = format!("mounts[{number}].source");
            let found = fs::metadata(&source)
                .or_fail(Code::SpecInvalid, || format!("{place}: {} cannot be mounted", source.display()))?;
            if let Some(kind) = stays_here(found.file_type()) {
                let what = format!(
                    "{place} asks for {}, a {kind} of the host: these do not cross into a domain",
                    source.display()
                );
                return Err(Error::new(Code::SpecRefused, what));
            }
        }
        Ok(())
    }
}

/// Its name, if it is what means something on one kernel alone.
fn stays_here(kind: FileType) -> Option<&'static str> {
    [
        (kind.is_socket(), "socket"),
        (kind.is_fifo(), "pipe"),
        (kind.is_block_device(), "block device"),
        (kind.is_char_device(), "character device"),
    ]
    .into_iter()
    .find_map(|(is_it, name)| is_it.then_some(name))
}

/// What the host's mount of `source` forbids, by the names of mount(8): a bind of it would have inherited that, the guest's mount is another.
/// Of mounts below it the guest sees one with `source`, so they count as it does. What cannot be asked forbids both.
pub fn forbidden(source: &Path) -> impl Iterator<Item = &'static str> {
    let both = StatVfsMountFlags::NOSUID | StatVfsMountFlags::NOEXEC;
    let flags = rustix::fs::statvfs(source).map_or(both, |found| found.f_flag);
    [("nosuid", StatVfsMountFlags::NOSUID), ("noexec", StatVfsMountFlags::NOEXEC)]
        .into_iter()
        .filter(move |(_, flag)| flags.contains(*flag))
        .map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;
    use crate::spec::tests::spec;

    /// The answer to a container of these volumes; the third mount of its spec is the first of them.
    fn answer(dir: &Path, sources: &[&str]) -> Result<()> {
        let volumes =
            sources.iter().map(|source| json!({"destination": "/d", "source": source, "options": ["rbind"]}));
        spec(|s| s["mounts"].as_array_mut().unwrap().extend(volumes)).refuse_sources(dir)
    }

    #[test]
    fn what_cannot_cross_is_refused_by_its_field() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let _listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        answer(dir.path(), &["file", "/", "."]).unwrap();
        for (sources, code, text) in [
            (["file", "docker.sock"], Code::SpecRefused, "mounts[3].source asks for "),
            (["fifo", "file"], Code::SpecRefused, "mounts[2].source asks for "),
            (
                ["file", "/dev/null"],
                Code::SpecRefused,
                "mounts[3].source asks for /dev/null, a character device",
            ),
            (["missing", "file"], Code::SpecInvalid, "mounts[2].source: "),
        ] {
            let error = answer(dir.path(), &sources).unwrap_err();
            assert_eq!(error.code(), Some(code), "{sources:?}");
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }

    #[test]
    fn what_the_guest_has_of_its_own_may_be_anything_here() {
        let own = json!({"destination": "/d", "type": "tmpfs", "source": "missing"});
        spec(|s| s["mounts"].as_array_mut().unwrap().push(own)).refuse_sources(Path::new("/b")).unwrap();
    }

    #[test]
    fn what_is_to_be_at_dev_shm_has_to_be_there() {
        let at_shm = |source: &str| {
            let bind = json!({"destination": "/dev/shm", "type": "bind", "source": source});
            let asked = spec(|s| s["mounts"].as_array_mut().unwrap().push(bind));
            asked.refuse_sources(Path::new("/b")).unwrap_err().code()
        };
        assert_eq!(at_shm("/no/such"), Some(Code::SpecInvalid));
        assert_eq!(at_shm("/dev/null"), Some(Code::SpecRefused));
    }
}
