//! What a container's program sees of the spec's mounts, paths and devices.

use serde_json::{Value, json};

use super::{Case, cases, looks};
use crate::step::{
    Step::{self, *},
    TASK,
};

fn add(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().expect("mounts").push(mount);
}

/// A bind of the bundle's own files, which are the node's.
fn bind(spec: &mut Value, source: &str, destination: &str, options: &[&str]) {
    add(spec, json!({"destination": destination, "type": "bind", "source": source, "options": options}));
}

fn tmpfs(spec: &mut Value, destination: &str, options: &[&str]) {
    add(spec, json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}));
}

/// As CRI asks of every container.
fn of_cri(spec: &mut Value) {
    add(
        spec,
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
    );
    add(
        spec,
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
    );
    tmpfs(spec, "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]);
}

looks! {
    mounts_of_cri: "cut -d' ' -f5,6 /proc/self/mountinfo | grep '^/[a-z]' | sort; ls -l /dev/shm; echo x > /dev/shm/x; touch /sys/x; stat -c '%a %u %g' /dev/shm /dev/mqueue /dev/pts", of_cri;
    mounts_devices: "ls /dev | grep -v core; stat -c '%n %a %u %g %t %T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; for name in fd stdin stdout stderr ptmx; do readlink /dev/$name; done; if test -e /proc/kcore; then test $(readlink /dev/core) = /proc/kcore; else test ! -L /dev/core; fi && echo a core as the kernel has one", of_cri;
    mounts_terminals: "stat -c '%a %u %g %t' /dev/pts/ptmx; ls -l /dev/ptmx | cut -c1-10", of_cri;
    mounts_tmpfs: "grep ' /mnt' /proc/self/mountinfo | cut -d' ' -f5,6,8,9; stat -c '%a' /mnt; head -c 3000000 /dev/zero > /mnt/file; stat -c %s /mnt/file", |spec| tmpfs(spec, "/mnt", &["size=2m", "mode=700"]);
    mounts_tmpfs_flags: "grep ' /mnt' /proc/self/mountinfo | cut -d' ' -f5,6; cp /bin/busybox /mnt/busybox; /mnt/busybox true || echo not run",
        |spec| tmpfs(spec, "/mnt", &["nosuid", "nodev", "noexec", "noatime", "size=8m"]);
    mounts_tmpfs_read_only: "touch /mnt/file || echo refused; grep ' /mnt' /proc/self/mountinfo | cut -d' ' -f6", |spec| tmpfs(spec, "/mnt", &["ro"]);
    mounts_tmpfs_of_a_user: "stat -c '%u %g %a' /mnt; touch /mnt/file && echo written", |spec| {
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        tmpfs(spec, "/mnt", &["uid=1000", "gid=2000", "mode=0750"]);
    };
    mounts_tmpfs_over_files: "ls /data; stat -c '%a' /data", |spec| tmpfs(spec, "/data", &["nosuid"]);
    mounts_tmpfs_with_a_copy: "ls /data; cat /data/of-image", |spec| tmpfs(spec, "/data", &["nosuid", "tmpcopyup"]);
    mounts_tmpfs_of_inodes: "for name in 1 2 3 4 5 6; do touch /mnt/$name || echo full; done", |spec| tmpfs(spec, "/mnt", &["nr_inodes=5"]);
    mounts_tmpfs_of_words_that_are_none: "echo runs", |spec| tmpfs(spec, "/mnt", &["nothing=1"]);
    mounts_of_a_type_that_is_none: "echo runs", |spec| add(spec, json!({"destination": "/mnt", "type": "nothing", "source": "nothing"}));
    mounts_without_a_type: "echo runs", |spec| add(spec, json!({"destination": "/mnt", "source": "vol"}));
    mounts_a_folder: "cat /mnt/file /mnt/link /mnt/below/file; ls /mnt; echo new > /mnt/new; stat -c '%u %a' /mnt/new", |spec| bind(spec, "vol", "/mnt", &["bind"]);
    mounts_a_folder_read_only: "cat /mnt/file; touch /mnt/new || echo refused; rm /mnt/file || echo refused", |spec| bind(spec, "vol", "/mnt", &["rbind", "ro"]);
    mounts_a_folder_recursively_read_only: "cat /mnt/file; touch /mnt/new || echo refused", |spec| bind(spec, "vol", "/mnt", &["rbind", "rro"]);
    mounts_a_folder_flags: "grep ' /mnt' /proc/self/mountinfo | cut -d' ' -f6 | tr , '\\n' | grep -E 'no(suid|dev|exec)'", |spec| bind(spec, "vol", "/mnt", &["rbind", "nosuid", "nodev", "noexec"]);
    mounts_a_folder_private: "cat /mnt/file", |spec| bind(spec, "vol", "/mnt", &["rbind", "rprivate", "rw"]);
    mounts_a_folder_as_a_slave: "cat /mnt/file", |spec| bind(spec, "vol", "/mnt", &["rbind", "rslave"]);
    mounts_a_folder_shared: "cat /mnt/file", |spec| bind(spec, "vol", "/mnt", &["rbind", "rshared"]);
    mounts_a_file: "cat /etc/file; echo more >> /etc/file; cat /etc/file; rm /etc/file || echo busy; mv /etc/passwd /etc/file || echo busy", |spec| bind(spec, "vol/file", "/etc/file", &["rbind"]);
    mounts_a_file_over_one: "cat /data/of-image; touch /data/of-image || echo refused", |spec| bind(spec, "vol/file", "/data/of-image", &["rbind", "ro"]);
    mounts_a_file_in_a_new_folder: "cat /new/folder/file; stat -c '%a %u' /new /new/folder", |spec| bind(spec, "vol/file", "/new/folder/file", &["rbind"]);
    mounts_by_a_link_of_the_node: "cat /mnt/file; cat /etc/x", |spec| {
        bind(spec, "link", "/mnt", &["rbind"]);
        bind(spec, "vol/link", "/etc/x", &["rbind"]);
    };
    mounts_at_a_link_of_the_image: "cat /data/file; readlink /data-link; ls /data", |spec| bind(spec, "vol", "/data-link", &["rbind"]);
    mounts_at_a_link_out_of_the_image: "cat /out-link/file; readlink /out-link; ls /", |spec| bind(spec, "vol", "/out-link", &["rbind"]);
    mounts_a_missing_source: "echo runs", |spec| bind(spec, "none", "/mnt", &["rbind"]);
    mounts_a_folder_over_a_file: "echo runs", |spec| bind(spec, "vol", "/etc/passwd", &["rbind"]);
    mounts_a_file_over_a_folder: "echo runs", |spec| bind(spec, "vol/file", "/data", &["rbind"]);
    mounts_one_below_another: "cat /mnt/file /mnt/below/file", |spec| {
        bind(spec, "vol", "/mnt", &["rbind", "ro"]);
        bind(spec, "other", "/mnt/below", &["rbind"]);
    };
    mounts_one_over_another: "cat /mnt/file; ls /mnt", |spec| {
        bind(spec, "vol", "/mnt", &["rbind"]);
        bind(spec, "other", "/mnt", &["rbind"]);
    };
    mounts_one_before_its_parent: "ls /mnt /mnt/below", |spec| {
        bind(spec, "other", "/mnt/below", &["rbind"]);
        bind(spec, "vol", "/mnt", &["rbind"]);
    };
    mounts_a_file_below_a_tmpfs: "cat /mnt/file; ls /mnt; touch /mnt/new && echo written", |spec| {
        tmpfs(spec, "/mnt", &["nosuid"]);
        bind(spec, "vol/file", "/mnt/file", &["rbind", "ro"]);
    };
    mounts_the_same_twice: "echo one > /mnt/file; cat /data/file; touch /data/x || echo refused", |spec| {
        bind(spec, "vol", "/mnt", &["rbind"]);
        bind(spec, "vol", "/data", &["rbind", "ro"]);
    };
    mounts_at_a_relative_place: "cat /mnt/file", |spec| bind(spec, "vol", "mnt", &["rbind"]);
    mounts_at_a_place_with_dots: "cat /mnt/file; ls /", |spec| bind(spec, "vol", "/tmp/../../mnt", &["rbind"]);
    mounts_at_proc: "echo runs", |spec| bind(spec, "vol", "/proc", &["rbind"]);
    mounts_in_proc: "echo runs", |spec| bind(spec, "vol/file", "/proc/sys/kernel/hostname", &["rbind"]);
    mounts_a_file_in_proc_that_may_be: "cat /proc/uptime", |spec| bind(spec, "vol/file", "/proc/uptime", &["rbind"]);
    mounts_at_the_root: "ls /", |spec| bind(spec, "vol", "/", &["rbind"]);
    mounts_at_nowhere: "echo runs", |spec| bind(spec, "vol", "", &["rbind"]);
    mounts_nothing: "ls /proc /dev | wc -l; echo runs", |spec| spec["mounts"] = json!([]);
    mounts_proc_alone: "ls /dev", |spec| spec["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    mounts_of_another_form: "echo runs", |spec| spec["mounts"] = json!({"/mnt": "vol"});
    root_read_only: "touch /file || echo refused; touch /tmp/file || echo refused; touch /dev/file && echo written; grep ' / / ' /proc/self/mountinfo | cut -d' ' -f6 | cut -c1-2", |spec| spec["root"]["readonly"] = true.into();
    root_read_only_with_volumes: "touch /mnt/new && echo written; touch /data/new && echo written; touch /etc/new || echo refused", |spec| {
        spec["root"]["readonly"] = true.into();
        bind(spec, "vol", "/mnt", &["rbind"]);
        tmpfs(spec, "/data", &[]);
    };
    root_read_only_and_a_place_that_is_missing: "ls /", |spec| {
        spec["root"]["readonly"] = true.into();
        bind(spec, "vol", "/new/place", &["rbind"]);
    };
    root_that_is_missing: "echo runs", |spec| spec["root"]["path"] = "none".into();
    root_that_is_a_file: "echo runs", |spec| spec["root"]["path"] = "vol/file".into();
    root_that_is_none: "echo runs", |spec| drop(spec["root"].take());
    root_propagation: "grep ' / / ' /proc/self/mountinfo | grep -c -E 'shared:|master:'", |spec| spec["linux"]["rootfsPropagation"] = "private".into();
    root_propagation_slave: "echo runs", |spec| spec["linux"]["rootfsPropagation"] = "slave".into();
    root_propagation_shared: "echo runs", |spec| spec["linux"]["rootfsPropagation"] = "shared".into();
    root_propagation_that_is_none: "echo runs", |spec| spec["linux"]["rootfsPropagation"] = "sideways".into();
    paths_masked: "cat /data/of-image; ls /etc; cat /proc/meminfo; touch /etc/x || echo refused", |spec| spec["linux"]["maskedPaths"] = json!(["/data/of-image", "/etc", "/none", "/proc/meminfo"]);
    paths_masked_relative: "cat /data/of-image", |spec| spec["linux"]["maskedPaths"] = json!(["data/of-image"]);
    paths_read_only: "touch /data/new || echo refused; touch /tmp/x || echo refused; echo x > /proc/sys/kernel/hostname || echo refused; echo end", |spec|
        spec["linux"]["readonlyPaths"] = json!(["/data", "/tmp", "/none", "/proc/sys"]);
    paths_read_only_in_a_volume: "touch /mnt/below/new || echo refused; touch /mnt/new && echo written", |spec| {
        bind(spec, "vol", "/mnt", &["rbind"]);
        spec["linux"]["readonlyPaths"] = json!(["/mnt/below"]);
    };
    devices_of_programs: "stat -c '%n %a %u %g %t %T' /dev/fuse /dev/net/tun", |spec| spec["linux"]["devices"] = json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 384, "uid": 1000, "gid": 2000},
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 438, "uid": 0, "gid": 0}
    ]);
    devices_of_the_node: "stat -c '%n %t %T' /dev/sda", |spec| spec["linux"]["devices"] = json!([{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]);
    devices_of_a_type_that_is_none: "echo runs", |spec| spec["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "x", "major": 10, "minor": 229}]);
}

cases! {
    /// What is left on the node.
    ON_THE_NODE:
    volume_is_written_to: CreateOf("echo new > /mnt/new; chmod 600 /mnt/new; chown 1000:2000 /mnt/new; mkdir /mnt/folder; ln -s new /mnt/to; rm /mnt/below/file; mv /mnt/file /mnt/moved", |spec| {
            spec["process"]["capabilities"] = json!({"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]});
            bind(spec, "vol", "/mnt", &["rbind"]);
        }), Start(TASK), Wait(TASK), Delete(TASK), Node("vol/new"), Node("vol/folder"), Node("vol/to"), Node("vol/below/file"), Node("vol/moved");
    volume_of_a_user: CreateOf("exec 2>&1; touch /mnt/new || echo refused; touch /data/new && echo written; id -G", |spec| {
            spec["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [2000]});
            bind(spec, "vol", "/mnt", &["rbind"]);
            bind(spec, "everybodys", "/data", &["rbind"]);
        }), Start(TASK), Wait(TASK), Delete(TASK), Output(TASK), Node("everybodys/new");
    volume_that_kubelet_swaps: CreateOf("inside watch /config /config/key; cat /config/key; ls -a /config", |spec| {
            bind(spec, "volumes/kubernetes.io~configmap/config", "/config", &["rbind", "rprivate", "ro"]);
        }), Start(TASK), Until(TASK, "watching"), Swap(&[("key", "second\n"), ("new", "")]), Wait(TASK), Delete(TASK), Output(TASK);
    volume_of_a_file: CreateOf("echo more >> /etc/file", |spec| bind(spec, "vol/file", "/etc/file", &["rbind"])), Start(TASK), Wait(TASK), Delete(TASK), Node("vol/file");
    places_are_left_in_the_root: CreateOf("true", |spec| {
            bind(spec, "vol", "/new/folder", &["rbind"]);
            bind(spec, "vol/file", "/new/file", &["rbind"]);
            spec["process"]["cwd"] = "/made".into();
        }), Start(TASK), Wait(TASK), Delete(TASK), Node("rootfs/new"), Node("rootfs/new/folder"), Node("rootfs/new/file"), Node("rootfs/made");
}
