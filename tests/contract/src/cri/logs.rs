//! A container's log as containerd writes it for kubelet: "TIME STREAM TAG TEXT" a line. Source: Kubernetes' design of CRI's logs.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::outcome::{Names, Outcome};

/// Of a text that is told whole.
const SHORT: usize = 400;

/// The lines of each stream, in the file and in the one that was put aside. In which order two streams come nobody says.
pub fn lines(log: &Path, names: &Names) -> Outcome {
    let mut outcome = Outcome::new();
    for (name, path) in [("old", log.with_extension("old")), ("log", log.to_owned())] {
        let read = fs::read_to_string(path).unwrap_or_default();
        for stream in ["stdout", "stderr"] {
            let lines: Vec<_> = read.lines().filter_map(|line| of_stream(line, stream, names)).collect();
            outcome.insert(format!("{name} {stream} lines"), json!(lines.len()));
            let lines = lines.into_iter().enumerate();
            outcome.extend(lines.map(|(at, line)| (format!("{name} {stream} {at}"), line)));
        }
    }
    outcome
}

fn of_stream(line: &str, stream: &str, names: &Names) -> Option<Value> {
    let mut fields = line.splitn(4, ' ').skip(1);
    let (of, tag, text) = (fields.next()?, fields.next()?, fields.next()?);
    (of == stream).then(|| json!([tag, short(text.as_bytes(), names)]))
}

/// A short text whole, of a long one its length.
pub fn short(bytes: &[u8], names: &Names) -> Value {
    let text = String::from_utf8_lossy(bytes);
    if text.len() <= SHORT { json!(names.told(&text)) } else { json!(format!("{} bytes", text.len())) }
}
