//! What a story's processes have for themselves on this machine: mounts, and a cgroup2 with a root of its own, since several stories may run
//! at once. The mounts go with the thread, the cgroup with the story.

use std::{
    cell::Cell,
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tempfile::TempDir;

/// Where a guest has its cgroups.
const CGROUPS: &str = "/sys/fs/cgroup";
/// For processes that were killed to be gone.
const END_LIMIT: Duration = Duration::from_secs(20);

thread_local! {
    /// Whether this thread has its own mounts already, of an earlier story of the same test.
    static PRIVATE: Cell<bool> = const { Cell::new(false) };
}

/// The machine's whole cgroup2, at a place of this thread's own. In a story it is the story's part of it.
pub struct Hierarchy(TempDir);

impl Hierarchy {
    pub fn mount() -> Self {
        private_mounts();
        let place = TempDir::new().unwrap();
        mount("none", place.path(), "cgroup2", MountFlags::empty(), None).unwrap();
        Hierarchy(place)
    }

    /// The cgroup of this process's stories.
    pub fn story(&self) -> PathBuf {
        self.0.path().join(format!("guest-init-story-{}", std::process::id()))
    }

    /// The cgroup that this process is in.
    fn own(&self) -> PathBuf {
        let text = fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = text.lines().find_map(|line| line.strip_prefix("0::/")).expect("this kernel has cgroup2");
        self.0.path().join(path)
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// The ground of one story. At its end, what it leaves running and its cgroups go.
pub struct StoryGround {
    hierarchy: Hierarchy,
    /// Where this process was before, and goes back to.
    before: PathBuf,
    namespace: File,
}

impl StoryGround {
    pub fn enter() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these stories make containers: run them as root");
        let hierarchy = Hierarchy::mount();
        let before = hierarchy.own();
        let namespace = File::open("/proc/thread-self/ns/cgroup").unwrap();
        // Of a process with our id that was killed.
        end(&hierarchy.story()).unwrap();
        fs::create_dir(hierarchy.story()).unwrap();
        fs::write(hierarchy.story().join("cgroup.procs"), "0").unwrap();
        unshare(libc::CLONE_NEWCGROUP);
        mount("none", CGROUPS, "cgroup2", MountFlags::empty(), None).unwrap();
        StoryGround { hierarchy, before, namespace }
    }

    fn leave(&self) -> io::Result<()> {
        unmount(CGROUPS, UnmountFlags::DETACH)?;
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::ControlGroup))?;
        fs::write(self.before.join("cgroup.procs"), "0")?;
        end(&self.hierarchy.story())
    }
}

impl Drop for StoryGround {
    fn drop(&mut self) {
        let left = self.leave();
        // A story that failed says why by itself.
        assert!(left.is_ok() || thread::panicking(), "the story's cgroups stay: {left:?}");
    }
}

/// Kills what is in a cgroup and below it, and removes them. None is no error.
fn end(cgroup: &Path) -> io::Result<()> {
    let begun = Instant::now();
    while cgroup.exists() {
        fs::write(cgroup.join("cgroup.kill"), "1")?;
        match remove(cgroup) {
            Err(error) if begun.elapsed() > END_LIMIT => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(5)),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Removes a cgroup and those below it.
fn remove(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

fn private_mounts() {
    if PRIVATE.replace(true) {
        return;
    }
    unshare(libc::CLONE_NEWNS);
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).unwrap();
}

fn unshare(what: libc::c_int) {
    // SAFETY: no memory is involved. It changes only this thread (and threads and processes made by it), which is the wish.
    let result = unsafe { libc::unshare(what) };
    assert_eq!(result, 0, "unshare: {}", io::Error::last_os_error());
}
