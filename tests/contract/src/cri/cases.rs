//! The cases: steps and no asserts. What is right, runc says.

use super::{
    api::{
        Capability, ContainerConfig, DNSConfig, Int64Value, KeyValue, LinuxContainerSecurityContext,
        NamespaceMode, NamespaceOption, PodSandboxConfig,
    },
    step::Step::{self, *},
};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Which it is known by.
    pub name: &'static str,
    /// In order; each is answered before the next.
    pub steps: &'static [Step],
}

const SLEEPS: &str = "echo there; exec sleep 1000";
/// One that can be asked to end, and says when it listens.
const ENDS: &str = "trap 'exit 6' TERM; echo there; while :; do sleep 0.02; done";
/// Two echoes of one connection each, and servers at the loopback's addresses alone; says when who comes is heard.
const LISTENS: &str = "nc -l -p 8080 -e cat & nc -l -p 8081 -e cat & httpd -f -p 127.0.0.1:8082 & httpd -f -p [::1]:8083 &
    until test $(cat /proc/net/tcp /proc/net/tcp6 | grep -c ' 0A ') -ge 4; do sleep 0.02; done; echo there; wait";
const NOTHING: fn(&mut PodSandboxConfig) = |_| {};

macro_rules! cases {
    ($(#[$doc:meta])+ $all:ident: $($name:ident: $($step:expr),+;)+) => {
        $(#[$doc])+
        pub const $all: &[Case] = &[$(Case { name: stringify!($name), steps: &[$($step),+] as &[Step] }),+];
    };
}

cases! {
    /// Those of every machine.
    CASES:
    cri_run_stop_remove: RunPod(NOTHING), PodStatus, Create("app", "exit 3"), Status("app"), Start("app"), UntilExit("app"), Status("app"),
        StopPod, StopPod, PodStatus, Remove("app"), Remove("app"), RemovePod, RemovePod, PodStatus;
    cri_restart_container: RunPod(NOTHING), Create("app", SLEEPS), Start("app"), Start("app"), Until("app", "there"), Stop("app", 0), Start("app"),
        Remove("app"), Create("app", "echo again; cat /vol/none"), Start("app"), UntilExit("app"), Status("app"), Log("app"),
        Create("app", SLEEPS), Start("app"), Until("app", "there"), Status("app"), PodStatus, StopPod, Status("app");
    cri_remove_running: RunPod(NOTHING), Create("app", SLEEPS), Start("app"), Remove("app"), Status("app"), StopPod, RemovePod;
    cri_remove_pod_with_containers: RunPod(NOTHING), Create("app", SLEEPS), Start("app"), StopPod, RemovePod, Status("app"), PodStatus;
    cri_missing_program: RunPod(NOTHING), CreateOf("app", "", |app| app.command = vec!["/no/such".into()]), Start("app"), Status("app"), StopPod;
    cri_two_containers: RunPod(NOTHING), Create("one", "echo mine > /tmp/file; echo ours > /vol/file; exec sleep 1000"), Start("one"), Create("two", ENDS),
        Start("two"), Until("two", "there"), ExecSync("two", "cat /tmp/file; cat /vol/file"), Stop("one", 0), Status("one"), Status("two"),
        ExecSync("two", "echo lives"), Remove("one"), Stop("two", 10), Status("two");
    cri_init_then_app: RunPod(NOTHING), Create("init", "echo made > /vol/file"), Start("init"), UntilExit("init"), Status("init"),
        Create("app", "cat /vol/file"), Start("app"), UntilExit("app"), Remove("init"), Status("app"), Log("app");
    cri_pause_killed_first: RunPod(NOTHING), Create("app", SLEEPS), Start("app"), Until("app", "there"), KillPause(9), UntilPodEnds, PodStatus,
        Status("app"), ExecSync("app", "echo lives"), Create("late", SLEEPS), Start("late"), Stop("app", 0), Status("app"), StopPod, RemovePod;
    cri_hostname_shared: RunPod(NOTHING), Create("one", SLEEPS), Start("one"), CreateOf("two", "hostname; hostname changed", may_administer),
        Start("two"), UntilExit("two"), Log("two"), ExecSync("one", "hostname");
    cri_ipc_shared: RunPod(NOTHING), Create("one", "readlink /proc/self/ns/ipc > /vol/ipc; echo ours > /dev/shm/file; echo there; exec sleep 1000"),
        Start("one"), Until("one", "there"),
        Create("two", "test $(readlink /proc/self/ns/ipc) = $(cat /vol/ipc) && echo one; cat /dev/shm/file"), Start("two"), UntilExit("two"), Log("two");
    cri_ipc_survives_restart: RunPod(NOTHING), Create("app", "echo kept > /dev/shm/file"), Start("app"), UntilExit("app"), Remove("app"),
        Create("app", "cat /dev/shm/file"), Start("app"), UntilExit("app"), Log("app");
    cri_own_pids: RunPod(NOTHING), Create("one", SLEEPS), Start("one"), Create("two", "echo $$; ps | grep -c '[s]leep 1000'"), Start("two"),
        UntilExit("two"), Log("two");
    cri_share_pid: RunPod(|pod| *of_pod(pod) = pids(NamespaceMode::POD)),
        CreateOf("one", SLEEPS, |app| *of(app) = pids(NamespaceMode::POD)), Start("one"), Until("one", "there"),
        CreateOf("two", "test $$ = 1 && echo first; ps | grep -c '[s]leep 1000'", |app| *of(app) = pids(NamespaceMode::POD)), Start("two"), UntilExit("two"),
        Log("two"), ExecSync("one", "test $$ = 1 && echo first; echo there");
    cri_target_pid: RunPod(NOTHING), Create("one", SLEEPS), Start("one"), Until("one", "there"),
        CreateOf("debug", "ps | grep -c '[s]leep 1000'; readlink /proc/1/exe", |app| {
            *of(app) = NamespaceOption { target_id: "one".into(), ..pids(NamespaceMode::TARGET) };
        }), Start("debug"), UntilExit("debug"), Log("debug");
    cri_exec_sync_code: RunPod(NOTHING), Create("app", SLEEPS), ExecSync("app", "true"), Start("app"), ExecSync("app", "echo out; echo err >&2; exit 5"),
        ExecSync("app", "kill -9 $$"), Stop("app", 0), ExecSync("app", "true"), ExecSync("none", "true");
    cri_exec_sync_timeout: RunPod(NOTHING), Create("app", SLEEPS), Start("app"), ExecSyncFor("app", "echo out; exec sleep 500", 1),
        ExecSync("app", "ps | grep -c '[s]leep 500'"), Status("app");
    cri_exec_sync_drain: RunPod(NOTHING), Create("app", SLEEPS), Start("app"), ExecSync("app", "head -c 3000000 /dev/zero"),
        ExecSync("app", "(sleep 0.4; echo late) & echo done"), ExecSync("app", "sleep 4 & echo done"), Status("app");
    cri_exec: RunPod(NOTHING), Create("app", SLEEPS), Start("app"), Exec("app", "echo out; echo err >&2; exit 5"), Exec("app", "true");
    cri_attach: RunPod(NOTHING), CreateOf("app", "read x; echo got $x; echo err >&2; sleep 0.5; exit 4", |app| app.stdin = true), Start("app"), Attach("app", "word\n"),
        UntilExit("app"), Status("app"), Log("app"), Attach("app", "word\n");
    cri_stdin_once: RunPod(NOTHING), CreateOf("app", "read x; echo got $x; sleep 0.5; exit 4", |app| (app.stdin, app.stdin_once) = (true, true)), Start("app"),
        Attach("app", "word\n"), UntilExit("app"), Log("app");
    cri_tty: RunPod(NOTHING), CreateOf("app", "tty; echo err >&2", |app| app.tty = true), Start("app"), UntilExit("app"), Log("app");
    cri_logs_long_line: RunPod(NOTHING), Create("app", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo err >&2; printf 'no end'"), Start("app"),
        UntilExit("app"), Log("app");
    cri_log_reopen: RunPod(NOTHING), Create("app", "echo one; while ! test -e /vol/go; do sleep 0.02; done; echo two; exec sleep 1000"), Start("app"),
        Until("app", "one"), ReopenLog("app"), ExecSync("app", "touch /vol/go"), Until("app", "two"), Log("app"), Stop("app", 0), ReopenLog("app");
    cri_stop_signal_and_grace: RunPod(NOTHING), Create("app", ENDS), Start("app"), Until("app", "there"), Stop("app", 10), Status("app"), Stop("app", 10),
        Create("deaf", "trap '' TERM; echo there; while :; do sleep 0.02; done"), Start("deaf"), Until("deaf", "there"), Stop("deaf", 1), Status("deaf");
    cri_stop_created: RunPod(NOTHING), Create("app", SLEEPS), Stop("app", 1), Status("app"), Remove("app");
    cri_grace_0: RunPod(NOTHING), Create("app", ENDS), Start("app"), Until("app", "there"), Stop("app", 0), Status("app"), StopPod;
    cri_kills_itself: RunPod(NOTHING), Create("app", "kill -9 $$"), Start("app"), UntilExit("app"), Status("app");
    cri_names: RunPod(|pod| {
            let dns = DNSConfig { servers: vec!["192.0.2.53".into()], searches: vec!["a.test".into()], options: vec!["ndots:5".into()], ..Default::default() };
            pod.dns_config = Some(dns).into();
        }), Create("app", "cat /etc/resolv.conf; cat /etc/hosts; cat /etc/hostname; hostname; echo x >> /etc/hosts && echo written"), Start("app"), UntilExit("app"), Log("app");
    cri_sysctls_of_pod: RunPod(|pod| {
            let sysctls = [("kernel.shm_rmid_forced", "1"), ("net.ipv4.ip_local_port_range", "40000 40100")];
            pod.linux.mut_or_insert_default().sysctls = sysctls.map(|(name, value)| (name.into(), value.into())).into();
        }), Create("app", "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range"), Start("app"), UntilExit("app"), Log("app");
    cri_loopback: RunPod(NOTHING), Create("one", "echo there; exec nc -l -p 8080 -e echo heard"), Start("one"), Until("one", "there"),
        Create("two", "for i in 1 2 3 4 5; do nc 127.0.0.1 8080 && break; sleep 0.2; done"), Start("two"), UntilExit("two"), Log("two");
    cri_port_forward: RunPod(NOTHING), Create("app", LISTENS), Start("app"), Until("app", "there"), PortForward(&[8080], 1),
        PortForward(&[8082], 1), PortForward(&[8083], 1), PortForward(&[8084], 1), PortForward(&[8080], 1);
    cri_port_forward_at_once: RunPod(NOTHING), Create("app", LISTENS), Start("app"), Until("app", "there"), PortForward(&[8080, 8082, 8083, 8084, 8081], 1);
    cri_port_forward_much: RunPod(NOTHING), Create("app", LISTENS), Start("app"), Until("app", "there"), PortForward(&[8080, 8081], 400_000);
    cri_port_forward_after_all: RunPod(NOTHING), Create("app", LISTENS), Start("app"), Until("app", "there"), StopPod, PortForward(&[8080], 1);
    cri_privileged: RunPod(|pod| pod.linux.mut_or_insert_default().security_context.mut_or_insert_default().privileged = true),
        CreateOf("app", "grep Cap /proc/self/status; mount -t tmpfs none /tmp && echo mounted; echo 1 > /proc/sys/net/ipv4/ip_forward && echo written",
            |app| context(app).privileged = true), Start("app"), UntilExit("app"), Log("app"), Status("app");
    cri_user: RunPod(NOTHING), CreateOf("app", "id; pwd; echo $A; grep -E 'Cap|NoNewPrivs' /proc/self/status; touch /file || echo refused", |app| {
            app.working_dir = "/tmp".into();
            app.envs = vec![KeyValue { key: "A".into(), value: "two words".into(), ..Default::default() }];
            let context = context(app);
            context.run_as_user = Some(Int64Value { value: 1000, ..Default::default() }).into();
            context.run_as_group = Some(Int64Value { value: 1000, ..Default::default() }).into();
            context.supplemental_groups = vec![7];
            context.no_new_privs = true;
            context.readonly_rootfs = true;
        }), Start("app"), UntilExit("app"), Log("app"), Status("app");
}

cases! {
    /// Of limits and what is used: ours has none of it where the controllers are those of cgroup version 1.
    LIMITS:
    cri_stats: RunPod(NOTHING), Create("app", SLEEPS), Stats("app"), Start("app"), Until("app", "there"), Stats("app"), Stop("app", 0), Stats("app");
    cri_list_stats: RunPod(NOTHING), Create("app", SLEEPS), Start("app"), Until("app", "there"), ListStats;
    cri_update_memory: RunPod(NOTHING), CreateOf("app", SLEEPS, limited), Start("app"), Status("app"),
        Update("app", |resources| resources.memory_limit_in_bytes = 32 << 20), Status("app"),
        ExecSync("app", "cat /sys/fs/cgroup/memory.max");
    cri_oom_reason: RunPod(NOTHING), CreateOf("app", "head -c 64000000 /dev/zero | tail", limited), Start("app"), UntilExit("app"), Status("app");
}

fn limited(app: &mut ContainerConfig) {
    app.linux.mut_or_insert_default().resources.mut_or_insert_default().memory_limit_in_bytes = 16 << 20;
}

fn context(app: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    app.linux.mut_or_insert_default().security_context.mut_or_insert_default()
}

fn may_administer(app: &mut ContainerConfig) {
    let capabilities = Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() };
    context(app).capabilities = Some(capabilities).into();
}

fn of(app: &mut ContainerConfig) -> &mut NamespaceOption {
    context(app).namespace_options.mut_or_insert_default()
}

fn of_pod(pod: &mut PodSandboxConfig) -> &mut NamespaceOption {
    pod.linux
        .mut_or_insert_default()
        .security_context
        .mut_or_insert_default()
        .namespace_options
        .mut_or_insert_default()
}

fn pids(mode: NamespaceMode) -> NamespaceOption {
    NamespaceOption { pid: mode.into(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_case_has_a_name_of_its_own_and_begins_with_its_pod() {
        let all = || CASES.iter().chain(LIMITS);
        let names: BTreeSet<_> = all().map(|case| case.name).collect();
        assert_eq!(names.len(), all().count());
        let pods = |case: &&Case| case.steps.iter().filter(|step| matches!(step, RunPod(_))).count() == 1;
        assert_eq!(all().filter(pods).count(), names.len());
    }
}
