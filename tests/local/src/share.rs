//! The share by a bind mount: nobody serves it, the guest reaches the host's files by itself. So its backend is the guest, and ends with all
//! its processes: that alone keeps them from writing on.

use std::{io, os::unix::fs::symlink, path::Path};

use shim_vgpu::seams::{Backend, Error, Process, Result};
use uuid::Uuid;
use vgpu_codes::Code;

use crate::{
    cgroup::DomainCgroup,
    node::{Node, failed},
    toolstack::cgroup_of,
};

/// See the module.
#[derive(Debug)]
pub struct LocalShare {
    pub node: Node,
}

impl Backend for LocalShare {
    fn attach(&self, domid: u16, _: Uuid, export: &Path) -> Result<Process> {
        let attach = || -> io::Result<Process> {
            symlink(export, self.node.share(domid))?;
            let first = cgroup_of(&self.node, domid)?.first()?;
            Process::of(first).ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        attach().map_err(|error| {
            Error::caused(Code::ShareFailed, format!("cannot give domain {domid} its share"), error)
        })
    }

    fn end(&self, uuid: Uuid, _: Option<Process>) -> Result<()> {
        let ended = DomainCgroup::of(uuid).and_then(|cgroup| cgroup.kill());
        ended.map_err(failed(format!("cannot end the processes of domain {uuid}")))
    }

    fn detach(&self, _: u16, _: Uuid) -> Result<()> {
        // The link goes with the domain's folder.
        Ok(())
    }
}
