//! What containers print, for a person who watches.
//!
//! Enters: docker's copy of a container's output. Leaves: whole lines, for a callback. Can go wrong: the engine ends the
//! stream; then there are no more lines.

use std::fmt;
use std::sync::Arc;

use super::api::{self, Api};

/// Bytes of a line that are kept before it is shown unfinished.
const LINE_MAX: usize = 64 << 10;

type Show = dyn Fn(&str, &str) + Send + Sync;

/// Takes a container's name and a line.
#[derive(Clone)]
pub struct Lines(Arc<Show>);

impl Lines {
    /// Calls `show` for each line.
    pub fn new(show: impl Fn(&str, &str) + Send + Sync + 'static) -> Lines {
        Lines(Arc::new(show))
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

/// Shows the lines of a container until it ends. `since`: seconds since 1970, for those of a run that is not the first.
pub(super) async fn follow(api: Api, name: String, id: String, since: i32, lines: Lines) {
    let mut stream = Box::pin(api.logs(&id, since));
    let mut rest = Vec::new();
    while let Some(Ok(piece)) = api::next(&mut stream).await {
        take(&mut rest, piece.as_ref(), |line| (lines.0)(&name, line));
    }
    if !rest.is_empty() {
        (lines.0)(&name, &String::from_utf8_lossy(&rest));
    }
}

fn take(rest: &mut Vec<u8>, piece: &[u8], mut show: impl FnMut(&str)) {
    for part in piece.split_inclusive(|b| *b == b'\n') {
        rest.extend_from_slice(part);
        if part.ends_with(b"\n") || rest.len() >= LINE_MAX {
            let line = rest.strip_suffix(b"\n").unwrap_or(rest);
            show(&String::from_utf8_lossy(line));
            rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let (mut rest, mut seen) = (Vec::new(), Vec::new());
        for piece in ["a\nb", "c\n\n", "d"] {
            take(&mut rest, piece.as_bytes(), |line| seen.push(line.to_owned()));
        }
        assert_eq!((seen, rest), (vec!["a".to_owned(), "bc".into(), String::new()], b"d".to_vec()));
    }
}
