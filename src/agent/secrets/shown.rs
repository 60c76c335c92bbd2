//! A value of a JSON secret, as the text that the ECS agent makes of it.
//!
//! Enters: what stands at a JSON key of a secret. Leaves: a string as it is; everything else as Go prints it (`%v`), because
//! the ECS agent hands it to Go: 5432 is `5432`, 1000000 is `1e+06`, null is `<nil>`. Nothing can go wrong.

use serde_json::Value;

/// The text.
pub(super) fn shown(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), float),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", joined(list.iter().map(shown).collect())),
        Value::Object(map) => {
            let mut parts: Vec<_> = map.iter().map(|(key, v)| format!("{key}:{}", shown(v))).collect();
            parts.sort();
            format!("map[{}]", joined(parts))
        }
    }
}

/// Go reads every number as a float and prints the shortest text, with an exponent where that is below -4 or above 5.
fn float(number: f64) -> String {
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if number != 0.0 && !(-4..6).contains(&exponent) {
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    number.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_go_prints_them() {
        let secret = r#"{"a":5432,"b":1000000,"c":1234567,"c2":123456,"d":0.00001,"d2":0.0001,"e":true,"f":null,
            "g":{"x":1,"a":"b c"},"h":[1,"2 3",null],"i":12345678901234567890,"j":1.5,"k":1e20,"l":1e21,"n":-0.5,
            "p":1.7976931348623157e308,"q":-0.0,"r":5e-324,"s":"as \"it\" is"}"#;
        let secret: Value = serde_json::from_str(secret).unwrap();
        // What Go 1 prints for the same document.
        for (key, want) in [
            ("a", "5432"),
            ("b", "1e+06"),
            ("c", "1.234567e+06"),
            ("c2", "123456"),
            ("d", "1e-05"),
            ("d2", "0.0001"),
            ("e", "true"),
            ("f", "<nil>"),
            ("g", "map[a:b c x:1]"),
            ("h", "[1 2 3 <nil>]"),
            ("i", "1.2345678901234567e+19"),
            ("j", "1.5"),
            ("k", "1e+20"),
            ("l", "1e+21"),
            ("n", "-0.5"),
            ("p", "1.7976931348623157e+308"),
            ("q", "-0"),
            ("r", "5e-324"),
            ("s", "as \"it\" is"),
        ] {
            assert_eq!(shown(&secret[key]), want, "{key}");
        }
    }
}
