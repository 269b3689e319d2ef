//! What a guest answers to Stats and Pids, before containerd gets it. containerd makes metrics of the node of the one, where an entry that
//! is there twice or is no number spoils those of all pods, and has room for the other.

use containerd_shim_protos::{
    api::{PidsResponse, ProcessInfo, StatsResponse},
    cgroups_v2::metrics::{CPUStat, MemoryEvents, MemoryStat, Metrics, PidsStat},
};
use protobuf::{Message, MessageField, SpecialFields, well_known_types::any::Any};
use vgpu_codes::Code;

use crate::error::{Error, OrFail, Result};

const METRICS_TYPE: &str = "io.containerd.cgroups.v2.Metrics";
const DETAILS_TYPE: &str = "containerd.runc.v1.ProcessDetails";
/// An exec id, which is what the details are, is shorter.
const DETAILS_BYTES_MAX: usize = 256;
const PROCESSES_MAX: usize = 4096;

/// The figures that guest-init gives and nothing else: no lists, whose entries have names, and no fields that we don't know.
///
/// # Errors
/// `ProtocolBroken`: these are no such figures.
pub fn stats(answer: &StatsResponse) -> Result<StatsResponse> {
    let any = answer.stats.get_or_default();
    if any.type_url != METRICS_TYPE {
        return Err(Error::new(Code::ProtocolBroken, "Stats: the guest's answer is of another type"));
    }
    let theirs = Metrics::parse_from_bytes(&any.value)
        .or_fail(Code::ProtocolBroken, || "Stats: the guest's answer can't be read".into())?;
    let none_unknown = SpecialFields::default;
    let pids = theirs.pids.into_option().map(|it| PidsStat { special_fields: none_unknown(), ..it });
    let cpu = theirs.cpu.into_option();
    let cpu = cpu.map(|it| CPUStat { psi: MessageField::none(), special_fields: none_unknown(), ..it });
    let memory = theirs.memory.into_option();
    let memory =
        memory.map(|it| MemoryStat { psi: MessageField::none(), special_fields: none_unknown(), ..it });
    let events = theirs.memory_events.into_option();
    let events = events.map(|it| MemoryEvents { special_fields: none_unknown(), ..it });
    let ours = Metrics {
        pids: pids.into(),
        cpu: cpu.into(),
        memory: memory.into(),
        memory_events: events.into(),
        ..Metrics::default()
    };
    let value =
        ours.write_to_bytes().or_fail(Code::HostFailure, || "Stats: the answer can't be written".into())?;
    Ok(StatsResponse { stats: any_of(METRICS_TYPE, value), ..StatsResponse::default() })
}

/// The sum of what [`stats`] gave of a pod's containers: what they run and hold.
///
/// # Errors
/// `HostFailure` if it can't be written.
pub fn sum(of_all: &[StatsResponse]) -> Result<Any> {
    let mut sum = Metrics::default();
    for one in of_all {
        let Ok(one) = Metrics::parse_from_bytes(&one.stats.get_or_default().value) else { continue };
        let (cpu, more) = (sum.cpu.mut_or_insert_default(), one.cpu.get_or_default());
        cpu.usage_usec = cpu.usage_usec.saturating_add(more.usage_usec);
        cpu.user_usec = cpu.user_usec.saturating_add(more.user_usec);
        cpu.system_usec = cpu.system_usec.saturating_add(more.system_usec);
        let (memory, more) = (sum.memory.mut_or_insert_default(), one.memory.get_or_default());
        memory.usage = memory.usage.saturating_add(more.usage);
        // The working set is what is used without it.
        memory.inactive_file = memory.inactive_file.saturating_add(more.inactive_file);
        let (pids, more) = (sum.pids.mut_or_insert_default(), one.pids.get_or_default());
        pids.current = pids.current.saturating_add(more.current);
    }
    let value = sum
        .write_to_bytes()
        .or_fail(Code::HostFailure, || "SandboxMetrics: the answer can't be written".into())?;
    Ok(Any { type_url: METRICS_TYPE.into(), value, ..Any::default() })
}

/// So many processes, and of each its pid and its exec id.
pub fn pids(answer: PidsResponse) -> PidsResponse {
    let known = |info: &Any| info.type_url == DETAILS_TYPE && info.value.len() <= DETAILS_BYTES_MAX;
    let process = |it: ProcessInfo| {
        let details = it.info.into_option().filter(known);
        let info = details.map_or_else(MessageField::none, |info| any_of(DETAILS_TYPE, info.value));
        ProcessInfo { pid: it.pid, info, ..ProcessInfo::default() }
    };
    let processes = answer.processes.into_iter().take(PROCESSES_MAX).map(process).collect();
    PidsResponse { processes, ..PidsResponse::default() }
}

fn any_of(type_url: &str, value: Vec<u8>) -> MessageField<Any> {
    MessageField::some(Any { type_url: type_url.into(), value, ..Any::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_processes_there_are_so_many_and_their_exec_ids() {
        let process = |type_url: &str, bytes| ProcessInfo {
            pid: 7,
            info: any_of(type_url, vec![0; bytes]),
            ..ProcessInfo::default()
        };
        let good = process(DETAILS_TYPE, 9);
        let odd = [process("google.protobuf.Empty", 9), process(DETAILS_TYPE, 100_000)];
        let bare = ProcessInfo { pid: 7, ..ProcessInfo::default() };
        let many = std::iter::repeat_n(bare.clone(), 10_000);
        let processes = std::iter::once(good.clone()).chain(odd).chain(many).collect();
        let kept = pids(PidsResponse { processes, ..PidsResponse::default() }).processes;
        assert_eq!((&kept[0], &kept[1..]), (&good, vec![bare; PROCESSES_MAX - 1].as_slice()));
    }
}
