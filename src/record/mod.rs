//! The one currency: tags, times, chunks, the editable view of a record, and the handle that carries a verdict back.
//!
//! Enters: bytes of msgpack entries from an input. Leaves: the same bytes, or edited ones, to the outputs.
//! Nothing here does I/O.

mod ack;
mod chunk;
mod tag;
mod time;
mod view;

pub use ack::{Ack, AckWait, Verdict};
pub use chunk::{Chunk, HELD_COUNT_BITS, Seg};
pub use tag::Tag;
pub use time::Time;
pub use view::{Field, Fields, Place, Record, Scratch, Span};
