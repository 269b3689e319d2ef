//! What a container's program sees of the spec's `process`, and which of its values are none.

use serde_json::{Value, json};

use super::{Case, looks};
use crate::step::{
    Step::{self, *},
    TASK,
};

fn process(spec: &mut Value) -> &mut Value {
    &mut spec["process"]
}

fn user(spec: &mut Value, user: Value) {
    spec["process"]["user"] = user;
}

/// A program without a shell around it.
fn args(spec: &mut Value, args: &[&str]) {
    spec["process"]["args"] = json!(args);
}

looks! {
    process_user_and_groups: "id -u; id -g; id -G; id; pwd; echo $HOME", |spec| user(spec, json!({"uid": 1000, "gid": 1000, "additionalGids": [2000, 5]}));
    process_user_without_a_name: "id; echo $HOME; echo x > /tmp/file; stat -c '%u %g' /tmp/file", |spec| user(spec, json!({"uid": 12345, "gid": 54321}));
    process_home_that_is_given: "echo $HOME", |spec| {
        user(spec, json!({"uid": 1000, "gid": 1000}));
        process(spec)["env"] = json!(["PATH=/bin", "HOME=/given"]);
    };
    process_user_that_is_none: "id", |spec| user(spec, json!({"uid": -1, "gid": 0}));
    process_group_that_is_none: "id", |spec| user(spec, json!({"uid": 0, "gid": 4_294_967_295_u32}));
    process_umask: "umask; echo x > /tmp/file; mkdir /tmp/folder; stat -c '%a' /tmp/file /tmp/folder", |spec| user(spec, json!({"uid": 0, "gid": 0, "umask": 23}));
    process_capabilities_of_root: "grep Cap /proc/self/status", |spec| process(spec)["capabilities"] = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"], "effective": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN", "CAP_KILL"], "inheritable": ["CAP_KILL"]
    });
    process_capabilities_of_a_user: "grep Cap /proc/self/status", |spec| {
        let all = ["CAP_NET_BIND_SERVICE", "CAP_KILL"];
        user(spec, json!({"uid": 1000, "gid": 1000}));
        process(spec)["capabilities"] = json!({
            "bounding": all, "effective": all, "permitted": all, "inheritable": ["CAP_NET_BIND_SERVICE"], "ambient": ["CAP_NET_BIND_SERVICE"]
        });
    };
    process_capabilities_of_a_user_without_ambient: "grep Cap /proc/self/status", |spec| {
        user(spec, json!({"uid": 1000, "gid": 1000}));
        process(spec)["capabilities"] = json!({"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
    };
    process_capabilities_bounded_less: "grep Cap /proc/self/status", |spec| process(spec)["capabilities"] = json!({
        "bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN", "CAP_KILL"]
    });
    process_capability_that_is_none: "grep Cap /proc/self/status", |spec| process(spec)["capabilities"] = json!({"bounding": ["CAP_NOTHING", "CAP_KILL"]});
    process_capability_in_another_form: "grep Cap /proc/self/status", |spec| process(spec)["capabilities"] = json!({"bounding": ["KILL"], "permitted": ["cap_chown"]});
    process_may_gain_privileges: "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status", |spec| process(spec)["noNewPrivileges"] = false.into();
    process_limits: "cut -c1-60 /proc/self/limits | grep -E 'core|open|processes|size'", |spec| process(spec)["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_NPROC", "soft": 500, "hard": 600},
        {"type": "RLIMIT_FSIZE", "soft": 18_446_744_073_709_551_615_u64, "hard": 18_446_744_073_709_551_615_u64}
    ]);
    process_limit_that_is_none: "echo runs", |spec| process(spec)["rlimits"] = json!([{"type": "RLIMIT_NOTHING", "soft": 1, "hard": 1}]);
    process_limit_above_the_hard_one: "echo runs", |spec| process(spec)["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 100}]);
    process_limit_twice: "ulimit -n", |spec| process(spec)["rlimits"] =
        json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]);
    process_oom_score: "cat /proc/self/oom_score_adj", |spec| process(spec)["oomScoreAdj"] = 500.into();
    process_oom_score_that_is_none: "echo runs", |spec| process(spec)["oomScoreAdj"] = 5000.into();
    process_cwd_that_is_missing: "pwd; stat -c '%a %u %g' . /made", |spec| {
        user(spec, json!({"uid": 1000, "gid": 1000}));
        process(spec)["cwd"] = "/made/for/it".into();
    };
    process_cwd_by_a_link: "pwd; readlink -f .", |spec| process(spec)["cwd"] = "/proc/self/../../etc".into();
    process_cwd_relative: "pwd", |spec| process(spec)["cwd"] = "tmp".into();
    process_cwd_empty: "pwd", |spec| process(spec)["cwd"] = "".into();
    process_cwd_is_a_file: "pwd", |spec| process(spec)["cwd"] = "/etc/passwd".into();
    process_cwd_shut: "pwd", |spec| {
        user(spec, json!({"uid": 1000, "gid": 1000}));
        process(spec)["cwd"] = "/shut".into();
    };
    process_environment: "", |spec| {
        process(spec)["env"] = json!(["PATH=/bin", "B=2", "A=two words", "A=again", "EMPTY=", "LINES=one\ntwo", "TERM=x"]);
        args(spec, &["env"]);
    };
    process_environment_without_a_value: "", |spec| {
        process(spec)["env"] = json!(["PATH=/bin", "NOVALUE", "=noname", ""]);
        args(spec, &["env"]);
    };
    process_environment_without_path: "", |spec| {
        process(spec)["env"] = json!(["A=1"]);
        args(spec, &["/bin/env"]);
    };
    process_environment_with_a_zero: "env", |spec| process(spec)["env"] = json!(["PATH=/bin", "A=a\0b"]);
    process_environment_of_thousands: "env | wc -l", |spec| {
        let all: Vec<_> = (0..3000).map(|number| format!("VARIABLE_{number}={}", "x".repeat(200))).collect();
        process(spec)["env"] = json!([&["PATH=/bin".to_owned()][..], &all].concat());
    };
    process_arguments_relative: "", |spec| args(spec, &["bin/sh", "-c", "echo relative; echo $0"]);
    process_arguments_none: "", |spec| args(spec, &[]);
    process_arguments_empty: "", |spec| args(spec, &[""]);
    process_arguments_with_a_zero: "", |spec| args(spec, &["echo", "a\0b"]);
    process_argument_too_long: "", |spec| args(spec, &["echo", &"x".repeat(1 << 17)]);
    process_program_not_executable: "", |spec| args(spec, &["/etc/passwd"]);
    process_program_not_executable_in_path: "", |spec| {
        process(spec)["env"] = json!(["PATH=/etc:/data"]);
        args(spec, &["passwd"]);
    };
    process_program_without_a_format: "", |spec| args(spec, &["/data/no-format"]);
    process_program_of_no_interpreter: "", |spec| args(spec, &["/data/no-interpreter"]);
    process_program_a_script: "", |spec| args(spec, &["/data/script", "one"]);
    process_program_of_its_owner_alone: "", |spec| {
        user(spec, json!({"uid": 1000, "gid": 1000}));
        args(spec, &["/shut/program"]);
    };
    // Of those that are ignored, the first 28: whoever has started runc's shim may have left it others.
    process_signals: "", |spec| args(spec, &["sed", "-n", r"/^SigP\|^ShdP\|^SigB\|^SigC/p; s/^SigIgn:.*\(.......\)$/ignored \1/p", "/proc/self/status"]);
    process_descriptors: "", |spec| args(spec, &["ls", "/proc/self/fd"]);
    process_session: "", |spec| args(spec, &["cut", "-d ", "-f", "1,4-8,18-20", "/proc/self/stat"]);
    process_scheduling: "", |spec| args(spec, &["grep", "-E", "^(Cpus_allowed_list|Mems_allowed_list|CoreDumping|THP_enabled)", "/proc/self/status"]);
    process_apparmor_profile: "echo runs", |spec| process(spec)["apparmorProfile"] = "of-mine".into();
    process_selinux_label: "echo runs", |spec| process(spec)["selinuxLabel"] = "system_u:system_r:container_t:s0".into();
    process_of_another_form: "echo runs", |spec| process(spec)["args"] = "sh".into();
    process_is_missing: "echo runs", |spec| drop(spec["process"].take());
}
