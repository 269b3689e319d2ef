//! The process that serves one guest process, and nobody else, ever. Start at [`run`].
//!
//! Its life: assigned by the supervisor over descriptor 0 (`assignment.rs`) → stripped of what it does not need (`sandbox/`) →
//! device opened → started ahead, it waits here for its guest process → pages mapped → door closed (seccomp) → records served
//! (`serve.rs`) until the channel or the supervisor is gone. It holds no secret and no descriptor of another zone, and counts as taken
//! over by its own guest.

pub mod assignment;
mod attach;
pub mod canary;
pub mod chunks;
mod exchange;
mod host_functions;
pub mod quota;
mod quotas;
mod ranges;
pub mod sandbox;
mod serve;
mod session;
mod slab;
pub mod staging;
pub mod turn;

pub use exchange::Exchange;
pub use quotas::Quotas;
pub use session::Session;

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

use assignment::{Assignment, ChannelKind, Question, Report, Turn};
use attach::{Attached, Ground, Window};
use chunks::Chunks;
use exchange::Supervisor;
use idm::record::Consumer;
use sandbox::Gap;
use vgpu_codes::{Code, with_causes};

use crate::device;

/// Why a worker does not come to serve.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Failed {
    code: Code,
    text: String,
}

impl Failed {
    fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// The whole life of a worker. Status 0: the peer or the supervisor is gone; 1: it could not serve; 3: the guest broke the protocol.
#[must_use]
pub fn run() -> ExitCode {
    let supervisor = rustix::stdio::stdin();
    let (task, fds) = match assignment::receive::<Assignment>(supervisor) {
        Ok(assigned) => assigned,
        Err(error) => {
            eprintln!("gpu-proxy: a worker is started by gpu-proxy alone: {error}");
            return ExitCode::FAILURE;
        }
    };
    crate::logfmt::start_worker(&task.log_level);
    if let ChannelKind::None(question) = task.channel {
        return answer(&task, question);
    }
    let served = prepare(&task, fds).map(|(consumer, session, gaps)| {
        // The supervisor is gone if this cannot be sent: the first wait will say so.
        let _ = assignment::report(supervisor, &Report::Ready { gaps });
        serve::serve(consumer, session)
    });
    match served {
        Ok(serve::End::Gone) => ExitCode::SUCCESS,
        Ok(serve::End::Broken) => ExitCode::from(3),
        Err(failed) => end(&task, failed),
    }
}

fn end(task: &Assignment, Failed { code, text }: Failed) -> ExitCode {
    log::error!("zone {}, container {}: {text}", task.zone, task.container);
    let _ = assignment::report(rustix::stdio::stdin(), &Report::Failed { code: code as u16, text });
    ExitCode::FAILURE
}

/// The whole life of a worker of nobody: it sees nothing of a guest.
fn answer(task: &Assignment, question: Question) -> ExitCode {
    let answered = sandbox::strip(task.device, task.namespaces, None, false)
        .map_err(|error| Failed::new(Code::WorkerFailed, format!("the sandbox cannot be made: {error}")))
        .and_then(|_| answer_of(task, question).map_err(|text| Failed::new(Code::NoDevice, text)));
    match answered {
        Ok(report) => {
            let sent = assignment::report(rustix::stdio::stdin(), &report);
            if sent.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failed) => end(task, failed),
    }
}

fn answer_of(task: &Assignment, question: Question) -> Result<Report, String> {
    // Never closed: what it holds goes with the process, as that of a worker which is killed does.
    let open = || device::open(task.device, task.devices, task.device_bytes).map(Box::leak);
    let bytes_max = canary::bytes_max(task.device);
    match question {
        Question::Describe => {
            let described = device::describe(task.device, task.devices, task.device_bytes)?;
            let device::Described { snapshot, reads_host_memory, hardware } = described;
            Ok(Report::Described { snapshot: snapshot.to_bytes(), reads_host_memory, hardware })
        }
        Question::Fill => {
            let device = open()?;
            let bytes = (0..task.devices).map(|number| canary::fill(device, number, bytes_max));
            bytes.collect::<Result<_, _>>().map(|bytes| Report::Filled { bytes })
        }
        Question::Search => {
            let device = open()?;
            let found = (0..task.devices).map(|number| canary::search(device, number, bytes_max));
            found.collect::<Result<_, _>>().map(Report::Searched)
        }
    }
}

/// Everything before the first record: the door is closed when it returns.
fn prepare(task: &Assignment, mut fds: Vec<OwnedFd>) -> Result<(Consumer, Session, Vec<Gap>), Failed> {
    let ours = |what: &'static str| {
        move |error: std::io::Error| Failed::new(Code::WorkerFailed, format!("{what}: {error}"))
    };
    let gaps = sandbox::strip(task.device, task.namespaces, task.nodes.as_deref(), task.code)
        .map_err(ours("the sandbox cannot be made"))?;
    let Ground { mut quotas, turn, exchange, arena } = attach::ground(task, &mut fds)?;
    // One on each device.
    quotas.charge_each(task.device.context_bytes()).map_err(|_| {
        Failed::new(Code::LimitReached, "the grant has no room for another process's context")
    })?;
    let device = device::open(task.device, task.devices, task.device_bytes)
        .map_err(|text| Failed::new(Code::NoDevice, text))?;
    let (kind, fds) = match task.channel {
        ChannelKind::Ahead { .. } => wait_for_turn()?,
        _ => (task.channel.clone(), fds),
    };
    let Attached { parts, chunks } = attach::channel(&kind, fds)?;
    let consumer =
        Consumer::from_parts(parts).map_err(|error| Failed::new(Code::WorkerFailed, with_causes(&error)))?;
    let (arena, chunks) = match (arena, chunks) {
        (Some(Window::Whole(region)), _) => (Some(region), None),
        (Some(Window::Kept(window)), Some((gntdev, socket))) => {
            let region = window.region();
            let chunks = Chunks::new(socket, gntdev, window, region.len());
            (Some(region), Some(chunks))
        }
        // The addresses are kept free for a process that has no arena.
        (Some(Window::Kept(_)) | None, _) => (None, None),
    };
    let event_channel = matches!(kind, ChannelKind::Xen { .. });
    let asks = exchange.as_ref().map(AsRawFd::as_raw_fd);
    let mut session = Session::new(device, quotas, Box::new(consumer.staging().clone()))
        .with_arena(arena)
        .with_chunks(chunks)
        .with_turn(turn, || assignment::ring(rustix::stdio::stdin()));
    if let Some(socket) = exchange {
        session = session.with_exchange(Box::new(Supervisor(socket)));
    }
    sandbox::close_door(task.device, event_channel, asks, task.code).map_err(|error| {
        Failed::new(Code::WorkerFailed, format!("the system call filter cannot be set: {error}"))
    })?;
    Ok((consumer, session, gaps))
}

/// What is shared with the guest process that has come. It never comes where the supervisor ends.
fn wait_for_turn() -> Result<(ChannelKind, Vec<OwnedFd>), Failed> {
    let supervisor = rustix::stdio::stdin();
    let told = assignment::report(supervisor, &Report::Waiting);
    let turn = told.and_then(|()| assignment::receive::<Turn>(supervisor));
    let (Turn { peer, channel }, fds) =
        turn.map_err(|error| Failed::new(Code::WorkerFailed, format!("no guest process came: {error}")))?;
    log::debug!("it is the turn of {peer}");
    Ok((channel, fds))
}
