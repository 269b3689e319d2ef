//! The variables of a text, whatever else is in it: for who gives it to a driver, which may know more of PTX than `parse.rs` does.
//!
//! Nothing may be overlooked, since what a driver makes of the text takes memory of the device: what is not understood, or could hide a
//! variable, is an error. Source: PTX ISA, "State Spaces", "Variables".

use super::lex::{Lexer, Token};
use super::tree::Ty;
use crate::image::ImageError;
use crate::module::GlobalInfo;

/// Room for an opaque variable (`.texref`, `.samplerref`, `.surfref`), in bytes: more than any has been seen to take.
const OPAQUE_BYTES: u64 = 128;

/// All variables in global and constant memory, those of functions included.
pub(crate) fn variables(text: &str) -> Result<Vec<GlobalInfo>, ImageError> {
    let mut lexer = Lexer::new(text);
    let (mut found, mut depth) = (Vec::new(), 0_u32);
    loop {
        match lexer.next()? {
            Token::End => return Ok(found),
            Token::Punctuation(b'{') => depth += 1,
            Token::Punctuation(b'}') => depth = depth.saturating_sub(1),
            // Only instructions name spaces so, and there are none outside of functions. For a compiler a declaration may follow a name
            // without a blank: `.target sm_90.global .b8 big[4096];`.
            Token::Word(word) if depth == 0 && word.split(['.', ':']).any(is_space) => {
                return Err(lexer.error("a variable right behind a name"));
            }
            // A parameter that is a pointer says into which space.
            Token::Directive("ptr") => {
                while matches!(lexer.peek()?, Token::Directive(_)) {
                    lexer.next()?;
                }
            }
            Token::Directive(space @ ("global" | "const")) => declaration(&mut lexer, space, &mut found)?,
            // A preprocessor's line could define what a variable is declared by.
            Token::Punctuation(b'#') => return Err(lexer.error("a preprocessor's line")),
            // Whether a quote behind it ends the text is not known.
            Token::Text(text) if text.contains(['\\', '\n']) => {
                return Err(lexer.error("a string with a backslash or a line's end"));
            }
            _ => {}
        }
    }
}

fn is_space(word: &str) -> bool {
    matches!(word, "global" | "const")
}

/// One declaration, behind its space up to its `;`.
pub(super) fn declaration(
    lexer: &mut Lexer<'_>,
    space: &str,
    found: &mut Vec<GlobalInfo>,
) -> Result<(), ImageError> {
    let (mut bytes, mut lanes, mut align, mut managed) = (None, 1, 1, false);
    if lexer.eat(b'[')? {
        // The bank of a constant, in old texts.
        lexer.integer()?;
        lexer.expect(b']')?;
    }
    while let Token::Directive(word) = lexer.peek()? {
        lexer.next()?;
        match word {
            "align" => align = lexer.integer()?.max(align),
            "attribute" => managed |= attribute(lexer)?,
            "v2" => lanes = 2,
            "v4" => lanes = 4,
            "v8" => lanes = 8,
            "texref" | "samplerref" | "surfref" => bytes = Some(OPAQUE_BYTES),
            "b128" => bytes = Some(16),
            _ => match Ty::from_word(word) {
                Some(ty) if ty.bytes() > 0 => bytes = Some(ty.bytes().into()),
                _ => return Err(lexer.error(format!("a variable of type .{word:.30}"))),
            },
        }
    }
    let each = bytes.ok_or_else(|| lexer.error("a variable without a type"))? * lanes;
    // Room for an opaque one is more than it takes.
    let align = if each == OPAQUE_BYTES { align } else { align.max(each) };
    loop {
        let name = lexer.word()?.to_owned();
        let mut count = if lexer.eat(b'<')? {
            let count = lexer.integer()?;
            lexer.expect(b'>')?;
            count
        } else {
            1
        };
        let mut is_open = false;
        while lexer.eat(b'[')? {
            if lexer.peek()? == Token::Punctuation(b']') {
                is_open = true;
            } else {
                count = count.saturating_mul(lexer.integer()?);
            }
            lexer.expect(b']')?;
        }
        let given = if lexer.eat(b'=')? { values(lexer)? } else { 0 };
        let count = if is_open { count.saturating_mul(given) } else { count.max(given) };
        let (bytes, constant) = (each.saturating_mul(count), space == "const");
        found.push(GlobalInfo { name, bytes, align, constant, managed });
        if lexer.eat(b';')? {
            return Ok(());
        }
        lexer.expect(b',')?;
    }
}

/// Whether one of the attributes in brackets is `.managed`.
fn attribute(lexer: &mut Lexer<'_>) -> Result<bool, ImageError> {
    lexer.expect(b'(')?;
    let (mut depth, mut managed) = (1, false);
    while depth > 0 {
        match lexer.next()? {
            Token::Punctuation(b'(') => depth += 1,
            Token::Punctuation(b')') => depth -= 1,
            Token::Directive("managed") => managed = true,
            Token::End => return Err(lexer.error("an attribute without an end")),
            _ => {}
        }
    }
    Ok(managed)
}

/// Goes over a variable's first values; how many they are at most.
fn values(lexer: &mut Lexer<'_>) -> Result<u64, ImageError> {
    let (mut depth, mut count) = (0_u32, 1_u64);
    loop {
        match lexer.peek()? {
            Token::Punctuation(b',' | b';') if depth == 0 => return Ok(count),
            Token::Punctuation(b'{' | b'(') => depth += 1,
            Token::Punctuation(b'}' | b')') => {
                depth = depth.checked_sub(1).ok_or_else(|| lexer.error("a bracket that closes nothing"))?;
            }
            Token::Punctuation(b',') => count += 1,
            Token::End => return Err(lexer.error("a variable without an end")),
            _ => {}
        }
        lexer.next()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(String, u64)> {
        variables(text).unwrap().into_iter().map(|one| (one.name, one.bytes)).collect()
    }

    fn named(list: &[(&str, u64)]) -> Vec<(String, u64)> {
        list.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect()
    }

    #[test]
    fn every_form_of_a_variable_is_counted() {
        for (text, expected) in [
            (".visible .global .align 4 .b8 grid[4096];", named(&[("grid", 4096)])),
            (".const .f64 a, b[3][5];", named(&[("a", 8), ("b", 120)])),
            (".global .v4 .f32 colour[2];", named(&[("colour", 32)])),
            (".weak.global.align 16.b128 wide[2];", named(&[("wide", 32)])),
            (".global .u16 some[] = {1, 2, 0xffU}, more = 5;", named(&[("some", 6), ("more", 2)])),
            (".global .u64 table[2] = {generic(a), b};", named(&[("table", 16)])),
            (".extern .global .b8 theirs[];", named(&[("theirs", 0)])),
            (".global .b32 many<7>;", named(&[("many", 28)])),
            (".const[3] .b8 old[9];", named(&[("old", 9)])),
            (".global .texref picture;", named(&[("picture", 128)])),
            (".entry k() { .global .u32 inner; ret; }", named(&[("inner", 4)])),
            (".global .b8 all[18446744073709551615][2];", named(&[("all", u64::MAX)])),
            // None of these is one.
            (".entry k(.param .u64 .ptr .global .align 4 p) { ld.global.u32 %r1, [%rd1]; }", named(&[])),
            ("// .global .u32 a;\n/* .global .u32 b; */ .shared .u32 c;", named(&[])),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
        let align = |text| variables(text).unwrap().remove(0).align;
        assert_eq!(align(".global .v2 .f32 pair;"), 8);
        assert_eq!(align(".global .align 1073741824 .align 2 .b8 far;"), 1 << 30);
        assert_eq!(align(".global .align 32 .texref picture;"), 32);
        let one = variables(".global .attribute(.managed) .u32 m;").unwrap().remove(0);
        assert!(one.managed && !one.constant);
        assert!(!variables(".global .attribute(.unified(1, 2)) .u32 m;").unwrap()[0].managed);
    }

    /// The parser of `parse.rs` knows neither this instruction nor this target.
    #[test]
    fn what_else_is_in_the_text_does_not_hide_a_variable() {
        let text = ".version 99.0\n.target sm_300a\n.global .b8 big[1073741824];\n.entry k() { of.another.day {%r1, %r2}, [%rd1], 7; ret; }";
        assert_eq!(told(text), named(&[("big", 1 << 30)]));
    }

    #[test]
    fn what_could_hide_a_variable_is_refused() {
        for text in [
            "#define G .global\nG .b8 big[99];",
            ".pragma \"\\\"/*\";\n.global .b8 big[99]; // */",
            ".pragma \"a\nb\";",
            // As ptxas takes them.
            ".version 8.0\n.target sm_90.global .b8 big[99];",
            ".target sm_90, debug.const .b8 big[99];",
            ".extern .func f.global.align 4 .b8 big[99];",
            ".extern .func f.visible.global .b8 big[99];",
            ".entry k() { ret; } .extern .func f.global .b8 big[99];",
            ".global .b8 big[1 << 30];",
            ".global .b8 big[N];",
            ".global .day big;",
            ".global big;",
            ".global .b8 big",
            ".global .b8 big[2] = {1, 2",
            ".global .b8 big = };",
            ".global .attribute(.managed .b8 big;",
            "/* .global .b8 big[99];",
        ] {
            assert!(variables(text).is_err(), "{text}");
        }
    }
}
