//! A process of a container made by the OCI helper, with its streams: an init, or an exec.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::timeout;

use super::{host::Host, process::Launched};
use crate::{
    error::{During, GuestError, Result},
    oci::{self, Request, Streams},
    reaper::Claimed,
    stdio::{
        self, Pipes, StdioNames,
        pty::{ConsoleSocket, Master},
    },
};

/// The library has sent the terminal before it answers; this is for the event loop to get to it.
const CONSOLE_LIMIT: Duration = Duration::from_secs(5);

/// What [`launch`] needs to know of a process beyond its request.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// The container's.
    pub directory: &'a Path,
    /// Unique in it.
    pub name: &'a str,
    /// The user of the guest who owns its streams: a program may open `/dev/stdout` only if they are its user's.
    pub owner: u32,
}

/// Opens the streams, runs the helper, and gives the process with its pumps running. A failure leaves no process that was started.
pub async fn launch(
    host: &Host,
    whose: &Whose<'_>,
    names: &StdioNames,
    request: impl FnOnce(Option<PathBuf>) -> Request,
) -> Result<Launched> {
    let opened = stdio::open(host.streams.as_ref(), names)?;
    let answer = whose.directory.join(format!("{}.answer", whose.name));
    if names.terminal {
        let console = ConsoleSocket::bind(&host.layout.run).during(|| "make the console socket".into())?;
        let request = request(Some(console.path().to_owned()));
        let (pid, claimed) = begin(host, &request, &answer, Streams::null()).await?;
        let master = match terminal(&console, whose.owner).await {
            Ok(master) => master,
            Err(error) => {
                claimed.kill();
                return Err(error);
            }
        };
        let pumps = stdio::start_terminal(opened, &master);
        return Ok(Launched { pid, claimed, pumps, master: Some(master) });
    }
    let (pipes, streams) = Pipes::make(opened, whose.owner)?;
    let (pid, claimed) = begin(host, &request(None), &answer, streams).await?;
    Ok(Launched { pid, claimed, pumps: pipes.start(), master: None })
}

/// Has the helper make the process, and claims it.
async fn begin(host: &Host, request: &Request, answer: &Path, streams: Streams) -> Result<(i32, Claimed)> {
    let expecting = host.reaper.expect();
    let ran = oci::run(host, request, answer, streams).await;
    let made = oci::take_pid(answer);
    let claim = |pid| expecting.claim(pid).during(|| format!("watch process {pid}"));
    match (ran, made) {
        (Ok(()), Some(pid)) => Ok((pid, claim(pid)?)),
        (Ok(()), None) => {
            Err(GuestError::Oci { operation: "launch", text: "the library gave no pid".into() })
        }
        // The helper failed, but its process may be about to execute the program, or execute it already.
        (Err(error), Some(pid)) => {
            if let Ok(claimed) = claim(pid) {
                claimed.kill();
            }
            Err(error)
        }
        (Err(error), None) => Err(error),
    }
}

async fn terminal(console: &ConsoleSocket, owner: u32) -> Result<Master> {
    let master = timeout(CONSOLE_LIMIT, console.receive()).await;
    let master = master.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)).flatten();
    let master = master.during(|| "receive the terminal".into())?;
    master.give_to(owner).during(|| "give the terminal to its user".into())?;
    Ok(master)
}
