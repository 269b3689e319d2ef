//! `-q`: all that is known, a line each.

use std::fmt::Write as _;

use super::{Device, Seen, mib};
use crate::clock::date;

pub fn query(seen: &Seen<'_>, devices: &[Device<'_>]) -> String {
    let mut text = String::from("\n==============NVSMI LOG==============\n\n");
    line(&mut text, 0, "Timestamp", &date(seen.now).line());
    line(&mut text, 0, "Driver Version", &seen.facts.driver_version);
    line(&mut text, 0, "CUDA Version", &seen.cuda_version());
    text += "\n";
    line(&mut text, 0, "Attached GPUs", &devices.len().to_string());
    for (index, device) in devices {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "GPU {}", device.bus_id());
        let mut say = |depth: usize, name: &str, value: &str| line(&mut text, depth, name, value);
        say(1, "Product Name", &device.name);
        say(1, "Persistence Mode", "N/A");
        say(1, "Display Active", "Disabled");
        say(1, "Serial Number", "N/A");
        say(1, "GPU UUID", &device.uuid_text());
        say(1, "Minor Number", &index.to_string());
        say(1, "Compute Capability", &format!("{}.{}", device.capability[0], device.capability[1]));
        say(1, "PCI", "");
        say(2, "Bus Id", &device.bus_id());
        say(1, "FB Memory Usage", "");
        say(2, "Total", &format!("{} MiB", mib(device.total_bytes)));
        say(2, "Used", &format!("{} MiB", mib(device.used_bytes)));
        say(2, "Free", &format!("{} MiB", mib(device.total_bytes.saturating_sub(device.used_bytes))));
        say(1, "Compute Mode", "Default");
        say(1, "Utilization", "N/A");
        say(1, "ECC Mode", "");
        say(2, "Current", if device.ecc { "Enabled" } else { "Disabled" });
        say(1, "Temperature", "N/A");
        say(1, "Power Readings", "N/A");
        say(1, "Max Clocks", "");
        say(2, "SM", &mhz(device.clock_khz));
        say(2, "Memory", &mhz(device.memory_clock_khz));
        say(1, "Processes", if seen.processes_of(*index).next().is_none() { "None" } else { "" });
        for process in seen.processes_of(*index) {
            say(2, "Process ID", &process.pid.to_string());
            say(3, "Type", "C");
            say(3, "Name", &seen.process_name(process.pid));
            say(3, "Used GPU Memory", &format!("{} MiB", mib(process.used_bytes)));
        }
        text += "\n";
    }
    text
}

fn mhz(khz: u32) -> String {
    if khz == 0 { "N/A".into() } else { format!("{} MHz", khz / 1000) }
}

/// Values stand under each other; a title has none.
fn line(text: &mut String, depth: usize, name: &str, value: &str) {
    let name = format!("{}{name}", "    ".repeat(depth));
    let _ = if value.is_empty() { writeln!(text, "{name}") } else { writeln!(text, "{name:<50}: {value}") };
}

#[cfg(test)]
mod tests {
    use super::super::samples::{facts, seen};
    use super::*;

    #[test]
    fn what_is_known_is_said_and_what_is_not_as_well() {
        let facts = facts();
        let devices: Vec<_> = (0..).zip(&facts.devices).collect();
        let text = query(&seen(&facts), &devices);
        let value = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
            line.split_once(" : ").or_else(|| line.split_once(": ")).map(|(_, value)| value.to_owned())
        };
        for (name, expected) in [
            ("Driver Version", "580.159.04"),
            ("CUDA Version", "13.0"),
            ("Attached GPUs", "1"),
            ("Product Name", "NVIDIA H100 80GB HBM3"),
            ("GPU UUID", "GPU-76677075-2d63-7564-612d-646576696365"),
            ("Total", "8192 MiB"),
            ("Used", "582 MiB"),
            ("Free", "7610 MiB"),
            ("Compute Capability", "9.0"),
            ("Current", "Enabled"),
            ("SM", "1980 MHz"),
            ("Temperature", "N/A"),
            ("Process ID", "12"),
            ("Name", "/usr/bin/python3"),
        ] {
            assert_eq!(value(name).as_deref(), Some(expected), "{name} in:\n{text}");
        }
        assert_eq!(text.matches("Process ID").count(), 2);
    }
}
