//! From facts to text: the table, the list, all that is known, and chosen fields as CSV. Pure: the same facts give the same bytes.

mod csv;
mod query;
mod table;

use std::fmt::Write as _;
use std::time::SystemTime;

use vgpu_api::CUDA_VERSION;
use vgpu_zone_api::guest::facts::{DeviceFacts, Facts, ProcessFacts};

use crate::args::{Request, What, Wrong};
pub use csv::GPU_FIELDS;

/// Exit codes. Source: nvidia-smi(1), "Return value".
const INVALID: u8 = 2;
const NOT_FOUND: u8 = 6;

/// All that is looked at.
pub struct Seen<'a> {
    pub facts: &'a Facts,
    pub now: SystemTime,
    /// A process's name, where it can be seen.
    pub name_of: &'a dyn Fn(u32) -> Option<String>,
}

/// A device and its index.
type Device<'a> = (u32, &'a DeviceFacts);

/// The answer.
///
/// # Errors
/// No such device, no such field.
pub fn show(seen: &Seen<'_>, request: &Request) -> Result<String, Wrong> {
    let (what, of) = match request {
        Request::Say(text) => return Ok((*text).to_owned()),
        Request::Show { what, of } => (what, of),
    };
    let devices = chosen(seen.facts, of.as_deref())?;
    match what {
        What::List => Ok(list(&devices)),
        What::Gpus(fields, how) => csv::gpus(seen, &devices, fields, *how),
        What::Processes(fields, how) => csv::processes(seen, &devices, fields, *how),
        What::Table | What::Query if devices.is_empty() => {
            Err(Wrong { code: NOT_FOUND, text: "No devices were found".into() })
        }
        What::Table => Ok(table::table(seen, &devices)),
        What::Query => Ok(query::query(seen, &devices)),
    }
}

fn chosen<'a>(facts: &'a Facts, of: Option<&str>) -> Result<Vec<Device<'a>>, Wrong> {
    let all = (0_u32..).zip(&facts.devices);
    let Some(of) = of else { return Ok(all.collect()) };
    let is_meant = |(index, device): &Device<'_>| {
        let words = [index.to_string(), device.uuid_text(), device.bus_id(), device.bus_id_legacy()];
        words.iter().any(|word| word.eq_ignore_ascii_case(of))
    };
    let devices: Vec<_> = all.filter(is_meant).collect();
    let none = || Wrong { code: NOT_FOUND, text: format!("nvidia-smi: no GPU is called {of:?}") };
    if devices.is_empty() { Err(none()) } else { Ok(devices) }
}

fn list(devices: &[Device<'_>]) -> String {
    devices.iter().fold(String::new(), |mut text, (index, device)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "GPU {index}: {} (UUID: {})", device.name, device.uuid_text());
        text
    })
}

impl Seen<'_> {
    /// As CUDA's library tells it.
    fn cuda_version(&self) -> String {
        let version = self.facts.cuda_version.min(CUDA_VERSION);
        format!("{}.{}", version / 1000, version % 1000 / 10)
    }

    fn processes_of(&self, index: u32) -> impl Iterator<Item = &ProcessFacts> {
        self.facts.processes.iter().filter(move |process| process.device == index)
    }

    fn process_name(&self, pid: u32) -> String {
        (self.name_of)(pid).unwrap_or_else(|| "[Not Found]".into())
    }
}

/// Rounded down, as the original does.
fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
pub mod samples {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    pub fn facts() -> Facts {
        let device = DeviceFacts {
            name: "NVIDIA H100 80GB HBM3".into(),
            uuid: *b"vgpu-cuda-device",
            pci: [0, 1, 0],
            capability: [9, 0],
            total_bytes: 8 << 30,
            used_bytes: 582 << 20,
            multiprocessors: 132,
            clock_khz: 1_980_000,
            memory_clock_khz: 2_619_000,
            memory_bus_bits: 5120,
            ecc: true,
            peers: 0,
            links: 0,
        };
        let process = |pid, used_bytes| ProcessFacts { device: 0, pid, used_bytes };
        Facts {
            cuda_version: 13020,
            driver_version: "580.159.04".into(),
            devices: vec![device],
            processes: vec![process(12, 518 << 20), process(4_000_000, 64 << 20)],
        }
    }

    pub fn name_of(pid: u32) -> Option<String> {
        (pid == 12).then(|| "/usr/bin/python3".into())
    }

    pub fn seen(facts: &Facts) -> Seen<'_> {
        Seen { facts, now: UNIX_EPOCH + Duration::from_secs(1_795_676_640), name_of: &name_of }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(facts: &Facts, what: What, of: Option<&str>) -> Result<String, Wrong> {
        show(&samples::seen(facts), &Request::Show { what, of: of.map(String::from) })
    }

    #[test]
    fn the_list_has_a_line_a_gpu() {
        let facts = samples::facts();
        let line = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-76677075-2d63-7564-612d-646576696365)\n";
        for of in [None, Some("0"), Some("0000:01:00.0"), Some("gpu-76677075-2d63-7564-612d-646576696365")] {
            assert_eq!(said(&facts, What::List, of).as_deref(), Ok(line));
        }
        assert_eq!(said(&facts, What::List, Some("1")).unwrap_err().code, NOT_FOUND);
    }

    #[test]
    fn without_a_device_that_is_said() {
        let none = Facts::default();
        assert_eq!(said(&none, What::Table, None).unwrap_err().text, "No devices were found");
        assert_eq!(said(&none, What::List, None).as_deref(), Ok(""));
    }
}
