//! `tests/cuda/faults` against what NVIDIA's driver said of the same wrong calls: `tests/gpu/faults.table`, a line a call.
//!
//! A line is `AREA: WHAT CODE`, with ` | WHO CODE WHY` behind it where vgpu says something else on purpose: `vgpu` on every device,
//! `soft` and `cuda` on that device alone. WHY is one of the reasons that the table explains at its head. `crashes` and `hangs` are what the driver
//! did; vgpu then has to give an error. `?` in place of a code: not recorded, and what vgpu has to say stands behind it.

use std::collections::{HashMap, HashSet};

use crate::error::{Failure, Result};

const TABLE: &str = include_str!("../../gpu/faults.table");
/// Differences that are shown.
const SHOWN: usize = 20;

/// What vgpu has to say of one call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted<'a> {
    Code(&'a str),
    /// The driver crashed or hung.
    AnyError,
}

/// The table: lines in their order, by what they are about.
struct Table<'a>(Vec<(&'a str, Wanted<'a>)>);

impl<'a> Table<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let (mut lines, mut reasons, mut used) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut names = HashSet::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let wrong = || Failure::new(format!("faults.table: {line}"));
            if let Some(reason) = line.strip_prefix("= ") {
                reasons.insert(reason.split_once(':').ok_or_else(wrong)?.0);
                continue;
            }
            let (told, other) = line.split_once(" | ").unwrap_or((line, ""));
            let (about, native) = told.rsplit_once(' ').ok_or_else(wrong)?;
            let ours = match other.split(' ').collect::<Vec<_>>()[..] {
                [""] => native,
                [who @ ("vgpu" | "soft" | "cuda"), code, why] => {
                    used.insert(why);
                    if who == "cuda" { native } else { code }
                }
                _ => return Err(wrong()),
            };
            let wanted = match ours {
                "crashes" | "hangs" => Wanted::AnyError,
                code if code.parse::<i32>().is_ok() => Wanted::Code(code),
                _ => return Err(wrong()),
            };
            if !names.insert(about) {
                return Err(Failure::new(format!("faults.table: '{about}' comes twice")));
            }
            lines.push((about, wanted));
        }
        if reasons != used {
            return Err(Failure::new("faults.table: a reason that no line has, or the other way round"));
        }
        Ok(Self(lines))
    }

    /// Compares with what `faults` said.
    fn compare(&self, said: &str) -> Result<()> {
        let told = answers(said);
        let mut differ: Vec<String> = Vec::new();
        for (about, wanted) in &self.0 {
            let code = told.get(about).copied();
            let right = match (wanted, code) {
                (Wanted::Code(wanted), Some(code)) => code == *wanted,
                (Wanted::AnyError, Some(code)) => code.parse::<i32>().is_ok_and(|code| code > 0),
                (_, None) => false,
            };
            if !right {
                differ.push(format!("{about}: {}, not {wanted:?}", code.unwrap_or("nothing")));
            }
        }
        let known: HashSet<&str> = self.0.iter().map(|(about, _)| *about).collect();
        differ.extend(
            told.keys().filter(|about| !known.contains(**about)).map(|about| format!("{about}: new")),
        );
        if differ.is_empty() {
            return Ok(());
        }
        let more = differ.len().saturating_sub(SHOWN);
        let shown = differ.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
        Err(Failure::new(format!(
            "{} lines are not as the table has them:\n{shown}\n{more} more",
            differ.len()
        )))
    }
}

/// The codes by what they are about; a kernel's assertion and the last line have none.
fn answers(said: &str) -> HashMap<&str, &str> {
    let lines = said.lines().filter(|line| !line.starts_with("faults: ok") && !line.contains("Assertion"));
    lines.filter_map(|line| line.rsplit_once(' ')).collect()
}

/// What was said with each call waited for.
pub fn is_as_recorded(said: &str) -> Result<()> {
    Table::parse(TABLE)?.compare(said)
}

/// What was said with calls queued, where an error comes later: each call has a code, none was the process's end.
pub fn is_survived(said: &str) -> Result<()> {
    let (table, told) = (Table::parse(TABLE)?, answers(said));
    let ended =
        table.0.iter().find(|(about, _)| told.get(about).is_none_or(|code| code.parse::<i32>().is_err()));
    ended.map_or(Ok(()), |(about, _)| Err(Failure::new(format!("{about}: {:?}", told.get(about)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "# Recorded.\n= kept: we keep it.\na: one 0\na: two crashes\na: three 1 | vgpu 801 kept\na: four ? | vgpu 7 kept\na: five 0 | cuda 2 kept\n";

    #[test]
    fn the_table_reads_and_a_line_that_differs_is_named() {
        let table = Table::parse(SMALL).expect("right");
        let said = "a: one 0\na: two 400\na: three 801\na: four 7\na: five 0\nfaults: ok, 1 areas\n";
        table.compare(said).expect("as it has to be");
        for (right, wrong, about) in [
            ("one 0", "one 1", "a: one"),
            ("two 400", "two 0", "a: two"),
            ("two 400", "two crashes", "a: two"),
            ("three 801", "three 1", "a: three"),
            ("a: four 7\n", "", "a: four"),
            ("a: five 0", "a: five 2", "a: five"),
            ("a: one 0", "a: one 0\na: six 0", "a: six"),
        ] {
            let error = table.compare(&said.replace(right, wrong)).expect_err(wrong).to_string();
            assert!(error.contains(about), "{wrong}: {error}");
        }
    }

    #[test]
    fn reasons_are_told_and_used() {
        for wrong in [
            "a: one 0 | vgpu 1 because\n",
            "= kept: we keep it.\na: one 0\n",
            "a: one 0\na: one 0\n",
            "a: one x\n",
        ] {
            assert!(Table::parse(wrong).is_err(), "{wrong}");
        }
        Table::parse(TABLE).expect("the real one");
    }
}
