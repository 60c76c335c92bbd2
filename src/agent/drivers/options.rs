//! Values of log options, as Go's `strconv`, `time` and docker's size reader take them.
//!
//! Enters: the text of one value. Leaves: the value. Can go wrong: it is none; the sentence is the one that docker prints.

use std::collections::BTreeMap;
use std::time::Duration;

/// Options of a log driver, by name.
pub type Options = BTreeMap<String, String>;

/// `1 t T TRUE true True` and their opposites.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// A whole number without a sign.
pub(super) fn unsigned(text: &str) -> Result<u64, String> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match (plain, text.parse()) {
        (true, Ok(n)) => Ok(n),
        (true, Err(_)) => Err(format!("strconv.ParseUint: parsing {text:?}: value out of range")),
        (false, _) => Err(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")),
    }
}

/// A whole number.
pub(super) fn int(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
}

/// Bytes in binary units: `10`, `1k`, `1.5m`, `2MiB`, `1 GB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("invalid size: '{text}'");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(bad()),
    };
    let bytes = number.parse::<f64>().map_err(|_| bad())? * (1u64 << shift) as f64;
    if bytes < 9e18 { Ok(bytes as u64) } else { Err(bad()) }
}

/// `300ms`, `1.5h`, `2h45m`; negative ones are refused.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(split);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * seconds;
        rest = after;
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}

/// Reads an option if it is there; the name of a bad one stands before what is wrong with it.
pub(super) fn read<T>(
    options: &Options,
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match options.get(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => parse(text).map(Some).map_err(|e| format!("invalid {name} ({text}): {e}")),
    }
}

/// Refuses what a driver does not know. `mode` and `max-buffer-size` belong to all of them.
pub(super) fn known(options: &Options, driver: &str, names: &[&str]) -> Result<(), String> {
    match options.keys().find(|name| !GENERIC.contains(&name.as_str()) && !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(format!("unknown log opt '{name}' for {driver} log driver")),
    }
}

const GENERIC: &[&str] = &["mode", "max-buffer-size"];

/// Bytes of the ring, `None` in blocking mode.
pub(super) fn ring(options: &Options) -> Result<Option<usize>, String> {
    // What docker takes when nothing is said: a decimal megabyte.
    const RING: usize = 1_000_000;
    let mode = options.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(format!("logger: logging mode not supported: {mode}"));
    }
    match options.get("max-buffer-size") {
        Some(_) if mode != "non-blocking" => {
            Err("logger: max-buffer-size option is only supported with 'mode=non-blocking'".to_owned())
        }
        Some(text) => {
            let bytes = size(text).map_err(|e| format!("error parsing option max-buffer-size: {e}"))?;
            Ok(Some(usize::try_from(bytes).unwrap_or(usize::MAX)))
        }
        None => Ok((mode == "non-blocking").then_some(RING)),
    }
}

#[cfg(test)]
pub(super) fn of(pairs: &[(&str, &str)]) -> Options {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_as_docker_reads_them() {
        for (text, want) in [
            ("10", 10),
            ("1k", 1024),
            ("2MiB", 2 << 20),
            ("1.5m", 3 << 19),
            ("1 GB", 1 << 30),
            ("10m", 10 << 20),
        ] {
            assert_eq!(size(text), Ok(want), "{text}");
        }
        for text in ["", "x", "-1", "1x", "1.2.3", "5  m"] {
            assert!(size(text).unwrap_err().starts_with("invalid size: '"), "{text}");
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, want) in
            [("300ms", 300), ("1.5h", 5_400_000), ("2h45m", 9_900_000), ("0", 0), ("10s", 10_000)]
        {
            assert_eq!(duration(text).unwrap().as_millis(), want, "{text}");
        }
        for text in ["", "1", "-1s", "s", "1d", "1.s.", "ms"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_and_booleans_are_refused_in_gos_words() {
        assert_eq!(boolean("yes").unwrap_err(), "strconv.ParseBool: parsing \"yes\": invalid syntax");
        assert_eq!(unsigned("-1").unwrap_err(), "strconv.ParseUint: parsing \"-1\": invalid syntax");
        assert_eq!(int("1s").unwrap_err(), "strconv.Atoi: parsing \"1s\": invalid syntax");
        assert_eq!((boolean("T"), boolean("0"), int("-3")), (Ok(true), Ok(false), Ok(-3)));
    }

    #[test]
    fn a_ring_is_a_megabyte_unless_it_is_said_and_needs_the_mode() {
        assert_eq!(ring(&of(&[])), Ok(None));
        assert_eq!(ring(&of(&[("mode", "non-blocking")])), Ok(Some(1_000_000)));
        assert_eq!(ring(&of(&[("mode", "non-blocking"), ("max-buffer-size", "10m")])), Ok(Some(10 << 20)));
        assert_eq!(
            ring(&of(&[("max-buffer-size", "10m")])).unwrap_err(),
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        );
        assert_eq!(ring(&of(&[("mode", "x")])).unwrap_err(), "logger: logging mode not supported: x");
    }

    #[test]
    fn an_unknown_option_is_refused_in_dockers_words() {
        assert_eq!(
            known(&of(&[("tag", "x"), ("nope", "y")]), "fluentd", &["tag"]).unwrap_err(),
            "unknown log opt 'nope' for fluentd log driver"
        );
        assert_eq!(known(&of(&[("mode", "blocking")]), "fluentd", &[]), Ok(()));
    }
}
