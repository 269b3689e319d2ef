//! Documents that a reader can trust: every link between the repository's files leads somewhere.
//!
//! What documents say about code (error codes, coverage of CUDA's calls, defaults) is held by tests beside that code.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Failure, Result};

/// Marks what is to be measured before a document is whole.
const BLANK: &str = "@@";

/// Every relative link in every Markdown file leads to a file, and no place is left to be filled in.
pub fn check(root: &Path) -> Result<()> {
    let mut broken = Vec::new();
    for file in markdown_files(root)? {
        let text = fs::read_to_string(&file).context(|| format!("cannot read {}", file.display()))?;
        if text.contains(BLANK) {
            broken.push(format!("{}: {BLANK}", file.strip_prefix(root).unwrap_or(&file).display()));
        }
        for link in links(&text) {
            let path = link.split('#').next().unwrap_or_default();
            let outside = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if !outside && !file.parent().unwrap_or(root).join(path).exists() {
                broken.push(format!("{}: {link}", file.strip_prefix(root).unwrap_or(&file).display()));
            }
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("links to nowhere, or blanks:\n    {}", broken.join("\n    "))))
    }
}

/// The places of the tests that are not run by default, and why. One that does not say why is a failure.
pub fn ignored_tests(root: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for file in files(root, "rs")? {
        let text = fs::read_to_string(&file).context(|| format!("cannot read {}", file.display()))?;
        found.extend(ignored_in(&file.strip_prefix(root).unwrap_or(&file).display().to_string(), &text)?);
    }
    Ok(found)
}

fn ignored_in(name: &str, text: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some(rest) = line.trim_start().strip_prefix("#[ignore") else { continue };
        let place = format!("{name}:{}", number + 1);
        let reason = rest.split('"').nth(1).filter(|reason| !reason.is_empty());
        let reason = reason.context(|| format!("{place}: the ignored test says no reason"))?;
        found.push((place, reason.to_string()));
    }
    Ok(found)
}

fn markdown_files(root: &Path) -> Result<Vec<PathBuf>> {
    files(root, "md")
}

/// The files with an extension, without build outputs and hidden directories.
fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in crate::cache::sorted_entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() || name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, extension)?);
        } else if path.extension().is_some_and(|ext| ext == extension) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The targets of inline links, outside code.
fn links(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        found.extend(targets.map(String::from));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_test_says_why() {
        let said = ignored_in("a.rs", "#[test]\n    #[ignore = \"needs a GPU\"]\n").expect("a reason");
        assert_eq!(said, [("a.rs:2".to_string(), "needs a GPU".to_string())]);
        for silent in ["#[ignore]", "#[ignore = \"\"]"] {
            assert!(ignored_in("a.rs", silent).is_err(), "{silent}");
        }
    }

    #[test]
    fn links_are_found_in_prose_and_not_in_code() {
        let text = "See [a](a.md) and [`b`](dir/b.md#part).\n```\n[c](c.md)\n```\nand `x[0](d)` too";
        assert_eq!(links(text), ["a.md", "dir/b.md#part"]);
    }
}
