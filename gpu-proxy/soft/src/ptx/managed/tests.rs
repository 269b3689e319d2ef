use std::collections::HashMap;

use super::*;
use crate::ptx::parse;

const AT: u64 = 0x6800_0000_0200;

/// `x` and `table` lie at these addresses.
fn changed(text: &str) -> Result<String, ImageError> {
    let addresses = HashMap::from([("x".to_owned(), AT), ("table".to_owned(), AT + 16)]);
    placed(text, &addresses)
}

#[test]
fn variables_are_told_with_their_first_values() {
    let text = "\
.version 9.0
.target sm_75
.address_size 64
// .global .attribute(.managed) .u32 comment;
.global .attribute(.managed) .align 4 .u32 x = 5;
.visible .global .attribute(.managed) .align 16 .b8 table[4000] = {1, 2, 0xff};
.global .align 4 .u32 d = 7;
.weak .global .attribute(.managed) .u64 p[3] = {generic(x)+8, 9, table}, q;
.entry k(.param .u64 .ptr .global .align 4 a) { .reg .b64 x; ret; }
.global .attribute(.managed) .f32 half = 0.5;
";
    let one = |name: &str, bytes, align, initial: &[u8], addresses: &[(usize, &str, i64)]| ManagedVariable {
        name: name.into(),
        bytes,
        align,
        initial: initial.to_vec(),
        addresses: addresses.iter().map(|(at, name, offset)| (*at, (*name).into(), *offset)).collect(),
    };
    let pointers = [[0; 8], 9_u64.to_le_bytes(), [0; 8]].concat();
    let wanted = [
        one("x", 4, 4, &[5, 0, 0, 0], &[]),
        one("table", 4000, 16, &[1, 2, 0xff], &[]),
        one("p", 24, 8, &pointers, &[(0, "x", 8), (16, "table", 0)]),
        one("q", 8, 8, &[], &[]),
        one("half", 4, 4, &0.5_f32.to_le_bytes(), &[]),
    ];
    assert_eq!(variables(text).unwrap(), wanted);
}

#[test]
fn what_cannot_be_part_of_other_memory_is_refused() {
    for text in [
        ".extern .global .attribute(.managed) .u32 x;",
        ".entry k() { .global .attribute(.managed) .u32 x; ret; }",
        ".global .attribute(.managed) .v4 .f32 x;",
        ".global .attribute(.managed) .u32 x = y;",
        ".global .attribute(.managed) .align 3 .u32 x;",
    ] {
        assert!(variables(text).is_err(), "{text}");
    }
}

#[test]
fn names_become_registers_that_have_the_address() {
    for (text, wanted) in [
        (
            "ld.global.u32 %r1, [x];",
            "mov.u64 %vgpu_managed0, 0x680000000200; ld.global.u32 %r1, [%vgpu_managed0];",
        ),
        (
            "@!%p st.global.u32 [table + 12], %r1;",
            "mov.u64 %vgpu_managed0, 0x680000000210; @!%p st.global.u32 [%vgpu_managed0 + 12], %r1;",
        ),
        ("mov.u64 %rd1, x-8;", "mov.u64 %vgpu_managed0, 0x6800000001f8; mov.u64 %rd1, %vgpu_managed0;"),
        (
            "copy [x+-4], [table], x;",
            "mov.u64 %vgpu_managed0, 0x680000000200; mov.u64 %vgpu_managed1, 0x680000000210; \
             mov.u64 %vgpu_managed2, 0x680000000200; copy [%vgpu_managed0+-4], [%vgpu_managed1], %vgpu_managed2;",
        ),
        ("x: bra x;", "x: bra x;"),
        ("/* x */ mov.u64 %x, y; // [x]", "/* x */ mov.u64 %x, y; // [x]"),
        (".loc 1 2 x\n.pragma \"x\";", ".loc 1 2 x\n.pragma \"x\";"),
    ] {
        let registers = wanted.matches("%vgpu_managed").count() / 2;
        let declared =
            if registers > 0 { format!(" .reg .b64 %vgpu_managed<{registers}>;") } else { String::new() };
        let body = |declared: &str, text: &str| format!(".entry k() {{{declared} {text}\nret; }}");
        assert_eq!(changed(&body("", text)).unwrap(), body(&declared, wanted));
    }
}

#[test]
fn a_name_that_a_function_has_of_its_own_is_left_alone() {
    for text in [
        ".entry k(.param .u64 x) { ld.param.u64 %rd1, [x]; }",
        ".func (.reg .u64 x) f(.reg .u32 table) { add.u64 x, x, 1; }",
        ".entry k() { .reg .u64 x, y; mov.u64 x, 1; { add.u64 x, x, 1; } }",
        ".entry k() { .local .b8 x[8]; st.local.u32 [x], 1; }",
        ".entry k() { { .param .b64 x; st.param.b64 [x], 1; } }",
        ".entry k() { bra x; x: ret; }",
        ".func f(.param .u64 x);",
    ] {
        assert_eq!(changed(text).unwrap(), text);
    }
    // Only there.
    let text = ".entry k() { { .reg .u64 x; } mov.u64 %rd1, x; } .entry l() { mov.u64 %rd1, x; }";
    assert_eq!(changed(text).unwrap().matches(" 0x680000000200;").count(), 2);
    let numbered = |name: &str| {
        let addresses = HashMap::from([(name.to_owned(), AT)]);
        placed(&format!(".entry k() {{ .reg .u64 r<5>; mov.u64 %rd, {name}; }}"), &addresses).unwrap()
    };
    assert!(!numbered("r4").contains("managed") && numbered("r").contains("managed"));
}

#[test]
fn declarations_go_and_first_values_become_numbers() {
    let text = "\
.visible .global .attribute(.managed) .align 4 .u32 x = 5; .global .u32 d;
.global .u64 q[4] = {generic(x), table+8, generic(table)+8, d}, r = x;
.const .u64 c = x;
.section .debug_info { .b64 x .b8 1 }
.extern .func f(.param .b64 x);
";
    let wanted = " .global .u32 d;
.global .u64 q[4] = {0x680000000200, 0x680000000218, 0x680000000218, d}, r = 0x680000000200;
.const .u64 c = 0x680000000200;
.section .debug_info { .b64 0x680000000200 .b8 1 }
.extern .func f(.param .b64 x);
";
    assert_eq!(changed(text).unwrap(), wanted);
}

/// What comes out is a text that the software GPU reads, without a managed variable.
#[test]
fn a_compilers_text_can_be_read_after_it() {
    let text = include_str!("tests/nvcc.ptx");
    let found = variables(text).unwrap();
    let names: Vec<_> = found.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["x", "table", "p"]);
    let addresses = found.iter().zip(0..).map(|(one, i)| (one.name.clone(), AT + 4096 * i)).collect();
    let text = placed(text, &addresses).unwrap();
    let source = parse(&text).unwrap();
    assert_eq!(source.variables.iter().map(|one| one.name).collect::<Vec<_>>(), ["d", "q"]);
    assert!(source.variables.iter().all(|one| !one.managed));
    assert_eq!(text.matches("mov.u64 %vgpu_managed0, ").count(), 4);
}

#[test]
fn damaged_texts_are_refused_or_changed_and_nothing_else() {
    let text = include_str!("tests/nvcc.ptx");
    for at in 0..text.len() {
        let _ = variables(&text[..at]);
        let _ = changed(&text[..at]);
        for byte in [";", "{", "}", "[", "=", "<", "\"", "x", "generic("] {
            let damaged = [&text[..at], byte, &text[at + 1..]].concat();
            let _ = variables(&damaged);
            let _ = changed(&damaged);
        }
    }
    let deep = format!(".entry k() {}", "{".repeat(1 << 16));
    assert!(changed(&deep).is_err());
    assert!(changed(".entry k() { mov.u64 %rd1, x.y; }").is_err());
}
