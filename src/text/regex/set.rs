//! Sets of a pattern: `[...]`, `\d`, `\p{..}`, `[:alpha:]`, from Ruby's writing into that of the matchers.
//!
//! Enters: the characters of a pattern, just after a `[`. Leaves: the set as text, and how it takes what is outside of
//! ASCII, which decides whether it can be run on bytes. Can go wrong: the set does not end, is nested too deep, or holds
//! what no set can.

use super::translate::Chars;

/// Sets within sets.
const MAX_DEPTH: usize = 16;

/// A set in the matchers' syntax.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) text: String,
    /// It takes everything outside of ASCII, or nothing of it: bytes can stand for characters.
    pub(super) uniform: bool,
    /// It takes (of a uniform set: all of; else: some of) what is outside of ASCII and not named.
    pub(super) wide: bool,
}

impl Set {
    fn ascii(text: &str, wide: bool) -> Set {
        Set { text: text.to_owned(), uniform: true, wide }
    }

    fn unicode(text: String, wide: bool) -> Set {
        Set { text, uniform: false, wide }
    }
}

/// The set of a letter after a backslash: in Ruby `\d \s \w \h` are ASCII.
pub(super) fn shorthand(letter: char) -> Option<Set> {
    Some(match letter {
        'd' => Set::ascii("[0-9]", false),
        'D' => Set::ascii("[^0-9]", true),
        'w' => Set::ascii("[0-9A-Za-z_]", false),
        'W' => Set::ascii("[^0-9A-Za-z_]", true),
        's' => Set::ascii(r"[\t\n\x0B\f\r ]", false),
        'S' => Set::ascii(r"[^\t\n\x0B\f\r ]", true),
        'h' => Set::ascii("[0-9A-Fa-f]", false),
        'H' => Set::ascii("[^0-9A-Fa-f]", true),
        _ => return None,
    })
}

/// Ruby's names of sets, as the content of a set.
fn named(name: &str) -> Option<&'static str> {
    Some(match name {
        "alnum" => r"\p{Alphabetic}\p{Nd}",
        "alpha" => r"\p{Alphabetic}",
        "ascii" => r"\x00-\x7F",
        "blank" => r"\t\p{Zs}",
        "cntrl" => r"\p{Cc}",
        "digit" => r"\p{Nd}",
        "graph" => r"[^\p{White_Space}\p{Cc}\p{Cn}]",
        "lower" => r"\p{Lowercase}",
        "print" => r"[^\p{White_Space}\p{Cc}\p{Cn}]\p{Zs}",
        "punct" => r"\p{P}$+<=>^`|~",
        "space" => r"\p{White_Space}",
        "upper" => r"\p{Uppercase}",
        "xdigit" => r"0-9A-Fa-f",
        "word" => r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}",
        _ => return None,
    })
}

/// `\p{Name}`, `\p{^Name}`, `\P{Name}`, from after the `p`.
pub(super) fn property(chars: &mut Chars<'_>, negated: bool) -> Result<Set, String> {
    if chars.next() != Some('{') {
        return Err("\\p needs a name in braces".to_owned());
    }
    let name = chars.until('}').ok_or("\\p{ does not end")?;
    let (negated, name) = match name.strip_prefix('^') {
        Some(rest) => (!negated, rest.to_owned()),
        None => (negated, name),
    };
    let sign = if negated { "^" } else { "" };
    Ok(match named(&name.to_ascii_lowercase()) {
        Some(content) => Set::unicode(format!("[{sign}{content}]"), negated),
        None if negated => Set::unicode(format!(r"\P{{{name}}}"), true),
        None => Set::unicode(format!(r"\p{{{name}}}"), false),
    })
}

/// A set from after its `[`.
// Calls itself for sets within sets, at most MAX_DEPTH deep.
pub(super) fn set(chars: &mut Chars<'_>, depth: usize) -> Result<Set, String> {
    if depth > MAX_DEPTH {
        return Err(format!("sets are nested deeper than {MAX_DEPTH}"));
    }
    let negated = chars.eat('^');
    let mut set = Set::ascii(if negated { "[^" } else { "[" }, false);
    // `a&&b` takes what both sides take.
    let mut sides_wide = true;
    let mut first = true;
    loop {
        let c = chars.next().ok_or("missing ]")?;
        match c {
            ']' if !first => break,
            '[' => {
                let inner = if chars.eat(':') { bracket(chars)? } else { self::set(chars, depth + 1)? };
                add(&mut set, &inner);
            }
            '&' if chars.eat('&') => {
                sides_wide &= set.wide;
                set.wide = false;
                set.text.push_str("&&");
            }
            _ => one(chars, c, &mut set)?,
        }
        first = false;
    }
    set.wide &= sides_wide;
    set.wide ^= negated;
    set.text.push(']');
    Ok(set)
}

fn add(set: &mut Set, inner: &Set) {
    set.text.push_str(&inner.text);
    set.uniform &= inner.uniform;
    set.wide |= inner.wide;
}

/// One character, a range or an escape.
fn one(chars: &mut Chars<'_>, c: char, set: &mut Set) -> Result<(), String> {
    let Some(low) = member(chars, c, set)? else { return Ok(()) };
    let mut ahead = chars.clone();
    if ahead.eat('-')
        && let Some(c) = ahead.next()
        && !matches!(c, ']' | '[')
    {
        // `[a-\d]`: the dash is one of the characters.
        let mut other = Set::ascii("", false);
        if let Some(high) = member(&mut ahead, c, &mut other)? {
            *chars = ahead;
            set.uniform &= high.is_ascii();
            literal(&mut set.text, low);
            set.text.push('-');
            literal(&mut set.text, high);
            return Ok(());
        }
    }
    set.uniform &= low.is_ascii();
    literal(&mut set.text, low);
    Ok(())
}

/// A character of the set; `None` when it was a set of its own, which has been added.
fn member(chars: &mut Chars<'_>, c: char, set: &mut Set) -> Result<Option<char>, String> {
    if c != '\\' {
        return Ok(Some(c));
    }
    let letter = chars.next().ok_or("it ends in a backslash")?;
    match letter {
        'p' | 'P' => add(set, &property(chars, letter == 'P')?),
        'b' => return Ok(Some('\u{8}')),
        'R' | 'X' => return Err(format!("\\{letter} cannot stand in a set")),
        _ => match shorthand(letter) {
            Some(shorthand) => add(set, &shorthand),
            None => return chars.escaped(letter).map(Some),
        },
    }
    Ok(None)
}

/// `[:name:]` or `[:^name:]`, from after the first colon.
fn bracket(chars: &mut Chars<'_>) -> Result<Set, String> {
    let negated = chars.eat('^');
    let name = chars.until(':').ok_or("[: does not end")?;
    if !chars.eat(']') {
        return Err("[: does not end in :]".to_owned());
    }
    let content = named(&name).ok_or_else(|| format!("[:{name}:] is not known"))?;
    Ok(Set::unicode(format!("[{}{content}]", if negated { "^" } else { "" }), negated))
}

/// Appends a character that stands for itself, in or out of a set.
pub(super) fn literal(out: &mut String, c: char) {
    if c.is_ascii_punctuation() && c != '_' && c != '<' && c != '>' {
        out.push('\\');
    }
    out.push(c);
}
