//! The life of a worker as the supervisor sees it: placed, born, assigned, ready, ended, reaped. Start at
//! [`Supervisor::start_worker`]. Each worker has one task here, which owns its descriptors and sees it to its end, whoever asked
//! for it and whatever becomes of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use idm::arena::Arena;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vgpu_codes::{Code, with_causes};
use vgpu_zone_api::shim::ZoneId;

use super::ahead::Taken;
use super::cgroup::WorkerCgroup;
use super::environment::environment;
use super::exchange;
use super::foreign::Foreign;
use super::process::{failed, kill, reaped, report};
use super::refusal::Refusal;
use super::running::{ArenaKind, Begun, Channel, Occupied, Running, Serving, Wanted, give_up};
use super::spawn::{Newborn, Order};
use super::worker_id::WorkerId;
use super::worker_log;
use super::zones::Place;
use super::{Supervisor, nobody};
use crate::device::DeviceKind;
use crate::worker::assignment::{self, Assignment, Report};
use crate::worker::turn::cost_said;

/// From birth to the report that it serves. NVIDIA's driver takes most of a second on a cold machine, but starts processes in turn: 24 that
/// began together on four H200s were there after 15 s, natively, too (2026-11-28). Only a driver that hangs is to be given up.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(120);
/// How long a start waits for the ends of others. NVIDIA's driver takes some tenths of a second to take a process apart.
const OTHERS_END_WITHIN: Duration = Duration::from_secs(10);
/// For what a dead worker has left in its log.
const LAST_WORDS: Duration = Duration::from_millis(50);

impl Supervisor {
    /// Makes a worker, or takes the one that waits, and waits until it serves. `attach` runs when the worker has its place: what it takes
    /// of this machine for the guest is inside the zone's limits.
    ///
    /// A caller that gives up leaves nothing half done: the start goes on in a task of its own, and what comes of it is ended.
    ///
    /// # Errors
    /// Not granted, a limit, or what went wrong on this machine. Nothing is left of the attempt.
    pub async fn start_worker(
        self: &Arc<Self>,
        wanted: Wanted,
        attach: impl Future<Output = Result<Channel, Refusal>> + Send + 'static,
    ) -> Result<Serving, Refusal> {
        let supervisor = Arc::clone(self);
        let started = tokio::spawn(async move {
            supervisor.others_have_ended(wanted.zone).await;
            match supervisor.take_ahead(&wanted).await? {
                Taken::Waiting(waiting) => supervisor.adopt(waiting, &wanted, attach).await,
                Taken::Place(place) => supervisor.start(wanted, place, attach).await,
            }
        });
        started.await.map_err(|lost| Refusal::new(Code::WorkerFailed, format!("a start was lost: {lost}")))?
    }

    /// Returns when the zone's workers that were told to end are reaped, or after a while. Who starts a program when the last one is
    /// over expects that one's memory and place, and a program of ours is over before its worker is.
    async fn others_have_ended(&self, zone: ZoneId) {
        let ending = self.zones().ending(zone);
        let reaped = async {
            loop {
                let changed = self.changed.notified();
                if self.zones().ending(zone).is_disjoint(&ending) {
                    break;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(OTHERS_END_WITHIN, reaped).await;
    }

    async fn start(
        self: &Arc<Self>,
        wanted: Wanted,
        place: Place,
        attach: impl Future<Output = Result<Channel, Refusal>>,
    ) -> Result<Serving, Refusal> {
        // Before the channel, so that it is dropped after it: what was mapped goes first.
        let occupied = Occupied { supervisor: Arc::clone(self), zone: wanted.zone, worker: place.worker };
        let channel = attach.await?;
        let Begun { running, arena, report, socket } = self.bear(wanted, place, occupied, channel).await?;
        self.serves(running, report, socket).await.map(|running| (running, arena))
    }

    /// Brings a worker to life at its place. A program of an earlier wire has no exchange.
    pub(super) async fn bear(
        self: &Arc<Self>,
        wanted: Wanted,
        mut place: Place,
        occupied: Occupied,
        channel: Channel,
    ) -> Result<Begun, Refusal> {
        let no_arena = |error: &dyn std::error::Error| {
            Refusal::new(Code::HostResource, format!("no arena: {}", with_causes(error)))
        };
        let arena = match wanted.arena {
            ArenaKind::Memory(bytes) => Some(Arena::make(bytes).map_err(|error| no_arena(&error))?),
            ArenaKind::Nothing | ArenaKind::Granted(_) => None,
        };
        let channel = channel.with_arena(arena.as_ref()).map_err(|error| no_arena(&error))?;
        if wanted.program.is_some() {
            // Of earlier releases, which knew of one device.
            place.devices.truncate(1);
        }
        let exchange = wanted.program.is_none().then(exchange::make).transpose();
        let exchange = exchange.map_err(|error| failed("a worker cannot have its exchange", &error))?;
        let born = match wanted.program.as_ref().map(OwnedFd::try_clone).transpose() {
            Ok(program) => self.birth(&wanted, &place, program).await,
            Err(error) => Err(error),
        };
        let (newborn, cgroup) = born.map_err(|error| failed("a worker cannot be started", &error))?;
        self.zones().worker_born(wanted.zone, place.worker, newborn.pid);
        place.log.info(format_args!(
            "worker {}, container {}, {}: born",
            newborn.pid, wanted.container, wanted.peer
        ));
        let (running, socket, report) =
            self.watch_over(&wanted, (channel, exchange), &place, occupied, newborn, cgroup);
        Ok(Begun { running, socket, arena, report })
    }

    /// Waits until the worker says that it serves.
    pub(super) async fn serves(
        self: &Arc<Self>,
        running: Running,
        report: JoinHandle<io::Result<Report>>,
        socket: Arc<Foreign>,
    ) -> Result<Running, Refusal> {
        match self.says(running, report).await? {
            (running, Report::Ready { gaps }) => match self.judge(gaps, Code::WorkerFailed) {
                Ok(()) => {
                    self.attach_code(&running).await;
                    self.hear(socket, Arc::clone(&running.pidfd));
                    Ok(running)
                }
                Err(refusal) => Err(give_up(running, refusal).await),
            },
            (running, other) => Err(give_up(running, nobody::astray(&other)).await),
        }
    }

    /// What the worker reports, which is no failure. One that fails, or says nothing, is ended.
    pub(super) async fn says(
        &self,
        running: Running,
        report: JoinHandle<io::Result<Report>>,
    ) -> Result<(Running, Report), Refusal> {
        let refusal = match tokio::time::timeout(READY_LIMIT, report).await {
            Ok(Ok(Ok(Report::Failed { code, text }))) => {
                Refusal::new(Code::from_number(code).unwrap_or(Code::WorkerFailed), text)
            }
            Ok(Ok(Ok(report))) => return Ok((running, report)),
            Ok(Ok(Err(error))) => failed("a worker ended before it served", &error),
            Ok(Err(_)) => Refusal::new(Code::WorkerFailed, "a worker was lost"),
            Err(_) => {
                let text = format!("a worker was not ready within {} s", READY_LIMIT.as_secs());
                Refusal::new(Code::WorkerFailed, text)
            }
        };
        Err(give_up(running, refusal).await)
    }

    /// Ends workers and returns when all of them are reaped.
    pub async fn end_workers(&self, workers: &[WorkerId]) {
        for worker in workers {
            // One that is being born has no descriptor yet; it finds its zone closed or its grant gone when it is.
            let pidfd = self.running().get(worker).cloned();
            if let Some(pidfd) = pidfd {
                kill(&pidfd);
            }
        }
    }

    /// The program that speaks the CUDA wire of this hash: `None` is this one, else the installed one of an earlier release, so
    /// that an upgrade cuts no living pod.
    ///
    /// # Errors
    /// There is none.
    pub fn program_for(&self, wire_hash: u64) -> Result<Option<OwnedFd>, Refusal> {
        if wire_hash == vgpu_api::WIRE_HASH {
            return Ok(None);
        }
        if self.device == DeviceKind::Cuda && self.zones().devices() > 1 {
            // Those of earlier releases open the nodes of all GPUs, which here are others' too.
            let text = format!(
                "the program speaks wire {wire_hash:016x}, and on a node with several GPUs only this release's is served"
            );
            return Err(Refusal::new(Code::ProtocolVersion, text));
        }
        let path = self.workers_dir.join(format!("{wire_hash:016x}"));
        let found = std::fs::File::open(&path).map(|file| Some(file.into()));
        found.map_err(|error| {
            let ours = vgpu_api::WIRE_HASH;
            let text = format!(
                "the program speaks wire {wire_hash:016x}, this release {ours:016x}: {}: {error}",
                path.display()
            );
            Refusal::new(Code::ProtocolVersion, text)
        })
    }

    async fn birth(
        &self,
        wanted: &Wanted,
        place: &Place,
        program: Option<OwnedFd>,
    ) -> io::Result<(Newborn, Option<WorkerCgroup>)> {
        let cgroup =
            self.cgroups.as_ref().map(|all| all.worker(&place.pod_uid, place.worker.0)).transpose()?;
        let order = Order {
            program: program.map(Arc::new),
            uid: place.uid,
            cgroup: cgroup.as_ref().map(WorkerCgroup::open).transpose()?,
            environment: environment(self.device, self.visible(place), self.keeps_code(wanted)),
        };
        Ok((self.spawner.spawn(order).await?, cgroup))
    }

    /// Starts the worker's task. The last of the result is its report.
    fn watch_over(
        self: &Arc<Self>,
        wanted: &Wanted,
        (channel, exchange): (Channel, Option<(OwnedFd, OwnedFd)>),
        place: &Place,
        occupied: Occupied,
        newborn: Newborn,
        cgroup: Option<WorkerCgroup>,
    ) -> (Running, Arc<Foreign>, JoinHandle<io::Result<Report>>) {
        let Newborn { pid, pidfd, socket, log } = newborn;
        let (pidfd, socket) = (Arc::new(pidfd), Arc::new(Foreign::new(socket)));
        let (tell, ended) = watch::channel(false);
        self.running().insert(place.worker, Arc::clone(&pidfd));
        let task = Assignment {
            zone: wanted.zone.to_string(),
            container: wanted.container.clone(),
            peer: wanted.peer.clone(),
            device: self.device,
            device_bytes: place.bytes,
            devices: u32::try_from(place.devices.len()).unwrap_or(1),
            nodes: self.nodes(place),
            slot: place.slot,
            // Whose turn it is is ruled device by device.
            turns: wanted.program.is_none() && place.devices.len() == 1,
            namespaces: self.namespaces.of_mounts(),
            exchange: exchange.is_some(),
            code: self.keeps_code(wanted).is_some(),
            channel: channel.kind,
            log_level: crate::logfmt::level(),
        };
        let code = task.code;
        let turns = task.turns.then(|| place.turns.fd());
        let pages = place.devices.iter().map(|(_, page)| page.fd()).chain(turns);
        let theirs = exchange.iter().map(|(_, theirs)| theirs.as_fd());
        let fds: Vec<BorrowedFd<'_>> =
            pages.chain(theirs).chain(channel.fds.iter().map(AsFd::as_fd)).collect();
        let assigned = assignment::send(&*socket, &task, &fds);
        let exchange = exchange
            .map(|(ours, _)| self.exchange_with((wanted.zone, place.worker), ours, Arc::clone(&pidfd)));
        if assigned.is_err() {
            kill(&pidfd);
        }
        let (report, own) = (tokio::spawn(report(Arc::clone(&socket), assigned)), Arc::clone(&socket));
        let (zone_log, watched) = (Arc::clone(&place.log), Arc::clone(&pidfd));
        let turns = Arc::clone(&place.turns);
        let mut lines = tokio::spawn({
            let zone_log = Arc::clone(&zone_log);
            async move { worker_log::follow(pid, log, &zone_log).await }
        });
        let (supervisor, zone, container) = (Arc::clone(self), wanted.zone, wanted.container.clone());
        tokio::spawn(async move {
            let how = reaped(&watched).await;
            // Its last words, unless it left more than anybody reads.
            if tokio::time::timeout(LAST_WORDS, &mut lines).await.is_err() {
                lines.abort();
            }
            match cost_said(&turns) {
                Some(cost) => zone_log.info(format_args!("worker {pid}: {how}; of Xen: {cost}")),
                None => zone_log.info(format_args!("worker {pid}: {how}")),
            }
            drop(socket);
            // Removing a cgroup may have to wait for the kernel.
            let _ = tokio::task::spawn_blocking(move || drop(cgroup)).await;
            if let Some(exchange) = exchange {
                exchange.end().await;
            }
            supervisor.end_sharing(zone, occupied.worker).await;
            let waited = supervisor.zones().is_ahead_of(zone, occupied.worker).is_some();
            drop(occupied);
            let _ = tell.send(true);
            // One that died while it waited has its reason, which the next one would have, too.
            if !waited {
                supervisor.start_ahead(zone, &container);
            }
        });
        (Running { worker: place.worker, pidfd, code, ending: place.ending.clone(), ended }, own, report)
    }
}

#[cfg(test)]
mod tests;
