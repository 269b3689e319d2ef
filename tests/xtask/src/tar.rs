//! Writer of tar archives in the POSIX "ustar" form. All entries belong to root and have no time, so equal inputs make equal
//! archives. Source: POSIX.1-2017, `pax`, "ustar Interchange Format".

use crate::error::{Failure, Result};

/// What an entry of an archive is.
pub enum Node<'a> {
    /// A directory.
    Dir,
    /// A regular file with its content.
    File(&'a [u8]),
    /// A symbolic link and where it points.
    Link(&'a str),
}

/// An archive that grows in memory.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    /// Adds `path` (no leading slash) with permission bits `mode`.
    ///
    /// # Errors
    /// A path or a link too long for the form: 255 and 100 bytes.
    pub fn add(&mut self, path: &str, mode: u32, node: Node<'_>) -> Result<()> {
        let (kind, content, target): (u8, &[u8], &str) = match node {
            Node::Dir => (b'5', &[], ""),
            Node::File(content) => (b'0', content, ""),
            Node::Link(to) => (b'2', &[], to),
        };
        let (prefix, name) = split_path(path)?;
        if target.len() > 100 {
            return Err(Failure::new(format!("{path} links to a path longer than 100 bytes")));
        }
        let mut header = [0_u8; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000"); // uid
        put(116, b"0000000"); // gid
        put(124, format!("{:011o}", content.len()).as_bytes());
        put(136, b"00000000000"); // mtime
        put(148, b"        "); // the checksum counts itself as spaces
        put(156, &[kind]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        put(265, b"root");
        put(297, b"root");
        put(345, prefix.as_bytes());
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        Ok(())
    }

    /// The whole archive, with the two empty blocks at its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// Splits a path into the header's prefix (155 bytes) and name (100 bytes).
fn split_path(path: &str) -> Result<(&str, &str)> {
    if path.len() <= 100 {
        return Ok(("", path));
    }
    let fits = path.match_indices('/').find(|&(at, _)| at <= 155 && path.len() - at - 1 <= 100);
    let (at, _) = fits.ok_or_else(|| Failure::new(format!("{path} is too long for a tar archive")))?;
    Ok((&path[..at], &path[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn tar_reads_what_we_write() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(90));
        let mut archive = Archive::default();
        archive.add("dir", 0o755, Node::Dir).expect("short");
        archive.add("dir/file", 0o640, Node::File(b"hello")).expect("short");
        archive.add("dir/link", 0o777, Node::Link("file")).expect("short");
        archive.add(&long, 0o600, Node::File(&[0; 513])).expect("fits in prefix and name");
        let mut tar = Command::new("tar")
            .args(["--numeric-owner", "-tvf", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar runs");
        tar.stdin.take().expect("piped").write_all(&archive.finish()).expect("tar reads");
        let output = tar.wait_with_output().expect("tar ends");
        let listing = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success());
        assert!(listing.contains("-rw-r-----") && listing.contains("dir/link -> file"), "{listing}");
        assert!(listing.contains(&long) && listing.contains(" 513 "), "{listing}");
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused() {
        assert!(Archive::default().add(&"x".repeat(101), 0, Node::Dir).is_err());
    }
}
