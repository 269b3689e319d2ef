//! Managed variables of a text (`.attribute(.managed)`), and the text without them: for who has memory for them that host and device
//! reach at one address. [`variables`] tells what they are, [`placed`] (`managed/place.rs`) puts addresses in the place of their names.
//!
//! The rest of the text is a driver's to understand, which may know more of PTX than `parse.rs` does. Source: PTX ISA, "Variable
//! Attribute Directive: .attribute", "Initializers", "Addresses as Operands".

mod place;

use super::lex::{Lexer, Token};
use super::parse;
use super::scan;
use super::tree::{Initial, Variable};
use crate::image::ImageError;

pub(crate) use place::placed;

/// A managed variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedVariable {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// What its address is a multiple of: a power of two.
    pub align: u64,
    /// Its first values; behind them there are zeros up to its length.
    pub initial: Vec<u8>,
    /// Addresses among them, of 8 bytes: where, of what, and how many bytes behind that.
    pub addresses: Vec<(usize, String, i64)>,
}

/// All managed variables of a text.
pub(crate) fn variables(text: &str) -> Result<Vec<ManagedVariable>, ImageError> {
    let mut lexer = Lexer::new(text);
    let (mut found, mut depth, mut is_extern) = (Vec::new(), 0_u32, false);
    loop {
        match lexer.peek()? {
            Token::End => return Ok(found),
            Token::Directive("global") => {
                if let Some(list) = declaration(&mut lexer)? {
                    if depth > 0 || is_extern {
                        return Err(unsupported(
                            &mut lexer,
                            "a managed variable of another module, or in a function",
                        ));
                    }
                    for variable in &list {
                        found.push(told(variable)?);
                    }
                }
                is_extern = false;
                continue;
            }
            // A parameter that is a pointer says into which space.
            Token::Directive("ptr") => {
                lexer.next()?;
                parse::skip_pointer_words(&mut lexer)?;
                continue;
            }
            Token::Directive("extern") => is_extern = true,
            Token::Directive("visible" | "weak" | "common") => {}
            Token::Punctuation(b'{') => depth += 1,
            Token::Punctuation(b'}') => depth = depth.saturating_sub(1),
            _ => is_extern = false,
        }
        lexer.next()?;
    }
}

/// One declaration in global memory, from its space up to its `;`: its variables if they are managed.
fn declaration<'a>(lexer: &mut Lexer<'a>) -> Result<Option<Vec<Variable<'a>>>, ImageError> {
    let (mut behind, mut list) = (lexer.clone(), Vec::new());
    behind.next()?;
    scan::declaration(&mut behind, "global", &mut list)?;
    if list.iter().any(|variable| variable.managed) {
        return parse::variables(lexer).map(Some);
    }
    *lexer = behind;
    Ok(None)
}

fn told(variable: &Variable<'_>) -> Result<ManagedVariable, ImageError> {
    let width = variable.ty.bytes() as usize;
    let (mut initial, mut addresses) = (Vec::new(), Vec::new());
    for value in &variable.initial {
        let bits = match *value {
            Initial::Bits(bits) => bits,
            Initial::Symbol(name, offset) if width == 8 => {
                addresses.push((initial.len(), name.to_owned(), offset));
                0
            }
            Initial::Symbol(..) => {
                let what = "an address in fewer than 64 bits".to_owned();
                return Err(ImageError::Unsupported { line: variable.line, what });
            }
        };
        initial.extend_from_slice(&bits.to_le_bytes()[..width]);
    }
    Ok(ManagedVariable {
        name: variable.name.to_owned(),
        bytes: variable.bytes,
        align: variable.align.into(),
        initial,
        addresses,
    })
}

fn unsupported(lexer: &mut Lexer<'_>, what: &str) -> ImageError {
    match lexer.line() {
        Ok(line) => ImageError::Unsupported { line, what: what.to_owned() },
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests;
