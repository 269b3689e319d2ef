//! The other ends of a process's streams, as clients of containerd hold them: `ctr`, nerdctl, kubelet's.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::{
    fs::{CWD, Mode, mkfifoat},
    io::Errno,
};
use tokio::{
    net::unix::pipe::{self, Receiver},
    sync::watch,
    task::JoinHandle,
};

/// Where a process's streams lead. A text is containerd's word for it, with what its own files' names begin with in the place of `*`; one that
/// begins so is a fifo, which containerd makes.
#[derive(Debug, Clone, Copy)]
pub struct Io {
    /// Its input.
    pub stdin: &'static str,
    /// Its output.
    pub stdout: &'static str,
    /// Its errors.
    pub stderr: &'static str,
    /// It has a terminal.
    pub terminal: bool,
}

/// As most clients have it.
pub const FIFOS: Io = Io { stdin: "*fifo-in", stdout: "*fifo-out", stderr: "*fifo-err", terminal: false };
/// With `-it`.
pub const TERMINAL: Io = Io { stdin: "*fifo-in", stdout: "*fifo-out", stderr: "", terminal: true };
/// Nothing.
pub const NONE: Io = Io { stdin: "", stdout: "", stderr: "", terminal: false };

impl Io {
    /// Makes those of the words that are fifos.
    pub(crate) fn make_fifos(self, stem: &str) {
        self.words(stem).iter().filter(|word| word.starts_with(stem)).for_each(|fifo| make_fifo(fifo));
    }

    /// Input, output and errors of the process whose files' names begin with `stem`.
    pub(crate) fn words(self, stem: &str) -> [String; 3] {
        [self.stdin, self.stdout, self.stderr].map(|word| word.replace('*', stem))
    }
}

/// The ends that clients of a case hold, by what the names of a process's files begin with.
#[derive(Debug, Default)]
pub struct Clients(Mutex<BTreeMap<String, Client>>);

#[derive(Debug, Default)]
struct Client {
    terminal: bool,
    input: Option<File>,
    outputs: Vec<Output>,
}

impl Clients {
    /// See [`Step::Listen`](crate::step::Step::Listen).
    pub(crate) fn listen(&self, stem: &str) {
        let outputs = ["out", "err"].map(|name| {
            let fifo = format!("{stem}fifo-{name}");
            make_fifo(&fifo);
            Output::open(&fifo, &format!("{stem}{name}"))
        });
        self.with(stem, |client| client.outputs = outputs.into());
    }

    /// See [`Step::Leave`](crate::step::Step::Leave).
    pub(crate) fn leave(&self, stem: &str) {
        self.with(stem, |client| client.outputs.clear());
    }

    /// See [`Step::Type`](crate::step::Step::Type).
    pub(crate) fn write(&self, stem: &str, text: &str) {
        self.with(stem, |client| {
            let input = client.input.get_or_insert_with(|| {
                let fifo = format!("{stem}fifo-in");
                make_fifo(&fifo);
                // For both, so that it waits for nobody.
                OpenOptions::new().read(true).write(true).open(fifo).expect("a fifo")
            });
            input.write_all(text.as_bytes()).expect("a fifo has room for so little");
        });
    }

    /// See [`Step::HangUp`](crate::step::Step::HangUp).
    pub(crate) fn hang_up(&self, stem: &str) {
        self.with(stem, |client| client.input = None);
    }

    /// Remembers whether it has a terminal, which has one output.
    pub(crate) fn made(&self, stem: &str, io: Io) {
        self.with(stem, |client| client.terminal = io.terminal);
    }

    /// Whether its outputs, which are listened to, end within some time.
    pub(crate) async fn ended(&self, stem: &str, limit: Duration) -> bool {
        let mut ends: Vec<_> = self.with(stem, |client| {
            let outputs = client.outputs.iter().take(if client.terminal { 1 } else { 2 });
            outputs.map(|output| output.ended.clone()).collect()
        });
        let all = async {
            for end in &mut ends {
                end.wait_for(|ended| *ended).await.expect("it is read until it ends");
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    /// What lies in the fifos now is in the files then.
    pub(crate) fn catch_up(&self, stem: &str) {
        self.with(stem, |client| client.outputs.iter().for_each(|output| output.fifo.catch_up()));
    }

    fn with<T>(&self, stem: &str, act: impl FnOnce(&mut Client) -> T) -> T {
        act(self.0.lock().expect("nobody panics with it").entry(stem.into()).or_default())
    }
}

fn make_fifo(path: &str) {
    match mkfifoat(CWD, path, Mode::RWXU) {
        // Who listens before its Create has made it.
        Err(Errno::EXIST) => {}
        made => made.expect("a fifo"),
    }
}

/// A fifo that is read into a file as it comes.
#[derive(Debug)]
struct Output {
    fifo: Arc<Fifo>,
    ended: watch::Receiver<bool>,
    reading: JoinHandle<()>,
}

#[derive(Debug)]
struct Fifo {
    end: Receiver,
    file: Mutex<File>,
}

impl Output {
    fn open(fifo: &str, file: &str) -> Self {
        let end = pipe::OpenOptions::new().open_receiver(fifo).expect("a fifo");
        let file = OpenOptions::new().create(true).append(true).open(file).expect("a file");
        let (tell, ended) = watch::channel(false);
        let fifo = Arc::new(Fifo { end, file: Mutex::new(file) });
        let read = Arc::clone(&fifo);
        let reading = tokio::spawn(async move {
            // Ready, too, when all who wrote have gone; not before there was anybody.
            while read.end.readable().await.is_ok() && !read.take(|bytes| read.end.try_read(bytes)) {}
            tell.send_replace(true);
        });
        Output { fifo, ended, reading }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Fifo {
    /// Reads what there is. Gives whether it has ended.
    fn take(&self, read: impl Fn(&mut [u8]) -> io::Result<usize>) -> bool {
        let mut file = self.file.lock().expect("nobody panics with it");
        let mut bytes = [0; 4096];
        loop {
            match read(&mut bytes) {
                Ok(0) => return true,
                Ok(count) => file.write_all(&bytes[..count]).expect("written"),
                Err(none) if none.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => panic!("a fifo cannot be read: {error}"),
            }
        }
    }

    /// Past the reactor, which may not have heard of it yet.
    fn catch_up(&self) {
        self.take(|bytes| Ok(rustix::io::read(&self.end, bytes)?));
    }
}
