//! What a container must not reach of the guest around it.

mod world;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, XattrFlags},
    mount::{MountFlags, mount},
};
use serde_json::{Value, json};
use world::{World, story};

/// Runs `script` in a container whose spec and files `change` made, and gives its output.
async fn output_of(world: &World, script: &str, change: impl FnOnce(&mut Value)) -> String {
    world.bundle("c1", &["sh", "-c", script], change);
    let mut stdio = world.create("c1", false).await.unwrap();
    world.start("c1", "").await.unwrap();
    let text = stdio.output().await;
    world.wait("c1", "").await;
    world.delete("c1").await.unwrap();
    text
}

fn with_gpu(spec: &mut Value) {
    spec["annotations"] = json!({"vgpu.dev/gpu": "1"});
}

const LOOK: &str =
    "cat /usr/lib/libcuda.so.1 /usr/lib/libcuda.so 2>&1; [ -S /run/vgpu/gpu.sock ] && echo socket";

#[test]
fn only_a_container_with_a_gpu_has_the_library_and_the_socket() {
    story(async |world| {
        assert_eq!(output_of(world, LOOK, with_gpu).await, "oursourssocket\n");
        let again = "echo mine > /usr/lib/libcuda.so.1; rm -f /run/vgpu/gpu.sock; cat /usr/lib/libcuda.so.1";
        assert_eq!(output_of(world, again, with_gpu).await, "ours", "it was changed");
    });
    story(async |world| {
        // What grants nothing: an annotation of the value 0, an environment variable.
        let text = output_of(world, LOOK, |spec| {
            spec["annotations"] = json!({"vgpu.dev/gpu": "0"});
            spec["process"]["env"] = json!(["PATH=/bin", "vgpu.dev/gpu=1", "NVIDIA_VISIBLE_DEVICES=all"]);
        });
        let text = text.await;
        assert!(!text.contains("ours") && !text.contains("socket"), "{text}");
    });
}

/// The links of an image are followed inside of it, or the container is refused: never through the guest's root.
#[test]
fn links_of_an_image_do_not_lead_out_of_it() {
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("passwd");
    fs::write(&file, "the guest's").unwrap();
    let up = format!("../../../../../../../../../..{}", file.display());
    for (link, target) in [
        ("usr/lib/libcuda.so.1", file.to_str().unwrap()),
        ("usr/lib/libcuda.so.1", up.as_str()),
        ("usr/lib", outside.path().to_str().unwrap()),
        ("run", outside.path().to_str().unwrap()),
        ("run/vgpu", outside.path().to_str().unwrap()),
    ] {
        story(async |world| {
            let rootfs = world.bundle("c1", &["sh", "-c", LOOK], with_gpu).join("rootfs");
            let link = rootfs.join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(target, &link).unwrap();
            // The same path inside: where the link leads when it is followed there.
            fs::create_dir_all(rootfs.join(outside.path().strip_prefix("/").unwrap())).unwrap();

            if let Ok(mut stdio) = world.create("c1", false).await {
                world.start("c1", "").await.unwrap();
                let text = stdio.output().await;
                assert!(text.contains("ours"), "{link:?} -> {target}: {text}");
                world.wait("c1", "").await;
                world.delete("c1").await.unwrap();
            }
            world.assert_nothing_left_of("c1");
        });
        assert_eq!(fs::read_to_string(&file).unwrap(), "the guest's", "{link} -> {target}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{link} -> {target} made files outside");
    }
}

#[test]
fn nothing_of_pid_1_is_open_in_a_container() {
    story(async |world| {
        let list = "for fd in /proc/$$/fd/*; do readlink $fd; done";
        let _init = world.run("c1", &["sleep", "100"]).await;
        let mut exec = world.exec("c1", "e1", &["sh", "-c", list]).await.unwrap();
        world.start("c1", "e1").await.unwrap();
        let open = exec.output().await;
        let [stdin, stdout, stderr] = open.lines().collect::<Vec<_>>()[..] else { panic!("open: {open}") };
        assert!(stdin == "/dev/null" && stdout.starts_with("pipe:") && stderr == "/dev/null", "{open}");
    });
    story(async |world| {
        let open = output_of(world, "for fd in /proc/1/fd/*; do readlink $fd; done", |_| {}).await;
        assert_eq!(open.lines().filter(|line| line.starts_with("pipe:")).count(), 3, "{open}");
        assert_eq!(open.lines().count(), 3, "{open}");
    });
}

/// A `su` that is set-user-id, and a `cat` that has CAP_KILL of its file. Source of its attribute: capability.h, `vfs_cap_data` of version 2.
fn gifted_programs(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    for (name, mode) in [("su", 0o4755), ("cat", 0o755)] {
        let program = directory.join(name);
        fs::copy("/bin/busybox", &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
    }
    let words: [u32; 5] = [0x0200_0000 | 1, 1 << 5, 0, 0, 0];
    let capabilities: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let file = directory.join("cat");
    rustix::fs::setxattr(&file, "security.capability", &capabilities, XattrFlags::empty()).unwrap();
}

/// Of the root and of volumes, as with any runtime. The node's side of the share has none (shim-vgpu `what_the_guest_sees_has_no_devices_…`).
#[test]
fn set_user_id_programs_work_in_the_guest_alone() {
    let kept = "0\nCapEff:\t0000000000000020\n";
    let lost = "su: must be suid to work properly\nCapEff:\t0000000000000000\n";
    for (at, options, no_new_privileges, expected) in [
        ("/gifted", None, false, kept),
        ("/gifted", None, true, lost),
        ("/volume", Some(json!(["bind"])), false, kept),
        ("/volume", Some(json!(["bind", "ro"])), false, kept),
        ("/volume", Some(json!(["rbind", "nosuid"])), false, lost),
        ("/volume", Some(json!(["rbind"])), true, lost),
    ] {
        story(async |world| {
            let script = format!("{at}/su -c 'id -u' 2>&1; {at}/cat /proc/self/status | grep CapEff");
            let shared = world.root.path().join("share/c1");
            let text = output_of(world, &script, |spec| {
                gifted_programs(&shared.join("rootfs/gifted"));
                fs::write(shared.join("rootfs/etc/passwd"), "root::0:0::/:/bin/sh\n").unwrap();
                spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
                spec["process"]["noNewPrivileges"] = no_new_privileges.into();
                if let Some(options) = &options {
                    let source = shared.join("mounts/0");
                    gifted_programs(&source);
                    let volume =
                        json!({"destination": at, "type": "bind", "source": source, "options": options});
                    spec["mounts"].as_array_mut().unwrap().push(volume);
                }
            });
            assert_eq!(text.await, expected, "{at} {options:?} {no_new_privileges}");
        });
    }
}

/// Nor those that the node put into its root or a volume.
#[test]
fn a_device_of_the_share_is_none() {
    story(async |world| {
        let shared = world.root.path().join("share/c1");
        let script = "head -c 1 /zero 2>&1; head -c 1 /volume/zero 2>&1";
        let text = output_of(world, script, |spec| {
            fs::create_dir_all(shared.join("mounts/0")).unwrap();
            for place in ["rootfs/zero", "mounts/0/zero"] {
                let device = rustix::fs::makedev(1, 5);
                let path = shared.join(place);
                rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, 0o666.into(), device).unwrap();
            }
            let volume = json!({"destination": "/volume", "type": "bind", "source": shared.join("mounts/0"), "options": ["bind"]});
            spec["mounts"].as_array_mut().unwrap().push(volume);
        });
        let text = text.await;
        assert_eq!(text.matches("Permission denied").count(), 2, "{text}");
    });
}

/// `rro` also for what is mounted below a volume. In a guest the node sees to that, since it is one mount there.
#[test]
fn a_volume_that_is_read_only_in_depth_is_so() {
    for (option, kept) in [("rro", 2), ("rw", 0)] {
        story(async |world| {
            let volume = world.root.path().join("share/c1/mounts/0");
            fs::create_dir_all(volume.join("below")).unwrap();
            mount("none", volume.join("below"), "tmpfs", MountFlags::empty(), None).unwrap();
            let script = "for file in /volume/new /volume/below/new; do (: > $file) 2>&1; done";
            let text = output_of(world, script, |spec| {
                let volume = json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind", option]});
                spec["mounts"].as_array_mut().unwrap().push(volume);
            });
            let text = text.await;
            assert_eq!(text.matches("Read-only file system").count(), kept, "{option}: {text}");
            assert_eq!(text.is_empty(), kept == 0, "{option}: {text}");
            for file in ["new", "below/new"].map(|file| volume.join(file)) {
                assert_eq!(file.exists(), kept == 0, "{option}: {file:?}");
            }
        });
    }
}

#[test]
fn a_container_makes_no_devices() {
    story(async |world| {
        let script = "mknod /dev/xenbus c 10 60 2>&1; mknod /tmp/null c 1 3 2>&1; ls /dev/xen 2>&1; cat /dev/null && echo null";
        let text = output_of(world, script, |spec| {
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_MKNOD".into());
            }
        });
        let text = text.await;
        assert_eq!(text.matches("Operation not permitted").count(), 2, "{text}");
        assert!(text.contains("/dev/xen: No such file") && text.ends_with("null\n"), "{text}");
    });
}

/// Which ones it may ask for is the shim's to say.
#[test]
fn a_device_that_the_spec_names_is_made_in_the_container() {
    story(async |world| {
        let script = "/bin/busybox stat -c '%F %t:%T %a %n' /dev/fuse /dev/net/tun";
        let text = output_of(world, script, |spec| {
            spec["linux"]["devices"] = json!([
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0},
                {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o600},
            ]);
        });
        let expected =
            "character special file a:e5 666 /dev/fuse\ncharacter special file a:c8 600 /dev/net/tun\n";
        assert_eq!(text.await, expected);
    });
}

#[test]
fn a_container_sees_its_own_files_and_mounts_alone() {
    story(async |world| {
        let share = world.root.path().to_str().unwrap().to_owned();
        fs::create_dir_all(world.root.path().join("share/c2")).unwrap();
        fs::write(world.root.path().join("share/c2/secret"), "of another container").unwrap();
        let script = format!(
            "while read -r _ place _; do echo mount $place; done < /proc/mounts; ls {share} /run/vgpu /../../.. 2>&1; \
             cat {share}/share/c2/secret /proc/1/root{share}/share/c2/secret 2>&1"
        );
        let text = output_of(world, &script, |_| {}).await;
        let mounts: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("mount ")).collect();
        assert_eq!(mounts, ["/", "/proc", "/dev", "/dev/pts"], "{text}");
        assert!(!text.contains("of another container"), "{text}");
        assert!(text.contains(&format!("{share}: No such file")), "{text}");
    });
}

/// Of the guest it has the network alone: the pod's.
#[test]
fn a_container_has_the_namespaces_of_its_spec() {
    story(async |world| {
        let script = "for of in mnt pid uts ipc net; do readlink /proc/self/ns/$of; done";
        let text = output_of(world, script, |_| {}).await;
        // Of this thread: its mounts are apart from the process's already.
        let guests = ["mnt", "pid", "uts", "ipc", "net"].map(|of| {
            fs::read_link(format!("/proc/thread-self/ns/{of}")).unwrap().to_str().unwrap().to_owned()
        });
        let same: Vec<_> = text.lines().zip(&guests).map(|(its, guests)| its == guests).collect();
        assert_eq!(same, [false, false, false, false, true], "{text}{guests:?}");
    });
}

#[test]
fn masked_and_read_only_paths_are_so() {
    story(async |world| {
        let script = "head -c 1 /proc/kallsyms | wc -c; ls /proc/acpi /proc/scsi 2>/dev/null | wc -w; \
                      echo 1 > /proc/sys/kernel/sysrq || echo kept";
        let text = output_of(world, script, |spec| {
            spec["linux"]["maskedPaths"] =
                json!(["/proc/kallsyms", "/proc/acpi", "/proc/scsi", "/proc/no-such"]);
            spec["linux"]["readonlyPaths"] = json!(["/proc/sys", "/proc/no-such"]);
        });
        let text = text.await;
        assert_eq!(text.lines().next_back(), Some("kept"), "{text}");
        assert!(text.starts_with("0\n") || text.starts_with("0 "), "{text}");
    });
}

/// Init and execs, with no_new_privs and without, as root and not: the profile holds, and nothing is gained on the way.
#[test]
fn the_seccomp_profile_of_the_spec_holds() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    });
    let script = "mkdir /tmp/new 2>&1; while read -r key value; do case $key in Seccomp:|Cap[EPB]*) echo $key $value;; esac; done < /proc/self/status; sleep 100";
    for (uid, no_new_privileges, kept) in
        [(0, true, "00000000000000e0"), (0, false, "00000000000000e0"), (1000, false, "0000000000000000")]
    {
        story(async |world| {
            world.bundle("c1", &["sh", "-c", script], |spec| {
                spec["linux"]["seccomp"] = profile.clone();
                spec["process"]["user"] = json!({"uid": uid, "gid": uid});
                spec["process"]["noNewPrivileges"] = no_new_privileges.into();
            });
            let mut stdio = world.create("c1", false).await.unwrap();
            world.start("c1", "").await.unwrap();
            let mut exec =
                world.exec("c1", "e1", &["sh", "-c", "mkdir /tmp/new 2>&1; echo over"]).await.unwrap();
            world.start("c1", "e1").await.unwrap();
            let text = exec.output().await;
            assert!(text.contains("not supported") && text.ends_with("over\n"), "{text}");
            // The line of the profile is the last that init writes.
            let text = stdio.output_until("Seccomp: ").await;
            assert!(text.contains("not supported") && text.contains("Seccomp: 2"), "{text}");
            for set in ["CapPrm", "CapEff"] {
                assert!(text.contains(&format!("{set}: {kept}")), "{set} is not {kept}: {text}");
            }
            assert!(text.contains("CapBnd: 00000000000000e0"), "{text}");
        });
    }
    story(async |world| {
        world.bundle("c1", &["true"], |spec| {
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NOTIFY"});
        });
        let (code, text) = world::refusal(world.create("c1", false).await.map(drop));
        assert_eq!(code, ttrpc::Code::INVALID_ARGUMENT);
        assert!(text.contains("linux.seccomp") && text.contains("NOTIFY"), "{text}");
        world.assert_nothing_left_of("c1");
    });
}
