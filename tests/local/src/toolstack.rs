//! Makes and ends domains: a folder `domains/<domid>` says that there is one, its cgroup holds its processes.
//!
//! A domain's process is there, stopped, from its creation on, as a paused domain is. It outlives the shim that made it.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use shim_vgpu::seams::{DomainConfig, Error, Result, Toolstack};
use tokio::sync::watch;
use uuid::Uuid;
use vgpu_codes::Code;

use crate::{
    cgroup::{self, DomainCgroup},
    node::{Domain, Node, failed, remove},
};

/// See the module.
#[derive(Debug)]
pub struct LocalToolstack {
    pub node: Node,
    /// Counts the ends of this process's domains.
    pub endings: Arc<watch::Sender<u64>>,
}

impl Toolstack for LocalToolstack {
    fn check(&self) -> Result<()> {
        let found = cgroup::hierarchy().map(drop);
        found.map_err(|error| Error::caused(Code::NoXen, "this machine can be no local node", error))
    }

    fn create_paused(&self, domain: &DomainConfig) -> Result<u16> {
        let made = self.make(domain);
        made.map_err(|error| {
            Error::caused(Code::DomainCreate, format!("cannot create the domain {}", domain.name), error)
        })
    }

    fn end_creation(&self, _: &Path) -> Result<()> {
        // Ours is done by the shim itself, and a process that is not in its cgroup yet ends with it.
        Ok(())
    }

    fn unpause(&self, domid: u16) -> Result<()> {
        let thaw = || -> io::Result<()> { cgroup_of(&self.node, domid)?.thaw() };
        thaw().map_err(|error| {
            Error::caused(Code::DomainCreate, format!("cannot unpause domain {domid}"), error)
        })
    }

    /// Nothing here has memory of its own: what was asked for is noted.
    fn set_memory(&self, domid: u16, mib: u64) -> Result<()> {
        let noted = fs::write(self.node.domain(domid).join("memory_mib"), mib.to_string());
        noted.map_err(failed(format!("cannot note the memory of domain {domid}")))
    }

    /// Nor CPUs.
    fn set_cap(&self, domid: u16, percent: u32) -> Result<()> {
        let noted = fs::write(self.node.domain(domid).join("cap_percent"), percent.to_string());
        noted.map_err(failed(format!("cannot note the cap of domain {domid}")))
    }

    fn find(&self, uuid: Uuid) -> Result<Option<u16>> {
        let find = || -> io::Result<Option<u16>> {
            for domid in self.node.domids()? {
                if self.node.known(domid)?.is_some_and(|domain| domain.uuid == uuid) {
                    return Ok(Some(domid));
                }
            }
            Ok(None)
        };
        find().map_err(failed("cannot list the domains"))
    }

    fn runs(&self, uuid: Uuid) -> Result<bool> {
        let populated = DomainCgroup::of(uuid).and_then(|cgroup| cgroup.is_populated());
        Ok(self.find(uuid)?.is_some() && populated.map_err(failed("cannot ask for a domain's processes"))?)
    }

    fn halt(&self, uuid: Uuid, _: Duration) -> Result<Option<u16>> {
        let Some(domid) = self.find(uuid)? else { return Ok(None) };
        let halt = || -> io::Result<()> { DomainCgroup::of(uuid)?.kill() };
        halt().map_err(failed(format!("cannot halt domain {domid}")))?;
        Ok(Some(domid))
    }

    fn destroy(&self, domid: u16) -> Result<()> {
        let end = || -> io::Result<()> {
            let Some(domain) = self.node.known(domid)? else { return Ok(()) };
            let cgroup = DomainCgroup::of(domain.uuid)?;
            cgroup.kill()?;
            cgroup.remove()
        };
        end().map_err(failed(format!("cannot destroy domain {domid}")))?;
        remove(&self.node.domain(domid))
    }
}

impl LocalToolstack {
    fn make(&self, domain: &DomainConfig) -> io::Result<u16> {
        let domid = self.register(domain)?;
        let cgroup = DomainCgroup::of(domain.uuid)?;
        cgroup.make_frozen()?;
        let mut child = self.spawn(domain, domid)?;
        let begun = begin(&mut child, &cgroup);
        let endings = self.endings.clone();
        // Ends with the domain.
        thread::Builder::new().name("domain".into()).spawn(move || {
            let _ = child.wait();
            endings.send_modify(|count| *count += 1);
        })?;
        begun.map(|()| domid)
    }

    /// The folder appears with all that says what it is, at the next id.
    fn register(&self, domain: &DomainConfig) -> io::Result<u16> {
        // In the sandbox's own folder, with which it goes if we don't get further.
        let new = domain.file.with_extension("new");
        fs::create_dir(&new)?;
        let known = Domain { name: domain.name.clone(), uuid: domain.uuid };
        fs::write(new.join("domain.json"), serde_json::to_vec(&known)?)?;
        fs::create_dir_all(self.node.domains())?;
        let mut domid = self.node.domids()?.into_iter().max().unwrap_or(0);
        loop {
            domid = domid.checked_add(1).ok_or_else(|| io::Error::other("all ids are used up"))?;
            match fs::rename(&new, self.node.domain(domid)) {
                // Another shim was faster.
                Err(taken) if taken.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                renamed => return renamed.map(|()| domid),
            }
        }
    }

    fn spawn(&self, domain: &DomainConfig, domid: u16) -> io::Result<Child> {
        let console = File::create(self.node.domain(domid).join("console"))?;
        let mut command = Command::new(&domain.kernel);
        command.arg("start").arg(self.node.dir()).arg(domid.to_string());
        command.stdin(Stdio::piped()).stdout(console.try_clone()?).stderr(console);
        command.current_dir("/").process_group(0).spawn()
    }
}

/// Moves the domain's process into its cgroup, where it stops, and has it begin when it is let run. One that hears no word ends.
fn begin(child: &mut Child, cgroup: &DomainCgroup) -> io::Result<()> {
    let stdin = child.stdin.take();
    cgroup.take(child.id())?;
    stdin.map_or(Ok(()), |mut stdin| stdin.write_all(b"go"))
}

/// The cgroup of a domain that there is.
pub fn cgroup_of(node: &Node, domid: u16) -> io::Result<DomainCgroup> {
    let domain = node.known(domid)?.ok_or(io::ErrorKind::NotFound)?;
    DomainCgroup::of(domain.uuid)
}
