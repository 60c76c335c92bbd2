//! What formats read, as Fluent Bit 5.1.1 does.

use super::{TimeFormat, Zone};
use crate::record::Time;
use proptest::prelude::*;

/// 2026-11-23T13:32:56Z.
const NOW: Time = Time { sec: 1_795_440_776, nsec: 5 };

fn read_in(zone: &Zone, format: &str, text: &str) -> Option<f64> {
    let format = TimeFormat::new(format).unwrap();
    format.read(text.as_bytes(), zone, NOW, true).map(Time::as_f64)
}

#[track_caller]
fn check(format: &str, rows: &[(&str, Option<f64>)]) {
    for (text, want) in rows {
        assert_eq!(read_in(&Zone::Utc, format, text), *want, "{format} on {text:?}");
    }
}

#[test]
fn fractions_and_zones_of_iso_times() {
    check(
        "%Y-%m-%dT%H:%M:%S.%L%z",
        &[
            ("2025-03-04T05:06:07.1Z", Some(1_741_064_767.1)),
            ("2025-03-04T05:06:07.1+05", Some(1_741_046_767.1)),
            ("2025-03-04T05:06:07.1 +0500", Some(1_741_046_767.1)),
            ("2025-03-04T05:06:07.1-0730x", Some(1_741_091_767.1)),
            ("2025-03-04T05:06:07.1+05:30", Some(1_741_044_967.1)),
            ("2025-03-04T05:06:07.1EST", Some(1_741_082_767.1)),
            ("2025-03-04T05:06:07.1234567891Z", None),
            ("2025-03-04T05:06:07.Z", None),
            ("2025-03-04T05:06:07Z", None),
            ("2025-03-04T05:06:07.1", None),
            ("2025-03-04T05:06:07.1+5:30", None),
            ("2025-03-04T05:06:07.1+053", None),
        ],
    );
    let nsec =
        |text: &[u8]| TimeFormat::new("%T.%L").unwrap().read(text, &Zone::Utc, NOW, true).unwrap().nsec;
    assert_eq!([nsec(b"00:00:00.123456789"), nsec(b"00:00:00.01")], [123_456_789, 10_000_000]);
    check(
        "%Y-%m-%dT%H:%M:%S.%LZ",
        &[("2025-03-04T05:06:07.123Z", Some(1_741_064_767.123)), ("2025-03-04T05:06:07.123", None)],
    );
}

#[test]
fn blanks_match_any_run_and_numbers_have_bounds() {
    check(
        "%Y-%m-%d %H:%M:%S",
        &[
            ("2025-03-04  5:6:7", Some(1_741_064_767.0)),
            ("2025-03-0405:06:07 and more", Some(1_741_064_767.0)),
            ("2025-03-04\t05:06:60", Some(1_741_064_820.0)),
            ("2025-02-31 00:00:00", Some(1_740_960_000.0)),
            ("2024-02-29 00:00:00", Some(1_709_164_800.0)),
            ("1970-01-01 00:00:00", Some(0.0)),
            ("9999-12-31 23:59:59", Some(253_402_300_799.0)),
            ("1969-12-31 23:59:59", None),
            ("2025-03-04 05:06:61", None),
            ("2025-03-04 24:06:07", None),
            ("2025-13-04 05:06:07", None),
            ("2025-00-04 05:06:07", None),
            ("2025-03-00 05:06:07", None),
            ("2025-03-32 05:06:07", None),
            ("2025- 3-04 05:06:07", None),
            ("  2025-03-04 05:06:07", None),
            ("2025-03-04T05:06:07", None),
            ("20250-03-04 05:06:07", None),
            ("2025-03-04", None),
            ("", None),
        ],
    );
}

#[test]
fn names_halves_of_the_day_and_padded_numbers() {
    check(
        "%d/%b/%Y:%H:%M:%S %z",
        &[
            ("09/Oct/2025:08:53:20 +0000", Some(1_760_000_000.0)),
            ("9/October/2025:10:53:20 +0200", Some(1_760_000_000.0)),
            ("bad time", None),
        ],
    );
    check("%B %d %Y", &[("mAy 4 2025", Some(1_746_316_800.0)), ("Sept 4 2025", None), ("Mayo 4 2025", None)]);
    check(
        "%a, %d %b %Y %T %z",
        &[
            ("Tue, 04 Mar 2025 05:06:07 +0100", Some(1_741_061_167.0)),
            ("Tuesday, 04 Mar 2025 05:06:07 GMT", Some(1_741_064_767.0)),
            ("Tues, 04 Mar 2025 05:06:07 GMT", None),
        ],
    );
    check(
        "%Y-%m-%d %l:%M %p",
        &[
            ("2025-03-04  5:06 PM", Some(1_741_107_960.0)),
            ("2025-03-04 12:06 am", Some(1_741_046_760.0)),
            ("2025-03-04 12:06 PM", Some(1_741_089_960.0)),
            ("2025-03-04 0:06 AM", None),
            ("2025-03-04 5:06 P", None),
        ],
    );
    check("%e %B %Y %k:%M", &[(" 4 March 2025  5:06", Some(1_741_064_760.0))]);
    check(
        "%y%m%d %I:%M %p",
        &[("250304 05:06 PM", Some(1_741_107_960.0)), ("680304 12:06 PM", Some(3_098_088_360.0))],
    );
    check("%y%m%d", &[("690304", None), ("700101", Some(0.0))]);
}

#[test]
fn specifiers_that_stand_for_several_and_days_of_the_year() {
    check("%c", &[("Tue Mar  4 05:06:07 2025", Some(1_741_064_767.0))]);
    check("%D %R", &[("03/04/25 05:06", Some(1_741_064_760.0))]);
    check("%F %r", &[("2025-03-04 05:06:07 PM", Some(1_741_107_967.0))]);
    check("%x %X", &[("03/04/25 05:06:07", Some(1_741_064_767.0))]);
    check("%j %Y", &[("063 2025", Some(1_741_046_400.0)), ("367 2025", None), ("0 2025", None)]);
    check("%C%y-%Om-%d", &[("2025-03-04", Some(1_741_046_400.0))]);
    check("%Y-%m-%d%n%H%%", &[("2025-03-04 05%", Some(1_741_064_400.0)), ("2025-03-04 05", None)]);
    check("%G-W%V-%u %F", &[("2025-W10-2 2025-03-04", Some(1_741_046_400.0))]);
}

#[test]
fn what_the_format_leaves_out_is_that_of_now() {
    check(
        "%b %d %H:%M:%S",
        &[("Mar  4 05:06:07", Some(1_772_600_767.0)), ("Feb 30 05:06:07", Some(1_772_427_967.0))],
    );
    check("%H:%M:%S.%L", &[("05:06:07.5", Some(1_795_410_367.5))]);
    check("%SZ", &[("07Z", Some(1_795_392_007.0))]);
    // 2026-11-24 in Auckland.
    assert_eq!(read_in(&Zone::named("Pacific/Auckland").unwrap(), "%H:%M", "01:00"), Some(1_795_435_200.0));
}

#[test]
fn epochs() {
    check(
        "%s",
        &[
            ("1741064767", Some(1_741_064_767.0)),
            ("12ab", Some(12.0)),
            ("0", Some(0.0)),
            ("1741064767123", None),
            ("999999999999999999999", None),
            ("+5", None),
            (" 5", None),
            ("-5", None),
            ("", None),
        ],
    );
    check(
        "%s.%L",
        &[("1741064767.250", Some(1_741_064_767.25)), ("1741064767", None), ("1741064767.", None)],
    );
    // An epoch is one in every zone.
    assert_eq!(read_in(&Zone::Fixed(7200), "%s", "5"), Some(5.0));
}

#[test]
fn zones_within_a_text() {
    for (zone, hours) in [
        ("UTC", 0.0),
        ("utc", 0.0),
        ("EST", -5.0),
        ("CEST", 2.0),
        ("IST", 5.5),
        ("NPT", 5.75),
        ("A", 1.0),
        ("M", 12.0),
        ("N", -1.0),
        ("Y", -12.0),
        ("UTC+2", 0.0),
        ("-01", -1.0),
        ("+01:00", 1.0),
    ] {
        let text = format!("2025-01-04 05:06:07 {zone}");
        let want = 1_735_967_167.0 - hours * 3600.0;
        assert_eq!(read_in(&Zone::Utc, "%Y-%m-%d %H:%M:%S %Z", &text), Some(want), "{zone}");
    }
    check("%F %T %Z", &[("2025-01-04 05:06:07 J", None), ("2025-01-04 05:06:07 America/New_York", None)]);
}

#[test]
fn zones_of_the_parser_count_where_the_text_has_none() {
    let local = |zone: &Zone, text: &str| read_in(zone, "%Y-%m-%d %H:%M:%S", text);
    let east = Zone::offset("+0200").unwrap();
    assert_eq!(local(&east, "2025-01-04 05:06:07"), Some(1_735_959_967.0));
    assert_eq!(local(&Zone::offset("-05:30").unwrap(), "2025-01-04 05:06:07"), Some(1_735_986_967.0));
    let york = Zone::named("America/New_York").unwrap();
    for (text, want) in [
        ("2025-01-04 05:06:07", 1_735_985_167.0),
        ("2025-07-04 05:06:07", 1_751_619_967.0),
        ("2025-03-09 02:30:00", 1_741_505_400.0),
        ("2025-11-02 01:30:00", 1_762_061_400.0),
    ] {
        assert_eq!(local(&york, text), Some(want), "{text}");
    }
    assert_eq!(read_in(&york, "%F %T %z", "2025-01-04 05:06:07 +0300"), Some(1_735_956_367.0));
    // A Z after the seconds is a zone of the text.
    for format in ["%F %TZ", "%F %T.%LZ"] {
        let text = if format.contains('L') { "2025-01-04 05:06:07.5Z" } else { "2025-01-04 05:06:07Z" };
        assert_eq!(read_in(&york, format, text).map(f64::trunc), Some(1_735_967_167.0), "{format}");
    }
    for bad in ["+02", "0200", "UTC", "EST", "", "+0530x"] {
        assert!(Zone::offset(bad).unwrap_err().contains("write it as +0900"), "{bad}");
    }
    assert!(Zone::named("Nowhere/X").unwrap_err().contains("Nowhere/X"));
}

#[test]
fn without_strict_the_part_before_the_misfit_counts() {
    let format = TimeFormat::new("%Y-%m-%d %H:%M:%S").unwrap();
    let read = |text: &str| format.read(text.as_bytes(), &Zone::Utc, NOW, false).map(|t| t.sec);
    assert_eq!(read("2025-03-04 xx"), Some(1_741_046_400));
    assert_eq!(read("2025-03-04"), Some(1_741_046_400));
    assert_eq!(read("bad"), None);
}

#[test]
fn a_bad_format_is_refused_with_its_specifier() {
    for (format, words) in [
        ("%Y %q", "%q is not a specifier"),
        ("%S.%f", "%f is not a specifier; fractions of a second are %L"),
        ("%S.%3N", "%3 is not a specifier; fractions of a second are %L"),
        ("%:z", "%: is not a specifier; %z takes +hh:mm too"),
        ("%P", "am and pm are %p"),
        ("%EQ", "%EQ is not a specifier"),
        ("%Y-%", "it ends in a %"),
        ("%S.%L %L", "only once"),
    ] {
        assert!(TimeFormat::new(format).unwrap_err().contains(words), "{format}");
    }
}

proptest! {
    #[test]
    fn any_format_and_text_never_panic(
        format in "(%[a-zA-Z]|[ :T.-]){0,8}",
        text in r"[0-9A-Za-z :.+-]{0,40}",
        now in any::<i64>(),
    ) {
        if let Ok(format) = TimeFormat::new(&format) {
            for zone in [Zone::Utc, Zone::Fixed(-360_000), Zone::named("America/New_York").unwrap()] {
                for strict in [true, false] {
                    let time = format.read(text.as_bytes(), &zone, Time { sec: now, nsec: 0 }, strict);
                    prop_assert!(time.is_none_or(|t| t.sec >= 0 && t.nsec < 1_000_000_000));
                }
            }
        }
    }
}
