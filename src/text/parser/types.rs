//! `Types` of a parser: text into numbers and booleans.

use crate::text::number;
use crate::wire::msgpack;

/// What a field's text becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// A whole number; 0 when there is no digit.
    Integer,
    /// A number with decimals; 0 when there is no digit.
    Float,
    /// `true...` or `false...` in any case; anything else stays text.
    Bool,
    /// A hexadecimal number.
    Hex,
    /// Text, as it is.
    Text,
}

impl FieldType {
    /// By its name in a configuration.
    pub fn from_word(word: &str) -> Option<FieldType> {
        Some(match word.to_ascii_lowercase().as_str() {
            "integer" => FieldType::Integer,
            "float" => FieldType::Float,
            "bool" => FieldType::Bool,
            "hex" => FieldType::Hex,
            "string" => FieldType::Text,
            _ => return None,
        })
    }

    /// Appends the value.
    pub(super) fn write(self, out: &mut Vec<u8>, text: &[u8]) {
        match self {
            FieldType::Integer => msgpack::write_int(out, number::int(text).unwrap_or(0)),
            FieldType::Hex => msgpack::write_uint(out, number::hex(text).unwrap_or(0)),
            FieldType::Float => match number::float(text).unwrap_or(0.0) {
                value if value.is_finite() => msgpack::write_float(out, value),
                // JSON has no infinity.
                _ => msgpack::write_str(out, text),
            },
            FieldType::Bool => match boolean(text) {
                Some(value) => msgpack::write_bool(out, value),
                None => msgpack::write_str(out, text),
            },
            FieldType::Text => msgpack::write_str(out, text),
        }
    }
}

/// `true...`, `false...`, in any case.
pub fn boolean(text: &[u8]) -> Option<bool> {
    let starts = |word: &[u8]| text.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word));
    if starts(b"true") {
        Some(true)
    } else if starts(b"false") {
        Some(false)
    } else {
        None
    }
}
