//! Writer of cpio archives in the "newc" form, which Linux takes as initramfs.
//! Source: `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux.

/// What an entry of an archive is.
pub enum Node<'a> {
    /// A directory.
    Dir,
    /// A regular file with its content.
    File(&'a [u8]),
    /// A character device.
    Char { major: u32, minor: u32 },
}

/// An archive that grows in memory. All entries belong to root and have no time, so equal inputs make equal archives.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds `path` (no leading slash; its directories come first) with permission bits `mode`.
    pub fn add(&mut self, path: &str, mode: u32, node: Node<'_>) {
        let (kind, links, content, major, minor): (u32, u32, &[u8], u32, u32) = match node {
            Node::Dir => (0o040_000, 2, &[], 0, 0),
            Node::File(content) => (0o100_000, 1, content, 0, 0),
            Node::Char { major, minor } => (0o020_000, 1, &[], major, minor),
        };
        self.entries += 1;
        self.entry(path, kind | mode, links, content, (major, minor));
    }

    /// Adds one directory, open to all for reading.
    pub fn dir(&mut self, path: &str) {
        self.add(path, 0o755, Node::Dir);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        self.entry("TRAILER!!!", 0, 1, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, content: &[u8], device: (u32, u32)) {
        let fields = [
            self.entries,
            mode,
            0, // uid
            0, // gid
            links,
            0, // mtime
            u32::try_from(content.len()).expect("an initramfs file is far below 4 GiB"),
            0, // the archive's own device
            0,
            device.0,
            device.1,
            u32::try_from(path.len() + 1).expect("a path is short"),
            0, // checksum, unused in this form
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_name_and_content_are_padded_to_four_bytes() {
        let mut archive = Archive::default();
        archive.add("ab", 0o644, Node::File(b"hello"));
        let bytes = archive.finish();
        let head = std::str::from_utf8(&bytes[..110]).expect("hexadecimal text");
        assert_eq!(&head[..22], "07070100000001000081A4");
        assert_eq!(&head[54..62], "00000005");
        assert_eq!(&bytes[110..121], b"ab\0\0\0\0hello");
        assert_eq!(bytes.len() % 4, 0);
    }
}
