//! Which ELF symbol a (name, version, mode) is. The headers don't say it; this rule agrees with them wherever they do.

use std::collections::BTreeMap;

use super::header::Declaration;
use crate::error::{Failure, Result};

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The exported symbol.
    pub elf: String,
    /// What `cuGetProcAddress` is asked for.
    pub base: String,
    /// The first version that gets this form.
    pub version: u32,
    /// One letter a parameter.
    pub shape: String,
}

impl Row {
    /// Given for flag 2, `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`.
    pub fn per_thread(&self) -> bool {
        self.elf.ends_with("_ptsz") || self.elf.ends_with("_ptds")
    }
}

/// A version of a base that the rule gives to another base's symbol.
/// From 12000 on `cuGraphInstantiate` has the parameters of `cuGraphInstantiateWithFlags`, and cuda.h's macro says so.
const BORROWED: &[(&str, u32, &str)] = &[("cuGraphInstantiate", 12000, "cuGraphInstantiateWithFlags")];

/// The N-th plain version of a base is `base` for N = 1, else `base_vN`. A per-thread form takes the number of the plain
/// versions not newer than itself, then its suffix.
pub fn rows(declarations: Vec<Declaration>) -> Result<Vec<Row>> {
    let mut bases: BTreeMap<String, Vec<Declaration>> = BTreeMap::new();
    for declaration in declarations {
        bases.entry(declaration.base.clone()).or_default().push(declaration);
    }
    let mut rows: Vec<Row> = Vec::new();
    for (base, forms) in bases {
        let plain: Vec<u32> =
            forms.iter().filter(|form| form.suffix.is_empty()).map(|form| form.version).collect();
        for form in forms {
            let number = plain.iter().filter(|version| **version <= form.version).count();
            let elf = match number {
                0 | 1 => format!("{base}{}", form.suffix),
                _ => format!("{base}_v{number}{}", form.suffix),
            };
            if rows.iter().any(|row| row.elf == elf) {
                return Err(Failure::new(format!("two declarations give {elf}")));
            }
            rows.push(Row { elf, base: base.clone(), version: form.version, shape: form.shape });
        }
    }
    for (base, version, elf) in BORROWED {
        if let Some(row) = rows.iter().find(|row| row.elf == *elf).cloned() {
            rows.push(Row { base: (*base).to_owned(), version: *version, ..row });
        }
    }
    Ok(rows)
}

/// Symbols that cuda.h's macros name and no typedef has: programs built with per-thread streams link to them.
pub fn add_macro_targets(rows: &mut Vec<Row>, renames: &[(String, String)]) {
    for (_, target) in renames {
        if rows.iter().any(|row| &row.elf == target) {
            continue;
        }
        let plain = target.trim_end_matches("_ptsz").trim_end_matches("_ptds");
        if let Some(row) = rows.iter().find(|row| row.elf == plain).cloned() {
            rows.push(Row { elf: target.clone(), ..row });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(base: &str, version: u32, suffix: &str) -> Declaration {
        Declaration { base: base.into(), version, suffix: suffix.into(), shape: String::new() }
    }

    fn elf(forms: Vec<Declaration>, version: u32, suffix: &str) -> String {
        let rows = rows(forms).expect("no clash");
        rows.into_iter().find(|row| row.version == version && row.elf.ends_with(suffix)).expect("there").elf
    }

    #[test]
    fn a_per_thread_form_takes_the_number_of_the_plain_forms_before_it() {
        let copy = || {
            vec![
                form("cuMemcpyHtoD", 3020, ""),
                form("cuMemcpyHtoD", 2000, ""),
                form("cuMemcpyHtoD", 7000, "_ptds"),
            ]
        };
        assert_eq!(elf(copy(), 2000, ""), "cuMemcpyHtoD");
        assert_eq!(elf(copy(), 3020, ""), "cuMemcpyHtoD_v2");
        assert_eq!(elf(copy(), 7000, "_ptds"), "cuMemcpyHtoD_v2_ptds");
    }

    #[test]
    fn the_third_form_of_graph_instantiate_is_another_symbol() {
        let forms = vec![
            form("cuGraphInstantiate", 10000, ""),
            form("cuGraphInstantiate", 11000, ""),
            form("cuGraphInstantiateWithFlags", 11040, ""),
        ];
        let rows = rows(forms).expect("no clash");
        let row = rows
            .iter()
            .find(|row| row.base == "cuGraphInstantiate" && row.version == 12000)
            .expect("borrowed");
        assert_eq!(row.elf, "cuGraphInstantiateWithFlags");
    }

    #[test]
    fn a_symbol_that_only_a_macro_names_is_exported_too() {
        let mut rows = rows(vec![form("cuGetProcAddress", 11030, ""), form("cuGetProcAddress", 12000, "")])
            .expect("no clash");
        add_macro_targets(&mut rows, &[("cuGetProcAddress_v2".into(), "cuGetProcAddress_v2_ptsz".into())]);
        assert!(
            rows.iter().any(|row| row.elf == "cuGetProcAddress_v2_ptsz" && row.base == "cuGetProcAddress")
        );
    }
}
