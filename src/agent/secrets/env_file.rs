//! Environment files, read as the ECS agent reads them.
//!
//! Enters: the bytes of a file. Leaves: names and values. Can go wrong: a line longer than 64 KiB, which the ECS agent does
//! not read, or one that no environment can hold; the number of the line is said, never what it holds.

use std::collections::BTreeMap;

/// The largest file that is read.
pub(super) const FILE_MAX: usize = 256 << 10;
/// The longest line: what the ECS agent's reader holds.
const LINE_MAX: usize = 64 << 10;

/// The variables of a file. A line is a comment if `#` is its first character, and means nothing without `=` or without a
/// name; nothing is trimmed or unquoted; of one name the last line of the file wins.
pub(super) fn read(file: &[u8]) -> Result<BTreeMap<String, String>, String> {
    if file.len() > FILE_MAX {
        return Err(format!("it has {} bytes; at most {FILE_MAX} are read", file.len()));
    }
    let mut all = BTreeMap::new();
    for (n, line) in file.split(|b| *b == b'\n').enumerate() {
        let wrong = |what: &str| format!("line {}: {what}", n + 1);
        if line.len() > LINE_MAX {
            return Err(wrong("it is longer than 64 KiB"));
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"#") || !line.contains(&b'=') {
            continue;
        }
        let text = std::str::from_utf8(line).map_err(|_| wrong("it is not UTF-8"))?;
        if text.contains('\0') {
            return Err(wrong("it has a zero byte, which no environment can hold"));
        }
        if let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) {
            all.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(all)
}

/// Several files of one container: the earlier one wins.
pub(super) fn merge(files: impl IntoIterator<Item = BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, value) in files.into_iter().flatten() {
        all.entry(name).or_insert(value);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        read(text.as_bytes()).unwrap().into_iter().collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn lines_are_read_as_the_ecs_agent_reads_them() {
        let text = "# A=comment\nA=1\n\nnothing\n=no name\nB=x=\"y\" \r\n # C=2\nexport D=3\nE=\nA=2\nF=last";
        assert_eq!(
            pairs(text),
            [
                pair(" # C", "2"),
                pair("A", "2"),
                pair("B", "x=\"y\" "),
                pair("E", ""),
                pair("F", "last"),
                pair("export D", "3")
            ]
        );
        assert!(pairs("").is_empty());
    }

    #[test]
    fn the_earlier_file_wins() {
        let merged = merge([read(b"A=1\nB=1").unwrap(), read(b"A=2\nC=2").unwrap()]);
        assert_eq!(merged.into_iter().collect::<Vec<_>>(), [pair("A", "1"), pair("B", "1"), pair("C", "2")]);
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_line_and_not_shown() {
        let long = format!("A=1\nB={}", "secret".repeat(20_000));
        for (bad, what) in [
            (long.as_bytes(), "line 2: it is longer than 64 KiB"),
            (b"A=1\n\nB=secret\xff".as_slice(), "line 3: it is not UTF-8"),
            (b"B=secret\0".as_slice(), "line 1: it has a zero byte"),
            (&[b'\n'; FILE_MAX + 1], "at most 262144 are read"),
        ] {
            let e = read(bad).unwrap_err();
            assert!(e.contains(what) && !e.contains("secret"), "{e}");
        }
    }
}
