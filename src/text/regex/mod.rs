//! Regular expressions in Ruby's (Onigmo's) dialect, on bytes.
//!
//! Enters: a pattern as written in a configuration, with or without slashes (`/pattern/im`). Leaves: a matcher that never
//! fails at run time: what cannot be expressed is refused at start.
//!
//! A pattern is translated and given to a linear matcher. Only look-around, back-references, possessive quantifiers and
//! the like go to a backtracking one, with a limit of steps: a text on which it is reached does not match. In text that
//! is no UTF-8, `.` and negated sets also take a single byte that belongs to no character. (The backtracking matcher sees
//! such a byte as the control character SUB, 1A.)

mod set;
mod translate;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use regex_automata::{Anchored, Input, meta, util::syntax};

use translate::{Dialect, Translated, translate};

/// Compiled patterns and their caches stay below this.
const SIZE_LIMIT: usize = 10 << 20;

/// Steps of the backtracking matcher on one text: some milliseconds.
const STEP_LIMIT: usize = 200_000;

/// Bounds of each group that took part.
pub type Groups = smallvec::SmallVec<[Option<Range<usize>>; 16]>;

/// A compiled pattern, cheap to clone.
#[derive(Clone, Debug)]
pub struct Regex(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    names: Vec<(String, usize)>,
}

#[derive(Debug)]
enum Engine {
    Linear {
        exact: meta::Regex,
        /// The pattern for texts that are no UTF-8, when it differs.
        lenient: Option<Lenient>,
    },
    Backtracking(Box<fancy_regex::Regex>),
}

/// Compiled when the first text asks for it: most never do.
#[derive(Debug)]
struct Lenient {
    pattern: String,
    compiled: OnceLock<Option<meta::Regex>>,
}

impl Lenient {
    fn regex(&self, text: &[u8]) -> Option<&meta::Regex> {
        if simdutf8::basic::from_utf8(text).is_ok() {
            return None;
        }
        self.compiled.get_or_init(|| linear(&self.pattern).ok()).as_ref()
    }
}

fn linear(pattern: &str) -> Result<meta::Regex, String> {
    meta::Builder::new()
        .syntax(syntax::Config::new().multi_line(true).utf8(false))
        .configure(
            meta::Config::new()
                .utf8_empty(false)
                .nfa_size_limit(Some(SIZE_LIMIT))
                .hybrid_cache_capacity(SIZE_LIMIT / 10),
        )
        .build(pattern)
        .map_err(|e| match e.syntax_error() {
            Some(syntax) => reason(&syntax.to_string()),
            None => "it is too large".to_owned(),
        })
}

/// The last words of a message that draws the pattern over several lines (the translated one, which nobody wrote).
fn reason(message: &str) -> String {
    let last = message.rsplit("error: ").next().unwrap_or(message);
    last.lines().next().unwrap_or_default().trim().to_owned()
}

impl Regex {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Says what is wrong with the pattern.
    pub fn new(pattern: &str) -> Result<Regex, String> {
        compile(pattern).map(|inner| Regex(Arc::new(inner))).map_err(|e| format!("regex \"{pattern}\": {e}"))
    }

    /// Whether it is found anywhere in the text.
    #[inline]
    pub fn is_match(&self, text: &[u8]) -> bool {
        match &self.0.engine {
            Engine::Linear { exact, lenient } => {
                exact.is_match(text)
                    || lenient.as_ref().and_then(|l| l.regex(text)).is_some_and(|r| r.is_match(text))
            }
            Engine::Backtracking(regex) => regex.is_match(characters(text).as_ref()).unwrap_or(false),
        }
    }

    /// Whether it matches at the start of the text and is not empty (`Match_Regex`).
    pub fn is_match_at_start(&self, text: &[u8]) -> bool {
        match &self.0.engine {
            Engine::Linear { exact, lenient } => {
                let at_start = |regex: &meta::Regex| {
                    regex.search(&Input::new(text).anchored(Anchored::Yes)).is_some_and(|m| !m.is_empty())
                };
                at_start(exact) || lenient.as_ref().and_then(|l| l.regex(text)).is_some_and(at_start)
            }
            Engine::Backtracking(regex) => regex
                .find(characters(text).as_ref())
                .ok()
                .flatten()
                .is_some_and(|m| m.start() == 0 && m.end() > 0),
        }
    }

    /// Where the groups matched (0: the whole match), or `None` when it is not found. As in Ruby, groups without a name
    /// count only when no group has one.
    pub fn groups(&self, text: &[u8]) -> Option<Groups> {
        match &self.0.engine {
            Engine::Linear { exact, lenient } => search(exact, text).or_else(|| {
                let lenient = lenient.as_ref()?.regex(text)?;
                search(lenient, text)
            }),
            Engine::Backtracking(regex) => {
                let text = characters(text);
                let found = regex.captures(text.as_ref()).ok()??;
                Some((0..found.len()).map(|i| found.get(i).map(|g| g.start()..g.end())).collect())
            }
        }
    }

    /// The named groups in order, each with its number in [`Regex::groups`]. A name may stand here several times.
    pub fn names(&self) -> &[(String, usize)] {
        &self.0.names
    }
}

fn compile(pattern: &str) -> Result<Inner, String> {
    let Translated { text, names, backtracks, single } = translate(pattern, Dialect::Linear)?;
    if backtracks {
        let text = translate(pattern, Dialect::Backtracking)?.text;
        let regex = fancy_regex::RegexBuilder::new(&text)
            .multi_line(true)
            .backtrack_limit(STEP_LIMIT)
            .delegate_size_limit(SIZE_LIMIT)
            .build()
            .map_err(|e| reason(&e.to_string()))?;
        return Ok(Inner { engine: Engine::Backtracking(Box::new(regex)), names });
    }
    let lenient = if single {
        let pattern = translate(pattern, Dialect::Lenient)?.text;
        Some(Lenient { pattern, compiled: OnceLock::new() })
    } else {
        None
    };
    Ok(Inner { engine: Engine::Linear { exact: linear(&text)?, lenient }, names })
}

/// The text as characters, every other byte replaced by one of the same length, so that all bounds hold.
fn characters(text: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = simdutf8::basic::from_utf8(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(std::iter::repeat_n('\u{1a}', chunk.invalid().len()));
    }
    Cow::Owned(out)
}

fn search(regex: &meta::Regex, text: &[u8]) -> Option<Groups> {
    let mut slots: smallvec::SmallVec<[_; 32]> = smallvec::smallvec![None; 2 * regex.captures_len()];
    regex.search_slots(&Input::new(text), &mut slots)?;
    let bounds = |pair: &[Option<regex_automata::util::primitives::NonMaxUsize>]| match pair {
        [Some(start), Some(end)] => Some(start.get()..end.get()),
        _ => None,
    };
    Some(slots.chunks_exact(2).map(bounds).collect())
}

#[cfg(test)]
mod tests;
