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
