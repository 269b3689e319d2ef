//! The other end in a process of its own, so that it can be killed.

use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::process::{Command, ExitCode, Stdio};

use idm::stream::{Stream, StreamSpec};
use idm::xen::gntdev::{Recorded, RecordedPart};
use idm::xen::offer::{AcceptedChannel, accept_stream, offer_stream};
use idm::xen::{Access, DomId, GrantRef, Offer};

use crate::channel;
use crate::check::Outcome;

/// Killed and reaped at the latest when dropped.
#[derive(Debug)]
pub struct Child(std::process::Child);

impl Child {
    /// Accepts `offer` and sends everything back.
    pub fn taker(offer: &Offer) -> Outcome<Self> {
        let mut command = command("taker")?;
        command.arg(offer.port.to_string()).args(offer.refs.iter().map(|reference| reference.0.to_string()));
        Ok(Self(command.spawn()?))
    }

    /// Offers a stream and sends everything back.
    pub fn maker() -> Outcome<(Self, Offer)> {
        let mut child = Self(command("maker")?.stdout(Stdio::piped()).spawn()?);
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let mut numbers = line.split_whitespace().map(str::parse);
        let port = numbers.next().ok_or("no port")??;
        let refs: Result<Vec<_>, _> = numbers.map(|number| number.map(GrantRef)).collect();
        Ok((child, Offer { refs: refs?, port }))
    }

    /// Maps `channel` as a worker does: from its two descriptors, here stdin and stdout, and a few numbers.
    pub fn worker(channel: AcceptedChannel) -> Outcome<Self> {
        let part = channel.recorded.parts[0];
        let mut command = command("worker")?;
        command.args([part.index.to_string(), part.pages.to_string(), channel.port.to_string()]);
        Ok(Self(command.stdin(Stdio::from(channel.gntdev)).stdout(Stdio::from(channel.evtchn)).spawn()?))
    }

    pub fn kill(&mut self) -> Outcome {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Waits for its end. `None`: a signal ended it.
    pub fn exit_code(mut self) -> Outcome<Option<i32>> {
        Ok(self.0.wait()?.code())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.kill();
    }
}

fn command(role: &str) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", role]);
    Ok(command)
}

/// What the child does.
pub fn play(words: &[&str]) -> ExitCode {
    let outcome = match words {
        ["taker", port, refs @ ..] => taker(port, refs),
        ["maker"] => maker(),
        ["worker", index, pages, port] => worker(index, pages, port),
        _ => Err("unknown role".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn taker(port: &str, refs: &[&str]) -> Outcome {
    let refs: Result<Vec<_>, _> = refs.iter().map(|number| number.parse().map(GrantRef)).collect();
    let offer = Offer { refs: refs?, port: port.parse()? };
    send_back(&accept_stream(DomId::DOM0, &offer, StreamSpec::default(), None)?)
}

fn maker() -> Outcome {
    let (offer, stream) = offer_stream(DomId::DOM0, StreamSpec::default(), None)?;
    let refs: Vec<String> = offer.refs.iter().map(|reference| reference.0.to_string()).collect();
    println!("{} {}", offer.port, refs.join(" "));
    send_back(&stream)
}

fn send_back(stream: &Stream) -> Outcome {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes, None)? {
            0 => return Ok(()),
            count => stream.write_all(&bytes[..count], None)?,
        }
    }
}

fn worker(index: &str, pages: &str, port: &str) -> Outcome {
    let part = RecordedPart { index: index.parse()?, pages: pages.parse()?, access: Access::ReadWrite };
    channel::worker(AcceptedChannel {
        gntdev: std::io::stdin().as_fd().try_clone_to_owned()?,
        recorded: Recorded { from: DomId::DOM0, parts: vec![part] },
        evtchn: std::io::stdout().as_fd().try_clone_to_owned()?,
        port: port.parse()?,
    })
}
