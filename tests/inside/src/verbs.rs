//! What a container's program is asked to do, one function a verb: each says what it did on its output, and fails with an error's name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::{raw, watch::Watcher};

/// For a peer that may not be there.
const LIMIT: Duration = Duration::from_secs(10);
/// What goes through fifos, sockets and mappings.
const WORDS: &[u8] = b"what goes in comes out\n";
/// After the last of what belongs together: an emulated node pauses for seconds.
const QUIET: Duration = Duration::from_secs(5);

/// Answers each connection with its own address, then with what it sends, until somebody ends it.
pub fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    say(&format!("serving {}\n", listener.local_addr()?.port()))?;
    for connection in listener.incoming() {
        let connection = connection?;
        thread::spawn(move || echo(connection));
    }
    Ok(())
}

fn echo(connection: TcpStream) -> io::Result<()> {
    let peer = connection.peer_addr()?;
    let ip = peer.ip().to_canonical();
    (&connection).write_all(format!("{}\n", SocketAddr::new(ip, peer.port())).as_bytes())?;
    io::copy(&mut &connection, &mut &connection)?;
    connection.shutdown(Shutdown::Write)
}

/// Sends words to who serves there and shows all that comes back.
pub fn dial(address: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&address, LIMIT)?;
    connection.set_read_timeout(Some(LIMIT))?;
    connection.write_all(WORDS)?;
    connection.shutdown(Shutdown::Write)?;
    io::copy(&mut connection, &mut io::stdout().lock()).map(drop)
}

/// Touches memory, says so, and keeps it until its input ends.
pub fn eat(mib: usize) -> io::Result<()> {
    let mut eaten = Vec::new();
    for _ in 0..mib {
        // Not zero: pages that nobody wrote are none.
        eaten.push(vec![1u8; 1 << 20]);
    }
    say(&format!("ate {} MiB\n", std::hint::black_box(&eaten).len()))?;
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}

/// Leaves a process behind that holds its output for so many seconds.
pub fn fork_hold_stdout(seconds: u64) -> io::Result<()> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["sleep", &seconds.to_string()]).stdin(Stdio::null()).spawn()?;
    say("left a child\n")
}

/// Words through a fifo and through a socket that it makes in a directory.
pub fn fifo(dir: &Path) -> io::Result<()> {
    let (fifo, socket) = (dir.join("inside.fifo"), dir.join("inside.sock"));
    let outcome = through_fifo(&fifo).and_then(|()| through_socket(&socket));
    for path in [fifo, socket].iter().filter(|path| path.symlink_metadata().is_ok()) {
        fs::remove_file(path)?;
    }
    outcome?;
    say("fifo and socket\n")
}

fn through_fifo(path: &Path) -> io::Result<()> {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)?;
    // Open for both: so nobody is waited for, and the words fit.
    let mut both = OpenOptions::new().read(true).write(true).open(path)?;
    both.write_all(WORDS)?;
    same(&mut both)
}

fn through_socket(path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    let mut near = UnixStream::connect(path)?;
    let (mut far, _) = listener.accept()?;
    near.write_all(WORDS)?;
    same(&mut far)
}

/// Writes a file's start through a shared mapping and reads the file.
pub fn mmap_shared(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    // One of huge pages has whole ones.
    let whole =
        || file.set_len(u64::try_from(rustix::fs::fstatfs(&file)?.f_bsize).map_err(io::Error::other)?);
    file.set_len(WORDS.len() as u64).or_else(|_| whole())?;
    raw::write_shared(&file, WORDS)?;
    same(&mut File::open(path)?)?;
    say("mapped, written and read\n")
}

/// Tells what happens to paths, a line an event, until nothing has happened for a while after something did.
pub fn watch(paths: &[&str]) -> io::Result<()> {
    let watcher = Watcher::of(paths)?;
    say("watching\n")?;
    let mut last = None;
    while last.is_none_or(|last: Instant| last.elapsed() < QUIET) {
        thread::sleep(Duration::from_millis(20));
        for event in watcher.seen()? {
            say(&format!("{event}\n"))?;
            last = Some(Instant::now());
        }
    }
    Ok(())
}

fn same(from: &mut impl Read) -> io::Result<()> {
    let mut read = vec![0; WORDS.len()];
    from.read_exact(&mut read)?;
    if read == WORDS { Ok(()) } else { Err(io::Error::other("other words came out")) }
}

/// A peer that waits for a line has it.
fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()
}
