//! Value types of Fluent Bit's configuration: booleans, numbers, sizes, times, lists, words.
//!
//! Enters: the text of one value. Leaves: the value, or `None` when it is not one.
//! Rules from Fluent Bit 5.1.1: sizes are decimal (`1K` = 1000), `KiB` is refused, `1`/`0` are no booleans.

use std::time::Duration;

/// Without ASCII blanks at both ends, as C's `isspace` sees them; others are part of a value.
pub fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}'])
}

/// `true/on/yes`, `false/off/no`, any case.
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" => Some(true),
        "false" | "off" | "no" => Some(false),
        _ => None,
    }
}

/// A whole number and nothing else.
pub fn int(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// A finite number and nothing else.
pub fn float(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|v: &f64| v.is_finite())
}

/// Bytes, decimal units: `10`, `5K`, `1.5M`, `2GB`; `false` is 0. `KiB`, `off`, `5 MB` and the like are refused, as Fluent
/// Bit does.
pub fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    if lower == "false" {
        return Some(0);
    }
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let factor = match unit {
        "" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    (0.0..9e18).contains(&bytes).then_some(bytes as u64)
}

/// Seconds with an optional unit: `10`, `10s`, `5m`, `2h`, `1d`. Decimals are cut off.
pub fn time(text: &str) -> Option<Duration> {
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let factor = match unit.trim() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let whole = number.split('.').next()?.parse::<u64>().ok()?;
    whole.checked_mul(factor).filter(|s| *s < 1 << 40).map(Duration::from_secs)
}

/// Comma-separated items, trimmed, empty ones left out.
pub fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

/// Splits on spaces (not on tabs) into words; `"double quotes"` keep spaces together and know `\"`.
pub fn words(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if_eq(&' ').is_some() {}
        let Some(first) = chars.peek().copied() else { return out };
        let mut word = String::new();
        if first == '"' {
            chars.next();
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' if chars.peek() == Some(&'"') => {
                        word.push('"');
                        chars.next();
                    }
                    _ => word.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ' ') {
                word.push(c);
            }
        }
        out.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_and_binary_units_are_refused() {
        assert_eq!(size("2K"), Some(2000));
        assert_eq!(size("1.1M"), Some(1_100_000));
        assert_eq!(size("1MB"), Some(1_000_000));
        assert_eq!(size("1MiB"), None);
        assert_eq!(size("false"), Some(0));
        assert_eq!((size("off"), size("5 MB"), size("10b"), size("1T")), (None, None, None, None));
        assert_eq!(size("ten"), None);
    }

    #[test]
    fn words_keep_quoted_text_together() {
        assert_eq!(words(r#"title "log \"router\"" x"#), ["title", "log \"router\"", "x"]);
        assert_eq!(words("  a   b "), ["a", "b"]);
        assert_eq!(words("a b\tc"), ["a", "b\tc"]);
    }
}
