//! A session under the records of a hostile guest, to its end. Every device without a GPU is tried with it: by the tests for a fixed
//! count, by the fuzz target `cuda_session` for as long as it is let.
//!
//! What must hold: no panic, each answer a code that CUDA has, never more in use than the grant, and nothing when the process has given
//! back all that it had. The records are made by [`vgpu_api::hostile`].

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use vgpu_api::calls::Answer;
use vgpu_api::hostile::{Choices, Maker, Record};
use vgpu_api::result::describe;
use vgpu_api::wire::{REPLY_BYTES_MAX, Writer};
use vgpu_api::{Call, ContextId, CuResult, Op, Wire, dispatch};

use crate::device::{Device, DeviceKind};
use crate::exchange::{self, Question};
use crate::shared_page::SharedPage;
use crate::supervisor::shared::{Given, Shared};
use crate::supervisor::worker_id::WorkerId;
use crate::worker::quota::{Grant, Quota};
use crate::worker::staging::Staging;
use crate::worker::turn::{Order, Ruled, Turn};
use crate::worker::{Exchange, Session};

/// Staging and arena of the process, in bytes.
const SHARED_BYTES: usize = 64 << 10;
const SLOT: usize = 3;

/// Staging in memory of one's own. A guest changes it at any time; here it has words of everything.
struct Words(Mutex<Vec<u8>>);

impl Staging for Words {
    fn len(&self) -> usize {
        SHARED_BYTES
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.0.lock().expect("no panic")[offset..offset + into.len()]);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        self.0.lock().expect("no panic")[offset..offset + from.len()].copy_from_slice(from);
    }
    fn wake(&self) {}
}

/// The supervisor of a zone of one process.
#[derive(Debug)]
struct Zone {
    shared: Shared,
    /// One a device.
    grants: Vec<Grant>,
    devices: Vec<u32>,
    bytes_max: u64,
}

impl Exchange for Zone {
    fn ask(
        &mut self,
        question: Question,
        fd: Option<OwnedFd>,
    ) -> CuResult<(exchange::Answer, Option<OwnedFd>)> {
        let Self { shared, grants, devices, bytes_max } = self;
        let bounds = ((DeviceKind::Soft, &devices[..]), *bytes_max, 64);
        let grant_of = |_, device: u32| grants.get(device as usize).cloned();
        let asked = (question, fd.map(Given::look_at));
        let (answer, fd) = shared.answer(WorkerId(1), asked, bounds, grant_of)?;
        Ok((answer, fd.and_then(|fd| fd.try_clone().ok())))
    }
}

/// What came of the records.
#[derive(Debug, Default)]
pub struct Told {
    /// Calls that succeeded once or more, and those that were answered at all.
    pub done: BTreeSet<&'static str>,
    /// As above.
    pub answered: BTreeSet<&'static str>,
    /// Records that would have ended the channel.
    pub refused: usize,
}

/// One process.
struct Process<C> {
    session: Session,
    /// One a device.
    grants: Vec<Grant>,
    grant_bytes: u64,
    maker: Maker<C>,
    reply: Vec<u8>,
    /// What was mapped once, and handles that were given once: the end gives all of it back.
    contexts: Vec<Vec<u8>>,
    mapped: Vec<Vec<u8>>,
    handles: Vec<(Op, Vec<u8>)>,
    told: Told,
}

/// Plays `count` records on a new process with so many devices, then ends all that it has.
///
/// # Panics
/// If something does not hold.
pub fn play(
    device: Box<dyn Device>,
    devices: u32,
    grant_bytes: u64,
    choices: impl Choices,
    count: usize,
) -> Told {
    let granted = (0..devices).map(|_| {
        let page = SharedPage::create().expect("a page");
        let quota = Quota::new(SharedPage::map(page.fd()).expect("mapped"), SLOT).expect("a slot");
        (quota, Grant::new(Arc::new(page), grant_bytes))
    });
    let (quotas, grants): (Vec<Quota>, Vec<Grant>) = granted.unzip();
    let arena = idm::arena::Arena::make(SHARED_BYTES as u64).and_then(|arena| arena.map_elsewhere());
    let staging = Words(Mutex::new(vec![0; SHARED_BYTES]));
    let turns = SharedPage::create().expect("a page");
    let turn = Turn::new(SharedPage::map(turns.fd()).expect("mapped"));
    // Others have work, too, and leave it as much as it wants.
    Ruled::new(Arc::new(turns)).tell(Order::Until(1 << 60));
    let (shared, numbers) = (Shared::default(), (0..devices).collect());
    let zone = Zone { shared, grants: grants.clone(), devices: numbers, bytes_max: grant_bytes };
    let session = Session::new(device, quotas, Box::new(staging))
        .with_arena(Some(arena.expect("an arena")))
        .with_turn(Some(turn), || ())
        .with_exchange(Box::new(zone));
    let window = idm::arena::WINDOW as u64;
    let mut process = Process {
        session,
        grants,
        grant_bytes,
        maker: Maker::new(choices, &[window, window + 4096]),
        reply: vec![0; REPLY_BYTES_MAX],
        contexts: Vec::new(),
        mapped: Vec::new(),
        handles: Vec::new(),
        told: Told::default(),
    };
    process.retain();
    for _ in 0..count {
        process.step();
        process.session.rest();
    }
    process.end();
    process.told
}

impl<C: Choices> Process<C> {
    fn run(&mut self, op: Op, context: ContextId, sync: bool, payload: &[u8]) -> Option<Answer> {
        let call = Call { context, sync };
        let answer = dispatch(&mut self.session, op as u16, call, payload, &mut self.reply).ok()?;
        assert!(describe(answer.code).is_some(), "{}: {} is no code", op.name(), answer.code);
        for grant in &self.grants {
            assert!(grant.used_bytes(SLOT) <= self.grant_bytes, "{}: more than the grant", op.name());
        }
        self.session.take_put_aside();
        Some(answer)
    }

    fn retain(&mut self) {
        for device in 0..self.devices() {
            let payload = [packed(&device), packed(&0_u32)].concat();
            self.run(Op::cuDevicePrimaryCtxRetain, ContextId::NONE, true, &payload);
        }
    }

    fn devices(&self) -> u32 {
        u32::try_from(self.grants.len()).unwrap_or(0)
    }

    fn step(&mut self) {
        let Record { op, context, sync, payload } = self.maker.record();
        // Nobody is here to run what the device would then wait for.
        if op == Op::vgpuHostFunctions {
            return;
        }
        let Some(answer) = self.run(op, context, sync, &payload) else {
            self.told.refused += 1;
            return;
        };
        self.told.answered.insert(op.name());
        if answer.code == 0 {
            self.told.done.insert(op.name());
            self.maker.learn(op, &payload, &self.reply[..answer.reply_bytes]);
            self.keep(op, &payload);
        }
        // A context that a fault has ended, or that is gone, answers nothing else: the process takes a new one.
        let mut ended = matches!(op, Op::cuDevicePrimaryCtxReset_v2 | Op::cuDevicePrimaryCtxRelease_v2);
        for device in 0..self.devices() {
            if self.session.sticky(ContextId::primary(device)).is_some() {
                self.run(Op::cuDevicePrimaryCtxReset_v2, ContextId::NONE, true, &packed(&device));
                ended = true;
            }
        }
        if ended {
            self.retain();
        }
    }

    /// What no context takes along when it ends.
    fn keep(&mut self, op: Op, payload: &[u8]) {
        let end = match op {
            Op::cuMemMap => return self.mapped.push(payload[..16].to_vec()),
            Op::cuCtxCreate_v2 => return self.contexts.push(payload[..4].to_vec()),
            Op::cuMemCreate | Op::vgpuMemoryImport => Op::cuMemRelease,
            Op::cuMemPoolCreate | Op::vgpuPoolImport => Op::cuMemPoolDestroy,
            Op::vgpuImageLoad | Op::vgpuImageLoadManaged | Op::vgpuImageLoadAgain => Op::vgpuImageUnload,
            Op::vgpuGraphInstantiate => Op::cuGraphExecDestroy,
            _ => return,
        };
        self.handles.push((end, payload[..8].to_vec()));
    }

    /// Gives back all that the process may still have. Much of it is gone, which is no matter.
    fn end(&mut self) {
        for context in std::mem::take(&mut self.contexts) {
            self.run(Op::cuCtxDestroy_v2, ContextId::NONE, true, &context);
        }
        for device in 0..2u32 {
            self.run(Op::cuDevicePrimaryCtxRelease_v2, ContextId::NONE, true, &packed(&device));
        }
        for mapping in std::mem::take(&mut self.mapped) {
            self.run(Op::cuMemUnmap, ContextId::NONE, true, &mapping);
        }
        for (end, handle) in std::mem::take(&mut self.handles) {
            self.run(end, ContextId::NONE, true, &handle);
        }
        for grant in &self.grants {
            assert_eq!(grant.left_bytes(), 0, "bytes of memory that nobody has");
            assert_eq!(
                grant.used_bytes(SLOT),
                0,
                "bytes in use of a process that has nothing; {} calls were done",
                self.told.done.len()
            );
        }
    }
}

fn packed<'a>(value: &impl Wire<'a>) -> Vec<u8> {
    let mut bytes = vec![0; value.size()];
    value.put(&mut Writer::new(&mut bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use vgpu_api::hostile::Seed;

    use super::*;
    use crate::device::{Costs, Null, Soft, Step};

    const RECORDS: usize = 2000;
    const PROCESSES: u64 = 50;
    /// Enough to map something.
    const GRANT_BYTES: u64 = 64 << 20;

    /// Plays processes of a device, each by a seed of its own; a hang is a failure.
    fn tried(devices: u32, device: fn() -> Box<dyn Device>) -> Told {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut all = Told::default();
            for seed in 1..=PROCESSES {
                let Told { done, answered, refused } =
                    play(device(), devices, GRANT_BYTES, Seed(seed << 32 | seed), RECORDS);
                all.done.extend(done);
                all.answered.extend(answered);
                all.refused += refused;
            }
            tell.send(all)
        });
        told.recv_timeout(Duration::from_secs(300)).expect("a record hangs, or see the panic above")
    }

    /// Or what lies behind a call's gates was never reached.
    fn reached(told: &Told) {
        let never: Vec<_> =
            Op::ALL.iter().map(|op| op.name()).filter(|name| !told.done.contains(name)).collect();
        assert!(told.answered.len() + 1 >= Op::ALL.len(), "{} calls were answered", told.answered.len());
        assert!(never.len() * 4 < Op::ALL.len(), "never done: {never:?}");
    }

    #[test]
    fn a_hundred_thousand_records_of_hostile_guests_do_no_harm_on_null() {
        let told = tried(1, || {
            let costs = Costs { context_bytes: 1000, resident_threads: 64, ..Costs::default() };
            // What ends while references are bound to it goes on for a while.
            Box::new(Null::with_costs(costs, 2048).refusing(&[Step::LetGo]))
        });
        reached(&told);
    }

    #[test]
    fn a_hundred_thousand_records_of_hostile_guests_do_no_harm_on_soft() {
        reached(&tried(1, || Box::new(Soft::new(GRANT_BYTES).expect("a device"))));
    }

    #[test]
    fn a_hundred_thousand_records_of_hostile_guests_do_no_harm_on_two_devices() {
        reached(&tried(2, || Box::new(Soft::with_devices(2, GRANT_BYTES).expect("devices"))));
    }
}
