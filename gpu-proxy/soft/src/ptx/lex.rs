//! PTX text cut into tokens. Source: PTX ISA, "Identifiers", "Constants".

use crate::image::ImageError;

/// One token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    /// An identifier, with the dotted words that follow it directly: `ld.global.f32`, `%tid.x`, `$L__BB0_1`.
    Word(&'a str),
    /// A directive without its dot: `reg`, `f32`.
    Directive(&'a str),
    Integer(u64),
    Single(u32),
    Double(u64),
    Text(&'a str),
    Punctuation(u8),
    End,
}

/// The tokens of a text, one ahead.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    ahead: Option<Ahead<'a>>,
    /// Where the token that was taken last ends.
    end: usize,
}

#[derive(Debug, Clone, Copy)]
struct Ahead<'a> {
    token: Token<'a>,
    line: u32,
    start: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, ahead: None, end: 0 }
    }

    /// The line of the token that comes next.
    pub fn line(&mut self) -> Result<u32, ImageError> {
        self.peek()?;
        Ok(self.ahead.map_or(self.line, |ahead| ahead.line))
    }

    /// Where the token begins that comes next.
    pub fn start(&mut self) -> Result<usize, ImageError> {
        self.peek()?;
        Ok(self.ahead.map_or(self.at, |ahead| ahead.start))
    }

    /// Where the token ends that was taken last.
    pub fn end(&self) -> usize {
        self.end
    }

    pub fn peek(&mut self) -> Result<Token<'a>, ImageError> {
        if let Some(ahead) = self.ahead {
            return Ok(ahead.token);
        }
        self.skip_blank()?;
        let (line, start) = (self.line, self.at);
        let token = self.scan()?;
        self.ahead = Some(Ahead { token, line, start });
        Ok(token)
    }

    pub fn next(&mut self) -> Result<Token<'a>, ImageError> {
        let token = self.peek()?;
        self.ahead = None;
        self.end = self.at;
        Ok(token)
    }

    /// An error at the next token's line.
    pub fn error(&self, what: impl Into<String>) -> ImageError {
        let line = self.ahead.map_or(self.line, |ahead| ahead.line);
        ImageError::Ptx { line, what: what.into() }
    }

    fn skip_blank(&mut self) -> Result<(), ImageError> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b'\n' => {
                    self.line += 1;
                    self.at += 1;
                }
                _ if byte.is_ascii_whitespace() => self.at += 1,
                b'/' if bytes.get(self.at + 1) == Some(&b'/') => {
                    self.at = bytes[self.at..]
                        .iter()
                        .position(|b| *b == b'\n')
                        .map_or(bytes.len(), |n| self.at + n);
                }
                b'/' if bytes.get(self.at + 1) == Some(&b'*') => {
                    let length = self.text.get(self.at + 2..).and_then(|rest| rest.find("*/"));
                    let end = self.at + 4 + length.ok_or_else(|| self.error("a comment without an end"))?;
                    self.line += newlines(&bytes[self.at..end]);
                    self.at = end;
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn scan(&mut self) -> Result<Token<'a>, ImageError> {
        let bytes = self.text.as_bytes();
        let Some(&first) = bytes.get(self.at) else { return Ok(Token::End) };
        let after = bytes.get(self.at + 1).copied().unwrap_or(0);
        if is_start(first) {
            return Ok(Token::Word(self.take_word(true)));
        }
        if first == b'.' && is_start(after) {
            self.at += 1;
            return Ok(Token::Directive(self.take_word(false)));
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        if first == b'"' {
            return self.quoted();
        }
        if first.is_ascii() {
            self.at += 1;
            return Ok(Token::Punctuation(first));
        }
        Err(self.error("a character outside ASCII"))
    }

    /// Takes an identifier; with `dots`, also `.word` and `::word` that follow without a blank.
    fn take_word(&mut self, dots: bool) -> &'a str {
        let bytes = self.text.as_bytes();
        let start = self.at;
        self.at += 1;
        while let Some(&byte) = bytes.get(self.at) {
            let after = bytes.get(self.at + 1).copied().unwrap_or(0);
            if is_part(byte) {
                self.at += 1;
            } else if (dots && byte == b'.' && is_part(after)) || (byte == b':' && after == b':') {
                self.at += 2;
            } else {
                break;
            }
        }
        &self.text[start..self.at]
    }

    fn quoted(&mut self) -> Result<Token<'a>, ImageError> {
        let start = self.at + 1;
        let length = self.text.get(start..).and_then(|rest| rest.find('"'));
        let end = start + length.ok_or_else(|| self.error("a string without an end"))?;
        self.line += newlines(&self.text.as_bytes()[start..end]);
        self.at = end + 1;
        Ok(Token::Text(&self.text[start..end]))
    }

    fn number(&mut self) -> Result<Token<'a>, ImageError> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let word_end = |from: usize| {
            bytes[from..].iter().position(|b| !b.is_ascii_alphanumeric()).map_or(bytes.len(), |n| from + n)
        };
        let mut end = word_end(start);
        let is_decimal = bytes[start..end].iter().all(u8::is_ascii_digit);
        if is_decimal && bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            end = word_end(end + 1);
            if matches!(bytes[end - 1], b'e' | b'E') && matches!(bytes.get(end), Some(b'+' | b'-')) {
                end = word_end(end + 1);
            }
        }
        self.at = end;
        let word = &self.text[start..end];
        literal(word).ok_or_else(|| self.error(format!("the number {word:.40}")))
    }
}

fn literal<'a>(word: &str) -> Option<Token<'a>> {
    if word.contains('.') {
        return word.parse::<f64>().ok().map(|value| Token::Double(value.to_bits()));
    }
    let radix = |digits: &str, radix| {
        let digits = digits.strip_suffix(['u', 'U']).unwrap_or(digits);
        u64::from_str_radix(digits, radix).ok().map(Token::Integer)
    };
    match word.get(..2) {
        Some("0f" | "0F") if word.len() == 10 => u32::from_str_radix(&word[2..], 16).ok().map(Token::Single),
        Some("0d" | "0D") if word.len() == 18 => u64::from_str_radix(&word[2..], 16).ok().map(Token::Double),
        Some("0x" | "0X") => radix(&word[2..], 16),
        Some("0b" | "0B") => radix(&word[2..], 2),
        Some(two) if two.starts_with('0') && two.as_bytes()[1].is_ascii_digit() => radix(&word[1..], 8),
        _ => radix(word, 10),
    }
}

fn newlines(bytes: &[u8]) -> u32 {
    // A text is at most 64 MiB long.
    u32::try_from(bytes.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u32::MAX)
}

fn is_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%')
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        let mut lexer = Lexer::new(text);
        std::iter::from_fn(|| Some(lexer.next().unwrap()).filter(|token| *token != Token::End)).collect()
    }

    #[test]
    fn an_instruction_is_one_word_and_its_operands() {
        let expected = vec![
            Token::Word("ld.global.L2::128B.f32"),
            Token::Word("%f1"),
            Token::Punctuation(b','),
            Token::Punctuation(b'['),
            Token::Word("%rd1"),
            Token::Punctuation(b'+'),
            Token::Integer(4),
            Token::Punctuation(b']'),
            Token::Punctuation(b';'),
        ];
        assert_eq!(tokens("ld.global.L2::128B.f32 \t%f1, [%rd1+4]; // x"), expected);
    }

    #[test]
    fn numbers_have_their_five_forms() {
        let numbers = [Token::Integer(31), Token::Integer(8), Token::Integer(5), Token::Single(0x3f80_0000)];
        assert_eq!(tokens("0x1FU 010 0b101 0f3F800000"), numbers);
        assert_eq!(tokens("1.5e+2"), [Token::Double(150f64.to_bits())]);
        assert_eq!(tokens("0d3FF0000000000000"), [Token::Double(1f64.to_bits())]);
        assert!(Lexer::new("0xg").next().is_err());
        assert!(Lexer::new("99999999999999999999").next().is_err());
    }

    #[test]
    fn lines_are_counted_through_comments() {
        let mut lexer = Lexer::new("/* a\n b */\n// c\nx");
        assert_eq!(lexer.line().unwrap(), 4);
        assert!(Lexer::new("/* a").next().is_err());
    }
}
