//! A pattern from Ruby's dialect into that of the matchers.
//!
//! Enters: a pattern. Leaves: the same in the syntax of the `regex` crates (with a prefix of flags where Ruby has them
//! after the slash), the names of its groups, and whether the linear matcher can run it. Can go wrong: what neither
//! matcher has (`\X`, `(?u)`, ...), and what is not well-formed; the rest is found when the result is compiled.
//!
//! What differs: `\d \w \s \h` are ASCII; `m` means that a dot takes newlines; `\<` is a `<`; an option `(?i)` holds to
//! the end of its group, alternatives included; groups without a name do not count beside named ones; names may repeat;
//! `{,n}`; `{n}?` is no lazy quantifier and `{n}+` no possessive one.
//!
//! `.*` and `[^ ]*` run on bytes: that is faster, and invalid UTF-8 passes. It finds the same as with characters: such a
//! set takes every byte outside of ASCII, and what comes after it can begin only where a character begins.

use super::set::{self, Set};

/// Which matcher the result is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Dialect {
    /// The linear one.
    Linear,
    /// The linear one, for a text that is no UTF-8.
    Lenient,
    /// The backtracking one.
    Backtracking,
}

/// A pattern in the matchers' syntax.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) text: String,
    pub(super) names: Vec<(String, usize)>,
    /// Only the backtracking matcher can run it.
    pub(super) backtracks: bool,
    /// Somewhere a single character is taken, so that [`Dialect::Lenient`] differs.
    pub(super) single: bool,
}

/// Translates a pattern with its slashes.
pub(super) fn translate(pattern: &str, dialect: Dialect) -> Result<Translated, String> {
    let (body, flags) = strip_slashes(pattern);
    // The first pass finds the names, which decide what parentheses and references mean.
    let mut names = Pass::new(body, dialect, None);
    names.run(flags)?;
    let mut names = names.names;
    for (i, (_, group)) in names.iter_mut().enumerate() {
        // Where there are names, no other group counts.
        *group = i + 1;
    }
    let mut pass = Pass::new(body, dialect, Some(&names));
    pass.run(flags)?;
    let (text, backtracks, single) = (pass.out, pass.backtracks, pass.single);
    Ok(Translated { text, names, backtracks, single })
}

/// `/pattern/imxo` without slashes; anything else is a pattern as it stands.
fn strip_slashes(pattern: &str) -> (&str, &str) {
    pattern
        .strip_prefix('/')
        .and_then(|rest| rest.rsplit_once('/'))
        .filter(|(_, flags)| flags.chars().all(|c| matches!(c, 'i' | 'm' | 'x' | 'o')))
        .unwrap_or((pattern, ""))
}

/// The characters that are left.
#[derive(Clone)]
pub(super) struct Chars<'p> {
    rest: std::str::Chars<'p>,
}

impl Chars<'_> {
    pub(super) fn next(&mut self) -> Option<char> {
        self.rest.next()
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.next();
        }
        found
    }

    fn eat_str(&mut self, text: &str) -> bool {
        let mut ahead = self.clone();
        let found = text.chars().all(|c| ahead.eat(c));
        if found {
            *self = ahead;
        }
        found
    }

    /// What comes before the next `end`, which is passed over.
    pub(super) fn until(&mut self, end: char) -> Option<String> {
        let mut out = String::new();
        loop {
            match self.next()? {
                c if c == end => return Some(out),
                c => out.push(c),
            }
        }
    }

    /// Whether two octal digits come next.
    fn octal_pair(&self) -> bool {
        let mut ahead = self.clone();
        (0..2).all(|_| ahead.next().is_some_and(|c| matches!(c, '0'..='7')))
    }

    /// Up to `max` digits of this base.
    fn digits(&mut self, radix: u32, max: usize) -> Option<u32> {
        let mut value = None;
        for _ in 0..max {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else { break };
            self.next();
            value = Some(value.unwrap_or(0_u32).checked_mul(radix)?.checked_add(digit)?);
        }
        value
    }

    /// The character that `\letter` stands for, in or out of a set.
    pub(super) fn escaped(&mut self, letter: char) -> Result<char, String> {
        let code = match letter {
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'f' => return Ok('\u{c}'),
            'v' => return Ok('\u{b}'),
            'a' => return Ok('\u{7}'),
            'e' => return Ok('\u{1b}'),
            '0'..='7' => {
                let first = letter.to_digit(8).unwrap_or(0);
                let mut code = first;
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    self.next();
                    code = code * 8 + digit;
                }
                Some(code)
            }
            'x' if self.eat('{') => {
                let code = self.digits(16, 8);
                if !self.eat('}') {
                    return Err("\\x{ does not end".to_owned());
                }
                code
            }
            'x' => self.digits(16, 2),
            'u' => self.digits(16, 4),
            'c' => self.next().map(|c| u32::from(c) & 0x1f),
            'C' | 'M' => return Err(format!("\\{letter}- is not supported; write \\x..")),
            other => return Ok(other),
        };
        code.and_then(char::from_u32).ok_or_else(|| format!("bad number after \\{letter}"))
    }
}

struct Frame {
    /// Where the group begins in the output.
    start: usize,
    /// Options opened within it, to be closed with it.
    extra: usize,
    extended: bool,
}

struct Pass<'p> {
    chars: Chars<'p>,
    out: String,
    dialect: Dialect,
    /// Not known in the first pass.
    known: Option<&'p [(String, usize)]>,
    names: Vec<(String, usize)>,
    groups: usize,
    backtracks: bool,
    single: bool,
    stack: Vec<Frame>,
    /// Groups of options opened at the top level.
    extra: usize,
    /// `x`: blanks and comments do not count.
    extended: bool,
}

impl<'p> Pass<'p> {
    fn new(body: &'p str, dialect: Dialect, known: Option<&'p [(String, usize)]>) -> Pass<'p> {
        Pass {
            chars: Chars { rest: body.chars() },
            out: String::with_capacity(body.len() + 16),
            dialect,
            known,
            names: Vec::new(),
            groups: 0,
            backtracks: false,
            single: false,
            stack: Vec::new(),
            extra: 0,
            extended: false,
        }
    }

    fn run(&mut self, flags: &str) -> Result<(), String> {
        if flags.contains('i') {
            self.out.push_str("(?i)");
        }
        if flags.contains('m') {
            self.out.push_str("(?s)");
        }
        self.extended = flags.contains('x');
        while let Some(c) = self.chars.next() {
            let start = self.out.len();
            match c {
                c if self.extended && c.is_ascii_whitespace() => continue,
                '#' if self.extended => {
                    while self.chars.next().is_some_and(|c| c != '\n') {}
                    continue;
                }
                '\\' => {
                    self.escape()?;
                    continue;
                }
                '[' => {
                    let set = set::set(&mut self.chars, 0)?;
                    self.take(&set)?;
                    continue;
                }
                '.' => {
                    self.take(&Set { text: ".".to_owned(), uniform: true, wide: true })?;
                    continue;
                }
                '(' => {
                    self.open()?;
                    continue;
                }
                ')' => {
                    let frame = self.stack.pop().ok_or("a ) has no (")?;
                    self.out.extend(std::iter::repeat_n(')', frame.extra + 1));
                    self.extended = frame.extended;
                    self.quantified(frame.start)?;
                    continue;
                }
                '|' | '^' | '$' => self.out.push(c),
                '*' | '+' | '?' => return Err(format!("nothing stands before {c}")),
                _ => set::literal(&mut self.out, c),
            }
            if c != '|' {
                self.quantified(start)?;
            }
        }
        if !self.stack.is_empty() {
            return Err("a ( has no )".to_owned());
        }
        self.out.extend(std::iter::repeat_n(')', self.extra));
        Ok(())
    }

    /// A set or a dot, with what follows it.
    fn take(&mut self, set: &Set) -> Result<(), String> {
        let start = self.out.len();
        let text = &set.text;
        if !set.wide || self.dialect == Dialect::Backtracking {
            self.out.push_str(text);
            return self.quantified(start);
        }
        let one = match self.dialect {
            Dialect::Lenient => format!(r"(?:{text}|(?-u:[\x80-\xFF]))"),
            _ => text.clone(),
        };
        let mut ahead = self.chars.clone();
        let many = ahead.next().filter(|c| set.uniform && matches!(c, '*' | '+'));
        let possessive = ahead.peek() == Some('+');
        match many {
            Some(many) if !possessive => {
                let lazy = if ahead.eat('?') { "?" } else { "" };
                self.chars = ahead;
                if many == '*' {
                    self.out.push_str(&format!("(?-u:{text})*{lazy}"));
                } else {
                    // The first one as a character, so that what comes before cannot end within one.
                    self.single = true;
                    self.out.push_str(&format!("(?:{one}(?-u:{text})*{lazy})"));
                }
            }
            _ => {
                self.single = true;
                self.out.push_str(&one);
            }
        }
        self.quantified(start)
    }

    /// What repeats the part of the output that begins at `start`.
    fn quantified(&mut self, start: usize) -> Result<(), String> {
        while let Some(c) = self.chars.peek() {
            match c {
                '*' | '+' | '?' => {
                    self.chars.next();
                    self.out.push(c);
                    match self.chars.peek() {
                        Some('?') => {
                            self.chars.next();
                            self.out.push('?');
                        }
                        Some('+') => {
                            self.chars.next();
                            self.out.push('+');
                            self.backtracks = true;
                        }
                        _ => {}
                    }
                }
                '{' => {
                    let Some((counts, ahead)) = counts(&self.chars) else { return Ok(()) };
                    self.chars = ahead;
                    self.out.push_str(&counts);
                    if self.chars.peek() == Some('?') && counts.contains(',') {
                        self.chars.next();
                        self.out.push('?');
                    }
                }
                _ => return Ok(()),
            }
            // A further one repeats the whole.
            if matches!(self.chars.peek(), Some('*' | '+' | '?' | '{')) {
                self.out.insert_str(start, "(?:");
                self.out.push(')');
            }
        }
        Ok(())
    }

    /// What follows a `(`.
    fn open(&mut self) -> Result<(), String> {
        let start = self.out.len();
        if !self.chars.eat('?') {
            // In Ruby groups without a name do not count beside named ones.
            if self.known.is_none_or(<[_]>::is_empty) {
                self.groups += 1;
                self.out.push('(');
            } else {
                self.out.push_str("(?:");
            }
            return self.push(start);
        }
        let c = self.chars.next().ok_or("a (? has no )")?;
        match c {
            ':' => self.out.push_str("(?:"),
            '=' | '!' | '>' | '~' => self.needs_backtracking(&format!("(?{c}")),
            '<' if self.chars.eat('=') => self.needs_backtracking("(?<="),
            '<' if self.chars.eat('!') => self.needs_backtracking("(?<!"),
            '<' => self.named('>')?,
            '\'' => self.named('\'')?,
            '#' => {
                self.chars.until(')').ok_or("a comment has no )")?;
                return Ok(());
            }
            '(' => {
                let name = self.chars.until(')').ok_or("a condition has no )")?;
                let name = name.trim_matches(|c| matches!(c, '<' | '>' | '\''));
                let condition = format!("(?({})", self.reference(name)?);
                self.needs_backtracking(&condition);
            }
            'P' => return Err("(?P<name>...) is no Ruby; write (?<name>...)".to_owned()),
            _ => return self.options(c, start),
        }
        self.push(start)
    }

    fn push(&mut self, start: usize) -> Result<(), String> {
        if self.stack.len() >= 200 {
            return Err("groups are nested deeper than 200".to_owned());
        }
        self.stack.push(Frame { start, extra: 0, extended: self.extended });
        Ok(())
    }

    fn needs_backtracking(&mut self, text: &str) {
        self.out.push_str(text);
        self.backtracks = true;
    }

    fn named(&mut self, end: char) -> Result<(), String> {
        let name = self.chars.until(end).ok_or("the name of a group does not end")?;
        if name.starts_with(|c: char| c.is_ascii_digit())
            || name.is_empty()
            || !name.chars().all(|c| c.is_alphanumeric() || c == '_')
        {
            return Err(format!("\"{name}\" is no name for a group; it takes letters, digits and _"));
        }
        self.groups += 1;
        self.names.push((name, self.groups));
        self.out.push('(');
        Ok(())
    }

    /// `(?imx-imx)` and `(?imx-imx:...)`, from its first letter on.
    fn options(&mut self, first: char, start: usize) -> Result<(), String> {
        let (mut on, mut off) = (String::new(), String::new());
        let mut negative = false;
        let mut extended = self.extended;
        let mut c = first;
        loop {
            let flags = if negative { &mut off } else { &mut on };
            match c {
                'i' => flags.push('i'),
                // A dot that takes newlines.
                'm' => flags.push('s'),
                'x' => extended = !negative,
                // ASCII ranges of \w and the like, which we have anyway.
                'a' | 'd' if !negative => {}
                '-' if !negative => negative = true,
                ':' | ')' => break,
                _ => return Err(format!("option {c} of (?{c}) is not supported")),
            }
            c = self.chars.next().ok_or("a (? has no )")?;
        }
        self.out.push_str("(?");
        self.out.push_str(&on);
        if !off.is_empty() {
            self.out.push('-');
            self.out.push_str(&off);
        }
        self.out.push(':');
        if c == ':' {
            self.push(start)?;
        } else {
            // To the end of the group that it stands in, alternatives included: `a(?i)b|c` is `a(?i:b|c)`.
            *self.stack.last_mut().map_or(&mut self.extra, |frame| &mut frame.extra) += 1;
        }
        self.extended = extended;
        Ok(())
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<(), String> {
        let start = self.out.len();
        let letter = self.chars.next().ok_or("it ends in a backslash")?;
        if let Some(set) = set::shorthand(letter) {
            return self.take(&set);
        }
        match letter {
            'A' | 'b' | 'B' | 'z' => {
                self.out.push('\\');
                self.out.push(letter);
            }
            'G' => self.out.push_str(r"\A"),
            'Z' if self.dialect == Dialect::Backtracking => self.out.push_str(r"(?=\n?\z)"),
            // Takes the newline along; that is seen in the bounds of the whole match only.
            'Z' => self.out.push_str(r"(?:\n?\z)"),
            'R' => self.out.push_str(r"(?:\r\n|[\n\x0B\x0C\r\x{85}\x{2028}\x{2029}])"),
            'X' => return Err("\\X is not supported".to_owned()),
            'K' => self.needs_backtracking(r"\K"),
            'p' | 'P' => {
                let set = set::property(&mut self.chars, letter == 'P')?;
                return self.take(&set);
            }
            'k' | 'g' if matches!(self.chars.peek(), Some('<' | '\'')) => {
                let end = if self.chars.next() == Some('<') { '>' } else { '\'' };
                let name = self.chars.until(end).ok_or("a reference does not end")?;
                let group = self.reference(&name)?;
                let text = if letter == 'k' { format!(r"(?:\{group})") } else { format!(r"\g<{group}>") };
                self.needs_backtracking(&text);
            }
            // Three octal digits are a character.
            '1'..='9' if letter > '3' || !self.chars.octal_pair() => {
                let group = letter.to_string();
                let group = self.reference(&group)?;
                self.needs_backtracking(&format!(r"(?:\{group})"));
            }
            // A byte, not a character.
            'x' if self.chars.peek() != Some('{') => {
                let c = self.chars.escaped('x')?;
                match u32::from(c) {
                    0x80.. if self.dialect == Dialect::Backtracking => {
                        return Err("bytes above \\x7F do not go together with look-around".to_owned());
                    }
                    code @ 0x80.. => self.out.push_str(&format!(r"(?-u:\x{code:02X})")),
                    _ => set::literal(&mut self.out, c),
                }
            }
            _ => {
                let c = self.chars.escaped(letter)?;
                set::literal(&mut self.out, c);
            }
        }
        self.quantified(start)
    }

    /// The number of the group that a reference means.
    fn reference(&self, name: &str) -> Result<usize, String> {
        let number = match name.parse::<i64>() {
            Ok(back @ ..=-1) => usize::try_from(self.groups as i64 + 1 + back).ok(),
            Ok(number) => usize::try_from(number).ok(),
            Err(_) => match self.known {
                Some(known) => known.iter().rev().find(|(n, _)| n == name).map(|(_, group)| *group),
                None => Some(1),
            },
        };
        number.filter(|n| *n < 100).ok_or_else(|| format!("there is no group \"{name}\""))
    }
}

/// `{n}`, `{n,}`, `{n,m}` or `{,m}`, and what comes after it; anything else in braces stands for itself.
fn counts<'p>(chars: &Chars<'p>) -> Option<(String, Chars<'p>)> {
    let mut ahead = chars.clone();
    if !ahead.eat_str("{") {
        return None;
    }
    let low = ahead.digits(10, 6);
    if !ahead.eat(',') {
        return ahead.eat('}').then_some((format!("{{{}}}", low?), ahead));
    }
    let high = ahead.digits(10, 6);
    if !ahead.eat('}') || (low.is_none() && high.is_none()) {
        return None;
    }
    let high = high.map(|h| h.to_string()).unwrap_or_default();
    Some((format!("{{{},{high}}}", low.unwrap_or(0)), ahead))
}
