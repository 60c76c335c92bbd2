//! The way to the dead-letter file: what an output gave up, and what an input could not decode.
//!
//! Enters: a [`Letter`] from an output or an input. Leaves: the same letter at the writer, which answers when it is on
//! disk. Bounded: a letter keeps the memory of its records charged, and few letters wait at a time. Can go wrong: the
//! file cannot be written; then the letter waits, and whoever sent it waits with it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Charge;
use crate::record::{Chunk, Tag};

/// Letters that may wait for the writer.
const WAITING: usize = 64;

/// What is in a letter.
pub enum Content {
    /// Records as they were to be delivered.
    Chunk(Arc<Chunk>),
    /// Bytes that could not be read as records, under the tag they came with, and what they take of the budget.
    Raw {
        /// Their tag, empty if even that could not be read.
        tag: Tag,
        /// The bytes as they came.
        bytes: Bytes,
        /// How many records they count for.
        count: u64,
        /// The memory they take.
        charge: Charge,
    },
}

/// Something nobody else would keep.
pub struct Letter {
    /// Who gave it up: `output file.0`, `input forward.0`.
    pub from: Arc<str>,
    /// The class, as in the counter `dropped{reason}`: `rejected`, `retries`, `undecodable`, ...
    pub reason: &'static str,
    /// What exactly was wrong, for a person.
    pub detail: String,
    /// The records or bytes.
    pub content: Content,
    /// Called once it is on disk. Dropped without a call: it could not be kept.
    pub kept: Box<dyn FnOnce() + Send>,
}

/// The sending side; clone it freely.
#[derive(Clone)]
pub struct Letters(mpsc::Sender<Letter>);

/// The writer's side.
pub struct LetterBox(mpsc::Receiver<Letter>);

impl Letters {
    /// A way to a writer.
    pub fn new() -> (Letters, LetterBox) {
        let (tx, rx) = mpsc::channel(WAITING);
        (Letters(tx), LetterBox(rx))
    }

    /// Waits for room, then hands the letter over. When the writer is gone the letter is dropped: not kept.
    pub async fn send(&self, letter: Letter) {
        drop(self.0.send(letter).await);
    }
}

impl LetterBox {
    /// The next letter; `None` when every sender is gone and nothing is left.
    pub async fn recv(&mut self) -> Option<Letter> {
        self.0.recv().await
    }

    /// The next letter if one is there.
    pub fn try_recv(&mut self) -> Option<Letter> {
        self.0.try_recv().ok()
    }
}
