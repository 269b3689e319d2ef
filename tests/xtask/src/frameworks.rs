//! `cargo xtask test --long frameworks`: what PyTorch and TensorFlow wait for, counted without a GPU. They come from PyPI and run on the
//! null device, which computes nothing: their sequences of driver calls are those of a GPU all the same.

use std::ffi::OsString;
use std::path::Path;

use crate::cache::sorted_entries;
use crate::error::{Context, Failure, Result};
use crate::gpu_suite;
use crate::progress::Steps;
use crate::wheels;

/// A framework and the figures of `tests/gpu` that it must give.
pub struct Framework {
    /// Its unit.
    pub name: &'static str,
    wheels: &'static [&'static str],
    /// Parts of the cases' names. Those that take a decision by what the device computed are left out: it computed nothing.
    cases: &'static str,
    count: usize,
}

/// Each some 5 GB in the cache.
pub const ALL: &[Framework] = &[
    Framework {
        name: "PyTorch",
        wheels: &["torch==2.15.0", "numpy==2.4.6"],
        cases: "counts/mlp,counts/encoder,counts/cnn,counts/graph,counts/pinned,counts/greedy",
        count: 7,
    },
    Framework {
        name: "TensorFlow",
        wheels: &["tensorflow[and-cuda]==2.21.0"],
        cases: "tensorflow_counts/",
        count: 2,
    },
];

/// NVIDIA's libraries among the packages, which TensorFlow looks for where the loader does.
fn libraries(packages: &Path) -> Result<OsString> {
    let folders = sorted_entries(&packages.join("nvidia"))?.into_iter().map(|package| package.join("lib"));
    std::env::join_paths(folders.filter(|folder| folder.is_dir())).context(|| "a path holds a ':'".into())
}

impl Framework {
    /// Counts.
    ///
    /// # Errors
    /// A figure that is too large, or a case that did not run.
    pub fn play(&self, steps: &Steps) -> Result<()> {
        let name = self.name.to_lowercase();
        let installed = steps.step(&format!("{} from PyPI (some 4 GB)", self.name), |log| {
            wheels::with_dependencies(log, &format!("framework-{name}"), self.wheels)
        })?;
        steps.step(&format!("{} on the null device", self.name), |_| {
            let said = gpu_suite::on_null(self.cases, &installed, &libraries(&installed)?)?;
            let wanted = format!("{} passed, 0 failed, 0 skipped", self.count);
            if said.lines().any(|line| line == wanted) {
                return Ok(());
            }
            Err(Failure::new(format!("wanted: {wanted}; the runner said:\n{said}")))
        })
    }
}
