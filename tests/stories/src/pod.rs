//! A pod as `ctr` runs it, from the outside: what goes in, what comes out, how it ends.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::command::{Ended, Lines, SOON, feed, lines_of, must, run, until, wait};

/// A pod starts within this, emulated and with another one starting beside it.
pub const START: Duration = Duration::from_secs(300);
/// The images of the testbed.
pub const BUSYBOX: &str = "docker.io/library/busybox:1";
/// glibc and the programs of `tests/cuda`, in `/`.
pub const CUDA: &str = "docker.io/library/cuda-tests:1";

/// The id of a container's second program.
pub const EXEC: &str = "second";

/// What runs the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// Processes of Dom0: proves that a story can pass.
    Runc,
    /// Ours.
    Vgpu,
}

impl Runtime {
    /// Whose name `ctr` wants.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "io.containerd.runc.v2",
            Self::Vgpu => "io.containerd.vgpu.v1",
        }
    }
}

/// A pod before it runs.
#[derive(Debug, Clone)]
pub struct Pod {
    name: String,
    options: Vec<String>,
    image: &'static str,
    program: Vec<String>,
}

impl Pod {
    /// A pod with a program of busybox's image, its words parted by spaces, or one `sh -c` line after them.
    pub fn busybox(runtime: Runtime, program: &[&str]) -> Self {
        Self::new(runtime, BUSYBOX, program)
    }

    /// A pod with a GPU and a program of `tests/cuda`.
    pub fn cuda(program: &[&str]) -> Self {
        Self::new(Runtime::Vgpu, CUDA, program).option("--annotation").option("vgpu.dev/gpu=1")
    }

    fn new(runtime: Runtime, image: &'static str, program: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("story-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let options = vec!["--runtime".into(), runtime.name().into()];
        Self { name, options, image, program: program.iter().map(|&word| word.into()).collect() }
    }

    /// One more word for `ctr run`.
    pub fn option(mut self, word: &str) -> Self {
        self.options.push(word.into());
        self
    }

    /// Runs it to its end.
    pub fn run(&self) -> Ended {
        self.feed(&[])
    }

    /// Runs it to its end with this standard input.
    pub fn feed(&self, input: &[u8]) -> Ended {
        self.feed_within(input, START)
    }

    /// Runs it to its end, which may be as far away as `limit`.
    pub fn run_within(&self, limit: Duration) -> Ended {
        self.feed_within(&[], limit)
    }

    /// Runs it to its end with a terminal of this size.
    pub fn on_terminal(&self, rows: u16, columns: u16) -> Ended {
        let line = self.clone().option("--tty").line();
        let words: Vec<String> =
            line.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
        let command = format!("stty rows {rows} cols {columns}; exec {}", words.join(" "));
        // script is the terminal; it gives the exit code of what it runs.
        run(&["script", "--quiet", "--return", "--command", &command, "/dev/null"], START)
    }

    fn feed_within(&self, input: &[u8], limit: Duration) -> Ended {
        let line = self.line();
        feed(&line.iter().map(String::as_str).collect::<Vec<_>>(), input, limit)
    }

    fn line(&self) -> Vec<String> {
        let mut line: Vec<String> = ["ctr", "run", "--rm"].map(String::from).to_vec();
        line.extend(self.options.clone());
        line.extend([self.image.into(), self.name.clone()]);
        line.extend(self.program.clone());
        line
    }
}

/// A pod that was started; `ctr` holds its streams. Dropped, it is removed by force.
#[derive(Debug)]
pub struct Running {
    name: String,
    ctr: Child,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
    over: bool,
}

impl Running {
    /// `Node::start`.
    pub fn start(pod: Pod) -> Self {
        let line = pod.line();
        let mut command = Command::new(&line[0]);
        // An open input, so that a program that reads it waits.
        command.args(&line[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut ctr = command.spawn().expect("ctr runs");
        let (stdout, out) = lines_of(ctr.stdout.take().expect("piped"));
        let (stderr, err) = lines_of(ctr.stderr.take().expect("piped"));
        Self { name: pod.name, ctr, stdout, stderr, readers: vec![out, err], over: false }
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the program has written a line with these words, and returns the line.
    pub fn until_line(&mut self, words: &str) -> String {
        let found = until(START, || {
            let line = self.text().lines().find(|line| line.contains(words)).map(String::from);
            line.or_else(|| matches!(self.ctr.try_wait(), Ok(Some(_))).then(String::new))
        });
        match found {
            Some(line) if !line.is_empty() => line,
            _ => panic!("{} never wrote '{words}'; it wrote: {}{}", self.name, self.text(), self.complaint()),
        }
    }

    /// Waits until the program has written two more lines with these words: the first may have been on its way already.
    pub fn until_more_of(&mut self, words: &str) {
        let count = |text: String| text.lines().filter(|line| line.contains(words)).count();
        let wanted = count(self.text()) + 2;
        let more = until(SOON, || (count(self.text()) >= wanted || !self.runs()).then_some(()));
        assert!(
            more.is_some() && self.runs(),
            "{} does not write '{words}' any more; it wrote: {}{}",
            self.name,
            self.text(),
            self.complaint()
        );
    }

    /// What it wrote so far.
    pub fn text(&self) -> String {
        self.stdout.lock().expect("no reader panics").clone()
    }

    /// What it wrote to standard error so far.
    pub fn complaint(&self) -> String {
        self.stderr.lock().expect("no reader panics").clone()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.ctr.try_wait(), Ok(None))
    }

    /// A second program in the container.
    pub fn exec(&self, program: &[&str]) -> Ended {
        exec(&self.name, program)
    }

    /// A second program that is still to be looked at while it runs.
    pub fn exec_beside(&self, program: &'static [&'static str]) -> JoinHandle<Ended> {
        let name = self.name.clone();
        thread::spawn(move || exec(&name, program))
    }

    /// The container's processes, as `ctr task ps` shows them, a line each.
    pub fn processes(&self) -> Vec<String> {
        must(&["ctr", "task", "ps", &self.name]).lines().skip(1).map(String::from).collect()
    }

    /// Sends a signal to the container's first process.
    pub fn signal(&self, signal: &str) {
        self.kill(&["-s", signal, &self.name]);
    }

    /// Sends a signal to the second program.
    pub fn signal_exec(&self, signal: &str) {
        self.kill(&["-s", signal, "--exec-id", EXEC, &self.name]);
    }

    fn kill(&self, words: &[&str]) {
        let ended = run(&[&["ctr", "task", "kill"], words].concat(), START);
        assert_eq!(ended.code, Some(0), "ctr task kill: {}", ended.complaint());
    }

    /// Waits for its end within a limit.
    pub fn end(mut self, limit: Duration) -> Ended {
        let code = wait(&mut self.ctr, limit, &self.name);
        self.over = true;
        for reader in self.readers.drain(..) {
            reader.join().expect("no reader panics");
        }
        Ended { code, stdout: self.text().into_bytes(), stderr: self.complaint().into_bytes() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let _ = self.ctr.kill();
        let _ = self.ctr.wait();
        // ctr could not remove the container, as --rm says: it is dead.
        run(&["ctr", "task", "rm", "-f", &self.name], START);
        run(&["ctr", "container", "rm", &self.name], START);
    }
}

fn exec(name: &str, program: &[&str]) -> Ended {
    run(&[&["ctr", "task", "exec", "--exec-id", EXEC, name], program].concat(), START)
}

/// ctr makes the fifos of a container's streams and leaves them when it gets an error from a task whose shim was killed; with runc's
/// shim as well (containerd 1.7, seen in two of three runs). They are no trace of the pod.
pub fn remove_fifos_of_ctr(name: &str) {
    for dir in fs::read_dir("/run/containerd/fifo").into_iter().flatten().flatten() {
        if dir.path().join(format!("{name}-stdout")).exists() {
            fs::remove_dir_all(dir.path()).expect("the fifos of ctr can be removed");
        }
    }
}
