//! What a call gave, as fields and values, brought into one form: what differs from run to run is replaced by what is to be kept of it.

use std::collections::{BTreeMap, BTreeSet};

use protobuf::{
    MessageDyn, MessageFull,
    reflect::{ReflectFieldRef, ReflectValueRef},
    well_known_types::timestamp::Timestamp,
};
use serde_json::{Value, json};

/// A field's name, with points, and its value.
pub type Outcome = BTreeMap<String, Value>;

/// What texts are rid of: a directory, ids.
#[derive(Debug, Default, Clone)]
pub struct Names(Vec<(String, String)>);

impl Names {
    /// Those of a directory.
    pub fn of(work: &str) -> Self {
        Names(vec![(work.into(), "WORK".into())])
    }

    /// From now on.
    pub fn add(&mut self, text: impl Into<String>, name: impl Into<String>) {
        self.0.push((text.into(), name.into()));
    }

    /// A text with names in the place of what differs.
    pub fn told(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}

/// All fields of an answer, or the error's code. Texts are each runtime's own.
pub fn of<A: MessageFull>(answer: &ttrpc::Result<A>, names: &Names) -> Outcome {
    match answer {
        Ok(message) => fields(message, names),
        Err(ttrpc::Error::RpcStatus(status)) => {
            let code =
                status.code.enum_value().map_or_else(|code| code.to_string(), |code| format!("{code:?}"));
            // For who reads what differs.
            println!("    {code}: {}", status.message);
            Outcome::from([("error".into(), json!(code))])
        }
        Err(other) => Outcome::from([("error".into(), json!(other.to_string()))]),
    }
}

/// Those of a message; of what is in it, too.
pub fn fields(message: &dyn MessageDyn, names: &Names) -> Outcome {
    let mut fields = Outcome::new();
    let unknown: BTreeSet<u32> =
        message.special_fields_dyn().unknown_fields().iter().map(|(number, _)| number).collect();
    if !unknown.is_empty() {
        fields.insert("unknown fields".into(), json!(unknown));
    }
    for field in message.descriptor_dyn().fields() {
        match field.get_reflect(message) {
            ReflectFieldRef::Optional(value) => {
                if let Some(value) = value.value() {
                    add(field.name(), &value, names, &mut fields);
                }
            }
            ReflectFieldRef::Repeated(all) => {
                fields.insert(format!("{}.count", field.name()), json!(all.len()));
                for at in 0..all.len() {
                    add(&format!("{}.{at}", field.name()), &all.get(at), names, &mut fields);
                }
            }
            ReflectFieldRef::Map(all) => {
                fields.insert(format!("{}.count", field.name()), json!(all.len()));
            }
        }
    }
    fields
}

fn add(name: &str, value: &ReflectValueRef<'_>, names: &Names, fields: &mut Outcome) {
    let value = match value {
        ReflectValueRef::Message(message) => {
            if let Some(time) = (**message).downcast_ref::<Timestamp>() {
                // Go's zero lies long before 1970: none.
                if time.seconds <= 0 {
                    return;
                }
                json!("a time")
            } else {
                for (below, value) in self::fields(&**message, names) {
                    fields.insert(format!("{name}.{below}"), value);
                }
                return;
            }
        }
        ReflectValueRef::Enum(kind, number) => {
            json!(
                kind.value_by_number(*number)
                    .map_or_else(|| number.to_string(), |value| value.name().to_owned())
            )
        }
        ReflectValueRef::U32(number) if name.ends_with("pid") && *number > 0 => json!("a pid"),
        ReflectValueRef::U32(number) => json!(number),
        ReflectValueRef::U64(number) => json!(number),
        ReflectValueRef::I32(number) => json!(number),
        // CRI's times: nanoseconds since 1970.
        ReflectValueRef::I64(number) if *number > 0 && is_time(name) => json!("a time"),
        ReflectValueRef::I64(number) => json!(number),
        ReflectValueRef::F32(number) => json!(number),
        ReflectValueRef::F64(number) => json!(number),
        ReflectValueRef::Bool(is) => json!(is),
        ReflectValueRef::String(text) => json!(names.told(text)),
        ReflectValueRef::Bytes(bytes) => json!(bytes.len()),
    };
    fields.insert(name.to_owned(), value);
}

fn is_time(field: &str) -> bool {
    field.ends_with("_at") || field.ends_with("timestamp")
}
