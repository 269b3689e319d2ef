//! Lives of zones on a device that is none: it gives its time to one after the other of those that have work on it, as NVIDIA's driver does.

use uuid::Uuid;

use super::*;

/// A step of the simulation, and how many pass between two looks.
const STEP_NS: u64 = 100_000;
const LOOK_STEPS: u64 = 11;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

type Wants = fn(now_ns: u64) -> bool;

/// What a worker of the simulation does.
struct Worker {
    zone: u128,
    grant: u64,
    part: u64,
    zone_part: u64,
    /// Whether it has work at a time.
    wants: Wants,
    /// Once begun, a kernel runs to its end.
    kernel_ns: u64,
    /// What it says of what it used, and whether it asks at all.
    says: fn(used: u64) -> u64,
    asks: bool,
    busy_ns: u64,
    until_end_ns: u64,
    /// What it had of the device, in truth.
    had_ns: u64,
    order: Order,
}

fn worker(zone: u128, part: u64) -> Worker {
    Worker {
        zone,
        grant: u64::try_from(zone).unwrap(),
        part,
        zone_part: part,
        wants: |_| true,
        kernel_ns: STEP_NS,
        says: |used| used,
        asks: true,
        busy_ns: 0,
        until_end_ns: 0,
        had_ns: 0,
        order: Order::Free,
    }
}

struct World {
    policy: Policy,
    workers: Vec<Worker>,
    now_ns: u64,
    /// The device was used by anybody.
    used_ns: u64,
    contended_looks: u64,
}

impl World {
    fn of(workers: Vec<Worker>) -> Self {
        let policy = Policy::new(Scale::of(DeviceKind::Cuda).unwrap());
        Self { policy, workers, now_ns: SECOND, used_ns: 0, contended_looks: 0 }
    }

    fn look(&mut self) {
        let now = self.now_ns;
        let seen = |(number, each): (usize, &Worker)| Seen {
            worker: WorkerId(number as u64),
            grant: each.grant,
            zone: ZoneId(Uuid::from_u128(each.zone)),
            part: each.part,
            zone_part: each.zone_part,
            used: (each.says)(each.busy_ns),
            has_work: (each.wants)(now) || each.until_end_ns > 0,
        };
        let seen: Vec<Seen> = self.workers.iter().enumerate().map(seen).collect();
        let decision = self.policy.look(now, &seen);
        self.contended_looks += u64::from(decision.is_contended);
        for (worker, order) in self.workers.iter_mut().zip(decision.orders) {
            worker.order = order;
        }
    }

    fn run(&mut self, for_ns: u64) {
        for step in 0..for_ns / STEP_NS {
            if step % LOOK_STEPS == 0 {
                self.look();
            }
            let now = self.now_ns;
            for each in &mut self.workers {
                let may = match each.order {
                    Order::Until(until) if each.asks => (each.says)(each.busy_ns) < until,
                    _ => true,
                };
                if each.until_end_ns == 0 && may && (each.wants)(now) {
                    each.until_end_ns = each.kernel_ns;
                }
            }
            let running = self.workers.iter().filter(|each| each.until_end_ns > 0).count() as u64;
            for each in self.workers.iter_mut().filter(|each| each.until_end_ns > 0) {
                let had = STEP_NS / running;
                each.had_ns += had;
                each.busy_ns += STEP_NS;
                each.until_end_ns = each.until_end_ns.saturating_sub(had);
            }
            self.used_ns += if running > 0 { STEP_NS } else { 0 };
            self.now_ns += STEP_NS;
        }
    }

    /// What each had since the last time, in thousandths of `for_ns`, which pass.
    fn shares(&mut self, for_ns: u64) -> Vec<u64> {
        let before: Vec<u64> = self.workers.iter().map(|each| each.had_ns).collect();
        self.used_ns = 0;
        self.run(for_ns);
        self.workers.iter().zip(before).map(|(each, before)| (each.had_ns - before) * 1000 / for_ns).collect()
    }
}

/// Within so many thousandths.
fn assert_near(shares: &[u64], wanted: &[u64], within: u64) {
    let near = shares.iter().zip(wanted).all(|(share, wanted)| share.abs_diff(*wanted) <= within);
    assert!(near && shares.len() == wanted.len(), "{shares:?}, not {wanted:?}");
}

#[test]
fn zones_with_endless_work_have_their_parts_whatever_their_kernels_take() {
    for parts in [&[1, 1][..], &[1, 3], &[250, 250, 500], &[100, 900], &[1; 8]] {
        for kernels in [[STEP_NS, STEP_NS], [STEP_NS, 7 * MS], [40 * MS, STEP_NS], [90 * MS, 90 * MS]] {
            let all: u64 = parts.iter().sum();
            let mut workers: Vec<Worker> = (1..).zip(parts).map(|(zone, part)| worker(zone, *part)).collect();
            for (place, each) in workers.iter_mut().enumerate() {
                each.kernel_ns = kernels[place % 2];
            }
            let mut world = World::of(workers);
            world.run(SECOND);
            let shares = world.shares(5 * SECOND);
            let wanted: Vec<u64> = parts.iter().map(|part| part * 1000 / all).collect();
            assert_near(&shares, &wanted, 20);
            assert_eq!(world.used_ns, 5 * SECOND, "{parts:?} {kernels:?}: the device is never without work");
        }
    }
}

#[test]
fn a_program_that_pauses_between_its_steps_has_its_part_of_what_it_does_alone() {
    // It has no work in one of ten steps, which is over before anybody sees it; and in three of ten milliseconds: then it has seven tenths
    // of its half, and the other one the rest.
    let cases: [(Wants, [u64; 2]); 2] =
        [(|now| !(now / STEP_NS).is_multiple_of(10), [490, 490]), (|now| now / MS % 10 > 2, [600, 340])];
    for (wants, least) in cases {
        let mut world = World::of(vec![worker(1, 500), Worker { wants, ..worker(2, 500) }]);
        let shares = world.shares(8 * SECOND);
        assert!(shares.iter().zip(least).all(|(share, least)| *share >= least), "{shares:?}, not {least:?}");
        assert!(world.used_ns >= 8 * SECOND * 97 / 100);
    }
}

#[test]
fn a_zone_that_rests_leaves_its_part_and_is_owed_nothing() {
    let late: Wants = |now| (5 * SECOND..9 * SECOND).contains(&now);
    let mut world = World::of(vec![worker(1, 500), Worker { wants: late, ..worker(2, 500) }]);
    assert_near(&world.shares(4 * SECOND), &[1000, 0], 1);
    assert_eq!((world.contended_looks, world.workers[0].order), (0, Order::Free));
    assert_eq!(world.workers[1].order, Order::Watched);
    assert_near(&world.shares(4 * SECOND), &[500, 500], 10);
    world.run(10 * MS);
    assert_near(&world.shares(4 * SECOND), &[1000, 0], 1);
    assert_eq!(world.workers[0].order, Order::Free);
}

#[test]
fn short_work_now_and_then_is_done_at_once_and_holds_up_nobody() {
    let bursts: Wants = |now| (now / MS).is_multiple_of(20);
    let mut world = World::of(vec![worker(1, 500), Worker { wants: bursts, ..worker(2, 500) }]);
    let shares = world.shares(8 * SECOND);
    // A millisecond in twenty, of which the other one has half.
    assert!(shares[1] >= 24 && shares[0] + shares[1] >= 995, "{shares:?}");
    assert_eq!(world.used_ns, 8 * SECOND);
}

#[test]
fn a_zones_part_is_its_containers_and_not_more_for_more_processes() {
    let of_zone = |zone, grant, part| Worker { grant, zone_part: 500, ..worker(zone, part) };
    let workers = vec![of_zone(1, 1, 125), of_zone(1, 2, 375), of_zone(2, 3, 500), of_zone(2, 3, 500)];
    let mut world = World::of(workers);
    let shares = world.shares(10 * SECOND);
    assert_near(&[shares[0], shares[1], shares[2] + shares[3]], &[125, 375, 500], 30);
    assert_near(&shares[2..], &[250, 250], 20);
    // The first container rests: the second has all of the zone's.
    world.workers[0].wants = |_| false;
    assert_near(&world.shares(10 * SECOND)[1..2], &[500], 20);
}

/// Within one zone nobody is held back.
#[test]
fn containers_of_one_zone_alone_are_free() {
    let mut world = World::of(vec![Worker { grant: 7, ..worker(1, 100) }, worker(1, 900)]);
    world.run(SECOND);
    assert_eq!(world.contended_looks, 0);
    assert!(world.workers.iter().all(|each| each.order == Order::Free));
}

#[test]
fn one_that_says_it_has_work_and_uses_none_does_not_hold_up_the_others() {
    // Frozen, and nearly so: one nanosecond a look would be enough to seem to go on.
    for says in [|_| 0, |used: u64| used / 100_000] {
        let liar = Worker { says, wants: |_| false, kernel_ns: 0, ..worker(2, 500) };
        let mut world = World::of(vec![worker(1, 500), liar]);
        world.policy.look(0, &[]);
        world.workers[1].wants = |_| true;
        let shares = world.shares(8 * SECOND);
        // What it lets pass is its own loss.
        assert!(shares[0] >= 450, "{shares:?}");
    }
}

#[test]
fn two_that_lie_together_do_not_hold_up_the_others() {
    // One says that it has work and uses none, so that its clock stands; the other says that it uses all the time there is.
    let frozen = Worker { says: |_| 0, wants: |_| false, kernel_ns: 0, ..worker(2, 250) };
    let busy = Worker { says: |used| used.saturating_mul(1 << 40), ..worker(3, 250) };
    let mut world = World::of(vec![worker(1, 500), frozen, busy]);
    world.policy.look(0, &[]);
    world.workers[1].wants = |_| true;
    let shares = world.shares(8 * SECOND);
    assert!(shares[0] >= 400, "{shares:?}");
}

#[test]
fn one_that_says_too_little_or_does_not_ask_has_what_the_driver_gives_it() {
    for liar in [Worker { says: |_| 0, ..worker(2, 100) }, Worker { asks: false, ..worker(2, 100) }] {
        let mut world = World::of(vec![worker(1, 900), liar]);
        let shares = world.shares(8 * SECOND);
        assert!(shares[0] >= 440, "{shares:?}");
    }
}

#[test]
fn one_that_says_too_much_is_held_back_itself() {
    for says in [|used: u64| used * 3, |used: u64| used.saturating_mul(1 << 40), |_| u64::MAX] {
        let liar = Worker { says, ..worker(2, 500) };
        let mut world = World::of(vec![worker(1, 250), liar, worker(3, 250)]);
        let shares = world.shares(8 * SECOND);
        assert!(shares[0] >= 230 && shares[2] >= 230, "{shares:?}");
    }
}

/// What is counted is shared to the last window, however fast each is.
#[test]
fn instructions_are_shared_by_their_number() {
    let scale = Scale::of(DeviceKind::Soft).unwrap();
    let (mut policy, mut used, mut until) = (Policy::new(scale), [0_u64; 3], [u64::MAX; 3]);
    let (parts, speeds) = ([250_u64, 250, 500], [90_000_u64, 3_000, 40_000]);
    for look in 0..20_000_u64 {
        let seen: Vec<Seen> = (0..3)
            .map(|place| Seen {
                worker: WorkerId(place as u64),
                grant: place as u64,
                zone: ZoneId(Uuid::from_u128(place as u128)),
                part: parts[place],
                zone_part: parts[place],
                used: used[place],
                has_work: true,
            })
            .collect();
        let decision = policy.look(look * MS, &seen);
        for (place, order) in decision.orders.into_iter().enumerate() {
            let Order::Until(most) = order else { panic!("all have work") };
            until[place] = most;
            if used[place] < most {
                used[place] += speeds[place];
            }
        }
    }
    let all: u64 = used.iter().sum();
    let shares: Vec<u64> = used.iter().map(|used| used * 1000 / all).collect();
    assert_near(&shares, &parts, 10);
}
