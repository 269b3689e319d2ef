//! One guest process and its channel, from connect to the end.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use idm::{arena::Arena, connect::ProgramEnd, record::CONSUMER_LIFE};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use tokio::{io::unix::AsyncFd, net::UnixStream, time::timeout};
use vgpu_codes::Code;
use vgpu_zone_api::guest::{Connect, ContainerId, ToProxy, facts, wire};

use super::{
    cost::{Cost, Rings},
    greeting::{self, Greeted},
    ground::{Chunks, Ground, Plot},
    life::{Action, Event, Stage, step},
    proxy::{Proxy, Registered, Turn},
    question,
};
use crate::{
    error::{During, Result},
    sys,
};

/// A process that connects sends its hello at once.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// A container may start before the GPU stream is there: the proxy is told of the zone at the same time.
pub(super) const PROXY_LIMIT: Duration = Duration::from_secs(10);
/// How long pages are kept after the proxy went without letting go of them. Its workers die with it, at once; this is for a machine
/// that is slow to end them.
const ORPHAN_LIMIT: Duration = Duration::from_secs(60);
const ORPHAN_PAUSE: Duration = Duration::from_secs(1);

/// Serves one connection to its end, and keeps the pages until they may go. Returns what its channel cost; nothing without one.
/// # Errors
/// The process broke the handshake, or shared memory could not be made.
pub async fn run(
    mut process: UnixStream,
    container: ContainerId,
    proxy: Arc<Proxy>,
    ground: Arc<dyn Ground>,
) -> Result<Option<Cost>> {
    let greeted = timeout(HELLO_LIMIT, greeting::read(&mut process))
        .await
        .map_err(io::Error::from)
        .and_then(|read| read.map_err(io::Error::other))
        .during(|| "read the hello of a process".into())?;
    if greeted.wire_hash == facts::APPLICATION {
        let answered = question::run(&process, &greeted, container, &proxy).await;
        return answered.map(|()| None).during(|| "answer a process".into());
    }
    let Some(mut registered) = proxy.register_soon(PROXY_LIMIT).await else {
        let refused = greeted.refuse(&process, Code::NoProxy as u16);
        return refused.map(|()| None).during(|| "refuse a process".into());
    };
    let turn = tokio::select! {
        turn = proxy.turn() => turn,
        () = gone(Some(&process)) => return Ok(None),
    };
    let plot: Arc<dyn Plot> = match ground.make(&wire::region()) {
        Ok(plot) => plot.into(),
        Err(error) => {
            // The process need not hear of the details, and it may be gone.
            let _ = greeted.refuse(&process, Code::LimitReached as u16);
            return Err(error);
        }
    };
    registered
        .send(ToProxy::Connect(Connect {
            channel: registered.channel,
            container,
            pid: greeted.pid(),
            wire_hash: greeted.wire_hash,
            port: plot.port(),
            refs: plot.refs(),
        }))
        .await;
    let mut cost = Cost::of(plot.refs().len());
    let (stage, chunks) = live(process, &greeted, &plot, &mut registered, turn, &mut cost).await;
    if stage == Stage::Orphaned {
        // Past the limit the worker is one that cannot be ended: what it still writes is lost in pages of its own pod.
        let _ = timeout(ORPHAN_LIMIT, unmapped(plot.as_ref())).await;
        if chunks.is_some() {
            // They have no byte of their own that says so, and are unmapped by the same end of the same process.
            tokio::time::sleep(ORPHAN_PAUSE).await;
        }
    }
    drop((chunks, plot));
    Ok(Some(cost))
}

/// Follows the channel until nothing of it is mapped any more, or the proxy is gone. With what was granted of its arena: until that is
/// dropped, it is.
async fn live(
    process: UnixStream,
    greeted: &Greeted,
    plot: &Arc<dyn Plot>,
    registered: &mut Registered,
    mut turn: Option<Turn>,
    cost: &mut Cost,
) -> (Stage, Option<Box<dyn Chunks>>) {
    let mut stage = Stage::Offered;
    // Ended early for the process by dropping it, while the channel still waits for the proxy.
    let mut process = Some(process);
    let mut pumps = None;
    let mut ears = None;
    let mut chunks = None;
    while !matches!(stage, Stage::Over | Stage::Orphaned) {
        let event = tokio::select! {
            event = registered.events.recv() => event.unwrap_or(Event::ProxyGone),
            () = gone(process.as_ref()) => {
                process = None;
                Event::ProcessGone
            }
        };
        let action;
        (stage, action) = step(stage, event);
        match action {
            Action::None => {}
            Action::HandOver(arena_mib) => {
                // From here on the proxy counts the pages.
                turn = None;
                let mut arena = None;
                if arena_mib > 0 && greeted.knows_kept {
                    // A process that gets none has pinned memory of its own, which is copied.
                    let made = plot.arena(u64::from(arena_mib) << 20).ok();
                    (arena, chunks) = made.unzip();
                }
                match hand_over(process.as_ref(), greeted, plot, arena, &cost.rings) {
                    Ok((running, hears)) => (pumps, ears) = (Some(running), Some(hears)),
                    // As if the process had gone: it can't use the channel.
                    Err(_) => {
                        process = None;
                        stage = Stage::Closing;
                        registered.send(ToProxy::Close { channel: registered.channel }).await;
                    }
                }
            }
            Action::Grant(chunk) => {
                let granted;
                (granted, chunks) = grant(chunks.take(), chunk).await;
                cost.granted(granted.as_deref());
                let channel = registered.channel;
                let told = granted.map_or(ToProxy::Lack { channel, chunk }, |refs| ToProxy::Chunk {
                    channel,
                    chunk,
                    refs,
                });
                registered.send(told).await;
            }
            Action::Refuse(code) => {
                if let Some(process) = process.take() {
                    // It may be gone by now: then it needs no answer.
                    let _ = greeted.refuse(&process, u16::try_from(code).unwrap_or(u16::MAX));
                }
            }
            Action::SendClose => registered.send(ToProxy::Close { channel: registered.channel }).await,
            Action::EndProcess => {
                // First the socket, whose end the process takes for its peer's, then the bell for whoever sleeps.
                process = None;
                if let Some(hears) = &ears {
                    ring(hears);
                }
            }
        }
    }
    drop((pumps, turn));
    (stage, chunks)
}

/// Has a chunk granted away from PID 1's one thread: memory may have to be found for it.
async fn grant(chunks: Option<Box<dyn Chunks>>, chunk: u32) -> (Option<Vec<u32>>, Option<Box<dyn Chunks>>) {
    let Some(mut chunks) = chunks else { return (None, None) };
    let granting = tokio::task::spawn_blocking(move || (chunks.grant(chunk).ok(), chunks));
    // Lost with the task only, whose panic is the end of PID 1.
    granting.await.map_or((None, None), |(refs, chunks)| (refs, Some(chunks)))
}

/// Resolves when the process has closed its end, died, or sent anything: it has nothing to say after its hello.
pub(super) async fn gone(process: Option<&UnixStream>) {
    let Some(process) = process else { return std::future::pending().await };
    loop {
        let ready = process.readable().await;
        // Readiness may be old: only a read tells.
        match ready.and_then(|()| process.try_read(&mut [0])) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Resolves when no worker maps the pages. The kernel clears the worker's life byte when its mapping goes, however it died.
async fn unmapped(plot: &dyn Plot) {
    loop {
        // First the pause: a worker that was about to map them dies in it, too.
        tokio::time::sleep(ORPHAN_PAUSE).await;
        let mut life = [1];
        match rustix::io::pread(plot.memory(), &mut life, CONSUMER_LIFE as u64) {
            Ok(1) if life != [0] => {}
            _ => return,
        }
    }
}

/// Both directions of the doorbell, until dropped.
struct Pumps([tokio::task::JoinHandle<io::Result<()>>; 2]);

impl Drop for Pumps {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn hand_over(
    process: Option<&UnixStream>,
    greeted: &Greeted,
    plot: &Arc<dyn Plot>,
    arena: Option<Arena>,
    rings: &Arc<Rings>,
) -> io::Result<(Pumps, OwnedFd)> {
    let process = process.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let end = ProgramEnd {
        memory: plot.memory().try_clone_to_owned()?,
        bell: rustix::event::eventfd(0, flags)?,
        ear: rustix::event::eventfd(0, flags)?,
        arena,
    };
    // Watched before the process can ring.
    let out = sys::watch(end.bell.try_clone()?.into())?;
    let into = sys::watch(plot.bell()?)?;
    greeted.answer(process, &end)?;
    let hears = end.ear.try_clone()?;
    let pumps = Pumps([
        tokio::spawn(pump_out(out, Arc::clone(plot), Arc::clone(rings))),
        tokio::spawn(pump_in(into, Arc::clone(plot), end.ear, Arc::clone(rings))),
    ]);
    Ok((pumps, hears))
}

/// The process's rings to the proxy. Rings that come while one is passed on are one ring.
async fn pump_out(bell: AsyncFd<std::fs::File>, plot: Arc<dyn Plot>, rings: Arc<Rings>) -> io::Result<()> {
    loop {
        let mut ready = bell.readable().await?;
        ready.clear_ready();
        if drain(bell.get_ref())? {
            plot.ring()?;
            rings.sent();
        }
    }
}

/// The proxy's rings to the process. Nothing is taken before the first one is waited for: the process has its end by now, and may have
/// called and been rung already. For one sleep there is one ring, so one that is taken and not passed on leaves it asleep for good.
async fn pump_in(
    bell: AsyncFd<std::fs::File>,
    plot: Arc<dyn Plot>,
    process: OwnedFd,
    rings: Arc<Rings>,
) -> io::Result<()> {
    loop {
        let mut ready = bell.readable().await?;
        ready.clear_ready();
        plot.answer()?;
        rings.taken();
        ring(&process);
    }
}

/// Takes an eventfd's count without waiting, also when the process made it blocking. False: there was none.
fn drain(eventfd: impl AsFd) -> io::Result<bool> {
    let mut count = [0; 8];
    let mut buffer = [io::IoSliceMut::new(&mut count)];
    match rustix::io::preadv2(eventfd, &mut buffer, u64::MAX, rustix::io::ReadWriteFlags::NOWAIT) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A counter that is full rings already. The process shares the eventfd and may have made it blocking, and a write has no
/// way to say "don't wait": so it is asked first whether it would. What is left is a process that fills the counter in between, which stops
/// its own pod's PID 1 and nobody else.
fn ring(eventfd: &OwnedFd) {
    let mut asked = [PollFd::new(eventfd, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if rustix::event::poll(&mut asked, Some(&now)).is_ok_and(|ready| ready > 0) {
        let _ = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
    }
}
