//! Stories of what the kernel does to a container by its cgroup, with files in the place of the kernel's where it does it at once or not at all.

mod world;

use std::{fs, os::fd::AsRawFd as _, sync::mpsc, thread, time::Duration};

use containerd_shim_protos::api::{PauseRequest, ResumeRequest, Status, UpdateTaskRequest};
use protobuf::{MessageField, well_known_types::any::Any};
use rustix::{
    fs::{CWD, FileType, mknodat},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use serde_json::{Value, json};
use ttrpc::Code;
use vgpu_agent_api::agent::{ContainerRequest, NextEventRequest, event::Kind};
use world::{refusal, soon, story};

#[test]
fn a_frozen_container_stands_still() {
    story(async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        world.task.pause(soon(), &PauseRequest { id: "c1".into(), ..Default::default() }).await.unwrap();
        assert_eq!(world.status("c1").await, Status::PAUSED);
        assert_eq!(refusal(world.exec("c1", "e1", &["true"]).await.map(drop)).0, Code::FAILED_PRECONDITION);
        world.task.resume(soon(), &ResumeRequest { id: "c1".into(), ..Default::default() }).await.unwrap();
        assert_eq!(world.status("c1").await, Status::RUNNING);
    });
}

/// Files in the place of the kernel's, which does it at once or not at all.
#[test]
fn a_pause_under_way_is_told_and_one_that_fails_is_taken_back() {
    story(async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let cgroup = "/sys/fs/cgroup/vgpu/c1";
        mount("none", cgroup, "tmpfs", MountFlags::empty(), None).unwrap();
        let kernel =
            |frozen| fs::write(format!("{cgroup}/cgroup.events"), format!("frozen {frozen}\n")).unwrap();
        let wish = || fs::read_to_string(format!("{cgroup}/cgroup.freeze")).unwrap();
        let request = PauseRequest { id: "c1".into(), ..Default::default() };
        kernel(0);
        let meanwhile = async {
            while world.status("c1").await != Status::PAUSING {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(wish(), "1");
            assert_eq!(
                refusal(world.exec("c1", "e1", &["true"]).await.map(drop)).0,
                Code::FAILED_PRECONDITION
            );
            kernel(1);
        };
        let (paused, ()) = tokio::join!(world.task.pause(soon(), &request), meanwhile);
        paused.unwrap();
        assert_eq!(world.status("c1").await, Status::PAUSED);
        kernel(0);
        world.task.resume(soon(), &ResumeRequest { id: "c1".into(), ..Default::default() }).await.unwrap();
        assert_eq!((world.status("c1").await, wish().as_str()), (Status::RUNNING, "0"));
        assert_eq!(refusal(world.task.pause(soon(), &request).await).0, Code::INTERNAL);
        assert_eq!((world.status("c1").await, wish().as_str()), (Status::RUNNING, "0"));
        unmount(cgroup, UnmountFlags::DETACH).unwrap();
    });
}

/// A memory limit below what is used takes it as long as the kernel takes to find memory: here it is a fifo that nobody reads.
#[test]
fn an_update_that_the_kernel_holds_up_keeps_only_the_next_one_of_its_container() {
    story(async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let cgroup = "/sys/fs/cgroup/vgpu/c1";
        mount("none", cgroup, "tmpfs", MountFlags::empty(), None).unwrap();
        let (slow, next) = (format!("{cgroup}/pids.max"), format!("{cgroup}/cpu.weight"));
        mknodat(CWD, &slow, FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::write(&next, "").unwrap();
        let (let_go, may_go) = mpsc::channel();
        let kernel = thread::spawn(move || {
            let was_answered = may_go.recv_timeout(Duration::from_secs(60)).is_ok();
            (was_answered, fs::read_to_string(slow).unwrap())
        });
        let updates = [json!({"pids": {"limit": 7}}), json!({"cpu": {"shares": 2}})];
        let updates = updates.each_ref().map(update);
        let meanwhile = async {
            assert_eq!(world.status("c1").await, Status::RUNNING);
            // Time for one that does not wait for its turn.
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(fs::read_to_string(&next).unwrap(), "");
            let_go.send(()).unwrap();
        };
        let [first, second] = updates.each_ref().map(|update| world.task.update(soon(), update));
        let (first, second, ()) = tokio::join!(first, second, meanwhile);
        first.and(second).unwrap();
        assert_eq!(kernel.join().unwrap(), (true, "7".into()), "State was answered before");
        assert_eq!(fs::read_to_string(&next).unwrap(), "1");
        unmount(cgroup, UnmountFlags::DETACH).unwrap();
    });
}

/// Else what it still writes would reach the cgroup of the next container of the id.
#[test]
fn a_delete_that_meets_an_update_waits_for_it() {
    story(async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let cgroup = "/sys/fs/cgroup/vgpu/c1";
        mount("none", cgroup, "tmpfs", MountFlags::empty(), None).unwrap();
        // Also when it is not mounted any more.
        let held = fs::File::open(cgroup).unwrap();
        let file = |name: &str| format!("/proc/self/fd/{}/{name}", held.as_raw_fd());
        let (first, slow, killed) = (file("cpu.weight"), file("pids.max"), file("cgroup.kill"));
        fs::write(&first, "").unwrap();
        mknodat(CWD, &slow, FileType::Fifo, 0o600.into(), 0).unwrap();
        let request = update(&json!({"cpu": {"shares": 2}, "pids": {"limit": 7}}));
        let meanwhile = async {
            while fs::read_to_string(&first).unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            world.kill("c1", 9, false).await.unwrap();
            world.wait("c1", "").await;
            // Made anew by who removes the cgroup.
            fs::remove_file(&killed).unwrap();
            let let_go = async {
                // Time for one that does not wait.
                tokio::time::sleep(Duration::from_millis(300)).await;
                let did_not_wait = fs::exists(&killed).unwrap();
                unmount(cgroup, UnmountFlags::DETACH).unwrap();
                (did_not_wait, fs::read_to_string(&slow).unwrap())
            };
            tokio::join!(world.delete("c1"), let_go)
        };
        let (updated, (deleted, let_go)) = tokio::join!(world.task.update(soon(), &request), meanwhile);
        assert_eq!(let_go, (false, "7".into()));
        updated.unwrap();
        deleted.unwrap();
    });
}

fn update(resources: &Value) -> UpdateTaskRequest {
    let value = resources.to_string().into_bytes();
    let resources = MessageField::some(Any { value, ..Default::default() });
    UpdateTaskRequest { id: "c1".into(), resources, ..Default::default() }
}

/// Then State says what the kernel says, and what was asked for where that says nothing.
#[test]
fn a_pause_that_cannot_be_taken_back_is_told_as_it_is() {
    for (kernel_says, told) in [(true, Status::RUNNING), (false, Status::PAUSED)] {
        story(async |world| {
            let _init = world.run("c1", &["sleep", "100"]).await;
            let cgroup = "/sys/fs/cgroup/vgpu/c1";
            mount("none", cgroup, "tmpfs", MountFlags::empty(), None).unwrap();
            let [events, wish] = ["events", "freeze"].map(|file| format!("{cgroup}/cgroup.{file}"));
            fs::write(&events, "frozen 0\n").unwrap();
            let meanwhile = async {
                while world.status("c1").await != Status::PAUSING {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                // Nobody can write it any more.
                fs::remove_file(&wish).unwrap();
                fs::create_dir(&wish).unwrap();
                if !kernel_says {
                    fs::remove_file(&events).unwrap();
                }
            };
            let request = PauseRequest { id: "c1".into(), ..Default::default() };
            let (paused, ()) = tokio::join!(world.task.pause(soon(), &request), meanwhile);
            assert_eq!(refusal(paused).0, Code::INTERNAL);
            assert_eq!(world.status("c1").await, told);
            unmount(cgroup, UnmountFlags::DETACH).unwrap();
        });
    }
}

/// The memory controller is not this machine's to use: a file in its place plays the kernel's counter.
#[test]
fn kills_are_counted_for_who_asks() {
    story(async |world| {
        let _init = world.run("c1", &["sleep", "100"]).await;
        let asked = async |id: &str| {
            let request = ContainerRequest { container_id: id.into(), ..Default::default() };
            world.agent.oom_kills(soon(), &request).await.map(|reply| reply.count)
        };
        assert_eq!(asked("c1").await.unwrap(), 0);
        assert_eq!(refusal(asked("c2").await).0, Code::NOT_FOUND);
        let cgroup = "/sys/fs/cgroup/vgpu/c1";
        mount("none", cgroup, "tmpfs", MountFlags::empty(), None).unwrap();
        let killed =
            |count| fs::write(format!("{cgroup}/memory.events"), format!("oom 9\noom_kill {count}\n"));
        killed(2).unwrap();
        assert_eq!(asked("c1").await.unwrap(), 2);
        killed(3).unwrap();
        assert_eq!(asked("c1").await.unwrap(), 3);
        unmount(cgroup, UnmountFlags::DETACH).unwrap();
        assert_eq!(asked("c1").await.unwrap(), 3, "nothing is forgotten with the cgroup");
        // For a shim that only waits for events.
        let request = NextEventRequest { timeout_ms: 10, ..Default::default() };
        let event = world.agent.next_event(soon(), &request).await.unwrap();
        assert_eq!((event.container_id.as_str(), event.kind), ("c1", Kind::OUT_OF_MEMORY.into()));
    });
}
