//! The host's side of a container: its holder, and its root, volumes and spec in the share.

use std::path::Path;

use containerd_shim_protos::api::Mount;

use super::{
    Creation, Pod, Sandbox,
    plan::Plan,
    steps::Step,
    volumes::{self, Changes},
};
use crate::{
    error::{Result, blocking},
    holder::Holder,
    hooks, mount,
    persist::{ContainerRecord, hooks::HookNotes},
    spec::{hooks::Kind, namespaces::GuestsOwn},
};

/// What a container has on the host.
pub(super) struct Placed {
    pub(super) holder: Holder,
    pub(super) notes: HookNotes,
    /// Its spec in the share has words for what containers of a pod share.
    pub(super) shares: bool,
    /// Of its volumes that kubelet changes.
    pub(super) changes: Option<Changes>,
}

impl Pod {
    /// The host's side of the container: its holder, and its root, volumes and spec in the share.
    pub(super) async fn place_container(
        &self,
        sandbox: &mut Sandbox,
        plan: &Plan,
        creation: &Creation,
    ) -> Result<Placed> {
        let first = sandbox.record.containers.is_empty();
        if first {
            self.passed(Step::Recorded, creation).await?;
        } else {
            let (store, bundle) = (sandbox.store.clone(), plan.bundle.clone());
            blocking(move || store.point_from(&bundle)).await?;
        }
        let (spec, shm) = match &sandbox.own {
            Some(own) if plan.own.is_none() => plan.spec.in_sandbox(&own.files, &sandbox.share.files()),
            _ => (plan.spec.clone(), None),
        };
        let own = sandbox
            .own
            .as_ref()
            .map(|own| GuestsOwn { sandbox: sandbox.record.sandbox.clone(), shares_pids: own.shares_pids });
        let (asked, bundle, others) = (spec.clone(), plan.bundle.clone(), sandbox.record.holders());
        let mut known = sandbox.memories.clone();
        let command = self.platform.holder(&self.namespace, plan.id());
        // It goes with us, so it may be there before the record says so.
        let (holder, namespace, joined, memories, known) = blocking(move || {
            let joined = asked.joined(&others)?;
            let mut memories = asked.memories(&bundle, &mut known)?;
            memories.extend(shm);
            let words = joined.words(own.as_ref())?;
            let (holder, namespace) = Holder::begin(command, joined)?;
            Ok((holder, namespace, words, memories, known))
        })
        .await?;
        sandbox.memories = known;
        let record =
            ContainerRecord { bundle: plan.bundle.clone(), gpu: plan.gpu, holder: Some(holder.process()) };
        sandbox.record.containers.insert(plan.id().to_owned(), record);
        sandbox.save().await?;
        let notes = sandbox.store.hooks_of(plan.id());
        let (noted, hooks) = (notes.clone(), plan.hooks.clone());
        blocking(move || noted.make(&hooks)).await?;
        self.passed(Step::Held, creation).await?;
        if first {
            sandbox.namespace = Some(namespace);
            let share = sandbox.share.clone();
            blocking(move || share.make()).await?;
            if let Some(own) = &sandbox.own {
                let (share, files) = (sandbox.share.clone(), own.files.clone());
                blocking(move || share.make_files(&files.0)).await?;
            }
            self.passed(Step::ShareMade, creation).await?;
        }
        if plan.own.as_ref().is_some_and(|own| !own.shares_pids) {
            // Of this one the guest has nothing.
            return Ok(Placed { holder, notes, shares: false, changes: None });
        }
        let (mounts, target) = (plan.request.rootfs.clone(), plan.bundle.join("rootfs"));
        blocking(move || mount_root(&mounts, &target)).await?;
        self.passed(Step::RootMounted, creation).await?;
        if plan.own.is_none() {
            self.run_hooks(plan, &notes, &holder, creation).await?;
        }
        let (share, id) = (sandbox.share.clone(), plan.id().to_owned());
        let (bundle, gpu, mounted) =
            (plan.bundle.clone(), plan.gpu.is_some(), !plan.request.rootfs.is_empty());
        let is_pause = plan.own.is_some();
        let (shares, changes) = blocking(move || {
            let mut guest = spec.for_guest(&id, &bundle, gpu, &joined, &memories);
            if is_pause {
                guest.name_pause();
            }
            // Before the guest looks at them.
            let changes = volumes::begin(&mut guest);
            let root = if mounted { bundle.join("rootfs") } else { guest.root };
            share.add(&id, &root, &guest.binds, guest.config.to_string().as_bytes())?;
            Ok((guest.shares, changes))
        })
        .await?;
        self.passed(Step::ContainerShared, creation).await?;
        Ok(Placed { holder, notes, shares, changes })
    }

    /// Before any guest sees the root: a hook works in it as root of the node, and nobody may change it meanwhile. One that fails costs no boot.
    async fn run_hooks(
        &self,
        plan: &Plan,
        notes: &HookNotes,
        holder: &Holder,
        creation: &Creation,
    ) -> Result<()> {
        let (notes, hooks, pid) = (notes.clone(), plan.hooks.clone(), holder.process().pid.unsigned_abs());
        let cancelled = creation.cancelled.subscribe();
        let run = move || {
            let mut kinds = Kind::OF_CREATE.into_iter();
            kinds.try_for_each(|kind| hooks::run_all(&notes, &hooks, kind, pid, || *cancelled.borrow()))
        };
        blocking(run).await?;
        self.passed(Step::HooksRun, creation).await
    }
}

fn mount_root(mounts: &[Mount], target: &Path) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    mount::rootfs(mounts, target)
}
