//! `xl`: the toolstack of xen-utils, one process an operation.
//!
//! `create -e` leaves no monitor process, so a guest that ended stays until it is destroyed: the shim watches.
//! xl holds a global lock while it creates; its limit here covers waiting for that too.

mod memory;

use std::{
    ffi::OsStr,
    fs, io,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use uuid::Uuid;
use vgpu_codes::Code;
use vgpu_config::GuestKind;

use super::{DomainConfig, Toolstack};
use crate::{
    error::{Error, OrFail, Result},
    process,
};
use memory::Memory;

const PROGRAM: &str = "xl";
/// Says whether this kernel controls Xen. Source: Linux `drivers/xen/xenfs/super.c`.
const CAPABILITIES: &str = "/proc/xen/capabilities";
/// Paused, without a monitor process, without a word. The configuration follows.
const CREATE: [&str; 4] = ["create", "-p", "-e", "-q"];
/// For one operation, with what others do before it under the lock.
const LIMIT: Duration = Duration::from_secs(120);
/// A guest's last words in a report.
const OUTPUT_BYTES_MAX: usize = 600;

/// The toolstack of xen-utils.
#[derive(Debug, Default, Clone, Copy)]
pub struct Xl;

impl Toolstack for Xl {
    fn check(&self) -> Result<()> {
        let capabilities = fs::read_to_string(CAPABILITIES)
            .or_fail(Code::NoXen, || format!("cannot read {CAPABILITIES}"))?;
        if !capabilities.contains("control_d") {
            return Err(Error::new(
                Code::NoXen,
                format!("{CAPABILITIES} does not say control_d: this is no control domain"),
            ));
        }
        Ok(())
    }

    fn create_paused(&self, domain: &DomainConfig) -> Result<u16> {
        fs::write(&domain.file, config_text(domain))
            .or_fail(Code::HostFailure, || format!("cannot write {}", domain.file.display()))?;
        let mut create = xl();
        create.args(CREATE).arg(&domain.file);
        done(&mut create, Code::DomainCreate, &format!("cannot create the domain {}", domain.name))?;
        self.find(domain.uuid)?.ok_or_else(|| {
            Error::new(Code::DomainCreate, format!("the domain {} ended while it was created", domain.name))
        })
    }

    fn end_creation(&self, file: &Path) -> Result<()> {
        let words: Vec<&OsStr> = CREATE.iter().map(OsStr::new).chain([file.as_os_str()]).collect();
        process::with_arguments(Path::new(PROGRAM), &words).into_iter().try_for_each(|xl| {
            xl.kill().or_fail(Code::HostFailure, || format!("cannot end xl create, process {}", xl.pid))
        })
    }

    fn unpause(&self, domid: u16) -> Result<()> {
        done(
            xl().arg("unpause").arg(domid.to_string()),
            Code::DomainCreate,
            &format!("cannot unpause domain {domid}"),
        )
        .map(drop)
    }

    fn set_memory(&self, domid: u16, mib: u64) -> Result<()> {
        super::memory::set(&Memory(domid), mib)
    }

    fn set_cap(&self, domid: u16, percent: u32) -> Result<()> {
        let what = format!("cannot bound the CPU time of domain {domid}");
        done(&mut cap(domid, percent), Code::HostFailure, &what).map(drop)
    }

    fn find(&self, uuid: Uuid) -> Result<Option<u16>> {
        listed(LIMIT).map(|list| domid_of(&list, uuid))
    }

    fn runs(&self, uuid: Uuid) -> Result<bool> {
        let Some(domid) = self.find(uuid)? else { return Ok(false) };
        let output = run(xl().arg("list").arg(domid.to_string()))?;
        // A failure means that it went away between the two.
        Ok(output.status.success() && state_runs(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Returns when no processor runs it any more. Source: Xen `xen/common/domain.c`, `domain_pause`.
    fn halt(&self, uuid: Uuid, limit: Duration) -> Result<Option<u16>> {
        let deadline = Instant::now() + limit;
        let Some(domid) = domid_of(&listed(limit)?, uuid) else { return Ok(None) };
        done_within(
            deadline.saturating_duration_since(Instant::now()),
            xl().arg("pause").arg(domid.to_string()),
            Code::HostFailure,
            &format!("cannot halt domain {domid}"),
        )?;
        Ok(Some(domid))
    }

    fn destroy(&self, domid: u16) -> Result<()> {
        let output = run(xl().arg("destroy").arg(domid.to_string()))?;
        // An xl that can do nothing at all does not say that it is gone.
        if output.status.success() || !has(&listed(LIMIT)?, domid) {
            return Ok(());
        }
        Err(Error::new(Code::HostFailure, format!("cannot destroy domain {domid}: {}", said(&output))))
    }
}

/// Sets a domain's cap. Source: `xl(1)`, "sched-credit2".
fn cap(domid: u16, percent: u32) -> Command {
    let mut command = xl();
    command.args(["sched-credit2", "-d", &domid.to_string(), "-c", &percent.to_string()]);
    command
}

fn xl() -> Command {
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Result<Output> {
    run_within(LIMIT, command)
}

fn run_within(limit: Duration, command: &mut Command) -> Result<Output> {
    process::output_within(command, limit).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::new(Code::NoXen, "the program xl is missing"),
        io::ErrorKind::TimedOut => {
            Error::new(Code::HostFailure, format!("xl did not end within {} s", limit.as_secs_f32()))
        }
        _ => Error::caused(Code::HostFailure, "cannot run xl", error),
    })
}

fn done(command: &mut Command, code: Code, what: &str) -> Result<Output> {
    done_within(LIMIT, command, code, what)
}

fn done_within(limit: Duration, command: &mut Command, code: Code, what: &str) -> Result<Output> {
    let output = run_within(limit, command)?;
    if output.status.success() {
        return Ok(output);
    }
    let said = said(&output);
    // libxl's words for an allocation that failed. Source: libxl `libxl_mem.c`, xl `xl_vmcontrol.c` (freemem).
    let memory = ["failed to free memory", "out of memory", "Cannot allocate memory"]
        .iter()
        .any(|text| said.contains(text));
    Err(Error::new(if memory { Code::HostResource } else { code }, format!("{what}: {said}")))
}

/// What a tool said on stderr, in one line, shortened at its front: the cause comes last.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let start = line.len().saturating_sub(OUTPUT_BYTES_MAX);
    let start = (start..=line.len()).find(|&at| line.is_char_boundary(at)).unwrap_or(0);
    if line.is_empty() { output.status.to_string() } else { line[start..].to_owned() }
}

/// All domains, those that are being taken away too: lines of UUID, id, name.
fn listed(limit: Duration) -> Result<String> {
    let output = done_within(limit, xl().arg("vm-list"), Code::HostFailure, "cannot list the domains")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Finds the id in such a list.
fn domid_of(list: &str, uuid: Uuid) -> Option<u16> {
    let uuid = uuid.to_string();
    domains(list).find_map(|(found, domid)| (found == uuid).then_some(domid))
}

/// Whether the domain is in such a list.
fn has(list: &str, domid: u16) -> bool {
    domains(list).any(|(_, found)| found == domid)
}

fn domains(list: &str) -> impl Iterator<Item = (&str, u16)> {
    list.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?.parse().ok()?))
    })
}

/// Reads the state column of `xl list ID`: `r` running, `b` blocked, `p` paused, `s` shut down, `c` crashed, `d` dying.
fn state_runs(list: &str) -> bool {
    let state = list.lines().nth(1).and_then(|line| line.split_whitespace().rev().nth(1));
    state.is_some_and(|state| !state.contains(['s', 'c', 'd']))
}

/// xl's configuration of a domain. Source: `xl.cfg(5)`.
fn config_text(domain: &DomainConfig) -> String {
    let mut text = String::from("# Made by containerd-shim-vgpu-v1 for one domain.\n");
    let mut line = |key: &str, value: String| text.push_str(&format!("{key} = {value}\n"));
    line("name", quoted(&domain.name));
    line("uuid", quoted(&domain.uuid.to_string()));
    line(
        "type",
        quoted(match domain.kind {
            GuestKind::Pvh => "pvh",
            GuestKind::Pv => "pv",
        }),
    );
    line("kernel", quoted(&domain.kernel.to_string_lossy()));
    line("ramdisk", quoted(&domain.ramdisk.to_string_lossy()));
    line("cmdline", quoted(&domain.command_line));
    line("memory", domain.memory_mib.to_string());
    line("vcpus", domain.vcpus.to_string());
    if !domain.cpus.is_empty() {
        line("cpus", quoted(&domain.cpus));
    }
    line("max_grant_frames", domain.grant_frames_max.to_string());
    for event in ["on_poweroff", "on_reboot", "on_crash"] {
        line(event, quoted("destroy"));
    }
    text
}

/// xl's grammar has no escapes: what would end the string is left out.
fn quoted(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control() && *c != '"').collect();
    format!("\"{clean}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "UUID                                  ID    name\n\
        00000000-0000-0000-0000-000000000000  0    Domain-0\n\
        5f8c2f8e-2f0b-4c8e-9d53-0b6a1c7e8f11  12    vgpu-a\n";

    #[test]
    fn a_domain_is_found_by_its_uuid() {
        let uuid = |text: &str| Uuid::parse_str(text).unwrap();
        assert_eq!(domid_of(LIST, uuid("5f8c2f8e-2f0b-4c8e-9d53-0b6a1c7e8f11")), Some(12));
        assert_eq!(domid_of(LIST, uuid("5f8c2f8e-2f0b-4c8e-9d53-0b6a1c7e8f12")), None);
        assert_eq!([0, 12, 1, 120].map(|domid| has(LIST, domid)), [true, true, false, false]);
    }

    #[test]
    fn a_cap_is_credit2s() {
        let command = cap(12, 175);
        let words: Vec<_> = command.get_args().collect();
        assert_eq!(words, ["sched-credit2", "-d", "12", "-c", "175"]);
    }

    #[test]
    fn an_xl_that_does_not_answer_is_not_waited_for() {
        let mut hangs = Command::new("sleep");
        let limit = Duration::from_millis(100);
        let error = done_within(limit, hangs.arg("60"), Code::HostFailure, "cannot halt").unwrap_err();
        assert_eq!(error.to_string(), "xl did not end within 0.1 s");
    }

    #[test]
    fn a_guest_that_powered_off_does_not_run() {
        let with = |state: &str| {
            format!("Name   ID   Mem VCPUs\tState\tTime(s)\nvgpu-a  12   256     1     {state}       3.1\n")
        };
        for (state, runs) in [
            ("-b----", true),
            ("r-----", true),
            ("--p---", true),
            ("---s--", false),
            ("----c-", false),
            ("--p--d", false),
        ] {
            assert_eq!(state_runs(&with(state)), runs, "{state}");
        }
        assert!(!state_runs(""));
    }

    #[test]
    fn no_value_can_add_a_line_to_the_configuration() {
        let domain = DomainConfig {
            name: "a\"\ndisk=['x']".into(),
            uuid: Uuid::nil(),
            kernel: "/k".into(),
            ramdisk: "/r".into(),
            kind: GuestKind::Pvh,
            command_line: "quiet".into(),
            memory_mib: 256,
            vcpus: 2,
            cpus: "1".into(),
            grant_frames_max: 64,
            file: "/f".into(),
        };
        let text = config_text(&domain);
        assert!(text.contains("name = \"adisk=['x']\"\n"), "{text}");
        assert_eq!(text.lines().count(), 14);
    }
}
