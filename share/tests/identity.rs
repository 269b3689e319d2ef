//! Numbers of objects: one for each, on however many file systems.

mod client;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use client::{Guest, ROOT};

#[test]
fn two_files_of_one_inode_number_on_two_file_systems_have_two_qids() {
    let ids = ["/proc", "/sys"].map(|path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).unwrap());
    assert!(
        ids[0].0 != ids[1].0 && ids[0].1 == ids[1].1,
        "two file systems, whose roots are inode 1: {ids:?}"
    );
    let mut guest = Guest::attach(Path::new("/"));
    let (first, second) = (guest.qid("proc"), guest.qid("sys"));
    assert_ne!(first.path, second.path);
    assert_eq!(guest.qid("proc"), first, "it stays");
    let fid = guest.find("/").unwrap();
    guest.open(fid, 0).unwrap();
    let entries = guest.entries(fid, 8192).unwrap();
    let told = |name: &[u8]| entries.iter().find(|entry| entry.0 == name).unwrap().1;
    assert_eq!((told(b"proc"), told(b"sys")), (first, second), "a directory tells what is mounted there");
    assert_eq!(
        [told(b"."), told(b"..")],
        [guest.attributes(ROOT).unwrap().qid; 2],
        "above the root is the root"
    );
}

#[test]
fn names_of_one_file_have_one_qid() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("a"), b"").unwrap();
    fs::hard_link(at("a"), at("d/b")).unwrap();
    fs::write(at("c"), b"").unwrap();
    let mut guest = Guest::attach(root.path());
    let qid = guest.qid("a");
    assert_eq!(guest.qid("d/b"), qid);
    assert_ne!(guest.qid("c").path, qid.path);
    fs::rename(at("a"), at("z")).unwrap();
    fs::write(at("a"), b"another").unwrap();
    assert_eq!(guest.qid("z"), qid);
    assert_ne!(guest.qid("a").path, qid.path);
    let fid = guest.find("d").unwrap();
    guest.open(fid, 0).unwrap();
    let entries = guest.entries(fid, 4096).unwrap();
    let up = entries.iter().find(|entry| entry.0 == b"..").unwrap();
    assert_eq!((up.1, entries.iter().find(|entry| entry.0 == b"b").unwrap().1), (guest.qid("/"), qid));
}
