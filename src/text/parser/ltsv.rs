//! LTSV: `label:value`, tab, `label:value`.
//!
//! Enters: a line. Leaves: pairs. Can go wrong: nothing; where no `label:` stands the line is at its end. Labels are ASCII
//! letters, digits, `_`, `.` and `-`; a value ends at a tab, a line end or a NUL.

/// The pairs of a line. Those with an empty label are not among them.
pub(super) struct Pairs<'t> {
    rest: &'t [u8],
}

impl<'t> Pairs<'t> {
    pub(super) fn of(line: &'t [u8]) -> Pairs<'t> {
        Pairs { rest: line }
    }
}

impl<'t> Iterator for Pairs<'t> {
    type Item = (&'t [u8], &'t [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let is_label = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
            let label = self.rest.iter().position(|b| !is_label(b)).unwrap_or(self.rest.len());
            let (label, rest) = self.rest.split_at_checked(label)?;
            let rest = rest.strip_prefix(b":")?;
            let end = rest.iter().position(|b| matches!(b, b'\t' | b'\n' | b'\r' | 0)).unwrap_or(rest.len());
            let (value, rest) = rest.split_at_checked(end)?;
            self.rest = rest.strip_prefix(b"\t").unwrap_or_default();
            if !label.is_empty() {
                return Some((label, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: &[(&str, &str)]) {
        let got: Vec<_> = Pairs::of(line.as_bytes())
            .map(|(k, v)| (std::str::from_utf8(k).unwrap(), std::str::from_utf8(v).unwrap()))
            .collect();
        assert_eq!(got, want, "{line:?}");
    }

    #[test]
    fn pairs_are_found_as_fluent_bit_finds_them() {
        check("a:1\treq:GET /a:b", &[("a", "1"), ("req", "GET /a:b")]);
        check("a:1\tb", &[("a", "1")]);
        check("a\tb:2", &[]);
        check("a:\tb:x", &[("a", ""), ("b", "x")]);
        check(":x\tb:1", &[("b", "1")]);
        check("a:1\t\tb:2", &[("a", "1")]);
        check("a:1\tb:2\r\n", &[("a", "1"), ("b", "2")]);
        check("a b:1", &[]);
        check("\ta:1", &[]);
        check("a:\"x\"\té:1", &[("a", "\"x\"")]);
        check("", &[]);
    }
}
