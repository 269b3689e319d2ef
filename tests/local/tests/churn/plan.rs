//! What happens in a round, drawn from its seed.

use std::time::Duration;

use crate::random::Random;

/// What containerd is at when somebody dies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Doing {
    Create,
    Start,
    Exec,
    StartExec,
    /// Its output is on its way.
    Output,
    Pause,
    Resume,
    Kill,
    Delete,
}

impl Doing {
    /// In the order of a container's life.
    pub const ALL: [Doing; 9] = [
        Doing::Create,
        Doing::Start,
        Doing::Exec,
        Doing::StartExec,
        Doing::Output,
        Doing::Pause,
        Doing::Resume,
        Doing::Kill,
        Doing::Delete,
    ];
}

/// Who dies, or worse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Victim {
    Shim,
    /// The guest's PID 1, which is the agent; its kernel ends the others.
    Agent,
    /// Who serves the share: without Xen the guest's first process.
    Backend,
    /// The container's stand-in on the host.
    Holder,
    /// The container's first process.
    Program,
    /// All of it at once, as a toolstack destroys one.
    Domain,
    /// It stands still.
    Guest,
    /// containerd's way to the shim, which lives.
    Connection,
}

impl Victim {
    const ALL: [Victim; 8] = [
        Victim::Shim,
        Victim::Agent,
        Victim::Backend,
        Victim::Holder,
        Victim::Program,
        Victim::Domain,
        Victim::Guest,
        Victim::Connection,
    ];

    /// Nobody answers containerd any more: it runs `delete`.
    pub fn cuts_off(self) -> bool {
        matches!(self, Victim::Shim | Victim::Connection)
    }

    /// The shim has to notice by itself.
    pub fn ends_the_guest(self) -> bool {
        matches!(self, Victim::Agent | Victim::Backend | Victim::Domain)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Plan {
    /// The pod has a container beside its sandbox's own, and it is that one to which it happens.
    pub second: bool,
    pub doing: Doing,
    pub victim: Victim,
    /// From the operation's begin, or the victim's, if that comes later.
    pub after: Duration,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut random = Random::of(seed);
        let doing = random.one_of(&Doing::ALL);
        // Two thirds of a Create are the guest's boot, the other operations take a few milliseconds.
        let longest_us = if doing == Doing::Create { 100_000 } else { 10_000 };
        Plan {
            second: random.below(2) == 1,
            doing,
            victim: random.one_of(&Victim::ALL),
            after: Duration::from_micros(random.below(longest_us)),
        }
    }
}
