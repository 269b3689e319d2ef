//! Every symbol of libcuda, and how `cuGetProcAddress` chooses among their versions. The table is generated.

mod table;

pub use table::TABLE;

/// Which default stream a form uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Stream 0 is the legacy one; or the call has no stream.
    Legacy,
    /// Stream 0 is the calling thread's own: `_ptsz`, `_ptds`.
    PerThread,
}

/// One form of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// The exported name. It has two rows where two bases share it.
    pub elf: &'static str,
    /// What `cuGetProcAddress` is asked for.
    pub base: &'static str,
    /// 1000·major + 10·minor: the first CUDA version with this form.
    pub version: u32,
    /// See [`Mode`].
    pub mode: Mode,
    /// One letter a parameter: `p` pointer, `o` handle (`CUstream` and the like, by value), `b` `h` `i` `l` integers of 8, 16,
    /// 32, 64 bits, `f` float, `s` structure by value. All return a `CUresult`.
    pub shape: &'static str,
}

const fn s(elf: &'static str, base: &'static str, version: u32, mode: Mode, shape: &'static str) -> Symbol {
    Symbol { elf, base, version, mode, shape }
}

/// The shape of an exported name, for checks at compile time. `None` if there is no such name.
#[must_use]
pub const fn shape_of(elf: &str) -> Option<&'static str> {
    let (mut low, mut high) = (0, TABLE.len());
    while low < high {
        let middle = (low + high) / 2;
        match order(TABLE[middle].elf.as_bytes(), elf.as_bytes()) {
            0 => return Some(TABLE[middle].shape),
            1 => high = middle,
            _ => low = middle + 1,
        }
    }
    None
}

/// 0 equal, 1 when `a` comes after `b`, 2 before: `Ord` is not const.
const fn order(a: &[u8], b: &[u8]) -> u8 {
    let mut i = 0;
    while i < a.len() && i < b.len() {
        if a[i] != b[i] {
            return if a[i] > b[i] { 1 } else { 2 };
        }
        i += 1;
    }
    if a.len() == b.len() {
        0
    } else if a.len() > b.len() {
        1
    } else {
        2
    }
}

/// What `cuGetProcAddress` finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<'a, T> {
    /// This form.
    Found(&'a T),
    /// The name is known, its first form is newer than the version asked for.
    TooOld,
    /// No such name.
    Unknown,
}

/// The newest of `forms` whose version is at most `version`; with [`Mode::PerThread`] the per-thread form where there is one.
/// `key` gives a form's version and mode.
pub fn choose<T>(forms: &[T], version: u32, mode: Mode, key: impl Fn(&T) -> (u32, Mode)) -> Choice<'_, T> {
    let newest = |mode: Mode| {
        forms
            .iter()
            .filter(|form| key(form).1 == mode && key(form).0 <= version)
            .max_by_key(|form| key(form).0)
    };
    let per_thread = if mode == Mode::PerThread { newest(Mode::PerThread) } else { None };
    match per_thread.or_else(|| newest(Mode::Legacy)) {
        Some(form) => Choice::Found(form),
        None if forms.is_empty() => Choice::Unknown,
        None => Choice::TooOld,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ask(base: &str, version: u32, mode: Mode) -> Choice<'static, Symbol> {
        let start = TABLE.iter().filter(|row| row.base == base).copied().collect::<Vec<_>>();
        match choose(&start, version, mode, |row| (row.version, row.mode)) {
            Choice::Found(row) => Choice::Found(TABLE.iter().find(|other| *other == row).unwrap()),
            Choice::TooOld => Choice::TooOld,
            Choice::Unknown => Choice::Unknown,
        }
    }

    fn elf(base: &str, version: u32, mode: Mode) -> &'static str {
        match ask(base, version, mode) {
            Choice::Found(row) => row.elf,
            other => panic!("{base} {version}: {other:?}"),
        }
    }

    #[test]
    fn the_counts_are_those_of_cuda_13_0() {
        let names: BTreeSet<_> = TABLE.iter().map(|row| row.elf).collect();
        // 634 of cudaTypedefs.h, 39 of the other four headers, 1 that only a macro of cuda.h names.
        assert_eq!(names.len(), 634 + 39 + 1);
        assert_eq!(TABLE.len(), names.len() + 1, "cuGraphInstantiateWithFlags stands under two bases");
        assert!(TABLE.is_sorted_by_key(|row| row.elf));
    }

    #[test]
    fn every_form_has_a_shape_that_can_be_looked_up() {
        for row in TABLE {
            assert_eq!(shape_of(row.elf), Some(row.shape), "{}", row.elf);
        }
        assert_eq!(shape_of("cuNothing"), None);
        assert_eq!(shape_of("cuMemAlloc_v2"), Some("pl"));
        assert_eq!(shape_of("cuLaunchKernel"), Some("oiiiiiiiopp"));
    }

    #[test]
    fn forms_are_chosen_by_version_and_never_the_newest_blindly() {
        use Mode::{Legacy, PerThread};
        assert_eq!(elf("cuStreamGetCaptureInfo", 10010, Legacy), "cuStreamGetCaptureInfo");
        assert_eq!(elf("cuStreamGetCaptureInfo", 11030, Legacy), "cuStreamGetCaptureInfo_v2");
        assert_eq!(elf("cuStreamGetCaptureInfo", 12030, Legacy), "cuStreamGetCaptureInfo_v3");
        assert_eq!(elf("cuGetProcAddress", 11030, Legacy), "cuGetProcAddress");
        assert_eq!(elf("cuGetProcAddress", 12000, Legacy), "cuGetProcAddress_v2");
        assert_eq!(elf("cuMemcpyHtoD", 7000, PerThread), "cuMemcpyHtoD_v2_ptds");
        assert_eq!(elf("cuMemAlloc", 13000, PerThread), "cuMemAlloc_v2");
        assert_eq!(elf("cuGraphInstantiate", 11040, Legacy), "cuGraphInstantiate_v2");
        assert_eq!(elf("cuGraphInstantiate", 12000, Legacy), "cuGraphInstantiateWithFlags");
        assert_eq!(elf("cuCtxGetDevice", 13000, Legacy), "cuCtxGetDevice_v2");
        assert_eq!(ask("cuMemPoolCreate", 11010, Legacy), Choice::TooOld);
        assert_eq!(ask("cuNothing", 13000, Legacy), Choice::Unknown);
    }
}
