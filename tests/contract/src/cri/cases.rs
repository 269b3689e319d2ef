//! The cases: steps and no asserts. What is right, runc says.

use std::{fs, os::unix::fs::symlink, path::Path};

use rustix::fs::{CWD, Mode, mkfifoat};

use super::step::Step::{self, *};
use crate::cri_api::{
    Capability, ContainerConfig, DNSConfig, Int64Value, KeyValue, LinuxContainerSecurityContext, Mount,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PortMapping, SecurityProfile,
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
/// What a pod has of its network. A link-local address is made of a MAC address, which is by chance, as the order of several interfaces is.
/// Ours has the routes to what addresses are in by themselves, and nobody there asks whether he alone has an address: the node has.
const SEES: &str = "ip -o address | sed 's/^[0-9]*: //; s/fe80:[0-9a-f:]*/LOCAL/; s/10.90.0.1../SECOND/; s/ noprefixroute//; s/ flags 02//' | sort
    ip route | sed s/10.90.0.1../SECOND/; ip -6 route | sort; cat /sys/class/net/eth*/mtu /etc/resolv.conf /etc/hosts; hostname";
/// An answer to all who come by TCP.
const SERVES: &str = "echo an answer > /tmp/answer; head -c 200000 /dev/zero > /tmp/much; httpd -f -p 8080 -h /tmp & until grep -q ' 0A ' /proc/net/tcp6; do sleep 0.02; done; echo there; wait";
/// What the node has at its link to the pod and what it has made of what passed there, each way.
const QUEUES: &str = "other=$(/usr/sbin/tc filter show dev $(link) parent ffff: | sed -n 's/.*to device \\([^)]*\\).*/\\1/p' | sort -u)
    for dev in $(link) $other; do /usr/sbin/tc -s qdisc show dev $dev | grep -A 1 tbf | sed 's/ dev [^ ]*//; s/Sent .*overlimits [1-9].*/held back/'; done > /tmp/$POD
    cat /tmp/$POD; test $(grep -c 'held back' /tmp/$POD) = 2; rm /tmp/$POD";
/// What the node has of a pod whose network is taken away: rules, and addresses that are taken.
const LEFT: &str = "for tables in iptables ip6tables; do $tables -t nat -S; done | grep -F -e $POD -e [$POD6] | wc -l; find /var/lib/cni/networks -name $POD -o -name $POD6 | wc -l";
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
    cri_names: RunPod(names), Create("app", "cat /etc/resolv.conf; cat /etc/hosts; cat /etc/hostname; hostname; echo x >> /etc/hosts && echo written"), Start("app"), UntilExit("app"), Log("app");
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
    /// Of pods on networks by CNI's own plugins.
    NETWORKS:
    cri_net_seen_inside: RunPodOn("bridge", names), PodStatus, Create("app", SEES), Start("app"), UntilExit("app"), Log("app"), StopPod, PodStatus, OnNode(LEFT);
    cri_net_reached: RunPodOn("bridge", port_8080), Create("app", SERVES), Start("app"), Until("app", "there"), RunOther("runc", SERVES),
        OnNode("for at in $POD \"[$POD6]\"; do wget -qO- -T 20 $at:8080/answer; done; for at in 127.0.0.1 10.88.0.1 [fd00:88::1]; do wget -qO- -T 20 $at:$PORT/answer; done"),
        OnNode("for at in $POD $POD6; do ping -c 1 -W 20 $at > /dev/null; echo pong; done"),
        ExecSync("app", "for at in 10.88.0.1 fd00:88::1 $OTHER $OTHER6; do ping -c 1 -W 20 $at > /dev/null; echo pong; done; for at in $OTHER \"[$OTHER6]\"; do wget -qO- -T 20 $at:8080/answer; done"),
        ExecSync("app", "for at in 10.88.0.1 [fd00:88::1]; do wget -qO- -T 20 $at:$PORT/answer; done"), PortForward(&[8080], 1), StopPod, OnNode(LEFT);
    cri_net_beside_a_domain: RunPodOn("bridge", NOTHING), Create("app", SLEEPS), Start("app"), Until("app", "there"), RunOther("vgpu", SERVES),
        ExecSync("app", "for at in $OTHER \"[$OTHER6]\"; do wget -qO- -T 20 $at:8080/answer; done"), StopPod, OnNode(LEFT);
    cri_net_ptp: RunPodOn("ptp", port_8080), PodStatus, Create("app", SEES), Start("app"), UntilExit("app"), Log("app"), Create("app", SERVES), Start("app"), Until("app", "there"), RunOther("runc", SERVES),
        OnNode("for at in $POD \"[$POD6]\"; do wget -qO- -T 20 $at:8080/answer; done; for at in 10.89.0.1 [fd00:89::1]; do wget -qO- -T 20 $at:$PORT/answer; done"),
        ExecSync("app", "for at in $OTHER \"[$OTHER6]\"; do wget -qO- -T 20 $at:8080/answer; done; wget -qO- -T 20 10.89.0.1:$PORT/answer"), PortForward(&[8080], 1),
        ExecSync("app", "cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/conf/eth0/log_martians"), StopPod, OnNode(LEFT);
    cri_net_bandwidth: RunPodOn("ptp", NOTHING), Create("app", SERVES), Start("app"), Until("app", "there"), OnNode("wget -qO- -T 20 $POD:8080/much | wc -c"),
        OnNode("ping -c 3 -s 20000 $POD > /dev/null || :"), OnNode(QUEUES), StopPod, OnNode(LEFT);
    cri_net_policy: RunPodOn("ptp", NOTHING), Create("app", SERVES), Start("app"), Until("app", "there"), RunOther("runc", SERVES),
        OnNode("iptables -A FORWARD -i $(link) -d $OTHER -j REJECT; iptables -A OUTPUT -o $(link) -p tcp --dport 8080 -j REJECT"),
        ExecSync("app", "for at in $OTHER \"[$OTHER6]\"; do wget -qO- -T 20 $at:8080/answer || echo refused; done"),
        OnNode("for at in $POD \"[$POD6]\"; do wget -qO- -T 20 $at:8080/answer || echo refused; done"),
        OnNode("iptables -vS | grep $(link) | sed \"s/$(link)/LINK/; s/-c [1-9][0-9]* [0-9]*/-c SOME/\""),
        OnNode("iptables -D FORWARD -i $(link) -d $OTHER -j REJECT; iptables -D OUTPUT -o $(link) -p tcp --dport 8080 -j REJECT"), StopPod, OnNode(LEFT);
    cri_net_two_interfaces: RunPodOn("two", NOTHING), PodStatus, Create("app", SEES), Start("app"), UntilExit("app"), Log("app"), Create("app", SLEEPS), Start("app"), Until("app", "there"),
        ExecSync("app", "for at in 10.88.0.1 10.90.0.1; do ping -c 1 -W 20 $at > /dev/null; echo pong; done"),
        StopPod, OnNode(LEFT);
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

cases! {
    /// Of files, names, users, and lives that are lived again and again.
    MORE:
    cri_config_map: RunPod(NOTHING), Volume(config_map), CreateOf("app", "ls -a /config; cat /config/key; until grep -q two /config/key; do sleep 0.02; done; cat /config/key",
            |app| mount(app, "config", "/config").readonly = true), Start("app"), Until("app", "one"), Volume(config_map_changed), UntilExit("app"), Log("app"), Status("app");
    cri_sub_paths: RunPod(NOTHING), Volume(|folder| write(&folder.join("data/file"), "of the volume\n")), CreateOf("app", "cat /etc/one.conf /sub/file; echo new > /sub/new; echo more >> /etc/one.conf; cat /vol/data/new /vol/data/file", |app| {
            mount(app, "data", "/sub");
            mount(app, "data/file", "/etc/one.conf");
        }), Start("app"), UntilExit("app"), Log("app"), Status("app");
    cri_termination_log: RunPod(NOTHING), Volume(|folder| write(&folder.join("log"), "")), CreateOf("app", "echo why > /dev/termination-log; exit 3", |app| { mount(app, "log", "/dev/termination-log"); }),
        Start("app"), UntilExit("app"), Create("reader", "cat /vol/log"), Start("reader"), UntilExit("reader"), Log("reader");
    cri_volume_read_only: RunPod(NOTHING), Volume(|folder| write(&folder.join("data/file"), "text\n")), CreateOf("app", "cat /data/file; touch /data/new || echo refused; touch /vol/new && echo written",
            |app| mount(app, "data", "/data").readonly = true), Start("app"), UntilExit("app"), Log("app"), Status("app");
    cri_volume_by_a_link: RunPod(NOTHING), Volume(|folder| { write(&folder.join("data/file"), "text\n"); symlink("data", folder.join("link")).expect("a link"); }),
        CreateOf("app", "cat /data/file", |app| { mount(app, "link", "/data"); }), Start("app"), UntilExit("app"), Log("app"), Status("app");
    cri_volume_that_is_missing: RunPod(NOTHING), CreateOf("app", "ls /data; stat -c '%a %u' /data", |app| { mount(app, "none", "/data"); }), Start("app"), UntilExit("app"), Log("app");
    cri_volume_with_a_pipe: RunPod(NOTHING), Volume(|folder| mkfifoat(CWD, folder.join("pipe"), Mode::RWXU).expect("a pipe")), CreateOf("app", "test -p /pipe && echo pipe", |app| { mount(app, "pipe", "/pipe"); }),
        Start("app"), StopPod;
    cri_volume_changes_below_a_container: RunPod(NOTHING), Create("app", "until test -e /vol/go; do sleep 0.02; done; cat /vol/go; busybox mv /vol/go /vol/gone; echo moved"), Start("app"),
        Volume(|folder| write(&folder.join("go"), "go\n")), UntilExit("app"), Log("app"), Create("late", "ls /vol"), Start("late"), UntilExit("late"), Log("late");
    cri_root_read_only: RunPod(NOTHING), CreateOf("app", "touch /file || echo refused; touch /vol/file && echo written; touch /dev/shm/file && echo written; touch /tmp/file || echo refused", |app| context(app).readonly_rootfs = true),
        Start("app"), UntilExit("app"), Log("app");
    cri_capabilities: RunPod(NOTHING), CreateOf("app", "grep -E 'Cap(Prm|Eff|Amb)' /proc/self/status", |app| {
            let (add_capabilities, drop_capabilities) = (vec!["NET_ADMIN".into(), "SYS_TIME".into()], vec!["ALL".into()]);
            context(app).capabilities = Some(Capability { add_capabilities, drop_capabilities, ..Default::default() }).into();
        }), Start("app"), UntilExit("app"), Log("app");
    cri_capability_that_is_none: RunPod(NOTHING), CreateOf("app", "echo runs", |app| {
            context(app).capabilities = Some(Capability { add_capabilities: vec!["NOTHING".into()], ..Default::default() }).into();
        }), Start("app"), UntilExit("app"), Log("app");
    cri_user_that_nobody_knows: RunPod(NOTHING), CreateOf("app", "id; echo $HOME; pwd; touch /vol/file || echo refused; touch /tmp/file && echo written; echo out > /dev/stdout", |app| {
            context(app).run_as_user = Some(Int64Value { value: 123_456, ..Default::default() }).into();
        }), Start("app"), UntilExit("app"), Log("app"), ExecSync("app", "id");
    cri_user_of_an_exec: RunPod(NOTHING), CreateOf("app", SLEEPS, |app| {
            context(app).run_as_user = Some(Int64Value { value: 1000, ..Default::default() }).into();
            context(app).supplemental_groups = vec![7, 8];
            app.working_dir = "/made/for/it".into();
            app.envs = vec![KeyValue { key: "A".into(), value: "1".into(), ..Default::default() }];
        }), Start("app"), Until("app", "there"), ExecSync("app", "id; pwd; echo $A $HOME; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; stat -c '%u %a' /made/for/it");
    cri_seccomp_default: RunPod(NOTHING), CreateOf("app", "grep Seccomp: /proc/self/status; busybox unshare -m true || echo refused; mkdir /tmp/x && echo made", |app| context(app).seccomp = Some(SecurityProfile::default()).into()), Start("app"),
        UntilExit("app"), Log("app"), Status("app");
    cri_paths_masked: RunPod(NOTHING), CreateOf("app", "cat /proc/uptime; echo x > /proc/sys/kernel/hostname || echo refused; ls /proc/scsi", |app| {
            context(app).masked_paths = vec!["/proc/uptime".into(), "/proc/scsi".into()];
            context(app).readonly_paths = vec!["/proc/sys".into()];
        }), Start("app"), UntilExit("app"), Log("app");
    cri_environment: RunPod(NOTHING), CreateOf("app", "env | grep -v ^SHLVL; echo $0 $1 $2", |app| {
            app.envs = [("EMPTY", ""), ("LINES", "one\ntwo"), ("DOLLAR", "$(NOT) $HOME"), ("HOSTNAME", "mine")].map(|(key, value)| KeyValue { key: key.into(), value: value.into(), ..Default::default() }).into();
            app.args = ["zero", "one two", "three"].map(String::from).into();
        }), Start("app"), UntilExit("app"), Log("app");
    cri_host_pids: RunPod(|pod| *of_pod(pod) = pids(NamespaceMode::NODE)), PodStatus;
    cri_host_ipc: RunPod(|pod| of_pod(pod).ipc = NamespaceMode::NODE.into()), PodStatus;
    cri_crashes_again_and_again: RunPod(NOTHING), Create("app", "exit 1"), Start("app"), UntilExit("app"), Remove("app"), Create("app", "exit 2"), Start("app"), UntilExit("app"), Status("app"), Create("app", "kill -9 $$; exit 3"),
        Start("app"), UntilExit("app"), Remove("app"), Create("app", "exit 4"), Start("app"), UntilExit("app"), Status("app"), PodStatus, List("");
    cri_init_that_fails: RunPod(NOTHING), Create("init", "echo no >&2; exit 9"), Start("init"), UntilExit("init"), Status("init"), Log("init"), Remove("init"), Create("init", "exit 0"), Start("init"), UntilExit("init"),
        Status("init"), Create("app", "echo runs"), Start("app"), UntilExit("app"), Log("app");
    cri_probes: RunPod(NOTHING), Create("app", "touch /tmp/healthy; echo there; until test -e /vol/ill; do sleep 0.02; done; rm /tmp/healthy; echo ill; exec sleep 1000"), Start("app"), Until("app", "there"), ExecSync("app", "cat /tmp/healthy"),
        ExecSync("app", "test -e /tmp/healthy"), Volume(|folder| write(&folder.join("ill"), "")), Until("app", "ill"), ExecSync("app", "cat /tmp/healthy"), ExecSync("app", "exec /no/such"), ExecSyncFor("app", "sleep 5", 1), ExecSync("app", "true"), Status("app");
    cri_exec_missing_program: RunPod(NOTHING), Create("app", SLEEPS), Start("app"), ExecSync("app", "no-such-program"), Exec("app", "no-such-program"), Status("app");
    cri_exec_tty: RunPod(NOTHING), Create("app", SLEEPS), Start("app"), ExecTty("app", "read x; tty; echo got $x; exit 5", "word\n"), ExecTty("app", "exec cat", "line\n\x04");
    cri_list: RunPod(|pod| { pod.labels.insert("app".into(), "of-mine".into()); pod.annotations.insert("key".into(), "value".into()); }), CreateOf("one", SLEEPS, |app| { app.labels.insert("which".into(), "one".into()); }),
        Start("one"), CreateOf("two", "exit 3", |app| { app.annotations.insert("key".into(), "value".into()); }), List(""), Start("two"), UntilExit("two"), List(""), List("which=one"), List("which=none"), ListPods,
        Status("one"), Stop("one", 0), StopPod, ListPods, List("");
    cri_name_taken: RunPod(NOTHING), CreateOf("app", SLEEPS, |app| app.metadata.mut_or_insert_default().attempt = 0), Start("app"),
        CreateOf("app", SLEEPS, |app| app.metadata.mut_or_insert_default().attempt = 0), Status("app"), Stop("app", 0), Remove("app");
    cri_image_that_is_missing: RunPod(NOTHING), CreateOf("app", SLEEPS, |app| app.image.mut_or_insert_default().image = "docker.io/library/none:1".into()), Start("app"), Create("app", "echo runs"), Start("app"),
        UntilExit("app"), Log("app");
    cri_stop_with_execs: RunPod(NOTHING), Create("app", ENDS), Start("app"), Until("app", "there"), ExecSync("app", "(sleep 1000 > /dev/null 2>&1 &)"), Stop("app", 10), Status("app"), ExecSync("app", "true"), Exec("app", "true");
    cri_created_alone: RunPod(NOTHING), Create("app", SLEEPS), Status("app"), ExecSync("app", "true"), Exec("app", "true"), StopPod, Status("app"), RemovePod, Status("app");
    cri_stopped_pod_makes_none: RunPod(NOTHING), StopPod, Create("app", SLEEPS), Start("app"), ListPods, RemovePod, ListPods;
    cri_hostname_of_a_container: RunPod(|pod| pod.hostname = "a-long.name.of-a-pod".into()), Create("app", "hostname; cat /etc/hostname; echo $HOSTNAME"), Start("app"), UntilExit("app"), Log("app");
    cri_shared_memory: RunPod(NOTHING), Create("app", "stat -c '%a %u' /dev/shm; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d' ' -f2; mkdir /dev/shm/x && echo made"), Start("app"), UntilExit("app"), Log("app");
    cri_logs_of_two_streams: RunPod(NOTHING), Create("app", "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf 'one\\n\\ntwo'; printf 'no end' >&2"), Start("app"), UntilExit("app"), Log("app");
    cri_log_that_nobody_wants: RunPod(NOTHING), CreateOf("app", "echo out && exit 4", |app| app.log_path.clear()), Start("app"), UntilExit("app"), Status("app");
    cri_output_much: RunPod(NOTHING), Create("app", "seq 1 20000; echo last"), Start("app"), UntilExit("app"), Status("app"), Create("tail", "echo next"), Start("tail"), UntilExit("tail"), Log("tail");
}

fn names(pod: &mut PodSandboxConfig) {
    let dns = DNSConfig {
        servers: vec!["192.0.2.53".into()],
        searches: vec!["a.test".into()],
        options: vec!["ndots:5".into()],
        ..Default::default()
    };
    pod.dns_config = Some(dns).into();
}

/// A port of the node is the pod's 8080.
fn port_8080(pod: &mut PodSandboxConfig) {
    pod.port_mappings = vec![PortMapping { container_port: 8080, ..Default::default() }];
}

/// What kubelet mounts for a ConfigMap: the files are links into a folder that a link leads to.
fn config_map(folder: &Path) {
    write(&folder.join("config/..1/key"), "one\n");
    symlink("..1", folder.join("config/..data")).expect("a link");
    symlink("..data/key", folder.join("config/key")).expect("a link");
}

/// As kubelet changes it: at once, by a rename of that link.
fn config_map_changed(folder: &Path) {
    write(&folder.join("config/..2/key"), "two\n");
    symlink("..2", folder.join("config/..tmp")).expect("a link");
    fs::rename(folder.join("config/..tmp"), folder.join("config/..data")).expect("renamed");
    fs::remove_dir_all(folder.join("config/..1")).expect("removed");
}

/// There it is whole or not yet.
fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(new, path).expect("renamed");
}

/// Of a path below the pod's folder.
fn mount<'a>(app: &'a mut ContainerConfig, below: &str, place: &str) -> &'a mut Mount {
    let host_path = format!("{}/{below}", app.mounts[0].host_path);
    app.mounts.push(Mount { host_path, container_path: place.into(), ..Default::default() });
    app.mounts.last_mut().expect("it is there")
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
        let all = || CASES.iter().chain(NETWORKS).chain(MORE).chain(LIMITS);
        let names: BTreeSet<_> = all().map(|case| case.name).collect();
        assert_eq!(names.len(), all().count());
        let pods = |case: &&Case| {
            case.steps.iter().filter(|step| matches!(step, RunPod(_) | RunPodOn(..))).count() == 1
        };
        assert_eq!(all().filter(pods).count(), names.len());
    }
}
