//! A text whose managed variables have addresses: their declarations go, and where an instruction names one it finds a register that has
//! the address. An immediate would not do: one in `[ ]` has 32 bits.
//!
//! ```text
//! ld.global.u32 %r1, [x+4];   →   mov.u64 %vgpu_managed0, 0x680000000200; ld.global.u32 %r1, [%vgpu_managed0+4];
//! .global .u64 p = generic(x); →  .global .u64 p = 0x680000000200;
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::super::lex::{Lexer, Token};
use super::{declaration, unsupported};
use crate::image::ImageError;

/// What registers are called here, before their number.
const REGISTER: &str = "%vgpu_managed";
/// Deepest nesting of `{ }`.
const DEPTH_MAX: usize = 32;
/// Most changes of a text: compilers make thousands.
const EDITS_MAX: usize = 1 << 20;

/// The text with `addresses`, by name, in the place of its managed variables.
pub(crate) fn placed(text: &str, addresses: &HashMap<String, u64>) -> Result<String, ImageError> {
    let mut placing = Placing { lexer: Lexer::new(text), addresses, edits: Vec::new() };
    placing.module()?;
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for edit in placing.edits {
        out.push_str(&text[copied..edit.start]);
        out.push_str(&edit.text);
        copied = edit.end;
    }
    out.push_str(&text[copied..]);
    Ok(out)
}

/// What takes the place of a piece of the text.
struct Edit {
    start: usize,
    end: usize,
    text: String,
}

/// Names that a block declares.
#[derive(Default)]
struct Scope<'a> {
    names: HashSet<&'a str>,
    /// `%r<5>`: a name with a number behind it.
    numbered: HashSet<&'a str>,
}

impl Scope<'_> {
    fn has(&self, name: &str) -> bool {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count().min(10);
        let is_numbered = || (1..=digits).any(|count| self.numbered.contains(&name[..name.len() - count]));
        self.names.contains(name) || is_numbered()
    }
}

struct Placing<'a, 'b> {
    lexer: Lexer<'a>,
    addresses: &'b HashMap<String, u64>,
    /// In the order of the text, none over another.
    edits: Vec<Edit>,
}

impl<'a> Placing<'a, '_> {
    fn module(&mut self) -> Result<(), ImageError> {
        // Where `.visible` and its like stand before what follows.
        let mut linked_at = None;
        loop {
            let start = self.lexer.start()?;
            match self.lexer.peek()? {
                Token::End => return Ok(()),
                Token::Directive("visible" | "weak" | "common" | "extern") => {
                    linked_at = linked_at.or(Some(start));
                    self.lexer.next()?;
                    continue;
                }
                Token::Directive("global") => {
                    let mut behind = self.lexer.clone();
                    if declaration(&mut behind)?.is_some() {
                        self.lexer = behind;
                        self.edit(linked_at.unwrap_or(start), String::new())?;
                    } else {
                        self.variables(&mut Scope::default())?;
                    }
                }
                Token::Directive("const" | "shared") => self.variables(&mut Scope::default())?,
                Token::Directive("entry" | "func") => self.function()?,
                Token::Directive("section") => self.section()?,
                Token::Directive("file" | "loc") => self.skip_line()?,
                _ => drop(self.lexer.next()?),
            }
            linked_at = None;
        }
    }

    /// From `start` to the end of what was taken last there is `text`.
    fn edit(&mut self, start: usize, text: String) -> Result<(), ImageError> {
        if self.edits.len() >= EDITS_MAX {
            return Err(unsupported(&mut self.lexer, "so many uses of managed variables"));
        }
        self.edits.push(Edit { start, end: self.lexer.end(), text });
        Ok(())
    }

    fn address(&self, name: &str) -> Option<u64> {
        self.addresses.get(name).copied()
    }

    /// `+4` or `-4` behind a name, or nothing.
    fn displacement(&mut self) -> Result<u64, ImageError> {
        if self.lexer.eat(b'+')? || self.lexer.peek()? == Token::Punctuation(b'-') {
            return self.lexer.integer();
        }
        Ok(0)
    }

    fn skip_line(&mut self) -> Result<(), ImageError> {
        let line = self.lexer.line()?;
        while self.lexer.line()? == line && self.lexer.peek()? != Token::End {
            self.lexer.next()?;
        }
        Ok(())
    }

    /// Of debuggers: it may say where a variable is.
    fn section(&mut self) -> Result<(), ImageError> {
        loop {
            let start = self.lexer.start()?;
            match self.lexer.next()? {
                Token::Word(name) => {
                    if let Some(address) = self.address(name) {
                        self.edit(start, format!("{address:#x}"))?;
                    }
                }
                Token::Punctuation(b'}') | Token::End => return Ok(()),
                _ => {}
            }
        }
    }

    /// A declaration of variables or registers from its space up to its `;`. First values may name managed variables.
    fn variables(&mut self, scope: &mut Scope<'a>) -> Result<(), ImageError> {
        let (mut depth, mut in_values) = (0_u32, false);
        loop {
            let start = self.lexer.start()?;
            match self.lexer.next()? {
                Token::End => return Err(self.lexer.error("a declaration without an end")),
                Token::Punctuation(b';') if depth == 0 => return Ok(()),
                Token::Punctuation(b'=') => in_values = true,
                Token::Punctuation(b',') if depth == 0 => in_values = false,
                Token::Punctuation(b'{' | b'(') => depth += 1,
                Token::Punctuation(b'}' | b')') => depth = depth.saturating_sub(1),
                Token::Word(name) if in_values => self.value(start, name)?,
                Token::Word(name) => {
                    let is_numbered = self.lexer.peek()? == Token::Punctuation(b'<');
                    let names = if is_numbered { &mut scope.numbered } else { &mut scope.names };
                    names.insert(name);
                }
                _ => {}
            }
        }
    }

    /// A word among first values, which was taken: `x`, `x+8`, `generic(x)`, `generic(x)+8`.
    fn value(&mut self, start: usize, word: &str) -> Result<(), ImageError> {
        let mut behind = self.lexer.clone();
        let in_brackets = word == "generic" && behind.eat(b'(')?;
        let name = if in_brackets { behind.word()? } else { word };
        let Some(address) = self.address(name) else { return Ok(()) };
        self.lexer = behind;
        if in_brackets {
            self.lexer.expect(b')')?;
        }
        let address = address.wrapping_add(self.displacement()?);
        self.edit(start, format!("{address:#x}"))
    }

    /// A function with its body, or its declaration.
    fn function(&mut self) -> Result<(), ImageError> {
        let (mut scope, mut depth) = (Scope::default(), 0_u32);
        loop {
            match self.lexer.next()? {
                Token::End => return Err(self.lexer.error("a function without an end")),
                Token::Punctuation(b';') => return Ok(()),
                Token::Punctuation(b'{') => return self.body(scope),
                Token::Punctuation(b'(') => depth += 1,
                Token::Punctuation(b')') => depth = depth.saturating_sub(1),
                // A parameter.
                Token::Word(name) if depth > 0 => drop(scope.names.insert(name)),
                _ => {}
            }
        }
    }

    /// Behind its `{`. The scope has the parameters.
    fn body(&mut self, parameters: Scope<'a>) -> Result<(), ImageError> {
        let mut scopes = vec![parameters];
        let mut registers = 0;
        // Room for the declaration of registers.
        let declared = self.edits.len();
        self.edit(self.lexer.end(), String::new())?;
        while let Some(scope) = scopes.last_mut() {
            match self.lexer.peek()? {
                Token::End => return Err(self.lexer.error("a function without an end")),
                Token::Punctuation(b'{') => {
                    self.lexer.next()?;
                    if scopes.len() >= DEPTH_MAX {
                        return Err(self.lexer.error("blocks nested too deep"));
                    }
                    scopes.push(Scope::default());
                }
                Token::Punctuation(b'}') => {
                    self.lexer.next()?;
                    scopes.pop();
                }
                Token::Directive("loc" | "file") => self.skip_line()?,
                Token::Directive("reg" | "local" | "param" | "shared" | "const" | "global") => {
                    self.variables(scope)?;
                }
                Token::Word(_) | Token::Punctuation(b'@') => {
                    registers = registers.max(self.statement(&mut scopes)?);
                }
                Token::Directive(_) => self.skip_statement()?,
                _ => drop(self.lexer.next()?),
            }
        }
        if registers > 0 {
            self.edits[declared].text = format!(" .reg .b64 {REGISTER}<{registers}>;");
        }
        Ok(())
    }

    fn skip_statement(&mut self) -> Result<(), ImageError> {
        while !matches!(self.lexer.next()?, Token::Punctuation(b';') | Token::End) {}
        Ok(())
    }

    /// An instruction up to its `;`, or a label; how many registers it needs.
    fn statement(&mut self, scopes: &mut [Scope<'a>]) -> Result<usize, ImageError> {
        let (start, first) = (self.lexer.start()?, self.edits.len());
        let is_guarded = self.lexer.eat(b'@')?;
        if is_guarded {
            self.lexer.eat(b'!')?;
            self.lexer.word()?;
        }
        let word = self.lexer.word()?;
        if !is_guarded && self.lexer.eat(b':')? {
            scopes.iter_mut().last().map(|scope| scope.names.insert(word));
            return Ok(0);
        }
        if word.starts_with("bra") || word.starts_with("brx") {
            return self.skip_statement().map(|()| 0);
        }
        let (mut in_memory, mut registers, mut set) = (false, 0, String::new());
        loop {
            let start = self.lexer.start()?;
            match self.lexer.next()? {
                Token::Punctuation(b';') => break,
                Token::End => return Err(self.lexer.error("an instruction without an end")),
                Token::Punctuation(b'[') => in_memory = true,
                Token::Punctuation(b']') => in_memory = false,
                Token::Word(word) => {
                    let name = word.split('.').next().unwrap_or(word);
                    let hidden = || scopes.iter().any(|scope| scope.has(name));
                    let Some(mut address) = self.address(name).filter(|_| !hidden()) else { continue };
                    if name != word {
                        return Err(unsupported(&mut self.lexer, "such a use of a managed variable"));
                    }
                    if !in_memory {
                        address = address.wrapping_add(self.displacement()?);
                    }
                    self.edit(start, format!("{REGISTER}{registers}"))?;
                    // Writing to a text cannot fail.
                    let _ = write!(set, "mov.u64 {REGISTER}{registers}, {address:#x}; ");
                    registers += 1;
                }
                _ => {}
            }
        }
        if registers > 0 {
            self.edits.insert(first, Edit { start, end: start, text: set });
        }
        Ok(registers)
    }
}
