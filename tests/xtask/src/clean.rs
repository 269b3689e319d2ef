//! `cargo xtask clean --cache`: removes what xtask keeps between runs.

use crate::args::Args;
use crate::cache::remove_tree;
use crate::error::{Failure, Result};
use crate::paths;

/// Removes the cache that all clones share. Cargo's own outputs are `cargo clean`'s.
pub fn main(mut args: Args) -> Result<u8> {
    let cache = args.flag("--cache");
    args.end()?;
    if !cache {
        return Err(Failure::new("clean --cache removes the cache; cargo clean removes what cargo built"));
    }
    let dir = paths::cache()?;
    remove_tree(&dir)?;
    eprintln!("removed {}", dir.display());
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The environment belongs to a whole process: the test is played again in one with a cache of its own.
    #[test]
    fn the_cache_goes_and_nothing_beside_it() {
        const INSIDE: &str = "VGPU_XTASK_CLEAN_TEST";
        if let Some(base) = std::env::var_os(INSIDE) {
            let cache = paths::cache().expect("named");
            assert!(cache.starts_with(base) && cache.exists());
            assert!(main(Args::new([])).is_err() && cache.exists(), "nobody said what is to be cleaned");
            assert_eq!(main(Args::new(["--cache".to_string()])).expect("removed"), 0);
            assert_eq!(main(Args::new(["--cache".to_string()])).expect("it was gone"), 0);
            return;
        }
        let base = paths::scratch().expect("scratch").join("clean-test");
        remove_tree(&base).expect("removed");
        for dir in ["vgpu/guest-kernel-1", "vgpu-of-others"] {
            std::fs::create_dir_all(base.join(dir)).expect("made");
        }
        let mut again = Command::new(std::env::current_exe().expect("the test"));
        again.args(["--exact", "clean::tests::the_cache_goes_and_nothing_beside_it"]);
        let ended = again.env(INSIDE, &base).env("XDG_CACHE_HOME", &base).output().expect("it runs");
        let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains("1 passed"), "{said}");
        assert_eq!(crate::cache::sorted_entries(&base).expect("there"), [base.join("vgpu-of-others")]);
    }
}
