//! `printf` in a kernel: the format and its arguments as `vprintf` gets them. Source: CUDA programming guide, "Formatted Output".

use super::access::Access;
use super::block::Common;
use super::step::u32_of;
use super::warp::Thread;
use crate::Fault;

/// Longest format or string, and most output kept of one slice of a block, in bytes.
const TEXT_MAX: usize = 64 << 10;
const OUTPUT_MAX: usize = 1 << 20;
/// Widest field that is padded.
const WIDTH_MAX: usize = 4096;

/// One `%` of a format.
#[derive(Debug, Default, PartialEq)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    blank: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
    wide: bool,
    kind: u8,
}

/// Prints; returns the number of arguments, as CUDA's `printf` does.
pub(super) fn print(
    access: &mut Access<'_>,
    thread: &Thread,
    common: &mut Common,
    format: u64,
    arguments: u64,
) -> Result<u64, Fault> {
    let format = access.read(format, TEXT_MAX, true, thread, &common.shared)?;
    let room = OUTPUT_MAX.saturating_sub(common.output.len());
    let mut out = Vec::new();
    let mut at = arguments;
    let mut count = 0;
    let mut rest = &format[..];
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        // A format of 64 KiB could ask for gigabytes.
        if out.len() > room {
            break;
        }
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (spec, after) = parse(rest);
        rest = after;
        if spec.kind == b'%' {
            out.push(b'%');
            continue;
        }
        let size = if spec.wide
            || matches!(spec.kind, b's' | b'p' | b'a'..=b'b' | b'e'..=b'g' | b'A' | b'E'..=b'G')
        {
            8
        } else {
            4
        };
        // A place near the end of all addresses is none; the read says so.
        at = at.checked_next_multiple_of(size).unwrap_or(u64::MAX);
        let bytes = access.read(at, if size == 8 { 8 } else { 4 }, false, thread, &common.shared)?;
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(&bytes);
        at = at.saturating_add(size);
        count += 1;
        let value = u64::from_le_bytes(value);
        let text = match spec.kind {
            b's' => access.read(value, TEXT_MAX, true, thread, &common.shared)?,
            _ => number(&spec, value).into_bytes(),
        };
        pad(&spec, &text, &mut out);
    }
    common.output.extend_from_slice(&out[..out.len().min(room)]);
    Ok(count)
}

fn parse(text: &[u8]) -> (Spec, &[u8]) {
    let mut spec = Spec::default();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'-' => spec.left = true,
            b'0' => spec.zero = true,
            b'+' => spec.plus = true,
            b' ' => spec.blank = true,
            b'#' => spec.alternate = true,
            _ => break,
        }
        at += 1;
    }
    let digits = |at: &mut usize| {
        let mut value = 0;
        while let Some(digit) = text.get(*at).filter(|byte| byte.is_ascii_digit()) {
            value = (value * 10 + usize::from(digit - b'0')).min(WIDTH_MAX);
            *at += 1;
        }
        value
    };
    spec.width = digits(&mut at);
    if text.get(at) == Some(&b'.') {
        at += 1;
        spec.precision = Some(digits(&mut at));
    }
    while let Some(byte) = text.get(at).filter(|byte| matches!(byte, b'l' | b'h' | b'z' | b'j' | b't')) {
        spec.wide |= *byte != b'h';
        at += 1;
    }
    spec.kind = text.get(at).copied().unwrap_or(b'%');
    (spec, text.get(at + 1..).unwrap_or_default())
}

fn number(spec: &Spec, value: u64) -> String {
    let prefix = |text: &str| if spec.alternate { text.to_owned() } else { String::new() };
    let sign = if spec.plus {
        "+"
    } else if spec.blank {
        " "
    } else {
        ""
    };
    match spec.kind {
        b'd' | b'i' => {
            let value = if spec.wide { value.cast_signed() } else { i64::from(u32_of(value).cast_signed()) };
            if value < 0 { value.to_string() } else { format!("{sign}{value}") }
        }
        b'u' => value.to_string(),
        b'x' => prefix("0x") + &format!("{value:x}"),
        b'X' => prefix("0X") + &format!("{value:X}"),
        b'o' => prefix("0") + &format!("{value:o}"),
        b'p' => format!("{value:#x}"),
        b'c' => char::from((value & 255) as u8).to_string(),
        b'f' | b'F' => {
            let value = f64::from_bits(value);
            let text = format!("{value:.*}", spec.precision.unwrap_or(6).min(WIDTH_MAX));
            let text = text.replace("NaN", "nan");
            if value.is_sign_negative() { text } else { sign.to_owned() + &text }
        }
        b'e' | b'E' | b'g' | b'G' => sign.to_owned() + &scientific(spec, f64::from_bits(value)),
        other => format!("%{}", char::from(other)),
    }
}

/// `%e` and `%g`.
fn scientific(spec: &Spec, value: f64) -> String {
    if !value.is_finite() {
        return format!("{value}").replace("NaN", "nan");
    }
    let precision = spec.precision.unwrap_or(6).min(WIDTH_MAX);
    let is_general = matches!(spec.kind, b'g' | b'G');
    let digits = if is_general { precision.max(1) - 1 } else { precision };
    let text = format!("{value:.digits$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let text = if is_general && exponent >= -4 && exponent <= i32::try_from(digits).unwrap_or(i32::MAX) {
        let after = i32::try_from(digits).unwrap_or(0) - exponent;
        shorten(spec, &format!("{value:.*}", usize::try_from(after).unwrap_or(0)))
    } else {
        let mantissa = if is_general { shorten(spec, mantissa) } else { mantissa.to_owned() };
        format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    };
    if matches!(spec.kind, b'E' | b'G') { text.to_uppercase() } else { text }
}

/// `%g` drops zeros at the end.
fn shorten(spec: &Spec, text: &str) -> String {
    if spec.alternate || !text.contains('.') {
        return text.to_owned();
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn pad(spec: &Spec, text: &[u8], out: &mut Vec<u8>) {
    let text = match spec.precision {
        Some(most) if spec.kind == b's' => &text[..text.len().min(most)],
        _ => text,
    };
    let fill = spec.width.saturating_sub(text.len());
    if spec.left {
        out.extend_from_slice(text);
        out.extend(std::iter::repeat_n(b' ', fill));
    } else if spec.zero && spec.kind != b's' {
        let signs = text.iter().take_while(|byte| matches!(byte, b'-' | b'+')).count();
        out.extend_from_slice(&text[..signs]);
        out.extend(std::iter::repeat_n(b'0', fill));
        out.extend_from_slice(&text[signs..]);
    } else {
        out.extend(std::iter::repeat_n(b' ', fill));
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(format: &str, value: u64) -> String {
        let (spec, _) = parse(format.as_bytes());
        let mut out = Vec::new();
        pad(&spec, number(&spec, value).as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_print_as_c_does() {
        assert_eq!(shown("d", u64::from(u32::MAX)), "-1");
        assert_eq!(shown("05d", u64::from((-42i32).cast_unsigned())), "-0042");
        assert_eq!(shown("-4u", 7), "7   ");
        assert_eq!(shown("llx", u64::MAX), "ffffffffffffffff");
        assert_eq!(shown("8.3f", 2.5f64.to_bits()), "   2.500");
        assert_eq!(shown("e", 12345.678f64.to_bits()), "1.234568e+04");
        assert_eq!(shown("g", 0.0001f64.to_bits()), "0.0001");
        assert_eq!(shown("g", 1e10f64.to_bits()), "1e+10");
        assert_eq!(shown("g", 100_000f64.to_bits()), "100000");
        assert_eq!(shown("+.0f", 3f64.to_bits()), "+3");
    }

    #[test]
    fn a_format_that_ends_in_a_percent_ends() {
        assert_eq!(parse(b"").0.kind, b'%');
        assert_eq!(parse(b"99999999999d").0.width, WIDTH_MAX);
    }
}
