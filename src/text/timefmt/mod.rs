//! Time formats: BSD's `strptime` and Fluent Bit's `%L`.
//!
//! Enters: a format at start, texts at run time. Leaves: points in time. Can go wrong: a format has an unknown specifier
//! (refused, by name), or a text does not fit it (`None`). Reading allocates nothing.
//!
//! Specifiers: `%Y %y %C %m %b %B %h %d %e %j %H %k %I %l %M %S %p %L %s %z %Z %a %A %D %F %T %R %r %c %x %X %n %t %%`, and
//! `%u %w %U %W %V %G %g`, which are read and not used. A blank stands for any run of blanks, none included. Text after
//! a full match is ignored. `%L` is a fraction of up to nine digits. `%z` and `%Z` take `+hh`, `+hhmm`, `+hh:mm`, `Z` and
//! the usual abbreviations. A `Z` just after `%S` or `%L` means UTC. Without a year it is that of `now`; without a date as well, its date.

mod zone;

pub use zone::Zone;

use crate::record::Time;

/// 9999-12-31T23:59:59Z: what comes after it is no time of a log.
const LAST: i64 = 253_402_300_799;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

/// A compiled format.
#[derive(Clone, Debug)]
pub struct TimeFormat {
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Item {
    /// Any run of blanks.
    Blanks,
    Byte(u8),
    Number(Number),
    MonthName,
    DayName,
    HalfOfDay,
    Fraction,
    Epoch,
    Zone,
    /// A `Z` of the format itself.
    Zulu,
}

/// A number of limited digits.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Number {
    part: Part,
    digits: usize,
    low: u32,
    high: u32,
    /// Blanks may come before it.
    padded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Century,
    Year,
    YearOfCentury,
    Month,
    Day,
    DayOfYear,
    Hour,
    Minute,
    Second,
    Ignored,
}

/// What a text has said.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    century: Option<u32>,
    year: Option<u32>,
    year_of_century: Option<u32>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    hour: u32,
    minute: u32,
    second: u32,
    nsec: u32,
    afternoon: Option<bool>,
    epoch: Option<i64>,
    offset: Option<i32>,
    /// Anything but blanks and literals.
    some: bool,
}

impl TimeFormat {
    /// Compiles a format.
    ///
    /// # Errors
    /// Names the specifier that is wrong.
    pub fn new(format: &str) -> Result<TimeFormat, String> {
        let mut items = Vec::new();
        compile(format, &mut items)?;
        if items.iter().filter(|i| **i == Item::Fraction).count() > 1 {
            return Err("%L may stand in it only once".to_owned());
        }
        Ok(TimeFormat { items })
    }

    /// The time that `text` says. `zone` counts where the text has none; `now` gives what the format leaves out. With
    /// `strict` the text must fit; else what came before the first misfit counts, if there is anything.
    pub fn read(&self, text: &[u8], zone: &Zone, now: Time, strict: bool) -> Option<Time> {
        let mut reader = Reader { text, parts: Parts::default() };
        let fits = self.items.iter().all(|item| reader.item(*item).is_some());
        if !fits && (strict || !reader.parts.some) {
            return None;
        }
        let parts = reader.parts;
        let sec = match parts.epoch {
            Some(sec) => sec,
            None => parts.seconds(zone, now)?,
        };
        (0..=LAST).contains(&sec).then(|| Time::new(sec, parts.nsec))
    }
}

// Calls itself once for a specifier that stands for several.
fn compile(format: &str, items: &mut Vec<Item>) -> Result<(), String> {
    let mut bytes = format.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'Z'
            && matches!(items.last(), Some(Item::Fraction | Item::Number(Number { part: Part::Second, .. })))
        {
            items.push(Item::Zulu);
            continue;
        }
        if byte != b'%' {
            items.push(if byte.is_ascii_whitespace() { Item::Blanks } else { Item::Byte(byte) });
            continue;
        }
        let mut letter = bytes.next();
        let modifier = letter.filter(|l| matches!(l, b'E' | b'O'));
        if modifier.is_some() {
            letter = bytes.next();
        }
        let number =
            |part, digits, low, high| Item::Number(Number { part, digits, low, high, padded: false });
        let padded = |part, low, high| Item::Number(Number { part, digits: 2, low, high, padded: true });
        items.push(match letter {
            Some(b'n' | b't') => Item::Blanks,
            Some(b'%') if modifier.is_none() => Item::Byte(b'%'),
            Some(b'Y') => number(Part::Year, 4, 0, 9999),
            Some(b'C') => number(Part::Century, 2, 0, 99),
            Some(b'y') => number(Part::YearOfCentury, 2, 0, 99),
            Some(b'm') => number(Part::Month, 2, 1, 12),
            Some(b'd') => number(Part::Day, 2, 1, 31),
            Some(b'e') => padded(Part::Day, 1, 31),
            Some(b'j') => number(Part::DayOfYear, 3, 1, 366),
            Some(b'H') => number(Part::Hour, 2, 0, 23),
            Some(b'k') => padded(Part::Hour, 0, 23),
            Some(b'I') => number(Part::Hour, 2, 1, 12),
            Some(b'l') => padded(Part::Hour, 1, 12),
            Some(b'M') => number(Part::Minute, 2, 0, 59),
            // A leap second is the second after it.
            Some(b'S') => number(Part::Second, 2, 0, 60),
            Some(b'u') => number(Part::Ignored, 1, 1, 7),
            Some(b'w') => number(Part::Ignored, 1, 0, 6),
            Some(b'U' | b'W' | b'V') => number(Part::Ignored, 2, 0, 53),
            Some(b'G') => number(Part::Ignored, 4, 0, 9999),
            Some(b'g') => number(Part::Ignored, 2, 0, 99),
            Some(b'b' | b'B' | b'h') => Item::MonthName,
            Some(b'a' | b'A') => Item::DayName,
            Some(b'p') => Item::HalfOfDay,
            Some(b'L') => Item::Fraction,
            Some(b's') => Item::Epoch,
            Some(b'z' | b'Z') => Item::Zone,
            Some(other) => {
                compile(several(other).ok_or_else(|| unknown(modifier, other))?, items)?;
                continue;
            }
            None => return Err("it ends in a %".to_owned()),
        });
    }
    Ok(())
}

/// Specifiers that stand for several.
fn several(letter: u8) -> Option<&'static str> {
    Some(match letter {
        b'D' | b'x' => "%m/%d/%y",
        b'F' => "%Y-%m-%d",
        b'T' | b'X' => "%H:%M:%S",
        b'R' => "%H:%M",
        b'r' => "%I:%M:%S %p",
        b'c' => "%a %b %e %H:%M:%S %Y",
        _ => return None,
    })
}

fn unknown(modifier: Option<u8>, letter: u8) -> String {
    let mut shown = String::from("%");
    shown.extend(modifier.map(char::from));
    shown.push(char::from(letter));
    let hint = match letter {
        b'f' | b'N' | b'0'..=b'9' => "; fractions of a second are %L",
        b':' => "; %z takes +hh:mm too",
        b'P' => "; am and pm are %p",
        _ => "",
    };
    format!("{shown} is not a specifier{hint}")
}

struct Reader<'t> {
    text: &'t [u8],
    parts: Parts,
}

impl Reader<'_> {
    fn item(&mut self, item: Item) -> Option<()> {
        match item {
            Item::Blanks => {
                self.text = self.text.trim_ascii_start();
                return Some(());
            }
            Item::Byte(byte) => {
                self.text = self.text.strip_prefix(&[byte])?;
                return Some(());
            }
            Item::Number(number) => self.number(number)?,
            Item::MonthName => self.parts.month = Some(self.name(&MONTHS)? + 1),
            Item::DayName => {
                self.name(&DAYS)?;
            }
            Item::HalfOfDay => {
                let (half, rest) = self.text.split_first_chunk::<2>()?;
                self.parts.afternoon = match half.map(|b| b.to_ascii_lowercase()) {
                    [b'a', b'm'] => Some(false),
                    [b'p', b'm'] => Some(true),
                    _ => return None,
                };
                self.text = rest;
            }
            Item::Fraction => {
                let (value, digits) = self.digits(9)?;
                self.parts.nsec = value as u32 * 10_u32.pow(9 - digits as u32);
            }
            Item::Epoch => {
                let (value, _) = self.digits(18)?;
                self.parts.epoch = Some(value as i64);
            }
            Item::Zulu => {
                self.text = self.text.strip_prefix(b"Z")?;
                self.parts.offset = Some(0);
            }
            Item::Zone => {
                let (offset, rest) = zone::read(self.text.trim_ascii_start())?;
                self.parts.offset = Some(offset);
                self.text = rest;
            }
        }
        self.parts.some = true;
        Some(())
    }

    /// Up to `max` (18 at most) digits, at least one: value and number.
    #[inline]
    fn digits(&mut self, max: usize) -> Option<(u64, usize)> {
        let mut value = 0;
        let mut n = 0;
        while let (Some(digit @ b'0'..=b'9'), true) = (self.text.get(n), n < max) {
            value = value * 10 + u64::from(digit - b'0');
            n += 1;
        }
        self.text = self.text.get(n..)?;
        (n > 0).then_some((value, n))
    }

    #[inline]
    fn number(&mut self, number: Number) -> Option<()> {
        if number.padded {
            self.text = self.text.trim_ascii_start();
        }
        let value = self.digits(number.digits)?.0 as u32;
        if !(number.low..=number.high).contains(&value) {
            return None;
        }
        let parts = &mut self.parts;
        match number.part {
            Part::Century => parts.century = Some(value),
            Part::Year => parts.year = Some(value),
            Part::YearOfCentury => parts.year_of_century = Some(value),
            Part::Month => parts.month = Some(value),
            Part::Day => parts.day = Some(value),
            Part::DayOfYear => parts.day_of_year = Some(value),
            Part::Hour => parts.hour = value,
            Part::Minute => parts.minute = value,
            Part::Second => parts.second = value,
            Part::Ignored => {}
        }
        Some(())
    }

    /// A whole name or its first three letters, in any case; which one it is.
    fn name(&mut self, names: &[&str]) -> Option<u32> {
        let starts = |name: &str| {
            self.text.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name.as_bytes()))
        };
        let (i, len) = names.iter().enumerate().find_map(|(i, name)| {
            let short = name.get(..3)?;
            starts(short).then(|| (i, if starts(name) { name.len() } else { 3 }))
        })?;
        self.text = self.text.get(len..)?;
        Some(i as u32)
    }
}

impl Parts {
    /// Seconds since 1970.
    fn seconds(&self, zone: &Zone, now: Time) -> Option<i64> {
        let hour = match (self.hour, self.afternoon) {
            (12, Some(false)) => 0,
            (hour @ 0..12, Some(true)) => hour + 12,
            (hour, _) => hour,
        };
        let clock = i64::from(hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        let local = self.days(zone, now)? * 86_400 + clock;
        match self.offset {
            Some(offset) => Some(local - i64::from(offset)),
            None => zone.to_utc(local),
        }
    }

    /// Days since 1970.
    fn days(&self, zone: &Zone, now: Time) -> Option<i64> {
        let named = match (self.year, self.century, self.year_of_century) {
            (Some(year), ..) => Some(year),
            (None, Some(century), year) => Some(century * 100 + year.unwrap_or(0)),
            (None, None, Some(year @ 69..)) => Some(1900 + year),
            (None, None, Some(year)) => Some(2000 + year),
            (None, None, None) => None,
        };
        let (year, month, day) = match named {
            Some(year) => (year, 1, 1),
            None => {
                let today = zone.date(now)?;
                let no_date = self.month.is_none() && self.day.is_none();
                (
                    today.year().unsigned_abs().into(),
                    today.month().unsigned_abs().into(),
                    match no_date {
                        true => today.day().unsigned_abs().into(),
                        false => 1,
                    },
                )
            }
        };
        Some(match (self.day_of_year, self.month) {
            (Some(day), None) => days_before(year, 1) + i64::from(day) - 1,
            (_, month_named) => {
                days_before(year, month_named.unwrap_or(month)) + i64::from(self.day.unwrap_or(day)) - 1
            }
        })
    }
}

/// Days from 1970-01-01 to the first of a month.
fn days_before(year: u32, month: u32) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let whole = i64::from(year) - 1;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let in_year =
        BEFORE.get((month.max(1) - 1) as usize).copied().unwrap_or(0) + i64::from(leap && month > 2);
    whole * 365 + whole.div_euclid(4) - whole.div_euclid(100) + whole.div_euclid(400) - 719_162 + in_year
}

#[cfg(test)]
mod tests;
