//! Directives, functions and statements. Source: PTX ISA, chapter 11.

use super::lex::{Lexer, Token};
use super::operand::{initial, operands};
use super::tree::{Function, Instruction, Source, Space, Statement, Ty, Variable};
use crate::image::ImageError;

/// Deepest nesting of `{ }`. Inline assembly nests two or three deep.
const DEPTH_MAX: u32 = 32;

/// Parses a whole text.
pub(crate) fn parse(text: &str) -> Result<Source<'_>, ImageError> {
    let mut lexer = Lexer::new(text);
    let mut source = Source::default();
    loop {
        match lexer.peek()? {
            Token::End => return Ok(source),
            Token::Directive("version" | "address_size") => {
                lexer.next()?;
                lexer.next()?;
            }
            Token::Directive("target") => target(&mut lexer, &mut source)?,
            Token::Directive("file" | "loc") => skip_numbers(&mut lexer)?,
            Token::Directive("section") => skip_section(&mut lexer)?,
            Token::Directive("alias" | "pragma") => skip_to_semicolon(&mut lexer)?,
            Token::Directive(_) => linked(&mut lexer, &mut source)?,
            _ => return Err(lexer.error("expected a directive")),
        }
    }
}

/// A function or variable, after `.visible`, `.extern`, `.weak` or nothing.
fn linked<'a>(lexer: &mut Lexer<'a>, source: &mut Source<'a>) -> Result<(), ImageError> {
    let mut is_extern = false;
    while let Token::Directive(word @ ("visible" | "extern" | "weak" | "common")) = lexer.peek()? {
        is_extern |= word == "extern";
        lexer.next()?;
    }
    match lexer.peek()? {
        Token::Directive(word @ ("entry" | "func")) => {
            lexer.next()?;
            source.functions.push(function(lexer, word == "entry")?);
        }
        Token::Directive("global" | "const" | "shared") => {
            let list = variables(lexer)?;
            if is_extern && list.iter().any(|v| v.space != Space::Shared) {
                return Err(unsupported(lexer, "a variable of another module")?);
            }
            source.variables.extend(list);
        }
        Token::Directive(word) => return Err(unsupported(lexer, &format!(".{word}"))?),
        _ => return Err(lexer.error("expected a function or a variable")),
    }
    Ok(())
}

fn function<'a>(lexer: &mut Lexer<'a>, is_kernel: bool) -> Result<Function<'a>, ImageError> {
    let line = lexer.line()?;
    let mut attributes = None;
    let returns = if lexer.peek()? == Token::Punctuation(b'(') { parameters(lexer)? } else { Vec::new() };
    let name = lexer.word()?;
    let parameters = if lexer.peek()? == Token::Punctuation(b'(') { parameters(lexer)? } else { Vec::new() };
    while let Token::Directive(word) = lexer.peek()? {
        lexer.next()?;
        let numbers = numbers(lexer)?;
        if matches!(word, "maxntid" | "reqntid") {
            let product = numbers.iter().try_fold(1u32, |all, n| u32::try_from(*n).ok()?.checked_mul(all));
            attributes = Some(product.ok_or_else(|| lexer.error("too many threads"))?);
        }
    }
    let body = if lexer.eat(b';')? { None } else { Some(block(lexer, 0)?) };
    Ok(Function { name, is_kernel, returns, parameters, body, max_threads: attributes, line })
}

fn parameters<'a>(lexer: &mut Lexer<'a>) -> Result<Vec<Variable<'a>>, ImageError> {
    lexer.expect(b'(')?;
    let mut list = Vec::new();
    while !lexer.eat(b')')? {
        if !list.is_empty() {
            lexer.expect(b',')?;
        }
        let storage = storage(lexer)?;
        list.push(variable(lexer, storage)?);
    }
    Ok(list)
}

fn block<'a>(lexer: &mut Lexer<'a>, depth: u32) -> Result<Vec<Statement<'a>>, ImageError> {
    if depth > DEPTH_MAX {
        return Err(lexer.error("blocks nested too deep"));
    }
    lexer.expect(b'{')?;
    let mut statements = Vec::new();
    while !lexer.eat(b'}')? {
        match lexer.peek()? {
            Token::Punctuation(b'{') => statements.push(Statement::Block(block(lexer, depth + 1)?)),
            Token::Punctuation(b';') => lexer.expect(b';')?,
            Token::Directive("loc") => skip_numbers(lexer)?,
            Token::Directive("pragma") => skip_to_semicolon(lexer)?,
            Token::Directive("reg") => registers(lexer, &mut statements)?,
            Token::Directive(_) => statements.extend(variables(lexer)?.into_iter().map(Statement::Variable)),
            _ => statements.push(labelled(lexer)?),
        }
    }
    Ok(statements)
}

/// An instruction, or a name with a colon and what it names.
fn labelled<'a>(lexer: &mut Lexer<'a>) -> Result<Statement<'a>, ImageError> {
    let line = lexer.line()?;
    let guard = if lexer.eat(b'@')? {
        let negated = lexer.eat(b'!')?;
        Some((lexer.word()?, negated))
    } else {
        None
    };
    let words = lexer.word()?;
    if guard.is_none() && lexer.eat(b':')? {
        return match lexer.peek()? {
            Token::Directive("branchtargets") => targets(lexer, words, line),
            Token::Directive("callprototype" | "calltargets") => {
                skip_to_semicolon(lexer)?;
                Ok(Statement::Block(Vec::new()))
            }
            _ => Ok(Statement::Label(words)),
        };
    }
    Ok(Statement::Instruction(Instruction { line, guard, words, operands: operands(lexer)? }))
}

fn targets<'a>(lexer: &mut Lexer<'a>, name: &'a str, line: u32) -> Result<Statement<'a>, ImageError> {
    lexer.next()?;
    let mut labels = vec![lexer.word()?];
    while lexer.eat(b',')? {
        labels.push(lexer.word()?);
    }
    lexer.expect(b';')?;
    Ok(Statement::Targets { name, labels, line })
}

fn registers<'a>(lexer: &mut Lexer<'a>, statements: &mut Vec<Statement<'a>>) -> Result<(), ImageError> {
    let line = lexer.line()?;
    lexer.next()?;
    let Token::Directive(word) = lexer.next()? else { return Err(lexer.error("expected a register's type")) };
    let ty = Ty::from_word(word).ok_or_else(|| lexer.error(format!("the register type .{word:.20}")))?;
    loop {
        let name = lexer.word()?;
        let mut count = None;
        if lexer.eat(b'<')? {
            count = Some(u32::try_from(lexer.integer()?).map_err(|_| lexer.error("too many registers"))?);
            lexer.expect(b'>')?;
        }
        statements.push(Statement::Registers { ty, name, count, line });
        if lexer.eat(b';')? {
            return Ok(());
        }
        lexer.expect(b',')?;
    }
}

/// One declaration of variables, with its `;`.
pub(super) fn variables<'a>(lexer: &mut Lexer<'a>) -> Result<Vec<Variable<'a>>, ImageError> {
    let storage = storage(lexer)?;
    let mut list = Vec::new();
    loop {
        let mut item = variable(lexer, storage)?;
        if lexer.eat(b'=')? {
            item.initial = initial(lexer, item.ty)?;
            let given = (item.initial.len() as u64).saturating_mul(u64::from(item.ty.bytes()));
            if item.bytes == 0 {
                item.bytes = given;
            } else if given > item.bytes {
                return Err(lexer.error(format!("more values than {:.60} holds", item.name)));
            }
        }
        list.push(item);
        if lexer.eat(b';')? {
            return Ok(list);
        }
        lexer.expect(b',')?;
    }
}

/// What stands before a variable's name.
#[derive(Clone, Copy)]
struct Storage {
    space: Space,
    ty: Ty,
    align: u32,
    managed: bool,
}

fn storage(lexer: &mut Lexer<'_>) -> Result<Storage, ImageError> {
    let (mut space, mut ty, mut align, mut lanes, mut managed) = (None, None, 0, 1, false);
    let mut opaque = None;
    while let Token::Directive(word) = lexer.peek()? {
        lexer.next()?;
        match word {
            "global" => space = Some(Space::Global),
            "const" => space = Some(Space::Const),
            "shared" => space = Some(Space::Shared),
            "local" => space = Some(Space::Local),
            // A parameter that is a pointer may say `.ptr .global .align 4`: nothing of that matters here.
            "param" => space = Some(Space::Param),
            "ptr" => skip_pointer_words(lexer)?,
            "align" => align = alignment(lexer)?,
            "v2" => lanes = 2,
            "v4" => lanes = 4,
            "attribute" => managed |= managed_attribute(lexer)?,
            "texref" => opaque = Some(Space::TexRef),
            "surfref" => opaque = Some(Space::SurfRef),
            "samplerref" => opaque = Some(Space::SamplerRef),
            // Kernels' variables and `.func` parameters in registers.
            _ => match Ty::from_word(word) {
                Some(Ty::Pred) | None => return Err(unsupported(lexer, &format!(".{word:.30}"))?),
                found => ty = found,
            },
        }
    }
    let space = space.ok_or_else(|| lexer.error("a variable without a state space"))?;
    if let Some(opaque) = opaque {
        if space != Space::Global || ty.is_some() || lanes != 1 || managed {
            return Err(unsupported(lexer, "a reference that is no global variable")?);
        }
        return Ok(Storage { space: opaque, ty: Ty::B64, align: 8, managed });
    }
    let ty = ty.ok_or_else(|| lexer.error("a variable without a type"))?;
    if lanes != 1 {
        return Err(unsupported(lexer, "a variable of a vector type")?);
    }
    if managed && space != Space::Global {
        return Err(lexer.error("a managed variable outside global memory"));
    }
    Ok(Storage { space, ty, align: if align == 0 { ty.bytes() } else { align }, managed })
}

/// `(.managed)`, of the attributes that there are.
fn managed_attribute(lexer: &mut Lexer<'_>) -> Result<bool, ImageError> {
    lexer.expect(b'(')?;
    match lexer.next()? {
        Token::Directive("managed") => lexer.expect(b')').map(|()| true),
        _ => Err(unsupported(lexer, "an attribute other than .managed")?),
    }
}

pub(super) fn skip_pointer_words(lexer: &mut Lexer<'_>) -> Result<(), ImageError> {
    while let Token::Directive(word) = lexer.peek()? {
        lexer.next()?;
        if word == "align" {
            alignment(lexer)?;
        }
    }
    Ok(())
}

fn alignment(lexer: &mut Lexer<'_>) -> Result<u32, ImageError> {
    let value = lexer.integer()?;
    if value.is_power_of_two() && value <= 1 << 16 {
        return Ok(u32::try_from(value).unwrap_or(1));
    }
    Err(lexer.error("an alignment is a power of two up to 65536"))
}

/// A name and its array dimensions.
fn variable<'a>(lexer: &mut Lexer<'a>, storage: Storage) -> Result<Variable<'a>, ImageError> {
    let Storage { space, ty, align, managed } = storage;
    let line = lexer.line()?;
    let name = lexer.word()?;
    let mut bytes = u64::from(ty.bytes());
    while lexer.eat(b'[')? {
        let count = if lexer.peek()? == Token::Punctuation(b']') { 0 } else { lexer.integer()? };
        bytes = bytes.checked_mul(count).ok_or_else(|| lexer.error("an array too large"))?;
        lexer.expect(b']')?;
    }
    Ok(Variable { name, space, ty, align, bytes, initial: Vec::new(), managed, line })
}

/// PTX names the GPU it is written for. The image's choice was made by its container; text alone says it here.
fn target(lexer: &mut Lexer<'_>, source: &mut Source<'_>) -> Result<(), ImageError> {
    lexer.next()?;
    let name = lexer.word()?;
    let digits: String = name.trim_start_matches("sm_").chars().take_while(char::is_ascii_digit).collect();
    let number: u32 = digits.parse().map_err(|_| lexer.error("expected a target"))?;
    let (major, minor) = crate::attributes::COMPUTE_CAPABILITY;
    if number > major * 10 + minor {
        return Err(ImageError::NoBinary("its PTX is for a newer compute capability than 9.0"));
    }
    while lexer.eat(b',')? {
        source.has_samplers_apart |= lexer.word()? == "texmode_independent";
    }
    Ok(())
}

fn numbers(lexer: &mut Lexer<'_>) -> Result<Vec<u64>, ImageError> {
    let mut list = Vec::new();
    while let Token::Integer(value) = lexer.peek()? {
        lexer.next()?;
        list.push(value);
        lexer.eat(b',')?;
    }
    Ok(list)
}

/// `.loc 1 2 3, function_name $L, inlined_at …` and `.file 1 "x"`: no `;` ends them, so what they may hold does.
fn skip_numbers(lexer: &mut Lexer<'_>) -> Result<(), ImageError> {
    let line = lexer.line()?;
    lexer.next()?;
    while lexer.line()? == line && lexer.peek()? != Token::End {
        lexer.next()?;
    }
    Ok(())
}

fn skip_section(lexer: &mut Lexer<'_>) -> Result<(), ImageError> {
    while !matches!(lexer.next()?, Token::Punctuation(b'}') | Token::End) {}
    Ok(())
}

fn skip_to_semicolon(lexer: &mut Lexer<'_>) -> Result<(), ImageError> {
    while !matches!(lexer.next()?, Token::Punctuation(b';') | Token::End) {}
    Ok(())
}

fn unsupported(lexer: &mut Lexer<'_>, what: &str) -> Result<ImageError, ImageError> {
    Ok(ImageError::Unsupported { line: lexer.line()?, what: what.to_owned() })
}
