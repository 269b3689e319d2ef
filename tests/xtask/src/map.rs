//! ARCHITECTURE.md's table of crates, held against their manifests: each crate has its row, with what it uses of ours. And that tokio
//! stays out of what a program or a worker is made of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::cache::sorted_entries;
use crate::dist::cargo;
use crate::error::{Context, Failure, Result};
use crate::paths::WORKSPACES;
use crate::progress::Log;

/// Crates that neither use tokio nor get it from below. A worker is made of the last, of `idm`, and of [`WORKER`].
const WITHOUT_TOKIO: [&str; 3] = ["libvgpu", "libvgpu-nvml", "vgpu-soft"];
/// The modules of a worker: its program is the supervisor's, whose crate has tokio.
const WORKER: [&str; 2] = ["gpu-proxy/src/worker", "gpu-proxy/src/device"];

/// A crate, as the table or its manifest has it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    folder: String,
    name: String,
    uses: BTreeSet<String>,
}

/// The table has what the manifests say.
pub fn check_table(root: &Path) -> Result<()> {
    let read = |file: &str| {
        let path = root.join(file);
        fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))
    };
    let told = rows(&read("ARCHITECTURE.md")?);
    let mut folders = members(&read("Cargo.toml")?);
    folders.extend(WORKSPACES.iter().filter(|folder| **folder != ".").map(|folder| folder.to_string()));
    let manifests: Result<Vec<_>> =
        folders.into_iter().map(|folder| Ok((read(&format!("{folder}/Cargo.toml"))?, folder))).collect();
    compare(&told, &crates(&manifests?))
}

fn compare(told: &BTreeSet<Row>, real: &BTreeSet<Row>) -> Result<()> {
    if told == real && !real.is_empty() {
        return Ok(());
    }
    let (wrong, right): (Vec<_>, Vec<_>) = (told.difference(real).collect(), real.difference(told).collect());
    Err(Failure::new(format!("ARCHITECTURE.md, \"Crates\", says {wrong:#?}, the manifests {right:#?}")))
}

/// The table's rows: `crate`, `folder/`, what it is, what it may use.
fn rows(map: &str) -> BTreeSet<Row> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let (name, folder) = (cells.next()?.trim_matches('`'), cells.next()?.trim_matches('`'));
        let uses = cells.nth(1)?.trim_end_matches(" |");
        let uses = uses.split(", ").filter(|uses| *uses != "nothing").map(String::from).collect();
        Some(Row { folder: folder.trim_end_matches('/').into(), name: name.into(), uses })
    };
    let table = map.split("\n## ").find(|section| section.starts_with("Crates\n")).unwrap_or_default();
    table.lines().filter_map(row).collect()
}

/// The folders of the workspace's members.
fn members(manifest: &str) -> Vec<String> {
    let list =
        manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or_default();
    list.split('"').skip(1).step_by(2).map(String::from).collect()
}

/// Of manifests and their folders: each crate, and which of the others it uses. What only tests use doesn't count.
fn crates(manifests: &[(String, String)]) -> BTreeSet<Row> {
    let name = |manifest: &str| manifest.split("\nname = \"").nth(1)?.split('"').next().map(String::from);
    let ours: BTreeSet<String> = manifests.iter().filter_map(|(manifest, _)| name(manifest)).collect();
    let row = |(manifest, folder): &(String, String)| {
        let sections = manifest.split("\n[").filter(|section| {
            let title = section.split(']').next().unwrap_or_default();
            title.ends_with("dependencies") && !title.ends_with("dev-dependencies")
        });
        let keys = sections
            .flat_map(|section| section.lines().skip(1))
            .filter_map(|line| line.split([' ', '.']).next());
        let uses = keys.filter(|key| ours.contains(*key)).map(String::from).collect();
        Some(Row { folder: folder.clone(), name: name(manifest)?, uses })
    };
    manifests.iter().filter_map(row).collect()
}

/// Neither libvgpu nor a worker has tokio.
pub fn check_tokio(log: &Log, root: &Path) -> Result<()> {
    let mut tree = cargo(root, &["tree", "--locked", "--edges", "normal", "--prefix", "none"]);
    let tree = log.output(tree.args(WITHOUT_TOKIO.iter().flat_map(|name| ["--package", name])))?;
    without_tokio_below(&tree)?;
    WORKER.iter().try_for_each(|folder| without_tokio_in(&root.join(folder)))
}

/// Lines "crate v1.0 (more)".
fn without_tokio_below(tree: &str) -> Result<()> {
    let has = |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    if let Some(missing) = WITHOUT_TOKIO.iter().chain(&["idm"]).find(|name| !has(name)) {
        return Err(Failure::new(format!("cargo tree does not show {missing}")));
    }
    if has("tokio") { Err(Failure::new(format!("tokio is below {WITHOUT_TOKIO:?}"))) } else { Ok(()) }
}

/// Bytes, not text: machine code lies among the sources of tests.
fn without_tokio_in(path: &Path) -> Result<()> {
    if path.is_dir() {
        return sorted_entries(path)?.iter().try_for_each(|entry| without_tokio_in(entry));
    }
    let bytes = fs::read(path).context(|| format!("cannot read {}", path.display()))?;
    if bytes.windows(b"tokio".len()).any(|name| name == b"tokio") {
        return Err(Failure::new(format!("{} names tokio", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "# map\n\n## Crates\n| crate | folder | what it is | may use |\n|---|---|---|---|\n\
                       | `a` | `a/` | one, and more | nothing |\n| `b` | `x/b/` | two | a |\n\n## Paths\n";

    fn manifests(of_b: &str) -> Vec<(String, String)> {
        let a = "[package]\nname = \"a\"\n\n[dependencies]\nlibc = \"1\"\n";
        let b = format!("[package]\nname = \"b\"\n\n{of_b}\n");
        vec![(a.into(), "a".into()), (b, "x/b".into())]
    }

    #[test]
    fn a_table_that_differs_from_the_manifests_is_wrong() {
        let told = rows(MAP);
        for right in ["[dependencies]\na.workspace = true", "[build-dependencies]\na = { path = \"../a\" }"] {
            compare(&told, &crates(&manifests(right))).expect("as the table says");
        }
        for wrong in ["[dependencies]\nlibc = \"1\"", "[dev-dependencies]\na.workspace = true"] {
            assert!(compare(&told, &crates(&manifests(wrong))).is_err(), "{wrong}");
        }
        assert!(
            compare(&told, &crates(&manifests("[dependencies]\na = \"1\"")[..1])).is_err(),
            "a row too many"
        );
        assert!(compare(&rows(""), &crates(&[])).is_err(), "nothing was read");
        assert_eq!(members("members = [\n    \"a\",\n    \"x/b\", \"c\",\n]\n"), ["a", "x/b", "c"]);
    }

    #[test]
    fn tokio_is_seen_below_and_inside() {
        let tree = "libvgpu v0.1.0 (/x)\nlibvgpu-nvml v0.1.0 (/w)\nidm v0.1.0 (/y)\nvgpu-soft v0.1.0 (/z)\ntokio-macros v1\n";
        without_tokio_below(tree).expect("another crate");
        assert!(without_tokio_below(&format!("{tree}tokio v1.54.1\n")).is_err());
        assert!(without_tokio_below("").is_err(), "nothing was read");
        let root = crate::paths::root().expect("here");
        assert!(without_tokio_in(&root.join("gpu-proxy/src/supervisor")).is_err());
        without_tokio_in(&root.join("gpu-proxy/src/device/survey/managed/tests/nvcc.cubin"))
            .expect("not text");
    }
}
