//! The mounts of this process's namespace below its root, the last on one place included: it is the one that is seen.

use serde_json::{Value, json};

/// A line of mountinfo. Source: `proc_pid_mountinfo(5)`.
#[derive(Debug)]
pub struct Mount {
    /// What of the file system is mounted.
    pub root: String,
    pub destination: String,
    pub kind: String,
    pub source: String,
    /// Of the mount, sorted.
    pub options: Vec<String>,
    /// Of the file system, sorted.
    pub super_options: Vec<String>,
    /// "shared", "slave" or both; "unbindable"; none of a private one.
    pub propagation: Vec<String>,
}

/// The lines that are of the form they should have.
pub fn parse(table: &str) -> Vec<Mount> {
    table.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Mount> {
    let (of_mount, of_file_system) = line.split_once(" - ")?;
    let mut words = of_mount.split(' ').skip(3);
    let (root, destination) = (unescaped(words.next()?), unescaped(words.next()?));
    let options = sorted(words.next()?);
    // "master:3" is what a slave of group 3 says; where the group is outside "propagate_from:2" stands beside it.
    let propagation = words.filter_map(|word| match word.split(':').next()? {
        "propagate_from" => None,
        "master" => Some("slave".to_owned()),
        other => Some(other.to_owned()),
    });
    let propagation = propagation.collect();
    let mut words = of_file_system.split(' ');
    let (kind, source) = (words.next()?.to_owned(), unescaped(words.next()?));
    Some(Mount {
        root,
        destination,
        kind,
        source,
        options,
        super_options: sorted(words.next()?),
        propagation,
    })
}

fn sorted(options: &str) -> Vec<String> {
    let mut options: Vec<String> = options.split(',').map(unescaped).collect();
    options.sort();
    options
}

/// "\040" is a space: what is three octal digits behind a backslash is that byte.
fn unescaped(word: &str) -> String {
    let mut parts = word.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[3..]);
            }
            None => {
                bytes.push(b'\\');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn seen(table: &str) -> Value {
    let seen = |mount: Mount| {
        json!({
            "destination": mount.destination, "type": mount.kind, "source": mount.source, "root": mount.root,
            "options": mount.options, "super_options": mount.super_options, "propagation": mount.propagation,
        })
    };
    parse(table).into_iter().map(seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_brought_into_one_form() {
        let table = "36 35 98:0 /mnt1 /a\\040b rw,noatime,nodev master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue\n\
                     37 35 0:5 / /c ro shared:4 master:9 - tmpfs tmp\\134x rw\nno mount\n";
        let mounts = parse(table);
        let [one, two] = &mounts[..] else { panic!("two mounts: {mounts:?}") };
        assert_eq!((&*one.root, &*one.destination, &*one.kind), ("/mnt1", "/a b", "ext3"));
        assert_eq!(one.options, ["noatime", "nodev", "rw"]);
        assert_eq!(one.super_options, ["errors=continue", "rw"]);
        assert_eq!(one.propagation, ["slave"]);
        assert_eq!(
            (&*two.source, &two.propagation[..]),
            ("tmp\\x", &["shared".to_owned(), "slave".to_owned()][..])
        );
    }

    #[test]
    fn a_backslash_that_begins_no_byte_stays() {
        assert_eq!(unescaped("a\\999b\\04"), "a\\999b\\04");
    }
}
