//! A peer that lies.

use std::time::Duration;

use idm::stream::StreamSpec;
use idm::xen::death::Deaths;
use idm::xen::device::{self, Backend, Device};
use idm::xen::domain::{Identity, Uuid};
use idm::xen::evtchn::EventChannel;
use idm::xen::gntalloc::GrantedPages;
use idm::xen::metrics::COUNTERS;
use idm::xen::offer::{AcceptedChannel, accept_stream, offer_stream};
use idm::xen::xenstore::{Client, Store as _};
use idm::xen::{Access, DomId, GrantRef, Offer};
use idm::{Fault, Liveness};

use crate::channel;
use crate::check::{Outcome, same};
use crate::child::Child;

const SOON: Duration = Duration::from_secs(2);

pub fn reused_domid(xenstore: &Client) -> Outcome {
    let here = Identity::of(xenstore, DomId::DOM0)?;
    let before = Identity { uuid: Uuid::from([0xee; 16]), ..here };
    let deaths = Deaths::of_domains(xenstore)?;
    let (lives, dead) = (deaths.domain(here)?, deaths.domain(before)?);
    let end = std::time::Instant::now() + crate::check::LIMIT;
    while !dead.is_gone() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    same("the one before is gone", dead.is_gone(), true)?;
    same("this one is gone", lives.is_gone(), false)
}

pub fn wrong_offers() -> Outcome {
    let spec = StreamSpec::default();
    let (good, _maker) = offer_stream(DomId::DOM0, spec, None)?;
    let mut refs = good.clone();
    refs.refs[7] = GrantRef(31_000);
    let mut port = good.clone();
    port.port = 4000;
    let mut few = good.clone();
    few.refs.pop();
    for (what, offer) in [("reference", refs), ("port", port), ("number of pages", few)] {
        match accept_stream(DomId::DOM0, &offer, spec, None) {
            Ok(_) => return Err(format!("a wrong {what} was accepted").into()),
            Err(error) => same(what, error.fault(), Fault::Peer)?,
        }
    }
    // What was refused changed nothing: the good offer is still good.
    accept_stream(DomId::DOM0, &good, spec, None)?;
    Ok(())
}

/// Pages of a channel that nobody gave, the first one among them: there the byte is that the kernel clears. A kernel that clears it
/// though the page was never mapped ends the worker by a signal, or never.
pub fn wrong_channels() -> Outcome {
    for wrong in [0, 5] {
        let pages = GrantedPages::allocate(DomId::DOM0, &[(channel::PAGES, Access::ReadWrite)])?;
        let bell = EventChannel::offer(DomId::DOM0)?;
        let mut offer = Offer { refs: pages.refs().to_vec(), port: bell.port() };
        offer.refs[wrong] = GrantRef(31_000);
        let accepted = AcceptedChannel::accept(DomId::DOM0, &offer, channel::LEN_BYTES)?;
        let code = Child::worker(accepted)?.exit_code()?;
        same(&format!("exit code of a worker without page {wrong}"), code, Some(1))?;
    }
    Ok(())
}

pub fn wrong_nodes(xenstore: &Client, device: Device) -> Outcome {
    let front = device.frontend_path();
    for (node, value) in [
        ("state", "three"),
        ("state", "99"),
        ("refs", ""),
        ("refs", "8 9 -1"),
        ("refs", "1 2 3"),
        ("event-channel", "0x10"),
        ("event-channel", "99999999999"),
    ] {
        device::create(xenstore, device)?;
        for (node, value) in
            [("refs", vec!["8"; 33].join(" ")), ("event-channel", "5".into()), ("state", "3".into())]
        {
            xenstore.write(&format!("{front}/{node}"), value)?;
        }
        xenstore.write(&format!("{front}/{node}"), value)?;
        let (liveness, _mark) = Liveness::pair()?;
        match Backend::new(xenstore, device).accept(StreamSpec::default(), SOON, liveness) {
            Ok(_) => return Err(format!("{node} = {value:?} was accepted").into()),
            Err(error) => same(&format!("{node} = {value:?}: {error}"), error.fault(), Fault::Peer)?,
        }
    }
    Ok(device::remove(xenstore, device)?)
}

/// A port is delivered once and stays masked until the work is done.
pub fn flood() -> Outcome {
    let ours = EventChannel::offer(DomId::DOM0)?;
    let theirs = EventChannel::bind(DomId::DOM0, ours.port())?;
    let taken = COUNTERS.events_taken.get();
    for _ in 0..1000 {
        theirs.notify()?;
    }
    let mut seen = 0;
    while ours.take()? {
        seen += 1;
    }
    same("events before the port is armed again", (seen, COUNTERS.events_taken.get() - taken), (1, 1))
}
