//! A listing as text for people. What came from a guest or a user has been checked by gpu-proxy: ids of plain letters.

use std::fmt::Write as _;

use vgpu_zone_api::shim::{NodeInfo, WorkerInfo, ZoneInfo, ZoneState};

/// One line a zone, below it one a grant and one a worker. `device` is the kind of the node's.
pub fn zones(zones: &[ZoneInfo], device: &str) -> String {
    let mut text =
        String::from("ZONE                                  DOMAIN  STATE      GPU MEMORY  MAPPED\n");
    for zone in zones {
        let domain = zone.domain.map_or("-".to_owned(), |domain| domain.domid.to_string());
        let state = match zone.state {
            ZoneState::Waiting => "waiting",
            ZoneState::Connected => "connected",
            ZoneState::Ended => "ended",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:36}  {domain:>6}  {state:9}  {:>10}  {:>6}",
            zone.zone.to_string(),
            bytes(zone.device_bytes),
            bytes(zone.mapped_pages * 4096),
        );
        for grant in &zone.grants {
            let limit = grant.bytes.map_or("all".to_owned(), bytes);
            let share = grant.share.map_or("fair".to_owned(), |share| format!("{share}/1000"));
            let _ = writeln!(
                text,
                "  grant   {}: device {}, memory {limit}, share {share}",
                grant.container, grant.device
            );
        }
        for worker in &zone.workers {
            text += &worker_line(worker, device);
        }
    }
    text
}

fn worker_line(worker: &WorkerInfo, device: &str) -> String {
    let whose =
        if worker.ahead { "ahead of a process".into() } else { format!("for process {}", worker.guest_pid) };
    format!(
        "  worker  {} {whose} of {}: {}, {}{}\n",
        worker.pid,
        worker.container,
        bytes(worker.device_bytes),
        time(worker.uptime_seconds),
        used(worker.used, device),
    )
}

/// What a worker says it has used of the device's time.
fn used(used: u64, device: &str) -> String {
    match device {
        _ if used == 0 => String::new(),
        "cuda" => format!(", {} ms of the device while others had work", used / 1_000_000),
        _ => format!(", {} million instructions", used / 1_000_000),
    }
}

/// The node, one fact a line.
pub fn node(node: &NodeInfo, zones: usize) -> String {
    let mut text = format!(
        "gpu-proxy  {} (pid {}, up {})\nmode       {}\ndevice     {} ({}{})\nwire       {}\nzones      {zones}\n",
        node.version,
        node.pid,
        time(node.uptime_seconds),
        node.mode,
        node.device,
        if node.devices == 1 { String::new() } else { format!("{} of ", node.devices) },
        bytes(node.device_bytes),
        node.wire_hash,
    );
    if node.sandbox_gaps.is_empty() {
        text += "sandbox    whole\n";
    }
    for gap in &node.sandbox_gaps {
        let _ = writeln!(text, "sandbox    GAP: {gap}");
    }
    for warning in &node.warnings {
        let _ = writeln!(text, "warning    {warning}");
    }
    text
}

fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = bytes;
    while whole >= 10 << 10 && unit + 1 < UNITS.len() {
        whole >>= 10;
        unit += 1;
    }
    format!("{whole} {}", UNITS[unit])
}

fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_keep_two_digits_at_least() {
        assert_eq!(
            (bytes(0), bytes(10 << 10), bytes(512 << 20)),
            ("0 B".into(), "10 KiB".into(), "512 MiB".into())
        );
        assert_eq!(bytes(u64::MAX), "16777215 TiB");
        assert_eq!((time(119), time(120), time(7200)), ("119 s".into(), "2 min".into(), "2 h".into()));
    }

    #[test]
    fn a_worker_is_for_a_process_or_ahead_of_one() {
        let (pid, container) = (812, "a".to_owned());
        let serves = WorkerInfo {
            pid,
            container,
            guest_pid: 7,
            device_bytes: 0,
            uptime_seconds: 5,
            ahead: false,
            used: 0,
        };
        assert_eq!(worker_line(&serves, "soft"), "  worker  812 for process 7 of a: 0 B, 5 s\n");
        let worked = WorkerInfo { used: 5_000_000, ..serves.clone() };
        assert_eq!(
            worker_line(&worked, "soft"),
            "  worker  812 for process 7 of a: 0 B, 5 s, 5 million instructions\n"
        );
        assert!(worker_line(&worked, "cuda").ends_with(" 5 s, 5 ms of the device while others had work\n"));
        let waits = WorkerInfo { guest_pid: 0, ahead: true, ..serves };
        assert_eq!(worker_line(&waits, "soft"), "  worker  812 ahead of a process of a: 0 B, 5 s\n");
    }

    #[test]
    fn a_gap_of_the_sandbox_and_a_warning_are_shown() {
        let info = NodeInfo {
            version: "1".into(),
            mode: "local".into(),
            device: "soft".into(),
            devices: 2,
            device_bytes: 1 << 30,
            wire_hash: "0".into(),
            pid: 1,
            uptime_seconds: 1,
            sandbox_gaps: vec!["no x".into()],
            warnings: vec!["no y".into()],
        };
        assert!(node(&info, 0).contains("GAP: no x") && node(&info, 0).contains("warning    no y"));
        assert!(node(&info, 0).contains("device     soft (2 of 1024 MiB)"), "{}", node(&info, 0));
        assert!(node(&NodeInfo { sandbox_gaps: vec![], ..info }, 0).contains("whole"));
    }
}
