//! Whose turn it is, as plain numbers: what workers say goes in, what they may do comes out. Start at [`Policy::look`].
//!
//! Each grant has a clock of its own (`time`), which what it uses moves on, the faster the smaller its part of the device is. The device's
//! clock (`now`) is the slowest one of those that have work. Who is ahead of it by more than its window waits until the others come up:
//!
//! ```text
//! used so much ─► time += used / part ─► room = window - (time - now) · part ─► none: held, until half of the window is there again
//! begins after a rest ─► time = now at least: nothing is saved up      no other zone has work ─► all is free, and nothing is asked
//! ```
//! A zone's part is divided by the grants of it that have work, and those by their workers. Zones that rest leave their part to the others.
//!
//! Time of the device that nobody uses while somebody is held back counts as used by those who have work and are not: it was theirs.
//!
//! **Workers may lie.** What one says moves its own grant's clock alone. One that says it uses more is held back itself; one that says less
//! gets what the driver's time slices give to a worker that does not ask at all; one that says it has work and uses none pays for the time
//! that it lets pass. Where use is no time (`soft`) there is nothing to see that by: who is held back is let go after [`PATIENCE_NS`].

use std::collections::{BTreeMap, BTreeSet};

use vgpu_zone_api::shim::ZoneId;

use crate::device::DeviceKind;
use crate::supervisor::worker_id::WorkerId;
use crate::worker::turn::Order;

/// The device as a whole, in what parts are told in.
pub const WHOLE: u64 = 1_000_000;
/// For so long at most others hold one back whose use is no time. They may have to wait for a CPU.
const PATIENCE_NS: u64 = 5_000_000_000;
/// What one worker can have done between two looks at most, whatever it says: clocks never come to their end.
const USED_MAX: u64 = 1 << 40;

/// How a device's use is told, and how far grants may run ahead of each other.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The windows of all together.
    pub window: u64,
    /// The least one.
    pub window_min: u64,
    /// Use is time in which a worker's work was on the device: nanoseconds, not more than have passed, of all workers together neither.
    pub is_time: bool,
    /// Who had work so long ago is waited for: programs stop for a moment between two steps.
    pub grace_ns: u64,
}

impl Scale {
    /// Of a kind of device; `None`: its time is worth nothing.
    #[must_use]
    pub const fn of(device: DeviceKind) -> Option<Self> {
        match device {
            DeviceKind::Cuda => {
                Some(Self { window: 20_000_000, window_min: 1_000_000, is_time: true, grace_ns: 2_000_000 })
            }
            // Its programs may have to wait for a CPU.
            DeviceKind::Soft => {
                Some(Self { window: 512 << 10, window_min: 32 << 10, is_time: false, grace_ns: 20_000_000 })
            }
            DeviceKind::Null => None,
        }
    }
}

/// A worker, as it is seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Who.
    pub worker: WorkerId,
    /// Its grant's number.
    pub grant: u64,
    /// Its zone.
    pub zone: ZoneId,
    /// Its grant's part, of [`WHOLE`] more or less: parts are what they are beside others.
    pub part: u64,
    /// The part of all grants of its zone.
    pub zone_part: u64,
    /// What it says it has used since its start.
    pub used: u64,
    /// Whether it says that it has work.
    pub has_work: bool,
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision {
    /// For each worker that was seen, in the same order.
    pub orders: Vec<Order>,
    /// Two zones have work: to be looked at again soon. Else when somebody begins.
    pub is_contended: bool,
}

/// One device's turns.
#[derive(Debug)]
pub struct Policy {
    scale: Scale,
    grants: BTreeMap<u64, Grant>,
    /// What each worker said last.
    used: BTreeMap<WorkerId, u64>,
    /// The device's clock.
    now: u128,
    /// When two zones had work, if they had at the last look.
    contended_at: Option<u64>,
    /// The zone that alone had work last. It begins again without telling.
    alone: Option<ZoneId>,
}

#[derive(Debug, Default)]
struct Grant {
    time: u128,
    worked_at: Option<u64>,
    is_active: bool,
    held_since: Option<u64>,
}

/// A grant that has work, at one look.
struct Active {
    zone: ZoneId,
    zone_part: u64,
    part: u64,
    /// Its workers that have work.
    workers: u64,
    /// Of [`WHOLE`].
    fraction: u64,
}

impl Policy {
    /// Nobody was seen yet.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        let (grants, used) = (BTreeMap::new(), BTreeMap::new());
        Self { scale, grants, used, now: 0, contended_at: None, alone: None }
    }

    /// What all workers that serve may do, at the time `at_ns`.
    pub fn look(&mut self, at_ns: u64, seen: &[Seen]) -> Decision {
        let uses = self.uses(seen);
        let mut active = self.active(at_ns, seen, &uses);
        let zones: BTreeSet<ZoneId> = active.values().map(|grant| grant.zone).collect();
        let is_contended = zones.len() > 1;
        for (number, grant) in &mut self.grants {
            let was_active = std::mem::replace(&mut grant.is_active, active.contains_key(number));
            if grant.is_active && !was_active {
                grant.time = grant.time.max(self.now);
            }
            if !grant.is_active || !is_contended {
                grant.held_since = None;
            }
        }
        if !is_contended {
            return self.leave_alone(seen, &zones);
        }
        set_fractions(&mut active);
        // What was used while nobody else had work is nobody's business.
        let passed_ns = self.contended_at.replace(at_ns).map_or(0, |before| at_ns.saturating_sub(before));
        self.alone = None;
        self.charge(passed_ns, seen, &uses, &active);
        let times = active.keys().filter_map(|number| self.grants.get(number)).map(|grant| grant.time);
        self.now = times.min().map_or(self.now, |slowest| slowest.max(self.now));
        self.let_go(at_ns);
        let rooms: BTreeMap<u64, u64> =
            active.iter().map(|(number, grant)| (*number, self.room(*number, grant, at_ns))).collect();
        let order = |seen: &Seen| match (rooms.get(&seen.grant), active.get(&seen.grant)) {
            (Some(room), Some(grant)) => Order::Until(seen.used.saturating_add(room / grant.workers.max(1))),
            _ => Order::Watched,
        };
        Decision { orders: seen.iter().map(order).collect(), is_contended }
    }

    /// What each has used since the last look. Of one that is new, nothing.
    fn uses(&mut self, seen: &[Seen]) -> Vec<u64> {
        let now: BTreeMap<WorkerId, u64> = seen.iter().map(|each| (each.worker, each.used)).collect();
        let before = std::mem::replace(&mut self.used, now);
        let since =
            |each: &Seen| before.get(&each.worker).map_or(0, |before| each.used.saturating_sub(*before));
        seen.iter().map(since).map(|used| used.min(USED_MAX)).collect()
    }

    /// The grants that have work, or had some a moment ago.
    fn active(&mut self, at_ns: u64, seen: &[Seen], uses: &[u64]) -> BTreeMap<u64, Active> {
        let known: BTreeSet<u64> = seen.iter().map(|each| each.grant).collect();
        self.grants.retain(|number, _| known.contains(number));
        let works = |(each, used): (&Seen, &u64)| each.has_work || *used > 0;
        for (each, _) in seen.iter().zip(uses).filter(|pair| works(*pair)) {
            self.grants.entry(each.grant).or_default().worked_at = Some(at_ns);
        }
        let mut active: BTreeMap<u64, Active> = BTreeMap::new();
        let grace_ns = self.scale.grace_ns;
        for (each, used) in seen.iter().zip(uses) {
            let worked_at = self.grants.get(&each.grant).and_then(|grant| grant.worked_at);
            if worked_at.is_some_and(|worked_at| at_ns.saturating_sub(worked_at) <= grace_ns) {
                let Seen { zone, zone_part, part, .. } = *each;
                let grant = active.entry(each.grant).or_insert(Active {
                    zone,
                    zone_part,
                    part,
                    workers: 0,
                    fraction: 0,
                });
                grant.workers += u64::from(works((each, used)));
            }
        }
        active
    }

    /// One zone has work, or none has.
    fn leave_alone(&mut self, seen: &[Seen], active: &BTreeSet<ZoneId>) -> Decision {
        self.contended_at = None;
        // Nobody has run ahead of anybody.
        let times = self.grants.values().filter(|grant| grant.is_active).map(|grant| grant.time);
        self.now = times.max().map_or(self.now, |fastest| fastest.max(self.now));
        let there: BTreeSet<ZoneId> = seen.iter().map(|each| each.zone).collect();
        let only = if there.len() == 1 { there.first() } else { active.first() };
        self.alone = only.copied().or(self.alone).filter(|zone| there.contains(zone));
        let order = |each: &Seen| if Some(each.zone) == self.alone { Order::Free } else { Order::Watched };
        Decision { orders: seen.iter().map(order).collect(), is_contended: false }
    }

    /// Moves clocks on.
    fn charge(&mut self, passed_ns: u64, seen: &[Seen], uses: &[u64], active: &BTreeMap<u64, Active>) {
        if passed_ns == 0 {
            return;
        }
        let most = if self.scale.is_time { passed_ns } else { USED_MAX };
        let sum: u64 = uses.iter().map(|used| (*used).min(most)).sum();
        for (each, used) in seen.iter().zip(uses) {
            let (Some(Active { fraction, .. }), Some(grant)) =
                (active.get(&each.grant), self.grants.get_mut(&each.grant))
            else {
                continue;
            };
            let mut used = u128::from((*used).min(most));
            // The driver gives the device to one after the other: each had its part of the time in which all of them had work on it.
            if self.scale.is_time && sum > passed_ns {
                used = used * u128::from(passed_ns) / u128::from(sum);
            }
            grant.time += used * u128::from(WHOLE) / u128::from(*fraction);
        }
        if self.scale.is_time {
            // Of those who are held back no use keeps the time from who might have used it: what they queued before runs on, or only waits.
            let is_free =
                |each: &Seen| self.grants.get(&each.grant).is_some_and(|grant| grant.held_since.is_none());
            let freely = seen.iter().zip(uses).filter(|(each, _)| is_free(each));
            let used = freely.map(|(_, used)| (*used).min(most)).sum();
            self.charge_idle(passed_ns.saturating_sub(used), active);
        }
    }

    /// Time that nobody used is counted to who might have used it.
    fn charge_idle(&mut self, idle_ns: u64, active: &BTreeMap<u64, Active>) {
        let grants = &mut self.grants;
        let is_free = |grants: &BTreeMap<u64, Grant>, number: &u64| {
            grants.get(number).is_some_and(|grant| grant.held_since.is_none())
        };
        let free: Vec<u64> = active.keys().filter(|number| is_free(grants, number)).copied().collect();
        let fractions: u64 =
            free.iter().filter_map(|number| active.get(number)).map(|grant| grant.fraction).sum();
        let time = u128::from(idle_ns) * u128::from(WHOLE) / u128::from(fractions.max(1));
        for number in free {
            if let Some(grant) = grants.get_mut(&number) {
                grant.time += time;
            }
        }
    }

    /// Ends the wait of who has been held back for long, where nothing else does.
    fn let_go(&mut self, at_ns: u64) {
        let is_tired = |since: u64| at_ns.saturating_sub(since) > PATIENCE_NS;
        let tired = |grant: &&Grant| !self.scale.is_time && grant.held_since.is_some_and(is_tired);
        let times = self.grants.values().filter(tired).map(|grant| grant.time);
        self.now = times.max().map_or(self.now, |time| time.max(self.now));
        for grant in self.grants.values_mut().filter(|grant| grant.is_active) {
            grant.time = grant.time.max(self.now);
        }
    }

    /// What a grant may use until the next look, and whether it is held back.
    fn room(&mut self, number: u64, active: &Active, at_ns: u64) -> u64 {
        let part_of = |whole: u128| whole * u128::from(active.fraction) / u128::from(WHOLE);
        let window = u64::try_from(part_of(self.scale.window.into())).unwrap_or(u64::MAX);
        let window = window.max(self.scale.window_min);
        let Some(grant) = self.grants.get_mut(&number) else { return 0 };
        let ahead = part_of(grant.time.saturating_sub(self.now));
        let room = window.saturating_sub(u64::try_from(ahead).unwrap_or(u64::MAX));
        // One that is let go for every little that it has been waiting for would come to nothing.
        let least = if grant.held_since.is_some() { window / 2 } else { window / 8 };
        if room < least {
            grant.held_since.get_or_insert(at_ns);
            return 0;
        }
        grant.held_since = None;
        room
    }
}

/// A zone's part is divided by its grants that have work.
fn set_fractions(active: &mut BTreeMap<u64, Active>) {
    let mut zones: BTreeMap<ZoneId, (u64, u64)> = BTreeMap::new();
    for grant in active.values() {
        let (whole, of_active) = zones.entry(grant.zone).or_default();
        *whole = grant.zone_part;
        *of_active += grant.part;
    }
    let all: u64 = zones.values().map(|(whole, _)| whole).sum();
    for grant in active.values_mut() {
        let (whole, of_active) = zones.get(&grant.zone).copied().unwrap_or_default();
        let of_zone = u128::from(whole) * u128::from(grant.part) / u128::from(of_active.max(1));
        let fraction = of_zone * u128::from(WHOLE) / u128::from(all.max(1));
        grant.fraction = u64::try_from(fraction).unwrap_or(WHOLE).clamp(1, WHOLE);
    }
}

#[cfg(test)]
mod tests;
