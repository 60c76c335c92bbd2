//! Delivery reports on their way from librdkafka's thread to the output.
//!
//! Enters: a report for each message, and what librdkafka says of the brokers. Leaves: deliveries whose messages have all
//! been reported, and those messages that failed. Bounded by what is in librdkafka's queue. Can go wrong: nothing; every
//! message that was taken is reported once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::Notify;

use crate::net::kafka::Trouble;

/// A message that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The delivery it is of.
    pub(super) parcel: u32,
    /// Which of its records.
    pub(super) index: u32,
    pub(super) code: Code,
}

/// What has come since the last look.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Deliveries of which nothing is out any more, and how many of their messages have arrived.
    pub(super) done: Vec<(u32, u64)>,
    pub(super) failed: Vec<Failure>,
    /// The last telling thing that librdkafka said of the brokers, else the last.
    pub(super) trouble: Option<Trouble>,
    /// The producer will send no more.
    pub(super) fatal: Option<String>,
    /// Messages have arrived after the last trouble.
    pub(super) arrived: bool,
    /// Messages that are out.
    pub(super) out: u64,
}

#[derive(Debug, Default)]
struct State {
    /// For each delivery: messages that are out, and that have arrived since it was last told.
    parcels: Vec<(u64, u64)>,
    news: News,
}

/// What both threads hold.
#[derive(Debug, Default)]
pub(super) struct Reports {
    state: Mutex<State>,
    /// Notified when there is something to look at.
    pub(super) changed: Arc<Notify>,
}

/// A delivery and one of its records, in the word that goes with a message.
pub(super) fn opaque(parcel: u32, index: u32) -> usize {
    (parcel as usize) << 32 | index as usize
}

impl Reports {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing can leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many messages of a delivery are about to be sent.
    pub(super) fn expect(&self, parcel: u32, messages: u64) {
        let mut state = self.state();
        let at = parcel as usize;
        if state.parcels.len() <= at {
            state.parcels.resize(at + 1, (0, 0));
        }
        if let Some(entry) = state.parcels.get_mut(at) {
            entry.0 += messages;
        }
        state.news.out += messages;
    }

    /// So many of them were not sent after all.
    pub(super) fn unexpect(&self, parcel: u32, messages: u64) {
        if messages > 0 {
            self.state().gone(parcel, messages, 0);
            self.changed.notify_one();
        }
    }

    /// The report of one message.
    pub(super) fn report(&self, opaque: usize, result: Result<(), Code>) {
        let (parcel, index) = ((opaque >> 32) as u32, opaque as u32);
        let mut state = self.state();
        let tell = match result {
            Ok(()) => {
                state.news.arrived = true;
                state.gone(parcel, 1, 1)
            }
            Err(code) => {
                state.news.failed.push(Failure { parcel, index, code });
                state.gone(parcel, 1, 0);
                true
            }
        };
        drop(state);
        if tell {
            self.changed.notify_one();
        }
    }

    /// The brokers cannot be reached, or refuse us.
    pub(super) fn trouble(&self, trouble: Trouble) {
        let mut state = self.state();
        let news = &mut state.news;
        // Of trouble that is over by now nobody needs to hear.
        let known = news.trouble.take().filter(|known| !news.arrived && known.tells_more_than(&trouble));
        news.trouble = Some(known.unwrap_or(trouble));
        news.arrived = false;
        drop(state);
        self.changed.notify_one();
    }

    /// The producer has given up.
    pub(super) fn fatal(&self, cause: String) {
        let known = self.state().news.fatal.replace(cause).is_some();
        if !known {
            self.changed.notify_one();
        }
    }

    /// What has come since the last call.
    pub(super) fn take(&self) -> News {
        let mut state = self.state();
        let out = state.news.out;
        let next = News { out, fatal: state.news.fatal.clone(), ..News::default() };
        std::mem::replace(&mut state.news, next)
    }

    /// Whether nothing is out.
    pub(super) fn is_empty(&self) -> bool {
        self.state().news.out == 0
    }
}

impl State {
    /// Says whether that was the last message of its delivery.
    fn gone(&mut self, parcel: u32, messages: u64, arrived: u64) -> bool {
        self.news.out = self.news.out.saturating_sub(messages);
        let Some(entry) = self.parcels.get_mut(parcel as usize) else { return false };
        entry.0 = entry.0.saturating_sub(messages);
        entry.1 += arrived;
        if entry.0 > 0 {
            return false;
        }
        let arrived = std::mem::take(&mut entry.1);
        self.news.done.push((parcel, arrived));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_done_when_the_last_of_its_messages_is_reported() {
        let reports = Reports::default();
        reports.expect(3, 3);
        reports.report(opaque(3, 0), Ok(()));
        reports.report(opaque(3, 2), Err(Code::MessageSizeTooLarge));
        let news = reports.take();
        assert_eq!((news.done.len(), news.out, news.arrived), (0, 1, true));
        assert_eq!(news.failed, [Failure { parcel: 3, index: 2, code: Code::MessageSizeTooLarge }]);
        reports.report(opaque(3, 1), Ok(()));
        let news = reports.take();
        assert_eq!((news.done, news.out), (vec![(3, 2)], 0));
        assert!(reports.take().done.is_empty() && reports.is_empty());
    }

    #[test]
    fn what_was_not_sent_is_not_waited_for() {
        let reports = Reports::default();
        reports.expect(0, 5);
        reports.report(opaque(0, 0), Ok(()));
        reports.unexpect(0, 4);
        assert_eq!(reports.take().done, [(0, 1)]);
        reports.expect(0, 4);
        assert_eq!(reports.take().out, 4);
    }

    fn trouble(cause: &str, telling: bool) -> Trouble {
        Trouble { cause: cause.to_owned(), telling }
    }

    #[test]
    fn why_brokers_cannot_be_reached_is_not_hidden_by_that_they_cannot() {
        let reports = Reports::default();
        for (cause, telling) in [("away", false), ("refused", true), ("away", false)] {
            reports.trouble(trouble(cause, telling));
        }
        assert_eq!(reports.take().trouble, Some(trouble("refused", true)));
        // Unless messages have arrived between them.
        reports.expect(0, 1);
        reports.trouble(trouble("refused", true));
        reports.report(opaque(0, 0), Ok(()));
        reports.trouble(trouble("away", false));
        assert_eq!(reports.take().trouble, Some(trouble("away", false)));
    }

    #[test]
    fn trouble_is_over_when_something_arrives_after_it() {
        let reports = Reports::default();
        reports.expect(0, 2);
        reports.report(opaque(0, 0), Ok(()));
        reports.trouble(trouble("away", false));
        let news = reports.take();
        assert_eq!((news.trouble, news.arrived), (Some(trouble("away", false)), false));
        reports.report(opaque(0, 1), Ok(()));
        assert!(reports.take().arrived);
    }
}
