//! Docker's log drivers, for the pipes of processes: what they write and send is what dockerd's would.
//!
//! ```text
//! pipe -> split -> ring (non-blocking) -> json-file | fluentd | awslogs | none
//! ```
//!
//! Enters: the streams of a container and its log options. Leaves: messages, byte for byte as docker's driver of that name
//! writes them. Can go wrong: an option that is none (docker's words), a receiver that is not there when the driver has to
//! reach it at the start; later trouble blocks or drops as docker does, and what was dropped is counted.

mod awslogs;
mod copy;
mod fluentd;
#[cfg(test)]
mod golden;
mod info;
mod json_file;
mod options;
mod ring;
mod split;
mod template;
mod words;

use std::sync::Arc;

pub use info::Info;
pub use options::Options;

pub(super) use copy::copy;
pub(super) use words::{Words, last_lines};

use crate::record::Time;
use crate::rt::Tasks;
use awslogs::Awslogs;
use fluentd::Fluentd;
use json_file::JsonFile;
use ring::Ring;
use template::{Bad, Template};

/// A line, or a part of one that is too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Without its newline.
    pub(super) line: Vec<u8>,
    pub(super) source: Source,
    /// When its line was first seen.
    pub(super) time: Time,
    pub(super) partial: Option<Partial>,
}

/// The stream that a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
        }
    }
}

/// Which part of a line a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partial {
    /// 64 hexadecimal digits, the same for all parts of a line.
    pub(super) id: Arc<str>,
    /// From 1.
    pub(super) ordinal: u64,
    pub(super) last: bool,
}

/// A driver at work for one container.
#[derive(Debug)]
pub(super) enum Driver {
    None,
    JsonFile(JsonFile),
    Fluentd(Fluentd),
    Awslogs(Awslogs),
    Ring(Ring),
}

/// Checks a driver's name and options without starting anything.
///
/// # Errors
/// In docker's words.
pub fn validate(driver: &str, options: &Options) -> Result<(), String> {
    if driver == "none" {
        return Ok(());
    }
    options::ring(options)?;
    match driver {
        "json-file" => json_file::Settings::read(options).map(drop),
        "fluentd" => fluentd::Settings::read(options).map(drop),
        "awslogs" => awslogs::Settings::read(options).map(drop),
        _ => Err(format!("logger: no log driver named '{driver}' is registered")),
    }?;
    // Docker reads it when the container starts, and then it fails.
    match options.get("tag").map(|tag| Template::new(tag)) {
        Some(Err(bad @ Bad::Wrong(_))) => Err(bad.text()),
        _ => Ok(()),
    }
}

/// Why a `tag` is one for dockerd and not for the drivers here, if it is such a one.
pub fn docker_only(tag: &str) -> Option<String> {
    Template::new(tag).err().filter(|bad| matches!(bad, Bad::DockerOnly(_))).map(Bad::text)
}

impl Driver {
    /// Starts a driver. Its tasks run in `tasks`, and may go on after [`Driver::close`] (`awslogs`).
    ///
    /// # Errors
    /// In docker's words: an option is none, or the receiver cannot be reached and the driver has to.
    pub(super) async fn start(
        driver: &str,
        options: &Options,
        info: &Info,
        tasks: &Tasks,
    ) -> Result<Driver, String> {
        validate(driver, options)?;
        let ring = if driver == "none" { None } else { options::ring(options)? };
        let plain = match driver {
            "json-file" => {
                Driver::JsonFile(JsonFile::open(&json_file::Settings::read(options)?, options, info)?)
            }
            "fluentd" => Driver::Fluentd(
                Fluentd::start(fluentd::Settings::read(options)?, options, info, tasks).await?,
            ),
            "awslogs" => {
                let settings = awslogs::Settings::read(options)?;
                Driver::Awslogs(Awslogs::start(settings, options, info, tasks, ring.is_some()).await?)
            }
            _ => Driver::None,
        };
        Ok(match ring {
            Some(bytes) => Driver::Ring(Ring::start(plain, bytes, tasks)),
            None => plain,
        })
    }

    /// The longest message.
    fn part(&self) -> usize {
        match self {
            Driver::Awslogs(_) => awslogs::EVENT_MAX,
            Driver::Ring(ring) => ring.part(),
            _ => split::PART,
        }
    }

    /// Takes a message. A blocking driver waits here until it is out.
    async fn log(&self, message: Message) {
        match self {
            Driver::None => {}
            Driver::JsonFile(file) => file.log(&message),
            Driver::Fluentd(fluentd) => fluentd.log(&message).await,
            Driver::Awslogs(awslogs) => awslogs.log(message).await,
            Driver::Ring(ring) => ring.log(message),
        }
    }

    /// No more comes. What is queued is sent or discarded, as docker does.
    pub(super) async fn close(&self) {
        match self {
            Driver::None => {}
            Driver::JsonFile(file) => file.close(),
            Driver::Fluentd(fluentd) => fluentd.close().await,
            Driver::Awslogs(awslogs) => awslogs.close(),
            Driver::Ring(ring) => ring.close().await,
        }
    }
}

/// 64 hexadecimal digits, as containers and parts of lines have.
pub(super) fn random_id() -> String {
    // Without randomness an id still is one: parts of a line follow one another.
    let bytes = crate::net::random::<32>().unwrap_or_default();
    crate::wire::sigv4::hex(&bytes)
}
