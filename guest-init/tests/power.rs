//! A panic of PID 1 ends the guest at once. In a pid namespace, whose end reboot(2) is for its PID 1 (pid_namespaces(7)), instead of a domain.

use std::{
    env,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use guest_init::boot::power;

/// Says to this program that it is the child, PID 1 of its namespace.
const INSIDE: &str = "VGPU_TEST_IS_PID_1";
/// What reboot(2) with POWER_OFF sends to the namespace's PID 1.
const SIGINT: i32 = 2;

#[test]
fn a_panic_of_any_thread_of_pid_1_ends_the_guest() {
    if env::var_os(INSIDE).is_some() {
        power::off_at_panic();
        let _ = thread::spawn(|| panic!("as a task of PID 1 would")).join();
        thread::sleep(Duration::from_secs(30));
        return;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork"]).arg(env::current_exe().unwrap());
    unshare.args(["--exact", "a_panic_of_any_thread_of_pid_1_ends_the_guest"]).env(INSIDE, "1");
    let ended = unshare.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(ended.signal(), Some(SIGINT), "{ended}: half alive, or ended in another way");
}
