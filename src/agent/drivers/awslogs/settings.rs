//! The options of docker's `awslogs` driver.
//!
//! Enters: log options. Leaves: settings. Can go wrong: an option that is none, or two that exclude one another; the
//! sentence is docker's.

use std::time::Duration;

use regex_automata::meta;
use regex_automata::util::syntax;

use super::super::options::{self, Options};

const KNOWN: &[&str] = &[
    "awslogs-region",
    "awslogs-endpoint",
    "awslogs-group",
    "awslogs-stream",
    "awslogs-create-group",
    "awslogs-create-stream",
    "awslogs-datetime-format",
    "awslogs-multiline-pattern",
    "awslogs-credentials-endpoint",
    "awslogs-force-flush-interval-seconds",
    "awslogs-max-buffered-events",
    "awslogs-format",
    "tag",
];

/// Where the containers' endpoint of ECS is.
const CONTAINERS: &str = "http://169.254.170.2";
/// Compiled patterns stay below this.
const PATTERN_MAX: usize = 10 << 20;

/// Checked options.
#[derive(Clone, Debug)]
pub(in super::super) struct Settings {
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) group: String,
    pub(super) stream: Option<String>,
    pub(super) create_group: bool,
    pub(super) create_stream: bool,
    /// Matches the first line of an event.
    pub(super) first_line: Option<meta::Regex>,
    /// The whole address.
    pub(super) credentials_endpoint: Option<String>,
    pub(super) flush: Duration,
    pub(super) buffered: usize,
    /// `json/emf`, or nothing.
    pub(super) format: Option<String>,
}

impl Settings {
    pub(in super::super) fn read(options: &Options) -> Result<Settings, String> {
        options::known(options, "awslogs", KNOWN)?;
        let text = |name: &str| options.get(name).filter(|v| !v.is_empty()).cloned();
        let group = text("awslogs-group")
            .ok_or_else(|| "must specify a value for log opt 'awslogs-group'".to_owned())?;
        let flag = |name: &str, default: bool| {
            text(name).map_or(Ok(default), |v| {
                options::boolean(&v)
                    .map_err(|e| format!("must specify valid value for log opt '{name}': {e}"))
            })
        };
        let positive = |name: &str, default: i64| {
            text(name).map_or(Ok(default), |v| match options::int(&v) {
                Ok(n) if n > 0 => Ok(n),
                Ok(n) => Err(format!("must specify a positive integer for log opt '{name}': {n}")),
                Err(e) => Err(format!("must specify a positive integer for log opt '{name}': {e}")),
            })
        };
        let (datetime, pattern) = (text("awslogs-datetime-format"), text("awslogs-multiline-pattern"));
        let format = text("awslogs-format");
        let multiline = match (&datetime, &pattern) {
            (Some(_), Some(_)) => return Err("you cannot configure log opt 'awslogs-datetime-format' and 'awslogs-multiline-pattern' at the same time".to_owned()),
            (Some(datetime), None) => Some(("awslogs-datetime-format", datetime_pattern(datetime))),
            (None, Some(pattern)) => Some(("awslogs-multiline-pattern", pattern.clone())),
            (None, None) => None,
        };
        if let Some(format) = &format {
            if format != "json/emf" {
                return Err(format!("unsupported log format '{format}'"));
            }
            if let Some((name, _)) = multiline {
                return Err(format!(
                    "you cannot configure log opt '{name}' and 'awslogs-format' at the same time"
                ));
            }
        }
        let first_line = match multiline {
            Some((name, pattern)) => Some(compile(&pattern).map_err(|e| {
                format!("awslogs could not parse multiline pattern key {pattern:?} of {name}: {e}")
            })?),
            None => None,
        };
        Ok(Settings {
            region: text("awslogs-region"),
            endpoint: text("awslogs-endpoint"),
            group,
            stream: text("awslogs-stream"),
            create_group: flag("awslogs-create-group", false)?,
            create_stream: flag("awslogs-create-stream", true)?,
            first_line,
            credentials_endpoint: text("awslogs-credentials-endpoint")
                .map(|path| format!("{CONTAINERS}{path}")),
            flush: Duration::from_secs(positive("awslogs-force-flush-interval-seconds", 5)?.unsigned_abs()),
            buffered: usize::try_from(positive("awslogs-max-buffered-events", 4096)?).unwrap_or(4096),
            format,
        })
    }
}

fn compile(pattern: &str) -> Result<meta::Regex, String> {
    meta::Builder::new()
        .configure(meta::Config::new().utf8_empty(false).nfa_size_limit(Some(PATTERN_MAX)))
        .syntax(syntax::Config::new().utf8(false))
        .build(pattern)
        .map_err(|e| {
            let text = crate::net::causes(&e);
            text.rsplit("error: ").next().unwrap_or_default().trim().to_owned()
        })
}

/// What a time of this format looks like. What is no conversion is a pattern itself; unknown conversions are left out.
fn datetime_pattern(format: &str) -> String {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        out.push_str(match chars.next() {
            Some('a') => "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
            Some('A') => "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)",
            Some('w') => "[0-6]",
            Some('d') => "(?:0[1-9]|[12][0-9]|3[01])",
            Some('b') => "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)",
            Some('B') => {
                "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
            }
            Some('m') => "(?:0[1-9]|1[0-2])",
            Some('Y') => r"\d{4}",
            Some('y') => r"\d{2}",
            Some('H') => "(?:[01][0-9]|2[0-3])",
            Some('I') => "(?:0[0-9]|1[0-2])",
            Some('p') => "[AP]M",
            Some('M' | 'S') => r"[0-5]\d",
            Some('f') => r"\d{6}",
            Some('z') => r"[+-]\d{4}",
            Some('Z') => "[A-Z]{1,4}T",
            Some('j') => "(?:[0-2][0-9][0-9]|3[0-5][0-9]|36[0-6])",
            Some('L') => r"\.\d{3}",
            _ => "",
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::options::of;
    use super::*;

    fn error(pairs: &[(&str, &str)]) -> String {
        let mut options = of(pairs);
        options.entry("awslogs-group".into()).or_insert("g".into());
        Settings::read(&options).unwrap_err()
    }

    #[test]
    fn a_group_is_all_it_needs_and_defaults_are_dockers() {
        assert_eq!(Settings::read(&of(&[])).unwrap_err(), "must specify a value for log opt 'awslogs-group'");
        let s = Settings::read(&of(&[("awslogs-group", "g")])).unwrap();
        assert!(
            s.create_stream && !s.create_group && s.flush == Duration::from_secs(5) && s.buffered == 4096
        );
    }

    #[test]
    fn bad_options_are_refused_in_dockers_words() {
        for (pairs, word) in [
            (
                &[("awslogs-stream-prefix", "x")][..],
                "unknown log opt 'awslogs-stream-prefix' for awslogs log driver",
            ),
            (&[("labels", "x")], "unknown log opt 'labels' for awslogs log driver"),
            (
                &[("awslogs-create-group", "yes")],
                "must specify valid value for log opt 'awslogs-create-group': strconv",
            ),
            (
                &[("awslogs-max-buffered-events", "0")],
                "must specify a positive integer for log opt 'awslogs-max-buffered-events': 0",
            ),
            (
                &[("awslogs-datetime-format", "%Y"), ("awslogs-multiline-pattern", "x")],
                "you cannot configure log opt 'awslogs-datetime-format' and",
            ),
            (&[("awslogs-format", "text")], "unsupported log format 'text'"),
            (
                &[("awslogs-format", "json/emf"), ("awslogs-datetime-format", "%Y")],
                "'awslogs-format' at the same time",
            ),
            (&[("awslogs-multiline-pattern", "(")], "awslogs could not parse multiline pattern key"),
        ] {
            assert!(error(pairs).contains(word), "{}", error(pairs));
        }
    }

    #[test]
    fn a_datetime_format_finds_times() {
        for (format, yes, no) in [
            ("%Y-%m-%d %H:%M:%S%L", "at 2026-11-25 23:59:01.123", "2026-13-25 23:59:01.123"),
            (r"\[%b %d, %Y %I:%M %p\]", "[Nov 25, 2026 11:10 PM]", "Nov 25, 2026 11:10 PM"),
            ("%a %j %z %Q", "Wed 366 +0100 ", "Wed 367 +0100 "),
        ] {
            let s =
                Settings::read(&of(&[("awslogs-group", "g"), ("awslogs-datetime-format", format)])).unwrap();
            let pattern = s.first_line.unwrap();
            assert!(pattern.is_match(yes) && !pattern.is_match(no), "{format}");
        }
    }
}
