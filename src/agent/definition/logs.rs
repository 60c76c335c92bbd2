//! Where a container's output goes: `logConfiguration` and `firelensConfiguration`.
//!
//! Enters: their objects. Leaves: what they say. Can go wrong: what ECS refuses, and options that docker's driver does not
//! take, in docker's words; what ECS passes over in silence is a warning.

use super::container::secrets;
use super::json::{CLIENT, Object};
use super::model::{FirelensConfiguration, LogConfiguration};
use super::read::is_placeholder;
use crate::agent::drivers::{self, Options};
use crate::config::nearest;

/// Drivers that ECS takes.
const DRIVERS: &[&str] = &[
    "awslogs",
    "awsfirelens",
    "fluentd",
    "gelf",
    "journald",
    "json-file",
    "splunk",
    "syslog",
    "none",
    "logentries",
];
const FARGATE_DRIVERS: &[&str] = &["awslogs", "awsfirelens", "splunk"];
/// Drivers of which firelane has its own.
const OURS: &[&str] = &["awslogs", "fluentd", "json-file", "none"];
/// `log-driver-buffer-limit`; AWS calls it bytes.
const BUFFER_MAX: u64 = 536_870_912;
/// So many complaints of a driver are heard.
const COMPLAINTS_MAX: usize = 50;
/// Options of `firelensConfiguration` that the ECS agent knows.
const FIRELENS: &[&str] = &["enable-ecs-log-metadata", "config-file-type", "config-file-value"];
/// Go's ParseBool.
const BOOLS: &[&str] = &["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];

/// Whether it is the ARN of an object of S3.
pub(super) fn is_object(text: &str) -> bool {
    let key = text.strip_prefix("arn:").and_then(|rest| rest.split_once(":s3:::")).map(|(_, key)| key);
    key.and_then(|key| key.split_once('/')).is_some_and(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
}

pub(super) fn log_configuration(o: Object<'_>, fargate: bool) -> LogConfiguration {
    if !o.has("logDriver") {
        o.notes.error(CLIENT, o.at("logDriver"), "must be given");
    }
    let drivers = if fargate { FARGATE_DRIVERS } else { DRIVERS };
    let log_driver = o.one_of("logDriver", drivers).unwrap_or_default().to_owned();
    let log = LogConfiguration {
        log_driver,
        options: o.map("options"),
        secret_options: secrets(&o, "secretOptions"),
    };
    match log.log_driver.as_str() {
        "awslogs" => {
            if !has_group(&log.options) {
                o.notes.error(CLIENT, o.at("options"), "awslogs needs awslogs-group");
            }
            if fargate && !log.options.contains_key("awslogs-stream-prefix") {
                o.notes.error(CLIENT, o.at("options"), "awslogs needs awslogs-stream-prefix on Fargate");
            }
        }
        "awsfirelens" => {
            if let Some(limit) = log.options.get("log-driver-buffer-limit")
                && !limit.parse().is_ok_and(|n: u64| n <= BUFFER_MAX)
            {
                let at = o.at("options.log-driver-buffer-limit");
                let text = format!("must be a whole number of at most {BUFFER_MAX}, not {limit:?}");
                o.notes.error(CLIENT, at, text);
            }
        }
        _ => {}
    }
    if OURS.contains(&log.log_driver.as_str()) {
        options(&o, &log);
        if let Some(why) = log.options.get("tag").and_then(|tag| drivers::docker_only(tag)) {
            let text = format!("works with the docker runtime only: {why}");
            o.notes.warn(o.at("options.tag"), text);
        }
    } else if !log.log_driver.is_empty() && log.log_driver != "awsfirelens" {
        let text = format!(
            "{} is a log driver of Docker's: it works with the docker runtime only, and its options are not checked",
            log.log_driver
        );
        o.notes.warn(o.at("logDriver"), text);
    }
    o.finish();
    log
}

/// Asks the driver what it thinks of the options: each complaint stands at the option that it names.
fn options(o: &Object<'_>, log: &LogConfiguration) {
    let mut options: Options = log.options.clone();
    if log.log_driver == "awslogs" {
        // For ECS, which makes the stream's name of it; its default mode is its own, too.
        options.remove("awslogs-stream-prefix");
        options.entry("mode".to_owned()).or_insert_with(|| "non-blocking".to_owned());
        // That it is missing has been said.
        if !has_group(&options) {
            options.insert("awslogs-group".to_owned(), "group".to_owned());
        }
    }
    // What whoever uses the file puts in is not judged; that the driver has such an option is.
    let is_blank = |text: &str| text.starts_with('<') && text.ends_with('>') || text.contains("${");
    for _ in 0..COMPLAINTS_MAX {
        let Err(text) = drivers::validate(&log.log_driver, &options) else { break };
        let Some(name) = guilty(&log.log_driver, &options, &text) else {
            o.notes.error(CLIENT, o.at("options"), text);
            break;
        };
        let value = options.remove(&name).unwrap_or_default();
        if !is_blank(&value) || text.starts_with("unknown log opt") {
            o.notes.error(CLIENT, o.at(&format!("options.{name}")), text);
        }
    }
}

/// Whether `awslogs` is told a group.
fn has_group(options: &Options) -> bool {
    options.get("awslogs-group").is_some_and(|group| !group.is_empty())
}

/// Whether a text has a name as a word of its own: `max-size` is not in `awslogs-max-size`.
fn names(text: &str, name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (text.get(..at), text.get(at + name.len()..));
        !before.is_some_and(|b| b.ends_with(inside)) && !after.is_some_and(|a| a.starts_with(inside))
    })
}

/// The option that a complaint is about: without it there is another complaint, or none. A complaint may name several, and
/// hold values in which there are names, too: the longest name among them is meant.
fn guilty(driver: &str, options: &Options, text: &str) -> Option<String> {
    let without = |name: &&String| {
        let mut rest = options.clone();
        rest.remove(*name);
        drivers::validate(driver, &rest).err().as_deref() != Some(text)
    };
    // Without a group awslogs always complains of that: it has one here, so that nothing is wrong with it.
    let suspects = || options.keys().filter(|name| driver != "awslogs" || *name != "awslogs-group");
    let mut named: Vec<&String> =
        suspects().filter(|name| !name.is_empty() && names(text, name)).take(COMPLAINTS_MAX).collect();
    named.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let first = named.first().copied();
    let found = named.into_iter().find(|name| without(name));
    found.or(first).or_else(|| suspects().take(COMPLAINTS_MAX).find(|name| without(name))).cloned()
}

pub(super) fn firelens(o: Object<'_>, fargate: bool) -> FirelensConfiguration {
    if !o.has("type") {
        o.notes.error(CLIENT, o.at("type"), "must be given");
    }
    let kind = o.one_of("type", &["fluentbit", "fluentd"]).unwrap_or_default().to_owned();
    let f = FirelensConfiguration { r#type: kind, options: o.map("options") };
    let at = |name: &str| o.at(&format!("options.{name}"));
    let option = |name: &str| f.options.get(name).map(String::as_str);
    let value = option("config-file-value");
    match option("config-file-type") {
        None if value.is_some() => {
            let text = "has no effect: ECS passes over it where config-file-type (s3 or file) is not set";
            o.notes.warn(at("config-file-value"), text);
        }
        None | Some("file") => {}
        Some("s3") => {
            // RegisterTaskDefinition takes it; RunTask does not.
            if fargate {
                let text = "Fargate takes only file: ECS will say that the platform does not satisfy the task \
                            definition's required capabilities";
                o.notes.warn(at("config-file-type"), text);
            }
            if !value.is_none_or(|v| is_placeholder(v) || is_object(v)) {
                let text = "must be the ARN of an S3 object: arn:aws:s3:::bucket/key";
                o.notes.error(CLIENT, at("config-file-value"), text);
            }
        }
        Some(other) => {
            o.notes.error(CLIENT, at("config-file-type"), format!("must be s3 or file, not {other:?}"));
        }
    }
    if option("config-file-type").is_some() && value.is_none_or(str::is_empty) {
        o.notes.error(CLIENT, at("config-file-value"), "must be given where config-file-type is");
    }
    if let Some(flag) = option("enable-ecs-log-metadata").filter(|flag| !BOOLS.contains(flag)) {
        o.notes.warn(
            at("enable-ecs-log-metadata"),
            format!("{flag:?} is neither true nor false: ECS takes it as false"),
        );
    }
    for name in f.options.keys().filter(|name| !FIRELENS.contains(&name.as_str())) {
        let near = nearest(name, FIRELENS.iter().copied());
        let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        o.notes.warn(at(name), format!("has no effect: the ECS agent has no such option{hint}"));
    }
    o.finish();
    f
}

/// The agent gives the socket's directory to the router's user, and so needs its number.
pub(super) fn router_user(o: &Object<'_>, user: Option<&str>) {
    let Some(user) = user.filter(|user| !is_placeholder(user)) else { return };
    let id = user.split(':').next().unwrap_or_default();
    if id.parse::<u32>().is_err() {
        let text =
            format!("the user of a log router must be UID, UID:GID or UID:GROUP with a number, not {user:?}");
        o.notes.error(CLIENT, o.at("user"), text);
    }
}
