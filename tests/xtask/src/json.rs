//! As much of JSON (RFC 8259) as xtask needs: strings written, the fields of a flat object read.

/// A JSON string.
pub fn string(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The value of a field of a flat object, as text: strings without quotes, numbers as written; `null` and what is not
/// there are nothing.
pub fn field(object: &str, name: &str) -> Option<String> {
    let mut rest = object.trim().strip_prefix('{')?;
    loop {
        let (key, after) = take_string(rest.trim_start())?;
        let after = after.trim_start().strip_prefix(':')?.trim_start();
        let (value, after) = if after.starts_with('"') {
            take_string(after)?
        } else {
            let end = after.find([',', '}'])?;
            (after[..end].trim().to_string(), &after[end..])
        };
        if key == name {
            return (value != "null").then_some(value);
        }
        rest = after.trim_start().strip_prefix(',')?;
    }
}

fn take_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 2..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other => other, // \u does not occur in our benchmarks' names
            }),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted() {
        assert_eq!(string("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }

    #[test]
    fn fields_of_a_flat_object_are_found() {
        let object = r#" {"name": "call, \"parked\"", "value":1.5e3 ,"beside":null,"target":"≤ 20"} "#;
        assert_eq!(field(object, "name").as_deref(), Some("call, \"parked\""));
        assert_eq!(field(object, "value").as_deref(), Some("1.5e3"));
        assert_eq!(field(object, "target").as_deref(), Some("≤ 20"));
        assert_eq!(field(object, "beside"), None);
        assert_eq!(field(object, "ratio"), None);
        assert_eq!(field("not an object", "name"), None);
        assert_eq!(field("{\"name\": \"open", "name"), None);
    }
}
