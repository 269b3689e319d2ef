//! Calls that meet others, or what is not there.

use serde_json::json;

use super::{Case, SIGKILL, SIGTERM, SLEEPS, cases};
use crate::step::{
    EXEC, NO_EXEC, NOBODY, Of,
    Step::{self, *},
    TASK,
};

const fn exec(exec: &'static str) -> Of {
    Of { id: "a", exec }
}

/// As long as containerd makes them.
const LONG: Of = exec("0123456789012345678901234567890123456789012345678901234567890123456789012345");
const DOTS: Of = exec("A.b_c-9");
const E1: Of = exec("e1");
const E2: Of = exec("e2");
const E3: Of = exec("e3");
const E4: Of = exec("e4");
const OTHER_EXEC: Of = Of { id: "b.2_c-D", exec: "e" };
const LONG_TASK: Of =
    Of { id: "b123456789012345678901234567890123456789012345678901234567890123456789012345", exec: "" };
const DOTS_TASK: Of = Of { id: "b.2_c-D", exec: "" };

/// A child that just ended is a zombie until its parent's next wait: counted is what stays one.
const LASTING_ZOMBIES: &str = "for i in $(seq 40); do sleep 0.05; n=$(ps -o stat | grep -c '^Z');
    [ $n = 0 ] && break; done; echo $n";

cases! {
    calls_of_nobody: Create(SLEEPS), Start(NOBODY), Delete(NOBODY), Pids(NOBODY), Pause(NOBODY), Resume(NOBODY), Update(NOBODY, || json!({})), Stats(NOBODY),
        Checkpoint(NOBODY), Connect(NOBODY);
    calls_of_no_exec: Create(SLEEPS), Start(TASK), Start(NO_EXEC), Delete(NO_EXEC), CloseStdin(NO_EXEC), Kill(NO_EXEC, SIGKILL), Wait(NO_EXEC), KillAll(NO_EXEC, SIGKILL);
    calls_of_a_stopped_one: Create("true"), Start(TASK), Wait(TASK), Pids(TASK), Pause(TASK), Resume(TASK), Update(TASK, || json!({})), CloseStdin(TASK),
        KillAll(TASK, SIGKILL), State(TASK);
    calls_of_a_deleted_one: Create("true"), Start(TASK), Wait(TASK), Delete(TASK), Start(TASK), Kill(TASK, SIGKILL), Pids(TASK), Pause(TASK), Exec(EXEC, "true"), CloseStdin(TASK),
        Resize(TASK, 80, 24), Stats(TASK), Connect(TASK), State(TASK);
    calls_of_a_deleted_exec: Create(SLEEPS), Start(TASK), Exec(EXEC, "exit 3"), Start(EXEC), Wait(EXEC), Delete(EXEC), Delete(EXEC), Start(EXEC), Kill(EXEC, SIGKILL), Wait(EXEC),
        CloseStdin(EXEC), Resize(EXEC, 80, 24), Exec(EXEC, "exit 4"), Start(EXEC), Wait(EXEC), State(EXEC);
    calls_of_a_created_one: Create(SLEEPS), Pids(TASK), Resume(TASK), Update(TASK, || json!({})), CloseStdin(TASK), Connect(TASK), Start(TASK), State(TASK);
    wait_by_many: Create(SLEEPS), Start(TASK), Until(TASK, "there"), Exec(EXEC, SLEEPS), Start(EXEC),
        Beside(&[Wait(TASK), Wait(TASK), Wait(EXEC), Wait(TASK), Wait(EXEC), Kill(TASK, SIGKILL)]), Delete(EXEC), Delete(TASK);
    wait_begins_before_start: Create("exit 5"), Beside(&[Wait(TASK), Start(TASK)]), Wait(TASK), Delete(TASK);
    wait_of_an_unstarted_exec: Create(SLEEPS), Start(TASK), Exec(EXEC, "exit 6"), Beside(&[Wait(EXEC), Wait(EXEC), Start(EXEC)]), Delete(EXEC);
    execs_at_once: Create(SLEEPS), Start(TASK), Beside(&[Exec(E1, "exit 1"), Exec(E2, "exit 2"), Exec(E3, "kill -9 $$"), Exec(E4, "echo four")]),
        Beside(&[Start(E1), Start(E2), Start(E3), Start(E4)]), Beside(&[Wait(E1), Wait(E2), Wait(E3), Wait(E4)]), Pids(TASK),
        Beside(&[Delete(E1), Delete(E2), Delete(E3), Delete(E4)]), Output(E4);
    exec_ids: Create(SLEEPS), Start(TASK), Exec(LONG, "echo long"), Start(LONG), Wait(LONG), State(LONG), Delete(LONG), Output(LONG), Exec(DOTS, "echo dots"), Start(DOTS), Wait(DOTS),
        Delete(DOTS), Output(DOTS);
    container_ids: Create(SLEEPS), Start(TASK), Another(LONG_TASK, "exit 4", |_, _| {}), Start(LONG_TASK), Wait(LONG_TASK), State(LONG_TASK), Delete(LONG_TASK),
        Another(DOTS_TASK, SLEEPS, |_, _| {}), Start(DOTS_TASK), Exec(OTHER_EXEC, "hostname"), Start(OTHER_EXEC), Wait(OTHER_EXEC), Delete(OTHER_EXEC), State(DOTS_TASK), Output(OTHER_EXEC);
    kill_all_of_a_tree: Create("sleep 1000 & sleep 1000 & (sleep 1000 & sleep 1000) & echo there; wait; exit 9"), Start(TASK), Until(TASK, "there"), KillAll(TASK, SIGTERM), Wait(TASK),
        State(TASK);
    kill_all_of_a_created_one: Create(SLEEPS), KillAll(TASK, SIGKILL), Wait(TASK), State(TASK), Delete(TASK);
    kill_of_an_exec_spares_its_children: Create(SLEEPS), Start(TASK), Exec(EXEC, "sleep 1000 & echo there; wait"), Start(EXEC), Until(EXEC, "there"), Kill(EXEC, SIGKILL), Wait(EXEC),
        Pids(TASK), State(TASK);
    kill_stops_and_continues: Create("trap 'exit 5' TERM; echo there; while :; do sleep 0.01; done"), Start(TASK), Until(TASK, "there"), Kill(TASK, 19), State(TASK), Kill(TASK, SIGTERM),
        State(TASK), Kill(TASK, 18), Wait(TASK);
    kill_real_time_signals: Create("trap 'exit 34' 34; echo there; while :; do sleep 0.01; done"), Start(TASK), Until(TASK, "there"), Kill(TASK, 65), Kill(TASK, 64), Kill(TASK, 34), Wait(TASK);
    kill_from_inside_spares_init: Create("kill -9 $$; kill -15 $$; echo lives"), Start(TASK), Wait(TASK), Delete(TASK), Output(TASK);
    kill_paused: Create(SLEEPS), Start(TASK), Pause(TASK), Kill(TASK, SIGKILL), Wait(TASK), State(TASK), Resume(TASK), Delete(TASK);
    exit_of_255: Create("exit 255"), Start(TASK), Wait(TASK), Delete(TASK);
    exit_by_abort: Create(SLEEPS), Start(TASK), Exec(EXEC, "kill -6 $$"), Start(EXEC), Wait(EXEC), Exec(E1, "kill -11 $$"), Start(E1), Wait(E1), Exec(E2, "exit 300"), Start(E2), Wait(E2);
    orphans_are_reaped: Create("echo there; while :; do sleep 0.02; done"), Start(TASK), Until(TASK, "there"), Exec(EXEC, "(sleep 0.1; exit 3) & exit 4"), Start(EXEC), Wait(EXEC),
        Exec(E1, LASTING_ZOMBIES), Start(E1), Wait(E1), Delete(E1), Output(E1);
    delete_with_a_stopped_exec: Create("read x < /dev/zero; sleep 0.3; exit 2"), Start(TASK), Exec(EXEC, "exit 3"), Start(EXEC), Wait(EXEC), Kill(TASK, SIGKILL), Wait(TASK), Delete(TASK), State(EXEC);
    delete_with_an_unstarted_exec: Create(SLEEPS), Start(TASK), Exec(EXEC, "exit 3"), Kill(TASK, SIGKILL), Wait(TASK), Start(EXEC), Delete(TASK), State(EXEC), Delete(EXEC);
    delete_paused: Create(SLEEPS), Start(TASK), Pause(TASK), Delete(TASK), State(TASK);
    exec_start_in_paused: Create(SLEEPS), Start(TASK), Exec(EXEC, "exit 3"), Pause(TASK), Start(EXEC), State(EXEC), Resume(TASK), State(TASK);
    exec_start_in_created: Create(SLEEPS), Exec(EXEC, SLEEPS), Start(EXEC), State(TASK), Start(TASK), State(TASK);
    update_with_no_resources: Create(SLEEPS), Start(TASK), Update(TASK, || json!({})), Update(TASK, || json!("none")), Update(TASK, || json!({"memory": 5})), State(TASK);
}
