use super::super::elf::tests::{header, symbol, whole};
use super::super::elf::{FLAG_ALLOC, SYMBOL_BYTES, TYPE_NOBITS, TYPE_SYMBOLS, long, word};
use super::*;
use crate::device::Survey;

const BLOCK: u64 = 0x6800_0000_0200;
const WRITE: u64 = 1;
const PROGBITS: u32 = 1;
const STRINGS: u32 = 3;

/// Where in the file of [`managed_cubin`] its parts are.
const NAMES: &[u8] = b"\0x\0table\0d\0p\0q\0k\0.nv.global\0.nv.info.k\0";
const INIT: usize = 64 + NAMES.len();
const SLOTS: usize = INIT + 24;
const RELA: usize = SLOTS + 32;
const REL: usize = RELA + 3 * 24;
const INIT_RELA: usize = REL + 16;
const DEBUG: usize = INIT_RELA + 2 * 24;
const DEBUG_RELA: usize = DEBUG + 8;
const SYMBOLS: usize = DEBUG_RELA + 24;
const SYMBOL_COUNT: usize = 8;
const HEADERS: usize = SYMBOLS + SYMBOL_COUNT * SYMBOL_BYTES;

fn name_at(name: &str) -> u32 {
    let text = format!("\0{name}\0");
    let place = NAMES.windows(text.len()).position(|bytes| bytes == text.as_bytes()).unwrap();
    u32::try_from(place + 1).unwrap()
}

fn placed_symbol(name: &str, other: u8, section: u16, start: u64, bytes: u64) -> Vec<u8> {
    let mut symbol = symbol(name_at(name), 0x11, other, section);
    symbol[8..16].copy_from_slice(&start.to_le_bytes());
    symbol[16..24].copy_from_slice(&bytes.to_le_bytes());
    symbol
}

fn relocation(at: u64, kind: u32, symbol: u32, addend: Option<i64>) -> Vec<u8> {
    let mut entry = [&at.to_le_bytes()[..], &kind.to_le_bytes(), &symbol.to_le_bytes()].concat();
    entry.extend(addend.into_iter().flat_map(i64::to_le_bytes));
    entry
}

fn full_header(mut header: Vec<u8>, info: u32, align: u64) -> Vec<u8> {
    header[44..48].copy_from_slice(&info.to_le_bytes());
    header[48..56].copy_from_slice(&align.to_le_bytes());
    header
}

/// `__managed__ int x = 5, table[250], *p = table + 3; __device__ int d = 7, *q = &x;`, a kernel k, and what a debugger reads of x.
pub(crate) fn managed_cubin() -> Vec<u8> {
    let init = [5_u32.to_le_bytes(), 7_u32.to_le_bytes(), [0; 4], [0; 4], [0; 4], [0; 4]].concat();
    let slots = [[0; 8], [0; 8], [0; 8], 4_u64.to_le_bytes()].concat();
    let rela = [(0, 1, 0), (8, 2, 8), (16, 3, 0)];
    let rela = rela.map(|(at, symbol, addend)| relocation(at, 2, symbol, Some(addend))).concat();
    let init_rela = [relocation(8, 2, 2, Some(12)), relocation(16, 2, 1, Some(0))].concat();
    let symbols = [
        symbol(0, 0, 0, 0),
        placed_symbol("x", 4, 3, 0, 4),
        placed_symbol("table", 4, 2, 16, 1000),
        placed_symbol("d", 0, 3, 4, 4),
        placed_symbol("p", 4, 3, 8, 8),
        placed_symbol("q", 0, 3, 16, 8),
        symbol(0, 3, 0, 2),
        symbol(name_at("k"), 0x12, 0x10, 4),
    ]
    .concat();
    let contents = [
        NAMES.to_vec(),
        init,
        slots,
        rela,
        relocation(24, 2, 1, None),
        init_rela,
        vec![0; 8],
        relocation(0, 1, 1, Some(0)),
        symbols,
    ];
    let table = |kind, at, bytes, info| full_header(header(0, kind, 0, at, bytes, 8), info, 8);
    let headers = [
        header(0, 0, 0, 0, 0, 0),
        header(0, STRINGS, 0, 64, NAMES.len() as u64, 0),
        full_header(header(name_at(".nv.global"), TYPE_NOBITS, FLAG_ALLOC | WRITE, 0, 1016, 0), 0, 16),
        full_header(header(0, PROGBITS, FLAG_ALLOC | WRITE, INIT, 24, 0), 0, 8),
        header(0, PROGBITS, FLAG_ALLOC, SLOTS, 32, 0),
        table(4, RELA, 3 * 24, 4),
        table(9, REL, 16, 4),
        table(4, INIT_RELA, 2 * 24, 3),
        header(0, TYPE_SYMBOLS, 0, SYMBOLS, (SYMBOL_COUNT * SYMBOL_BYTES) as u64, 1),
        header(0, PROGBITS, 0, DEBUG, 8, 0),
        table(4, DEBUG_RELA, 24, 9),
    ];
    whole(&contents, &headers)
}

fn of(cubin: &[u8]) -> Result<Managed, LoadError> {
    Managed::of(Chosen::MachineCode(cubin.to_vec()))
}

fn placed(cubin: &[u8]) -> Result<Placed, LoadError> {
    of(cubin)?.placed(BLOCK)
}

fn told(placed: &Placed) -> Vec<(&str, u64, u64)> {
    placed.variables.iter().map(|one| (one.name.as_str(), one.address.0 - BLOCK, one.bytes)).collect()
}

#[test]
fn machine_code_finds_its_variables_in_the_block() {
    let cubin = managed_cubin();
    assert_eq!(of(&cubin).unwrap().bytes(), 1024);
    let placed = placed(&cubin).unwrap();
    assert_eq!(told(&placed), [("x", 0, 4), ("table", 16, 1000), ("p", 1016, 8)]);
    let values = [(BLOCK, 5_u32.to_le_bytes().to_vec()), (BLOCK + 1016, (BLOCK + 28).to_le_bytes().to_vec())];
    assert_eq!(placed.initial, values);
    let image = &placed.image;
    let slots = [0, 8, 16, 24].map(|at| long(image, SLOTS + at).unwrap());
    assert_eq!(slots, [BLOCK, BLOCK + 16 + 8, 0, BLOCK + 4], "of x, table + 2, d, x + 1");
    assert_eq!(long(image, INIT + 16), Some(BLOCK), "q");
    let kinds = [RELA, RELA + 24, RELA + 48, REL, INIT_RELA, INIT_RELA + 24, DEBUG_RELA];
    assert_eq!(kinds.map(|at| word(image, at + 8).unwrap()), [0, 0, 2, 0, 0, 0, 1]);
    assert!(!Survey::of(image, (9, 0)).unwrap().is_managed);
    // Nothing else is another.
    let changed = image.iter().zip(&cubin).zip(0..).filter(|((new, old), _)| new != old);
    let mut elsewhere = changed.map(|(_, at)| at).filter(|at| {
        let is_value = (SLOTS..RELA).contains(at) || (INIT + 8..SLOTS).contains(at);
        let is_kind = (RELA..DEBUG).contains(at);
        let is_other_byte = (SYMBOLS..HEADERS).contains(at) && (at - SYMBOLS) % SYMBOL_BYTES == 5;
        !(is_value || is_kind || is_other_byte)
    });
    assert_eq!(elsewhere.next(), None);
}

/// As nvcc 13 makes it for sm_90.
#[test]
fn a_compilers_machine_code_finds_its_variables_in_the_block() {
    let cubin = include_bytes!("tests/nvcc.cubin");
    assert!(Survey::of(cubin, (9, 0)).unwrap().is_managed);
    let placed = placed(cubin).unwrap();
    assert_eq!(told(&placed), [("x", 0, 4), ("table", 8, 4000), ("p", 4008, 8)]);
    assert_eq!(placed.initial, [(BLOCK, vec![5, 0, 0, 0])]);
    let slots: Vec<u64> = (0..5).map(|slot| long(&placed.image, 0x778 + slot * 8).unwrap()).collect();
    assert_eq!(slots, [BLOCK, BLOCK + 8, 0, BLOCK + 4008, 0], "x, table, d, p, q");
    assert!(!Survey::of(&placed.image, (9, 0)).unwrap().is_managed);
}

#[test]
fn what_code_would_find_elsewhere_is_refused() {
    let with = |at: usize, bytes: &[u8]| {
        let mut cubin = managed_cubin();
        cubin[at..at + bytes.len()].copy_from_slice(bytes);
        cubin
    };
    let symbol = |number: usize, field: usize| SYMBOLS + number * SYMBOL_BYTES + field;
    let section = |number: usize, field: usize| HEADERS + number * 64 + field;
    for (cubin, why) in [
        (with(RELA + 8, &[1]), "an address of 32 bits"),
        (with(RELA + 48 + 12, &[6]), "a section's symbol"),
        (with(INIT_RELA + 12, &[3]), "p has the address of d"),
        (
            with(symbol(3, 5), &[4]),
            "q has the address of d no more: d is managed, and begins where code has 7",
        ),
        (with(symbol(1, 6), &[0]), "another module's"),
        (with(symbol(1, 8), &[22]), "outside of its section"),
        (with(symbol(4, 8), &[2]), "over another one"),
        (with(RELA, &[25]), "a slot that ends outside"),
        (with(RELA, &[0xff; 8]), "a slot that is nowhere"),
        (with(section(2, 48), &[0, 4]), "aligned to 1024 bytes, and so is what begins there"),
        (with(section(9, 4), &[2]), "two tables of symbols"),
        (with(section(5, 32), &[0xff; 4]), "a table longer than the file"),
        (with(section(5, 44), &[200]), "a section that is not there"),
        (with(section(4, 24), &[0xff; 8]), "slots that are nowhere"),
    ] {
        // Two of them are right, after all.
        let is_right = why.contains("no more") || why.contains("so is what");
        let refused = placed(&cubin).err();
        assert_eq!(refused.is_none(), is_right, "{why}: {refused:?}");
        assert!(refused.is_none_or(
            |refused| refused.code == CuError::NOT_SUPPORTED && refused.log.contains("__managed__")
        ));
    }
}

#[test]
fn damaged_machine_code_is_refused_or_changed_and_nothing_else() {
    let cubin = managed_cubin();
    for at in 0..cubin.len() {
        for value in [0, 1, 4, 0x7f, 0xff] {
            let mut damaged = cubin.clone();
            damaged[at] = value;
            if let Ok(placed) = placed(&damaged) {
                assert_eq!(placed.image.len(), cubin.len(), "byte {at}");
                let end = BLOCK + of(&damaged).unwrap().bytes();
                assert!(
                    placed.initial.iter().all(|(at, bytes)| *at >= BLOCK && at + bytes.len() as u64 <= end)
                );
            }
        }
        assert!(placed(&cubin[..at]).is_err(), "cut at {at}");
    }
}

fn of_text(text: &str) -> Result<Managed, LoadError> {
    Managed::of(Chosen::Ptx(text.to_owned()))
}

#[test]
fn ptx_finds_its_variables_in_the_block() {
    let text = "\
.version 9.0
.target sm_75
.address_size 64
.global .attribute(.managed) .align 4 .u32 x = 5;
.global .attribute(.managed) .align 16 .b8 table[1000];
.global .attribute(.managed) .align 8 .u64 p[2] = {generic(table)+12, x};
.visible .entry k() { .reg .u32 r; ld.global.u32 r, [table+4]; ret; }
";
    let managed = of_text(text).unwrap();
    assert_eq!(managed.bytes(), 1032);
    let placed = managed.placed(BLOCK).unwrap();
    assert_eq!(told(&placed), [("x", 0, 4), ("table", 16, 1000), ("p", 1016, 16)]);
    let pointers = [(BLOCK + 28).to_le_bytes(), BLOCK.to_le_bytes()].concat();
    assert_eq!(placed.initial, [(BLOCK, vec![5, 0, 0, 0]), (BLOCK + 1016, pointers)]);
    assert!(!Survey::of(&placed.image, (9, 0)).unwrap().is_managed);
    let module = vgpu_soft::Module::load(&placed.image).unwrap();
    assert_eq!((module.functions().len(), module.globals().len()), (1, 0));
    assert_eq!(of_text(".version 9.0\n.target sm_75\n").unwrap().bytes(), 0);
}

#[test]
fn what_ptx_cannot_have_there_is_refused() {
    let managed = ".attribute(.managed)";
    for text in [
        format!(".extern .global {managed} .u32 x;"),
        format!(".global {managed} .align 1024 .u32 x;"),
        format!(".global {managed} .b8 x[1099511627777];"),
        format!(".global {managed} .b8 x[1099511627776], y;"),
        format!(".global .u32 d; .global {managed} .u64 p = d;"),
        format!(".global {managed} .u32 x; .global {managed} .u32 x;"),
        format!(".global {managed} .u32 x; .entry k() {{ mov.u64 %rd1, x.y; }}"),
    ] {
        let refused = of_text(&text).and_then(|managed| managed.placed(BLOCK)).unwrap_err();
        assert_eq!(refused.code, CuError::NOT_SUPPORTED, "{text}");
        assert!(refused.log.contains("__managed__"), "{}", refused.log);
    }
}
