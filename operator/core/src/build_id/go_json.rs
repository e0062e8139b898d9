//! The JSON text that Go's `encoding/json` prints for a `v1.PodTemplateSpec`.
//!
//! A Build ID is a hash of this text, so it has to be the same to the byte. The input is the template as JSON; it is
//! read as Go would read it (`null` is the zero value, unknown fields are dropped) and printed as Go would print it:
//! struct order, `omitempty`, sorted map keys, escaped `<`, `>` and `&`.

use std::fmt;

use serde_json::{Map, Number, Value};

use super::quantity;
use super::table::{Field, Item, Shape, TABLE};

/// A value that a pod template can't hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {value} is not {expected}")]
pub struct InvalidTemplate {
    /// Path of the value in the template, such as `spec.containers[0].image`.
    pub path: String,
    /// The value as JSON when it is a single one, else `a list` or `an object`.
    pub value: String,
    /// What stands there in a valid template, and what to do.
    pub expected: &'static str,
}

impl InvalidTemplate {
    /// The same error seen from an object that holds the template at `prefix`.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.path = if self.path == ROOT { prefix.to_owned() } else { format!("{prefix}.{}", self.path) };
        self
    }
}

const STRING: &str = "a string; put it in quotes";
const BOOL: &str = "a boolean; write true or false, without quotes";
const INT32: &str = "an integer of 32 bits; write a whole number without quotes";
const INT64: &str = "an integer of 64 bits; write a whole number without quotes";
const INT_OR_STRING: &str = "an integer of 32 bits or a string; write a port number, a name or a percentage";
const QUANTITY: &str = "a quantity; write a number with an optional unit, such as 500m, 2 or 1Gi";
const TIME: &str = "a time; write it as 2006-01-02T15:04:05Z";
const LIST: &str = "a list";
const OBJECT: &str = "an object";

/// What an error calls the template itself.
const ROOT: &str = "template";

/// The JSON of a pod template as the Go types of Kubernetes v0.36.3 print it.
///
/// # Errors
/// [`InvalidTemplate`] for a value of the wrong type, naming its path, the value and the remedy.
pub fn go_json(template: &Value) -> Result<String, InvalidTemplate> {
    let mut out = String::with_capacity(1024);
    write_struct(&mut out, TABLE.root(), template, &Path::Root)?;
    Ok(out)
}

/// Where a value stands, for errors.
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |key: &str| key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
        match self {
            Path::Root => f.write_str(ROOT),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) if plain(key) => write!(f, "{parent}.{key}"),
            Path::Key(parent, key) => write!(f, "{parent}[{key:?}]"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

fn invalid(path: &Path<'_>, value: &Value, expected: &'static str) -> InvalidTemplate {
    let value = match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        value => value.to_string(),
    };
    InvalidTemplate { path: path.to_string(), value, expected }
}

type Written = Result<(), InvalidTemplate>;

fn write_struct(out: &mut String, item: usize, value: &Value, path: &Path<'_>) -> Written {
    let empty = Map::new();
    let object = match value {
        Value::Null => &empty,
        Value::Object(object) => object,
        value => return Err(invalid(path, value, OBJECT)),
    };
    out.push('{');
    let first = out.len();
    for field in TABLE.fields(item) {
        let value = object.get(field.name).unwrap_or(&Value::Null);
        let start = out.len();
        if start > first {
            out.push(',');
        }
        write_string(out, field.name);
        out.push(':');
        let text = out.len();
        write_field(out, field, value, &Path::Key(path, field.name))?;
        if is_omitted(field, value, &out[text..]) {
            out.truncate(start);
        }
    }
    out.push('}');
    Ok(())
}

/// `omitempty`, and for a time `omitzero`: structs and quantities are never empty, a pointer is only when it is nil.
fn is_omitted(field: &Field, value: &Value, text: &str) -> bool {
    !field.always
        && match (field.shape, field.item) {
            (Shape::Pointer, _) => value.is_null(),
            (Shape::List, _) => matches!(text, "null" | "[]"),
            (Shape::Map, _) => matches!(text, "null" | "{}"),
            (Shape::Plain, Item::String) => text == "\"\"",
            (Shape::Plain, Item::Bool) => text == "false",
            (Shape::Plain, Item::Int32 | Item::Int64) => text == "0",
            (Shape::Plain, Item::Time) => text == "null",
            (Shape::Plain, Item::Quantity | Item::IntOrString | Item::Raw | Item::Struct(_)) => false,
        }
}

fn write_field(out: &mut String, field: &Field, value: &Value, path: &Path<'_>) -> Written {
    match (field.shape, value) {
        (Shape::Plain, value) => write_item(out, field.item, value, path),
        (_, Value::Null) => {
            out.push_str("null");
            Ok(())
        }
        (Shape::Pointer, value) => write_item(out, field.item, value, path),
        (Shape::List, Value::Array(items)) => {
            out.push('[');
            for (index, value) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_item(out, field.item, value, &Path::Index(path, index))?;
            }
            out.push(']');
            Ok(())
        }
        (Shape::List, value) => Err(invalid(path, value, LIST)),
        (Shape::Map, Value::Object(map)) => {
            write_map(out, map, |out, key, value| write_item(out, field.item, value, &Path::Key(path, key)))
        }
        (Shape::Map, value) => Err(invalid(path, value, OBJECT)),
    }
}

/// Prints a map with its keys in the order of their bytes.
fn write_map<E>(
    out: &mut String,
    map: &Map<String, Value>,
    mut write: impl FnMut(&mut String, &str, &Value) -> Result<(), E>,
) -> Result<(), E> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| key.as_str());
    out.push('{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(out, key);
        out.push(':');
        write(out, key, value)?;
    }
    out.push('}');
    Ok(())
}

fn write_item(out: &mut String, item: Item, value: &Value, path: &Path<'_>) -> Written {
    match (item, value) {
        (Item::Struct(item), value) => return write_struct(out, item, value, path),
        (Item::String, Value::Null) => out.push_str("\"\""),
        (Item::String, Value::String(text)) => write_string(out, text),
        (Item::String, value) => return Err(invalid(path, value, STRING)),
        (Item::Bool, Value::Null) => out.push_str("false"),
        (Item::Bool, Value::Bool(value)) => out.push_str(if *value { "true" } else { "false" }),
        (Item::Bool, value) => return Err(invalid(path, value, BOOL)),
        (Item::Int32, value) => out.push_str(&int32(value).ok_or_else(|| invalid(path, value, INT32))?.to_string()),
        (Item::Int64, value) => out.push_str(&int64(value).ok_or_else(|| invalid(path, value, INT64))?.to_string()),
        (Item::Quantity, value) => {
            let text = quantity_text(value).ok_or_else(|| invalid(path, value, QUANTITY))?;
            write_string(out, &text);
        }
        (Item::IntOrString, Value::String(text)) => write_string(out, text),
        (Item::IntOrString, value) => {
            let number = int32(value).ok_or_else(|| invalid(path, value, INT_OR_STRING))?;
            out.push_str(&number.to_string());
        }
        (Item::Time, value) => match time_text(value).ok_or_else(|| invalid(path, value, TIME))? {
            Some(text) => write_string(out, &text),
            None => out.push_str("null"),
        },
        (Item::Raw, value) => write_raw(out, value),
    }
    Ok(())
}

fn int32(value: &Value) -> Option<i32> {
    int64(value).and_then(|number| number.try_into().ok())
}

/// A whole number. An API server stores `1.0` as `1`. Octal digits (`defaultMode: 0644`) are a number to `kubectl`,
/// whose YAML is version 1.1, but a string to a parser of YAML 1.2.
fn int64(value: &Value) -> Option<i64> {
    match value {
        Value::Null => Some(0),
        Value::Number(number) => number.as_i64().or_else(|| number_text(number).parse().ok()),
        Value::String(text) => {
            let octal = text.strip_prefix('0').filter(|digits| digits.bytes().all(|c| c.is_ascii_digit()))?;
            i64::from_str_radix(octal, 8).ok()
        }
        _ => None,
    }
}

fn quantity_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("0".to_owned()),
        Value::String(text) => quantity::canonical(text),
        Value::Number(number) => quantity::canonical(&number_text(number)),
        _ => None,
    }
}

/// A number as Go prints it: the shortest text that reads back the same, with an exponent only when it is far from 1.
fn number_text(number: &Number) -> String {
    let float = match number.as_f64() {
        // What is beyond an int64 is a float to an API server.
        Some(float) if !number.is_i64() => float,
        _ => return number.to_string(),
    };
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{float:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    format!("{float}")
}

/// Go's zero time, which prints as `null`.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// The time to the second in UTC, `Some(None)` for the zero time.
fn time_text(value: &Value) -> Option<Option<String>> {
    let text = match value {
        Value::Null => return Some(None),
        Value::String(text) => text,
        _ => return None,
    };
    let time: jiff::Timestamp = text.parse().ok()?;
    let text = time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Some((text != ZERO_TIME).then_some(text))
}

/// Any value as JSON with sorted keys and Go's escapes.
pub(super) fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write_raw(&mut out, value);
    out
}

fn write_raw(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, value) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_raw(out, value);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let Ok(()) = write_map::<std::convert::Infallible>(out, map, |out, _, value| {
                write_raw(out, value);
                Ok(())
            });
        }
    }
}

/// Prints a string with Go's escapes, which keep JSON safe inside HTML and JavaScript.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
