//! The table that everybody runs first.

use std::fmt::Write as _;

use super::{Device, Seen, mib};
use crate::clock::date;

const RULE: &str =
    "+-----------------------------------------------------------------------------------------+\n";
const HEAD: &str = "\
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
";
const DEVICE_RULE: &str =
    "+-----------------------------------------+------------------------+----------------------+\n";
const PROCESSES: &str = "\
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
";
const NONE: &str =
    "|  No running processes found                                                             |\n";

pub fn table(seen: &Seen<'_>, devices: &[Device<'_>]) -> String {
    let driver = &seen.facts.driver_version;
    let mut text = format!("{}\n{RULE}", date(seen.now).line());
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "| NVIDIA-SMI {driver:22} Driver Version: {driver:14} CUDA Version: {:9}|",
        seen.cuda_version()
    );
    text += HEAD;
    for device in devices {
        text += &of_device(device);
        text += DEVICE_RULE;
    }
    text += "\n";
    text += RULE;
    text += PROCESSES;
    let lines: String = devices.iter().map(|(index, _)| of_processes(seen, *index)).collect();
    text += if lines.is_empty() { NONE } else { &lines };
    text + RULE
}

fn of_device((index, device): &Device<'_>) -> String {
    let memory = format!("{}MiB / {:>6}MiB", mib(device.used_bytes), mib(device.total_bytes));
    format!(
        "| {index:3}  {:29}  N/A | {:>18} Off |                  N/A |\n\
         | N/A   N/A  N/A               N/A /  N/A | {memory:>22} |     N/A      Default |\n\
         |                                         |                        |                  N/A |\n",
        cut(&device.name, 29),
        device.bus_id(),
    )
}

fn of_processes(seen: &Seen<'_>, index: u32) -> String {
    let line = |process: &super::ProcessFacts| {
        let name = seen.process_name(process.pid);
        format!(
            "| {index:4}   N/A  N/A {:15}      C   {:34} {:>8}MiB |\n",
            process.pid,
            end_of(&name, 34),
            mib(process.used_bytes)
        )
    };
    seen.processes_of(index).map(line).collect()
}

/// Its start, with the marks of a cut.
fn cut(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters.saturating_sub(3)).chain("...".chars()).collect()
}

/// Its end, which tells programs apart.
fn end_of(text: &str, letters: usize) -> String {
    let count = text.chars().count();
    if count <= letters {
        return text.to_owned();
    }
    "...".chars().chain(text.chars().skip(count - letters + 3)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{facts, seen};
    use super::*;

    fn of(facts: &vgpu_zone_api::guest::facts::Facts) -> String {
        let devices: Vec<_> = (0..).zip(&facts.devices).collect();
        table(&seen(facts), &devices)
    }

    #[test]
    fn the_table_is_this() {
        assert_eq!(
            of(&facts()),
            "\
Thu Nov 26 07:04:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.159.04             Driver Version: 580.159.04     CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
|   0  NVIDIA H100 80GB HBM3          N/A |   00000000:01:00.0 Off |                  N/A |
| N/A   N/A  N/A               N/A /  N/A |     582MiB /   8192MiB |     N/A      Default |
|                                         |                        |                  N/A |
+-----------------------------------------+------------------------+----------------------+

+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|    0   N/A  N/A              12      C   /usr/bin/python3                        518MiB |
|    0   N/A  N/A         4000000      C   [Not Found]                              64MiB |
+-----------------------------------------------------------------------------------------+
"
        );
    }

    #[test]
    fn every_line_is_as_wide_as_the_others() {
        let mut strange = facts();
        strange.devices[0].name = "a name that no product of anybody has, as long as it is".into();
        (strange.devices[0].total_bytes, strange.devices[0].used_bytes) = (192 << 30, 192 << 30);
        strange.processes.clear();
        for facts in [facts(), strange] {
            for line in of(&facts).lines().skip(1).filter(|line| !line.is_empty()) {
                assert_eq!(line.chars().count(), RULE.len() - 1, "{line}");
            }
        }
    }

    #[test]
    fn long_names_are_cut_where_they_tell_least() {
        assert_eq!((cut("abcdef", 6), cut("abcdefg", 6)), ("abcdef".into(), "abc...".into()));
        assert_eq!((end_of("abcdef", 6), end_of("abcdefg", 6)), ("abcdef".into(), "...efg".into()));
    }
}
