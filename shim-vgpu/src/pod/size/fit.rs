//! A domain's own size: what the limits ask of it, and what it was set to.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use vgpu_codes::Code;
use vgpu_config::Guest as GuestConfig;

use super::{limits::Containers, wanted::Wanted};
use crate::{
    error::{Result, blocking},
    guest::Guest,
    spec::{
        Spec,
        size::{DomainSize, vcpus},
    },
    toolstack::Toolstack,
};

const MIB: u64 = 1 << 20;
/// Of memory that comes later, one part in as many is what the kernel keeps about its pages. Source: Linux, `struct page`: 64 bytes of 4096.
const PAGES_PART: u64 = 64;
/// What Xen gives a guest beyond the limits of its containers, in hundredths of one CPU: its kernel and guest-init have to answer the shim in time
/// while containers use all that is theirs. No setting: how long the shim waits is none of the node's either.
const KERNEL_PERCENT: u64 = 25;
/// Until what could not be set is tried again: xl may be away for as long as its upgrade takes.
const AGAIN: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)];

/// A domain, and who may use how much of it.
pub(in crate::pod) struct Size {
    toolstack: Arc<dyn Toolstack>,
    guest: Arc<Guest>,
    domid: u16,
    made: DomainSize,
    config: GuestConfig,
    /// The pod's summed limits that it was made for: in bytes, and in hundredths of one CPU.
    pod_memory: Option<u64>,
    pod_cpu: Option<u64>,
    containers: Mutex<Containers>,
    set: Arc<AsyncMutex<Set>>,
    /// Somebody waits for its turn to have the domain follow the limits.
    fit_waits: AtomicBool,
}

/// What was set last, none if that is not known. Who has it is the only one who gives a container other limits and has the domain follow them, however
/// long its toolstack and its guest take.
#[derive(Debug)]
pub(super) struct Set {
    memory_mib: Option<u64>,
    vcpus: Option<u32>,
    cap_percent: Option<u32>,
    /// How often [`Size::fit_beside`] had its turn.
    fits: u64,
}

impl std::fmt::Debug for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Size")
            .field("domid", &self.domid)
            .field("containers", &self.containers)
            .finish_non_exhaustive()
    }
}

impl Size {
    /// Of a domain made for the container of this spec, whose guest is up. Nobody's program runs in it yet, and nothing holds it back.
    pub(in crate::pod) fn new(
        toolstack: Arc<dyn Toolstack>,
        domid: u16,
        guest: Arc<Guest>,
        config: &GuestConfig,
        spec: &Spec,
    ) -> Result<Arc<Size>> {
        let made = spec.domain_size(config)?;
        let set =
            Set { memory_mib: Some(made.memory_mib), vcpus: Some(made.vcpus), cap_percent: None, fits: 0 };
        Ok(Arc::new(Size {
            toolstack,
            guest,
            domid,
            made,
            config: config.clone(),
            pod_memory: spec.pod_memory(),
            pod_cpu: spec.pod_cpu(),
            containers: Mutex::default(),
            set: Arc::new(AsyncMutex::new(set)),
            fit_waits: AtomicBool::default(),
        }))
    }

    /// What its containers may use. It may be taken back at any time.
    pub(super) fn lock(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted_mib(&self) -> u64 {
        let containers = self.lock();
        let asked = containers.memory(self.pod_memory).div_ceil(MIB);
        let beyond =
            asked.saturating_add(self.config.memory_overhead_mib).saturating_sub(self.made.memory_mib);
        let more = beyond.saturating_add(containers.huge().div_ceil(MIB));
        self.made.memory_mib.saturating_add(more).saturating_add(more.div_ceil(PAGES_PART))
    }

    /// How many CPUs its guest is to use, and Xen's cap. There always is one: a guest that uses more of its virtual CPUs than it was told to gets no more
    /// time by that. Xen's tools take none above what all of them can use. Source: libxl `libxl_sched.c`, `sched_credit2_domain_set`.
    fn wanted_cpus(&self) -> (u32, u32) {
        let containers = self.lock();
        let asked = containers.cpu(self.pod_cpu);
        let needs = vcpus(asked).max(self.made.vcpus);
        let all = containers.has_all_cpus();
        let cpus = if all { needs.max(self.config.vcpus) } else { needs }.min(self.made.vcpus_max);
        let bounded = !all && asked > 0;
        let most = 100 * if bounded { self.made.vcpus_max } else { cpus };
        let limits = u32::try_from(asked.saturating_add(KERNEL_PERCENT)).unwrap_or(u32::MAX);
        (cpus, if bounded { limits.min(most) } else { most })
    }

    /// Waits until nobody else changes it.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<Set> {
        self.set.clone().lock_owned().await
    }

    /// Has the domain be as large as the limits ask for, before one of them rises: an Update's, which needs more memory or not. What it has is not refused,
    /// and CPUs never are.
    ///
    /// # Errors
    /// As [`Toolstack::set_memory`] where it needs more, and [`Wanted::check`]'s.
    pub(super) async fn grow(&self, set: &mut Set, needs_memory: bool, wanted: &Wanted) -> Result<()> {
        match self.fit_memory(set).await {
            Err(error) if needs_memory => return Err(error),
            Err(error) => log::warn!("the domain's memory stays as it is: {}", error.report()),
            Ok(()) => {}
        }
        // Each of both may take long.
        wanted.check()?;
        self.fit_cpus(set).await;
        wanted.check()
    }

    /// # Errors
    /// As [`Toolstack::set_memory`].
    pub(super) async fn fit_memory(&self, set: &mut Set) -> Result<()> {
        let mib = self.wanted_mib();
        if set.memory_mib == Some(mib) {
            return Ok(());
        }
        set.memory_mib = None;
        let (toolstack, domid) = (self.toolstack.clone(), self.domid);
        blocking(move || toolstack.set_memory(domid, mib)).await?;
        log::info!("the domain is to have {mib} MiB of memory");
        set.memory_mib = Some(mib);
        Ok(())
    }

    pub(super) async fn fit_cpus(&self, set: &mut Set) {
        let (vcpus, cap) = self.wanted_cpus();
        if set.cap_percent != Some(cap) {
            let (toolstack, domid) = (self.toolstack.clone(), self.domid);
            let done = blocking(move || toolstack.set_cap(domid, cap)).await;
            match &done {
                Ok(()) => log::info!("the domain's cap is {cap} % of a CPU"),
                Err(error) => {
                    log::warn!("Xen does not hold the domain to its CPU limits: {}", error.report())
                }
            }
            // One that failed is tried again when this is called again. That is an xl and a line of the log each time where Xen's scheduler has no
            // caps, and for a change that nobody waits for a few more: from here nobody can tell that from an xl that failed once.
            set.cap_percent = done.ok().map(|()| cap);
        }
        if set.vcpus != Some(vcpus) {
            let done = self.guest.set_cpus(vcpus).await;
            match &done {
                Ok(()) => log::info!("the guest uses {vcpus} CPUs"),
                Err(error) => log::warn!("the guest does not use {vcpus} CPUs: {}", error.report()),
            }
            set.vcpus = done.ok().map(|()| vcpus);
        }
    }

    /// Has it be as large as the limits ask for when there is a turn for that, with nobody who waits for it: what stays as it is is told to the log, and
    /// what may be more than the limits allow is tried again.
    pub(super) fn fit_beside(self: &Arc<Self>) {
        // Who waits already does it for all that has changed by then.
        if self.fit_waits.swap(true, Ordering::AcqRel) {
            return;
        }
        // A pod that ends meanwhile has no domain to be tried.
        let (size, set) = (Arc::downgrade(self), self.set.clone());
        tokio::spawn(async move {
            let mut turn = set.clone().lock_owned().await;
            let Some(this) = size.upgrade() else { return };
            this.fit_waits.store(false, Ordering::Release);
            turn.fits += 1;
            let (mine, sure) = (turn.fits, this.fit(&mut turn).await);
            drop((turn, this));
            if !sure {
                Size::fit_again(size, set, mine).await;
            }
        });
    }

    /// As the `mine`th [`Size::fit_beside`] that was not sure to the end.
    async fn fit_again(size: Weak<Size>, set: Arc<AsyncMutex<Set>>, mine: u64) {
        for pause in AGAIN {
            tokio::time::sleep(pause).await;
            let mut set = set.lock().await;
            let Some(size) = size.upgrade() else { return };
            // A later one tries again as often itself.
            if set.fits != mine || size.fit(&mut set).await {
                return;
            }
        }
    }

    /// False if nobody can say that Xen bounds it as it should: by its cap, and by its memory, of which a guest that takes no more has no more.
    async fn fit(&self, set: &mut Set) -> bool {
        // First: Xen's cap falls at once, however long the guest lets its memory be waited for.
        self.fit_cpus(set).await;
        let fitted = self.fit_memory(set).await;
        if let Err(error) = &fitted {
            log::warn!("the domain's memory stays as it is: {}", error.report());
        }
        let bounded = fitted.map_or_else(|error| error.code() == Some(Code::HostResource), |()| true);
        bounded && set.cap_percent.is_some()
    }
}
