//! As much of ELF as the tests look at: the dynamic symbols, needed versions and dynamic entries of a 64-bit file.

use std::collections::BTreeSet;

pub const DT_NEEDED: u64 = 1;
pub const DT_SONAME: u64 = 14;
pub const DT_TEXTREL: u64 = 22;
pub const DT_FLAGS: u64 = 30;
/// Thread-local variables in the space that the loader keeps for few libraries.
pub const DF_STATIC_TLS: u64 = 16;
pub const DT_GNU_HASH: u64 = 0x6fff_fef5;
pub const DT_FLAGS_1: u64 = 0x6fff_fffb;
pub const DF_1_NODELETE: u64 = 8;
const SHT_DYNAMIC: u32 = 6;
const SHT_DYNSYM: u32 = 11;
const SHT_VERNEED: u32 = 0x6fff_fffe;

pub struct Elf(Vec<u8>);

struct Section {
    kind: u32,
    offset: usize,
    size: usize,
    link: usize,
}

impl Elf {
    pub fn read(path: &std::path::Path) -> Self {
        let bytes = std::fs::read(path).expect("the library can be read");
        assert!(bytes.starts_with(b"\x7fELF\x02\x01"), "a 64-bit little-endian ELF");
        Self(bytes)
    }

    fn word<const N: usize>(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        word[..N].copy_from_slice(&self.0[at..at + N]);
        u64::from_le_bytes(word)
    }

    /// A word that is an offset, a size or a count.
    fn size<const N: usize>(&self, at: usize) -> usize {
        usize::try_from(self.word::<N>(at)).expect("64-bit")
    }

    fn text(&self, at: usize) -> String {
        let end = self.0[at..].iter().position(|byte| *byte == 0).expect("NUL");
        String::from_utf8(self.0[at..at + end].to_vec()).expect("names are ASCII")
    }

    fn sections(&self) -> Vec<Section> {
        let (start, bytes, count) = (self.size::<8>(40), self.size::<2>(58), self.size::<2>(60));
        (0..count)
            .map(|i| start + i * bytes)
            .map(|at| Section {
                kind: u32::try_from(self.word::<4>(at + 4)).expect("32 bits"),
                offset: self.size::<8>(at + 24),
                size: self.size::<8>(at + 32),
                link: self.size::<4>(at + 40),
            })
            .collect()
    }

    /// Names that others can link to.
    pub fn exported(&self) -> BTreeSet<String> {
        let sections = self.sections();
        let symbols = sections.iter().find(|section| section.kind == SHT_DYNSYM).expect(".dynsym");
        let names = sections[symbols.link].offset;
        (symbols.offset..symbols.offset + symbols.size)
            .step_by(24)
            // Defined (section not 0) and global or weak.
            .filter(|at| self.word::<2>(at + 6) != 0 && self.word::<1>(at + 4) >> 4 != 0)
            .map(|at| self.text(names + self.size::<4>(at)))
            .collect()
    }

    /// `GLIBC_2.14` and the like, as the loader will look for them.
    pub fn needed_versions(&self) -> BTreeSet<String> {
        let sections = self.sections();
        let Some(needs) = sections.iter().find(|section| section.kind == SHT_VERNEED) else {
            return BTreeSet::new();
        };
        let names = sections[needs.link].offset;
        let mut found = BTreeSet::new();
        let mut need = needs.offset;
        loop {
            let mut version = need + self.size::<4>(need + 8);
            for _ in 0..self.word::<2>(need + 2) {
                found.insert(self.text(names + self.size::<4>(version + 8)));
                version += self.size::<4>(version + 12);
            }
            match self.size::<4>(need + 12) {
                0 => return found,
                next => need += next,
            }
        }
    }

    /// A value of `.dynamic`.
    pub fn dynamic(&self, tag: u64) -> Option<u64> {
        self.all_dynamic(tag).first().copied()
    }

    fn all_dynamic(&self, tag: u64) -> Vec<u64> {
        let sections = self.sections();
        let dynamic = sections.iter().find(|section| section.kind == SHT_DYNAMIC).expect(".dynamic");
        (dynamic.offset..dynamic.offset + dynamic.size)
            .step_by(16)
            .filter(|at| self.word::<8>(*at) == tag)
            .map(|at| self.word::<8>(at + 8))
            .collect()
    }

    /// The texts of `.dynamic` of one kind: the library's own name, the libraries that it needs.
    pub fn names(&self, tag: u64) -> Vec<String> {
        let sections = self.sections();
        let dynamic = sections.iter().find(|section| section.kind == SHT_DYNAMIC).expect(".dynamic");
        let start = sections[dynamic.link].offset;
        let place = |at: u64| start + usize::try_from(at).expect("64-bit");
        self.all_dynamic(tag).into_iter().map(|at| self.text(place(at))).collect()
    }
}
