//! Regular expressions in Ruby's (Onigmo's) dialect, on bytes.
//!
//! Enters: a pattern as written in a configuration, with or without slashes (`/pattern/im`). Leaves: a matcher that never
//! fails at run time: what cannot be expressed is refused at start.

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Regex {
    plain: regex::bytes::Regex,
}

impl Regex {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Says what is wrong with the pattern.
    pub fn new(pattern: &str) -> Result<Regex, String> {
        let pattern = pattern.strip_prefix('/').and_then(|p| p.strip_suffix('/')).unwrap_or(pattern);
        let plain =
            regex::bytes::RegexBuilder::new(pattern).multi_line(true).build().map_err(|e| e.to_string())?;
        Ok(Regex { plain })
    }

    /// Whether it is found anywhere in the text.
    #[inline]
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.plain.is_match(text)
    }

    /// Whether it matches at the start of the text and is not empty (`Match_Regex`).
    pub fn is_match_at_start(&self, text: &[u8]) -> bool {
        self.plain.find(text).is_some_and(|m| m.start() == 0 && !m.is_empty())
    }

    /// Where the groups matched (0: the whole match), or `None` when it is not found.
    pub fn groups(&self, text: &[u8]) -> Option<Groups> {
        let found = self.plain.captures(text)?;
        Some(found.iter().map(|g| g.map(|g| g.range())).collect())
    }
}

/// Bounds of each group that took part.
pub type Groups = smallvec::SmallVec<[Option<std::ops::Range<usize>>; 10]>;
