//! Artifacts that are slow to make, kept by the content of what they are made from.
//!
//! An artifact is a directory `NAME-<hash of its inputs>` in the cache. It is made beside its place under a lock and renamed
//! into it, so that a directory that exists is whole, and two clones may run side by side.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use crate::error::{Context, Result};
use crate::paths;

/// The inputs of an artifact, hashed in order.
#[derive(Default)]
pub struct Inputs(Sha256);

impl Inputs {
    /// No inputs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes under a name, so that two inputs cannot be mistaken for one.
    pub fn add(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.0.update(format!("{name}\0{}\0", content.len()));
        self.0.update(content);
        self
    }

    /// Adds a file's content, or that of every file below a directory.
    pub fn add_path(self, path: &Path) -> Result<Self> {
        self.add_tree(path, path)
    }

    fn add_tree(mut self, base: &Path, path: &Path) -> Result<Self> {
        if path.is_dir() {
            for child in sorted_entries(path)? {
                self = self.add_tree(base, &child)?;
            }
            return Ok(self);
        }
        let content = fs::read(path).context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(base).unwrap_or(path);
        Ok(self.add(&name.to_string_lossy(), content))
    }

    fn key(self) -> String {
        hex(&self.0.finalize())[..16].to_string()
    }
}

/// The files of a directory in a fixed order.
pub fn sorted_entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).context(|| format!("cannot list {}", dir.display()))?;
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.context(|| format!("cannot list {}", dir.display()))?;
    paths.sort();
    Ok(paths)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where the artifact `name` of these inputs is, if it was made before.
pub fn find(name: &str, inputs: Inputs) -> Result<Option<PathBuf>> {
    let dir = paths::cache()?.join(format!("{name}-{}", inputs.key()));
    Ok(dir.is_dir().then_some(dir))
}

/// The artifact `name` of these inputs; `make` fills the empty directory it is given if the artifact is not there.
/// Waits for another process that makes an artifact of the same name.
pub fn get(name: &str, inputs: Inputs, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    get_in(&paths::cache()?, name, inputs, make)
}

fn get_in(
    cache: &Path,
    name: &str,
    inputs: Inputs,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    fs::create_dir_all(cache).context(|| format!("cannot make {}", cache.display()))?;
    let place = cache.join(format!("{name}-{}", inputs.key()));
    if place.is_dir() {
        return Ok(place);
    }
    let lock_path = cache.join(format!("{name}.lock"));
    let lock = File::create(&lock_path).context(|| format!("cannot open {}", lock_path.display()))?;
    lock.lock().context(|| format!("cannot lock {}", lock_path.display()))?;
    if place.is_dir() {
        return Ok(place);
    }
    let new = cache.join(format!("{name}.new"));
    remove_tree(&new)?;
    fs::create_dir_all(&new).context(|| format!("cannot make {}", new.display()))?;
    make(&new)?;
    fs::rename(&new, &place).context(|| format!("cannot move {} into its place", new.display()))?;
    Ok(place)
}

/// What one task asks for at several places: the first who asks has it made, others wait for it, and a failure is not tried again.
pub struct Once(OnceLock<Result<PathBuf>>);

impl Once {
    /// Not asked for yet.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Where it is.
    pub fn get(&self, make: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
        self.0.get_or_init(make).clone()
    }
}

/// Removes a directory and all below it; nothing there is fine.
pub fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(cause).context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::error::Failure;

    /// An empty cache.
    fn empty(name: &str) -> PathBuf {
        let cache = paths::scratch().expect("scratch").join(name);
        remove_tree(&cache).expect("removed");
        cache
    }

    fn of(input: &str) -> Inputs {
        Inputs::new().add("input", input)
    }

    #[test]
    fn an_artifact_is_made_once_and_again_when_its_inputs_change() {
        let (cache, made) = (empty("cache-once-test"), Cell::new(0));
        let get = |input: &str| {
            let make = |dir: &Path| {
                made.set(made.get() + 1);
                fs::write(dir.join("file"), input).context(|| "cannot write".into())
            };
            let place = get_in(&cache, "artifact", of(input), make).expect("made or there");
            assert_eq!(fs::read_to_string(place.join("file")).expect("there"), input);
            place
        };
        let first = get("one");
        assert_eq!((get("one"), made.get()), (first.clone(), 1));
        assert_ne!(get("two"), first);
        assert_eq!((get("one"), made.get()), (first, 2));
    }

    #[test]
    fn what_fails_on_its_way_is_no_artifact_and_is_begun_anew() {
        let cache = empty("cache-failure-test");
        let fails = |dir: &Path| {
            fs::write(dir.join("half"), "").expect("written");
            Err(Failure::new("as this test wants it"))
        };
        assert!(get_in(&cache, "artifact", of("one"), fails).is_err());
        let make = |dir: &Path| {
            assert!(sorted_entries(dir).expect("listed").is_empty(), "the failed one's file");
            Ok(())
        };
        let place = get_in(&cache, "artifact", of("one"), make).expect("made by the second try");
        assert!(place.is_dir() && !cache.join("artifact.new").exists());
    }

    #[test]
    fn a_second_clone_waits_for_the_first_and_takes_what_it_has_made() {
        let cache = empty("cache-clones-test");
        let slow = |dir: &Path| {
            thread::sleep(Duration::from_millis(200));
            fs::write(dir.join("file"), "").context(|| "cannot write".into())
        };
        let other = thread::spawn({
            let cache = cache.clone();
            move || get_in(&cache, "artifact", of("one"), slow)
        });
        while !cache.join("artifact.new").exists() {
            thread::sleep(Duration::from_millis(1));
        }
        let place = get_in(&cache, "artifact", of("one"), |_| panic!("made twice")).expect("the other's");
        assert!(place.join("file").exists());
        assert_eq!(other.join().expect("no panic").expect("made"), place);
    }

    #[test]
    fn the_key_depends_on_names_contents_and_their_borders() {
        let one = Inputs::new().add("a", "bc").key();
        assert_eq!(one, Inputs::new().add("a", "bc").key());
        assert_ne!(one, Inputs::new().add("ab", "c").key());
        assert_ne!(one, Inputs::new().add("a", "b").add("", "c").key());
    }
}
