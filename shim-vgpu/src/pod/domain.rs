//! The pod's domain, from nothing to a guest that has said hello and made its network.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::sync::oneshot;
use vgpu_codes::Code;

use super::{Creation, Living, Pod, Sandbox, plan::Plan, size::Size, steps::Step};
use crate::{
    error::{Error, OrFail, Result, blocking},
    guest::Guest,
    toolstack::DomainConfig,
};

/// The longest id part of a domain's name.
const NAME_ID_BYTES: usize = 40;

impl Pod {
    /// The domain, from nothing to guest-init's hello.
    pub(super) async fn make_domain(
        self: &Arc<Self>,
        sandbox: &mut Sandbox,
        plan: &Plan,
        creation: &Creation,
    ) -> Result<()> {
        let platform = sandbox.platform.clone();
        // After the earlier lives' end, whose ways are none that a pod cannot have, and after the hooks, which may make some of it.
        let namespace = match plan.spec.network() {
            Some(path) => sandbox.find_network(path).await?,
            None => None,
        };
        // Nobody ends a toolstack that has begun.
        creation.check()?;
        let domain = domain_config(sandbox, plan)?;
        let toolstack = platform.toolstack.clone();
        let domid = blocking(move || toolstack.create_paused(&domain)).await?;
        self.passed(Step::DomainMade, creation).await?;
        sandbox.record.domid = Some(domid);
        sandbox.save().await?;
        let (share, uuid, export) =
            (platform.share.clone(), sandbox.record.domain_uuid, sandbox.share.export());
        let backend = blocking(move || share.attach(domid, uuid, &export)).await?;
        sandbox.record.backend = Some(backend);
        sandbox.save().await?;
        self.passed(Step::ShareServed, creation).await?;
        let mut backend_end =
            backend.end().or_fail(Code::HostFailure, || "cannot watch the share's backend".into())?;
        let (link, driver_domain) = (platform.link.clone(), sandbox.record.driver_domain);
        blocking(move || link.make_devices(domid, driver_domain)).await?;
        self.passed(Step::DevicesMade, creation).await?;
        let changes = sandbox.make_vifs().await?;
        self.passed(Step::VifsMade, creation).await?;
        let toolstack = platform.toolstack.clone();
        blocking(move || toolstack.unpause(domid)).await?;
        self.passed(Step::Unpaused, creation).await?;
        let guest = self.meet_guest(sandbox, plan, (domid, &mut backend_end), creation).await?;
        let guest = Arc::new(guest);
        let config = &platform.config.guest;
        let size = Size::new(platform.toolstack.clone(), domid, guest.clone(), config, &plan.spec)?;
        let living =
            Living { guest: guest.clone(), platform: platform.clone(), domain_uuid: uuid, backend, size };
        *self.living() = Some(living);
        self.follow_network(sandbox, &guest, namespace.as_ref(), changes).await;
        sandbox.watch(self.clone().watch_domain(platform, uuid));
        sandbox.watch(self.clone().watch_guest());
        sandbox.watch(self.clone().watch_backend(backend_end));
        sandbox.watch(self.clone().keep_clock());
        self.passed(Step::GuestUp, creation).await
    }

    /// Waits for guest-init, and then for it to make the pod's network, but not for one that is dead, too slow or not wanted any more.
    async fn meet_guest(
        &self,
        sandbox: &Sandbox,
        plan: &Plan,
        (domid, backend_end): (u16, &mut oneshot::Receiver<()>),
        creation: &Creation,
    ) -> Result<Guest> {
        let platform = &sandbox.platform;
        let seconds = platform.config.shim.boot_timeout_s;
        let uuid = sandbox.record.domain_uuid;
        let mut endings = platform.link.endings();
        let death = async {
            loop {
                if endings.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                let toolstack = platform.toolstack.clone();
                if let Ok(false) = blocking(move || toolstack.runs(uuid)).await {
                    return;
                }
            }
        };
        let given_up = async {
            tokio::select! {
                () = death => Error::new(Code::GuestGone, "the domain ended before its guest was up"),
                _ = backend_end => Error::new(Code::ShareFailed, "the share's backend ended before the guest was up"),
                () = creation.cancelled() => creation.refusal(),
            }
        };
        let mut given_up = pin!(given_up);
        let guest = tokio::select! {
            met = Guest::meet(platform.link.clone(), domid, &sandbox.record.sandbox, plan.spec.hostname()) => met?,
            why = &mut given_up => return Err(why),
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {
                return Err(Error::new(Code::GuestSilent, format!("guest-init did not say hello within {seconds} s (shim.boot_timeout_s)")));
            }
        };
        // Its limit is the call's.
        if let Some(network) = &sandbox.network {
            tokio::select! {
                made = guest.set_network(network.network()) => made?,
                why = &mut given_up => return Err(why),
            }
        }
        Ok(guest)
    }
}

fn domain_config(sandbox: &Sandbox, plan: &Plan) -> Result<DomainConfig> {
    let guest = &sandbox.platform.config.guest;
    let size = plan.spec.domain_size(guest)?;
    let uuid = sandbox.record.domain_uuid;
    let short: String = plan.id().chars().take(NAME_ID_BYTES).collect();
    // A kernel that panics says so to Xen at once: else a PVH guest first tries the ways of a PC to restart, a million port reads that nothing answers.
    // Memory that a domain is given later is there to be used; of its CPUs the kernel starts those that it is to use now.
    let kernel_words = match guest.kind {
        vgpu_config::GuestKind::Pvh => "console=hvc0 quiet xen_legacy_crash memhp_default_state=online",
        // Grants of a PV guest's dma-bufs need bounce buffers: without them gntdev's IMP_TO_REFS gives references that nobody can map.
        vgpu_config::GuestKind::Pv => {
            "console=hvc0 quiet xen_legacy_crash memhp_default_state=online iommu=soft swiotlb=2048"
        }
    };
    Ok(DomainConfig {
        name: format!("vgpu-{short}-{:.8}", uuid.simple().to_string()),
        uuid,
        kernel: guest.kernel.clone(),
        ramdisk: guest.initramfs.clone(),
        kind: guest.kind,
        command_line: format!("{kernel_words} maxcpus={} {}", size.vcpus, guest.command_line)
            .trim_end()
            .to_owned(),
        memory_mib: size.memory_mib,
        vcpus: size.vcpus_max,
        cpus: guest.cpus.clone(),
        grant_frames_max: guest.grant_frames_max,
        file: sandbox.store.domain_file(),
    })
}
