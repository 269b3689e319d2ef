//! Workers that are started ahead: one waits, with its device open and its context made, for the first process of a container that has a
//! grant. It has read nothing of a guest, is given to that container's next process alone, and serves it as any other worker does.
//!
//! ```text
//! granted, or the container's last worker ended ─► placed, born, assigned (`ChannelKind::Ahead`) ─► waits ─► its turn ─► serves ─► ended
//! ```
//! The rule: no worker waits beside another one of its container, whose process would miss what its context takes of the grant. One that
//! a process cannot use is ended first.

use std::collections::HashMap;
use std::sync::Arc;

use idm::arena::Arena;
use tokio::task::JoinHandle;
use vgpu_zone_api::shim::ZoneId;

use super::foreign::Foreign;
use super::process::report;
use super::refusal::Refusal;
use super::running::{ArenaKind, Begun, Channel, Occupied, Running, Serving, Wanted, give_up};
use super::worker_id::WorkerId;
use super::zones::Place;
use super::{Supervisor, lock, nobody};
use crate::worker::assignment::{self, ChannelKind, Report, Turn};

/// By zone and container.
pub(super) type All = HashMap<(ZoneId, String), Ahead>;

/// A worker that waits, or will.
#[derive(Debug)]
pub(super) struct Ahead {
    worker: WorkerId,
    made: JoinHandle<Option<Waiting>>,
}

/// A worker that waits. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Waiting {
    worker: WorkerId,
    running: Running,
    socket: Arc<Foreign>,
    arena: Option<Arena>,
    arena_kind: ArenaKind,
}

/// What a process gets.
pub(super) enum Taken {
    /// The worker that waited for it.
    Waiting(Waiting),
    /// A place for a new one.
    Place(Place),
}

impl Supervisor {
    /// Has a worker wait for the container's next process, if that is wanted and nothing of the container runs.
    pub(super) fn start_ahead(self: &Arc<Self>, zone: ZoneId, container: &str) {
        if !self.workers_ahead {
            return;
        }
        // Held until it is noted: who takes it, or sees its end, comes after.
        let mut all = lock(&self.ahead);
        let Some(place) = self.zones().reserve_ahead(zone, container) else { return };
        let worker = place.worker;
        let occupied = Occupied { supervisor: Arc::clone(self), zone, worker };
        let wanted = Wanted {
            zone,
            container: container.to_owned(),
            guest_pid: 0,
            peer: "ahead of a process".into(),
            pages: 0,
            arena: self.arena,
            program: None,
        };
        let supervisor = Arc::clone(self);
        let made = tokio::spawn(async move {
            let log = Arc::clone(&place.log);
            let made = supervisor.make_ahead(wanted, place, occupied).await;
            made.inspect_err(|refusal| log.info(format_args!("no worker waits: {refusal}"))).ok()
        });
        all.insert((zone, container.to_owned()), Ahead { worker, made });
    }

    async fn make_ahead(
        self: &Arc<Self>,
        wanted: Wanted,
        place: Place,
        occupied: Occupied,
    ) -> Result<Waiting, Refusal> {
        let worker = place.worker;
        let wanted_arena = wanted.arena;
        let kind = match wanted_arena {
            ArenaKind::Granted(arena_bytes) => ChannelKind::Ahead { arena_bytes, granted: true },
            ArenaKind::Nothing | ArenaKind::Memory(_) => {
                ChannelKind::Ahead { arena_bytes: 0, granted: false }
            }
        };
        let channel = Channel { kind, fds: Vec::new() };
        let Begun { running, socket, arena, report } = self.bear(wanted, place, occupied, channel).await?;
        match self.says(running, report).await? {
            (running, Report::Waiting) => {
                Ok(Waiting { worker, running, socket, arena, arena_kind: wanted_arena })
            }
            (running, other) => Err(give_up(running, nobody::astray(&other)).await),
        }
    }

    /// The worker has ended: nobody waits for it.
    pub(super) fn forget_ahead(&self, worker: WorkerId) {
        lock(&self.ahead).retain(|_, ahead| ahead.worker != worker);
    }

    /// The worker that waits for such a process, or a place for one. What waits and does not fit has ended when this returns.
    pub(super) async fn take_ahead(&self, wanted: &Wanted) -> Result<Taken, Refusal> {
        let key = (wanted.zone, wanted.container.clone());
        loop {
            let ahead = {
                let mut all = lock(&self.ahead);
                match all.remove(&key).or_else(|| self.in_the_way(&mut all, wanted.zone)) {
                    Some(ahead) => ahead,
                    // With `all` locked: none is started ahead beside it.
                    None => {
                        let place = self.zones().reserve(
                            wanted.zone,
                            &wanted.container,
                            wanted.guest_pid,
                            wanted.pages,
                        );
                        return place.map(Taken::Place);
                    }
                }
            };
            // It may still be on its way: no new one would be there sooner.
            let Ok(Some(mut waiting)) = ahead.made.await else { continue };
            let its_own = self.zones().is_ahead_of(wanted.zone, waiting.worker) == Some(&wanted.container);
            if its_own && waiting.is_for(wanted) {
                return Ok(Taken::Waiting(waiting));
            }
            waiting.running.kill();
            waiting.running.ended().await;
        }
    }

    /// One that waits for another container's process, where the zone has no place for a worker that is needed now.
    fn in_the_way(&self, all: &mut All, zone: ZoneId) -> Option<Ahead> {
        if !self.zones().is_full(zone) {
            return None;
        }
        let key = all.keys().find(|(of, _)| *of == zone).cloned()?;
        all.remove(&key)
    }

    /// Gives the worker that waits to its process.
    pub(super) async fn adopt(
        self: &Arc<Self>,
        waiting: Waiting,
        wanted: &Wanted,
        attach: impl Future<Output = Result<Channel, Refusal>>,
    ) -> Result<Serving, Refusal> {
        let Waiting { worker, running, socket, arena, .. } = waiting;
        let adopted = self.zones().adopt(wanted.zone, worker, wanted.guest_pid, wanted.pages);
        let attached = match adopted {
            Ok(()) => attach.await,
            Err(refusal) => Err(refusal),
        };
        let Channel { kind, fds } = match attached {
            Ok(channel) => channel,
            Err(refusal) => return Err(give_up(running, refusal).await),
        };
        let turn = Turn { peer: wanted.peer.clone(), channel: kind };
        let told = assignment::send(&*socket, &turn, &fds);
        // They are the worker's alone from here on: what it maps is unmapped by its end.
        drop(fds);
        let report = tokio::spawn(report(Arc::clone(&socket), told));
        self.serves(running, report, socket).await.map(|running| (running, arena))
    }
}

impl Waiting {
    /// Whether such a process can use it.
    fn is_for(&self, wanted: &Wanted) -> bool {
        wanted.program.is_none() && wanted.arena == self.arena_kind && !self.running.has_ended()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;
    use vgpu_codes::Code;
    use vgpu_config::{Config, Proxy, WorkersAhead};

    use super::*;
    use crate::device::DeviceKind;
    use crate::supervisor::Mode;
    use crate::supervisor::cgroup::Cgroups;

    const ZONE: ZoneId = ZoneId(Uuid::from_u128(1));
    const LIMIT: Duration = Duration::from_secs(10);

    /// A supervisor with one zone of one worker and two grants. No worker is born into a folder that is no cgroup.
    fn supervisor(base: &std::path::Path) -> Arc<Supervisor> {
        let proxy =
            Proxy { workers_ahead: WorkersAhead::On, workers_per_zone_max: 1, ..Config::default().proxy };
        let config = Config { proxy, ..Config::default() };
        let mut supervisor = Supervisor::new(&config, DeviceKind::Null, Mode::Local).unwrap();
        Arc::get_mut(&mut supervisor).unwrap().cgroups = Some(Cgroups::without_controllers(base));
        supervisor.zones().register(ZONE, "a-1", None).unwrap();
        for container in ["c", "d"] {
            supervisor.zones().grant(ZONE, container, 1, None, None).unwrap();
        }
        supervisor
    }

    fn wanted(container: &str) -> Wanted {
        Wanted {
            zone: ZONE,
            container: container.into(),
            guest_pid: 1,
            peer: "pid 1".into(),
            pages: 1,
            arena: ArenaKind::Nothing,
            program: None,
        }
    }

    async fn is_released(supervisor: &Arc<Supervisor>) {
        tokio::time::timeout(LIMIT, supervisor.release(ZONE, None)).await.expect("it cannot be released");
        supervisor.release_all(LIMIT).await;
    }

    #[tokio::test]
    async fn one_that_cannot_be_born_is_forgotten_and_not_tried_again() {
        let base = tempfile::tempdir().unwrap();
        let supervisor = supervisor(base.path());
        supervisor.start_ahead(ZONE, "c");
        assert_eq!((lock(&supervisor.ahead).len(), supervisor.listing().zones[0].workers.len()), (1, 1));
        let forgotten = async {
            while !lock(&supervisor.ahead).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, forgotten).await.expect("it is kept");
        assert!(supervisor.listing().zones[0].workers.is_empty());
        is_released(&supervisor).await;
    }

    #[tokio::test]
    async fn a_process_that_comes_before_the_failure_gets_a_place_of_its_own() {
        let base = tempfile::tempdir().unwrap();
        let supervisor = supervisor(base.path());
        supervisor.start_ahead(ZONE, "c");
        let taken = tokio::time::timeout(LIMIT, supervisor.take_ahead(&wanted("c"))).await.unwrap().unwrap();
        let Taken::Place(place) = taken else { panic!("nobody waits") };
        assert_eq!((place.slot, supervisor.zones().is_ahead_of(ZONE, place.worker)), (0, None));
        supervisor.zones().worker_ended(ZONE, place.worker);
        is_released(&supervisor).await;
    }

    #[tokio::test]
    async fn a_process_gets_the_place_of_one_that_is_over() {
        let base = tempfile::tempdir().unwrap();
        let supervisor = supervisor(base.path());
        let first = supervisor.zones().reserve(ZONE, "c", 1, 1).unwrap();
        let start = |supervisor: &Arc<Supervisor>| {
            let supervisor = Arc::clone(supervisor);
            let channel = async { Err(Refusal::new(Code::PeerGone, "it has its place")) };
            tokio::spawn(async move { supervisor.start_worker(wanted("c"), channel).await.unwrap_err().code })
        };
        assert_eq!(start(&supervisor).await.unwrap(), Code::LimitReached, "one at work keeps its place");
        first.ending.begin();
        let mut second = start(&supervisor);
        tokio::time::timeout(Duration::from_millis(50), &mut second).await.expect_err("it has not waited");
        drop(Occupied { supervisor: Arc::clone(&supervisor), zone: ZONE, worker: first.worker });
        let code = tokio::time::timeout(LIMIT, second).await.expect("it waits for ever").unwrap();
        assert_eq!(code, Code::PeerGone);
        is_released(&supervisor).await;
    }

    #[tokio::test]
    async fn one_that_waits_takes_no_place_from_another_containers_process() {
        let base = tempfile::tempdir().unwrap();
        let supervisor = supervisor(base.path());
        supervisor.start_ahead(ZONE, "c");
        assert!(supervisor.zones().is_full(ZONE));
        let taken = tokio::time::timeout(LIMIT, supervisor.take_ahead(&wanted("d"))).await.unwrap().unwrap();
        let Taken::Place(place) = taken else { panic!("it waits for another") };
        assert!(lock(&supervisor.ahead).is_empty());
        // And where a process has it, nobody is ended for another.
        let refusal = supervisor.take_ahead(&wanted("c")).await.err().expect("there is no place");
        assert_eq!(refusal.code, Code::LimitReached);
        supervisor.start_ahead(ZONE, "c");
        assert!(lock(&supervisor.ahead).is_empty(), "none waits where there is no place");
        supervisor.zones().worker_ended(ZONE, place.worker);
        is_released(&supervisor).await;
    }
}
