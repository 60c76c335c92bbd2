//! Record accessors: the path to one value of a record, `$key['sub']['sub2'][0]`.
//!
//! Enters: the path as users write it, once; then records, as views or as bytes. Leaves: the encoded value at the end of
//! the path. Can go wrong: a path that is none is refused when it is read; on a record, whatever is not there, or is no
//! map or array where the path goes on, is missing. Of keys that occur twice the last counts. Looking up allocates nothing.

use crate::record::Record;
use crate::wire::msgpack::{self, Value};

/// What ends a `$key` outside of brackets; the text after it belongs to the template around it.
const ENDS: [u8; 4] = [b'.', b' ', b',', b'"'];

/// A path to one value of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accessor {
    key: Box<[u8]>,
    path: Box<[Step]>,
    rest: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(Box<[u8]>),
    Index(usize),
}

impl Accessor {
    /// A field as users write it for filters: `log` (a key of the record, whatever characters it has), `$log`,
    /// `$a['b'][0]`; with brackets the `$` may be left out.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn field(text: &str) -> Result<Accessor, String> {
        let Some(after) = text.strip_prefix('$') else {
            if text.is_empty() {
                return Err("it is empty".to_owned());
            }
            if text.ends_with(']')
                && let Ok((accessor, "")) = Accessor::token(text)
            {
                return Ok(accessor);
            }
            return Ok(Accessor::key(text));
        };
        let (mut accessor, rest) = Accessor::token(after)?;
        accessor.rest = rest.into();
        Ok(accessor)
    }

    /// The key of the record with exactly this name.
    pub fn key(name: &str) -> Accessor {
        Accessor { key: name.as_bytes().into(), path: Box::default(), rest: Box::default() }
    }

    /// Reads one accessor, without its `$`, from the start of `text`; returns it with what follows it.
    pub(super) fn token(text: &str) -> Result<(Accessor, &str), String> {
        let end = text.bytes().position(|b| b == b'[' || ENDS.contains(&b)).unwrap_or(text.len());
        let (name, mut rest) = text.split_at_checked(end).unwrap_or((text, ""));
        if let Some(odd) = name.chars().find(|c| "$':;]{}".contains(*c)) {
            return Err(format!("'{odd}' cannot stand in a name; write odd names as ['name']"));
        }
        let mut path = Vec::new();
        while let Some(inside) = rest.strip_prefix('[') {
            let (step, after) = Step::read(inside)?;
            path.push(step);
            rest = after;
        }
        if rest.bytes().next().is_some_and(|b| !ENDS.contains(&b)) {
            return Err(format!("\"{rest}\" cannot follow ]; separate it with a dot"));
        }
        let mut path = path.into_iter();
        let key = if !name.is_empty() {
            name.as_bytes().into()
        } else if let Some(Step::Key(key)) = path.next() {
            key
        } else {
            return Err("there is no name after $".to_owned());
        };
        Ok((Accessor { key, path: path.collect(), rest: Box::default() }, rest))
    }

    /// What stands after the path and is not part of it (`.x` of `$a.x`): a mistake where one field is wanted.
    pub fn rest(&self) -> &str {
        &self.rest
    }

    /// The encoded value in a record.
    #[inline]
    pub fn value<'r>(&self, record: &'r Record<'_>) -> Option<&'r [u8]> {
        let value = record.get(&self.key)?;
        if self.path.is_empty() { Some(value) } else { self.descend(value) }
    }

    /// The encoded value in an encoded map.
    pub fn get<'r>(&self, map: &'r [u8]) -> Option<&'r [u8]> {
        self.descend(child(map, |key| key.text() == Some(&self.key))?)
    }

    /// The value's text, if the path exists and holds a string (or binary).
    #[inline]
    pub fn text<'r>(&self, record: &'r Record<'_>) -> Option<&'r [u8]> {
        msgpack::value(self.value(record)?)?.text()
    }

    /// As [`Accessor::text`], of strings only: what regular expressions look at in Fluent Bit.
    #[inline]
    pub fn string<'r>(&self, record: &'r Record<'_>) -> Option<&'r [u8]> {
        match msgpack::value(self.value(record)?)? {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    fn descend<'r>(&self, mut value: &'r [u8]) -> Option<&'r [u8]> {
        for step in &self.path {
            value = match step {
                Step::Key(name) => child(value, |key| key.text() == Some(name))?,
                Step::Index(index) => element(value, *index)?,
            };
        }
        Some(value)
    }
}

impl Step {
    /// Reads `'name']` or `12]`; returns what follows.
    fn read(text: &str) -> Result<(Step, &str), String> {
        let open = || "a [ is not closed".to_owned();
        let Some(mut text) = text.strip_prefix('\'') else {
            let (number, rest) = text.split_once(']').ok_or_else(open)?;
            let index = number
                .parse()
                .map_err(|_| format!("[{number}] is neither an index like [0] nor a name like ['name']"))?;
            return Ok((Step::Index(index), rest));
        };
        let mut name = Vec::new();
        loop {
            let (part, rest) = text.split_once('\'').ok_or_else(open)?;
            name.extend_from_slice(part.as_bytes());
            if let Some(rest) = rest.strip_prefix('\'') {
                name.push(b'\'');
                text = rest;
            } else {
                let rest = rest.strip_prefix(']').ok_or_else(open)?;
                return Ok((Step::Key(name.into()), rest));
            }
        }
    }
}

/// The last value of a map whose key is the one.
fn child(map: &[u8], is: impl Fn(Value<'_>) -> bool) -> Option<&[u8]> {
    let Some((Value::Map { count, at }, _)) = msgpack::read(map, 0) else { return None };
    let (mut pos, mut found) = (at, None);
    for _ in 0..count {
        let mid = msgpack::skip(map, pos).ok()?;
        let end = msgpack::skip(map, mid).ok()?;
        if is(msgpack::read(map, pos)?.0) {
            found = map.get(mid..end);
        }
        pos = end;
    }
    found
}

fn element(array: &[u8], index: usize) -> Option<&[u8]> {
    let Some((Value::Array { count, at }, _)) = msgpack::read(array, 0) else { return None };
    if index >= count {
        return None;
    }
    let mut pos = at;
    for _ in 0..index {
        pos = msgpack::skip(array, pos).ok()?;
    }
    array.get(pos..msgpack::skip(array, pos).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `{"a": {"b": [1, {"it's": "deep"}], "b.c": 2}, "s": "text", "d": 1, "d": 2, "m.x": 3}`
    fn map() -> Vec<u8> {
        let mut b = Vec::new();
        let str = |b: &mut Vec<u8>, s: &str| msgpack::write_str(b, s.as_bytes());
        msgpack::write_map(&mut b, 5);
        str(&mut b, "a");
        msgpack::write_map(&mut b, 2);
        str(&mut b, "b");
        msgpack::write_array(&mut b, 2);
        msgpack::write_uint(&mut b, 1);
        msgpack::write_map(&mut b, 1);
        str(&mut b, "it's");
        str(&mut b, "deep");
        str(&mut b, "b.c");
        msgpack::write_uint(&mut b, 2);
        str(&mut b, "s");
        str(&mut b, "text");
        for v in [1, 2] {
            str(&mut b, "d");
            msgpack::write_uint(&mut b, v);
        }
        str(&mut b, "m.x");
        msgpack::write_uint(&mut b, 3);
        b
    }

    fn at(path: &str) -> Option<Vec<u8>> {
        Accessor::field(path).unwrap().get(&map()).map(<[u8]>::to_vec)
    }

    #[test]
    fn paths_reach_into_maps_and_arrays() {
        assert_eq!(at("$a['b'][0]"), Some(vec![1]));
        assert_eq!(at("a['b'][0]"), Some(vec![1]));
        assert_eq!(at("$a['b'][1]['it''s']").as_deref(), Some(b"\xa4deep".as_slice()));
        assert_eq!(at("$a['b.c']"), Some(vec![2]));
        assert_eq!(at("$['a']['b.c']"), Some(vec![2]));
        assert_eq!(at("s").as_deref(), Some(b"\xa4text".as_slice()));
    }

    #[test]
    fn what_is_not_there_or_no_map_is_missing() {
        for path in
            ["$x", "$s['x']", "$s[0]", "$a['b'][2]", "$a['b']['x']", "$a[0]", "$d['x']", "$a['b'][1][0]"]
        {
            assert_eq!(at(path), None, "{path}");
        }
    }

    #[test]
    fn of_equal_keys_the_last_counts() {
        assert_eq!(at("d"), Some(vec![2]));
    }

    #[test]
    fn a_plain_name_is_a_key_whatever_it_is_made_of() {
        assert_eq!(at("m.x"), Some(vec![3]));
        let dotted = Accessor::field("$s.x").unwrap();
        assert_eq!((dotted.get(&map()).is_some(), dotted.rest()), (true, ".x"));
    }

    #[test]
    fn what_is_no_path_is_refused_with_the_reason() {
        for (path, reason) in [
            ("$", "no name"),
            ("", "empty"),
            ("$['", "not closed"),
            ("$a['x", "not closed"),
            ("$a[", "not closed"),
            ("$a[x]", "neither an index"),
            ("$a['x']y", "cannot follow"),
            ("$$a", "cannot stand"),
            ("$a/$b", "cannot stand"),
        ] {
            let error = Accessor::field(path).unwrap_err();
            assert!(error.contains(reason), "{path}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_and_any_bytes_never_panic(text in "[$a-c\\['\\].0-9é]{0,12}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(accessor) = Accessor::field(&text) {
                accessor.get(&bytes);
            }
        }
    }
}
