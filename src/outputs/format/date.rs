//! Times in text: seconds with nanoseconds, and the date field of JSON.

use crate::config::{Diagnostics, Settings};
use crate::record::Time;
use crate::wire::json::Json;

/// How the date field looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Seconds with a fraction, to the microsecond.
    Double,
    /// `2025-10-09T08:53:20.123456Z`
    Iso8601,
    /// `2025-10-09T08:53:20.123456789Z`
    #[cfg(feature = "kafka")]
    Iso8601Ns,
    /// Whole seconds.
    Epoch,
    /// Whole milliseconds.
    EpochMs,
    /// `2025-10-09 08:53:20.123456`
    JavaSql,
}

/// `json_date_key` with `json_date_format`.
#[derive(Debug)]
pub(in crate::outputs) struct JsonDate {
    key: Vec<u8>,
    /// `"date":`
    json_key: Vec<u8>,
    form: Form,
    /// The last second with its text up to the fraction: many records share one.
    second: Option<(i64, String)>,
}

/// Reads the two keys. `None`: no date field.
pub(in crate::outputs) fn json_date(
    s: &Settings,
    escape_unicode: bool,
    diags: &mut Diagnostics,
) -> Option<JsonDate> {
    let written = s.str("json_date_format").unwrap_or("double");
    let form = match written.to_ascii_lowercase().as_str() {
        "double" => Form::Double,
        "iso8601" => Form::Iso8601,
        "epoch" => Form::Epoch,
        "epoch_ms" | "epoch_millis" | "epoch_milliseconds" => Form::EpochMs,
        "java_sql_timestamp" => Form::JavaSql,
        _ => {
            diags.strict(
                Some(s.pos_of("json_date_format")),
                format!("unknown json_date_format \"{written}\" in [OUTPUT] {}", s.info().name),
                "double is used; choose double, iso8601, epoch, epoch_ms or java_sql_timestamp",
            );
            Form::Double
        }
    };
    let key = s.str("json_date_key").unwrap_or("date");
    if crate::config::value::boolean(key) == Some(false) {
        return None;
    }
    Some(JsonDate::new(key, form, Json { escape_unicode }))
}

impl JsonDate {
    fn new(key: &str, form: Form, json: Json) -> JsonDate {
        let mut json_key = Vec::new();
        json.write_str(&mut json_key, key.as_bytes());
        json_key.push(b':');
        JsonDate { key: key.as_bytes().to_vec(), json_key, form, second: None }
    }

    /// A date field as the kafka output has it: `double`, `iso8601` or `iso8601_ns`; `None` for another format.
    #[cfg(feature = "kafka")]
    pub(in crate::outputs) fn named(key: &str, format: &str, json: Json) -> Option<JsonDate> {
        let form = match format.to_ascii_lowercase().as_str() {
            "double" => Form::Double,
            "iso8601" => Form::Iso8601,
            "iso8601_ns" => Form::Iso8601Ns,
            _ => return None,
        };
        Some(JsonDate::new(key, form, json))
    }

    /// The key's text.
    pub(in crate::outputs) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Appends key and value.
    pub(in crate::outputs) fn write(&mut self, out: &mut Vec<u8>, time: Time) {
        out.extend_from_slice(&self.json_key);
        self.write_value(out, time);
    }

    /// Appends the value.
    pub(in crate::outputs) fn write_value(&mut self, out: &mut Vec<u8>, time: Time) {
        match self.form {
            Form::Double => {
                microseconds(out, time);
                while out.ends_with(b"0") && !out.ends_with(b".0") {
                    out.pop();
                }
            }
            Form::Epoch => out.extend_from_slice(itoa::Buffer::new().format(time.sec).as_bytes()),
            Form::EpochMs => out.extend_from_slice(itoa::Buffer::new().format(time.millis()).as_bytes()),
            Form::Iso8601 => self.calendar(out, time, 'T', (6, b"Z\"")),
            #[cfg(feature = "kafka")]
            Form::Iso8601Ns => self.calendar(out, time, 'T', (9, b"Z\"")),
            Form::JavaSql => self.calendar(out, time, ' ', (6, b"\"")),
        }
    }

    fn calendar(&mut self, out: &mut Vec<u8>, time: Time, between: char, (digits, end): (usize, &[u8])) {
        let text = match &self.second {
            Some((sec, text)) if *sec == time.sec => text,
            _ => {
                // Out of jiff's range (after the year 9999) there is no such date: the epoch stands for it.
                let t = jiff::Timestamp::from_second(time.sec).unwrap_or_default();
                let t = jiff::tz::Offset::UTC.to_datetime(t);
                let text = format!(
                    "\"{:04}-{:02}-{:02}{between}{:02}:{:02}:{:02}.",
                    t.year(),
                    t.month(),
                    t.day(),
                    t.hour(),
                    t.minute(),
                    t.second()
                );
                &self.second.insert((time.sec, text)).1
            }
        };
        out.extend_from_slice(text.as_bytes());
        // Cut off, not rounded.
        out.extend(nine_digits(time.nsec).iter().take(digits));
        out.extend_from_slice(end);
    }
}

/// A number below 1,000,000,000 with leading zeros.
#[inline]
pub(super) fn nine_digits(mut n: u32) -> [u8; 9] {
    let mut digits = [b'0'; 9];
    for digit in digits.iter_mut().rev() {
        *digit += (n % 10) as u8;
        n /= 10;
    }
    digits
}

/// `SEC.NSEC`
pub(super) fn seconds(out: &mut Vec<u8>, time: Time) {
    out.extend_from_slice(itoa::Buffer::new().format(time.sec).as_bytes());
    out.push(b'.');
    out.extend_from_slice(&nine_digits(time.nsec));
}

/// Seconds with six decimals, rounded.
pub(super) fn microseconds(out: &mut Vec<u8>, time: Time) {
    let rounded = Time::new(time.sec, time.nsec.saturating_add(500));
    out.extend_from_slice(itoa::Buffer::new().format(rounded.sec).as_bytes());
    let [a, b, c, d, e, f, ..] = nine_digits(rounded.nsec);
    out.extend_from_slice(&[b'.', a, b, c, d, e, f]);
}
