//! `type_converter`: adds a field that has the value of another one in another type. In: any record. Out: the same
//! record, with what could be converted at the end.
//!
//! A rule looks at one type of value (`str_key`, `int_key`, `uint_key`, `float_key`) and at the record as it came. A field
//! that is missing, of another type, or not convertible adds nothing.

use std::sync::Arc;

use super::{BuildContext, Context, Filter, FilterKind, Verdict};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type, value};
use crate::record::Record;
use crate::text::{Accessor, boolean, number};
use crate::wire::json::Json;
use crate::wire::msgpack::{self, Value};

pub(super) const KIND: FilterKind = FilterKind {
    info: PluginInfo {
        name: "type_converter",
        aliases: &[],
        summary: "Add fields with the value of another field in another type.",
        keys: &[
            Key::new("str_key", Type::Words(3), "FROM TO TYPE: a text as int, uint, float, hex or bool")
                .multi(),
            Key::new("int_key", Type::Words(3), "FROM TO TYPE: a whole number as string, uint, int or float")
                .multi(),
            Key::new("uint_key", Type::Words(3), "FROM TO TYPE: a whole number as string, int or float")
                .multi(),
            Key::new("float_key", Type::Words(3), "FROM TO TYPE: a number as string, int or uint").multi(),
        ],
        groups: &[],
    },
    build,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    Str,
    Int,
    UInt,
    Float,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    Str,
    Int,
    UInt,
    Float,
    Hex,
    Bool,
}

impl To {
    fn from_word(word: &str) -> Option<To> {
        Some(match word.to_ascii_lowercase().as_str() {
            "string" => To::Str,
            "int" => To::Int,
            "uint" => To::UInt,
            "float" => To::Float,
            "hex" => To::Hex,
            "bool" => To::Bool,
            _ => return None,
        })
    }
}

struct Rule {
    from: From,
    source: Accessor,
    target: Vec<u8>,
    to: To,
}

struct TypeConverter {
    rules: Vec<Rule>,
}

// Fluent Bit applies the rules in this order.
const ORDER: [(&str, From); 4] =
    [("str_key", From::Str), ("int_key", From::Int), ("uint_key", From::UInt), ("float_key", From::Float)];

fn build(s: &Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Arc<dyn Filter>> {
    let mut rules = Vec::new();
    // Fluent Bit starts with a rule that it will not be able to apply, and dies of an unknown type alone.
    let mut starts = false;
    for (key, from) in ORDER {
        for entry in s.all(key).filter(|e| !e.value.is_empty()) {
            let words = value::words(&entry.value);
            // Another number of words has been reported by the check of the section.
            let [field, target, ty] = words.as_slice() else { continue };
            starts |= To::from_word(ty).is_some();
            match rule(from, field, target, ty) {
                Ok(rule) => rules.push(rule),
                Err(e) => diags.strict(
                    Some(&entry.pos),
                    format!("{} of [FILTER] type_converter: {e}", entry.written),
                    "the rule is left out",
                ),
            }
        }
    }
    if !starts {
        diags.error_hint(
            Some(s.pos()),
            "[FILTER] type_converter has no rule that can be used",
            "add one: str_key FROM TO int",
        );
        return None;
    }
    Some(Arc::new(TypeConverter { rules }))
}

fn rule(from: From, field: &str, target: &str, ty: &str) -> Result<Rule, String> {
    let to = To::from_word(ty)
        .ok_or_else(|| format!("unknown type \"{ty}\"; write string, int, uint, float, hex or bool"))?;
    if !converts(from, to) {
        return Err(format!("it cannot make {ty}"));
    }
    let source = Accessor::field(field).map_err(|e| format!("bad field \"{field}\": {e}"))?;
    Ok(Rule { from, source, target: target.as_bytes().to_vec(), to })
}

/// What Fluent Bit can convert.
fn converts(from: From, to: To) -> bool {
    match from {
        From::Str => to != To::Str,
        From::Int => matches!(to, To::Str | To::Int | To::UInt | To::Float),
        From::UInt => matches!(to, To::Str | To::Int | To::Float),
        From::Float => matches!(to, To::Str | To::Int | To::UInt),
    }
}

impl Rule {
    /// Appends the converted value; `false` when there is none.
    fn convert(&self, encoded: &[u8], out: &mut Vec<u8>) -> bool {
        match (self.from, msgpack::value(encoded)) {
            (From::Str, Some(Value::Str(text) | Value::Bin(text))) => self.text(text, out).is_some(),
            (From::Int | From::UInt, Some(Value::Int(v))) => {
                self.whole(v.into(), out);
                true
            }
            (From::Int | From::UInt, Some(Value::UInt(v))) => {
                self.whole(v.into(), out);
                true
            }
            (From::Float, Some(Value::Float(v))) => {
                self.float(v, encoded, out);
                true
            }
            _ => false,
        }
    }

    fn text(&self, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match self.to {
            To::Int => msgpack::write_int(out, number::int(text)?),
            To::UInt => msgpack::write_uint(out, number::uint(text)?),
            To::Hex => msgpack::write_uint(out, number::hex(text)?),
            To::Float => msgpack::write_float(out, number::float(text).unwrap_or(0.0)),
            To::Bool => msgpack::write_bool(out, boolean(text)?),
            To::Str => return None,
        }
        Some(())
    }

    /// i128 holds every i64 and u64. A negative number as `uint` wraps, as in C.
    fn whole(&self, v: i128, out: &mut Vec<u8>) {
        match self.to {
            To::Str => {
                let mut digits = itoa::Buffer::new();
                msgpack::write_str(out, digits.format(v).as_bytes());
            }
            To::Float => msgpack::write_float(out, v as f64),
            To::UInt => msgpack::write_uint(out, v as u64),
            _ => match i64::try_from(v) {
                Ok(v) => msgpack::write_int(out, v),
                Err(_) => msgpack::write_uint(out, v as u64),
            },
        }
    }

    fn float(&self, v: f64, encoded: &[u8], out: &mut Vec<u8>) {
        match self.to {
            To::Int => msgpack::write_int(out, v as i64),
            // A negative number wraps, as in C.
            To::UInt if v < 0.0 => msgpack::write_uint(out, v as i64 as u64),
            To::UInt => msgpack::write_uint(out, v as u64),
            _ => {
                // As JSON writes it, which is how Fluent Bit prints it.
                let start = out.len();
                Json { escape_unicode: false }.write_value(out, encoded, 0);
                let (head, used) = msgpack::str_header(out.len() - start);
                out.extend_from_slice(head.get(..used).unwrap_or_default());
                out.get_mut(start..).unwrap_or_default().rotate_right(used);
            }
        }
    }
}

impl Filter for TypeConverter {
    fn apply(&self, record: &mut Record<'_>, _: &mut Context<'_>) -> Verdict {
        // First all values, then all fields: a rule does not see what another one adds.
        let mut made = std::mem::take(record.parsed);
        for rule in &self.rules {
            let Some(encoded) = rule.source.value(record) else { continue };
            let start = made.bytes.len();
            msgpack::write_str(&mut made.bytes, &rule.target);
            let mid = made.bytes.len();
            if rule.convert(encoded, &mut made.bytes) {
                made.list.push((start..mid, mid..made.bytes.len()));
            } else {
                made.bytes.truncate(start);
            }
        }
        for i in 0..made.list.len() {
            record.remove_key(made.key(i));
        }
        let any = !made.list.is_empty();
        *record.parsed = made;
        if any {
            record.append_parsed();
        }
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect, findings};
    use crate::config::Level;

    #[test]
    fn values_are_added_in_another_type_and_the_old_ones_stay() {
        expect(
            "type_converter",
            &[
                "str_key code code_i int",
                "str_key lat lat_f float",
                "int_key n n_s string",
                "float_key f f_s string",
            ],
            &[
                (
                    r#"{"code":"404","lat":"0.25","n":7,"f":1.5}"#,
                    r#"{"code"=>"404", "lat"=>"0.25", "n"=>7, "f"=>1.500000, "code_i"=>404, "lat_f"=>0.250000, "n_s"=>"7", "f_s"=>"1.5"}"#,
                ),
                (r#"{"code":"abc","n":"7"}"#, r#"{"code"=>"abc", "n"=>"7"}"#),
                (r#"{"x":1}"#, r#"{"x"=>1}"#),
            ],
        );
    }

    #[test]
    fn each_type_becomes_what_fluent_bit_makes_of_it() {
        for (rule, record, want) in [
            ("str_key a o hex", r#"{"a":"0x1F"}"#, "31"),
            ("str_key a o hex", r#"{"a":"zz"}"#, ""),
            ("str_key a o uint", r#"{"a":"-5"}"#, "18446744073709551611"),
            ("str_key a o int", r#"{"a":"  42 "}"#, "42"),
            ("str_key a o int", r#"{"a":"12abc"}"#, "12"),
            ("str_key a o int", r#"{"a":""}"#, ""),
            ("str_key a o float", r#"{"a":"abc"}"#, "0.000000"),
            ("str_key a o bool", r#"{"a":"TRUEish"}"#, "true"),
            ("str_key a o bool", r#"{"a":"404"}"#, ""),
            ("str_key $a['x'] o INT", r#"{"a":{"x":"5"}}"#, "5"),
            ("str_key a o int", r#"{"a":5}"#, ""),
            ("int_key a o float", r#"{"a":7}"#, "7.000000"),
            ("int_key a o uint", r#"{"a":-7}"#, "18446744073709551609"),
            ("int_key a o string", r#"{"a":18446744073709551615}"#, "\"18446744073709551615\""),
            ("int_key a o string", r#"{"a":true}"#, ""),
            ("uint_key a o int", r#"{"a":300}"#, "300"),
            ("float_key a o int", r#"{"a":-2.7}"#, "-2"),
            ("float_key a o uint", r#"{"a":-2.7}"#, "18446744073709551614"),
            ("float_key a o int", r#"{"a":1e20}"#, "9223372036854775807"),
            ("float_key a o string", r#"{"a":3.0}"#, "\"3.0\""),
            ("float_key a o string", r#"{"a":0.1}"#, "\"0.1\""),
            ("float_key a o string", r#"{"a":3}"#, ""),
        ] {
            let filter = super::super::testing::clean("type_converter", &[rule]);
            let got = super::super::testing::run(&filter, record);
            let made = got.rsplit_once("\"o\"=>").map_or("", |(_, v)| v.trim_end_matches('}'));
            assert_eq!(made, want, "{rule} on {record}: {got}");
        }
    }

    #[test]
    fn rules_see_the_record_as_it_came_and_replace_fields_of_their_name() {
        expect(
            "type_converter",
            &["int_key c d string", "str_key a c int", "str_key a a int"],
            &[(r#"{"a":"1","b":2}"#, r#"{"b"=>2, "c"=>1, "a"=>1}"#)],
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let none = findings("type_converter", &[], Level::Error);
        assert!(none[0].contains("has no rule that can be used"), "{none:?}");
        assert_eq!(findings("type_converter", &["str_key a b integer"], Level::Error).len(), 1);
        let two = findings("type_converter", &["str_key a b"], Level::Error);
        assert_eq!(two.len(), 1);
        // Fluent Bit starts with a rule that it cannot apply.
        assert!(findings("type_converter", &["int_key a b hex"], Level::Error).is_empty());
        for (line, words) in [
            ("str_key a b integer", "str_key of [FILTER] type_converter: unknown type \"integer\""),
            ("int_key a b hex", "int_key of [FILTER] type_converter: it cannot make hex"),
            ("str_key a b int x", "takes 3 words, not more"),
        ] {
            let found = findings("type_converter", &[line, "str_key a c int"], Level::Strict);
            assert!(found[0].contains(words), "{found:?}");
        }
    }
}
