//! Further processes of a container.

use serde_json::json;

use super::{Case, SIGKILL, SIGTERM, SLEEPS, cases};
use crate::step::{
    EXEC, EXEC_OF_NOBODY, NO_EXEC,
    Step::{self, *},
    TASK,
};

cases! {
    exec_exits: Create(SLEEPS), Start(TASK), Exec(EXEC, "exit 3"), State(EXEC), Start(EXEC), Wait(EXEC), State(EXEC), Wait(EXEC),
        Delete(EXEC), State(EXEC), State(TASK);
    exec_output: Create(SLEEPS), Start(TASK), Exec(EXEC, "echo out; sleep 0.3; echo err >&2; sleep 0.3"), Start(EXEC), Wait(EXEC), Delete(EXEC), Output(EXEC);
    exec_runs: Create(SLEEPS), Start(TASK), Exec(EXEC, SLEEPS), Start(EXEC), Until(EXEC, "there"), State(EXEC), Pids(TASK);
    exec_of_nobody: Create(SLEEPS), Start(TASK), Exec(EXEC_OF_NOBODY, "true"), Start(NO_EXEC), Delete(NO_EXEC);
    exec_in_created: Create(SLEEPS), Exec(EXEC, "true"), State(EXEC), State(TASK);
    exec_in_stopped: Create("true"), Start(TASK), Wait(TASK), Exec(EXEC, "true"), State(TASK);
    exec_in_paused: Create(SLEEPS), Start(TASK), Pause(TASK), Exec(EXEC, "exit 3"), State(TASK);
    exec_same_id: Create(SLEEPS), Start(TASK), Exec(EXEC, "exit 3"), Exec(EXEC, "exit 4"), Start(EXEC), Wait(EXEC);
    exec_start_after_exit: Create(SLEEPS), Start(TASK), Exec(EXEC, "true"), Start(EXEC), Wait(EXEC), Start(EXEC);
    exec_kill_unstarted: Create(SLEEPS), Start(TASK), Exec(EXEC, SLEEPS), Kill(EXEC, SIGKILL), State(EXEC);
    exec_kill: Create(SLEEPS), Start(TASK), Exec(EXEC, SLEEPS), Start(EXEC), Until(EXEC, "there"), Kill(EXEC, SIGTERM), Wait(EXEC),
        Kill(EXEC, SIGTERM), State(EXEC), State(TASK);
    exec_kills_itself: Create(SLEEPS), Start(TASK), Exec(EXEC, "kill -9 $$"), Start(EXEC), Wait(EXEC), Delete(EXEC);
    exec_delete_unstarted: Create(SLEEPS), Start(TASK), Exec(EXEC, SLEEPS), Delete(EXEC), State(EXEC);
    exec_delete_running: Create(SLEEPS), Start(TASK), Exec(EXEC, SLEEPS), Start(EXEC), Delete(EXEC), State(EXEC);
    exec_dies_with_init: Create(SLEEPS), Start(TASK), Exec(EXEC, SLEEPS), Start(EXEC), Until(EXEC, "there"), Kill(TASK, SIGKILL),
        Wait(TASK), Wait(EXEC), State(EXEC), Delete(EXEC), Delete(TASK);
    exec_missing_binary: Create(SLEEPS), Start(TASK), ExecOf(EXEC, "", |process| process["args"] = json!(["/no/such"])), Start(EXEC),
        State(TASK);
    exec_own_user: Create(SLEEPS), Start(TASK),
        ExecOf(EXEC, "busybox id", |process| process["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]})),
        Start(EXEC), Wait(EXEC), Delete(EXEC), Output(EXEC);
    exec_own_cwd: Create(SLEEPS), Start(TASK), ExecOf(EXEC, "pwd", |process| process["cwd"] = json!("/tmp")), Start(EXEC), Wait(EXEC), Delete(EXEC),
        Output(EXEC);
    exec_own_variables: Create(SLEEPS), Start(TASK),
        ExecOf(EXEC, "echo $A-$B", |process| process["env"] = json!(["PATH=/bin", "B=2", "A=two words"])),
        Start(EXEC), Wait(EXEC), Delete(EXEC), Output(EXEC);
    exec_long_argument: Create(SLEEPS), Start(TASK),
        ExecOf(EXEC, "", |process| process["args"] = json!(["sh", "-c", "echo ${#0}", "x".repeat(1 << 16)])),
        Start(EXEC), Wait(EXEC), Delete(EXEC), Output(EXEC);
    exec_no_process: Create(SLEEPS), Start(TASK), ExecOf(EXEC, "", |process| process["args"] = json!(5)), Start(EXEC), State(TASK);
}
