//! `Match` patterns: `*` stands for any run of bytes, everything else for itself; case-sensitive, the whole tag.

/// A compiled `Match`.
#[derive(Clone, Debug)]
pub struct TagPattern {
    parts: Vec<Vec<u8>>,
}

impl TagPattern {
    /// Any text is a pattern.
    pub fn new(pattern: &str) -> Self {
        TagPattern { parts: pattern.split('*').map(|p| p.as_bytes().to_vec()).collect() }
    }

    /// Whether it stands for this tag.
    pub fn matches(&self, tag: &[u8]) -> bool {
        let Some((first, rest)) = self.parts.split_first() else { return false };
        let Some(mut tag) = tag.strip_prefix(first.as_slice()) else { return false };
        let Some((last, middle)) = rest.split_last() else { return tag.is_empty() };
        for part in middle {
            // The leftmost place is always good enough: what follows a star may be any run.
            let Some(at) = memchr::memmem::find(tag, part) else { return false };
            tag = tag.get(at + part.len()..).unwrap_or_default();
        }
        tag.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::TagPattern;

    #[test]
    fn stars_stand_for_any_run_and_the_rest_for_itself() {
        for (pattern, tag, want) in [
            ("*", "", true),
            ("*", "a.b", true),
            ("app-firelens*", "app-firelens-0", true),
            ("app-firelens*", "app2-firelens-0", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a*bb", "abbb", true),
            ("*app", "app", true),
            ("App", "app", false),
            ("app", "app.x", false),
            ("**", "x", true),
        ] {
            assert_eq!(TagPattern::new(pattern).matches(tag.as_bytes()), want, "{pattern} {tag}");
        }
    }
}
