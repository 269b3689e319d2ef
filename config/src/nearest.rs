//! Finds keys that do not exist, and the one that was probably meant. The known keys are those of the serialised default
//! configuration, so that there is no second list.

use toml::{Table, Value};

use crate::Config;

/// The first key of `table` that no configuration has, with its table's name, and the nearest known one.
pub(crate) fn unknown_key(table: &Table) -> Option<(String, Option<String>)> {
    // Serialising plain structs of numbers, strings and paths written above cannot fail.
    let known = Table::try_from(Config::default()).unwrap_or_default();
    unknown_in(table, &known, "")
}

fn unknown_in(table: &Table, known: &Table, prefix: &str) -> Option<(String, Option<String>)> {
    for (key, value) in table {
        match (known.get(key), value) {
            (None, _) => {
                let nearest = nearest(key, known.keys()).map(|near| format!("{prefix}{near}"));
                return Some((format!("{prefix}{key}"), nearest));
            }
            (Some(Value::Table(known)), Value::Table(table)) => {
                let found = unknown_in(table, known, &format!("{prefix}{key}."));
                if found.is_some() {
                    return found;
                }
            }
            // A wrong type is the parser's to report, with its line.
            _ => {}
        }
    }
    None
}

/// The known key that differs least, if it differs by a third of its letters at most.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    known
        .map(|candidate| (distance(key, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(key.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.as_str())
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(letter != other);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
