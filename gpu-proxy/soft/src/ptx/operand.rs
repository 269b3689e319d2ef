//! Operands and initializers.

use super::lex::{Lexer, Token};
use super::tree::{Initial, Operand, Ty};
use crate::image::ImageError;

/// `{…}` and `(…)` never nest deeper in what compilers write.
const DEPTH_MAX: u32 = 8;

impl<'a> Lexer<'a> {
    pub fn eat(&mut self, byte: u8) -> Result<bool, ImageError> {
        let found = self.peek()? == Token::Punctuation(byte);
        if found {
            self.next()?;
        }
        Ok(found)
    }

    pub fn expect(&mut self, byte: u8) -> Result<(), ImageError> {
        if self.eat(byte)? { Ok(()) } else { Err(self.error(format!("expected '{}'", char::from(byte)))) }
    }

    pub fn word(&mut self) -> Result<&'a str, ImageError> {
        match self.peek()? {
            Token::Word(word) => {
                self.next()?;
                Ok(word)
            }
            _ => Err(self.error("expected a name")),
        }
    }

    pub fn integer(&mut self) -> Result<u64, ImageError> {
        let negative = self.eat(b'-')?;
        match self.peek()? {
            Token::Integer(value) => {
                self.next()?;
                Ok(if negative { value.wrapping_neg() } else { value })
            }
            _ => Err(self.error("expected an integer")),
        }
    }
}

/// Operands up to and with the `;`.
pub(super) fn operands<'a>(lexer: &mut Lexer<'a>) -> Result<Vec<Operand<'a>>, ImageError> {
    let mut operands = Vec::new();
    while !lexer.eat(b';')? {
        if !operands.is_empty() {
            lexer.expect(b',')?;
        }
        operands.push(operand(lexer, 0)?);
    }
    Ok(operands)
}

fn operand<'a>(lexer: &mut Lexer<'a>, depth: u32) -> Result<Operand<'a>, ImageError> {
    if depth > DEPTH_MAX {
        return Err(lexer.error("operands nested too deep"));
    }
    match lexer.peek()? {
        Token::Punctuation(b'{') => list(lexer, b'{', b'}', depth).map(Operand::Vector),
        Token::Punctuation(b'(') => list(lexer, b'(', b')', depth).map(Operand::Group),
        Token::Punctuation(b'[') => memory(lexer, depth),
        Token::Punctuation(b'!') => {
            lexer.next()?;
            Ok(Operand::Name { name: lexer.word()?, negated: true })
        }
        Token::Punctuation(b'-') => signed(lexer),
        Token::Integer(value) => {
            lexer.next()?;
            Ok(Operand::Integer(value))
        }
        Token::Single(bits) => {
            lexer.next()?;
            Ok(Operand::Single(bits))
        }
        Token::Double(bits) => {
            lexer.next()?;
            Ok(Operand::Double(bits))
        }
        _ => named(lexer),
    }
}

fn signed<'a>(lexer: &mut Lexer<'a>) -> Result<Operand<'a>, ImageError> {
    lexer.expect(b'-')?;
    match lexer.next()? {
        Token::Integer(value) => Ok(Operand::Integer(value.wrapping_neg())),
        Token::Single(bits) => Ok(Operand::Single(bits ^ 1 << 31)),
        Token::Double(bits) => Ok(Operand::Double(bits ^ 1 << 63)),
        _ => Err(lexer.error("expected a number after '-'")),
    }
}

fn named<'a>(lexer: &mut Lexer<'a>) -> Result<Operand<'a>, ImageError> {
    let name = lexer.word()?;
    if lexer.eat(b'|')? {
        return Ok(Operand::Pair(name, lexer.word()?));
    }
    match displacement(lexer)? {
        Some(offset) => Ok(Operand::Offset(name, offset)),
        None => Ok(Operand::Name { name, negated: false }),
    }
}

fn memory<'a>(lexer: &mut Lexer<'a>, depth: u32) -> Result<Operand<'a>, ImageError> {
    lexer.expect(b'[')?;
    let operand = if let Token::Word(name) = lexer.peek()? {
        lexer.next()?;
        if lexer.eat(b',')? {
            let at = match operand(lexer, depth + 1)? {
                Operand::Vector(list) => list,
                one => vec![one],
            };
            Operand::Texel(name, at)
        } else {
            Operand::Memory(name, displacement(lexer)?.unwrap_or(0))
        }
    } else {
        Operand::Absolute(lexer.integer()?)
    };
    lexer.expect(b']')?;
    Ok(operand)
}

/// `+4`, `+-4` or `-4`.
fn displacement(lexer: &mut Lexer<'_>) -> Result<Option<i64>, ImageError> {
    if lexer.eat(b'+')? || lexer.peek()? == Token::Punctuation(b'-') {
        return Ok(Some(lexer.integer()?.cast_signed()));
    }
    Ok(None)
}

fn list<'a>(lexer: &mut Lexer<'a>, open: u8, close: u8, depth: u32) -> Result<Vec<Operand<'a>>, ImageError> {
    lexer.expect(open)?;
    let mut items = Vec::new();
    while !lexer.eat(close)? {
        if !items.is_empty() {
            lexer.expect(b',')?;
        }
        items.push(operand(lexer, depth + 1)?);
    }
    Ok(items)
}

/// What follows `=` after a variable of type `ty`, up to but without the `;`. Inner braces only group.
pub(super) fn initial<'a>(lexer: &mut Lexer<'a>, ty: Ty) -> Result<Vec<Initial<'a>>, ImageError> {
    let mut items = Vec::new();
    let mut depth = 0;
    loop {
        if lexer.eat(b'{')? {
            depth += 1;
            continue;
        }
        if depth > 0 && lexer.eat(b'}')? {
            depth -= 1;
        } else {
            items.push(element(lexer, ty)?);
        }
        while depth > 0 && lexer.eat(b'}')? {
            depth -= 1;
        }
        if depth == 0 {
            return Ok(items);
        }
        lexer.expect(b',')?;
    }
}

fn element<'a>(lexer: &mut Lexer<'a>, ty: Ty) -> Result<Initial<'a>, ImageError> {
    if let Token::Word(name) = lexer.peek()? {
        lexer.next()?;
        if name == "generic" && lexer.eat(b'(')? {
            let symbol = lexer.word()?;
            lexer.expect(b')')?;
            return Ok(Initial::Symbol(symbol, displacement(lexer)?.unwrap_or(0)));
        }
        return Ok(Initial::Symbol(name, displacement(lexer)?.unwrap_or(0)));
    }
    let negative = lexer.peek()? == Token::Punctuation(b'-');
    match operand(lexer, 0)? {
        Operand::Integer(value) if ty.is_float() => {
            let value = if negative { value.cast_signed() as f64 } else { value as f64 };
            Ok(Initial::Bits(float_bits(value, ty)))
        }
        Operand::Integer(value) => Ok(Initial::Bits(value)),
        Operand::Single(bits) => Ok(Initial::Bits(u64::from(bits))),
        Operand::Double(bits) => Ok(Initial::Bits(float_bits(f64::from_bits(bits), ty))),
        _ => Err(lexer.error("expected a number or a symbol")),
    }
}

/// A decimal in an initializer takes its variable's type.
fn float_bits(value: f64, ty: Ty) -> u64 {
    if ty == Ty::F32 {
        #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is asked for")]
        let single = value as f32;
        return u64::from(single.to_bits());
    }
    value.to_bits()
}
