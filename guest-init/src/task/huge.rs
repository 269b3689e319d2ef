//! Huge pages of the guest's kernel: its pools are as large as the limits of its containers, which the `hugetlb` controller holds each to.
//!
//! A node's pools are its operator's and are there before a pod is. A guest's memory is its pod's alone, and the shim has made it larger by these
//! limits: so they are taken from it when a container comes, and are ordinary memory again when it goes.
//! Source: Linux `Documentation/admin-guide/mm/hugetlbpage.rst`.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libcontainer::oci_spec::runtime::LinuxHugepageLimit;

use crate::{
    error::{During, GuestError, Result},
    oci::resources::page_kib,
};

/// The kernel's pools: a folder for each size of pages.
pub const POOLS: &str = "/sys/kernel/mm/hugepages";
const FIELD: &str = "linux.resources.hugepageLimits";

/// The pools of a guest.
#[derive(Debug)]
pub struct HugePages {
    pools: Box<dyn Pools>,
    /// Pages that containers may have, by the size of one in KiB, and those that the kernel had before.
    reserved: Mutex<BTreeMap<u64, u64>>,
    /// Held by who changes the kernel's pools, which may take long.
    changing: Mutex<()>,
}

/// The pools of a kernel, each by the size of its pages in KiB. Tests have some without a kernel.
trait Pools: fmt::Debug + Send + Sync {
    /// Whether it has pages of this size.
    fn has(&self, kib: u64) -> bool;
    /// How many there are.
    fn get(&self, kib: u64) -> Result<u64>;
    /// Makes as many, or as there is room for.
    fn set(&self, kib: u64, pages: u64) -> Result<()>;
}

/// Those of the kernel that has this folder.
#[derive(Debug)]
struct Sysfs(PathBuf);

/// A container's part of the pools, until it is dropped.
#[derive(Debug)]
pub struct Reserved {
    pools: Arc<HugePages>,
    pages: Vec<(u64, u64)>,
}

impl HugePages {
    /// The pools that `folder` shows, in which there is nothing yet.
    pub fn new(folder: PathBuf) -> Arc<Self> {
        Self::of(Box::new(Sysfs(folder)))
    }

    fn of(pools: Box<dyn Pools>) -> Arc<Self> {
        Arc::new(Self { pools, reserved: Mutex::default(), changing: Mutex::default() })
    }

    /// Takes as many pages as these limits allow. Blocks while the kernel makes room.
    /// # Errors
    /// A size that this kernel has not, and more than there is memory for. Nothing is taken then.
    pub fn reserve(self: &Arc<Self>, limits: &[LinuxHugepageLimit]) -> Result<Reserved> {
        let mut reserved = Reserved { pools: Arc::clone(self), pages: Vec::new() };
        for limit in limits {
            // Kubernetes names each size of its node, with 0 where a container has none.
            let Some(bytes) = u64::try_from(limit.limit()).ok().filter(|&bytes| bytes > 0) else { continue };
            let kib = page_kib(limit.page_size()).filter(|kib| self.pools.has(*kib));
            let kib =
                kib.ok_or_else(|| refused(format!("this guest has no pages of {}", limit.page_size())))?;
            let pages = bytes.div_ceil(kib.saturating_mul(1024));
            self.take(kib, pages)?;
            reserved.pages.push((kib, pages));
        }
        Ok(reserved)
    }

    fn take(&self, kib: u64, pages: u64) -> Result<()> {
        let _turn = lock(&self.changing);
        let known = lock(&self.reserved).get(&kib).copied();
        let had = known.map_or_else(|| self.pools.get(kib), Ok)?;
        let wanted = had.saturating_add(pages);
        self.pools.set(kib, wanted)?;
        let has = self.pools.get(kib)?;
        if has < wanted {
            self.pools.set(kib, had)?;
            return Err(refused(format!(
                "this guest has memory for {has} pages of {kib} KiB, and {wanted} are asked for"
            )));
        }
        // Others may have gone meanwhile.
        *lock(&self.reserved).entry(kib).or_insert(had) += pages;
        Ok(())
    }

    /// Has the kernel's pool be as large as it should.
    fn settle(&self, kib: u64) -> Result<()> {
        let _turn = lock(&self.changing);
        let pages = lock(&self.reserved).get(&kib).copied();
        pages.map_or(Ok(()), |pages| self.pools.set(kib, pages))
    }
}

impl Sysfs {
    fn file(&self, kib: u64) -> PathBuf {
        self.0.join(format!("hugepages-{kib}kB/nr_hugepages"))
    }
}

impl Pools for Sysfs {
    fn has(&self, kib: u64) -> bool {
        self.file(kib).exists()
    }

    fn get(&self, kib: u64) -> Result<u64> {
        let file = self.file(kib);
        let get = || fs::read_to_string(&file)?.trim().parse().map_err(std::io::Error::other);
        get().during(|| format!("read {}", file.display()))
    }

    fn set(&self, kib: u64, pages: u64) -> Result<()> {
        let file = self.file(kib);
        fs::write(&file, pages.to_string()).during(|| format!("change {}", file.display()))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let (pools, pages) = (Arc::clone(&self.pools), std::mem::take(&mut self.pages));
        if pages.is_empty() {
            return;
        }
        // At once: they are the next container's.
        let mut reserved = lock(&pools.reserved);
        for (kib, pages) in &pages {
            reserved.entry(*kib).and_modify(|all| *all = all.saturating_sub(*pages));
        }
        drop(reserved);
        // Not here: a kernel that makes room for another container's pages may take long, and this may be the thread that serves the pod.
        // To have fewer is always possible, and a pool that stays too large is the guest's own loss.
        let _ = std::thread::Builder::new().name("huge-pages".into()).spawn(move || {
            for (kib, _) in pages {
                let _ = pools.settle(kib);
            }
        });
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(why: String) -> GuestError {
    GuestError::Invalid { field: FIELD, why }
}

#[cfg(test)]
mod tests;
