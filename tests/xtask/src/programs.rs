//! The CUDA programs of `tests/cuda` over the `local` transport, by the way that `cargo xtask gpu` takes: seconds, no Xen.
//!
//! Each program is one test. What it must do stands in [`ON_SOFT`] and [`ON_NULL`]; a program that stands nowhere is a failure,
//! so that none is forgotten.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::cache::sorted_entries;
use crate::cuda_programs;
use crate::error::{Context, Failure, Result};
use crate::faults;
use crate::gpu::{Programs, Served, code_of};
use crate::progress::Steps;
use crate::tally::Tally;

/// A program that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// What is run, and how it has to end.
struct Case {
    words: &'static [&'static str],
    code: u8,
    /// Whether it has to say `NAME: ok` on a line.
    says_ok: bool,
    /// Parts of other lines, in the order in which they have to come: standard output, then standard error.
    lines: &'static [&'static str],
}

const fn right(words: &'static [&'static str]) -> Case {
    Case { words, code: 0, says_ok: true, lines: &[] }
}

/// The software GPU computes: every program has to be right.
const ON_SOFT: &[Case] = &[
    right(&["vector_add"]),
    right(&["saxpy"]),
    right(&["reduce"]),
    right(&["matmul_tiled"]),
    right(&["histogram"]),
    Case { lines: &["features: hello from the GPU, 9 and 2.25", "features: ok"], ..right(&["features"]) },
    Case {
        lines: &[
            "kernel_assert: before",
            "kernel_assert: thread 0 of block 0",
            "kernel_assert: thread 1 of block 0",
            "kernel_assert: thread 2 of block 0",
            "kernel_assert: after",
            "kernel_assert: about to fail",
            "kernel_assert: ok",
            // Standard error, which is shown last.
            "block: [0,0,0], thread: [0,0,0] Assertion `number != 7` failed.",
        ],
        ..right(&["kernel_assert"])
    },
    right(&["math"]),
    right(&["device_query"]),
    right(&["memory_info"]),
    right(&["driver_raw"]),
    right(&["driver_wide"]),
    right(&["launches"]),
    right(&["graphs"]),
    right(&["graph_nodes"]),
    right(&["graph_conditional"]),
    right(&["green"]),
    right(&["arrays"]),
    right(&["textures"]),
    right(&["texref"]),
    right(&["driver_more"]),
    Case { lines: &["driver_rest: 1 lines of a call that failed"], ..right(&["driver_rest"]) },
    right(&["jit_twice"]),
    right(&["nvml_query"]),
    right(&["driver_threads"]),
    right(&["steps"]),
    right(&["shares"]),
    Case { lines: &["pinned: kernels reach pinned memory", "pinned: ok"], ..right(&["pinned", "answers"]) },
    right(&["managed", "answers"]),
    right(&["managed_variables", "answers"]),
    right(&["managed_variables_90"]),
    right(&["prefetch_batch"]),
    right(&["vmm"]),
    right(&["ipc"]),
    right(&["pool_ipc"]),
    right(&["pools"]),
    Case { words: &["peers"], code: 77, says_ok: false, lines: &["peers: NOT TRIED: there is 1 device"] },
    right(&["oob_store"]),
    right(&["cudart_init_12"]),
    right(&["cudart_init_13"]),
    right(&["spin", "1"]),
    Case {
        words: &["exit7"],
        code: 7,
        says_ok: false,
        lines: &["exit7: leaving with the 7 that the GPU wrote"],
    },
];
/// With several devices.
const ON_TWO: &[Case] = &[
    right(&["peers"]),
    right(&["device_query"]),
    right(&["nvml_query"]),
    right(&["vmm"]),
    right(&["ipc"]),
    right(&["pool_ipc"]),
    right(&["pools"]),
];
/// Played together, see [`patterns`], and compared with a table, see [`wrong_calls`].
const OTHERWISE: [&str; 3] = ["pattern_plant", "pattern_probe", "faults"];
/// The null device computes nothing: what looks at no result has to be right, and a result has to be missed.
const ON_NULL: &[Case] = &[
    right(&["device_query"]),
    right(&["memory_info"]),
    right(&["nvml_query"]),
    right(&["steps", "counts"]),
    right(&["spin", "1"]),
    Case { words: &["vector_add"], code: 1, says_ok: false, lines: &[] },
    Case { words: &["exit7"], code: 0, says_ok: false, lines: &[] },
];

/// The part `programs` of `cargo xtask test`.
pub fn part(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let dir = cuda_programs::build(steps)?;
    let programs = Programs::find()?;
    tally.check("programs: all are played", all_are_played(&dir));
    steps.step("CUDA programs on this machine", |_| {
        for (device, count, cases) in [("soft", "1", ON_SOFT), ("null", "1", ON_NULL), ("soft", "2", ON_TWO)]
        {
            let served = Served::start(&programs, device, count)?;
            let named = if count == "1" { device.to_owned() } else { format!("{count} of {device}") };
            for case in cases {
                let outcome = play(&served, &dir, case);
                tally.check(&format!("{} on {named}", case.words.join(" ")), outcome);
            }
            if named == "soft" {
                tally.check("pattern_probe beside pattern_plant on soft", patterns(&served, &dir));
                tally.check(
                    "faults on soft: as recorded",
                    wrong_calls(&served, &dir, "1", faults::is_as_recorded),
                );
                tally.check("faults on soft, queued", wrong_calls(&served, &dir, "0", faults::is_survived));
            }
        }
        Ok(())
    })
}

fn all_are_played(dir: &Path) -> Result<()> {
    for entry in sorted_entries(dir)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_known = OTHERWISE.contains(&name.as_str()) || ON_SOFT.iter().any(|case| case.words[0] == name);
        if entry.is_file() && !is_known {
            return Err(Failure::new(format!("{name} is in no list of programs.rs")));
        }
    }
    Ok(())
}

fn play(served: &Served, dir: &Path, case: &Case) -> Result<()> {
    let (code, said) = run(&mut command(served, dir, case.words)?)?;
    let wrong = |what: String| Err(Failure::new(format!("{what}; it said:\n{said}\n{}", served.log())));
    if code != case.code {
        return wrong(format!("exit code {code}, not {}", case.code));
    }
    // `cudart_init_12` calls itself by its source's name.
    let name = case.words[0].trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    let ok = [case.words[0], name].map(|name| format!("{name}: ok"));
    if case.says_ok && !said.lines().any(|line| ok.iter().any(|ok| line.starts_with(ok))) {
        return wrong(format!("no line '{}'", ok[0]));
    }
    let mut rest = said.lines();
    for expected in case.lines {
        if !rest.any(|line| line.contains(expected)) {
            return wrong(format!("no line '{expected}', or not in its place"));
        }
    }
    Ok(())
}

/// One process plants a pattern and says where; another tries the first one's addresses and handles, and the first finds it whole.
fn patterns(served: &Served, dir: &Path) -> Result<()> {
    let mut planter = command(served, dir, &["pattern_plant"])?;
    let planter = planter.stdout(Stdio::piped()).spawn().context(|| "cannot run pattern_plant".into())?;
    let mut planter = Ended(planter);
    let said = planter.0.stdout.take().context(|| "pattern_plant has no output".into())?;
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more when the test is over.
        BufReader::new(said).lines().map_while(std::io::Result::ok).try_for_each(|line| tell.send(line))
    });
    let line = told.recv_timeout(LIMIT).context(|| "pattern_plant says nothing".into())?;
    let words = probe_of(&line)?;
    let (code, said) = run(&mut command(served, dir, &words)?)?;
    if code != 0 {
        return Err(Failure::new(format!("exit code {code}; it said:\n{said}")));
    }
    // Two looks more: the first may have begun before the probe's last try.
    let mut last = told.try_iter().last();
    for _ in 0..2 {
        let next = told.recv_timeout(LIMIT).ok();
        if !next.as_ref().is_some_and(|line| line.contains("whole")) {
            return Err(Failure::new(format!("pattern_plant was hurt: {last:?}, then {next:?}")));
        }
        last = next;
    }
    Ok(())
}

/// Wrong calls of every kind, with each waited for (`waits`) or queued.
fn wrong_calls(
    served: &Served,
    dir: &Path,
    waits: &str,
    judge: impl FnOnce(&str) -> Result<()>,
) -> Result<()> {
    let (code, said) = run(command(served, dir, &["faults"])?.env("VGPU_SYNC", waits))?;
    if code != 0 {
        return Err(Failure::new(format!("exit code {code}; it said:\n{said}")));
    }
    judge(&said)
}

/// The probe's words from the planter's line. The probe would take what is no number for 0, whose use proves nothing.
fn probe_of(line: &str) -> Result<Vec<&str>> {
    let (_, values) =
        line.split_once("planted ").context(|| format!("pattern_plant planted nothing: {line}"))?;
    let values: Vec<&str> = values.split_whitespace().collect();
    if let Some(other) = values.iter().find(|value| **value != "handles" && !value.starts_with("0x")) {
        return Err(Failure::new(format!("pattern_plant planted {other}, no address and no handle: {line}")));
    }
    Ok([&["pattern_probe"], &values[..]].concat())
}

fn command(served: &Served, dir: &Path, words: &[&str]) -> Result<Command> {
    let program = dir.join(words[0]);
    let mut line = vec![program.as_os_str()];
    line.extend(words[1..].iter().map(std::ffi::OsStr::new));
    served.command(&line)
}

/// A process that is killed when it is not needed any more.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end: its exit code and all that it said.
fn run(command: &mut Command) -> Result<(u8, String)> {
    let name = format!("{:?}", command.get_program());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Ended(child.context(|| format!("cannot run {name}"))?);
    let readers = [reader(child.0.stdout.take()), reader(child.0.stderr.take())];
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait().context(|| format!("cannot wait for {name}"))? {
            break status;
        }
        if started.elapsed() > LIMIT {
            return Err(Failure::new(format!("{name} is not over after {} s", LIMIT.as_secs())));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let said = readers.map(|reader| reader.join().unwrap_or_default()).concat();
    Ok((code_of(status), said))
}

fn reader(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut all = Vec::new();
        // What was read before an error is still worth showing.
        let _ = from.map(|mut from| from.read_to_end(&mut all));
        String::from_utf8_lossy(&all).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_given_numbers_only() {
        let words = probe_of("pattern_plant: planted 0x70 0x80 handles 0x1\n").expect("as it is planted");
        assert_eq!(words, ["pattern_probe", "0x70", "0x80", "handles", "0x1"]);
        for planted in ["planted 0x70 handles (nil)", "planted 112 handles 0x1", "nothing"] {
            assert!(probe_of(planted).is_err(), "{planted}");
        }
    }
}
