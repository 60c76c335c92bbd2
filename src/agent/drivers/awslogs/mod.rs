//! `awslogs`: docker's driver of that name.
//!
//! Enters: messages. Leaves: PutLogEvents calls, every 5 s or when a batch is full, one at a time; the log stream (and its
//! group, if asked to) is created at the start. Can go wrong: at the start, that the stream cannot be created (in
//! non-blocking mode it is tried on and on); later, that a call is refused: that batch is lost, as under docker, and counted.

mod api;
mod batch;
mod settings;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::{Info, Message, Options};
use crate::record::Time;
use crate::rt::Tasks;
use api::Api;
use batch::{Event, Gather};
pub(super) use settings::Settings;

/// The longest part of a line.
pub(super) const EVENT_MAX: usize = batch::EVENT_MAX;
/// The longest wait between two attempts to create the stream in non-blocking mode.
const LONGEST_WAIT: Duration = Duration::from_secs(32);

/// The driver of one container.
#[derive(Debug)]
pub(in crate::agent) struct Awslogs {
    messages: Mutex<Option<mpsc::Sender<Message>>>,
}

impl Awslogs {
    /// # Errors
    /// In docker's words: no region, or the stream cannot be created (unless in non-blocking mode).
    pub(super) async fn start(
        settings: Settings,
        options: &Options,
        info: &Info,
        tasks: &Tasks,
        non_blocking: bool,
    ) -> Result<Awslogs, String> {
        let stream = match &settings.stream {
            Some(stream) => stream.clone(),
            None => info.tag(options, "{{.FullID}}")?,
        };
        let api = Api::new(&settings).await?;
        let (to, messages) = mpsc::channel(settings.buffered);
        let writer = Writer { api, settings, stream, token: None, lost: 0 };
        if !non_blocking {
            writer.create().await?;
        }
        tasks.spawn("awslogs log driver", writer.run(messages, non_blocking));
        Ok(Awslogs { messages: Mutex::new(Some(to)) })
    }

    /// Waits while 4096 (`awslogs-max-buffered-events`) are waiting.
    pub(super) async fn log(&self, message: Message) {
        let to = self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(to) = to {
            // A writer that is gone has said why.
            let _gone = to.send(message).await;
        }
    }

    /// The writer sends what is left in its own time.
    pub(super) fn close(&self) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[derive(Debug)]
struct Writer {
    api: Api,
    settings: Settings,
    stream: String,
    token: Option<String>,
    lost: usize,
}

impl Writer {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>, create: bool) {
        if create {
            self.create_at_last(&messages).await;
        }
        let mut gather = Gather::new(self.settings.first_line.clone());
        let interval = i64::try_from(self.settings.flush.as_millis()).unwrap_or(i64::MAX);
        let mut tick =
            tokio::time::interval_at(tokio::time::Instant::now() + self.settings.flush, self.settings.flush);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let (full, ended) = tokio::select! {
                _ = tick.tick() => (gather.tick(Time::now().millis(), interval), false),
                message = messages.recv() => match message {
                    Some(m) => (gather.line(m.line, m.time.millis()), false),
                    None => (gather.end(), true),
                },
            };
            for events in full {
                self.put(&events).await;
            }
            if ended {
                break;
            }
        }
        if self.lost > 0 {
            tracing::error!(lost = self.lost, stream = %self.stream, "log events were lost");
        }
    }

    /// Tries until it works, or until the container has ended.
    async fn create_at_last(&self, messages: &mpsc::Receiver<Message>) {
        let mut wait = Duration::from_secs(1);
        while let Err(e) = self.create().await {
            tracing::error!(cause = %e, "trying on");
            if messages.is_closed() {
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn create(&self) -> Result<(), String> {
        if !self.settings.create_stream {
            return Ok(());
        }
        let group = self.settings.group.as_str();
        let failed = |e| format!("failed to create Cloudwatch log stream: {e}");
        match self.api.create_stream(group, &self.stream).await {
            Err(e) if e.name == "ResourceAlreadyExistsException" => Ok(()),
            Err(e) if e.name == "ResourceNotFoundException" && self.settings.create_group => {
                match self.api.create_group(group).await {
                    Err(e) if e.name != "ResourceAlreadyExistsException" => {
                        return Err(format!("failed to create Cloudwatch log group: {e}"));
                    }
                    _ => {}
                }
                match self.api.create_stream(group, &self.stream).await {
                    Err(e) if e.name != "ResourceAlreadyExistsException" => Err(failed(e)),
                    _ => Ok(()),
                }
            }
            result => result.map_err(failed),
        }
    }

    async fn put(&mut self, events: &[Event]) {
        let names = (self.settings.group.as_str(), self.stream.as_str());
        let mut result = self.api.put(names, events, self.token.as_deref()).await;
        if let Err(e) = &result
            && e.name == "InvalidSequenceTokenException"
        {
            let expected = e.expected.clone();
            result = self.api.put(names, events, expected.as_deref()).await;
        }
        match result {
            Ok(token) => self.token = token,
            Err(e) if e.name == "DataAlreadyAcceptedException" => self.token = e.expected,
            Err(e) => {
                self.lost += events.len();
                tracing::error!(group = names.0, stream = names.1, events = events.len(), cause = %e, "Failed to put log events");
            }
        }
    }
}

#[cfg(test)]
mod tests;
