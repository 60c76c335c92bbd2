//! Time zones: of a parser (`Time_Offset`, `Time_Zone`, `Time_System_Timezone`) and within a text (`%z`).
//!
//! Enters: a name or an offset. Leaves: a zone that turns local times into seconds since 1970. Can go wrong: the system
//! does not know the name. The zone's rules are read once, at start.

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};

use crate::record::Time;

/// A time zone.
#[derive(Clone, Debug, Default)]
pub enum Zone {
    /// UTC.
    #[default]
    Utc,
    /// So many seconds east of it.
    Fixed(i32),
    /// One with rules.
    Rules(TimeZone),
}

impl Zone {
    /// `+0900`, `-06:00`, `Z`.
    ///
    /// # Errors
    /// Says what it should look like.
    pub fn offset(text: &str) -> Result<Zone, String> {
        let bytes = text.as_bytes();
        let signed = matches!(bytes.first(), Some(b'+' | b'-')) && bytes.len() >= 5;
        match read(bytes) {
            Some((seconds, [])) if signed || text == "Z" => Ok(Zone::Fixed(seconds)),
            _ => Err(format!("\"{text}\" is no offset; write it as +0900, -06:00 or Z")),
        }
    }

    /// A name of the tz database, `Europe/Warsaw`.
    ///
    /// # Errors
    /// Says that there is no such zone.
    pub fn named(name: &str) -> Result<Zone, String> {
        TimeZone::get(name).map(Zone::Rules).map_err(|_| {
            format!("\"{name}\" is no time zone that this system knows; write it as Europe/Warsaw")
        })
    }

    /// What `TZ` or the system says.
    pub fn system() -> Zone {
        Zone::Rules(TimeZone::system())
    }

    /// From seconds on the clocks of the zone. Of an hour that comes twice the first counts, one that is left out is
    /// taken as if the clocks had not moved.
    pub(super) fn to_utc(&self, local: i64) -> Option<i64> {
        match self {
            Zone::Utc => Some(local),
            Zone::Fixed(offset) => Some(local - i64::from(*offset)),
            Zone::Rules(rules) => {
                let clock = Offset::UTC.to_datetime(jiff::Timestamp::from_second(local).ok()?);
                Some(rules.to_ambiguous_timestamp(clock).compatible().ok()?.as_second())
            }
        }
    }

    /// The date in the zone.
    pub(super) fn date(&self, now: Time) -> Option<Date> {
        let now = jiff::Timestamp::from_second(now.sec).ok()?;
        let offset = match self {
            Zone::Utc => Offset::UTC,
            Zone::Fixed(seconds) => Offset::from_seconds(*seconds).ok()?,
            Zone::Rules(rules) => rules.to_offset(now),
        };
        Some(offset.to_datetime(now).date())
    }
}

/// The zone that a text begins with, as seconds east of UTC, and what follows it.
pub(super) fn read(text: &[u8]) -> Option<(i32, &[u8])> {
    if let [sign @ (b'+' | b'-'), rest @ ..] = text {
        let (hours, rest) = two_digits(rest)?;
        let (minutes, rest) = match rest {
            [b':', rest @ ..] => two_digits(rest)?,
            [b'0'..=b'9', ..] => two_digits(rest)?,
            _ => (0, rest),
        };
        let seconds = hours * 3600 + minutes * 60;
        return Some((if *sign == b'-' { -seconds } else { seconds }, rest));
    }
    let letters = text.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(letters)?;
    let minutes = match name {
        [letter] => military(letter.to_ascii_uppercase())? * 60,
        _ => ABBREVIATIONS.iter().find(|(n, _)| n.as_bytes().eq_ignore_ascii_case(name))?.1,
    };
    Some((minutes * 60, rest))
}

fn two_digits(text: &[u8]) -> Option<(i32, &[u8])> {
    match text {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] => {
            Some((i32::from(tens - b'0') * 10 + i32::from(ones - b'0'), rest))
        }
        _ => None,
    }
}

/// Hours of the single letters; there is no J.
fn military(letter: u8) -> Option<i32> {
    let hours = i32::from(letter) - i32::from(b'A');
    match letter {
        b'A'..=b'I' => Some(hours + 1),
        b'K'..=b'M' => Some(hours),
        b'N'..=b'Y' => Some(12 - hours),
        b'Z' => Some(0),
        _ => None,
    }
}

/// Minutes east of UTC. Of ambiguous ones the meaning that Fluent Bit gives them.
const ABBREVIATIONS: &[(&str, i32)] = &[
    ("UTC", 0),
    ("GMT", 0),
    ("UT", 0),
    ("WET", 0),
    ("EST", -300),
    ("EDT", -240),
    ("CST", -360),
    ("CDT", -300),
    ("MST", -420),
    ("MDT", -360),
    ("PST", -480),
    ("PDT", -420),
    ("AKST", -540),
    ("AKDT", -480),
    ("HST", -600),
    ("BRT", -180),
    ("ART", -180),
    ("WEST", 60),
    ("BST", 60),
    ("CET", 60),
    ("WAT", 60),
    ("CEST", 120),
    ("EET", 120),
    ("CAT", 120),
    ("SAST", 120),
    ("EEST", 180),
    ("EAT", 180),
    ("MSK", 180),
    ("PKT", 300),
    ("IST", 330),
    ("NPT", 345),
    ("ICT", 420),
    ("AWST", 480),
    ("HKT", 480),
    ("PHT", 480),
    ("SGT", 480),
    ("JST", 540),
    ("KST", 540),
    ("ACST", 570),
    ("AEST", 600),
    ("AEDT", 660),
    ("NZST", 720),
    ("NZDT", 780),
];
