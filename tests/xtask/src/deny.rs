//! Licences and origins of the outside crates, by the policy in `deny.toml`.
//!
//! cargo-deny does this and knows advisories; it takes ten minutes to compile and its advisories a clone of a database. So the
//! two parts that must hold in every run, licences and origins, are checked here from `cargo tree` and `Cargo.lock`, with
//! cargo-deny's own file as the one policy; where cargo-deny is installed it runs as well.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::dist::cargo;
use crate::error::{Context, Failure, Result};
use crate::paths::WORKSPACES;
use crate::progress::Log;

/// Every crate of the builds and their tests has an allowed licence and comes from crates.io.
pub fn check(log: &Log, root: &Path) -> Result<()> {
    let policy = fs::read_to_string(root.join("deny.toml")).context(|| "cannot read deny.toml".into())?;
    let allowed = allowed_licences(&policy);
    if allowed.is_empty() {
        return Err(Failure::new("deny.toml allows no licence"));
    }
    let clarified = clarifications(&policy);
    let mut refused = BTreeSet::new();
    for workspace in WORKSPACES.iter().map(|folder| root.join(folder)) {
        let mut tree = cargo(
            &workspace,
            &["tree", "--workspace", "--locked", "--edges", "normal,build,dev", "--prefix", "none"],
        );
        let listing = log.output(tree.args(["--format", "{p}|{l}"]))?;
        refused.extend(
            listing.lines().filter(|line| !line_allowed(line, &clarified, &allowed)).map(String::from),
        );
        let lock = workspace.join("Cargo.lock");
        let lock = fs::read_to_string(&lock).context(|| format!("cannot read {}", lock.display()))?;
        let foreign = lock.lines().filter(|line| {
            line.starts_with("source = ")
                && *line != r#"source = "registry+https://github.com/rust-lang/crates.io-index""#
        });
        refused.extend(foreign.map(String::from));
    }
    if refused.is_empty() {
        Ok(())
    } else {
        let refused: Vec<String> = refused.into_iter().collect();
        Err(Failure::new(format!("deny.toml refuses:\n    {}", refused.join("\n    "))))
    }
}

/// The strings of `allow = [...]` under `[licenses]`.
fn allowed_licences(policy: &str) -> Vec<String> {
    let section = policy.split("[licenses]").nth(1).unwrap_or_default();
    let list = section.split("allow = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or_default();
    list.split('"').skip(1).step_by(2).map(String::from).collect()
}

/// Name and expression of each `[[licenses.clarify]]`: crates whose manifest names a file, which somebody has read.
fn clarifications(policy: &str) -> Vec<(String, String)> {
    let value = |block: &str, key: &str| {
        let line =
            block.lines().take_while(|line| !line.starts_with('[')).find(|line| line.starts_with(key))?;
        line.split('"').nth(1).map(String::from)
    };
    let blocks = policy.split("[[licenses.clarify]]\n").skip(1);
    blocks.filter_map(|block| Some((value(block, "name")?, value(block, "expression")?))).collect()
}

/// A line "crate v1.0 (more)|licence"; lines of a crate shown before end in "(*)".
fn line_allowed(line: &str, clarified: &[(String, String)], allowed: &[String]) -> bool {
    let Some((package, licence)) = line.trim_end_matches(" (*)").split_once('|') else {
        return line.is_empty();
    };
    let name = package.split(' ').next().unwrap_or_default();
    let read =
        clarified.iter().find(|(clarified, _)| clarified == name).map(|(_, expression)| expression.as_str());
    expression_allowed(if licence.is_empty() { read.unwrap_or_default() } else { licence }, allowed)
}

/// An SPDX expression; "/" is how old manifests write OR. Source: SPDX 2.3, annex D.
fn expression_allowed(text: &str, allowed: &[String]) -> bool {
    let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let holds = any_of(&words, &mut at, allowed);
    holds && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut holds = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        holds |= all_of(words, at, allowed);
    }
    holds
}

fn all_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut holds = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        holds &= one(words, at, allowed);
    }
    holds
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let holds = any_of(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return holds && closed;
    }
    let mut name = word.to_string();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{word} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> bool {
        expression_allowed(
            text,
            &["MIT".to_string(), "Apache-2.0 WITH LLVM-exception".to_string(), "ISC".to_string()],
        )
    }

    #[test]
    fn expressions_are_judged_as_spdx_says() {
        for good in [
            "MIT",
            "GPL-2.0 OR MIT",
            "MIT/Apache-2.0",
            "(GPL-2.0 OR MIT) AND ISC",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(allowed(good), "{good}");
        }
        for bad in ["GPL-2.0", "MIT AND GPL-2.0", "Apache-2.0", "", "MIT MIT", "(MIT", "MIT AND"] {
            assert!(!allowed(bad), "{bad}");
        }
    }

    #[test]
    fn a_crate_without_an_expression_needs_a_clarification() {
        let policy = "[licenses]\n[[licenses.clarify]]\nname = \"a\"\nexpression = \"ISC\"\n[bans]\n";
        let clarified = clarifications(policy);
        let judge = |line| line_allowed(line, &clarified, &["ISC".to_string()]);
        assert!(judge("a v1.0.0|"));
        assert!(judge("b v1.0.0|ISC (*)"));
        assert!(!judge("b v1.0.0|"));
        assert!(!judge("a v1.0.0|MIT"));
    }

    #[test]
    fn the_list_is_read_from_the_policy() {
        let policy = "[other]\nallow = [\"no\"]\n[licenses]\nallow = [\n  \"MIT\",\n  \"ISC\",\n]\n[bans]\n";
        assert_eq!(allowed_licences(policy), ["MIT", "ISC"]);
    }
}
