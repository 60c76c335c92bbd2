//! Dead letters: records that nobody else would keep, as JSON lines on disk.
//!
//! Enters: letters from outputs and inputs. Leaves: lines, synced before whoever sent the letter is told so. Can go
//! wrong: the disk is full or cannot be written; then letters wait, and with them who sends more, and writing is tried
//! again until it succeeds. Nothing is dropped here but the oldest file, when all pass their limit.

mod files;
mod line;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Notify;

use crate::observe::counters::Letters as Counters;
use crate::record::Time;
use crate::rt::{Letter, LetterBox};

use files::Files;
pub use files::{NAME, list, lock};
pub use line::{Line, read};

/// Letters of one sync.
const BATCH: usize = 256;
/// Bytes of one write.
const WRITE: usize = 256 * 1024;
/// The waits between attempts.
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);

/// The writer of one directory.
pub struct DeadLetters {
    files: Files,
    counters: Arc<Counters>,
    place: PathBuf,
    /// What outputs are, by the names that letters come under.
    outputs: HashMap<String, String>,
}

/// Letters on their way to the disk, and how far they have come.
struct Batch {
    letters: Vec<Letter>,
    /// The letter at hand, and the byte of its chunk at which to go on.
    at: (usize, usize),
    /// Lines written.
    lines: u64,
}

impl DeadLetters {
    /// Takes the directory. All its files together take at most `limit` bytes.
    ///
    /// # Errors
    /// A sentence, when another process writes there. A disk that is full or cannot be written is no error: letters wait.
    pub fn open(dir: PathBuf, limit: u64, counters: Arc<Counters>) -> Result<DeadLetters, String> {
        let mut files = Files::new(dir.clone(), limit, Arc::clone(&counters));
        match files.check() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(format!(
                "another process keeps dead letters in {}; give each its own dead_letter.path",
                dir.display()
            )),
            Err(e) => {
                tracing::error!(path = %dir.display(), cause = %e, "cannot keep dead letters; what is given up will wait");
                Ok(DeadLetters { files, counters, place: dir, outputs: HashMap::new() })
            }
            Ok(()) => Ok(DeadLetters { files, counters, place: dir, outputs: HashMap::new() }),
        }
    }

    /// Says what the outputs are, by the names that letters come under (`output file.0`): a number says nothing once the
    /// configuration has another order.
    pub fn with_outputs(mut self, outputs: HashMap<String, String>) -> DeadLetters {
        self.outputs = outputs;
        self
    }

    /// Writes letters until every sender is gone, or until nothing is left after `closing` was notified.
    pub async fn run(self, mut letters: LetterBox, closing: Arc<Notify>) {
        let DeadLetters { mut files, counters, place, outputs } = self;
        let outputs = Arc::new(outputs);
        let mut ending = false;
        loop {
            let first = tokio::select! {
                biased;
                letter = letters.recv(), if !ending => letter,
                () = closing.notified(), if !ending => {
                    ending = true;
                    continue;
                }
                () = std::future::ready(()), if ending => letters.try_recv(),
            };
            let Some(first) = first else { return };
            let mut batch = Batch { letters: vec![first], at: (0, 0), lines: 0 };
            batch.letters.extend(std::iter::from_fn(|| letters.try_recv()).take(BATCH - 1));
            let (mut wait, mut failed) = (FIRST, None::<String>);
            loop {
                let outputs = Arc::clone(&outputs);
                let done = tokio::task::spawn_blocking(move || {
                    let result = batch.write(&mut files, &outputs);
                    (files, batch, result)
                });
                // It panicked, or the runtime is ending: the letters were dropped, and their senders know it.
                let Ok((f, b, result)) = done.await else { return };
                (files, batch) = (f, b);
                let Err(e) = result else { break };
                let cause = e.to_string();
                if failed.as_ref() != Some(&cause) {
                    tracing::error!(path = %place.display(), %cause, letters = batch.letters.len(),
                        "cannot write dead letters, they wait");
                    failed = Some(cause);
                }
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = closing.notified(), if !ending => ending = true,
                }
                // At the end nothing waits out a back-off.
                wait = if ending { FIRST } else { (wait * 2).min(LAST) };
            }
            if failed.is_some() {
                tracing::info!(path = %place.display(), "dead letters are written again");
            }
            counters.written.fetch_add(batch.lines, Relaxed);
            batch.letters.into_iter().for_each(|letter| (letter.kept)());
        }
    }
}

impl Batch {
    /// Writes what is not written yet, and syncs. After an error it is called again.
    fn write(&mut self, files: &mut Files, outputs: &HashMap<String, String>) -> io::Result<()> {
        files.check()?;
        let now = Time::now();
        let mut lines = Vec::new();
        while self.at.0 < self.letters.len() {
            lines.clear();
            let mut next = self.at;
            while let Some(letter) = self.letters.get(next.0)
                && lines.len() < WRITE
            {
                let output = outputs.get(&*letter.from).map(String::as_str);
                next = line::write(letter, output, next.1, now, WRITE, &mut lines)
                    .map_or((next.0 + 1, 0), |at| (next.0, at));
            }
            files.append(&lines)?;
            self.lines += memchr::memchr_iter(b'\n', &lines).count() as u64;
            self.at = next;
        }
        files.sync().inspect_err(|_| {
            // Nothing of it is known to be on disk: all of it once more, into another file.
            (self.at, self.lines) = ((0, 0), 0);
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::record::Tag;
    use crate::rt::{Budget, Content, Letters};

    fn letter(bytes: &[u8], kept: impl FnOnce() + Send + 'static) -> Letter {
        let charge = Budget::new(1000).take(0);
        Letter {
            from: "input forward.0".into(),
            reason: "undecodable",
            detail: "torn".into(),
            content: Content::Raw { tag: Tag::new(b"t"), bytes: bytes.to_vec().into(), count: 1, charge },
            kept: Box::new(kept),
        }
    }

    fn lines(dir: &Path) -> usize {
        fs::read_to_string(dir.join(NAME)).map_or(0, |text| text.lines().count())
    }

    #[tokio::test]
    async fn a_letter_is_kept_once_it_is_on_disk_and_the_writer_ends_with_its_senders() {
        let dir = tempfile::tempdir().unwrap();
        let counters = Arc::<Counters>::default();
        let dead = DeadLetters::open(dir.path().join("d"), 1 << 20, Arc::clone(&counters)).unwrap();
        let (letters, inbox) = Letters::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let send = async {
            for _ in 0..200 {
                let (seen, at) = (Arc::clone(&seen), dir.path().join("d"));
                letters.send(letter(b"x", move || seen.lock().unwrap().push(lines(&at)))).await;
            }
            drop(letters);
        };
        tokio::join!(send, dead.run(inbox, Arc::default()));
        let seen = seen.lock().unwrap();
        assert_eq!((seen.len(), counters.written.load(Relaxed)), (200, 200));
        assert!(seen.iter().enumerate().all(|(i, lines)| *lines > i), "{seen:?}");
    }

    #[tokio::test]
    async fn after_the_last_call_what_waits_is_written_though_senders_live_on() {
        let dir = tempfile::tempdir().unwrap();
        let dead = DeadLetters::open(dir.path().to_owned(), 1 << 20, Arc::default()).unwrap();
        let (letters, inbox) = Letters::new();
        let closing = Arc::new(Notify::new());
        letters.send(letter(b"x", || ())).await;
        closing.notify_one();
        dead.run(inbox, closing).await;
        assert_eq!(lines(dir.path()), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn letters_wait_until_the_directory_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("d");
        fs::write(&place, "a file stands in the way").unwrap();
        let dead = DeadLetters::open(place.clone(), 1 << 20, Arc::default()).unwrap();
        let (letters, inbox) = Letters::new();
        let kept = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&kept);
        letters.send(letter(b"x", move || count.store(1, Relaxed))).await;
        drop(letters);
        let clear = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(kept.load(Relaxed), 0);
            fs::remove_file(&place).unwrap();
        };
        tokio::join!(clear, dead.run(inbox, Arc::default()));
        assert_eq!((kept.load(Relaxed), lines(&place)), (1, 1));
    }
}
