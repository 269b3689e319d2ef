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
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
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
    let cache = paths::cache()?;
    fs::create_dir_all(&cache).context(|| format!("cannot make {}", cache.display()))?;
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
    use super::*;

    #[test]
    fn the_key_depends_on_names_contents_and_their_borders() {
        let one = Inputs::new().add("a", "bc").key();
        assert_eq!(one, Inputs::new().add("a", "bc").key());
        assert_ne!(one, Inputs::new().add("ab", "c").key());
        assert_ne!(one, Inputs::new().add("a", "b").add("", "c").key());
    }
}
