//! The `xen` transport end to end, in a real Xen domain. Prints one line a check; exits 1 if one failed.
//!
//! * `xen-peer loop`: both ends in this one domain (a domain may grant to itself), for one boot of a Dom0 without guests.
//! * `xen-peer backend GUEST`: makes the device of domain GUEST and plays the backend. With `destroy` it destroys the guest in the
//!   middle (the guest's command line must say `linger`) and looks that nothing is left.
//! * `xen-peer guest`, or as PID 1 of a guest: plays the guest of the above, then powers off if it is PID 1.

mod calls;
mod channel;
mod check;
mod child;
mod guest;
mod hostile;
mod streams;

use std::process::ExitCode;

use check::Checks;
use idm::xen::DomId;
use idm::xen::device::Device;
use idm::xen::metrics::COUNTERS;
use idm::xen::xenstore::{Client, Store as _};

/// Far from the devices of a real pod.
const DEVICE_NUMBER: u32 = 90;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return guest::as_init();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["loop"] => in_one_domain(),
        ["backend", guest] => backend(guest, guest::serve),
        ["backend", guest, "destroy"] => backend(guest, guest::serve_and_destroy),
        ["guest"] => guest::play(),
        ["child", ..] => return child::play(&words[1..]),
        _ => {
            eprintln!("usage: xen-peer loop | backend GUEST [destroy] | guest");
            return ExitCode::from(2);
        }
    }
    .exit_code()
}

fn in_one_domain() -> Checks {
    let mut checks = Checks::default();
    let Some(xenstore) = checks.run("xenstore answers", || Ok(Client::connect()?)) else { return checks };
    let device = Device { guest: DomId::DOM0, number: DEVICE_NUMBER, backend: DomId::DOM0 };
    checks.run("a stream through xenstore carries bytes both ways", || {
        streams::through_xenstore(&xenstore, device)
    });
    checks.run("a stream by offer carries bytes both ways", || streams::by_offer(DomId::DOM0));
    checks.run("a device that is offered again after its stream's end is accepted again", || {
        streams::reconnect(&xenstore, device)
    });
    checks.run(
        "pages are mapped by another process, at a fixed address, from two descriptors",
        channel::in_a_worker,
    );
    checks.run("kill -9 of the taker ends the maker's stream", streams::taker_killed);
    checks.run("kill -9 of the maker ends the taker's stream", streams::maker_killed);
    checks.run("a domain that is another one now counts as dead", || hostile::reused_domid(&xenstore));
    checks.run("references and ports that nobody gave are the peer's fault", hostile::wrong_offers);
    checks.run("a channel without one of its pages ends its worker, and no more", hostile::wrong_channels);
    checks.run("a guest that writes nonsense into its nodes is refused", || {
        hostile::wrong_nodes(&xenstore, device)
    });
    checks.run("a device that the toolstack removes ends the guest's stream", || {
        streams::device_removed(&xenstore, device)
    });
    checks.run("an event wakes who sleeps", streams::round_trips);
    checks.run("a flood of events costs one wake-up", hostile::flood);
    checks.run("a launch and a call cost the events that they must", calls::cost_what_they_must);
    checks.run("everything was given back", || {
        // What a guest's end takes with it, Dom0 has to remove by hand: the directory of its own frontends.
        if let Some((parent, _)) = device.frontend_path().rsplit_once('/') {
            xenstore.remove(parent)?;
        }
        let left =
            (COUNTERS.pages_mapped.get(), COUNTERS.pages_granted.get(), COUNTERS.teardown_failures.get());
        check::same("pages mapped, pages granted, failed teardowns", left, (0, 0, 0))
    });
    checks
}

fn backend(guest: &str, serve: fn(DomId, u32) -> check::Outcome) -> Checks {
    let mut checks = Checks::default();
    let Some(guest) = guest.parse().ok().and_then(DomId::new) else {
        checks.fail("the guest's domain id", "not a number below 32752");
        return checks;
    };
    checks.run("a guest's stream and channel", || serve(guest, DEVICE_NUMBER));
    checks
}
