//! What the server does wrong when told to, and to which calls.

use std::time::Duration;

use super::rules::Asked;

/// What happens instead of the right answer, or before it.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// An error; nothing is stored.
    Error { status: u16, name: &'static str, retry_after: Option<u64> },
    /// Something that is not from AWS: a captive page, a proxy's complaint. Nothing is stored.
    Html(u16),
    /// The connection is reset when the head has come; nothing is stored. Knows only the operation.
    ResetBeforeBody,
    /// The connection is reset when the body has come; nothing is stored.
    Reset,
    /// The events are stored, and the connection is reset.
    ResetAfter,
    /// No answer, ever; nothing is stored.
    Hang,
    /// The events are stored, and no answer comes.
    HangAfter,
    /// The right answer, later.
    Slow(Duration),
    /// 200, but events before `too_old` and before `expired`, and those from `too_new` on, are not stored.
    Rejected { too_old: Option<usize>, expired: Option<usize>, too_new: Option<usize> },
    /// Somebody deletes the group, and the call meets what is left.
    DeleteGroup,
    /// Somebody deletes the stream.
    DeleteStream,
}

impl Answer {
    const fn error(status: u16, name: &'static str) -> Answer {
        Answer::Error { status, name, retry_after: None }
    }

    pub(crate) const THROTTLING: Answer = Answer::error(400, "ThrottlingException");
    pub(crate) const LIMIT_EXCEEDED: Answer = Answer::error(400, "LimitExceededException");
    pub(crate) const TOO_MANY: Answer =
        Answer::Error { status: 429, name: "TooManyRequestsException", retry_after: Some(1) };
    pub(crate) const INTERNAL: Answer = Answer::error(500, "InternalFailure");
    pub(crate) const UNAVAILABLE: Answer = Answer::error(503, "ServiceUnavailableException");
    pub(crate) const ABORTED: Answer = Answer::error(400, "OperationAbortedException");
    pub(crate) const EXPIRED: Answer = Answer::error(400, "ExpiredTokenException");
    pub(crate) const UNRECOGNIZED: Answer = Answer::error(400, "UnrecognizedClientException");
    pub(crate) const DENIED: Answer = Answer::error(400, "AccessDeniedException");
    pub(crate) const INVALID: Answer = Answer::error(400, "InvalidParameterException");
}

type Condition = Box<dyn Fn(&Asked) -> bool + Send>;

/// Which calls get an answer.
pub(crate) struct Rule {
    operation: &'static str,
    conditions: Vec<Condition>,
    /// Matching calls that pass first, and that get the answer then.
    skip: usize,
    times: usize,
    answer: Answer,
}

impl Rule {
    /// The next call of this operation gets this answer.
    pub(crate) fn on(operation: &'static str, answer: Answer) -> Rule {
        Rule { operation, conditions: Vec::new(), skip: 0, times: 1, answer }
    }

    /// The next PutLogEvents gets this answer.
    pub(crate) fn put(answer: Answer) -> Rule {
        Rule::on("PutLogEvents", answer)
    }

    /// So many calls pass first.
    pub(crate) fn after(mut self, skip: usize) -> Rule {
        self.skip = skip;
        self
    }

    /// So many calls get it.
    pub(crate) fn times(mut self, times: usize) -> Rule {
        self.times = times;
        self
    }

    /// All calls get it from then on.
    pub(crate) fn always(self) -> Rule {
        self.times(usize::MAX)
    }

    /// Only calls that this is true of.
    pub(crate) fn when(mut self, condition: impl Fn(&Asked) -> bool + Send + 'static) -> Rule {
        self.conditions.push(Box::new(condition));
        self
    }

    /// Only calls for this stream.
    pub(crate) fn stream(self, name: &'static str) -> Rule {
        self.when(move |asked| asked.stream == name)
    }

    /// Only calls with an event whose message has this in it.
    pub(crate) fn containing(self, text: &'static str) -> Rule {
        self.when(move |asked| asked.events.iter().any(|e| e.message.contains(text)))
    }

    fn takes(&mut self, operation: &str, asked: Option<&Asked>) -> bool {
        // What is to happen before the body has come is asked without one, all else with one.
        if matches!(self.answer, Answer::ResetBeforeBody) == asked.is_some() || self.operation != operation {
            return false;
        }
        if self.times == 0 || !asked.is_none_or(|asked| self.conditions.iter().all(|c| c(asked))) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times = if self.times == usize::MAX { usize::MAX } else { self.times - 1 };
        true
    }
}

/// The answer of the first rule that takes a call. `asked`: `None` while its body has not come.
pub(crate) fn fault(rules: &mut [Rule], operation: &str, asked: Option<&Asked>) -> Option<Answer> {
    rules.iter_mut().find_map(|rule| rule.takes(operation, asked).then(|| rule.answer.clone()))
}
