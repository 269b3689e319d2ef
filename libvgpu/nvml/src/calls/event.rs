//! Events: there are sets of them, and no event of the hardware is told to a zone, so that none can be registered.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use crate::abi::{Device, Out, exports};
use crate::result::{NvmlError, NvmlResult};
use crate::session::session;

/// `nvmlEventSet_t`: what it points at is the library's own affair. Here it is a number, never used twice.
pub type EventSet = usize;

#[derive(Debug)]
struct Sets {
    last: EventSet,
    live: BTreeSet<EventSet>,
}

static SETS: Mutex<Sets> = Mutex::new(Sets { last: 0, live: BTreeSet::new() });

fn with_sets<T>(body: impl FnOnce(&mut Sets) -> T) -> T {
    body(&mut SETS.lock().unwrap_or_else(PoisonError::into_inner))
}

fn live(set: EventSet) -> NvmlResult<()> {
    if with_sets(|sets| sets.live.contains(&set)) { Ok(()) } else { Err(NvmlError::INVALID_ARGUMENT) }
}

/// Nothing can come: it waits as long as the program said.
fn wait(set: EventSet, place: Out<u8>, milliseconds: u32) -> NvmlResult<()> {
    session()?;
    place.wanted()?;
    live(set)?;
    sleep(Duration::from_millis(milliseconds.into()));
    Err(NvmlError::TIMEOUT)
}

exports! {
    fn nvmlEventSetCreate(place: Out<EventSet>) {
        session()?;
        place.wanted()?;
        place.set(with_sets(|sets| {
            sets.last += 1;
            sets.live.insert(sets.last);
            sets.last
        }))
    }

    fn nvmlEventSetFree(set: EventSet) {
        session()?;
        if with_sets(|sets| sets.live.remove(&set)) { Ok(()) } else { Err(NvmlError::INVALID_ARGUMENT) }
    }

    fn nvmlEventSetWait(set: EventSet, place: Out<u8>, milliseconds: u32) {
        wait(set, place, milliseconds)
    }

    fn nvmlEventSetWait_v2(set: EventSet, place: Out<u8>, milliseconds: u32) {
        wait(set, place, milliseconds)
    }

    fn nvmlDeviceGetSupportedEventTypes(device: Device, place: Out<u64>) {
        session()?.device(device)?;
        place.set(0)
    }

    fn nvmlDeviceRegisterEvents(device: Device, types: u64, set: EventSet) {
        session()?.device(device)?;
        live(set)?;
        if types == 0 { Ok(()) } else { Err(NvmlError::NOT_SUPPORTED) }
    }
}
