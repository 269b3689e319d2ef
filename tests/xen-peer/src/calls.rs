//! What a queued record and a call cost, counted: rings of the doorbell, and what they are over Xen, event sends. Both ends of a GPU channel in
//! this process, once over pages and an event channel of Xen, once over a memfd and eventfds: the rings must be the same, and each of them is
//! one event send: one NOTIFY ioctl of /dev/xen/evtchn, for which the kernel does one hypercall, EVTCHNOP_send. No other ioctl of Xen's
//! devices is done meanwhile. Hypercalls that the kernel does by itself, as a port's unmasking, nobody counts here.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use idm::doorbell::eventfd_pair;
use idm::record::{ChannelParts, Consumer, RegionSpec, Submitter, make_region};
use idm::xen::evtchn::EventChannel;
use idm::xen::gntalloc::GrantedPages;
use idm::xen::metrics::COUNTERS;
use idm::xen::offer::{AcceptedChannel, bells};
use idm::xen::{Access, DomId, Offer, PAGE_BYTES};
use idm::{Doorbell, Peer, Region, Signal, Waiter, Wake};

use crate::channel::LIFE_AT;
use crate::check::{LIMIT, Outcome, same};

/// Records as long as a launch's, all of which the ring holds.
const LAUNCHES: u64 = 1000;
const LAUNCH: [u8; 100] = [7; 100];
const CALLS: u64 = 100;
/// Small, so that a guest's grants are enough for it.
const SPEC: RegionSpec = RegionSpec { ring_bytes: 1 << 18, staging_bytes: 0, record_limit: 1 << 16 };

/// How often one side was rung, and went to sleep.
#[derive(Debug, Default)]
struct Counts {
    rings: AtomicU64,
    sleeps: AtomicU64,
}

/// A doorbell, counted.
#[derive(Debug)]
struct Rung(Doorbell, Arc<Counts>);

impl Signal for Rung {
    fn ring(&self) -> io::Result<()> {
        self.1.rings.fetch_add(1, SeqCst);
        self.0.ring()
    }
}

/// Where a side sleeps, counted.
#[derive(Debug)]
struct Slept(Waiter, Arc<Counts>);

impl Wake for Slept {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    fn drain(&self) -> io::Result<()> {
        self.0.drain()
    }

    /// Called when the sleep was announced and nothing had come: from here on a ring is needed.
    fn rearm(&self) -> io::Result<()> {
        self.0.rearm()?;
        self.1.sleeps.fetch_add(1, SeqCst);
        Ok(())
    }
}

/// Both ends, and how often each was rung and slept.
struct Ends {
    submitter: Submitter,
    consumer: Consumer,
    program: Arc<Counts>,
    worker: Arc<Counts>,
}

type End = (Region, Waiter, Doorbell);

impl Ends {
    fn of(program_end: End, worker_end: End) -> Outcome<Self> {
        let (program, worker) = (Arc::<Counts>::default(), Arc::<Counts>::default());
        let parts = |(region, waiter, doorbell): End, own: &Arc<Counts>, other: &Arc<Counts>| ChannelParts {
            region: Arc::new(region),
            spec: SPEC,
            peer: Peer::Domain(0),
            waiter: Waiter::Other(Box::new(Slept(waiter, Arc::clone(own)))),
            doorbell: Doorbell::Other(Box::new(Rung(doorbell, Arc::clone(other)))),
            liveness: None,
        };
        let submitter = Submitter::from_parts(parts(program_end, &program, &worker))?;
        let consumer = Consumer::from_parts(parts(worker_end, &worker, &program))?;
        Ok(Self { submitter, consumer, program, worker })
    }

    fn local() -> Outcome<Self> {
        let (memory, bytes) = (make_region(&SPEC)?, SPEC.region_bytes()?);
        let ((to_worker, worker_hears), (to_program, program_hears)) = (eventfd_pair()?, eventfd_pair()?);
        let end = |hears, rings| -> Outcome<End> {
            Ok((Region::map(&memory, bytes)?, Waiter::EventFd(hears), Doorbell::EventFd(rings)))
        };
        Self::of(end(program_hears, to_worker)?, end(worker_hears, to_program)?)
    }

    fn xen() -> Outcome<Self> {
        let bytes = SPEC.region_bytes()?;
        let pages = u32::try_from(bytes / PAGE_BYTES)?;
        let granted = GrantedPages::allocate(DomId::DOM0, &[(pages, Access::ReadWrite)])?;
        let bell = EventChannel::offer(DomId::DOM0)?;
        let offer = Offer { refs: granted.refs().to_vec(), port: bell.port() };
        let base = granted.span().base();
        // SAFETY: `granted` keeps the span mapped until the region drops it; nobody else was given its address.
        let region = unsafe { Region::from_raw_parts(base, bytes, Box::new(granted)) };
        // The first page says what the memory is.
        let mut page = [0; PAGE_BYTES];
        Region::map(&make_region(&SPEC)?, PAGE_BYTES)?.read(0, &mut page);
        region.write(0, &page);
        let (waiter, doorbell) = bells(bell);
        let worker = AcceptedChannel::accept(DomId::DOM0, &offer, bytes)?.attach(None, LIFE_AT)?;
        Self::of((region, waiter, doorbell), worker)
    }
}

/// Rings towards the worker and towards the program, and what Xen was asked for meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    to_worker: u64,
    to_program: u64,
    event_sends: u64,
    /// All ioctls of Xen's devices, event sends among them.
    ioctls: u64,
    others: [u64; 4],
}

impl Cost {
    fn now(program: &Counts, worker: &Counts) -> Self {
        Self {
            to_worker: worker.rings.load(SeqCst),
            to_program: program.rings.load(SeqCst),
            event_sends: COUNTERS.events_sent.get(),
            ioctls: COUNTERS.requests.get(),
            others: [
                &COUNTERS.maps,
                &COUNTERS.pages_mapped,
                &COUNTERS.pages_granted,
                &COUNTERS.xenstore_requests,
            ]
            .map(|counter| counter.get()),
        }
    }

    /// Since `before`, in which nothing was mapped, granted or asked of xenstore.
    fn since(self, before: Self) -> Outcome<[u64; 4]> {
        same("maps, mapped and granted pages, requests to xenstore", self.others, before.others)?;
        Ok([
            self.to_worker - before.to_worker,
            self.to_program - before.to_program,
            self.event_sends - before.event_sends,
            self.ioctls - before.ioctls,
        ])
    }
}

/// Sees that over Xen each ring is one event send and nothing else is asked of Xen's devices; and over eventfds nothing at all.
pub fn cost_what_they_must() -> Outcome {
    let local = play(Ends::local()?, 0)?;
    let xen = play(Ends::xen()?, 1)?;
    same("rings over Xen, as over eventfds", xen, local)
}

/// Rings to the worker and to the program for each of the steps.
fn play(ends: Ends, sends_each_ring: u64) -> Outcome<Vec<[u64; 2]>> {
    let Ends { submitter, mut consumer, program, worker } = ends;
    // A port that was just bound has an event already: it is taken now.
    consumer.wait(Some(Duration::from_millis(100)))?;
    let mut costs = Vec::new();
    let mut step = |what: &str, expected: [u64; 2], run: &mut dyn FnMut() -> Outcome| -> Outcome {
        let before = Cost::now(&program, &worker);
        run()?;
        let [to_worker, to_program, event_sends, ioctls] = Cost::now(&program, &worker).since(before)?;
        println!(
            "  {what}: {to_worker} rings out, {to_program} back, {event_sends} event sends, {ioctls} ioctls"
        );
        same(what, [to_worker, to_program], expected)?;
        let each = (to_worker + to_program) * sends_each_ring;
        same("event sends, and ioctls of Xen's devices", (event_sends, ioctls), (each, each))?;
        costs.push([to_worker, to_program]);
        Ok(())
    };
    step("1000 queued launches, the worker awake", [0, 0], &mut || {
        thread::scope(|scope| {
            let taken = scope.spawn(|| take(&mut consumer, LAUNCHES));
            queue(&submitter)?;
            joined(taken)
        })
    })?;
    step("1000 queued launches, the worker asleep", [1, 0], &mut || {
        let asleep = worker.sleeps.load(SeqCst) + 1;
        thread::scope(|scope| {
            let taken = scope.spawn(|| {
                consumer.wait(Some(LIMIT))?;
                take(&mut consumer, LAUNCHES)
            });
            slept(&worker, asleep)?;
            queue(&submitter)?;
            joined(taken)
        })
    })?;
    step("100 calls, the worker awake, the program asleep", [0, CALLS], &mut || {
        call(&submitter, &mut consumer, [&program, &worker], false)
    })?;
    step("100 calls, both asleep", [CALLS, CALLS], &mut || {
        call(&submitter, &mut consumer, [&program, &worker], true)
    })?;
    Ok(costs)
}

fn queue(submitter: &Submitter) -> Outcome {
    for _ in 0..LAUNCHES {
        submitter.submit_bytes(1, 0, &LAUNCH)?;
    }
    Ok(())
}

/// What a thread could do, or why not.
type Played = Result<(), String>;

fn joined(thread: thread::ScopedJoinHandle<'_, Result<(), idm::ChannelError>>) -> Outcome {
    thread.join().map_err(|_| "a thread panicked")?.map_err(Into::into)
}

/// Takes so many records without going to sleep.
fn take(consumer: &mut Consumer, count: u64) -> Result<(), idm::ChannelError> {
    for _ in 0..count {
        while consumer.next()?.is_none() {
            thread::yield_now();
        }
    }
    Ok(())
}

/// Calls, each answered once the program sleeps, and sent when the worker does, if it is to.
fn call(
    submitter: &Submitter,
    consumer: &mut Consumer,
    [program, worker]: [&Counts; 2],
    worker_sleeps: bool,
) -> Outcome {
    let replies = consumer.replies().clone();
    // A record's room that is given back while the next call sleeps is rightly one ring more: no call is made before it was given back.
    consumer.wait(Some(Duration::ZERO))?;
    let given_back = &AtomicU64::new(0);
    let [programs, workers] = [program, worker].map(|side| side.sleeps.load(SeqCst));
    thread::scope(|scope| {
        let answered = scope.spawn(move || -> Played {
            for number in 1..=CALLS {
                if worker_sleeps {
                    consumer.wait(Some(LIMIT)).map_err(|error| error.to_string())?;
                }
                let (lane, seq) = loop {
                    if let Some(record) = consumer.next().map_err(|error| error.to_string())? {
                        break (record.lane.ok_or("no call")?, record.seq);
                    }
                    thread::yield_now();
                };
                slept(program, programs + number)?;
                replies.reply(lane, seq, 0, &[]).map_err(|error| error.to_string())?;
                if consumer.next().map_err(|error| error.to_string())?.is_some() {
                    return Err("a call before its time".into());
                }
                given_back.store(number, SeqCst);
            }
            Ok(())
        });
        for number in 1..=CALLS {
            if worker_sleeps {
                slept(worker, workers + number)?;
            }
            submitter.call(2, 0, &LAUNCH, &mut [], Some(LIMIT))?;
            reached(given_back, number, "a record's room was never given back")?;
        }
        Ok(answered.join().map_err(|_| "a thread panicked")??)
    })
}

/// Returns when a side has gone to sleep so often.
fn slept(side: &Counts, times: u64) -> Played {
    reached(&side.sleeps, times, "a side never went to sleep")
}

/// Returns when a count has come so far; after [`LIMIT`] it is an error, `else_what`.
fn reached(count: &AtomicU64, times: u64, else_what: &str) -> Played {
    let deadline = Instant::now() + LIMIT;
    while count.load(SeqCst) < times {
        if Instant::now() > deadline {
            return Err(else_what.into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_eventfds_a_ring_is_one_for_a_sleep_and_nothing_of_xen() {
        play(Ends::local().unwrap(), 0).unwrap();
    }
}
