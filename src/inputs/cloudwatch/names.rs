//! The groups and streams that clients have made.
//!
//! Enters: names. Leaves: what is known of them, in the order of their names. Can go wrong: a name is unknown, or taken;
//! there are too many groups. Streams are made by every container that starts and deleted by nobody: beyond their limit
//! the one that was silent the longest is forgotten; of those that nothing was written to yet, only when all others are,
//! since their clients have no token that would prove them.
//!
//! A put to a stream that is not known is taken all the same when it brings the token of an earlier put that was
//! answered before this process started, or before the stream was forgotten: docker's driver makes its stream once, when
//! its container starts, and would lose everything from a restart of the router on. With `storage.path` the names are
//! kept over a restart as well (see `journal`), so that this also holds for a container that has not written yet.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::answer::Error;

/// What is known of a stream; times in milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) created: i64,
    pub(super) first: Option<i64>,
    pub(super) last: Option<i64>,
    pub(super) ingested: Option<i64>,
}

impl Stream {
    fn touched(&self) -> i64 {
        self.ingested.unwrap_or(self.created)
    }
}

/// What is known of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) created: i64,
    /// Days.
    pub(super) retention: Option<u32>,
    pub(super) streams: BTreeMap<Box<str>, Stream>,
}

/// Something that a restart must not forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A group, new or changed.
    Group { group: Box<str>, created: i64, retention: Option<u32> },
    /// A new stream.
    Stream { group: Box<str>, stream: Box<str>, created: i64 },
    /// A group or a stream is no more.
    Gone { group: Box<str>, stream: Option<Box<str>> },
}

/// All of them.
pub(super) struct Names {
    pub(super) groups: BTreeMap<Box<str>, Group>,
    streams: usize,
    most_groups: usize,
    most_streams: usize,
    /// When this process began, for tokens.
    started: i64,
    /// Tokens given out.
    count: u64,
    /// When a stream was last forgotten for want of room; tokens older than that prove that it was there.
    forgot: u64,
    /// How many were.
    forgotten: u64,
    /// What has changed since it was last asked for.
    changes: Vec<Change>,
}

impl Names {
    pub(super) fn new(most_groups: usize, most_streams: usize, started: i64) -> Self {
        Names {
            groups: BTreeMap::new(),
            streams: 0,
            most_groups,
            most_streams,
            started,
            count: 0,
            forgot: 0,
            forgotten: 0,
            changes: Vec::new(),
        }
    }

    /// Groups and streams.
    pub(super) fn len(&self) -> usize {
        self.groups.len() + self.streams
    }

    /// What has changed since the last time.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Everything, as changes.
    pub(super) fn all(&self) -> Vec<Change> {
        let mut all = Vec::with_capacity(self.len());
        for (name, group) in &self.groups {
            let Group { created, retention, ref streams } = *group;
            all.push(Change::Group { group: name.clone(), created, retention });
            all.extend(streams.iter().map(|(stream, s)| Change::Stream {
                group: name.clone(),
                stream: stream.clone(),
                created: s.created,
            }));
        }
        all
    }

    /// Repeats a change of an earlier process; the limits hold.
    pub(super) fn apply(&mut self, change: Change) {
        // What does not fit any more is left out.
        match change {
            Change::Group { group, created, retention } => {
                let _known = self.create_group(&group, created);
                if let Some(group) = self.groups.get_mut(&group) {
                    group.retention = retention;
                }
            }
            Change::Stream { group, stream, created } => {
                let _known = self.create_stream(&group, &stream, created);
            }
            Change::Gone { group, stream: Some(stream) } => {
                let _unknown = self.delete_stream(&group, &stream);
            }
            Change::Gone { group, stream: None } => {
                let _unknown = self.delete_group(&group);
            }
        }
        self.changes.clear();
    }

    pub(super) fn group(&self, group: &str) -> Result<&Group, Error> {
        self.groups.get(group).ok_or_else(|| Error::not_found("log group"))
    }

    pub(super) fn create_group(&mut self, group: &str, now: i64) -> Result<(), Error> {
        check_group(group)?;
        if self.groups.contains_key(group) {
            return Err(Error::exists("log group"));
        }
        if self.groups.len() >= self.most_groups {
            return Err(Error::new("LimitExceededException", "Resource limit exceeded."));
        }
        self.groups.insert(group.into(), Group { created: now, ..Group::default() });
        self.changes.push(Change::Group { group: group.into(), created: now, retention: None });
        Ok(())
    }

    pub(super) fn create_stream(&mut self, name: &str, stream: &str, now: i64) -> Result<(), Error> {
        check_stream(stream)?;
        if self.group(name)?.streams.contains_key(stream) {
            return Err(Error::exists("log stream"));
        }
        if self.streams >= self.most_streams {
            self.forget_one();
        }
        if let Some(group) = self.groups.get_mut(name) {
            group.streams.insert(stream.into(), Stream { created: now, ..Stream::default() });
            self.streams += 1;
        }
        self.changes.push(Change::Stream { group: name.into(), stream: stream.into(), created: now });
        Ok(())
    }

    /// Forgets the stream that was silent the longest.
    fn forget_one(&mut self) {
        let all = self.groups.iter().flat_map(|(g, group)| group.streams.iter().map(move |s| (g, s)));
        let oldest = all.min_by_key(|(_, (_, stream))| (stream.ingested.is_none(), stream.touched()));
        let Some((name, stream)) = oldest.map(|(g, (s, _))| (g.clone(), s.clone())) else { return };
        if let Some(group) = self.groups.get_mut(&name) {
            group.streams.remove(&stream);
            self.streams -= 1;
            self.forgot = self.count;
            self.forgotten += 1;
            // The first, and then each time there are ten times as many.
            if self.forgotten.checked_ilog10().is_some_and(|n| self.forgotten == 10u64.pow(n)) {
                tracing::warn!(group = %name, stream = %stream, forgotten = self.forgotten, limit = self.most_streams,
                    "streams are forgotten: there are more than Max_Streams; raise it, or delete those that are no longer used");
            }
            self.changes.push(Change::Gone { group: name, stream: Some(stream) });
        }
    }

    pub(super) fn delete_stream(&mut self, group: &str, stream: &str) -> Result<(), Error> {
        self.group(group)?;
        let removed = self.groups.get_mut(group).and_then(|g| g.streams.remove(stream));
        removed.ok_or_else(|| Error::not_found("log stream"))?;
        self.streams -= 1;
        self.changes.push(Change::Gone { group: group.into(), stream: Some(stream.into()) });
        Ok(())
    }

    pub(super) fn delete_group(&mut self, name: &str) -> Result<(), Error> {
        let group = self.groups.remove(name).ok_or_else(|| Error::not_found("log group"))?;
        self.streams -= group.streams.len();
        self.changes.push(Change::Gone { group: name.into(), stream: None });
        Ok(())
    }

    pub(super) fn set_retention(&mut self, name: &str, days: u32) -> Result<(), Error> {
        let group = self.groups.get_mut(name).ok_or_else(|| Error::not_found("log group"))?;
        group.retention = Some(days);
        let created = group.created;
        self.changes.push(Change::Group { group: name.into(), created, retention: Some(days) });
        Ok(())
    }

    /// Finds the stream of a put; makes it, and its group, with `create` or when `token` proves that it was there.
    /// Gives the retention of its group in days.
    pub(super) fn find(
        &mut self,
        group: &str,
        stream: &str,
        create: bool,
        token: impl FnOnce() -> Option<String>,
        now: i64,
    ) -> Result<Option<u32>, Error> {
        check_group(group)?;
        check_stream(stream)?;
        if self.groups.get(group).is_none_or(|g| !g.streams.contains_key(stream)) {
            if !create && !token().is_some_and(|t| self.proves(&t, group, stream)) {
                self.group(group)?;
                return Err(Error::not_found("log stream"));
            }
            if !self.groups.contains_key(group) {
                self.create_group(group, now)?;
            }
            self.create_stream(group, stream, now)?;
        }
        Ok(self.group(group)?.retention)
    }

    /// Notes events of a put; gives the token for the next one.
    pub(super) fn note(&mut self, group: &str, stream: &str, span: Option<(i64, i64)>, now: i64) -> String {
        self.count += 1;
        if let Some(stream) = self.groups.get_mut(group).and_then(|g| g.streams.get_mut(stream)) {
            stream.ingested = Some(now);
            if let Some((first, last)) = span {
                stream.first = Some(stream.first.map_or(first, |f| f.min(first)));
                stream.last = Some(stream.last.map_or(last, |l| l.max(last)));
            }
        }
        self.token(group, stream)
    }

    /// 56 digits: when this process began, the names, and a number.
    pub(super) fn token(&self, group: &str, stream: &str) -> String {
        format!("{:013}{:020}{:023}", self.started, fingerprint(group, stream), self.count)
    }

    fn proves(&self, token: &str, group: &str, stream: &str) -> bool {
        let part = |range| token.get(range).and_then(|t: &str| t.parse::<u64>().ok());
        let (Some(started), Some(names), Some(count)) = (part(0..13), part(13..33), part(33..56)) else {
            return false;
        };
        let before = started != self.started.unsigned_abs() || count <= self.forgot;
        token.len() == 56 && names == fingerprint(group, stream) && before
    }
}

fn fingerprint(group: &str, stream: &str) -> u64 {
    let hash = Sha256::new().chain_update(group).chain_update(":").chain_update(stream).finalize();
    hash.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}

fn constraint(value: &str, at: &str, rule: &str) -> Error {
    Error::parameter(format!(
        "1 validation error detected: Value '{value}' at '{at}' failed to satisfy constraint: Member must {rule}"
    ))
}

/// Whether a group may be called so.
pub(super) fn check_group(name: &str) -> Result<(), Error> {
    let at = "logGroupName";
    check_length(name, at)?;
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_/#".contains(&b)) {
        return Ok(());
    }
    Err(constraint(name, at, "satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+"))
}

/// Whether a stream may be called so.
pub(super) fn check_stream(name: &str) -> Result<(), Error> {
    let at = "logStreamName";
    check_length(name, at)?;
    if name.contains([':', '*']) {
        return Err(constraint(name, at, "satisfy regular expression pattern: [^:*]*"));
    }
    Ok(())
}

fn check_length(name: &str, at: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(constraint(name, at, "have length greater than or equal to 1"));
    }
    if name.chars().count() > 512 {
        let head: String = name.chars().take(32).collect();
        return Err(constraint(&format!("{head}..."), at, "have length less than or equal to 512"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Option<String> {
        None
    }

    fn name(result: Result<impl Sized, Error>) -> &'static str {
        result.err().map_or("", |e| e.name)
    }

    #[test]
    fn groups_and_streams_are_made_once_and_deleted_once() {
        let mut names = Names::new(2, 10, 1);
        assert_eq!(name(names.create_stream("g", "s", 5)), "ResourceNotFoundException");
        names.create_group("g", 5).unwrap();
        assert_eq!(name(names.create_group("g", 5)), "ResourceAlreadyExistsException");
        names.create_stream("g", "s", 6).unwrap();
        assert_eq!(name(names.create_stream("g", "s", 6)), "ResourceAlreadyExistsException");
        assert_eq!(names.find("g", "s", false, none, 7), Ok(None));
        names.set_retention("g", 3).unwrap();
        assert_eq!(names.find("g", "s", false, none, 7), Ok(Some(3)));
        names.delete_stream("g", "s").unwrap();
        assert_eq!(name(names.delete_stream("g", "s")), "ResourceNotFoundException");
        assert_eq!(name(names.find("g", "s", false, none, 7)), "ResourceNotFoundException");
        names.delete_group("g").unwrap();
        assert_eq!(name(names.delete_group("g")), "ResourceNotFoundException");
        assert_eq!(names.streams, 0);
    }

    #[test]
    fn a_put_may_make_what_is_missing_where_that_is_allowed() {
        let mut names = Names::new(2, 10, 1);
        assert_eq!(names.find("g", "s", true, none, 7), Ok(None));
        assert_eq!(names.groups["g"].streams["s"].created, 7);
        names.note("g", "s", Some((3, 4)), 9);
        names.note("g", "s", Some((2, 3)), 10);
        let want = Stream { created: 7, first: Some(2), last: Some(4), ingested: Some(10) };
        assert_eq!(names.groups["g"].streams["s"], want);
    }

    #[test]
    fn a_token_of_an_earlier_process_proves_that_the_stream_was_there() {
        let mut before = Names::new(2, 10, 1_760_000_000_000);
        before.find("g", "s", true, none, 7).unwrap();
        let token = before.note("g", "s", None, 8);
        assert_eq!(token.len(), 56);
        let mut after = Names::new(2, 10, 1_760_000_000_999);
        assert_eq!(
            name(after.find("g", "other", false, || Some(token.clone()), 9)),
            "ResourceNotFoundException"
        );
        assert_eq!(after.find("g", "s", false, || Some(token.clone()), 9), Ok(None));
        for bad in ["", "49", &"1".repeat(56), &"x".repeat(56), "é"] {
            assert_eq!(
                name(after.find("g", "t", false, || Some(bad.into()), 9)),
                "ResourceNotFoundException"
            );
        }
        // Deleted by someone since: the token of this process proves nothing.
        before.delete_stream("g", "s").unwrap();
        assert_eq!(name(before.find("g", "s", false, || Some(token), 9)), "ResourceNotFoundException");
    }

    #[test]
    fn the_stream_that_was_silent_the_longest_makes_room_and_may_come_back() {
        let mut names = Names::new(2, 2, 1);
        names.create_group("g", 1).unwrap();
        names.create_stream("g", "old", 1).unwrap();
        names.create_stream("g", "busy", 1).unwrap();
        let token = names.note("g", "old", None, 2);
        names.note("g", "busy", None, 50);
        names.create_stream("g", "new", 60).unwrap();
        assert_eq!(names.groups["g"].streams.keys().map(|k| &**k).collect::<Vec<_>>(), ["busy", "new"]);
        assert_eq!(names.find("g", "old", false, || Some(token), 70), Ok(None));
        assert_eq!(names.streams, 2);
    }

    #[test]
    fn groups_are_limited_and_names_are_checked() {
        let mut names = Names::new(1, 2, 1);
        names.create_group("/ecs/a-b_c.d#1", 1).unwrap();
        assert_eq!(name(names.create_group("other", 1)), "LimitExceededException");
        for bad in ["", "a b", "é", &"x".repeat(513)] {
            assert_eq!(name(check_group(bad)), "InvalidParameterException");
        }
        for bad in ["", "a:b", "a*", &"x".repeat(513)] {
            assert_eq!(name(check_stream(bad)), "InvalidParameterException");
        }
        check_stream("web/app/é 1").unwrap();
    }
}
