//! A process's streams: what clients of containerd have at their other ends.

use super::{Case, SIGKILL, SIGTERM, cases};
use crate::{
    step::{
        EXEC, NO_EXEC, NOBODY,
        Step::{self, *},
        TASK,
    },
    streams::{FIFOS, Io, NONE, TERMINAL},
};

const SLEEPS: &str = super::SLEEPS;
/// Both streams, then nothing.
const SAYS: &str = "echo out; echo err >&2; exit 3";
/// Tells its terminal's size now, and whenever that changes.
const SIZES: &str = "trap 'stty size' WINCH; stty size; while :; do sleep 0.02; done";
/// More than any pipe holds.
const MUCH: &str = "seq 1 60000";

/// All output by one word, as clients have it who read it from a log.
const fn log(word: &'static str) -> Io {
    Io { stdin: "", stdout: word, stderr: word, terminal: false }
}

cases! {
    stdio_fifos: Listen(TASK), CreateIo("cat; echo err >&2", FIFOS), State(TASK), Start(TASK), Type(TASK, "one\ntwo"), CloseStdin(TASK), HangUp(TASK),
        Wait(TASK), UntilEnded(TASK), Delete(TASK), Output(TASK);
    stdio_closed_before_start: Listen(TASK), CreateIo("cat; echo end", FIFOS), Type(TASK, "word\n"), CloseStdin(TASK), HangUp(TASK), Start(TASK), Wait(TASK),
        Delete(TASK), Output(TASK);
    stdio_a_client_that_hangs_up_is_no_end: Listen(TASK), CreateIo("while read x; do echo got $x; done; echo end", FIFOS), Start(TASK), Type(TASK, "one\n"),
        HangUp(TASK), Until(TASK, "got one"), State(TASK), Type(TASK, "two\n"), Until(TASK, "got two"), CloseStdin(TASK), HangUp(TASK), Wait(TASK),
        Delete(TASK), Output(TASK);
    stdio_input_that_nobody_reads: Listen(TASK), CreateIo("exec <&-; echo there; sleep 0.2; exit 5", FIFOS), Start(TASK), Until(TASK, "there"),
        Type(TASK, "word\n"), CloseStdin(TASK), HangUp(TASK), Wait(TASK), Delete(TASK), Output(TASK);
    stdio_nobody_listens: Listen(TASK), CreateIo(SAYS, FIFOS), Leave(TASK), Start(TASK), Wait(TASK), State(TASK), Delete(TASK);
    stdio_much_that_nobody_reads_yet: Listen(TASK), CreateIo("seq 1 400000; echo all >&2; exit 4", FIFOS), Leave(TASK), Start(TASK), State(TASK), Listen(TASK),
        Wait(TASK), Delete(TASK), UntilEnded(TASK), Output(TASK);
    stdio_much_at_the_end: Listen(TASK), CreateIo(MUCH, FIFOS), Start(TASK), Wait(TASK), Delete(TASK), UntilEnded(TASK), Output(TASK);
    stdio_much_into_a_file: Create(MUCH), Start(TASK), Wait(TASK), Delete(TASK), Output(TASK);
    stdio_another_listener: Listen(TASK), CreateIo("echo one; read x; echo two; read x; echo three", FIFOS), Start(TASK), Until(TASK, "one\n"), Leave(TASK),
        Type(TASK, "go\n"), Listen(TASK), Until(TASK, "two"), Type(TASK, "go\n"), Wait(TASK), Delete(TASK), UntilEnded(TASK), Output(TASK);
    stdio_none: CreateIo("for at in 0 1 2; do test $(readlink /proc/$$/fd/$at) = /dev/null || exit 1; done; cat && echo out && echo err >&2 && exit 7", NONE), State(TASK), Start(TASK), Wait(TASK),
        Delete(TASK);
    stdio_errors_alone: Listen(TASK), CreateIo(SAYS, Io { stdin: "", stdout: "", ..FIFOS }), State(TASK);
    stdio_file_with_a_space: CreateIo("echo out", log("file://*my%20log")), Start(TASK), Wait(TASK), State(TASK), Delete(TASK), Node("my log");
    stdio_file_in_a_new_folder: CreateIo("echo out", log("file://*new/folder/log")), Start(TASK), Wait(TASK), Delete(TASK), Node("new/folder/log"),
        Node("new/folder");
    stdio_file_is_appended_to: CreateIo("echo out", log("file://*vol/file")), Start(TASK), Wait(TASK), Delete(TASK), Node("vol/file");
    stdio_file_is_a_folder: CreateIo(SAYS, log("file://*vol")), State(TASK);
    stdio_fifo_that_is_missing: CreateIo(SAYS, log("/no/such/fifo")), State(TASK);
    stdio_unknown_scheme: CreateIo(SAYS, log("none:///x")), State(TASK);
    stdio_exec_input: Create(SLEEPS), Start(TASK), Listen(EXEC), ExecIo(EXEC, "cat; echo err >&2; exit 4", FIFOS), Type(EXEC, "one\n"), Start(EXEC), Until(EXEC, "one"),
        Type(EXEC, "two"), HangUp(EXEC), CloseStdin(EXEC), Wait(EXEC), UntilEnded(EXEC), Delete(EXEC), Output(EXEC);
    stdio_exec_output_that_a_child_holds: Create(SLEEPS), Start(TASK), Listen(EXEC), ExecIo(EXEC, "(sleep 0.5; echo late) & echo done", Io { stdin: "", ..FIFOS }), Start(EXEC),
        Wait(EXEC), State(EXEC), UntilEnded(EXEC), Output(EXEC), Delete(EXEC);
    stdio_exec_much: Create(SLEEPS), Start(TASK), Listen(EXEC), ExecIo(EXEC, MUCH, FIFOS), Start(EXEC), Wait(EXEC), Delete(EXEC), UntilEnded(EXEC), Output(EXEC);
    stdio_exec_none: Create(SLEEPS), Start(TASK), ExecIo(EXEC, "cat && echo out && echo err >&2 && exit 7", NONE),
        Start(EXEC), Wait(EXEC), State(EXEC), Delete(EXEC);
    stdio_exec_missing_program_ends_its_streams: Create(SLEEPS), Start(TASK), Listen(EXEC), ExecIo(EXEC, "exec /no/such", FIFOS), Start(EXEC), Wait(EXEC), Delete(EXEC),
        UntilEnded(EXEC);
    stdio_of_init_by_an_exec: Listen(TASK), CreateIo(SLEEPS, FIFOS), Start(TASK), Until(TASK, "there"), Exec(EXEC, "echo logged > /proc/1/fd/1"), Start(EXEC),
        Wait(EXEC), Until(TASK, "logged"), Output(TASK);
    stdio_opened_again: Listen(TASK), CreateIo("echo out > /dev/stdout; echo err > /dev/stderr", FIFOS), Start(TASK), Wait(TASK), UntilEnded(TASK), Delete(TASK), Output(TASK);
    tty_output: Listen(TASK), CreateIo("tty; echo err >&2; exit 3", TERMINAL), State(TASK), Start(TASK), Wait(TASK), Delete(TASK), UntilEnded(TASK), Output(TASK);
    tty_sizes: Listen(TASK), CreateIo(SIZES, TERMINAL), Resize(TASK, 100, 40), Start(TASK), Until(TASK, "\n"), Resize(TASK, 90, 30), Until(TASK, "30 90"),
        Kill(TASK, SIGKILL), Wait(TASK), Resize(TASK, 80, 20), Delete(TASK), Output(TASK);
    tty_typed: Listen(TASK), CreateIo("read x; echo got $x; cat; echo end", TERMINAL), Start(TASK), Type(TASK, "word\n"), Until(TASK, "got word"),
        Type(TASK, "line\n\x04"), Wait(TASK), Delete(TASK), Output(TASK);
    tty_interrupt_typed: Listen(TASK), CreateIo("trap 'echo heard; exit 9' INT; echo there; while :; do sleep 0.02; done", TERMINAL), Start(TASK),
        Until(TASK, "there\r\n"), Type(TASK, "\x03"), Wait(TASK), Delete(TASK), Output(TASK);
    tty_input_closed: Listen(TASK), CreateIo("echo there; read x; echo got $x", TERMINAL), Start(TASK), Until(TASK, "there\r\n"), Type(TASK, "wo"), CloseStdin(TASK), State(TASK),
        Type(TASK, "rd\n"), Until(TASK, "got word"), HangUp(TASK), Wait(TASK), Delete(TASK), Output(TASK);
    tty_another_client: Listen(TASK), CreateIo("echo one; read x; echo two", TERMINAL), Start(TASK), Until(TASK, "one\r\n"), Leave(TASK), HangUp(TASK),
        Listen(TASK), Type(TASK, "go\n"), Until(TASK, "two"), Wait(TASK), Delete(TASK), Output(TASK);
    tty_much: Listen(TASK), CreateIo(MUCH, TERMINAL), Start(TASK), Wait(TASK), Delete(TASK), UntilEnded(TASK), Output(TASK);
    tty_has_the_session: Listen(TASK), CreateIo("cut -d' ' -f5,6 /proc/1/stat; stat -c '%u %g %a %n' $(tty); echo said > /dev/tty; ls /dev | grep -v core", TERMINAL), Start(TASK), Wait(TASK),
        Delete(TASK), Output(TASK);
    tty_hangs_up_its_program: Listen(TASK), CreateIo("sleep 1000 & trap 'exit 8' HUP; echo there; wait", TERMINAL), Start(TASK), Until(TASK, "there"), Kill(TASK, SIGTERM),
        Kill(TASK, 1), Wait(TASK), Delete(TASK), Output(TASK);
    tty_exec: Create(SLEEPS), Start(TASK), Listen(EXEC), ExecIo(EXEC, "read x; tty; echo got $x; exit 6", TERMINAL), State(EXEC), Start(EXEC),
        Type(EXEC, "word\n"), Wait(EXEC), Resize(EXEC, 60, 20), Delete(EXEC), UntilEnded(EXEC), Output(EXEC);
    tty_exec_sizes: Create(SLEEPS), Start(TASK), Listen(EXEC), ExecIo(EXEC, SIZES, TERMINAL), Start(EXEC), Until(EXEC, "\n"), Resize(EXEC, 90, 30), Until(EXEC, "30 90"),
        Kill(EXEC, SIGKILL), Wait(EXEC), Delete(EXEC), UntilEnded(EXEC);
    tty_exec_in_a_task_with_one: Listen(TASK), CreateIo(SLEEPS, TERMINAL), Start(TASK), Until(TASK, "there"), Listen(EXEC), ExecIo(EXEC, "tty; cut -d' ' -f7 /proc/1/stat", TERMINAL),
        Start(EXEC), Wait(EXEC), Delete(EXEC), Output(EXEC), Kill(TASK, SIGKILL), Wait(TASK), UntilEnded(TASK);
    tty_exec_much: Create(SLEEPS), Start(TASK), Listen(EXEC), ExecIo(EXEC, MUCH, TERMINAL), Start(EXEC), Wait(EXEC), Delete(EXEC), UntilEnded(EXEC), Output(EXEC);
    resize_without_a_terminal: Create(SLEEPS), Resize(TASK, 80, 24), Start(TASK), Resize(TASK, 80, 24), Resize(NOBODY, 80, 24), Resize(NO_EXEC, 80, 24);
}
