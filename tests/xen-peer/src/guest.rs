//! A real guest and its backend: a device, a stream, and a channel of plain memory.
//!
//! Over the stream the guest says `<port> <refs…>\n` of a channel; the backend maps it, writes, rings and says `mapped\n`; the guest
//! looks and says `seen\n`; the backend unmaps and says `unmapped\n`; only then does the guest let the memory go.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use idm::stream::{Stream, StreamSpec};
use idm::xen::death::Deaths;
use idm::xen::device::{self, Backend, Device, Frontend};
use idm::xen::domain::{Identity, own_domid};
use idm::xen::offer::{AcceptedChannel, OfferedChannel, bells};
use idm::xen::xenstore::Client;
use idm::xen::{DomId, GrantRef, Offer};
use idm::{Fault, Region};
use rustix::mount::MountFlags;

use crate::DEVICE_NUMBER;
use crate::channel::{LIFE_AT, await_word};
use crate::check::{Checks, LIMIT, Outcome, pattern, same};

/// A GPU channel's size: submission ring, reply slots, staging.
const REGION_BYTES: usize = 10 << 20;

/// A guest whose channel is mapped.
struct Session {
    xenstore: Client,
    device: Device,
    stream: Stream,
    lines: BufReader<Stream>,
    region: Region,
    _deaths: Deaths,
}

/// Makes the device, accepts the guest's stream and channel, and sees that both see each other's bytes.
fn begin(guest: DomId, number: u32) -> Outcome<Session> {
    let xenstore = Client::connect()?;
    let device = Device { guest, number, backend: own_domid(&xenstore)? };
    device::create(&xenstore, device)?;
    let deaths = Deaths::of_domains(&xenstore)?;
    let liveness = deaths.domain(Identity::of(&xenstore, guest)?)?;
    let stream = Backend::new(&xenstore, device).accept(StreamSpec::default(), LIMIT * 3, liveness)?;
    println!("  {guest} connected");
    let mut lines = BufReader::new(stream.clone());
    let offer = read_offer(&mut lines)?;
    let started = Instant::now();
    let channel = AcceptedChannel::accept(guest, &offer, REGION_BYTES)?;
    let (region, _waiter, doorbell) = channel.attach(None, LIFE_AT)?;
    println!("  {} pages mapped in {:.3}s", offer.refs.len(), started.elapsed().as_secs_f64());
    let mut found = vec![0; REGION_BYTES - 4096];
    region.read(4096, &mut found);
    same("what the guest wrote", found == pattern(9, found.len()), true)?;
    region.write(4096, &pattern(10, REGION_BYTES - 4096));
    region.word(0).store(1, Ordering::Release);
    doorbell.ring()?;
    say(&stream, "mapped\n")?;
    hear(&mut lines, "seen\n")?;
    Ok(Session { xenstore, device, stream, lines, region, _deaths: deaths })
}

/// The backend's part, up to the end of the guest's stream.
pub fn serve(guest: DomId, number: u32) -> Outcome {
    let Session { xenstore, device, stream, mut lines, region, _deaths } = begin(guest, number)?;
    drop(region);
    say(&stream, "unmapped\n")?;
    let mut rest = String::new();
    match lines.read_line(&mut rest) {
        Ok(0) => {}
        other => return Err(format!("{other:?} {rest:?} instead of the end").into()),
    }
    drop((lines, stream));
    Ok(device::remove(&xenstore, device)?)
}

/// The backend's part with a guest that is destroyed in the middle, pages mapped.
pub fn serve_and_destroy(guest: DomId, number: u32) -> Outcome {
    let Session { xenstore, device, stream, mut lines, region, _deaths } = begin(guest, number)?;
    let mut destroy = Command::new("xl").args(["destroy", &guest.get().to_string()]).spawn()?;
    let started = Instant::now();
    match lines.read_line(&mut String::new()) {
        Err(error) if fault(&error) == Some(Fault::Gone) => {}
        other => return Err(format!("{other:?} instead of the guest's end").into()),
    }
    println!("  its end noticed {:.2}s after xl destroy began", started.elapsed().as_secs_f64());
    destroy.wait()?;
    // The pages outlive the domain as long as they are mapped: no fault.
    let mut byte = [0];
    region.read(8192, &mut byte);
    let unmapped = Instant::now();
    drop((lines, stream, region));
    while !domain_ids()?.iter().all(|&id| id != guest.get()) {
        if unmapped.elapsed() > LIMIT {
            return Err("the domain stays, as a zombie".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("  nothing left of it {:.2}s after the unmap", unmapped.elapsed().as_secs_f64());
    Ok(device::remove(&xenstore, device)?)
}

/// Every domain that Xen knows, also those that are dying.
fn domain_ids() -> Outcome<Vec<u16>> {
    let list = Command::new("xl").arg("list").output()?.stdout;
    let list = String::from_utf8(list)?;
    Ok(list.lines().skip(1).filter_map(|line| line.split_whitespace().rev().nth(4)?.parse().ok()).collect())
}

pub fn play() -> Checks {
    let mut checks = Checks::default();
    checks.run("a stream to the backend and a channel of plain memory", guest);
    checks
}

fn guest() -> Outcome {
    let xenstore = Client::connect()?;
    println!("  xenstore answers");
    let frontend = Frontend::find(&xenstore, DEVICE_NUMBER, LIMIT)?;
    println!("  served by {}", frontend.device().backend);
    let stream = frontend.connect(StreamSpec::default(), LIMIT * 3)?;
    println!("  connected");
    let OfferedChannel { memory, bell } = OfferedChannel::new(frontend.device().backend, REGION_BYTES)?;
    let region = Region::map(memory.memfd(), REGION_BYTES)?;
    region.write(4096, &pattern(9, REGION_BYTES - 4096));
    let mut line = bell.port().to_string();
    for GrantRef(reference) in memory.refs() {
        line.push(' ');
        line.push_str(&reference.to_string());
    }
    line.push('\n');
    say(&stream, &line)?;
    let (waiter, _doorbell) = bells(bell);
    await_word(&region, 0, &waiter, 1)?;
    let mut lines = BufReader::new(stream.clone());
    hear(&mut lines, "mapped\n")?;
    let mut found = vec![0; REGION_BYTES - 4096];
    region.read(4096, &mut found);
    same("what the backend wrote", found == pattern(10, found.len()), true)?;
    say(&stream, "seen\n")?;
    if std::fs::read_to_string("/proc/cmdline")?.split_whitespace().any(|word| word == "linger") {
        // Until it is destroyed.
        loop {
            std::thread::park();
        }
    }
    hear(&mut lines, "unmapped\n")?;
    memory.release()?;
    Ok(stream.finish()?)
}

fn read_offer(lines: &mut impl BufRead) -> Outcome<Offer> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let mut numbers = line.split_whitespace().map(str::parse);
    let port = numbers.next().ok_or("no offer")??;
    let refs: Result<Vec<_>, _> = numbers.map(|number| number.map(GrantRef)).collect();
    Ok(Offer { refs: refs?, port })
}

fn say(stream: &Stream, line: &str) -> Outcome {
    Ok(stream.write_all(line.as_bytes(), Some(LIMIT))?)
}

fn hear(lines: &mut impl BufRead, expected: &str) -> Outcome {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    same("line", line.as_str(), expected)
}

fn fault(error: &std::io::Error) -> Option<Fault> {
    error.get_ref()?.downcast_ref::<idm::ChannelError>().map(idm::ChannelError::fault)
}

/// The whole of a guest: what PID 1 must do, then the guest's part, then the end of the domain.
pub fn as_init() -> ExitCode {
    for (kind, path) in [(c"devtmpfs", "/dev"), (c"proc", "/proc"), (c"sysfs", "/sys")] {
        let _ = std::fs::create_dir_all(path);
        // devtmpfs may be mounted by the kernel already; what is missing shows in the checks.
        let _ = rustix::mount::mount(kind, path, kind, MountFlags::empty(), None);
    }
    println!("xen-peer as PID 1, {}", std::fs::read_to_string("/proc/uptime").unwrap_or_default().trim());
    play().exit_code();
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    ExitCode::FAILURE
}
