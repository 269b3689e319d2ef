//! Who makes and ends domains: a small trait, and `xl` behind it ([`xl`]).
//!
//! Every method blocks; callers are in `spawn_blocking`. A domain is named by its UUID, which we choose before it exists, so that it can
//! be found by a process that knows nothing else.

mod memory;
pub mod xl;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use uuid::Uuid;
use vgpu_config::GuestKind;

use crate::error::Result;

/// Makes and ends domains.
pub trait Toolstack: Send + Sync {
    /// Whether this node can run domains at all.
    ///
    /// # Errors
    /// `NoXen`.
    fn check(&self) -> Result<()>;

    /// Makes a paused domain and says its id.
    ///
    /// # Errors
    /// `DomainCreate`. A half-made domain may be left; [`Toolstack::find`] knows.
    fn create_paused(&self, domain: &DomainConfig) -> Result<u16>;

    /// Ends a creation from the configuration `file` that a shim, which is gone, left under way. None is no error. What it made may be left
    /// half done: [`Toolstack::find`] knows.
    ///
    /// # Errors
    /// `HostFailure` if it goes on.
    fn end_creation(&self, file: &Path) -> Result<()>;

    /// Lets it run.
    ///
    /// # Errors
    /// `DomainCreate`.
    fn unpause(&self, domid: u16) -> Result<()>;

    /// Has the domain's memory become as large as this, in MiB. It grows before this returns, for which its guest has 10 s and 1 s a GiB,
    /// 30 s at most; it shrinks when its guest gives memory back, and cannot grow from then on.
    ///
    /// # Errors
    /// `HostResource` if Xen has not as much, or the guest does not take it: it is as before then. `HostFailure` if nobody can say.
    fn set_memory(&self, domid: u16, mib: u64) -> Result<()>;

    /// Has Xen give the domain so much CPU time and no more, in hundredths of one CPU, whatever its guest does. Above 0, and not more than all of its
    /// virtual CPUs can use.
    ///
    /// # Errors
    /// `HostFailure` if nobody bounds it: not every scheduler of Xen does.
    fn set_cap(&self, domid: u16, percent: u32) -> Result<()>;

    /// The id of the domain with this UUID, if there is one.
    ///
    /// # Errors
    /// `HostFailure` if nobody can say.
    fn find(&self, uuid: Uuid) -> Result<Option<u16>>;

    /// Whether the domain with this UUID still runs. One that powered off or crashed does not.
    ///
    /// # Errors
    /// `HostFailure` if nobody can say.
    fn runs(&self, uuid: Uuid) -> Result<bool>;

    /// Stops the domain with this UUID for good, within `limit`: nothing in it runs any more, and to destroy it is what is left to do. That may
    /// take longer: its memory and devices are taken away. Gives its id, if there is one.
    ///
    /// # Errors
    /// `HostFailure` if it may still run.
    fn halt(&self, uuid: Uuid, limit: Duration) -> Result<Option<u16>>;

    /// Ends a domain at once, without asking it. Gone already is no error.
    ///
    /// # Errors
    /// `HostFailure` if it is still there.
    fn destroy(&self, domid: u16) -> Result<()>;
}

/// What a domain is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainConfig {
    /// Unique on the node; shown by `xl list`.
    pub name: String,
    /// Ours to choose.
    pub uuid: Uuid,
    /// An uncompressed ELF file.
    pub kernel: PathBuf,
    /// The initramfs.
    pub ramdisk: PathBuf,
    /// PVH or PV.
    pub kind: GuestKind,
    /// The kernel's command line.
    pub command_line: String,
    /// In MiB.
    pub memory_mib: u64,
    /// Virtual CPUs that it has. Its guest uses as many as the command line and the shim say.
    pub vcpus: u32,
    /// Physical CPUs in xl's notation; empty: any.
    pub cpus: String,
    /// Grant frames: 512 grants each.
    pub grant_frames_max: u32,
    /// Where xl's configuration is written.
    pub file: PathBuf,
}
