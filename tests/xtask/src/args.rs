//! The command line: words, `--name value`, `--flag`. What nobody asked for is refused.

use crate::error::{Context, Failure, Result};

/// What the user wrote and nobody has taken yet.
pub struct Args {
    words: Vec<String>,
}

impl Args {
    /// The words after the program's name.
    pub fn new(words: impl IntoIterator<Item = String>) -> Self {
        Self { words: words.into_iter().collect() }
    }

    /// The next word that is no option; options meant for a program of the user's stay with it.
    pub fn word(&mut self, what: &str) -> Result<String> {
        self.optional_word()?.context(|| format!("{what} is missing; see cargo xtask help"))
    }

    /// The next word, if there is one.
    pub fn optional_word(&mut self) -> Result<Option<String>> {
        match self.words.first() {
            None => Ok(None),
            Some(word) if word.starts_with('-') => {
                Err(Failure::new(format!("unknown option {word}; see cargo xtask help")))
            }
            Some(_) => Ok(Some(self.words.remove(0))),
        }
    }

    /// Whether `--name` was given before the first word.
    pub fn flag(&mut self, name: &str) -> bool {
        let found = self.option_at(name);
        if let Some(at) = found {
            self.words.remove(at);
        }
        found.is_some()
    }

    /// The value of `--name value`, given before the first word.
    pub fn value(&mut self, name: &str) -> Result<Option<String>> {
        let Some(at) = self.option_at(name) else { return Ok(None) };
        if at + 1 >= self.words.len() {
            return Err(Failure::new(format!("{name} wants a value")));
        }
        self.words.remove(at);
        Ok(Some(self.words.remove(at)))
    }

    /// The value of `--name number`.
    pub fn number(&mut self, name: &str) -> Result<Option<u32>> {
        let value = self.value(name)?;
        value.map(|text| text.parse().context(|| format!("{name} wants a number, not {text}"))).transpose()
    }

    /// Everything that is left.
    pub fn rest(self) -> Vec<String> {
        self.words
    }

    /// A program and its arguments, after `--`.
    pub fn command(mut self) -> Result<Vec<String>> {
        if self.words.first().is_some_and(|word| word == "--") {
            self.words.remove(0);
        } else if let Some(option) = self.words.first().filter(|word| word.starts_with('-')) {
            return Err(Failure::new(format!("unknown option {option}; a command follows --")));
        }
        if self.words.is_empty() {
            Err(Failure::new("a command is missing after --"))
        } else {
            Ok(self.words)
        }
    }

    /// Refuses anything that is left.
    pub fn end(self) -> Result<()> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(Failure::new(format!("nothing known about {word}; see cargo xtask help"))),
        }
    }

    /// Options stand before the first word (but after a verb that was taken); what follows `--` or a word is not ours.
    fn option_at(&self, name: &str) -> Option<usize> {
        let mut at = 0;
        while let Some(word) = self.words.get(at) {
            if word == name {
                return Some(at);
            }
            match word.as_str() {
                "--" => return None,
                word if FLAGS.contains(&word) => at += 1,
                word if word.starts_with("--") => at += 2,
                _ => return None,
            }
        }
        None
    }
}

/// The options without a value: the others are followed by one.
const FLAGS: &[&str] = &["--bare", "--brief", "--cache", "--check", "--list"];

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(String::from))
    }

    #[test]
    fn options_are_found_before_the_first_word_and_left_alone_after_it() {
        let mut args = args("--share /x --bare --memory 512 script --share /y");
        assert_eq!(args.number("--memory").expect("a number"), Some(512));
        assert!(args.flag("--bare"));
        assert_eq!(args.value("--share").expect("a value").as_deref(), Some("/x"));
        assert_eq!(args.value("--share").expect("none left"), None);
        assert_eq!(args.word("SCRIPT").expect("a word"), "script");
        assert_eq!(args.rest(), ["--share", "/y"]);
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        assert!(args("--wat x").optional_word().is_err());
        assert!(args("wat").end().is_err());
        assert!(args("--memory").value("--memory").is_err());
        assert!(args("--memory much").number("--memory").is_err());
    }
}
