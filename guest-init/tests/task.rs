//! Stories of containers, as containerd would tell them to the guest.

mod world;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use containerd_shim_protos::api::{CreateTaskRequest, ResizePtyRequest, StatsRequest, Status};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ttrpc::Code;
use world::{Setup, World, ground::Hierarchy, refusal, soon, story, story_in};

#[test]
fn a_program_runs_and_its_exit_code_comes_back() {
    story(async |world| {
        let mut stdio = world.run("c1", &["sh", "-c", "echo $WORD $(hostname) $$ $PWD; exit 7"]).await;
        assert_eq!(stdio.output().await, "hello inside 1 /tmp\n");
        assert_eq!(world.wait("c1", "").await, 7);
        assert_eq!(world.status("c1").await, Status::STOPPED);
        assert_eq!(refusal(world.kill("c1", 9, false).await).0, Code::NOT_FOUND);

        let deleted = world.delete("c1").await.unwrap();
        assert_eq!(deleted.exit_status, 7);
        assert!(deleted.pid > 0 && deleted.exited_at.seconds > 0);
        world.assert_nothing_left_of("c1");
        assert_eq!(refusal(world.delete("c1").await).0, Code::NOT_FOUND);
    });
}

#[test]
fn a_killed_program_says_128_and_the_signal() {
    story(async |world| {
        let _stdio = world.run("c1", &["sleep", "100"]).await;
        assert_eq!(refusal(world.delete("c1").await).0, Code::FAILED_PRECONDITION);
        world.kill("c1", 9, true).await.unwrap();
        assert_eq!(world.wait("c1", "").await, 137);
        world.delete("c1").await.unwrap();
    });
}

#[test]
fn a_program_without_streams_may_read_and_write() {
    story(async |world| {
        world.bundle("c1", &["sh", "-c", "cat && echo out && echo err >&2 && exit 7"], |_| {});
        let request = CreateTaskRequest { id: "c1".into(), ..Default::default() };
        world.task.create(soon(), &request).await.unwrap();
        world.start("c1", "").await.unwrap();
        assert_eq!(world.wait("c1", "").await, 7);
    });
}

#[test]
fn a_program_begins_with_no_signal_ignored_or_blocked() {
    story(async |world| {
        let mut stdio = world.run("c1", &["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]).await;
        assert_eq!(stdio.output().await, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    });
}

#[test]
fn a_megabyte_goes_each_way_and_the_end_of_input_arrives() {
    story(async |world| {
        let mut stdio = world.run("c1", &["sh", "-c", "cat; head -c 1000000 /dev/zero >&2"]).await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (mut stdin, mut stderr) = (stdio.stdin.take().unwrap(), stdio.stderr.take().unwrap());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let write = async {
            stdin.write_all(&sent).await.unwrap();
            stdin.shutdown().await.unwrap();
        };
        let (_, o, e) = tokio::join!(write, stdio.stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
        o.unwrap();
        e.unwrap();
        assert!(out == sent, "{} bytes came back", out.len());
        assert_eq!(err.len(), 1_000_000);
        assert_eq!(world.wait("c1", "").await, 0);
    });
}

#[test]
fn a_missing_command_fails_in_create_and_leaves_nothing() {
    story(async |world| {
        for (command, why) in
            [("/no/such", "No such file"), ("nothing", "not found in $PATH"), ("/tmp", "directory")]
        {
            world.bundle("c1", &[command], |_| {});
            let (code, text) = refusal(world.create("c1", false).await.map(drop));
            assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
            assert!(text.starts_with("VGPU-209: ") && text.contains(why) && text.contains(command), "{text}");
            world.assert_nothing_left_of("c1");
        }
        // The id is free again.
        let mut stdio = world.run("c1", &["sh", "-c", "echo again"]).await;
        assert_eq!(stdio.output().await, "again\n");
    });
}

#[test]
fn a_spec_that_is_none_is_refused_by_name() {
    story(async |world| {
        let bundle = world.bundle("c1", &["true"], |_| {});
        fs::write(bundle.join("config.json"), "{\"ociVersion\": 1}").unwrap();
        let (code, text) = refusal(world.create("c1", false).await.map(drop));
        assert_eq!(code, Code::INVALID_ARGUMENT);
        assert!(text.starts_with("VGPU-201: config.json: "), "{text}");
        world.assert_nothing_left_of("c1");
    });
}

#[test]
fn an_exec_runs_as_its_own_user_beside_init() {
    story(async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let mut exec =
            world.exec("c1", "e1", &["sh", "-c", "echo $WHO $(id -u) $(hostname); exit 5"]).await.unwrap();
        assert_eq!(refusal(world.exec("c1", "e1", &["true"]).await.map(drop)).0, Code::ALREADY_EXISTS);
        world.start("c1", "e1").await.unwrap();
        assert_eq!(exec.output().await, "exec 1000 inside\n");
        assert_eq!(world.wait("c1", "e1").await, 5);
        assert_eq!(refusal(world.start("c1", "e1").await).0, Code::FAILED_PRECONDITION);
        assert_eq!(world.status("c1").await, Status::RUNNING);
    });
}

#[test]
fn an_exec_that_cannot_start_ends_its_wait() {
    story(async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        world.exec("c1", "e1", &["/no/such"]).await.unwrap();
        let (code, text) = refusal(world.start("c1", "e1").await);
        assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
        assert!(text.contains("/no/such"), "{text}");
        assert_eq!(world.wait("c1", "e1").await, 127);
        assert_eq!(refusal(world.start("c1", "e2").await).0, Code::NOT_FOUND);
    });
}

#[test]
fn inits_end_ends_its_execs_first() {
    story(async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let _exec = world.exec("c1", "e1", &["sleep", "100"]).await.unwrap();
        world.start("c1", "e1").await.unwrap();
        world.kill("c1", 9, false).await.unwrap();
        assert_eq!(world.wait("c1", "").await, 137);
        // Already ended: this does not wait.
        assert_eq!(tokio::time::timeout(Duration::from_secs(1), world.wait("c1", "e1")).await.unwrap(), 137);
    });
}

#[test]
fn an_exit_does_not_wait_for_a_grandchild_that_holds_the_output() {
    story(async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let mut exec = world.exec("c1", "e1", &["sh", "-c", "echo before; sleep 3 & exit 4"]).await.unwrap();
        let began = Instant::now();
        world.start("c1", "e1").await.unwrap();
        assert_eq!(world.wait("c1", "e1").await, 4);
        assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
        assert_eq!(exec.output().await, "before\n");
        assert!(began.elapsed() > Duration::from_millis(2500), "the grandchild still held the output");
    });
}

#[test]
fn a_terminal_has_the_size_that_was_asked_for_before_it_existed() {
    story(async |world| {
        world.bundle("c1", &["sh", "-c", "stty size; read line; echo got $line"], |_| {});
        let mut stdio = world.create("c1", true).await.unwrap();
        let size = ResizePtyRequest { id: "c1".into(), width: 97, height: 31, ..Default::default() };
        world.task.resize_pty(soon(), &size).await.unwrap();
        world.start("c1", "").await.unwrap();
        stdio.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
        let text = stdio.output().await;
        assert!(text.contains("31 97\r\n") && text.contains("got typed\r\n"), "{text:?}");
        assert_eq!(world.wait("c1", "").await, 0);
    });
}

#[test]
fn a_created_container_can_be_deleted_without_a_start() {
    story(async |world| {
        world.bundle("c1", &["true"], |_| {});
        let mut stdio = world.create("c1", false).await.unwrap();
        assert_eq!(world.status("c1").await, Status::CREATED);
        assert_eq!(world.delete("c1").await.unwrap().exit_status, 137);
        assert_eq!(stdio.output().await, "");
        world.assert_nothing_left_of("c1");
    });
}

#[test]
fn pids_name_their_execs() {
    story(async |world: &World| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let _exec = world.exec("c1", "e1", &["sleep", "100"]).await.unwrap();
        let pid = world.start("c1", "e1").await.unwrap();
        let processes = world.processes("c1").await;
        assert_eq!(processes.len(), 2);
        let exec = processes.iter().find(|process| process.pid == pid).unwrap();
        assert_eq!(exec.info.type_url, "containerd.runc.v1.ProcessDetails");
        assert_eq!(exec.info.value, b"\x0a\x02e1");
    });
}

#[test]
fn users_limits_and_the_read_only_root_of_the_spec_hold() {
    story(async |world| {
        world.bundle("c1", &["sh", "-c", "id -u; id -G; ulimit -n; echo x > /new || echo ro"], |spec| {
            spec["process"]["user"] = serde_json::json!({"uid": 33, "gid": 34, "additionalGids": [35]});
            spec["process"]["rlimits"] =
                serde_json::json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 77}]);
            spec["root"]["readonly"] = true.into();
        });
        let mut stdio = world.create("c1", false).await.unwrap();
        world.start("c1", "").await.unwrap();
        assert_eq!(stdio.output().await, "33\n34 35\n77\nro\n");
    });
}

#[test]
fn stats_of_an_unknown_container_are_not_found() {
    story(async |world| {
        let req = StatsRequest { id: "c1".into(), ..Default::default() };
        assert_eq!(refusal(world.task.stats(soon(), &req).await).0, Code::NOT_FOUND);
    });
}

#[test]
fn fast_programs_at_once_give_their_own_codes() {
    story(async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let codes = join_all((1..=20).map(async |code: u32| {
            let id = format!("e{code}");
            let _stdio = world.exec("c1", &id, &["sh", "-c", &format!("exit {code}")]).await.unwrap();
            world.start("c1", &id).await.unwrap();
            world.wait("c1", &id).await
        }));
        assert_eq!(codes.await, (1..=20).collect::<Vec<u32>>());
    });
}

/// Of a process outside of any container, as helpers are: a container's go to the first process of its pid namespace.
#[test]
fn orphans_of_a_double_fork_are_reaped() {
    story(async |_| {
        let mut shell = Command::new("/bin/busybox");
        shell.args(["sh", "-c", "sleep 3 > /dev/null & echo $!"]).stdout(Stdio::piped());
        #[expect(clippy::zombie_processes, reason = "the reaper waits for it")]
        let mut shell = shell.spawn().unwrap();
        let line = std::io::read_to_string(shell.stdout.take().unwrap()).unwrap();
        let orphan: u32 = line.trim().parse().unwrap();
        let parent = || -> u32 {
            let stat = fs::read_to_string(format!("/proc/{orphan}/stat")).expect("it sleeps");
            stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
        };
        let began = Instant::now();
        // Its own parent may be about to end.
        while parent() != std::process::id() {
            assert!(began.elapsed() < Duration::from_secs(2), "it is not ours to reap");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }

        while fs::exists(format!("/proc/{orphan}")).unwrap() {
            assert!(began.elapsed() < Duration::from_secs(10), "a zombie is left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_container_whose_init_has_ended_takes_no_exec() {
    story(async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let _exec = world.exec("c1", "e1", &["true"]).await.unwrap();
        world.kill("c1", 9, false).await.unwrap();
        assert_eq!(world.wait("c1", "").await, 137);
        assert_eq!(refusal(world.start("c1", "e1").await).0, Code::FAILED_PRECONDITION);
        assert_eq!(refusal(world.exec("c1", "e2", &["true"]).await.map(drop)).0, Code::FAILED_PRECONDITION);
        world.delete("c1").await.unwrap();
        world.assert_nothing_left_of("c1");
    });
}

/// Its start and the death of init race: whichever way it ends, it has ended when init's end is told.
#[test]
fn an_exec_that_begins_while_init_dies_ends_before_it() {
    story(async |world| {
        for round in 0..8 {
            let _init = world.run("c1", &["sleep", "100"]).await;
            let _exec = world.exec("c1", "e1", &["sleep", "100"]).await.unwrap();
            let killing = async {
                tokio::time::sleep(Duration::from_millis(round * 5)).await;
                world.kill("c1", 9, false).await.unwrap();
                world.wait("c1", "").await
            };
            let (started, code) = tokio::join!(world.start("c1", "e1"), killing);
            assert_eq!(code, 137);
            // A start that was refused because init had ended changes nothing: there is nothing to wait for.
            if started.is_ok() {
                let ended = tokio::time::timeout(Duration::from_millis(500), world.wait("c1", "e1")).await;
                assert_eq!(ended.expect("it runs on after init's end"), 137, "round {round}");
            }
            world.delete("c1").await.unwrap();
            world.assert_nothing_left_of("c1");
        }
    });
}

/// An exec whose start hangs holds the word of init's end back, but not for long: the shim takes a guest for one that lies after that.
#[test]
fn inits_end_waits_two_seconds_at_most_for_its_execs() {
    let (_directory, program) =
        helper(r#"case "$2" in *'"Exec"'*) exec sleep 100;; esac; exec $HELPER "$@""#);
    story_in(Setup { program, helper_limit: Duration::from_secs(6) }, async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let _exec = world.exec("c1", "e1", &["true"]).await.unwrap();
        let killing = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let killed = Instant::now();
            world.kill("c1", 9, false).await.unwrap();
            (world.wait("c1", "").await, killed.elapsed())
        };
        let (started, (code, held_back)) = tokio::join!(world.start("c1", "e1"), killing);
        assert!(refusal(started).1.contains("did not end within 6 s"), "it had not begun");
        assert_eq!(code, 137);
        let told = Duration::from_millis(1500)..Duration::from_secs(4);
        assert!(told.contains(&held_back), "{held_back:?}");
    });
}

/// An OCI helper of a story's own: a script, in which `$HELPER` is the real one.
fn helper(script: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("helper");
    let real = env!("CARGO_BIN_EXE_guest-init");
    fs::write(&program, format!("#!/bin/sh\nHELPER={real}\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (directory, program)
}

#[test]
fn a_helper_that_hangs_fails_the_create_and_leaves_nothing() {
    let (_directory, program) = helper("exec sleep 100");
    story_in(Setup { program, helper_limit: Duration::from_millis(200) }, async |world| {
        world.bundle("c1", &["true"], |_| {});
        let (code, text) = refusal(world.create("c1", false).await.map(drop));
        assert_eq!(code, Code::INTERNAL, "{text}");
        assert!(text.contains("create the container") && text.contains("did not end"), "{text}");
        world.assert_nothing_left_of("c1");
        assert_eq!(refusal(world.delete("c1").await).0, Code::NOT_FOUND);
    });
}

/// CRI's ids have 64 letters, and a socket's path has no room for two of them.
#[test]
fn terminals_do_not_mind_long_ids() {
    story(async |world| {
        let id = "c".repeat(64);
        world.bundle(&id, &["sleep", "100"], |_| {});
        let _stdio = world.create(&id, true).await.unwrap();
        world.start(&id, "").await.unwrap();
        let exec_id = "e".repeat(64);
        let mut exec = world.exec_in(&id, &exec_id, &["tty"], true).await.unwrap();
        world.start(&id, &exec_id).await.unwrap();
        let text = exec.output().await;
        assert!(text.starts_with("/dev/pts/"), "{text}");
        assert_eq!(world.wait(&id, &exec_id).await, 0);
    });
}

/// Images send their logs to /dev/stdout and do not run as root.
#[test]
fn a_user_may_open_the_streams_again() {
    story(async |world| {
        let script = "echo one > /proc/self/fd/1; echo two > /proc/self/fd/2; cat /proc/self/fd/0";
        for (id, terminal) in [("pipes", false), ("terminal", true)] {
            world.bundle(
                id,
                &["sh", "-c", if terminal { "echo one > /proc/self/fd/1" } else { script }],
                |spec| {
                    spec["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1000});
                },
            );
            let mut stdio = world.create(id, terminal).await.unwrap();
            world.start(id, "").await.unwrap();
            if let Some(mut stdin) = stdio.stdin.take().filter(|_| !terminal) {
                stdin.write_all(b"three\n").await.unwrap();
                stdin.shutdown().await.unwrap();
            }
            let text = stdio.output().await.replace('\r', "");
            assert_eq!(text, if terminal { "one\n" } else { "one\nthree\n" });
            if let Some(stderr) = &mut stdio.stderr {
                let mut text = String::new();
                stderr.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, "two\n");
            }
            assert_eq!(world.wait(id, "").await, 0);
        }
    });
}

#[test]
fn two_deletes_of_one_container_do_not_disturb_each_other() {
    story(async |world| {
        let _init = world.run("c1", &["true"]).await;
        assert_eq!(world.wait("c1", "").await, 0);
        let (one, two) = tokio::join!(world.delete("c1"), world.delete("c1"));
        for deleted in [one, two] {
            match deleted {
                Ok(reply) => assert_eq!(reply.exit_status, 0),
                other => assert_eq!(refusal(other).0, Code::NOT_FOUND),
            }
        }
        world.assert_nothing_left_of("c1");
    });
}

/// The shim takes a Create back by a Delete, and does not wait for it to end.
#[test]
fn a_delete_that_comes_during_create_takes_the_container_back() {
    let (_directory, program) = helper("sleep 0.5; exec $HELPER \"$@\"");
    story_in(Setup { program, ..Setup::default() }, async |world| {
        world.bundle("c1", &["sleep", "100"], |_| {});
        let (created, (deleted, _)) = tokio::join!(world.create("c1", false), world.delete_when_known("c1"));
        let (code, text) = refusal(created.map(drop));
        assert_eq!(code, Code::FAILED_PRECONDITION, "{text}");
        assert_eq!(text, "VGPU-205: container c1 was deleted while it was being created");
        assert_eq!(deleted.unwrap().exit_status, 137);
        world.assert_nothing_left_of("c1");
        // The id is free again.
        let _stdio = world.run("c1", &["sleep", "100"]).await;
    });
}

#[test]
fn a_delete_does_not_wait_long_for_a_create_and_still_takes_it_back() {
    let (_directory, program) = helper("sleep 4; exec $HELPER \"$@\"");
    story_in(Setup { program, ..Setup::default() }, async |world| {
        world.bundle("c1", &["sleep", "100"], |_| {});
        let (created, (deleted, took)) =
            tokio::join!(world.create("c1", false), world.delete_when_known("c1"));
        let (code, text) = refusal(deleted);
        assert_eq!(code, Code::FAILED_PRECONDITION, "{text}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert!(refusal(created.map(drop)).1.contains("was deleted while"));
        world.assert_nothing_left_of("c1");
        assert_eq!(refusal(world.delete("c1").await).0, Code::NOT_FOUND);
    });
}

/// Its program was started: whoever is told of a failure would not look for it.
#[test]
fn an_exec_that_fails_after_its_start_does_not_run_on() {
    // The start of an exec hangs in its answer, when the program runs already.
    let hang = r#"case "$2" in *'"Exec"'*) mkfifo "$3";; esac; exec $HELPER "$@""#;
    let (_directory, program) = helper(hang);
    story_in(Setup { program, helper_limit: Duration::from_secs(6) }, async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let _exec = world.exec("c1", "e1", RUNS_ON).await.unwrap();
        let (starting, began) = tokio::join!(world.start("c1", "e1"), begins(world, "c1"));
        assert!(refusal(starting).1.contains("did not end within 6 s"));
        assert!(began, "the program was not even started");
        only_init_runs(world, "c1").await;
        assert_eq!(world.wait("c1", "e1").await, 127);
    });
}

#[test]
fn an_exec_whose_terminal_is_lost_does_not_run_on() {
    let (_directory, program) = helper(r#"case "$2" in *'"Exec"'*) sleep 0.5;; esac; exec $HELPER "$@""#);
    story_in(Setup { program, ..Setup::default() }, async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        // The loss of its terminal alone does not end it.
        let deaf = &["sh", "-c", "trap '' HUP; exec sleep 200"];
        let _exec = world.exec_in("c1", "e1", deaf, true).await.unwrap();
        // Somebody speaks at the console's socket before the library does.
        let disturbing = async {
            let socket = loop {
                let mut files = fs::read_dir(world.root.path().join("run")).unwrap().map(Result::unwrap);
                if let Some(file) =
                    files.find(|file| file.file_name().to_string_lossy().starts_with("console-"))
                {
                    break file.path();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            let mut stranger = tokio::net::UnixStream::connect(socket).await.unwrap();
            stranger.write_all(b"?").await.unwrap();
            stranger
        };
        let (starting, _stranger) = tokio::join!(world.start("c1", "e1"), disturbing);
        // Asked for only after the program was executed.
        assert!(refusal(starting).1.contains("receive the terminal"));
        only_init_runs(world, "c1").await;
        assert_eq!(world.wait("c1", "e1").await, 127);
    });
}

/// A program that is told from init by its command line.
const RUNS_ON: &[&str] = &["sleep", "200"];

/// Whether [`RUNS_ON`] begins before long.
async fn begins(world: &World, id: &str) -> bool {
    let began = Instant::now();
    let mut seen = false;
    while !seen && began.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        seen = world.processes(id).await.iter().any(|process| {
            let line = fs::read(format!("/proc/{}/cmdline", process.pid));
            line.is_ok_and(|line| line == b"sleep\x00200\x00")
        });
    }
    seen
}

async fn only_init_runs(world: &World, id: &str) {
    let began = Instant::now();
    while world.processes(id).await.len() != 1 {
        assert!(began.elapsed() < Duration::from_secs(5), "it runs on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.status(id).await, Status::RUNNING);
}

/// The machine that the stories are told on keeps none of their processes, and of its cgroups none but its own.
#[test]
fn a_story_leaves_no_cgroup() {
    for ends in [true, false] {
        let told = std::panic::catch_unwind(|| {
            story(async |world| {
                let mut stdio = world.run("c1", &["sh", "-c", "echo there; sleep 1000"]).await;
                stdio.output_until("there").await;
                assert!(PathBuf::from("/sys/fs/cgroup/vgpu/c1").is_dir(), "nothing to be left");
                assert!(ends, "a story that fails");
            });
        });
        assert_eq!(told.is_ok(), ends);
        let left = Hierarchy::mount().story();
        assert!(!left.exists(), "{left:?} is left");
    }
}
