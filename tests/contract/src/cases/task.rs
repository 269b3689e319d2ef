//! The life of one container.

use serde_json::json;

use super::{Case, SIGKILL, SIGTERM, SLEEPS, cases};
use crate::step::{
    NO_EXEC, NOBODY,
    Step::{self, *},
    TASK,
};

cases! {
    task_create_start_exit: Create("exit 7"), Start(TASK), Wait(TASK), State(TASK), Delete(TASK);
    task_exits_at_once_before_wait: Create("true"), Start(TASK), Wait(TASK), Wait(TASK), Delete(TASK), Wait(TASK);
    task_start_twice: Create(SLEEPS), Start(TASK), Start(TASK);
    task_start_after_exit: Create("true"), Start(TASK), Wait(TASK), Start(TASK);
    task_delete_running: Create(SLEEPS), Start(TASK), Delete(TASK), State(TASK);
    task_delete_created: Create(SLEEPS), Delete(TASK), State(TASK);
    task_delete_twice: Create("true"), Start(TASK), Wait(TASK), Delete(TASK), Delete(TASK);
    task_kill_created: Create(SLEEPS), Kill(TASK, SIGKILL), Wait(TASK), State(TASK), Delete(TASK);
    task_kill_running: Create(SLEEPS), Start(TASK), Until(TASK, "there"), Kill(TASK, SIGKILL), Wait(TASK), State(TASK), Delete(TASK);
    task_kill_after_exit: Create("true"), Start(TASK), Wait(TASK), Kill(TASK, SIGKILL);
    task_kill_caught: Create("trap 'exit 5' TERM; echo there; while :; do sleep 0.01; done"), Start(TASK), Until(TASK, "there"),
        Kill(TASK, SIGTERM), Wait(TASK), Delete(TASK);
    task_kill_all: Create("sleep 1000 & echo there; wait"), Start(TASK), Until(TASK, "there"), KillAll(TASK, SIGKILL), Wait(TASK);
    task_kill_with_0: Create(SLEEPS), Start(TASK), Kill(TASK, 0), State(TASK);
    task_kill_with_no_signal: Create(SLEEPS), Start(TASK), Kill(TASK, 200), State(TASK);
    task_kill_of_nobody: Create(SLEEPS), Kill(NOBODY, SIGKILL), Kill(NO_EXEC, SIGKILL);
    task_state_of_created: Create(SLEEPS), State(TASK);
    task_state_of_running: Create(SLEEPS), Start(TASK), State(TASK), Pids(TASK);
    task_state_of_nobody: State(TASK), Create(SLEEPS), State(NOBODY), State(NO_EXEC);
    task_wait_of_nobody: Create(SLEEPS), Wait(NOBODY), Wait(NO_EXEC);
    task_pause_and_resume: Create(SLEEPS), Start(TASK), Pause(TASK), State(TASK), Resume(TASK), State(TASK);
    task_pause_created: Create(SLEEPS), Pause(TASK), State(TASK);
    task_pause_twice: Create(SLEEPS), Start(TASK), Pause(TASK), Pause(TASK), State(TASK);
    task_pause_stopped: Create("true"), Start(TASK), Wait(TASK), Pause(TASK), State(TASK);
    task_resume_running: Create(SLEEPS), Start(TASK), Resume(TASK), State(TASK);
    task_checkpoint: Create(SLEEPS), Start(TASK), Checkpoint(TASK), State(TASK);
    task_connect: Connect(NOBODY), Create(SLEEPS), Connect(TASK);
    task_close_io: Create(SLEEPS), Start(TASK), CloseStdin(TASK), CloseStdin(TASK), CloseStdin(NOBODY);
    task_shutdown_with_a_container: Create(SLEEPS), Start(TASK), Shutdown, State(TASK);
    task_create_same_id: Create(SLEEPS), CreateAgain, State(TASK);
    task_missing_binary: CreateOf("", |spec| spec["process"]["args"] = json!(["/no/such"])), Start(TASK), State(TASK);
    task_directory_as_binary: CreateOf("", |spec| spec["process"]["args"] = json!(["/tmp"])), Start(TASK), State(TASK);
}
