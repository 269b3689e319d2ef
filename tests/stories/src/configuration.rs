//! `/etc/vgpu/config.toml`, changed for one story.

use std::fs;

const FILE: &str = "/etc/vgpu/config.toml";

/// A change; dropped, also when the story fails, the file is as it was.
#[derive(Debug)]
pub struct Changed {
    before: String,
}

impl Changed {
    /// Any change of the text.
    pub fn text(change: impl FnOnce(&str) -> String) -> Self {
        let before = fs::read_to_string(FILE).expect("it is installed");
        fs::write(FILE, change(&before)).expect("Dom0's disk is writable");
        Self { before }
    }

    /// Another value, in TOML, of a key that is there.
    pub fn key(key: &str, value: &str) -> Self {
        Self::text(|text| {
            let prefix = format!("{key} =");
            assert!(text.lines().any(|line| line.starts_with(&prefix)), "{FILE} has no {key}");
            let changed = |line: &str| {
                if line.starts_with(&prefix) { format!("{prefix} {value}") } else { line.into() }
            };
            text.lines().map(changed).collect::<Vec<String>>().join("\n")
        })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let _ = fs::write(FILE, &self.before);
    }
}
