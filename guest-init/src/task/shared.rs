//! The objects behind what containers of a pod share: namespaces, which live as long as a process is in them, and file systems in memory,
//! which live as long as the guest.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::mount::{MountFlags, mount};
use vgpu_agent_api::pod::Memory;

use super::process::Process;
use crate::{
    error::{During, GuestError, Result},
    oci::shared::Shared,
};

/// The memories of the pod. Each is mounted once, in a place that no container sees; containers bind it.
#[derive(Debug)]
pub struct Memories {
    folder: PathBuf,
    made: Mutex<BTreeSet<String>>,
}

impl Memories {
    /// None yet; they will be in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, made: Mutex::default() }
    }

    fn get(&self, memory: Memory) -> Result<PathBuf> {
        let name = memory.name();
        let place = self.folder.join(&name);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !made.contains(&name) {
            let make = || -> io::Result<()> {
                fs::create_dir_all(&place)?;
                // What else is forbidden is said by the mounts that bind it.
                let (kind, data) = match memory.page() {
                    None => ("tmpfs", format!("mode=1777,size={}", memory.bytes())),
                    // As many as its containers' limits are the pool's.
                    Some(page) => ("hugetlbfs", format!("mode=1777,pagesize={page}")),
                };
                let data = CString::new(data)?;
                Ok(mount(kind, &place, kind, MountFlags::NODEV, data.as_c_str())?)
            };
            make().during(|| format!("make {}", place.display()))?;
            made.insert(name);
        }
        Ok(place)
    }
}

/// A container that is being made, and what it joins.
#[derive(Debug)]
pub struct Joining<'a> {
    /// Init of each other container.
    inits: &'a BTreeMap<String, Arc<Process>>,
    memories: &'a Memories,
    /// Held, so that the paths go on leading to them, whoever ends meanwhile.
    namespaces: Vec<OwnedFd>,
}

impl<'a> Joining<'a> {
    /// One that has joined nothing yet.
    pub fn new(inits: &'a BTreeMap<String, Arc<Process>>, memories: &'a Memories) -> Self {
        Self { inits, memories, namespaces: Vec::new() }
    }
}

impl Shared for Joining<'_> {
    fn namespace(&mut self, container: &str, file: &'static str) -> Result<PathBuf> {
        let init = self.inits.get(container);
        let init = init.ok_or_else(|| GuestError::NotFound(format!("container {container}")))?;
        let namespace = init.namespace(file)?;
        // Not by its pid, which is another process's once it has ended.
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        self.namespaces.push(namespace);
        Ok(path.into())
    }

    fn guests(&mut self, file: &'static str) -> PathBuf {
        format!("/proc/{}/ns/{file}", std::process::id()).into()
    }

    fn memory(&mut self, memory: Memory) -> Result<PathBuf> {
        self.memories.get(memory)
    }
}
