//! The keys of both plugins, read and checked.

use std::time::Duration;

use aws_sdk_cloudwatchlogs::types::LogGroupClass;

use super::CloudWatch;
use super::api::Creation;
use super::message::{Message, Oversize, TRUNCATED, is_format};
use super::names::{Kind, Name};
use crate::config::{Diagnostics, Settings};
use crate::net::{AwsOptions, HttpOptions, Proxies, random};
use crate::outputs::peer::{client_tls, net};
use crate::outputs::{BuildContext, Output};
use crate::wire::json::Json;

/// How long an answer may take unless `net.io_timeout` is set. Longer than the 20 s for which firelane's own input holds an
/// answer back.
const ANSWER: Duration = Duration::from_secs(60);
/// What CloudWatch keeps logs for, in days.
const RETENTIONS: [i64; 23] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
    0,
];
/// Longest message that may be configured, and shortest: a cut one has to hold its ending.
const EVENT_MAX: i64 = 1_000_000;
const EVENT_MIN: i64 = 64;

type Built = Option<Box<dyn Output>>;

/// What `build` works with.
struct Reading<'a> {
    s: &'a Settings,
    cx: &'a BuildContext,
    diags: &'a mut Diagnostics,
}

pub(super) fn build_logs(s: &Settings, cx: &BuildContext, diags: &mut Diagnostics) -> Built {
    let mut r = Reading { s, cx, diags };
    let names = r.logs_names()?;
    r.build(names)
}

pub(super) fn build_go(s: &Settings, cx: &BuildContext, diags: &mut Diagnostics) -> Built {
    if std::env::var_os("SEND_FAILURE_TIMEOUT").is_some() {
        diags.warn(
            Some(s.pos()),
            "[OUTPUT] cloudwatch: SEND_FAILURE_TIMEOUT has no effect, the output keeps trying; Retry_Limit and retry.max_age give up",
        );
    }
    let mut r = Reading { s, cx, diags };
    let names = r.go_names()?;
    r.build(names)
}

impl Reading<'_> {
    fn error<T>(&mut self, key: &str, message: impl std::fmt::Display) -> Option<T> {
        self.s.error(self.diags, key, message);
        None
    }

    fn text(&self, key: &str) -> Option<String> {
        self.s.str(key).map(str::to_owned)
    }

    fn required(&mut self, key: &str) -> Option<String> {
        match self.text(key) {
            Some(text) => Some(text),
            None => self.error(key, format_args!("{key} is not set")),
        }
    }

    fn logs_names(&mut self) -> Option<(Name, Name)> {
        let group = self.checked("log_group_name", |text| Name::fixed(Kind::Group, text))?;
        let stream = match (self.text("log_stream_name"), self.text("log_stream_prefix")) {
            (Some(_), None) => self.checked("log_stream_name", |text| Name::fixed(Kind::Stream, text))?,
            (None, Some(_)) => {
                self.checked("log_stream_prefix", |text| Name::prefixed(Kind::Stream, text))?
            }
            (None, None) => {
                return self.error("log_stream_name", "set log_stream_name or log_stream_prefix");
            }
            (Some(_), Some(_)) => {
                return self
                    .error("log_stream_prefix", "log_stream_name and log_stream_prefix exclude one another");
            }
        };
        let group = self.template("log_group_template", Kind::Group, group)?;
        let stream = self.template("log_stream_template", Kind::Stream, stream)?;
        Some((group, stream))
    }

    /// A name made of what a key says, if CloudWatch can take it.
    fn checked(&mut self, key: &str, make: impl FnOnce(&str) -> Name) -> Option<Name> {
        let text = self.required(key)?;
        if key != "log_group_name" && text.contains("$(") {
            self.diags.strict(
                Some(self.s.pos_of(key)),
                format!("$(...) in {key} is for the plugin cloudwatch"),
                "it is taken as it is written; use log_stream_template, or Name cloudwatch",
            );
        }
        let name = make(&text);
        match name.check() {
            Ok(()) => Some(name),
            Err(e) => self.error(key, e),
        }
    }

    fn template(&mut self, key: &str, kind: Kind, fallback: Name) -> Option<Name> {
        let Some(text) = self.text(key) else { return Some(fallback) };
        match Name::template(kind, &text, fallback) {
            Ok(name) => Some(name),
            Err(e) => self.error(key, format_args!("bad template \"{text}\": {e}")),
        }
    }

    fn go_names(&mut self) -> Option<(Name, Name)> {
        let uuid = match uuid() {
            Ok(uuid) => uuid,
            Err(e) => return self.error("log_stream_name", e),
        };
        let group = self.required("log_group_name")?;
        let (key, stream) = match (self.text("log_stream_name"), self.text("log_stream_prefix")) {
            (Some(name), None) => ("log_stream_name", name),
            (None, Some(prefix)) => ("log_stream_prefix", format!("{prefix}$(tag)")),
            (None, None) => {
                return self.error("log_stream_name", "set log_stream_name or log_stream_prefix");
            }
            (Some(_), Some(_)) => {
                return self
                    .error("log_stream_prefix", "log_stream_name and log_stream_prefix exclude one another");
            }
        };
        let group = self.dollars("log_group_name", Kind::Group, &group, "default_log_group_name", &uuid)?;
        let stream = self.dollars(key, Kind::Stream, &stream, "default_log_stream_name", &uuid)?;
        Some((group, stream))
    }

    fn dollars(&mut self, key: &str, kind: Kind, text: &str, default: &str, uuid: &str) -> Option<Name> {
        let default = self.text(default).unwrap_or_default();
        match Name::dollars(kind, text, &default, uuid).and_then(|name| name.check().map(|()| name)) {
            Ok(name) => Some(name),
            Err(e) => self.error(key, format_args!("bad name \"{text}\": {e}")),
        }
    }

    fn build(&mut self, (group, stream): (Name, Name)) -> Built {
        let region = self.required("region")?;
        let message = self.message()?;
        let creation = self.creation()?;
        let gzip = match self.s.str("compress").unwrap_or("off").to_ascii_lowercase().as_str() {
            "off" | "none" => false,
            "gzip" => true,
            other => {
                return self
                    .error("compress", format_args!("unknown compression \"{other}\", use off or gzip"));
            }
        };
        let net = net(self.s, self.diags)?;
        let tls = client_tls(self.s, self.s.bool("tls.verify_hostname"), self.diags)?;
        let endpoint = self.endpoint(&region)?;
        let proxies = self.proxies()?;
        Some(Box::new(CloudWatch {
            group,
            stream,
            message,
            creation,
            format: self.format()?,
            gzip,
            aws: AwsOptions {
                region,
                endpoint,
                profile: self.text("profile"),
                role_arn: self.text("role_arn"),
                external_id: self.text("external_id"),
                sts_endpoint: self.text("sts_endpoint").map(|e| address(&e, true)),
                credentials_endpoint: self.text("credentials_endpoint").map(|e| address(&e, false)),
            },
            http: HttpOptions {
                tls,
                proxies,
                connect: net.connect,
                answer: net.io.unwrap_or(ANSWER),
                source: net.source,
                keepalive: net.keepalive,
                idle: net.idle,
                recycle: net.recycle,
                user_agent: self.text("extra_user_agent"),
            },
            linger: self.cx.flush,
            retry: self.cx.retry,
        }))
    }

    fn format(&mut self) -> Option<Option<String>> {
        let Some(format) = self.text("log_format") else { return Some(None) };
        if !is_format(format.as_bytes()) {
            return self.error(
                "log_format",
                format_args!("\"{}\" cannot stand in a header, use json/emf", format.escape_debug()),
            );
        }
        if format != "json/emf" {
            self.diags.strict(
                Some(self.s.pos_of("log_format")),
                format!("log_format \"{format}\" is none that CloudWatch has"),
                "it is sent as it is; json/emf makes metrics of records",
            );
        }
        Some(Some(format))
    }

    fn proxies(&mut self) -> Option<Proxies> {
        if self.s.bool("net.proxy_env_ignore") {
            return Some(Proxies::default());
        }
        match Proxies::from_env() {
            Ok(proxies) => Some(proxies),
            Err(why) => self.error("name", format_args!("{why}, or set net.proxy_env_ignore on")),
        }
    }

    fn message(&mut self) -> Option<Message> {
        let oversize = match self.s.str("oversize_events").unwrap_or("split").to_ascii_lowercase().as_str() {
            "split" => Oversize::Split,
            "truncate" => Oversize::Truncate,
            other => {
                return self.error(
                    "oversize_events",
                    format_args!("unknown choice \"{other}\", use split, or truncate ({TRUNCATED})"),
                );
            }
        };
        let limit = self.s.int("max_event_size").unwrap_or(EVENT_MAX);
        if !(EVENT_MIN..=EVENT_MAX).contains(&limit) {
            return self.error("max_event_size", format_args!("it is from {EVENT_MIN} to {EVENT_MAX} bytes"));
        }
        Some(Message {
            key: self.s.str("log_key").map(|key| key.as_bytes().into()),
            json: Json { escape_unicode: self.cx.escape_unicode },
            limit: limit as usize,
            oversize,
        })
    }

    fn creation(&mut self) -> Option<Creation> {
        let days = self.s.int("log_retention_days").unwrap_or(0);
        let known = RETENTIONS.contains(&days);
        if !known {
            self.diags.strict(
                Some(self.s.pos_of("log_retention_days")),
                format!("log_retention_days {days} is none that CloudWatch has"),
                "groups are created without a retention; use 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653",
            );
        }
        let class = match self.s.str("log_group_class").map(str::to_ascii_uppercase).as_deref() {
            None => None,
            Some("STANDARD") => Some(LogGroupClass::Standard),
            Some("INFREQUENT_ACCESS") => Some(LogGroupClass::InfrequentAccess),
            Some(other) => {
                return self.error(
                    "log_group_class",
                    format_args!("unknown class \"{other}\", use STANDARD or INFREQUENT_ACCESS"),
                );
            }
        };
        let mut tags = Vec::new();
        for tag in
            self.s.str("new_log_group_tags").unwrap_or_default().split(',').filter(|t| !t.trim().is_empty())
        {
            let Some((key, value)) = tag.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
                return self.error("new_log_group_tags", format_args!("\"{tag}\" is not key=value"));
            };
            if key.trim().to_ascii_lowercase().starts_with("aws:") {
                return self.error(
                    "new_log_group_tags",
                    format_args!("\"{tag}\": AWS keeps names that begin with aws: for itself"),
                );
            }
            tags.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        Some(Creation {
            groups: self.s.bool("auto_create_group"),
            streams: self.s.bool("auto_create_stream"),
            retention: i32::try_from(days).ok().filter(|days| known && *days > 0),
            class,
            tags,
        })
    }

    /// Where the service is; `None`: where the region has it.
    fn endpoint(&mut self, region: &str) -> Option<Option<String>> {
        let tls = self.s.bool("tls");
        let port = match self.s.int("port") {
            None => None,
            Some(port) if (1..=65535).contains(&port) => Some(port),
            Some(_) => return self.error("port", "a port is a number from 1 to 65535"),
        };
        let text = match self.text("endpoint") {
            Some(text) => text,
            None if tls && port.is_none() => return Some(None),
            None if region.starts_with("cn-") => format!("logs.{region}.amazonaws.com.cn"),
            None => format!("logs.{region}.amazonaws.com"),
        };
        let whole = address(&text, tls);
        let Ok(uri) = whole.parse::<http::Uri>() else {
            return self.error("endpoint", format_args!("\"{text}\" is no address"));
        };
        let Some(host) = uri.host() else {
            return self.error("endpoint", format_args!("\"{text}\" names no host"));
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return self.error("endpoint", format_args!("\"{text}\" is neither http:// nor https://"));
        }
        let whole = match (uri.port_u16(), port) {
            (None, Some(port)) => {
                format!("{}://{host}:{port}{}", uri.scheme_str().unwrap_or("https"), uri.path())
            }
            _ => whole,
        };
        Some(Some(whole.trim_end_matches('/').to_owned()))
    }
}

/// An address with its scheme.
fn address(text: &str, tls: bool) -> String {
    match text.contains("://") {
        true => text.to_owned(),
        false => format!("{}://{text}", if tls { "https" } else { "http" }),
    }
}

/// A random UUID, for `$(uuid)`: one for each output and start.
fn uuid() -> Result<String, String> {
    let mut bytes = random::<16>()?;
    // Version 4, the variant of RFC 9562.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let n = u128::from_be_bytes(bytes);
    let part = |shift: u32, digits: u32| (n >> shift) & ((1 << (4 * digits)) - 1);
    let (a, b, c, d, e) = (part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12));
    Ok(format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}"))
}
