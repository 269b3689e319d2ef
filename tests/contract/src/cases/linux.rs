//! What a container's program sees of the rest of its spec, and what is refused of it.

use serde_json::{Value, json};

use super::{Case, cases, looks};
use crate::step::{
    Step::{self, *},
    TASK,
};

/// A profile that says `action` to these calls and lets all others through.
fn seccomp(spec: &mut Value, calls: &[&str], action: &str, more: Value) {
    let mut rule = json!({"names": calls, "action": action});
    for (key, value) in more.as_object().into_iter().flatten() {
        rule[key] = value.clone();
    }
    spec["linux"]["seccomp"] =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]});
}

fn namespaces(spec: &mut Value) -> &mut Vec<Value> {
    spec["linux"]["namespaces"].as_array_mut().expect("namespaces")
}

looks! {
    names_of_the_host: "hostname; hostname other || echo refused", |spec| spec["hostname"] = "a-name.of.mine".into();
    names_too_long: "hostname", |spec| spec["hostname"] = "x".repeat(65).into();
    names_empty: "test -n \"$(hostname)\" && echo one", |spec| spec["hostname"] = "".into();
    sysctls: "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/fs/mqueue/msg_max", |spec| {
        spec["linux"]["sysctl"] = json!({"kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "0", "fs.mqueue.msg_max": "7"});
    };
    sysctls_by_slashes: "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", |spec| spec["linux"]["sysctl"] = json!({"net/ipv4/ip_unprivileged_port_start": "5"});
    sysctls_that_are_none: "echo runs", |spec| spec["linux"]["sysctl"] = json!({"net.nothing": "1"});
    sysctls_with_a_value_that_is_none: "echo runs", |spec| spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "many"});
    sysctls_of_a_name: "hostname", |spec| spec["linux"]["sysctl"] = json!({"kernel.hostname": "other"});
    sysctls_of_a_domain: "cat /proc/sys/kernel/domainname", |spec| spec["linux"]["sysctl"] = json!({"kernel.domainname": "of.mine"});
    seccomp_errno: "mkdir /tmp/x || echo refused", |spec| seccomp(spec, &["mkdir", "mkdirat"], "SCMP_ACT_ERRNO", json!({"errnoRet": 28}));
    seccomp_errno_by_default: "mkdir /tmp/x || echo refused", |spec| seccomp(spec, &["mkdir", "mkdirat"], "SCMP_ACT_ERRNO", json!({}));
    seccomp_kill: "mkdir /tmp/x; echo $?", |spec| seccomp(spec, &["mkdir", "mkdirat"], "SCMP_ACT_KILL", json!({}));
    seccomp_kill_process: "exec mkdir /tmp/x", |spec| seccomp(spec, &["mkdir", "mkdirat"], "SCMP_ACT_KILL_PROCESS", json!({}));
    seccomp_trap: "exec mkdir /tmp/x", |spec| seccomp(spec, &["mkdir", "mkdirat"], "SCMP_ACT_TRAP", json!({}));
    seccomp_log: "mkdir /tmp/x && echo made", |spec| seccomp(spec, &["mkdir", "mkdirat"], "SCMP_ACT_LOG", json!({}));
    seccomp_by_argument: "kill -0 $$ && echo asked; kill -10 $$ || echo refused", |spec| seccomp(spec, &["kill"], "SCMP_ACT_ERRNO", json!({"args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}));
    seccomp_of_calls_that_are_none: "echo runs", |spec| seccomp(spec, &["no_such_call"], "SCMP_ACT_ERRNO", json!({}));
    seccomp_action_that_is_none: "echo runs", |spec| seccomp(spec, &["mkdir"], "SCMP_ACT_NOTHING", json!({}));
    seccomp_architecture_that_is_none: "echo runs", |spec| {
        seccomp(spec, &["mkdir"], "SCMP_ACT_ERRNO", json!({}));
        spec["linux"]["seccomp"]["architectures"] = json!(["SCMP_ARCH_NOTHING"]);
    };
    seccomp_without_names: "echo runs", |spec| seccomp(spec, &[], "SCMP_ACT_ERRNO", json!({}));
    seccomp_notify: "echo runs", |spec| seccomp(spec, &["mkdir"], "SCMP_ACT_NOTIFY", json!({}));
    seccomp_flags_that_are_none: "echo runs", |spec| {
        seccomp(spec, &["mkdir"], "SCMP_ACT_ERRNO", json!({}));
        spec["linux"]["seccomp"]["flags"] = json!(["SECCOMP_FILTER_FLAG_NOTHING"]);
    };
    seccomp_with_privileges: "grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status; mkdir /tmp/x || echo refused", |spec| {
        seccomp(spec, &["mkdir"], "SCMP_ACT_ERRNO", json!({}));
        spec["process"]["noNewPrivileges"] = false.into();
    };
    namespace_of_cgroups: "cut -d: -f3 /proc/self/cgroup | sort -u", |spec| namespaces(spec).push(json!({"type": "cgroup"}));
    namespace_twice: "echo runs", |spec| namespaces(spec).push(json!({"type": "pid"}));
    namespace_that_is_none: "echo runs", |spec| namespaces(spec).push(json!({"type": "nothing"}));
    namespace_of_users: "id -u", |spec| {
        namespaces(spec).push(json!({"type": "user"}));
        spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        spec["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    };
    namespace_of_the_hosts_network: "echo runs", |spec| namespaces(spec).retain(|one| one["type"] != "network");
    namespace_of_the_hosts_processes: "echo runs", |spec| namespaces(spec).retain(|one| one["type"] != "pid");
    namespace_of_a_file: "echo runs", |spec| namespaces(spec)[0]["path"] = "/etc/passwd".into();
    namespace_path_that_is_missing: "echo runs", |spec| namespaces(spec)[1]["path"] = "/none".into();
    intel_rdt: "echo runs", |spec| spec["linux"]["intelRdt"] = json!({"closID": "guests", "l3CacheSchema": "L3:0=f"});
    mount_label: "echo runs", |spec| spec["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0".into();
    version_of_later: "echo runs", |spec| spec["ociVersion"] = "1.99.0".into();
    fields_that_nobody_knows: "echo runs", |spec| {
        spec["nothing"] = json!({"a": 1});
        spec["process"]["nothing"] = 5.into();
        spec["linux"]["nothing"] = json!([]);
        spec["annotations"]["of.mine/key"] = "value".into();
    };
    hostname_of_another_form: "echo runs", |spec| spec["hostname"] = 5.into();
    linux_is_missing: "echo runs", |spec| drop(spec["linux"].take());
}

cases! {
    /// Of execs.
    OF_EXECS:
    exec_in_a_seccomp_profile: CreateOf(super::SLEEPS, |spec| seccomp(spec, &["mkdir", "mkdirat"], "SCMP_ACT_ERRNO", json!({}))), Start(TASK), Exec(crate::step::EXEC, "mkdir /tmp/x 2>&1 || echo refused"), Start(crate::step::EXEC),
        Wait(crate::step::EXEC), Delete(crate::step::EXEC), Output(crate::step::EXEC);
}
