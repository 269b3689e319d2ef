use super::*;

const ALLOC: u64 = FLAG_ALLOC;
const WRITE: u64 = 1;
const PROGBITS: u32 = 1;
const STRINGS: u32 = 3;

pub(in super::super) fn header(
    name: u32,
    kind: u32,
    flags: u64,
    at: usize,
    bytes: u64,
    link: u32,
) -> Vec<u8> {
    let mut header = vec![0; SECTION_BYTES];
    header[0..4].copy_from_slice(&name.to_le_bytes());
    header[4..8].copy_from_slice(&kind.to_le_bytes());
    header[8..16].copy_from_slice(&flags.to_le_bytes());
    header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
    header[32..40].copy_from_slice(&bytes.to_le_bytes());
    header[40..44].copy_from_slice(&link.to_le_bytes());
    header
}

pub(in super::super) fn symbol(name: u32, info: u8, other: u8, section: u16) -> Vec<u8> {
    let mut symbol = vec![0; SYMBOL_BYTES];
    symbol[0..4].copy_from_slice(&name.to_le_bytes());
    (symbol[4], symbol[5]) = (info, other);
    symbol[6..8].copy_from_slice(&section.to_le_bytes());
    symbol
}

fn parameter(attribute: u8, ordinal: u8, offset: u8, packed: u32) -> Vec<u8> {
    let head = [BYTES_FOLLOW, attribute, 12, 0, 0, 0, 0, 0, ordinal, 0, offset, 0];
    [&head[..], &packed.to_le_bytes()].concat()
}

/// Code, a table whose bytes are not in the file, constants (256 bytes), shared memory; two variables and a kernel.
pub(crate) fn cubin(table_bytes: u64) -> Vec<u8> {
    let names = b"\0.nv.global\0.nv.shared.k\0.nv.info.k\0table\0factor\0k\0";
    let at = |name: &[u8]| {
        let place = names.windows(name.len()).position(|text| text == name).unwrap();
        u32::try_from(place).unwrap()
    };
    // Of a function `other` has bits of its own.
    let symbols = [
        symbol(0, 0, 0, 0),
        symbol(at(b"table\0"), 0x11, 0, 3),
        symbol(at(b"factor\0"), 0x11, 0, 4),
        symbol(at(b"k\0"), 0x12, 0x1f, 2),
        symbol(at(b"k\0"), 0x11, 0, 5),
    ]
    .concat();
    let info = [
        vec![3, 1, 9, 9],
        parameter(LONG_PARAMETER, 1, 8, 0x0100_1234),
        parameter(PARAMETER, 0, 0, (8 << 18) | 0x1234),
    ]
    .concat();
    let (names_at, symbols_at) = (64, 64 + names.len());
    let info_at = symbols_at + symbols.len();
    let headers = [
        header(0, 0, 0, 0, 0, 0),
        header(0, STRINGS, 0, names_at, names.len() as u64, 0),
        header(0, PROGBITS, ALLOC | FLAG_EXEC, 0, 5000, 0),
        header(at(b".nv.global\0"), TYPE_NOBITS, ALLOC | WRITE, 0, table_bytes, 0),
        header(0, PROGBITS, ALLOC, 0, 256, 0),
        header(at(b".nv.shared.k\0"), TYPE_NOBITS, ALLOC | WRITE, 0, 48 << 10, 0),
        header(0, TYPE_SYMBOLS, 0, symbols_at, symbols.len() as u64, 1),
        header(at(b".nv.info.k\0"), PROGBITS, 0, info_at, info.len() as u64, 0),
    ];
    whole(&[names.to_vec(), symbols, info], &headers)
}

/// A file of these contents, from 64 on, and headers; section 1 has the names.
pub(in super::super) fn whole(contents: &[Vec<u8>], headers: &[Vec<u8>]) -> Vec<u8> {
    let contents = contents.concat();
    let mut file = vec![0; 64];
    file[..5].copy_from_slice(MAGIC);
    file[40..48].copy_from_slice(&((64 + contents.len()) as u64).to_le_bytes());
    file[58..60].copy_from_slice(&64_u16.to_le_bytes());
    file[60..62].copy_from_slice(&u16::try_from(headers.len()).unwrap().to_le_bytes());
    file[62..64].copy_from_slice(&1_u16.to_le_bytes());
    [file, contents, headers.concat()].concat()
}

#[test]
fn variables_and_constants_count_and_have_names_and_nothing_else_does() {
    let file = cubin(10 << 30);
    let elf = Elf::parse(&file).unwrap();
    assert_eq!(elf.variable_bytes(), (10 << 30) + 256);
    assert_eq!(elf.variables(), [c"table".to_owned(), c"factor".to_owned()]);
}

#[test]
fn kernels_have_names_and_parameters_in_their_order() {
    let file = cubin(1);
    let kernels: Vec<_> = Elf::parse(&file).unwrap().kernels().collect();
    let params = vec![ParamInfo { offset: 0, bytes: 8 }, ParamInfo { offset: 8, bytes: 0x1234 }];
    assert_eq!(kernels, [(&b"k"[..], params)]);
}

#[test]
fn what_pretends_to_be_code_or_shared_memory_counts() {
    let headers_at = |file: &[u8]| usize::try_from(long(file, 40).unwrap()).unwrap();
    let mut file = cubin(10 << 30);
    let flags_at = headers_at(&file) + 3 * SECTION_BYTES + 8;
    file[flags_at] |= 4;
    assert_eq!(Elf::parse(&file).unwrap().variable_bytes(), (10 << 30) + 256, "code without bytes");
    let mut file = cubin(10 << 30);
    let bytes_at = headers_at(&file) + 5 * SECTION_BYTES + 32;
    file[bytes_at..bytes_at + 8].copy_from_slice(&(1_u64 << 30).to_le_bytes());
    assert_eq!(Elf::parse(&file).unwrap().variable_bytes(), (11 << 30) + 256, "shared memory of 1 GiB");
    let (mut file, sum_at) = (cubin(10 << 30), bytes_at - 2 * SECTION_BYTES);
    file[sum_at..sum_at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(Elf::parse(&file).unwrap().variable_bytes(), u64::MAX);
}

#[test]
fn variables_count_by_the_name_of_their_section_too() {
    let mut file = cubin(10 << 30);
    let headers = usize::try_from(long(&file, 40).unwrap()).unwrap();
    let flags = headers + 3 * SECTION_BYTES + 8;
    file[flags..flags + 8].copy_from_slice(&WRITE.to_le_bytes());
    assert_eq!(Elf::parse(&file).unwrap().variable_bytes(), (10 << 30) + 256);
    let align = headers + 3 * SECTION_BYTES + 48;
    file[align..align + 8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    assert!(Elf::parse(&file).unwrap().variable_bytes() > 1 << 40);
}

/// A table that is there a thousand times is not gone through a thousand times.
#[test]
fn tables_of_symbols_are_no_longer_than_the_file() {
    let file = cubin(1000);
    let headers = usize::try_from(long(&file, 40).unwrap()).unwrap();
    let table = file[headers + 6 * SECTION_BYTES..][..SECTION_BYTES].to_vec();
    let mut many = [file, table.repeat(1000)].concat();
    assert!(Elf::parse(&many).is_some());
    many[60..62].copy_from_slice(&1008_u16.to_le_bytes());
    assert!(Elf::parse(&many).is_none());
}

/// As `ptxas -c` has them of `.common .global .align 64 .b8 c[1048576]` and of managed variables.
#[test]
fn variables_that_are_still_to_be_linked_count_and_have_names() {
    let mut file = cubin(1000);
    let headers = usize::try_from(long(&file, 40).unwrap()).unwrap();
    let symbols = usize::try_from(long(&file, headers + 6 * SECTION_BYTES + 24).unwrap()).unwrap();
    let mut set = |symbol: usize, at: usize, bytes: &[u8]| {
        file[symbols + symbol * SYMBOL_BYTES + at..][..bytes.len()].copy_from_slice(bytes);
    };
    set(1, 4, &[0x1d, 0x20]);
    set(2, 4, &[0x1d, 0x20]);
    set(2, 6, &COMMON.to_le_bytes());
    set(2, 8, &64_u64.to_le_bytes());
    set(2, 16, &(1_u64 << 20).to_le_bytes());
    let of = |file: &[u8]| {
        let elf = Elf::parse(file).unwrap();
        (elf.variable_bytes(), elf.variables(), elf.has_managed())
    };
    let names = [c"table".to_owned(), c"factor".to_owned()];
    // Between the others there may be room for alignment.
    assert_eq!(of(&file), ((1 << 20) + 1256 + 56, names.into(), false));
    file[symbols + SYMBOL_BYTES + 5] = 0x24;
    assert!(of(&file).2);
}

/// Every byte of the file in turn, and every end: an answer, never a panic.
#[test]
fn damaged_machine_code_is_read_as_far_as_it_goes() {
    let whole = cubin(10 << 30);
    let read = |file: &[u8]| {
        let found = |elf: Elf<'_>| (elf.variable_bytes(), elf.variables().len(), elf.kernels().count());
        Elf::parse(file).map(found)
    };
    for at in 0..whole.len() {
        let mut file = whole.clone();
        for value in [0, 1, 0x7f, 0xff] {
            file[at] = value;
            let _ = read(&file);
        }
        assert_eq!(read(&whole[..at]), None, "cut at {at}");
    }
    assert_eq!(read(b"\x7fELF"), None);
}
