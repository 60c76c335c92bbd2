//! The keys of the input, read.
//!
//! Enters: settings. Leaves: what the input works with. Can go wrong: a number out of its range, a tag with fields that
//! no call has, access for everybody on an address that others reach; every message names its key.

use std::time::Duration;

use super::access::{Access, Credentials, read_file};
use super::body::Limits;
use super::tag::TagTemplate;
use crate::config::{Diagnostics, Settings as Section};

/// What a running input needs of them.
pub(super) struct Settings {
    pub(super) tag: TagTemplate,
    pub(super) group_key: String,
    pub(super) stream_key: String,
    pub(super) create_on_put: bool,
    pub(super) accept_any_time: bool,
    /// How long an answer may be put off.
    pub(super) hold_max: Duration,
    pub(super) body: Limits,
    pub(super) header_timeout: Duration,
    pub(super) max_groups: usize,
    pub(super) max_streams: usize,
    /// Events kept for reading, and their bytes.
    pub(super) window: usize,
    pub(super) window_bytes: usize,
}

impl Settings {
    /// `None` after an error.
    pub(super) fn read(s: &Section, diags: &mut Diagnostics) -> Option<Settings> {
        let group_key = s.str("group_key").unwrap_or("log_group").to_owned();
        let stream_key = s.str("stream_key").unwrap_or("log_stream").to_owned();
        let tag = TagTemplate::new(s.str("tag"), &group_key, &stream_key);
        let tag = tag.map_err(|e| s.error(diags, "tag", e)).ok();
        let count = |key: &str, least: i64, most: i64, diags: &mut Diagnostics| match s.int(key) {
            Some(n) if (least..=most).contains(&n) => Some(n as usize),
            _ => {
                s.error(diags, key, format!("{key} is a whole number from {least} to {most}"));
                None
            }
        };
        let max_groups = count("max_groups", 1, 1_000_000, diags);
        let max_streams = count("max_streams", 1, 1_000_000, diags);
        let window = count("window", 0, 10_000_000, diags);
        let size = |key: &str, least: u64, diags: &mut Diagnostics| match s.size(key) {
            Some(n) if (least..=1 << 30).contains(&n) => Some(n as usize),
            _ => {
                s.error(diags, key, format!("{key} is a size from {least} to 1G"));
                None
            }
        };
        let max_body = size("max_body", 1024, diags);
        let window_bytes = size("window_size", 0, diags);
        let time = |key: &str, diags: &mut Diagnostics| match s.time(key) {
            Some(t) if !t.is_zero() => Some(t),
            _ => {
                s.error(diags, key, format!("{key} is a time of at least one second"));
                None
            }
        };
        let hold_max = time("hold_max", diags);
        let header_timeout = time("header_timeout", diags);
        let body_timeout = time("body_timeout", diags);
        Some(Settings {
            tag: tag?,
            group_key,
            stream_key,
            create_on_put: s.bool("create_on_put"),
            accept_any_time: s.bool("accept_any_time"),
            hold_max: hold_max?,
            body: Limits { bytes: max_body?, time: body_timeout? },
            header_timeout: header_timeout?,
            max_groups: max_groups?,
            max_streams: max_streams?,
            window: window?,
            window_bytes: window_bytes?,
        })
    }
}

/// Who may call. The outer `None` is an error, the inner one everybody.
#[allow(clippy::option_option, reason = "refused, or everybody, or some")]
pub(super) fn access(s: &Section, is_local: bool, diags: &mut Diagnostics) -> Option<Option<Access>> {
    match s.str("auth").unwrap_or("sigv4").to_ascii_lowercase().as_str() {
        "none" if is_local || s.bool("allow_remote_without_auth") => return Some(None),
        "none" => {
            let message = "everybody who reaches this address could write: set Listen 127.0.0.1, or use sigv4, or say \
                           allow_remote_without_auth on";
            s.error(diags, "auth", message);
            return None;
        }
        "sigv4" => {}
        other => {
            s.error(diags, "auth", format!("\"{other}\" is no way to authenticate; use sigv4 or none"));
            return None;
        }
    }
    let mut keys = Vec::new();
    match (s.str("access_key_id"), s.str("secret_access_key")) {
        (Some(id), Some(secret)) => keys.push(Credentials {
            id: id.to_owned(),
            secret: secret.to_owned(),
            token: s.str("session_token").map(str::to_owned),
        }),
        (None, None) => {}
        (Some(_), None) => {
            s.error(diags, "access_key_id", "Secret_Access_Key is missing");
            return None;
        }
        (None, Some(_)) => {
            s.error(diags, "secret_access_key", "Access_Key_Id is missing");
            return None;
        }
    }
    if let Some(path) = s.str("credentials_file") {
        let read = std::fs::read_to_string(path).map_err(|e| e.to_string()).and_then(|text| read_file(&text));
        match read {
            Ok(more) => keys.extend(more),
            Err(e) => {
                s.error(diags, "credentials_file", format!("cannot use {path}: {e}"));
                return None;
            }
        }
    }
    if keys.is_empty() {
        let message = "nobody could write: set Access_Key_Id and Secret_Access_Key, or Credentials_File, or Auth none \
                       on a loopback address or a unix socket";
        s.error(diags, "auth", message);
        return None;
    }
    Some(Some(Access::new(keys, s.time("max_clock_skew").unwrap_or(Duration::from_secs(300)))))
}
