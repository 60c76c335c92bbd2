//! The inside of a JSON string with escapes, unescaped in runs of 32 bytes.
//!
//! Enters: text after a string's opening quote, and a block to write to. Leaves: how much was read and written, and whether
//! the string is over. Stops before what it does not know (`\u`, what is no escape, the last bytes of the text), which is
//! for whoever calls. Can go wrong: nothing; a block is as long as what may be written between two looks.
//!
//! JSON within a string, the commonest log line, has an escape every eight bytes, nearly all of them `\"`: there it is
//! enough to leave the backslash out. What follows an escape is copied 32 bytes at a time, and what is after the next escape
//! is written over.

use super::json::mask::{RUN, structure};

/// Bytes of a block.
pub(super) const BLOCK: usize = 320;
/// A run, and what is read beyond it.
const WINDOW: usize = 2 * RUN;

/// What a backslash and this byte stand for; 0: something longer, or nothing.
pub(super) const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[b'/' as usize] = b'/';
    table[b'n' as usize] = b'\n';
    table[b't' as usize] = b'\t';
    table[b'r' as usize] = b'\r';
    table[b'b' as usize] = 0x08;
    table[b'f' as usize] = 0x0c;
    table
};

/// What was done.
pub(super) struct Unescaped {
    /// Bytes read, the closing quote among them.
    pub(super) read: usize,
    /// Bytes written.
    pub(super) written: usize,
    /// The closing quote was read.
    pub(super) over: bool,
}

/// Unescapes as much as it can.
#[inline]
pub(super) fn unescape(text: &[u8], block: &mut [u8; BLOCK]) -> Unescaped {
    const LAST: usize = RUN - 1;
    let (mut read, mut written) = (0, 0);
    while let Some(window) = text.get(read..).and_then(|rest| rest.first_chunk::<WINDOW>())
        && let Some(run) = window.first_chunk::<RUN>()
        && written + WINDOW <= BLOCK
    {
        let (backslashes, quotes) = structure(run);
        // Those that escapes do not make plain bytes of; they are taken out as it goes.
        let mut open = backslashes | quotes;
        let mut from = 0;
        loop {
            let (Some(plain), Some(place)) =
                (window.get(from..from + RUN), block.get_mut(written..written + RUN))
            else {
                return Unescaped { read: read + from, written, over: false };
            };
            place.copy_from_slice(plain);
            // 32: there is none.
            let at = open.trailing_zeros() as usize;
            written += at - from;
            if at == RUN {
                read += RUN;
                break;
            }
            if quotes >> at & 1 == 1 {
                return Unescaped { read: read + at + 1, written, over: true };
            }
            from = at + 1;
            // What stands for itself goes with what follows it.
            if at == LAST || open >> from & 1 == 0 {
                let kind = window.get(from).and_then(|kind| ESCAPES.get(usize::from(*kind)));
                let (Some(byte @ 1..), Some(place)) = (kind, block.get_mut(written)) else {
                    return Unescaped { read: read + at, written, over: false };
                };
                *place = *byte;
                written += 1;
                from += 1;
            }
            if at == LAST {
                read += RUN + 1;
                break;
            }
            open &= !(3 << at);
        }
    }
    Unescaped { read, written, over: false }
}
