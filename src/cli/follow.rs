//! The lines of containers whose logs are in files, as they come.
//!
//! Enters: a directory of docker's JSON lines: of each container the file that is written, and those that were rotated
//! away, `.1` the newest, packed where `compress` is on. Leaves: whole lines, the oldest first, for a callback. Can go
//! wrong: a line that is no JSON, which is passed over; a file that cannot be read, which is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use super::complain;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often files are looked at again that are being rotated, and how long it is from one time to the next.
const TRIES: u32 = 20;
const AGAIN: Duration = Duration::from_millis(20);
/// Bytes of a file that are read at a time.
const MOST: usize = 64 << 10;
/// A line of a file: docker's has 16 KiB of output at most, and escapes.
const LINE_MAX: usize = 4 << 20;
/// Bytes of a container's line that are put together before it is shown unfinished.
const JOINED_MAX: usize = 1 << 20;
/// Bytes of a file by which it is known again when it was packed: some lines with their times.
const HEAD: usize = 256 << 10;
/// Bytes before a place by which it is seen that a file was written anew: the time of a line.
const TAIL: usize = 64;

/// Shows lines until `task` is done, and what came with its end. `only`: of this container.
pub(super) async fn beside<T>(
    dir: &Path,
    only: Option<&str>,
    show: impl Fn(&str, &str),
    task: impl Future<Output = T>,
) -> T {
    let mut follower = Follower::new(dir, only, show);
    tokio::pin!(task);
    loop {
        tokio::select! {
            biased;
            ended = &mut task => {
                follower.end();
                return ended;
            }
            () = tokio::time::sleep(LOOK) => {
                // What is being rotated is read the next time.
                let _settled = follower.look(false);
            }
        }
    }
}

/// Shows all lines that there are. Gives the number of containers that have files.
pub(super) async fn once(dir: &Path, only: Option<&str>, show: impl Fn(&str, &str)) -> usize {
    let mut follower = Follower::new(dir, only, show);
    for _ in 0..TRIES {
        if follower.look(false) {
            break;
        }
        tokio::time::sleep(AGAIN).await;
    }
    follower.end();
    follower.containers.len()
}

/// What has been shown of a directory.
struct Follower<'d, S> {
    dir: &'d Path,
    only: Option<&'d str>,
    show: S,
    containers: BTreeMap<String, Container>,
}

impl<'d, S: Fn(&str, &str)> Follower<'d, S> {
    fn new(dir: &'d Path, only: Option<&'d str>, show: S) -> Self {
        Follower { dir, only, show, containers: BTreeMap::new() }
    }

    /// Shows what is new. Whether that is all: files that are being rotated are left for the next time, unless it is the
    /// `last`.
    fn look(&mut self, last: bool) -> bool {
        let mut settled = true;
        for name in names(self.dir) {
            if self.only.is_some_and(|only| only != name) {
                continue;
            }
            let path = self.dir.join(format!("{name}{END}"));
            let container = self.containers.entry(name.clone()).or_default();
            match container.catch_up(&path, last, &mut |line| (self.show)(&name, line)) {
                Ok(all) => settled &= all,
                Err(e) if !container.told => {
                    container.told = true;
                    complain("warning", format_args!("lines of container {name} are not shown: {e}"));
                }
                Err(_) => {}
            }
        }
        settled
    }

    /// No more lines come: shows what is left, unfinished lines too.
    fn end(&mut self) {
        self.look(true);
        for (name, container) in &mut self.containers {
            for rest in std::mem::take(&mut container.lines.rests).into_values().filter(|r| !r.is_empty()) {
                (self.show)(name, &rest);
            }
        }
    }
}

/// How the name of a container's file ends.
const END: &str = "-json.log";

/// Names of containers that have files.
fn names(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeSet::new() };
    let name = |file: &str| {
        let (name, rest) = file.rsplit_once(END)?;
        let number = rest.strip_prefix('.').map(|rest| rest.strip_suffix(".gz").unwrap_or(rest));
        let is_log = rest.is_empty() || number.is_some_and(|n| n.parse::<u32>().is_ok());
        is_log.then(|| name.to_owned())
    };
    entries.filter_map(|e| name(e.ok()?.file_name().to_str()?)).collect()
}

/// What has been shown of a container.
#[derive(Default)]
struct Container {
    /// The newest file that was read. It is held: whatever becomes of its name, its last lines can be read.
    open: Option<Open>,
    lines: Lines,
    /// That its lines cannot be read was said.
    told: bool,
}

impl Container {
    fn catch_up(&mut self, path: &Path, last: bool, show: &mut dyn FnMut(&str)) -> io::Result<bool> {
        // Before the file is read: once another one has its name, nothing is added to it.
        let now = identity(path)?;
        if let Some(open) = &mut self.open {
            open.read(&mut self.lines, show)?;
            if now == Some(open.id) {
                return Ok(true);
            }
        }
        let (mut newer, settled) = newer(path, self.open.as_ref())?;
        if !settled && !last {
            return Ok(false);
        }
        let mut result = Ok(settled);
        while let Some(log) = newer.pop() {
            let read = match log {
                Log::Plain(mut open) => {
                    let read = open.read(&mut self.lines, show);
                    self.open = Some(open);
                    read
                }
                Log::Packed(file) => self.lines.unpack(file, show),
            };
            // One file that is broken does not keep the others from being read.
            if let Err(e) = read {
                result = Err(e);
            }
        }
        result
    }
}

/// Which file it is, whatever its name.
type Id = (u64, u64);

fn id(file: &File) -> io::Result<Id> {
    file.metadata().map(|m| (m.dev(), m.ino()))
}

/// Of the file that has a name now.
fn identity(path: &Path) -> io::Result<Option<Id>> {
    match fs::metadata(path) {
        Ok(m) => Ok(Some((m.dev(), m.ino()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(named(path, &e)),
    }
}

fn named(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

/// A container's file.
enum Log {
    Plain(Open),
    Packed(File),
}

/// Opens a container's files from the newest to the one before `held`, or to the oldest. Whether nobody was renaming them
/// meanwhile: the driver renames the oldest first, and makes the newest at the end.
fn newer(path: &Path, held: Option<&Open>) -> io::Result<(Vec<Log>, bool)> {
    let head = held.map(Open::head).transpose()?;
    let (mut found, mut seen, mut settled) = (Vec::new(), Vec::new(), true);
    let mut at = 0;
    loop {
        let Some((name, file, packed)) = opened(path, at)? else {
            if at > 0 {
                // A gap is where one has been renamed and the next has not.
                settled &= opened(path, at + 1)?.is_none();
                break;
            }
            settled = false;
            at += 1;
            continue;
        };
        at += 1;
        let id = id(&file)?;
        if seen.iter().any(|(_, known)| *known == id) {
            settled = false;
            continue;
        }
        let is_held = match (held, &head) {
            (Some(held), _) if held.id == id => true,
            (Some(_), Some(head)) if packed => packed_head(&file)? == *head,
            _ => false,
        };
        seen.push((name, id));
        if is_held {
            break;
        }
        found.push(if packed {
            Log::Packed(file)
        } else {
            Log::Plain(Open { file, id, at: 0, tail: Vec::new() })
        });
    }
    for (name, id) in seen {
        settled &= identity(&name)? == Some(id);
    }
    Ok((found, settled))
}

/// The file that is so many rotations old, and whether it is packed.
fn opened(path: &Path, age: u32) -> io::Result<Option<(PathBuf, File, bool)>> {
    let with = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let names = match age {
        0 => vec![(path.to_owned(), false)],
        // While one is packed there are both; the plain one is whole.
        n => vec![(with(&format!(".{n}")), false), (with(&format!(".{n}.gz")), true)],
    };
    for (name, packed) in names {
        match File::open(&name) {
            Ok(file) => return Ok(Some((name, file, packed))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(named(&name, &e)),
        }
    }
    Ok(None)
}

/// How what is packed begins; less of a file that is broken. What is read afterwards begins at its beginning again.
fn packed_head(mut file: &File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    // Whatever is wrong with it is found again when it is shown.
    let _broken = MultiGzDecoder::new(BufReader::new(file)).take(HEAD as u64).read_to_end(&mut head);
    file.rewind()?;
    Ok(head)
}

/// A file that is held open.
struct Open {
    file: File,
    id: Id,
    /// Where the next line begins.
    at: u64,
    /// What stands before that.
    tail: Vec<u8>,
}

impl Open {
    fn head(&self) -> io::Result<Vec<u8>> {
        let mut head = vec![0; HEAD];
        let mut length = 0;
        while let Some(room) = head.get_mut(length..).filter(|room| !room.is_empty()) {
            match self.file.read_at(room, length as u64)? {
                0 => break,
                read => length += read,
            }
        }
        head.truncate(length);
        Ok(head)
    }

    /// Whether the lines that were read are still there: with `max-file` 1 the driver writes the same file anew.
    fn is_as_it_was(&self) -> io::Result<bool> {
        let mut tail = vec![0; self.tail.len()];
        match self.file.read_exact_at(&mut tail, self.at - self.tail.len() as u64) {
            Ok(()) => Ok(tail == self.tail),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Shows whole lines from where it was left.
    fn read(&mut self, lines: &mut Lines, show: &mut dyn FnMut(&str)) -> io::Result<()> {
        if !self.is_as_it_was()? {
            (self.at, self.tail) = (0, Vec::new());
        }
        let (mut rest, mut bytes) = (Vec::new(), vec![0; MOST]);
        loop {
            let read = self.file.read_at(&mut bytes, self.at + rest.len() as u64)?;
            if read == 0 {
                return Ok(());
            }
            rest.extend_from_slice(bytes.get(..read).unwrap_or_default());
            let whole = whole_lines(&mut rest);
            lines.take(&whole, show);
            self.at += whole.len() as u64;
            if !whole.is_empty() {
                self.tail = whole.get(whole.len().saturating_sub(TAIL)..).unwrap_or_default().to_vec();
            }
        }
    }
}

/// Takes whole lines off; of what is no line at all, everything.
fn whole_lines(rest: &mut Vec<u8>) -> Vec<u8> {
    let end = match memchr::memrchr(b'\n', rest) {
        Some(at) => at + 1,
        None if rest.len() > LINE_MAX => rest.len(),
        None => 0,
    };
    let more = rest.split_off(end);
    std::mem::replace(rest, more)
}

/// A line of a file.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    log: String,
    stream: String,
}

/// What a container has printed, put together: docker cuts lines at 16 KiB, and only the last part has a newline.
#[derive(Default)]
struct Lines {
    /// Unfinished, by stream.
    rests: BTreeMap<String, String>,
}

impl Lines {
    fn take(&mut self, text: &[u8], show: &mut dyn FnMut(&str)) {
        for line in text.split(|b| *b == b'\n') {
            let Ok(Line { log, stream }) = serde_json::from_slice(line) else { continue };
            let rest = self.rests.entry(stream).or_default();
            rest.push_str(&log);
            if rest.ends_with('\n') || rest.len() >= JOINED_MAX {
                show(rest.strip_suffix('\n').unwrap_or(rest));
                rest.clear();
                rest.shrink_to(MOST);
            }
        }
    }

    /// All lines of a packed file. Nothing of it is kept, however large it is unpacked.
    fn unpack(&mut self, file: File, show: &mut dyn FnMut(&str)) -> io::Result<()> {
        let mut packed = MultiGzDecoder::new(BufReader::new(file));
        let (mut rest, mut bytes) = (Vec::new(), vec![0; MOST]);
        loop {
            let read = match packed.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(io::Error::new(e.kind(), format!("a packed log file is broken: {e}"))),
            };
            rest.extend_from_slice(bytes.get(..read).unwrap_or_default());
            let whole = whole_lines(&mut rest);
            self.take(&whole, show);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Write;

    use super::*;

    fn json(log: &str, stream: &str, n: usize) -> String {
        let time = format!("2026-11-26T05:00:00.{n:09}Z");
        format!("{}\n", serde_json::json!({"log": log, "stream": stream, "time": time}))
    }

    fn add(path: &Path, numbers: std::ops::Range<usize>) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        for n in numbers {
            file.write_all(json(&format!("line {n}\n"), "stdout", n).as_bytes()).unwrap();
        }
    }

    fn pack(path: &Path, to: &Path) {
        let mut packer =
            flate2::write::GzEncoder::new(File::create(to).unwrap(), flate2::Compression::fast());
        packer.write_all(&fs::read(path).unwrap()).unwrap();
        packer.finish().unwrap();
        fs::remove_file(path).unwrap();
    }

    /// A directory, the file of its container, and what was shown.
    struct Shown {
        dir: tempfile::TempDir,
        lines: RefCell<Vec<String>>,
    }

    impl Shown {
        fn new() -> Shown {
            Shown { dir: tempfile::tempdir().unwrap(), lines: RefCell::default() }
        }

        fn path(&self, end: &str) -> PathBuf {
            self.dir.path().join(format!("app-json.log{end}"))
        }

        fn follower(&self) -> Follower<'_, impl Fn(&str, &str)> {
            let show = |name: &str, line: &str| self.lines.borrow_mut().push(format!("{name} | {line}"));
            Follower::new(self.dir.path(), None, show)
        }

        fn assert_lines(&self, numbers: std::ops::Range<usize>) {
            let want: Vec<String> = numbers.map(|n| format!("app | line {n}")).collect();
            assert_eq!(*self.lines.borrow(), want);
        }
    }

    #[test]
    fn a_file_that_was_rotated_is_read_to_its_end_and_so_are_those_that_came_after_it() {
        let shown = Shown::new();
        let mut follower = shown.follower();
        add(&shown.path(""), 0..2);
        assert!(follower.look(false));
        add(&shown.path(""), 2..4);
        fs::rename(shown.path(""), shown.path(".1")).unwrap();
        add(&shown.path(""), 4..6);
        fs::rename(shown.path(".1"), shown.path(".2")).unwrap();
        fs::rename(shown.path(""), shown.path(".1")).unwrap();
        add(&shown.path(""), 6..7);
        assert!(follower.look(false));
        shown.assert_lines(0..7);
        // The one that was held is gone by now.
        add(&shown.path(""), 7..8);
        fs::remove_file(shown.path(".2")).unwrap();
        fs::rename(shown.path(""), shown.path(".1")).unwrap();
        add(&shown.path(""), 8..9);
        follower.end();
        shown.assert_lines(0..9);
    }

    #[test]
    fn a_file_that_was_packed_is_known_again_and_nothing_is_shown_twice() {
        let shown = Shown::new();
        let mut follower = shown.follower();
        add(&shown.path(""), 0..3);
        assert!(follower.look(false));
        add(&shown.path(""), 3..5);
        pack(&shown.path(""), &shown.path(".2.gz"));
        add(&shown.path(".1"), 5..8);
        pack(&shown.path(".1"), &shown.path(".1.gz"));
        add(&shown.path(""), 8..9);
        assert!(follower.look(false));
        follower.end();
        shown.assert_lines(0..9);
    }

    #[test]
    fn a_rotation_that_goes_on_is_waited_for() {
        let shown = Shown::new();
        let mut follower = shown.follower();
        add(&shown.path(""), 0..2);
        assert!(follower.look(false));
        add(&shown.path(""), 2..3);
        fs::rename(shown.path(""), shown.path(".1")).unwrap();
        assert!(!follower.look(false));
        add(&shown.path(""), 3..4);
        // The next one has moved the second file and not the first.
        add(&shown.path(".3"), 90..91);
        let mut new = shown.follower();
        assert!(!new.look(false));
        fs::remove_file(shown.path(".3")).unwrap();
        assert!(follower.look(false));
        shown.assert_lines(0..4);
    }

    #[tokio::test]
    async fn all_files_of_a_container_are_shown_the_oldest_first() {
        let shown = Shown::new();
        add(&shown.path(".3"), 0..3);
        pack(&shown.path(".3"), &shown.path(".3.gz"));
        add(&shown.path(".2"), 3..4);
        add(&shown.path(".1"), 4..6);
        add(&shown.path(""), 6..8);
        fs::write(shown.dir.path().join("supervisor.log"), "no log of a container\n").unwrap();
        let show = |name: &str, line: &str| shown.lines.borrow_mut().push(format!("{name} | {line}"));
        assert_eq!(once(shown.dir.path(), None, show).await, 1);
        shown.assert_lines(0..8);
        assert_eq!(once(shown.dir.path(), Some("other"), show).await, 0);
    }

    #[test]
    fn a_file_that_is_written_anew_is_shown_from_its_beginning() {
        let shown = Shown::new();
        let mut follower = shown.follower();
        add(&shown.path(""), 0..2);
        assert!(follower.look(false));
        File::options().write(true).truncate(true).open(shown.path("")).unwrap();
        // As long as before.
        add(&shown.path(""), 2..4);
        assert!(follower.look(false));
        shown.assert_lines(0..4);
    }

    #[test]
    fn parts_of_a_long_line_are_shown_as_one_by_stream_and_what_never_ends_is_bounded() {
        let shown = Shown::new();
        let mut follower = shown.follower();
        let part = "x".repeat(16 << 10);
        let parts = [json(&part, "stdout", 1), json("aside\n", "stderr", 2), json(&part, "stdout", 3)];
        fs::write(shown.path(""), parts.concat()).unwrap();
        follower.look(false);
        assert_eq!(*shown.lines.borrow(), ["app | aside"]);
        let mut file = File::options().append(true).open(shown.path("")).unwrap();
        file.write_all(json("end\n", "stdout", 4).as_bytes()).unwrap();
        follower.look(false);
        assert_eq!(shown.lines.borrow()[1], format!("app | {part}{part}end"));
        file.write_all(json("unfinished", "stdout", 5).as_bytes()).unwrap();
        follower.look(false);
        assert_eq!(shown.lines.borrow().len(), 2);
        file.write_all(json(&part, "stdout", 6).repeat(64).as_bytes()).unwrap();
        follower.look(false);
        assert_eq!(shown.lines.borrow()[2].len(), "app | unfinished".len() + (1 << 20));
        file.write_all(json("at the end", "stderr", 7).as_bytes()).unwrap();
        follower.end();
        assert_eq!(shown.lines.borrow()[3], "app | at the end");
    }
}
