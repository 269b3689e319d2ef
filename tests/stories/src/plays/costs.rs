//! What Xen adds to CUDA programs, in counts: what workers say at their end in gpu-proxy's log, beside what guest-init says on its console.

use std::fs;
use std::str::FromStr;

use crate::Story;
use crate::command::{SOON, until};
use crate::node::Node;
use crate::plays::vgpu;
use crate::pod::{Pod, START};

const PROXY_LOG: &str = "/var/log/vgpu/gpu-proxy.log";
const CONSOLES: &str = "/var/log/xen/console";
/// One after the other. The first two are the same but for what comes once in a guest's life.
const PROGRAMS: [&str; 4] = ["vector_add", "vector_add", "pinned", "steps"];
/// Pages of a chunk of an arena, and of a channel: 1 MiB of ring, 8 MiB of staging, control page and reply slots.
const CHUNK_PAGES: u64 = 512;
const CHANNEL_PAGES: u64 = 2369;
/// What a channel asks of Xen in its guest: a dma-buf, references to its pages, a port. A chunk: the first two.
const CHANNEL_REQUESTS: u64 = 3;
const CHUNK_REQUESTS: u64 = 2;
/// The event that a port has when it is bound, the one at the worker's end, and one that was on its way then.
const OF_START_AND_END: u64 = 3;

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![vgpu("cuda_costs_of_xen_are_counted_at_both_ends", 900, cuda_costs_are_counted)]
}

/// Of one process, as its worker counts.
#[derive(Debug)]
struct Worker {
    sent: u64,
    taken: u64,
    pages: u64,
    maps: u64,
}

/// The same, as guest-init counts, and what the guest has asked for so far.
#[derive(Debug)]
struct Guest {
    sent: u64,
    taken: u64,
    pages: u64,
    chunks: u64,
    requests: u64,
    events: u64,
    xenstore: u64,
    granted: u64,
}

fn cuda_costs_are_counted(node: &Node) {
    let logged = fs::metadata(PROXY_LOG).expect("it logs").len();
    let lines: Vec<String> = PROGRAMS.iter().map(|name| format!("/{name} || exit 1;")).collect();
    let script = format!("{} echo over; exec sleep 1000", lines.concat());
    let mut pod = node.start(Pod::cuda(&["sh", "-c", &script]));
    pod.until_line("over");
    let said = until(SOON, || {
        let (workers, guests) = (workers(logged), guests(pod.name()));
        (workers.len() == PROGRAMS.len() && guests.len() == PROGRAMS.len()).then_some((workers, guests))
    });
    let (workers, guests) = said.unwrap_or_else(|| panic!("{:?}, {:?}", workers(logged), guests(pod.name())));
    let text = pod.text();
    pod.signal("SIGKILL");
    pod.end(START);

    for ((program, worker), guest) in PROGRAMS.iter().zip(&workers).zip(&guests) {
        println!("  {program}: {worker:?}, {guest:?}");
    }
    for (worker, guest) in workers.iter().zip(&guests) {
        let both = format!("{worker:?}, {guest:?}");
        assert_eq!(guest.pages, CHANNEL_PAGES + guest.chunks * CHUNK_PAGES, "granted: {both}");
        assert_eq!((worker.pages, worker.maps), (guest.pages, 1 + guest.chunks), "mapped: {both}");
        assert!(worker.taken.abs_diff(guest.sent) <= OF_START_AND_END, "events to the worker: {both}");
        assert!(worker.sent.abs_diff(guest.taken) <= OF_START_AND_END, "events to the program: {both}");
    }
    for pair in guests.windows(2) {
        let [before, after] = pair else { continue };
        let requests = (after.requests - before.requests) - (after.events - before.events);
        assert_eq!(requests, CHANNEL_REQUESTS + after.chunks * CHUNK_REQUESTS, "requests: {guests:?}");
        assert_eq!(after.xenstore, before.xenstore, "a process asks xenstore for nothing: {guests:?}");
        assert_eq!(after.granted, before.granted, "a process's pages are all given back: {guests:?}");
    }
    let launches =
        text.lines().find_map(|line| line.strip_prefix("steps: ok, ")).and_then(|rest| number(rest, 0));
    let launches: u64 = launches.unwrap_or_else(|| panic!("no launches in: {text}"));
    let steps = guests.last().expect("there are four");
    assert!(steps.sent < launches, "{launches} launches with {} events", steps.sent);
}

/// What the workers that have ended since `logged` bytes said.
fn workers(logged: u64) -> Vec<Worker> {
    let log = fs::read(PROXY_LOG).expect("it logs");
    let new = log.get(usize::try_from(logged).unwrap_or(0)..).unwrap_or_default();
    let said = |line: &str| {
        let (_, said) = line.split_once("; of Xen: ")?;
        // 1 events sent, 2 taken, 3 pages mapped in 4 pieces
        let number = |nth| number(said, nth);
        Some(Worker { sent: number(0)?, taken: number(1)?, pages: number(2)?, maps: number(3)? })
    };
    String::from_utf8_lossy(new).lines().filter_map(said).collect()
}

/// What guest-init said of this container's channels that are over.
fn guests(container: &str) -> Vec<Guest> {
    let files = fs::read_dir(CONSOLES).into_iter().flatten().flatten();
    let texts =
        files.filter_map(|file| Some(String::from_utf8_lossy(&fs::read(file.path()).ok()?).into_owned()));
    let of_it = format!("{container}: a GPU channel is over: ");
    let said = |line: &str| {
        let (_, said) = line.split_once(&of_it)?;
        // 1 events sent, 2 taken, 3 pages granted, 4 chunks of an arena; the guest so far: 5 requests, 6 of them events, 7 …, 8 …
        let number = |nth| number(said, nth);
        Some(Guest {
            sent: number(0)?,
            taken: number(1)?,
            pages: number(2)?,
            chunks: number(3)?,
            requests: number(4)?,
            events: number(5)?,
            xenstore: number(6)?,
            granted: number(7)?,
        })
    };
    texts.flat_map(|text| text.lines().filter_map(said).collect::<Vec<_>>()).collect()
}

/// The number that is the `nth` one of a text's words.
fn number<T: FromStr>(text: &str, nth: usize) -> Option<T> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).nth(nth)
}
