//! What any container runtime owes its user: exit codes, streams, environment, a second program, clear errors.
//! Each is played with runc as well: a story that runc fails proves nothing about us.

use std::{fs, io::Write, time::Duration};

use crate::Story;
use crate::command::{SOON, must, until};
use crate::node::Node;
use crate::pod::{EXEC, Pod, Runtime, START};

/// The stories, for both runtimes.
pub fn stories() -> Vec<Story> {
    let mut stories = Vec::new();
    for runtime in [Runtime::Runc, Runtime::Vgpu] {
        let mut add = |name: &str, limit_s: u64, play: fn(&Node, Runtime)| {
            let group = if runtime == Runtime::Runc { "runc" } else { "vgpu" };
            let name = format!("{group}_{name}");
            let story = move |node: &Node| play(node, runtime);
            stories.push(match runtime {
                Runtime::Vgpu => super::vgpu(&name, limit_s, story),
                Runtime::Runc => {
                    Story { name, skip: None, limit: Duration::from_secs(limit_s), play: Box::new(story) }
                }
            });
        };
        add("exit_code_is_the_programs", 400, exit_code_is_the_programs);
        add("killed_program_gives_137", 300, killed_program_gives_137);
        add("streams_arrive_whole", 300, streams_arrive_whole);
        add("environment_directory_and_user_are_as_asked", 300, environment_directory_and_user_are_as_asked);
        add("root_keeps_every_kind_of_file", 300, root_keeps_every_kind_of_file);
        add("root_keeps_what_is_mapped", 300, root_keeps_what_is_mapped);
        add("volume_is_seen_from_both_sides", 300, volume_is_seen_from_both_sides);
        add("full_volume_says_so_and_goes_on", 300, full_volume_says_so_and_goes_on);
        add("set_user_id_programs_work", 300, set_user_id_programs_work);
        add("missing_binary_is_named", 300, missing_binary_is_named);
        add("exec_runs_beside_the_program", 400, exec_runs_beside_the_program);
        add("program_above_its_memory_limit_is_killed", 300, program_above_its_memory_limit_is_killed);
        add("user_may_open_its_streams_again", 300, user_may_open_its_streams_again);
        add("seccomp_profile_is_in_force", 400, seccomp_profile_is_in_force);
        add("terminal_has_the_callers_size", 300, terminal_has_the_callers_size);
    }
    stories
}

fn exit_code_is_the_programs(_: &Node, runtime: Runtime) {
    let ended = Pod::busybox(runtime, &["sh", "-c", "exit 7"]).run();
    assert_eq!(ended.code, Some(7), "{}", ended.complaint());
}

fn killed_program_gives_137(node: &Node, runtime: Runtime) {
    let mut pod = node.start(Pod::busybox(runtime, &["sh", "-c", "echo runs; exec sleep 1000"]));
    pod.until_line("runs");

    pod.signal("SIGKILL");

    assert_eq!(pod.end(START).code, Some(137));
}

/// 1 MB in, the same out, and again to standard error. The copy is in memory: this is not about the share.
fn streams_arrive_whole(_: &Node, runtime: Runtime) {
    let input = noise(1_000_003);
    let ended = Pod::busybox(runtime, &["sh", "-c", "tee /dev/shm/copy; cat /dev/shm/copy >&2"]).feed(&input);
    assert_eq!(ended.code, Some(0), "{}", ended.complaint());
    for (name, bytes) in [("stdout", &ended.stdout), ("stderr", &ended.stderr)] {
        let differ = bytes.iter().zip(&input).position(|(a, b)| a != b);
        assert!(
            *bytes == input,
            "{name}: {} of {} bytes, first difference at {differ:?}",
            bytes.len(),
            input.len()
        );
    }
}

/// What programs do with files in the root file system.
fn root_keeps_every_kind_of_file(_: &Node, runtime: Runtime) {
    let script = "set -e; mkdir /w; cd /w
        mkfifo pipe; echo through > pipe & cat pipe; wait
        echo one > a; ln a b; echo two >> b; cat a; stat -c %h a
        ln -s a c; readlink c; chmod 640 c; chown 1000:7 c; stat -c '%a %u %g' b
        echo three > d; mv d a; cat b; cat c
        mkdir -m 2750 e; touch e/f; stat -c '%a %F' e; rmdir e || rm -r e
        truncate -s 1000000 g; echo end >> g; stat -c %s g
        i=0; while [ $i -lt 100 ]; do : > x$i; i=$((i+1)); done; ls | wc -l; rm x*; ls";
    let ended = Pod::busybox(runtime, &["sh", "-c", script]).run();
    let expected = "through\none\ntwo\n2\na\n640 1000 7\none\ntwo\nthree\n2750 directory\n1000004\n105\na\nb\nc\ng\npipe\n";
    assert_eq!((ended.text().as_str(), ended.code), (expected, Some(0)), "{}", ended.complaint());
}

/// What databases do: a file mapped shared and writable (devmem maps what /dev/mem leads to), and then read and written by its name.
fn root_keeps_what_is_mapped(_: &Node, runtime: Runtime) {
    let script = "set -e; mkdir /w; cd /w; head -c 8192 /dev/zero > m; ln -s /w/m /dev/mem
        busybox devmem 4096 32 0x65726f74; tail -c 4096 m | head -c 4; echo; stat -c %s m
        printf kept | dd of=m bs=1 seek=4096 conv=notrunc 2>/dev/null; busybox devmem 4096 32
        mv m n; ln -sf /w/n /dev/mem; busybox devmem 4096 8 0x53; tail -c 4096 n | head -c 4; echo";
    // No more of it waits for its way to the node than a SIGKILL has time for (guest-init, boot/writeback.rs).
    let bounded = "; bytes=$(cat /proc/sys/vm/dirty_bytes); [ $bytes -gt 0 ] && [ $bytes -le 134217728 ] && echo bounded";
    let (rest, word) = if runtime == Runtime::Vgpu { (bounded, "bounded\n") } else { ("", "") };
    let ended = Pod::busybox(runtime, &["sh", "-c", &format!("{script}{rest}")]).run();
    let expected = format!("tore\n8192\n0x7470656B\nSept\n{word}");
    assert_eq!((ended.text(), ended.code), (expected, Some(0)), "{}", ended.complaint());
}

/// What the node writes into a volume the program sees at once, by name and by a descriptor that was open before, and the other way.
fn volume_is_seen_from_both_sides(node: &Node, runtime: Runtime) {
    let dir = format!("/run/story-volume-{}", runtime.name());
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("/run is writable");
    let file = |name: &str| format!("{dir}/{name}");
    fs::write(file("a"), "one\n").expect("the volume is writable");
    let script = "exec 3< /v/a; cat <&3; stat -c %s /v/a; echo runs
        until [ -e /v/go ]; do sleep 0.2; done; cat <&3; cat /v/a; stat -c %s /v/a; echo three > /v/b; echo wrote; exec sleep 1000";
    let pod = Pod::busybox(runtime, &["sh", "-c", script]).option("--mount");
    let pod = pod.option(&format!("type=bind,src={dir},dst=/v,options=rbind:rw"));
    let mut pod = node.start(pod);
    pod.until_line("runs");

    let mut appended = fs::OpenOptions::new().append(true).open(file("a")).expect("it is there");
    appended.write_all(b"two\n").expect("the volume is writable");
    fs::write(file("go"), "").expect("the volume is writable");

    pod.until_line("wrote");
    assert_eq!(fs::read_to_string(file("b")).expect("the program's file"), "three\n");
    pod.signal("SIGKILL");
    let ended = pod.end(START);
    assert_eq!(ended.text(), "one\n4\nruns\ntwo\none\ntwo\n8\nwrote\n", "{}", ended.complaint());
    fs::remove_dir_all(&dir).expect("nothing holds it");
}

/// A file system of the node has no more room: the program hears it, keeps what was written before, and writes again when there is room.
fn full_volume_says_so_and_goes_on(_: &Node, runtime: Runtime) {
    let dir = format!("/run/story-full-{}", runtime.name());
    must(&["mkdir", "-p", &dir]);
    must(&["mount", "-t", "tmpfs", "-o", "size=1m", "full", &dir]);
    let script =
        "echo kept > /v/kept; dd if=/dev/zero of=/v/much bs=64k count=64 2>&1 | grep -o 'No space left.*'
        stat -c %s /v/much; cat /v/kept; rm /v/much; echo again > /v/again; cat /v/again";
    let pod = Pod::busybox(runtime, &["sh", "-c", script]).option("--mount");
    let ended = pod.option(&format!("type=bind,src={dir},dst=/v,options=rbind:rw")).run();
    must(&["umount", &dir]);
    fs::remove_dir(&dir).expect("nothing holds it");
    // But for the page of the file that is kept.
    let written = (1 << 20) - 4096;
    let said = format!("No space left on device\n{written}\nkept\nagain\n");
    assert_eq!(ended.text(), said, "{}", ended.complaint());
}

/// Root becomes a user, who becomes root again by a program that root made set-user-id, but not with no_new_privs in between.
fn set_user_id_programs_work(_: &Node, runtime: Runtime) {
    let script =
        "set -e; sed -i 's/^root:x:/root::/' /etc/passwd; cp /bin/busybox /bin/su4; chmod 4755 /bin/su4
        mkdir /s; mv /bin/su4 /s/su; stat -c %a /s/su
        busybox su user -c 'id -u; /s/su root -c \"id -u\"'
        busybox setpriv --nnp busybox su user -c '/s/su root -c \"id -u\"' 2>&1 || echo kept";
    let ended = Pod::busybox(runtime, &["sh", "-c", script]).option("--allow-new-privs").run();
    let expected = "4755\n1000\n0\nsu: must be suid to work properly\nkept\n";
    assert_eq!((ended.text().as_str(), ended.code), (expected, Some(0)), "{}", ended.complaint());
}

fn environment_directory_and_user_are_as_asked(_: &Node, runtime: Runtime) {
    let pod = Pod::busybox(
        runtime,
        &["sh", "-c", "echo $GREETING; pwd; id -u; cat /proc/self/comm; ls -d /proc/1"],
    );
    let pod = ["--env", "GREETING=hello world", "--cwd", "/tmp", "--user", "1000"]
        .iter()
        .fold(pod, |p, w| p.option(w));
    let ended = pod.run();
    assert_eq!(ended.text(), "hello world\n/tmp\n1000\ncat\n/proc/1\n", "{}", ended.complaint());
}

fn missing_binary_is_named(_: &Node, runtime: Runtime) {
    let ended = Pod::busybox(runtime, &["/no/such/program"]).run();
    assert_ne!(ended.code, Some(0));
    assert!(
        ended.complaint().contains("/no/such/program"),
        "the error does not name it: {}",
        ended.complaint()
    );
    let coded = ended.complaint().contains("VGPU-209");
    assert_eq!(coded, runtime == Runtime::Vgpu, "{}", ended.complaint());
}

fn exec_runs_beside_the_program(node: &Node, runtime: Runtime) {
    let script = "echo runs; until [ -e /tmp/both ]; do sleep 0.5; done; echo both; exec sleep 1000";
    let mut pod = node.start(Pod::busybox(runtime, &["sh", "-c", script]));
    pod.until_line("runs");

    let second = pod.exec_beside(&[
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo beside; ls -d /proc/1/root; touch /tmp/both; while :; do sleep 0.5; done",
    ]);
    pod.until_line("both");
    // A shim whose guest does not answer in time tells of itself alone.
    let both = until(SOON, || {
        let processes = pod.processes();
        (processes.len() > 1 && processes.iter().any(|line| line.contains(EXEC))).then_some(())
    });
    assert!(both.is_some(), "the processes are {:?}", pod.processes());
    pod.signal_exec("SIGTERM");

    let second = second.join().expect("ctr ends");
    assert_eq!(second.code, Some(5), "{}", second.complaint());
    assert_eq!(second.text(), "beside\n/proc/1/root\n");
    pod.signal("SIGKILL");
    assert_eq!(pod.end(START).code, Some(137));
}

/// 100 MB in files that are memory, which counts as the container's, under a limit of 64 MiB.
fn program_above_its_memory_limit_is_killed(_: &Node, runtime: Runtime) {
    let script = "head -c 50000000 /dev/zero > /dev/shm/a && exec head -c 50000000 /dev/zero > /run/b";
    let pod = Pod::busybox(runtime, &["sh", "-c", script]);
    let ended = pod.option("--memory-limit").option("67108864").run();
    assert_eq!(ended.code, Some(137), "{}", ended.complaint());
}

/// Images send their logs to /dev/stdout and do not run as root.
fn user_may_open_its_streams_again(_: &Node, runtime: Runtime) {
    let script = "echo out > /dev/stdout; echo err > /dev/stderr";
    let ended = Pod::busybox(runtime, &["sh", "-c", script]).option("--user").option("1000").run();
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "out\n"), "{}", ended.complaint());
    assert!(ended.complaint().contains("err"), "{}", ended.complaint());
}

/// containerd's default profile, some four hundred calls: programs run under it, and an exec has it as well.
fn seccomp_profile_is_in_force(node: &Node, runtime: Runtime) {
    let script = "grep Seccomp: /proc/self/status; exec sleep 1000";
    let mut pod = node.start(Pod::busybox(runtime, &["sh", "-c", script]).option("--seccomp"));
    assert_eq!(pod.until_line("Seccomp:"), "Seccomp:\t2");

    let second = pod.exec(&["grep", "Seccomp:", "/proc/self/status"]);

    assert_eq!((second.code, second.text().as_str()), (Some(0), "Seccomp:\t2\n"), "{}", second.complaint());
    pod.signal("SIGKILL");
    pod.end(START);
}

/// ctr tells the size once the task runs, so the program waits for it.
fn terminal_has_the_callers_size(_: &Node, runtime: Runtime) {
    let script = r#"n=0; while [ "$(stty size)" != "33 77" ] && [ $n -lt 60 ]; do sleep 0.5; n=$((n + 1)); done
        stty size; tty; exit 4"#;
    let ended = Pod::busybox(runtime, &["sh", "-c", script]).on_terminal(33, 77);
    let said = ended.text();
    assert_eq!(ended.code, Some(4), "{said}");
    // The terminal echoes the end of ctr's input in front of it.
    assert!(said.lines().any(|line| line.trim().ends_with("33 77")), "{said}");
    assert!(said.lines().any(|line| line.starts_with("/dev/pts/")), "{said}");
}

/// Bytes that no stream can guess: a linear congruential generator (Knuth's MMIX constants).
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 42_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}
