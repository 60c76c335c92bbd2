//! The lines of containers whose logs are in files, as they come.
//!
//! Enters: a directory of docker's JSON lines. Leaves: `NAME | line` on standard output. Can go wrong: a line that is no
//! JSON, which is passed over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::say;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Bytes of a file that are read at a time.
const MOST: u64 = 1 << 20;

/// Shows lines until `task` is done, and what came with its end. `only`: of this container.
pub(super) async fn beside<T>(dir: &Path, only: Option<&str>, task: impl Future<Output = T>) -> T {
    let mut places = BTreeMap::new();
    tokio::pin!(task);
    loop {
        tokio::select! {
            biased;
            ended = &mut task => {
                show(dir, only, &mut places);
                return ended;
            }
            () = tokio::time::sleep(LOOK) => show(dir, only, &mut places),
        }
    }
}

/// Shows all lines that there are. Gives the number of files.
pub(super) fn once(dir: &Path, only: Option<&str>) -> usize {
    let mut places = BTreeMap::new();
    show(dir, only, &mut places);
    places.len()
}

fn show(dir: &Path, only: Option<&str>, places: &mut BTreeMap<PathBuf, u64>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.filter_map(|e| Some(e.ok()?.path())) {
        let Some(name) = path.file_name().and_then(|n| n.to_str()?.strip_suffix("-json.log")) else {
            continue;
        };
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let name = name.to_owned();
        let place = places.entry(path.clone()).or_insert(0);
        while let Some((text, end)) = more(&path, *place) {
            *place = end;
            for line in text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
                let log = line.get("log").and_then(|l| l.as_str()).unwrap_or_default();
                say(&format!("{name} | {}\n", log.trim_end_matches('\n')));
            }
        }
    }
}

/// Whole lines from there on, and where they end.
fn more(path: &Path, from: u64) -> Option<(String, u64)> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    let whole = bytes.iter().rposition(|b| *b == b'\n')? + 1;
    bytes.truncate(whole);
    Some((String::from_utf8_lossy(&bytes).into_owned(), from + whole as u64))
}
