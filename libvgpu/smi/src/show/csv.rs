//! Chosen fields, a line a device or process: what scripts read.

use super::{Device, INVALID, Seen, mib};
use crate::args::{Csv, Wrong};
use crate::clock::date;

/// For what is not known.
const UNKNOWN: &str = "[N/A]";

/// A value, and its unit.
struct Value(String, &'static str);

fn plain(value: impl ToString) -> Option<Value> {
    Some(Value(value.to_string(), ""))
}

fn in_mib(bytes: u64) -> Option<Value> {
    Some(Value(mib(bytes).to_string(), "MiB"))
}

fn in_mhz(khz: u32) -> Option<Value> {
    (khz > 0).then(|| Value((khz / 1000).to_string(), "MHz"))
}

type Of = fn(&Seen<'_>, Device<'_>) -> Option<Value>;

macro_rules! fields {
    ($(#[$doc:meta])* $list:ident, $names:ident; $($($name:literal)|+ $(in $unit:literal)? => $value:expr;)*) => {
        $(#[$doc])*
        const $list: &[(&[&str], &str, Of)] = &[$( (&[$($name),+], fields!(@unit $($unit)?), $value), )*];
        /// Their names, a line each.
        pub const $names: &str = concat!($($($name, "\n",)+)*);
    };
    (@unit) => { "" };
    (@unit $unit:literal) => { $unit };
}

/// What no zone is told, whatever the device is.
const fn unknown(_: &Seen<'_>, _: Device<'_>) -> Option<Value> {
    None
}

fields! {
    /// Of a device: its names, the unit that the header shows, the value.
    OF_GPU, GPU_FIELDS;
    "timestamp" => |seen, _| plain(date(seen.now).stamp());
    "driver_version" => |seen, _| plain(&seen.facts.driver_version);
    "count" => |seen, _| plain(seen.facts.devices.len());
    "name" | "gpu_name" => |_, (_, device)| plain(&device.name);
    "index" => |_, (index, _)| plain(index);
    "uuid" | "gpu_uuid" => |_, (_, device)| plain(device.uuid_text());
    "serial" | "gpu_serial" => unknown;
    "pci.bus_id" | "gpu_bus_id" => |_, (_, device)| plain(device.bus_id());
    "pci.domain" => |_, (_, device)| plain(format!("0x{:04X}", device.pci[0]));
    "pci.bus" => |_, (_, device)| plain(format!("0x{:02X}", device.pci[1]));
    "pci.device" => |_, (_, device)| plain(format!("0x{:02X}", device.pci[2]));
    "compute_cap" => |_, (_, device)| plain(format!("{}.{}", device.capability[0], device.capability[1]));
    "compute_mode" => |_, _| plain("Default");
    "display_active" => |_, _| plain("Disabled");
    "display_mode" => |_, _| plain("Disabled");
    "persistence_mode" => unknown;
    "pstate" => unknown;
    "mig.mode.current" => unknown;
    "mig.mode.pending" => unknown;
    "ecc.mode.current" => |_, (_, device)| plain(if device.ecc { "Enabled" } else { "Disabled" });
    "ecc.mode.pending" => |_, (_, device)| plain(if device.ecc { "Enabled" } else { "Disabled" });
    "memory.total" in "MiB" => |_, (_, device)| in_mib(device.total_bytes);
    "memory.reserved" in "MiB" => |_, _| in_mib(0);
    "memory.used" in "MiB" => |_, (_, device)| in_mib(device.used_bytes);
    "memory.free" in "MiB" => |_, (_, device)| in_mib(device.total_bytes.saturating_sub(device.used_bytes));
    "utilization.gpu" in "%" => unknown;
    "utilization.memory" in "%" => unknown;
    "temperature.gpu" => unknown;
    "temperature.memory" => unknown;
    "fan.speed" in "%" => unknown;
    "power.draw" in "W" => unknown;
    "power.limit" in "W" => unknown;
    "clocks.current.graphics" | "clocks.gr" in "MHz" => unknown;
    "clocks.current.sm" | "clocks.sm" in "MHz" => unknown;
    "clocks.current.memory" | "clocks.mem" in "MHz" => unknown;
    "clocks.max.graphics" | "clocks.max.gr" in "MHz" => |_, (_, device)| in_mhz(device.clock_khz);
    "clocks.max.sm" in "MHz" => |_, (_, device)| in_mhz(device.clock_khz);
    "clocks.max.memory" | "clocks.max.mem" in "MHz" => |_, (_, device)| in_mhz(device.memory_clock_khz);
}

/// A process and its device's place.
type Process<'a> = (&'a super::ProcessFacts, Device<'a>);

pub fn gpus(seen: &Seen<'_>, devices: &[Device<'_>], fields: &[String], how: Csv) -> Result<String, Wrong> {
    let found: Result<Vec<_>, _> = fields
        .iter()
        .map(|field| {
            let row = OF_GPU.iter().find(|(names, ..)| names.contains(&field.as_str()));
            row.map(|(_, unit, value)| (field.as_str(), *unit, value)).ok_or_else(|| unknown_field(field))
        })
        .collect();
    let found = found?;
    let heads = found.iter().map(|(name, unit, _)| (*name, *unit)).collect::<Vec<_>>();
    let lines = devices.iter().map(|device| found.iter().map(|(_, _, value)| value(seen, *device)).collect());
    Ok(text(&heads, lines, how))
}

pub fn processes(
    seen: &Seen<'_>,
    devices: &[Device<'_>],
    fields: &[String],
    how: Csv,
) -> Result<String, Wrong> {
    let heads: Result<Vec<_>, _> =
        fields.iter().map(|field| Ok((field.as_str(), process_unit(field)?))).collect();
    let heads = heads?;
    let all =
        devices.iter().flat_map(|device| seen.processes_of(device.0).map(move |process| (process, *device)));
    let lines = all.map(|process| fields.iter().map(|field| process_value(seen, &process, field)).collect());
    Ok(text(&heads, lines, how))
}

fn process_unit(field: &str) -> Result<&'static str, Wrong> {
    match field {
        "used_memory" | "used_gpu_memory" => Ok("MiB"),
        "pid" | "process_name" | "name" | "timestamp" | "gpu_name" | "gpu_uuid" | "gpu_bus_id"
        | "gpu_serial" => Ok(""),
        _ => Err(unknown_field(field)),
    }
}

fn process_value(seen: &Seen<'_>, (process, (_, device)): &Process<'_>, field: &str) -> Option<Value> {
    match field {
        "pid" => plain(process.pid),
        "process_name" | "name" => plain(seen.process_name(process.pid)),
        "used_memory" | "used_gpu_memory" => in_mib(process.used_bytes),
        "timestamp" => plain(date(seen.now).stamp()),
        "gpu_name" => plain(&device.name),
        "gpu_uuid" => plain(device.uuid_text()),
        "gpu_bus_id" => plain(device.bus_id()),
        _ => None,
    }
}

fn unknown_field(field: &str) -> Wrong {
    Wrong { code: INVALID, text: format!("Field \"{field}\" is not a valid field to query.") }
}

fn text(heads: &[(&str, &str)], lines: impl Iterator<Item = Vec<Option<Value>>>, how: Csv) -> String {
    let with_unit = |name: &str, unit: &str| {
        if unit.is_empty() || how.no_units { name.to_owned() } else { format!("{name} [{unit}]") }
    };
    let head: Vec<_> = heads.iter().map(|(name, unit)| with_unit(name, unit)).collect();
    let head = (!how.no_header).then(|| head.join(", ") + "\n");
    let value = |value: Option<Value>| match value {
        None => UNKNOWN.to_owned(),
        Some(Value(value, unit)) if unit.is_empty() || how.no_units => value,
        Some(Value(value, unit)) => format!("{value} {unit}"),
    };
    let line = |line: Vec<Option<Value>>| line.into_iter().map(value).collect::<Vec<_>>().join(", ") + "\n";
    head.into_iter().chain(lines.map(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{facts, seen};
    use super::*;

    const BARE: Csv = Csv { no_header: true, no_units: true };

    fn gpu(fields: &str, how: Csv) -> Result<String, Wrong> {
        let facts = facts();
        let devices: Vec<_> = (0..).zip(&facts.devices).collect();
        let fields: Vec<_> = fields.split(',').map(String::from).collect();
        gpus(&seen(&facts), &devices, &fields, how)
    }

    #[test]
    fn fields_come_as_scripts_know_them() {
        let fields = "index,name,memory.total,memory.used,memory.free,utilization.gpu,clocks.max.sm";
        let (head, line) = (
            "index, name, memory.total [MiB], memory.used [MiB], memory.free [MiB], utilization.gpu [%], clocks.max.sm [MHz]\n",
            "0, NVIDIA H100 80GB HBM3, 8192 MiB, 582 MiB, 7610 MiB, [N/A], 1980 MHz\n",
        );
        assert_eq!(gpu(fields, Csv::default()), Ok(format!("{head}{line}")));
        let bare = "0, NVIDIA H100 80GB HBM3, 8192, 582, 7610, [N/A], 1980\n";
        assert_eq!(gpu(fields, BARE).as_deref(), Ok(bare));
        let more = "timestamp,driver_version,gpu_uuid,pci.bus_id,pci.bus,compute_cap,ecc.mode.current,count";
        assert_eq!(
            gpu(more, BARE).as_deref(),
            Ok(
                "2026/11/26 07:04:00.000, 580.159.04, GPU-76677075-2d63-7564-612d-646576696365, 00000000:01:00.0, 0x01, 9.0, Enabled, 1\n"
            )
        );
    }

    #[test]
    fn every_field_has_an_answer_and_an_unknown_one_is_named() {
        for field in GPU_FIELDS.lines() {
            assert_eq!(gpu(field, BARE).unwrap().lines().count(), 1, "{field}");
        }
        let wrong = gpu("name,frobs", BARE).unwrap_err();
        assert_eq!((wrong.code, wrong.text.as_str()), (2, "Field \"frobs\" is not a valid field to query."));
    }

    #[test]
    fn processes_are_lines_and_none_is_no_line() {
        let mut facts = facts();
        let fields: Vec<_> = ["pid", "process_name", "used_memory"].map(String::from).into();
        let of = |facts: &vgpu_zone_api::guest::facts::Facts| {
            let devices: Vec<_> = (0..).zip(&facts.devices).collect();
            processes(&seen(facts), &devices, &fields, Csv { no_header: true, no_units: false })
        };
        assert_eq!(
            of(&facts).as_deref(),
            Ok("12, /usr/bin/python3, 518 MiB\n4000000, [Not Found], 64 MiB\n")
        );
        facts.processes.clear();
        assert_eq!(of(&facts).as_deref(), Ok(""));
        assert!(processes(&seen(&facts), &[], &["frobs".into()], BARE).is_err());
    }
}
