//! Who may use a device's time, while two zones have work on it: the task that looks at workers and tells them. It looks when one begins, and
//! then every millisecond as long as two zones have work; else it sleeps, and no worker asks. What it decides by: `policy.rs`; where it is
//! told: `worker/turn.rs`; the parts of zones: `zones/shares.rs`.

mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use policy::{Policy, Scale};
pub use policy::{Seen, WHOLE};

use super::Supervisor;
use super::foreign::{Foreign, without_descriptors};
use super::process::{is_end, kill};
use super::watched::watch;
use super::worker_id::WorkerId;
use super::zones::Sharer;
use crate::worker::turn::{Order, now_ns};

/// Between two looks while two zones have work.
const TICK: Duration = Duration::from_millis(1);
/// Between two rings of one worker that are heard: what one that rings without end can cost.
const RING_EVERY: Duration = Duration::from_millis(5);

impl Supervisor {
    /// Shares the device's time between zones, for ever.
    pub async fn share_time(self: Arc<Self>) {
        let Some(scale) = Scale::of(self.device) else { return };
        let (mut policies, mut watched) = (BTreeMap::new(), BTreeSet::new());
        loop {
            let rung = self.rung.notified();
            let again = self.look_at_turns(scale, &mut policies, &mut watched);
            // However many ring, and however often: nobody who begins waits for it.
            tokio::time::sleep(TICK).await;
            if !again {
                rung.await;
            }
        }
    }

    /// Whether it is to be looked again soon.
    fn look_at_turns(
        &self,
        scale: Scale,
        policies: &mut BTreeMap<u32, Policy>,
        watched: &mut BTreeSet<WorkerId>,
    ) -> bool {
        let sharers = self.zones().sharers();
        let (now, were_watched) = (now_ns(), mem::take(watched));
        let mut again = false;
        for sharers in sharers.chunk_by(|one, other| one.device == other.device) {
            let Some(first) = sharers.first() else { continue };
            let policy = policies.entry(first.device).or_insert_with(|| Policy::new(scale));
            let said = |sharer: &Sharer| sharer.ruled.said(were_watched.contains(&sharer.worker), now);
            let seen: Vec<Seen> = sharers.iter().map(|sharer| sharer.seen(said(sharer))).collect();
            let decision = policy.look(now, &seen);
            again |= decision.is_contended;
            for (sharer, order) in sharers.iter().zip(decision.orders) {
                if order == Order::Watched {
                    watched.insert(sharer.worker);
                }
                // One that began between the look and the order does not say so.
                again |= sharer.ruled.tell(order);
            }
        }
        again
    }

    /// Hears a worker that serves, until it ends. One that sends what no worker sends is ended.
    pub(super) fn hear(self: &Arc<Self>, socket: Arc<Foreign>, pidfd: Arc<OwnedFd>) {
        self.rung.notify_one();
        let supervisor = Arc::clone(self);
        tokio::spawn(async move {
            // Its end is nothing to be told here: others see to it.
            let broken = loop {
                match rang(&socket).await {
                    Ok(true) => supervisor.rung.notify_one(),
                    Ok(false) => break None,
                    Err(error) => break Some(error).filter(|error| !is_end(error)),
                }
                tokio::time::sleep(RING_EVERY).await;
            };
            if let Some(error) = broken {
                log::warn!("a worker cannot be heard, and is ended: {error}");
                kill(&pidfd);
            }
            supervisor.rung.notify_one();
        });
    }
}

/// Waits for a worker's ring; `false` for its end.
async fn rang(socket: &Arc<Foreign>) -> io::Result<bool> {
    let readable = watch(Arc::clone(socket))?;
    loop {
        let mut ready = readable.readable().await?;
        // A message is one byte; of a longer one the rest is dropped.
        let read = ready.try_io(|socket| {
            without_descriptors(&**socket.get_ref())?;
            Ok(rustix::io::read(&**socket.get_ref(), &mut [0; 16])?)
        });
        if let Ok(read) = read {
            return read.map(|bytes| bytes > 0);
        }
    }
}
