//! Files: what they are, and whether this process may read and write them, by doing it.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::failed;
use crate::errors;

/// How deep `/dev` is looked through: `/dev/net/tun` and the like.
const DEPTH: u32 = 2;

/// What lies below `/dev`, by names.
pub fn below_dev() -> Value {
    let mut found = Vec::new();
    below(Path::new("/dev"), DEPTH, &mut found);
    found.sort();
    let seen = |path: PathBuf| match fs::symlink_metadata(&path) {
        Ok(file) => {
            let mut seen = described(&file);
            if let Ok(target) = fs::read_link(&path) {
                seen["target"] = json!(target.to_string_lossy());
            }
            (path.to_string_lossy().into_owned(), seen)
        }
        Err(error) => (path.to_string_lossy().into_owned(), failed(error)),
    };
    found.into_iter().map(seen).collect::<serde_json::Map<_, _>>().into()
}

fn below(dir: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries {
        if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), depth - 1, found);
        }
        found.push(entry.path());
    }
}

fn described(file: &Metadata) -> Value {
    let kind = file.file_type();
    let kinds = [
        ("file", kind.is_file()),
        ("directory", kind.is_dir()),
        ("link", kind.is_symlink()),
        ("char", kind.is_char_device()),
        ("block", kind.is_block_device()),
        ("fifo", kind.is_fifo()),
        ("socket", kind.is_socket()),
    ];
    let name = kinds.iter().find(|(_, is)| *is).map_or("unknown", |(name, _)| name);
    let mut described = json!({
        "kind": name, "mode": format!("{:04o}", file.mode() & 0o7777), "uid": file.uid(), "gid": file.gid(),
    });
    if kind.is_char_device() || kind.is_block_device() {
        described["major"] = json!(rustix::fs::major(file.rdev()));
        described["minor"] = json!(rustix::fs::minor(file.rdev()));
    }
    described
}

/// What a path leads to, and whether it is read and written.
pub fn probe(path: &str) -> Value {
    let path = Path::new(path);
    let file = match fs::metadata(path) {
        Ok(file) => file,
        Err(error) => return failed(error),
    };
    let mut seen = described(&file);
    if file.is_dir() {
        let entries = fs::read_dir(path).map(Iterator::count);
        seen["entries"] = entries.as_ref().map_or(Value::Null, |count| json!(count));
        seen["read"] = json!(errors::outcome(entries));
        seen["write"] = json!(errors::outcome(makes_a_file(path)));
    } else {
        seen["read"] = json!(errors::outcome(read_a_byte(path)));
        seen["write"] = json!(errors::outcome(opened(path, OpenOptions::new().write(true))));
    }
    seen
}

/// Without waiting for a fifo's other end.
fn opened(path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    how.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Some files may be opened and not be read.
fn read_a_byte(path: &Path) -> io::Result<usize> {
    opened(path, OpenOptions::new().read(true))?.read(&mut [0])
}

/// A new file, gone again. Not tried where the mount forbids it: procfs says of any name that there is none.
fn makes_a_file(dir: &Path) -> io::Result<()> {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK)?;
    let path = dir.join(format!(".inside-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&path)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_written_by_a_file_that_is_gone_again() {
        let dir = tempfile::tempdir().unwrap();
        let seen = probe(dir.path().to_str().unwrap());
        assert_eq!(
            (&seen["kind"], &seen["write"], &seen["entries"]),
            (&json!("directory"), &json!("ok"), &json!(0))
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_there_and_what_is_a_device_is_told() {
        assert_eq!(probe("/nowhere/at/all"), json!({"error": "ENOENT"}));
        let null = probe("/dev/null");
        assert_eq!((&null["kind"], &null["major"], &null["minor"]), (&json!("char"), &json!(1), &json!(3)));
        assert_eq!((&null["read"], &null["write"]), (&json!("ok"), &json!("ok")));
    }

    #[test]
    fn a_fifo_that_nobody_reads_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let seen = probe(path.to_str().unwrap());
        assert_eq!((&seen["kind"], &seen["write"]), (&json!("fifo"), &json!("ENXIO")));
    }
}
